"""Each metric against its closed form or an independent implementation, and what only it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import f1_score

from haversack import metrics
from haversack.base.errors import JobError
from haversack.metrics.kl import log_softmax
from haversack.metrics.spearman import Spearman, mean_ranks


def value(name, output, expected, **options):
    return metrics.SHELF.build(name, options)((np.asarray(output, np.float32),), np.asarray(expected))


LOGITS = [[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 5.0], [1.0, 1.0, 0.0]]


def test_top1_counts_right_labels():
    assert value("top1", LOGITS, [1, 0, 2, 1]) == 0.75  # of the tie in the last row the first counts


def test_top1_standard_error_is_that_of_a_mean():
    state = metrics.SHELF.build("top1").start()
    state.update((np.asarray(LOGITS, np.float32),), np.array([1, 0, 2, 1]))
    scores = np.array([1.0, 1.0, 1.0, 0.0])
    assert state.scores().tolist() == scores.tolist()
    assert state.standard_error() == pytest.approx(scores.std(ddof=1) / 2)


@pytest.mark.parametrize("name", ["top1", "f1"])
@pytest.mark.parametrize(
    "output, expected, words",
    [
        (LOGITS, [1, 0, 2, 3], "labels from 0 to 3 for 3 classes"),
        (LOGITS, [1, 0, 2, -1], "labels from -1 to 2"),
        (LOGITS, [[1], [0], [2], [1]], r"shape \(4, 1\), but labels are \[n\]"),
        (LOGITS, [1.0, 0.0, 2.0, 1.0], "dtype float64, but .* takes integer values"),
        ([[1.0], [2.0]], [0, 0], "an arg-max needs at least two"),
        ([1.0, 2.0], [0, 0], r"shape \(2,\): .* takes 2 dimensions"),
    ],
)
def test_labels_that_do_not_fit_are_refused(name, output, expected, words):
    with pytest.raises(JobError, match=words):
        value(name, output, expected)


def test_agreement_compares_choices_not_values():
    other = [[0.0, 9.0, 1.0], [0.1, 0.0, 0.0], [0.0, 6.0, 5.0], [2.0, 0.0, 0.0]]
    assert value("agreement", other, np.asarray(LOGITS)) == 0.75


def test_agreement_refuses_other_shapes():
    with pytest.raises(JobError, match=r"but the float model's is \(4, 2\)"):
        value("agreement", LOGITS, np.zeros((4, 2)))


@given(hnp.arrays(np.float32, (6, 3), elements=st.floats(-9, 9, width=32)))
def test_relative_error_is_the_norm_over_all_values(output):
    wanted = np.arange(1, 19, dtype=np.float32).reshape(6, 3)
    truth = np.linalg.norm(output.astype(np.float64) - wanted) / np.linalg.norm(wanted.astype(np.float64))
    assert value("relative_error", output, wanted) == pytest.approx(truth, rel=1e-9, abs=1e-12)


def test_relative_error_takes_any_rank():
    wanted = np.ones((2, 2, 2, 2))
    assert value("relative_error", wanted * 1.5, wanted) == pytest.approx(0.5)


def test_relative_error_to_zero_is_an_error_not_a_number():
    with pytest.raises(JobError, match="metric relative_error returned") as caught:
        value("relative_error", np.ones((2, 3)), np.zeros((2, 3)))
    assert "all-zero" in caught.value.next_step


def test_mean_squared_error():
    assert value("mean_squared_error", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [3.0, 7.0]]) == (4 / 2 + 9 / 2) / 2
    with pytest.raises(JobError, match="but the expected values'"):
        value("mean_squared_error", [[1.0, 2.0]], [[1.0]])


def test_kl_of_two_classes_by_hand():
    p, q = 0.8, 0.5
    truth = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    wanted = np.log([[p, 1 - p]])
    assert value("kl", np.log([[q, 1 - q]]), wanted) == pytest.approx(truth, rel=1e-6)


@given(
    hnp.arrays(np.float32, (3, 2, 4), elements=st.floats(-50, 50, width=32)),
    hnp.arrays(np.float32, (3, 2, 4), elements=st.floats(-50, 50, width=32)),
    st.floats(-5, 5, width=16),
)
def test_kl_is_never_negative_and_blind_to_a_shift(output, wanted, shift):
    divergence = value("kl", output, wanted)
    assert divergence >= -1e-12
    assert value("kl", output, output) == 0
    assert value("kl", output + np.float32(shift), wanted) == pytest.approx(divergence, rel=1e-4, abs=1e-4)


def test_kl_refuses_a_vector():
    with pytest.raises(JobError, match="logits are"):
        value("kl", [1.0, 2.0], [1.0, 2.0])


@given(hnp.arrays(np.float64, (2, 5), elements=st.floats(-300, 300)))
def test_log_softmax_sums_to_one_without_overflow(logits):
    assert np.exp(log_softmax(logits)).sum(axis=-1) == pytest.approx([1, 1])


def test_perplexity_of_uniform_logits_is_the_vocabulary():
    assert value("perplexity", np.zeros((2, 3, 11)), np.zeros((2, 3), np.int64)) == pytest.approx(11)


def test_perplexity_leaves_out_what_is_ignored_and_weighs_tokens_alike():
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    tokens = np.array([[1, 2, 3], [4, -100, -100]])
    losses = [-log_softmax(logits)[i, j, tokens[i, j]] for i, j in ((0, 0), (0, 1), (0, 2), (1, 0))]
    assert value("perplexity", logits, tokens) == pytest.approx(math.exp(np.mean(losses)))


def test_perplexity_in_blocks_is_the_same(monkeypatch):
    logits = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    tokens = np.random.default_rng(1).integers(0, 5, (2, 7))
    whole = value("perplexity", logits, tokens)
    monkeypatch.setattr("haversack.metrics.perplexity._BLOCK_VALUES", 10)
    assert value("perplexity", logits, tokens) == whole


@pytest.mark.parametrize(
    "tokens, words",
    [
        (np.zeros((2, 4), np.int64), "the logits' positions are"),
        (np.full((2, 3), 5), "token ids from 5 to 5, but the vocabulary has 5"),
        (np.full((2, 3), -1), "token ids from -1"),
    ],
)
def test_perplexity_refuses_tokens_that_do_not_fit(tokens, words):
    with pytest.raises(JobError, match=words):
        value("perplexity", np.zeros((2, 3, 5)), tokens)


def test_perplexity_of_padding_alone_is_an_error():
    with pytest.raises(JobError, match="returned nan"):
        value("perplexity", np.zeros((1, 2, 3)), np.full((1, 2), -100))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25))
def test_f1_equals_scikit_learn(pairs):
    chosen, labels = (np.array(column) for column in zip(*pairs, strict=True))
    truth = f1_score(labels, chosen, average="macro", zero_division=0)
    assert value("f1", np.eye(4)[chosen], labels) == pytest.approx(truth)


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=40))
def test_spearman_equals_scipy_with_ties(pairs):
    scores, wanted = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    if np.ptp(scores) == 0 or np.ptp(wanted) == 0:
        with pytest.raises(JobError, match="returned nan"):
            value("spearman", scores, wanted)
    else:
        assert value("spearman", scores, wanted) == pytest.approx(spearmanr(scores, wanted).statistic, abs=1e-12)


@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(-3, 3)))
def test_ranks_equal_scipys(values):
    assert mean_ranks(values).tolist() == rankdata(values).tolist()


def test_spearman_takes_a_column():
    scores = np.array([1.0, 3.0, 2.0, 9.0])
    assert value("spearman", scores[:, None], scores) == pytest.approx(1)


def test_spearman_of_pairs_scores_by_cosine():
    angles = np.array([0.1, 0.9, 0.5, 1.4])
    rows = np.stack([np.stack([np.ones(4), np.zeros(4)], 1), np.stack([np.cos(angles), np.sin(angles)], 1)], 1)
    metric = Spearman(pairs=True)
    assert metric.group == 2
    outputs = (rows.reshape(8, 2).astype(np.float32) * np.arange(1, 9, dtype=np.float32)[:, None],)
    assert metric(outputs, -angles) == pytest.approx(1)
    assert metric.rows(outputs, -angles)[:, 0] == pytest.approx(np.cos(angles))


def test_spearman_of_pairs_wants_two_rows_each():
    with pytest.raises(JobError, match=r"6 rows for 4 expected values \(2 rows each\)"):
        Spearman(pairs=True)((np.ones((6, 3), np.float32),), np.zeros(4))


@pytest.mark.parametrize(
    "metric, output, words",
    [
        (Spearman(), np.ones((4, 3)), "Spearman\\(pairs=True\\)"),
        (Spearman(pairs=True), np.ones((8, 1)), "embeddings of pairs"),
        (Spearman(pairs=True), np.zeros((8, 3)), "all zero"),
    ],
)
def test_spearman_says_what_it_takes(metric, output, words):
    with pytest.raises(JobError, match=words):
        metric((output,), np.arange(4.0))


def test_spearman_standard_error_is_near_fishers():
    draw = np.random.default_rng(3)
    wanted = draw.normal(size=400)
    scores = wanted + draw.normal(size=400)
    state = Spearman().start()
    state.update((scores,), wanted)
    rho = state.value()
    theory = (1 - rho**2) * math.sqrt((1 + rho**2 / 2) / (400 - 3))  # Bonett and Wright (2000)
    assert state.standard_error() == pytest.approx(theory, rel=0.2)
    assert state.scores() is None


def test_sum_metric_standard_error_is_near_its_spread_over_data_sets():
    def one(seed):
        draw = np.random.default_rng(seed)
        wanted = draw.normal(size=(60, 4))
        state = metrics.SHELF.build("relative_error").start()
        state.update((wanted + draw.normal(size=wanted.shape) / 10,), wanted)
        return state.value(), state.standard_error()

    values, errors = zip(*(one(seed) for seed in range(200)), strict=True)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)
