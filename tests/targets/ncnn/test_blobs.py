"""The .bin file: arrays in every form are read as they were written, and nothing is read that the layers do not say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from haversack.base.errors import VerificationError
from haversack.targets.ncnn import blobs
from haversack.targets.ncnn.blobs import Array, Form, read, to_bytes, total, wanted
from haversack.targets.ncnn.text import Line, Malformed

FLOAT = arrays.arrays(np.float32, st.integers(1, 9), elements=st.floats(width=32, allow_nan=False))
HALF = arrays.arrays(np.float16, st.integers(1, 9), elements=st.floats(width=16, allow_nan=False))
WHOLE = arrays.arrays(np.int32, st.integers(1, 9), elements=st.integers(-127, 127))


def layer(count, name="a", kind="InnerProduct", **more):
    """Return a layer of one output with ``count`` weights."""
    return Line(kind, name, (), (name,), {0: 1, 2: count, **{int(key[1:]): value for key, value in more.items()}})


def back(folder, lines, *all_arrays):
    """Write arrays in order and read them again."""
    path = folder / "model.bin"
    path.write_bytes(b"".join(map(to_bytes, all_arrays)))
    return read(path, lines)


@given(st.one_of(FLOAT.map(lambda x: (Form.FLOAT32, x)), HALF.map(lambda x: (Form.FLOAT16, x)),
                 WHOLE.map(lambda x: (Form.INT8, x)), WHOLE.map(lambda x: (Form.TABLE, x))))  # fmt: skip
def test_every_form_is_read_as_it_was_written(tmp_path_factory, made):
    form, values = made
    folder = tmp_path_factory.getbasetemp()
    found = back(folder, [layer(len(values))], Array("weight", form, values))["a"]["weight"]
    assert found.form is form
    np.testing.assert_array_equal(found.values, values.astype(found.values.dtype))
    assert found.values.dtype == (np.int32 if form in (Form.INT8, Form.TABLE) else np.float32)
    assert (folder / "model.bin").stat().st_size % 4 == 0


@pytest.mark.parametrize("form", [Form.INT8, Form.TABLE])
@pytest.mark.parametrize("code", [-128, 128, 1000])
def test_integers_beyond_eight_bits_are_not_written(form, code):
    with pytest.raises(ValueError, match=r"\[-127, 127\]"):
        to_bytes(Array("weight", form, np.array([0, code])))


def test_the_words_before_weights_are_ncnns():
    one = np.array([1])
    assert to_bytes(Array("weight", Form.FLOAT32, one))[:4] == bytes(4)
    assert to_bytes(Array("weight", Form.INT8, one))[:4] == bytes.fromhex("384b0d00")
    assert to_bytes(Array("weight", Form.FLOAT16, one))[:4] == bytes.fromhex("476b3001")
    assert to_bytes(Array("bias", Form.PLAIN, one)) == np.float32(1).tobytes()
    assert len(to_bytes(Array("weight", Form.TABLE, one))) == 4 + 256 * 4 + 4


WANTED = {
    "a layer with a bias": (layer(6, _1=1), [("weight", 6), ("bias", 1)]),
    "without": (layer(6), [("weight", 6)]),
    "int8 to float": (layer(6, _1=1, _8=2), [("weight", 6), ("bias", 1), ("weight scale", 1), ("input scale", 1)]),
    "int8 that gives int8": (
        Line("Convolution", "a", (), ("a",), {0: 2, 6: 8, 8: 101}),
        [("weight", 8), ("weight scale", 2), ("input scale", 1), ("output scale", 1)],
    ),
    "depthwise": (Line("ConvolutionDepthWise", "a", (), ("a",), {0: 2, 6: 8, 5: 1}), [("weight", 8), ("bias", 2)]),
    "a quantize of all": (Line("Quantize", "a", (), ("a",), {}), [("scale", 1)]),
    "a quantize by channel": (Line("Quantize", "a", (), ("a",), {0: 3}), [("scale", 3)]),
    "a scale": (Line("Scale", "a", (), ("a",), {0: 3}), [("scale", 3)]),
    "a scale with a bias": (Line("Scale", "a", (), ("a",), {0: 3, 1: 1}), [("scale", 3), ("bias", 3)]),
    "a constant": (Line("MemoryData", "a", (), ("a",), {0: 4, 1: 3}), [("data", 12)]),
    "a norm without numbers": (Line("LayerNorm", "a", (), ("a",), {0: 3, 2: 0}), []),
    "a norm": (Line("LayerNorm", "a", (), ("a",), {0: 3}), [("gamma", 3), ("beta", 3)]),
    "statistics": (
        Line("BatchNorm", "a", (), ("a",), {0: 2}),
        [("slope", 2), ("mean", 2), ("variance", 2), ("bias", 2)],
    ),
    "an add": (Line("Eltwise", "a", (), ("a",), {0: 1, 1: (0.5, 2.0)}), []),
}  # fmt: skip


@pytest.mark.parametrize("name", WANTED)
def test_what_a_layer_has(name):
    line, found = WANTED[name]
    assert list(wanted(line)) == found


def test_a_number_that_is_none():
    with pytest.raises(Malformed, match="parameter 2 is no whole number"):
        wanted(Line("InnerProduct", "a", (), ("a",), {0: 1, 2: 2.5}))


SPOILED = {
    "bytes for 9 values": ([layer(9)], b"12345678"),
    "it ends after 12 bytes": ([layer(3)], bytes(12)),
    "4 bytes are left over": ([layer(1)], bytes(12)),
    "two layers are named a": ([layer(1), layer(1)], bytes(16)),
    "a: -1 values": ([layer(-1)], bytes(16)),
    "is not a valid Form": ([layer(1)], b"\1\2\3\4" + bytes(4)),
    "a table is not the one that we write": ([layer(1)], b"\1\0\0\0" + bytes(1028)),
    "a: 0 values": ([Line("Quantize", "a", (), ("a",), {0: 0})], bytes(4)),
}


@pytest.mark.parametrize("cause", SPOILED)
def test_a_file_that_the_layers_do_not_say_is_refused(tmp_path, cause):
    lines, data = SPOILED[cause]
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(VerificationError) as caught:
        read(tmp_path / "model.bin", lines)
    assert cause in caught.value.cause
    assert caught.value.where == str(tmp_path / "model.bin")


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(blobs, "_LARGEST", 4)
    with pytest.raises(VerificationError, match="8 bytes for 1 values"):
        back(tmp_path, [layer(1)], Array("weight", Form.FLOAT32, np.ones(1)))


@given(st.binary(max_size=64))
def test_any_bytes_are_values_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(data)
    try:
        found = read(path, [layer(3), Line("Quantize", "b", (), ("b",), {0: 2})])
    except VerificationError as error:
        assert "no ncnn .bin file" in error.cause
    else:
        assert (len(found["a"]["weight"].values), len(found["b"]["scale"].values)) == (3, 2)


def test_all_arrays_follow_the_layers():
    lines = [layer(1), Line("ReLU", "r", (), ("r",)), Line("Quantize", "q", (), ("q",))]
    one, two = Array("weight", Form.FLOAT32, np.ones(1)), Array("scale", Form.PLAIN, np.full(1, 3.0))
    assert list(total(lines, {"a": {"weight": one}, "r": {}, "q": {"scale": two}})) == [to_bytes(one), to_bytes(two)]
