"""Every metric against another library's, on any data; and what holds of all of them however samples come."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.special import log_softmax as scipy_log_softmax
from sklearn import metrics as sklearn_metrics

from haversack import metrics
from haversack.metrics.kl import log_softmax

CLASSES = 4
SCORES = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 20), st.just(CLASSES)), elements=st.integers(-40, 40).map(lambda n: n / 8)
)


def state_of(name, output, expected, **given_settings):
    state = metrics.SHELF.build(name, given_settings).start()
    state.update((np.asarray(output),), np.asarray(expected))
    return state


def labels_for(scores, seed):
    return np.random.default_rng(seed).integers(0, CLASSES, len(scores))


@given(SCORES, st.integers(0, 99))
def test_top1_equals_scikit_learn(scores, seed):
    labels = labels_for(scores, seed)
    truth = sklearn_metrics.accuracy_score(labels, scores.argmax(axis=1))
    assert state_of("top1", scores, labels).value() == pytest.approx(truth)


@given(SCORES, st.integers(0, 99))
def test_perplexity_is_the_exponential_of_scikit_learns_log_loss(scores, seed):
    labels = labels_for(scores, seed)
    found = state_of("perplexity", scores[:, None], labels[:, None]).value()
    # In float64 and renormalized: scikit-learn warns of rows that miss 1 by float32's rounding.
    chances = np.exp(scipy_log_softmax(scores.astype(np.float64), axis=1))
    chances /= chances.sum(axis=1, keepdims=True)
    assert math.log(found) == pytest.approx(
        sklearn_metrics.log_loss(labels, chances, labels=range(CLASSES)), rel=1e-6, abs=1e-9
    )


@given(SCORES, st.integers(0, 99))
def test_kl_equals_scipys_entropy(scores, seed):
    wanted = np.random.default_rng(seed).normal(size=scores.shape).astype(np.float32)
    p, q = (np.exp(scipy_log_softmax(one.astype(np.float64), axis=1)) for one in (wanted, scores))
    assert state_of("kl", scores, wanted).value() == pytest.approx(stats.entropy(p, q, axis=1).mean(), rel=1e-6)


@given(SCORES)
def test_log_softmax_equals_scipys(scores):
    np.testing.assert_allclose(
        log_softmax(scores), scipy_log_softmax(scores.astype(np.float64), axis=-1), rtol=1e-9, atol=1e-12
    )


@given(SCORES, st.integers(0, 99))
def test_mean_squared_error_equals_scikit_learn(scores, seed):
    wanted = np.random.default_rng(seed).normal(size=scores.shape).astype(np.float32)
    truth = sklearn_metrics.mean_squared_error(wanted.astype(np.float64), scores.astype(np.float64))
    assert state_of("mean_squared_error", scores, wanted).value() == pytest.approx(truth, rel=1e-6)


@given(SCORES, st.integers(0, 99))
def test_agreement_is_the_accuracy_of_the_float_models_choice(scores, seed):
    other = np.random.default_rng(seed).normal(size=scores.shape).astype(np.float32)
    truth = sklearn_metrics.accuracy_score(other.argmax(axis=1), scores.argmax(axis=1))
    assert state_of("agreement", scores, other).value() == pytest.approx(truth)


@given(SCORES, st.integers(0, 99))
def test_standard_errors_of_means_are_scipys(scores, seed):
    labels = labels_for(scores, seed)
    rows = scores.argmax(axis=1) == labels
    assert state_of("top1", scores, labels).standard_error() == pytest.approx(stats.sem(rows.astype(float)))
    other = np.random.default_rng(seed).normal(size=scores.shape).astype(np.float32)
    each = np.square(scores.astype(np.float64) - other).mean(axis=1)
    assert state_of("mean_squared_error", scores, other).standard_error() == pytest.approx(stats.sem(each), rel=1e-5)


def test_a_bootstrapped_error_is_near_scipys_own_bootstrap():
    draw = np.random.default_rng(2)
    wanted = draw.normal(size=120)
    scores = (wanted + draw.normal(size=120)).astype(np.float32)
    theirs = stats.bootstrap(
        (scores, wanted), lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False,
        n_resamples=400, method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    assert state_of("spearman", scores, wanted).standard_error() == pytest.approx(theirs.standard_error, rel=0.15)


def drawn(part, samples, seed):
    """Outputs and expected values that fit a part of the shelf: none of them equal by chance."""
    draw = np.random.default_rng(seed)
    if part.ranks == (3,):
        return draw.normal(size=(samples, 3, CLASSES)).astype(np.float32), draw.integers(0, CLASSES, (samples, 3))
    if part.kind == "integer":
        return draw.normal(size=(samples, CLASSES)).astype(np.float32), draw.integers(0, CLASSES, samples)
    shape = (samples,) if 1 in part.ranks else (samples, CLASSES)
    return draw.normal(size=shape).astype(np.float32), draw.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", metrics.SHELF.names())
@pytest.mark.parametrize("seed, samples", [(0, 5), (1, 30)])
def test_the_order_of_the_samples_changes_neither_value_nor_drop(name, seed, samples):
    part = metrics.SHELF.build(name)
    outputs, expected = drawn(part, samples, seed)
    worse, _ = drawn(part, samples, seed + 1)
    order = np.random.default_rng(seed).permutation(samples)
    first, moved = state_of(name, outputs, expected), state_of(name, outputs[order], expected[order])
    assert moved.value() == pytest.approx(first.value(), rel=1e-9)
    drop = first.drop(state_of(name, worse, expected)).value
    again = moved.drop(state_of(name, worse[order], expected[order])).value
    assert again == pytest.approx(drop, rel=1e-9, abs=1e-12)
    back = state_of(name, worse, expected).drop(first)
    assert back.value == pytest.approx(-drop, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", metrics.SHELF.names())
def test_every_sample_given_twice_keeps_the_value_and_narrows_the_error(name):
    part = metrics.SHELF.build(name)
    outputs, expected = drawn(part, 60, 5)
    once = state_of(name, outputs, expected)
    twice = state_of(name, np.concatenate([outputs, outputs]), np.concatenate([expected, expected]))
    assert twice.value() == pytest.approx(once.value(), rel=1e-9)
    assert twice.standard_error() == pytest.approx(once.standard_error() / math.sqrt(2), rel=0.2)


@pytest.mark.parametrize("name", metrics.SHELF.names())
def test_values_of_many_sets_are_those_of_each_alone(name):
    part = metrics.SHELF.build(name)
    outputs, expected = drawn(part, 40, 9)
    rows = part.rows((outputs,), expected)
    sets = np.random.default_rng(1).integers(0, 40, (6, 25))
    together = part.values(rows[sets])
    assert together.shape == (6,)
    for block, found in zip(sets, together, strict=True):
        assert state_of(name, outputs[block], expected[block]).value() == pytest.approx(found, rel=1e-9)
