"""Operations that make inputs worse: against SciPy, by hand, and what holds for all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from haversack.base.errors import JobError, UsageError
from haversack.tools.data.preprocess import SHELF
from haversack.tools.data.preprocess.blur import kernel

NOTHING = {
    "blur": {"sigma": 0.0},
    "noise": {"level": 0.0},
    "brightness": {"factor": 1.0},
    "missing_frames": {"fraction": 0.0},
}
MUCH = {
    "blur": {"sigma": 2.0},
    "noise": {"level": 0.3},
    "brightness": {"factor": 3.0},
    "missing_frames": {"fraction": 0.5},
}
IMAGE_DTYPES = ("uint8", "float32", "float64")


def operation(name, **options):
    return SHELF.build(name, options)


def images(shape, dtype="uint8", seed=0):
    draw = np.random.default_rng(seed)
    return (draw.integers(0, 256, shape) if dtype == "uint8" else draw.normal(size=shape)).astype(dtype)


@pytest.mark.parametrize("name", NOTHING)
@given(
    rows=st.integers(1, 3), height=st.integers(1, 9), width=st.integers(1, 9), channels=st.sampled_from([0, 1, 3]),
    dtype=st.sampled_from(IMAGE_DTYPES), seed=st.integers(0, 99),
)  # fmt: skip
def test_shape_and_dtype_are_kept_and_no_strength_changes_nothing(name, rows, height, width, channels, dtype, seed):
    raw = images((rows, height, width, *([channels] if channels else [])), dtype, seed)
    much, nothing = operation(name, **MUCH[name])(raw), operation(name, **NOTHING[name])(raw)
    assert (much.shape, much.dtype) == (nothing.shape, nothing.dtype) == (raw.shape, raw.dtype)
    assert np.array_equal(nothing, raw)


@pytest.mark.parametrize("name", NOTHING)
@given(cut=st.integers(1, 5), dtype=st.sampled_from(IMAGE_DTYPES))
def test_batches_do_not_matter_and_neither_does_the_order(name, cut, dtype):
    part, raw = operation(name, **MUCH[name]), images((6, 5, 4, 3), dtype)
    whole = part(raw)
    assert np.array_equal(np.concatenate([part(raw[:cut]), part(raw[cut:])]), whole)
    assert np.array_equal(part(raw[::-1]), whole[::-1])
    assert not np.array_equal(whole, raw)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5, 4.0])
@pytest.mark.parametrize("shape", [(2, 17, 12), (2, 17, 12, 3), (2, 1, 5, 1), (1, 2, 2, 4)])
def test_blur_is_scipys(dtype, sigma, shape):
    raw = images(shape, dtype)
    radius = len(kernel(sigma)) // 2
    truth = gaussian_filter1d(raw.astype(np.float64), sigma, axis=2, mode="reflect", radius=radius)
    truth = gaussian_filter1d(truth, sigma, axis=1, mode="reflect", radius=radius)
    assert operation("blur", sigma=sigma)(raw) == pytest.approx(truth, abs=2e-5)


def test_blur_of_bytes_rounds_once():
    raw = images((2, 30, 40, 3))
    truth = operation("blur", sigma=1.3)(raw.astype(np.float64))
    assert np.array_equal(operation("blur", sigma=1.3)(raw), np.rint(truth).astype(np.uint8))
    assert (operation("blur", sigma=9.0)(np.full((1, 7, 5, 1), 255, np.uint8)) == 255).all()


@given(st.floats(0, 30))
def test_weights_are_symmetric_and_add_up_to_exactly_one(sigma):
    weights = kernel(sigma)
    assert weights.sum() == 1
    assert np.array_equal(weights, weights[::-1])
    assert weights.argmax() == len(weights) // 2


def test_sigma_close_to_nothing_changes_nothing():
    raw = images((1, 8, 8, 3), "float32")
    assert np.array_equal(operation("blur", sigma=1e-6)(raw), raw)


def test_blur_of_channels_first_is_that_of_channels_last():
    raw = images((2, 9, 8, 3))
    first = operation("blur", axis=1)(np.ascontiguousarray(raw.transpose(0, 3, 1, 2)))
    assert np.array_equal(first.transpose(0, 2, 3, 1), operation("blur")(raw))


def test_blur_does_not_guess_where_the_channels_are():
    with pytest.raises(JobError, match="axis 1 has 3 and the last 32: say axis = 1 if channels come first, or 3"):
        operation("blur")(images((1, 3, 32, 32)))
    assert operation("blur", axis=3)(images((1, 3, 32, 32))).shape == (1, 3, 32, 32)
    assert operation("blur")(images((1, 3, 32))).shape == (1, 3, 32)


@pytest.mark.parametrize("dtype, span", [("uint8", 255.0), ("float32", 6.0), ("float64", 6.0), ("int16", 2000.0)])
def test_noise_has_the_level_of_the_span(dtype, span):
    raw = np.full((1, 200, 200), 100 if dtype == "uint8" else 0, dtype)
    if dtype != "uint8":
        raw[0, 0, 0], raw[0, 0, 1] = -span / 2, span / 2
    added = operation("noise", level=0.05)(raw).astype(np.float64) - raw
    assert added.std() == pytest.approx(0.05 * span, rel=0.02)
    assert abs(added.mean()) < 0.001 * span


def test_noise_clips_bytes_and_not_floats():
    bytes_ = operation("noise", level=2.0)(images((1, 50, 50)))
    assert {0, 255} <= set(np.unique(bytes_).tolist())
    floats = images((1, 50, 50), "float32")
    assert np.ptp(operation("noise", level=1.0)(floats)) > 1.2 * np.ptp(floats)


@pytest.mark.parametrize("name", ["noise", "missing_frames"])
def test_another_seed_gives_another_result_and_equal_rows_get_the_same(name):
    raw = np.repeat(images((1, 40, 3)), 2, axis=0)
    zero, one = operation(name)(raw), operation(name, seed=1)(raw)
    assert np.array_equal(zero[0], zero[1])
    assert not np.array_equal(zero, one)


def test_a_constant_float_has_no_span_and_so_no_noise():
    raw = np.full((2, 5), 3.5, np.float32)
    assert np.array_equal(operation("noise")(raw), raw)


@pytest.mark.parametrize(
    "raw, factor, expected",
    [
        (np.array([[0, 1, 100, 200]], np.uint8), 1.5, [0, 2, 150, 255]),
        (np.array([[0, 1, 3, 255]], np.uint8), 0.5, [0, 0, 2, 128]),
        (np.array([[-30000, 10, 30000]], np.int16), 2.0, [-32768, 20, 32767]),
        (np.array([[0.25, 0.5, 1.0]], np.float32), 2.0, [0.5, 1.0, 1.0]),
        (np.array([[0.25, 0.5, 1.0]], np.float32), 0.5, [0.125, 0.25, 0.5]),
        (np.array([[-1.0, 0.5, 2.0]], np.float32), 2.0, [-1.0, 1.0, 2.0]),
        (np.array([[-2.0, -1.0]], np.float32), 0.0, [0.0, 0.0]),
    ],
)
def test_brightness_by_hand(raw, factor, expected):
    result = operation("brightness", factor=factor)(raw)
    assert result.dtype == raw.dtype
    assert result[0].tolist() == expected


def test_each_row_has_a_range_of_its_own():
    raw = np.array([[0.0, 1.0, 2.0], [0.0, 4.0, 8.0]], np.float32)
    assert operation("brightness", factor=10.0)(raw).tolist() == [[0, 2, 2], [0, 8, 8]]


@given(frames=st.integers(1, 40), fraction=st.floats(0, 1), rows=st.integers(1, 4))
def test_as_many_frames_are_lost_as_are_asked_for(frames, fraction, rows):
    raw = np.random.default_rng(frames).uniform(1, 2, (rows, frames, 3))
    left = operation("missing_frames", fraction=fraction)(raw)
    lost = (left == 0).all(axis=2)
    assert (lost.sum(axis=1) == (max(1, round(fraction * frames)) if fraction else 0)).all()
    assert np.array_equal(left[~lost], raw[~lost])


def test_rows_lose_frames_of_their_own():
    raw = np.random.default_rng(0).uniform(1, 2, (8, 20))
    assert len({tuple(row) for row in (operation("missing_frames")(raw) == 0).tolist()}) > 1


def test_frames_may_hold_anything():
    assert operation("missing_frames", fraction=1.0)(np.ones((1, 3), bool)).tolist() == [[False] * 3]
    assert operation("missing_frames", fraction=1.0)(np.ones((1, 3), np.int64)).tolist() == [[0] * 3]
    with pytest.raises(JobError, match="no axis 1 beside the batch"):
        operation("missing_frames")(np.ones(3))


@pytest.mark.parametrize("name", ["blur", "noise", "brightness"])
@pytest.mark.parametrize("dtype", ["int64", "bool", "int32"])
def test_token_ids_are_not_made_worse(name, dtype):
    with pytest.raises(JobError, match="it takes uint8 or"):
        operation(name)(np.ones((2, 8, 8), dtype))


def test_blur_takes_images_only():
    with pytest.raises(JobError, match="it takes 3 or 4 dimensions"):
        operation("blur")(np.ones((2, 8), np.float32))


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("blur", {"sigma": -0.1}, "sigma must lie between 0 and 100 pixels"),
        ("blur", {"sigma": float("nan")}, "sigma must lie"),
        ("blur", {"axis": 2}, "axis must be -1 or 3"),
        ("noise", {"level": -1.0}, "level must be finite and at least 0"),
        ("noise", {"level": float("inf")}, "level must be finite"),
        ("brightness", {"factor": -0.5}, "factor must be finite and at least 0"),
        ("missing_frames", {"fraction": 1.5}, "fraction must lie between 0 and 1"),
        ("missing_frames", {"fractoin": 0.5}, "unknown name; did you mean fraction"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, options, words):
    with pytest.raises(UsageError, match=words):
        operation(name, **options)
