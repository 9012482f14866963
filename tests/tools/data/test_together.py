"""From a job's iterables to a drop: checked, preprocessed, batched and scored, the parts fit each other."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr

from haversack.base.errors import JobError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.metrics import resolve
from haversack.metrics.spearman import Spearman
from haversack.tools.data import batches
from haversack.tools.data.golden import observed, synthetic
from haversack.tools.data.preprocess import Pipeline
from haversack.tools.data.samples import checked, checked_pairs

ROOT = Path(__file__).resolve().parents[3]
PORTS = (Port("x", TensorSpec(("batch", 3, 8, 8), "float32")),)
OPERATIONS = (
    {"op": "resize", "short_side": 10},
    {"op": "center_crop", "height": 8, "width": 8},
    {"op": "scale"},
    {"op": "to_chw"},
)


def evaluation(samples=41, size=6):
    """Yield raw images whose label is the brightest channel."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, samples)
    images = draw.integers(0, 80, (samples, 20, 24, 3))
    images[np.arange(samples), :, :, labels] += 40
    for start in range(0, samples, size):
        stop = start + size
        yield (images[start:stop].astype(np.uint8),), labels[start:stop]


def brightest(sample, noise=0.0):
    scores = sample[0].mean(axis=(2, 3))
    return (scores + noise * np.random.default_rng(1).normal(size=scores.shape).astype(np.float32),)


def prepared():
    pipeline = Pipeline.parse(OPERATIONS)
    raw = checked_pairs(evaluation(), None, what="evaluation()")
    return checked_pairs(((pipeline(x), y) for x, y in raw), PORTS, what="evaluation() after preprocess")


def test_a_model_and_a_worse_one_give_a_drop():
    before, after = resolve("top1").start(("scores",)), resolve("top1").start(("scores",))
    for inputs, expected in prepared():
        before.update(brightest(inputs), expected)
        after.update(brightest(inputs, noise=0.2), expected)
    assert before.samples == 41
    assert before.value() == 1
    drop = before.drop(after)
    assert drop.value == pytest.approx(1 - after.value())
    assert drop.low <= drop.value <= drop.high


def test_how_a_set_is_batched_changes_no_score():
    values = []
    for size in (1, 4, 41):
        state = resolve("top1").start()
        for *inputs, expected in batches.rebatch(((*x, y) for x, y in prepared()), size):
            state.update(brightest(inputs), expected)
        values.append((state.value(), state.standard_error(), state.samples))
    assert len(set(values)) == 1


def test_without_preprocessing_raw_images_are_refused_with_what_is_expected():
    with pytest.raises(JobError) as caught:
        list(checked_pairs(evaluation(), PORTS, what="evaluation()"))
    text = str(caught.value)
    assert "x: dtype uint8, expected float32" in text
    assert "x: shape [6, 20, 24, 3], expected [batch, 3, 8, 8]" in text


def test_preprocessing_a_batch_is_preprocessing_its_rows():
    pipeline = Pipeline.parse(OPERATIONS)
    samples = [inputs for inputs, _ in evaluation()]
    whole = batches.digest(pipeline.over(samples))
    assert batches.digest(pipeline.over(batches.rebatch(samples, 1))) == whole
    assert batches.digest(samples) != whole


@given(hnp.array_shapes(min_dims=1, max_dims=5, max_side=9), st.sampled_from(["float32", "float64", "int64", "uint8"]))
def test_only_what_the_ports_say_passes(shape, dtype):
    array = np.ones(shape, dtype)
    fits = shape[1:] == (3, 8, 8) and dtype == "float32"
    if fits:
        assert next(checked([(array,)], PORTS, what="calibration()"))[0] is array
    else:
        with pytest.raises(JobError, match="batch 0 cannot be used"):
            list(checked([(array,)], PORTS, what="calibration()"))


@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 6))
def test_synthetic_inputs_pass_the_checks(seed, count, length):
    ports = (*PORTS, Port("ids", TensorSpec(("batch", "length"), "int64")))
    seen = observed([(np.zeros((1, 3, 8, 8)), np.array([[2, 9]]))], ports)
    made = synthetic(ports, seed, count, ranges=seen, lengths={"length": length})
    assert len(list(checked(made, ports, what="golden()"))) == count
    assert all(2 <= ids.min() <= ids.max() <= 9 for _, ids in made)


@pytest.fixture(scope="module")
def sentences():
    """Return pairs of sentences and their similarity; missing data fail under CI and are skipped elsewhere."""
    folder = Path(os.environ.get("HAVERSACK_DATA", ROOT / ".." / "shared" / "data")) / "stsb"
    if not folder.is_dir():
        message = f"stsb is not at {folder}: set HAVERSACK_DATA"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)
    with (folder / "sts-dev.csv").open(encoding="utf-8") as stream:
        rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(row[5], row[6], float(row[4])) for row in rows]


def words(text, width=512):
    """Embed a text by counting its words in buckets: a weak model, but a real one."""
    counts = np.full(width, 1e-3)
    for word in text.lower().split():
        counts[sum(word.encode()) * 31 % width] += 1
    return counts


def test_pairs_of_real_sentences_are_scored_as_scipy_would(sentences):
    def pairs(size=64):
        for start in range(0, len(sentences), size):
            part = sentences[start : start + size]
            rows = np.stack([words(text) for first, second, _ in part for text in (first, second)])
            yield (rows.astype(np.float32),), np.array([score for _, _, score in part])

    metric = Spearman(pairs=True)
    state = metric.start()
    for inputs, expected in checked_pairs(pairs(), None, what="evaluation()", group=2):
        state.update(inputs, expected)
    first, second = (np.stack([words(pair[side]) for pair in sentences]).astype(np.float32) for side in (0, 1))
    cosine = (first * second).sum(1, dtype=float) / np.sqrt(np.square(first).sum(1) * np.square(second).sum(1))
    truth = spearmanr(cosine, [pair[2] for pair in sentences]).statistic
    assert state.samples == len(sentences) == 1500
    assert state.value() == pytest.approx(truth, abs=2e-3)
    assert 0.01 < state.standard_error() < 0.05
