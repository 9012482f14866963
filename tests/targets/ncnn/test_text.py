"""The .param file: what is written is read again, and what ncnn's parser would stumble over is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import VerificationError
from haversack.targets.ncnn import text
from haversack.targets.ncnn.text import Line, Malformed, parse, to_text

NAMES = st.text(st.characters(codec="ascii", exclude_categories=("Z", "C")), min_size=1, max_size=12)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(st.integers(-(1 << 31), (1 << 31) - 1), FLOATS)
SETTINGS = st.dictionaries(st.integers(0, 31), st.one_of(NUMBERS, st.lists(NUMBERS, max_size=4).map(tuple)), max_size=5)


@st.composite
def networks(draw):
    """Lines whose blobs flow: each reads what was made and not yet read."""
    names = draw(st.lists(NAMES, min_size=2, max_size=8, unique=True))
    free, lines = [], []
    for number, name in enumerate(names):
        count = draw(st.integers(0, min(2, len(free))))
        inputs, free = tuple(free[:count]), [*free[count:], name]
        lines.append(Line("Any", f"{number}{name}", inputs, (name,), draw(SETTINGS)))
    return lines


@given(networks())
def test_what_is_written_is_read(lines):
    found = parse(to_text(lines).encode(), "any")
    assert [(one.type, one.name, one.inputs, one.outputs) for one in found] == [
        (one.type, one.name, one.inputs, one.outputs) for one in lines
    ]
    for mine, theirs in zip(found, lines, strict=True):
        assert mine.settings.keys() == theirs.settings.keys()
        for number, value in theirs.settings.items():
            kept = mine.settings[number]
            np.testing.assert_array_equal(np.float32(kept), np.float32(value))
            assert isinstance(kept, tuple) is isinstance(value, tuple)


@given(FLOATS)
def test_a_float_stays_itself_and_a_float(value):
    (line,) = parse(to_text([Line("Any", "a", (), ("a",), {3: value})]).encode(), "any")
    assert isinstance(line.settings[3], float)
    assert np.float32(line.settings[3]).tobytes() == np.float32(value).tobytes()


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else_happens(data):
    with pytest.raises(VerificationError, match="no ncnn .param file"):
        parse(data, "any")


@given(networks(), st.data())
def test_a_changed_byte_is_read_or_refused(lines, data):
    whole = bytearray(to_text(lines).encode())
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse(bytes(whole), "any")
    except VerificationError as error:
        assert error.where == "any"
    else:
        assert len(found) == len(lines)


def two(*lines, layers=None, blobs=None):
    """Return a file of these lines."""
    layers = len(lines) if layers is None else layers
    return "\n".join(["7767517", f"{layers} {len(lines) if blobs is None else blobs}", *lines]).encode()


INPUT = "Input x 0 1 x 0=4"
SPOILED = {
    "it does not begin with ncnn's number": b"7767518\n1 1\n" + INPUT.encode(),
    "layers and blobs and has 1 lines": two(INPUT, layers=2),
    "it tells 5 blobs and has 1": two(INPUT, blobs=5),
    "layers and blobs and has 0 lines": two(),
    "line 3 is no layer": two("Input x"),
    "line 4 is no layer": two(INPUT, "ReLU y one 1 x y"),
    "line 4: 2 inputs and 1 outputs are not there": two(INPUT, "ReLU y 2 1 x"),
    "line 3: no parameter 32": two("Input x 0 1 x 32=1"),
    "line 3: no parameter 0": two("Input x 0 1 x 0=1 0=2"),
    "line 3: no parameter -1": two("Input x 0 1 x -1=1"),
    "line 3: no parameter -23332": two("Input x 0 1 x -23332=0"),
    "an array tells 3 values and has 1": two("Input x 0 1 x -23300=3,1"),
    "an array tells  values and has 0": two("Input x 0 1 x -23300="),
    "2147483648 is no int32": two("Input x 0 1 x 0=2147483648"),
    "y reads z, which no layer before it gives": two(INPUT, "ReLU y 1 1 z y"),
    "x is given twice": two(INPUT, "ReLU y 0 1 x"),
    "x is read twice without a Split": two(INPUT, "ReLU y 1 1 x y", "ReLU z 1 1 x z"),
    "invalid literal": two("Input x 0 1 x zero=1"),
    "could not convert": two("Input x 0 1 x 0=1.2.3"),
    "are not there": two(f"Input {'x' * 256} 0 1 x"),
    "'utf-8' codec": b"\xff\xfe7767517",
}


@pytest.mark.parametrize("cause", SPOILED)
def test_a_spoiled_file_is_refused_with_its_cause(cause):
    with pytest.raises(VerificationError) as caught:
        parse(SPOILED[cause], "model.param")
    assert cause in caught.value.cause
    assert (caught.value.where, caught.value.next_step) == ("model.param", "lower the model again")


def test_a_file_is_read_with_bounds(monkeypatch):
    assert len(parse(two(INPUT), "any")) == 1
    monkeypatch.setattr(text, "LARGEST", 10)
    with pytest.raises(VerificationError, match="are more than 10"):
        parse(two(INPUT), "any")
    monkeypatch.setattr(text, "LARGEST", 1000)
    monkeypatch.setattr(text, "_MOST", 0)
    with pytest.raises(VerificationError, match="layers and blobs"):
        parse(two(INPUT), "any")


@pytest.mark.parametrize("name", ["", "two words", "tab\there", "x" * 256, "line\nfeed"])
def test_a_name_that_ncnn_cannot_read_is_not_written(name):
    with pytest.raises(ValueError, match="is no name in ncnn"):
        to_text([Line("Any", name, (), ("a",))])
    with pytest.raises(ValueError, match="is no name in ncnn"):
        to_text([Line("Any", "a", (), (name,))])


@pytest.mark.parametrize("value", [1.5, (1, 2)])
def test_a_whole_number_is_one(value):
    line = Line("Any", "layer", (), (), {2: value, 3: 7})
    assert (line.whole(3), line.whole(4), line.whole(4, 9)) == (7, 0, 9)
    with pytest.raises(Malformed, match="layer: parameter 2 is no whole number"):
        line.whole(2)
