"""Numbers as people read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.report import wording

FINITE = st.floats(min_value=-1e15, max_value=1e15, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (0, "0 B"),
        (400, "400 B"),
        (999, "999 B"),
        (999.6, "1.00 kB"),
        (1000, "1.00 kB"),
        (180_000, "180 kB"),
        (999_999, "1.00 MB"),
        (5_020_000, "5.02 MB"),
        (18_573_012, "18.6 MB"),
        (2_500_000_000, "2.50 GB"),
        (-180_000, "−180 kB"),
    ],
)
def test_size(value, text):
    assert wording.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "—"), (0.0421, "0.0421 ms"), (11.84, "11.8 ms"), (1234.5, "1,230 ms"), (9.999, "10.0 ms")],
)
def test_milliseconds(value, text):
    assert wording.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "—"), (0.41, "0.4 s"), (38.2, "38.2 s"), (119.9, "119.9 s"), (135.4, "2 min 15 s")]
)
def test_seconds(value, text):
    assert wording.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "—"), (0.487, "×0.49"), (1.0, "×1.00"), (2.77, "×2.77")])
def test_ratio(value, text):
    assert wording.ratio(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (1.0, "100.0 %"),
        (0.9839, "98.4 %"),
        (0.9999, "99.99 %"),
        (0.99999, "99.999 %"),
        (0.0002, "0.02 %"),
        (0.0, "0.0 %"),
        (1 - 1e-7, "under 100 %"),
        (1 + 1e-7, "over 100 %"),
        (1e-9, "over 0 %"),
        (-1e-9, "under 0 %"),
    ],
)
def test_percent(value, text):
    assert wording.percent(value) == text


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_what_is_not_all_never_reads_as_all(value):
    text = wording.percent(value).removesuffix(" %")
    assert text in {"over 0", "under 100"} or float(text) == pytest.approx(100 * value, abs=0.051)
    assert text not in {"0.0", "0.0000", "100.0", "100.0000"}


@pytest.mark.parametrize(
    ("value", "text"), [(None, "—"), (0.0, "0"), (0.0712, "0.0712"), (0.113, "0.113"), (1.5e-7, "0.000000150")]
)
def test_error(value, text):
    assert wording.error(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "fraction", "—"),
        (0.0, "fraction", "0.00 pt"),
        (-0.0312, "fraction", "−3.12 pt"),
        (0.0312, "fraction", "+3.12 pt"),
        (0.25, "nats", "+0.250 nats"),
        (-2.0, "", "−2.00"),
    ],
)
def test_change(value, unit, text):
    assert wording.change(value, unit) == text


@pytest.mark.parametrize(("value", "text"), [(None, "—"), (0, "0"), (186_000, "186,000"), (-3, "−3")])
def test_count(value, text):
    assert wording.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "—"), (896, "896"), (11_500, "11.5 k"), (10_838_016, "10.8 M"), (4.1e9, "4.10 G")]
)
def test_large(value, text):
    assert wording.large(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "fraction", "—"),
        (0.0027, "fraction", "0.27 pt"),
        (-0.0034, "fraction", "−0.34 pt"),
        (0.01, "fraction", "1.00 pt"),
        (0.25, "nats", "0.250 nats"),
        (3.0, "", "3.00"),
    ],
)
def test_points(value, unit, text):
    assert wording.points(value, unit) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(None, "fraction", "—"), (0.8871, "fraction", "88.7 %"), (12.3456, "nats", "12.35 nats")],
)
def test_quality(value, unit, text):
    assert wording.quality(value, unit) == text


@pytest.mark.parametrize(
    ("low", "high", "unit", "text"),
    [
        (-0.0034, 0.011, "fraction", "−0.34 to 1.10 pt"),
        (-0.1, 0.2, "nats", "−0.100 to 0.200 nats"),
        (None, 0.2, "fraction", ""),
        (0.2, None, "fraction", ""),
    ],
)
def test_interval(low, high, unit, text):
    assert wording.interval(low, high, unit) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (5_200_000, "bytes", "5.20 MB"),
        (12.0, "ms", "12.0 ms"),
        (0.55, "x", "×0.55"),
        (0.01, "fraction", "1.00 pt"),
        (0.3, "nats", "0.300 nats"),
        (None, "bytes", "—"),
    ],
)
def test_amount(value, unit, text):
    assert wording.amount(value, unit) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (400, "bytes", "400 B"),
        (-180_000, "bytes", "180 kB"),
        (0.0004, "x", "×0.0004"),
        (-0.063, "x", "×0.06"),
        (0.00002, "fraction", "0.002 pt"),
        (0.0, "x", "×0.00"),
        (None, "x", "—"),
    ],
)
def test_difference(value, unit, text):
    assert wording.difference(value, unit) == text


@given(st.sampled_from(["bytes", "ms", "x", "fraction", "nats"]), st.floats(min_value=1e-9, max_value=1e12))
def test_a_miss_never_reads_as_nothing(unit, value):
    text = wording.difference(value, unit)
    assert re.search(r"[1-9]", text), text


@pytest.mark.parametrize(
    ("limit", "text"), [("size", "Size"), ("latency_ratio", "Latency against float"), ("energy", "energy")]
)
def test_limit_names(limit, text):
    assert wording.limit_name(limit) == text


@pytest.mark.parametrize(
    ("differing", "compared", "text"),
    [(0, 186_000, "186,000 of 186,000"), (3, 1000, "997 of 1,000"), (-1, 0, "not compared"), (0, 0, "not compared")],
)
def test_exactness(differing, compared, text):
    assert wording.exactness(differing, compared) == text


@pytest.mark.parametrize(
    ("key", "module", "operation"),
    [
        ("features.3.conv:conv2d#0", "features.3.conv", "conv2d#0"),
        ("features.3.conv:conv2d#0:out", "features.3.conv", "conv2d#0:out"),
        ("plain", "plain", ""),
        (":add#0", "add#0", ""),
        (":relu#1:out", "relu#1:out", ""),
    ],
)
def test_keys(key, module, operation):
    assert wording.module(key) == module
    assert wording.operation(key) == operation


@given(FINITE)
def test_no_number_is_written_as_a_power_of_ten(value):
    for word in (wording.size, wording.milliseconds, wording.error, wording.count, wording.large):
        text = word(value)
        assert not re.search(r"e[+-]?\d", text), text
        assert "-" not in text


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_three_digits_keep_the_value(value):
    text = wording.error(value).replace(",", "")
    assert float(text) == pytest.approx(value, rel=5.1e-3)
