"""Each operation against its closed form or an independent implementation, and what only it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from haversack.base.errors import JobError, UsageError
from haversack.tools.data.preprocess import SHELF
from haversack.tools.data.preprocess.log_mel import LogMel
from haversack.tools.data.preprocess.resize import Resize, triangle

SIDES = st.integers(1, 40)


def operation(name, **options):
    return SHELF.build(name, options)


def noise(height, width, rows=1):
    return np.random.default_rng(height * 97 + width).integers(0, 256, (rows, height, width, 3)).astype(np.uint8)


def pillow(image, height, width):
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@settings(max_examples=60)
@given(SIDES, SIDES, SIDES, SIDES)
def test_resize_of_uint8_is_pillows_bit_for_bit_width_first(height, width, to_height, to_width):
    raw = noise(height, width)
    truth = pillow(pillow(raw[0], height, to_width), to_height, to_width)
    got = operation("resize", height=to_height, width=to_width)(raw)
    assert np.array_equal(got[0], truth)


@pytest.mark.parametrize("height, width", [(375, 500), (500, 375), (333, 500), (256, 256), (120, 700)])
def test_resize_of_photographs_is_pillows_whatever_order_it_chooses(height, width):
    raw = noise(height, width)
    got = operation("resize")(raw)[0]
    truth = pillow(raw[0], *got.shape[:2])
    assert np.abs(got.astype(int) - truth).max() <= 1


@given(SIDES, SIDES, SIDES, SIDES)
def test_resize_of_float_keeps_constants_and_bounds(height, width, to_height, to_width):
    resize = Resize(height=to_height, width=to_width)
    constant = np.full((2, height, width, 1), 0.3, np.float32)
    assert resize(constant).shape == (2, to_height, to_width, 1)
    assert resize(constant) == pytest.approx(0.3, rel=1e-6)
    values = noise(height, width).astype(np.float32)
    assert values.min() - 1e-3 <= resize(values).min() <= resize(values).max() <= values.max() + 1e-3


def test_resize_of_float_is_pillows_up_to_rounding():
    values = np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32)
    truth = np.asarray(Image.fromarray(values).resize((33, 71), Image.Resampling.BILINEAR))
    assert operation("resize", height=71, width=33)(values[None, :, :, None])[0, :, :, 0] == pytest.approx(
        truth, abs=1e-5
    )


def test_growing_interpolates_between_half_pixel_centres():
    row = np.array([0.0, 1.0], np.float32).reshape(1, 1, 2, 1)
    assert Resize(height=1, width=4)(row).reshape(-1).tolist() == [0, 0.25, 0.75, 1]


def test_halving_weighs_a_triangle():
    taps, weights = triangle(8, 4)
    kept = {int(tap): float(weight) for tap, weight in zip(taps[1], weights[1], strict=True) if weight}
    assert kept == pytest.approx({1: 1 / 8, 2: 3 / 8, 3: 3 / 8, 4: 1 / 8})


@given(SIDES, SIDES)
def test_weights_add_up_to_one(length, wanted):
    taps, weights = triangle(length, wanted)
    assert weights.sum(axis=1) == pytest.approx(np.ones(wanted))
    assert taps.min() >= 0
    assert taps.max() < length


@pytest.mark.parametrize(
    "height, width, size",
    [(375, 500, (256, 341)), (500, 375, (341, 256)), (64, 64, (256, 256)), (100, 101, (256, 258))],
)
def test_the_short_side_keeps_the_ratio(height, width, size):
    assert Resize().size(height, width) == size


def test_resize_to_the_same_size_is_the_same():
    raw = noise(9, 7)
    assert np.array_equal(Resize(height=9, width=7)(raw), raw)


def test_center_crop():
    raw = np.arange(25, dtype=np.int64).reshape(1, 5, 5, 1)
    crop = operation("center_crop", height=2, width=3)(raw)
    assert crop[0, :, :, 0].tolist() == [[6, 7, 8], [11, 12, 13]]
    with pytest.raises(JobError, match="5 x 5 pixels are fewer than 6 x 2: resize or pad first"):
        operation("center_crop", height=6, width=2)(raw)


def test_scale_computes_in_float32():
    raw = np.arange(256, dtype=np.uint8)[None]
    result = operation("scale")(raw)
    assert result.dtype == np.float32
    assert np.array_equal(result[0], np.arange(256, dtype=np.float32) * np.float32(1 / 255))
    assert operation("scale", factor=2.0, offset=-1.0)(raw)[0, :3].tolist() == [-1, 1, 3]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "float64"])
def test_scale_rounds_to_float32_before_it_multiplies(dtype):
    most = int(np.iinfo(dtype).max) if dtype[0] in "ui" else 1
    raw = np.array([[0, 1, min(100, most), most]], dtype)
    wanted = raw.astype(np.float32) * np.float32(0.3) + np.float32(-7)
    assert np.array_equal(operation("scale", factor=0.3, offset=-7.0)(raw), wanted)


@pytest.mark.parametrize(
    "raw, options",
    [
        (np.array([[200]], np.uint8), {"factor": 3e38}),
        (np.array([[200]], np.uint8), {"factor": 1.0, "offset": 3.5e38}),
        (np.array([[-(1 << 62)]]), {"factor": 3e20}),
        (np.array([[np.inf]]), {}),
        (np.array([[np.nan]], np.float32), {}),
    ],
)
def test_scale_makes_nothing_that_is_not_finite_out_of_any_dtype(raw, options):
    with np.errstate(over="ignore"), pytest.raises(JobError, match="NaN or infinite"):
        operation("scale", **options)(raw)


def test_normalize_channels_last_and_first_are_the_same():
    raw = np.random.default_rng(0).random((2, 4, 5, 3)).astype(np.float32)
    last = operation("normalize")(raw)
    first = operation("normalize", axis=1)(np.ascontiguousarray(raw.transpose(0, 3, 1, 2)))
    assert np.array_equal(first.transpose(0, 2, 3, 1), last)
    assert last[0, 0, 0, 1] == pytest.approx((raw[0, 0, 0, 1] - 0.456) / 0.224, rel=1e-5)


def test_normalize_refuses_other_channels_axes_and_dtypes():
    with pytest.raises(JobError, match="it has 4 channels, mean and std have 3"):
        operation("normalize")(np.zeros((1, 2, 2, 4), np.float32))
    with pytest.raises(JobError, match="no channel axis 5"):
        operation("normalize", axis=5)(np.zeros((1, 2, 2, 3), np.float32))
    with pytest.raises(JobError, match="it takes float32"):
        operation("normalize")(np.zeros((1, 2, 2, 3), np.uint8))


def test_to_chw():
    raw = noise(2, 3, rows=2)
    assert np.array_equal(operation("to_chw")(raw), np.moveaxis(raw, 3, 1))


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from(["start", "center"]))
def test_pad_gives_the_length_and_keeps_the_data(length, wanted, place):
    raw = np.arange(1, 1 + 2 * length, dtype=np.int32).reshape(2, length)
    result = operation("pad", length=wanted, value=-7, place=place, cut=True)(raw)
    assert result.shape == (2, wanted)
    kept = result[result != -7].reshape(2, -1)
    assert kept.shape[1] == min(length, wanted)
    start = (length - kept.shape[1]) // 2 if place == "center" else 0
    assert np.array_equal(kept, raw[:, start : start + kept.shape[1]])
    before = (wanted - kept.shape[1]) // 2 if place == "center" else 0
    assert (result[:, :before] == -7).all()
    assert (result[:, before : before + kept.shape[1]] != -7).all()


def test_pad_refuses_what_it_would_lose():
    with pytest.raises(JobError, match="axis 1 has 5 > 3: say cut = true"):
        operation("pad", length=3)(np.zeros((1, 5)))
    with pytest.raises(JobError, match="the value -1.0 does not fit uint8"):
        operation("pad", length=9, value=-1)(np.zeros((1, 5), np.uint8))
    with pytest.raises(JobError, match="the value 0.5 does not fit int64"):
        operation("pad", length=9, value=0.5)(np.zeros((1, 5), np.int64))
    with pytest.raises(JobError, match="no axis 2 beside the batch"):
        operation("pad", axis=2, length=9)(np.zeros((1, 5)))
    assert operation("pad", length=2, value=1)(np.zeros((1, 1), bool)).tolist() == [[False, True]]


def tone(hertz, rate=16000, seconds=0.2, height=1.0):
    return (height * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)[None]


@pytest.mark.parametrize("mel", ["htk", "slaney"])
@pytest.mark.parametrize("hertz", [300.0, 1000.0, 3000.0, 6000.0])
def test_a_tone_is_loudest_in_its_own_band(mel, hertz):
    part = LogMel(mel=mel)
    loudest = part(tone(hertz))[0].mean(axis=1).argmax()
    column = round(hertz / (part.rate / part.fft))
    assert part.filters()[loudest, column - 1 : column + 2].max() > 0


def test_the_number_of_frames_has_no_padding():
    for samples in (400, 559, 560, 3200):
        assert LogMel()(tone(440)[:, :samples]).shape == (1, 40, 1 + (samples - 400) // 160)


def test_twice_as_loud_is_log_four_more():
    difference = LogMel()(tone(1000, height=1.0)) - LogMel()(tone(1000, height=0.5))
    assert difference[0].max(axis=1)[10:14] == pytest.approx(np.log(4), abs=1e-3)


def test_silence_is_the_floor():
    assert LogMel(floor=1e-6)(np.zeros((1, 800), np.float32)) == pytest.approx(np.log(1e-6))


def test_neighbouring_htk_filters_add_up_to_one():
    filters = LogMel(bands=20).filters()
    inside = slice(filters[0].argmax() + 1, filters[-1].argmax())
    assert filters.sum(axis=0)[inside] == pytest.approx(1)
    assert filters.max() <= 1


def test_slaney_filters_have_area_one():
    part = LogMel(fft=8192, window=400, mel="slaney")
    assert part.filters().sum(axis=1) * part.rate / part.fft == pytest.approx(1, rel=0.01)


def test_one_frame_by_hand():
    part = LogMel(window=8, hop=8, fft=8, bands=1, rate=8, floor=1e-12)
    raw = np.arange(8, dtype=np.float32)[None]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(8) / 8)
    angles = np.exp(-2j * np.pi * np.outer(np.arange(5), np.arange(8)) / 8)
    power = np.abs(angles @ (raw[0] * hann)) ** 2
    assert part(raw)[0, 0, 0] == pytest.approx(np.log(part.filters()[0] @ power), rel=1e-5)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("resize", {"height": 3}, "height and width must both be given"),
        ("resize", {"short_side": 0}, "short_side must be at least 1"),
        ("center_crop", {"width": 0}, "height and width must be at least 1"),
        ("normalize", {"mean": [0.0]}, "mean has 1 values and std 3"),
        ("normalize", {"mean": [0.0], "std": [0.0]}, "std finite and positive"),
        ("scale", {"factor": float("inf")}, "must be finite"),
        ("pad", {"axis": 0}, "axis not 0"),
        ("pad", {"place": "end"}, "place"),
        ("log_mel", {"fft": 256}, "fft at least window"),
        ("log_mel", {"low": 9000.0}, "low < high"),
        ("log_mel", {"high": 9000.0}, "rate / 2"),
        ("log_mel", {"floor": 0.0}, "floor must be positive"),
        ("log_mel", {"mel": "bark"}, "mel"),
        ("log_mel", {"hop": 1.5}, "hop: 1.5 is not a value of type int"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, options, words):
    with pytest.raises(UsageError, match=words):
        operation(name, **options)


def test_audio_shorter_than_a_window_is_refused():
    with pytest.raises(JobError, match="300 samples are fewer than a window of 400: pad first"):
        LogMel()(np.zeros((1, 300), np.float32))
