"""Encodings: what an encoding may be, which keys it stands on, and its content digest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encodings, Float

OUT, IN, WEIGHT = "a:conv2d#0:out", "a:conv2d#0:in", "a:conv2d#0:weight"


def affine(scale=0.5, zero_point=0, *, bits=8, signed=True, axis=None):
    return Affine(bits, signed, axis, np.array(scale, np.float32), np.array(zero_point, np.int32))


def blocks(**changes):
    return replace(BlockAffine(32, 4, np.ones((4, 2), np.float32)), **changes)


@pytest.mark.parametrize(
    "bits, signed, low, high",
    [
        (8, True, -127, 127),
        (8, False, 0, 255),
        (4, True, -7, 7),
        (4, False, 0, 15),
        (2, True, -1, 1),
        (16, False, 0, 65535),
    ],
)
def test_codes(bits, signed, low, high):
    found = affine(bits=bits, signed=signed)
    assert (found.low, found.high) == (low, high)


@given(st.integers(2, 16), st.booleans())
def test_the_lowest_signed_code_is_never_used(bits, signed):
    found = affine(bits=bits, signed=signed)
    assert found.high - found.low + 1 == 2**bits - signed
    assert found.low == (-found.high if signed else 0)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"bits": 0}, "0 bits are not in [1, 16]"),
        ({"bits": 17}, "17 bits are not in [1, 16]"),
        ({"scale": 0.0}, "a scale is finite and positive"),
        ({"scale": -1.0}, "a scale is finite and positive"),
        ({"scale": np.nan}, "a scale is finite and positive"),
        ({"scale": np.inf}, "a scale is finite and positive"),
        ({"scale": [1.0, 0.0], "zero_point": [0, 0], "axis": 0}, "a scale is finite and positive"),
        ({"scale": [1.0, 1.0], "zero_point": [0, 0]}, "do not go with axis None"),
        ({"axis": 0}, "do not go with axis 0"),
        ({"scale": [[1.0]], "zero_point": [[0]], "axis": 0}, "do not go with axis 0"),
        ({"scale": [1.0, 1.0], "zero_point": [0], "axis": 0}, "do not go with axis 0"),
        ({"zero_point": 1}, "a zero-point is in [0, 0]"),
        ({"zero_point": -1, "signed": False}, "a zero-point is in [0, 255]"),
        ({"zero_point": 256, "signed": False}, "a zero-point is in [0, 255]"),
        ({"zero_point": 16, "signed": False, "bits": 4}, "a zero-point is in [0, 15]"),
    ],
)
def test_what_affine_refuses(settings, says):
    with pytest.raises(ValueError) as caught:
        affine(**settings)
    assert says in str(caught.value)


def test_scales_are_float32_and_zero_points_int32():
    with pytest.raises(ValueError, match="a scale is float32, not float64"):
        Affine(8, signed=True, axis=None, scale=np.array(1.0), zero_point=np.array(0, np.int32))
    with pytest.raises(ValueError, match="a zero-point is int32, not int64"):
        Affine(8, signed=True, axis=None, scale=np.array(1, np.float32), zero_point=np.array(0, np.int64))


@pytest.mark.parametrize("zero_point", [0, 128, 255])
def test_an_unsigned_zero_point_is_any_code(zero_point):
    assert affine(zero_point=zero_point, signed=False).zero_point == zero_point


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Float("bfloat16"), "no float encoding: 'bfloat16'"),
        (lambda: Dynamic(1), "1 bits are not in [2, 16]"),
        (lambda: blocks(bits=1), "1 bits are not in [2, 8]"),
        (lambda: blocks(bits=9), "9 bits are not in [2, 8]"),
        (lambda: blocks(block=0), "a block of 0 values"),
        (lambda: blocks(scale=np.ones(4, np.float32)), "[rows, blocks]"),
        (lambda: blocks(minimum=np.ones((4, 1), np.float32)), "minimum (4, 1), scale (4, 2)"),
        (lambda: blocks(scale_of_scales=np.ones((3, 1), np.float32)), "scale of scales (3, 1), scale (4, 2)"),
        (lambda: blocks(scale_of_scales=np.ones(4, np.float32)), "scale of scales (4,), scale (4, 2)"),
        (lambda: Codebook(0, np.ones(1, np.float32)), "0 bits are not in [1, 8]"),
        (lambda: Codebook(9, np.ones(512, np.float32)), "9 bits are not in [1, 8]"),
        (lambda: Codebook(2, np.ones(3, np.float32)), "entries (3,) do not fit 2 bits"),
        (lambda: Codebook(2, np.ones(4, np.float32), group=8), "do not fit 2 bits, group 8"),
        (lambda: Codebook(2, np.ones((2, 4), np.float32)), "do not fit 2 bits, group 0"),
        (lambda: Codebook(2, np.ones((2, 4), np.float32), group=-1), "group -1"),
    ],
)
def test_what_the_other_kinds_refuse(make, says):
    with pytest.raises(ValueError) as caught:
        make()
    assert says in str(caught.value)


def test_the_other_kinds_as_they_are_meant():
    kinds = {
        "a:add#0:out": Float("float16"),
        "b:linear#0:in": Dynamic(),
        "b:linear#0:weight": blocks(minimum=np.ones((4, 2), np.float32), scale_of_scales=np.ones((4, 1), np.float32)),
        "c:linear#0:weight": Codebook(2, np.ones((2, 4), np.float32), group=8),
        "d:linear#0:weight": Codebook(1, np.array([-1, 1], np.float32)),
    }
    names = [name for name, _ in Encodings(kinds).arrays()]
    assert names == [
        "b:linear#0:weight|scale",
        "b:linear#0:weight|minimum",
        "b:linear#0:weight|scale_of_scales",
        "c:linear#0:weight|entries",
        "d:linear#0:weight|entries",
    ]


@pytest.mark.parametrize("key", ["a", "a:conv2d#0", "a:conv2d#0:bias", "a:conv2d:out"])
def test_keys_are_tensor_keys(key):
    with pytest.raises(ValueError, match="not a"):
        Encodings({key: Float()})


@pytest.mark.parametrize("key", [OUT, WEIGHT])
def test_dynamic_stands_on_inputs_only(key):
    with pytest.raises(ValueError, match="Dynamic stands on :in only"):
        Encodings({key: Dynamic()})


def test_integers_need_an_encoding():
    with pytest.raises(ValueError, match=f"integers without an encoding: {WEIGHT}"):
        Encodings({}, {WEIGHT: np.zeros(3, np.int32)})


@pytest.mark.parametrize(
    "encoding, integers, says",
    [
        (affine(), np.zeros(3, np.int8), "integers are int32, not int8"),
        (affine(), np.array([-128], np.int32), "integers in [-128, -128] leave the codes [-127, 127]"),
        (affine(), np.array([0, 128], np.int32), "integers in [0, 128] leave the codes [-127, 127]"),
        (affine(bits=4), np.array([-8, 7], np.int32), "integers in [-8, 7] leave the codes [-7, 7]"),
        (affine([1.0, 1.0], [0, 0], axis=0), np.zeros((3, 2), np.int32), "2 scales do not fit axis 0"),
        (affine([1.0, 1.0], [0, 0], axis=2), np.zeros((3, 2), np.int32), "2 scales do not fit axis 2"),
        (Codebook(2, np.zeros(4, np.float32)), np.array([3, 4], np.int32), "an index is none of 4 entries"),
        (Codebook(2, np.zeros(4, np.float32)), np.array([-1, 0], np.int32), "an index is none of 4 entries"),
        (Codebook(1, np.zeros((2, 2), np.float32), 2), np.zeros((3, 2), np.int32), "palettes for 4 rows do not fit"),
    ],
)
def test_integers_fit_their_encoding(encoding, integers, says):
    with pytest.raises(ValueError) as caught:
        Encodings({WEIGHT: encoding}, {WEIGHT: integers})
    assert says in str(caught.value)


def test_integers_that_fit():
    found = Encodings(
        {WEIGHT: affine([1.0, 2.0], [0, 0], axis=1), "e:linear#0:weight": Codebook(1, np.zeros(2, np.float32))},
        {WEIGHT: np.array([[-127, 127]], np.int32), "e:linear#0:weight": np.array([1], np.int32)},
    )
    assert [name for name, _ in found.arrays()][-1] == "e:linear#0:weight|integers"
    assert Encodings({WEIGHT: affine()}, {WEIGHT: np.zeros((0, 3), np.int32)}).integers[WEIGHT].size == 0


def test_none_is_empty():
    nothing = Encodings.none()
    assert nothing.tensors == {}
    assert list(nothing.arrays()) == []


def test_affine_finds_only_affine():
    encodings = Encodings({OUT: affine(), IN: Dynamic(), WEIGHT: Float()})
    assert encodings.affine(OUT) is encodings.tensors[OUT]
    assert encodings.affine(IN) is None
    assert encodings.affine(WEIGHT) is None
    assert encodings.affine("nothing:here#0:out") is None


def test_the_digest_is_of_content_in_any_order():
    one = Encodings({OUT: affine(), IN: Dynamic()}, {OUT: np.zeros(2, np.int32)})
    two = Encodings({IN: Dynamic(), OUT: affine()}, {OUT: np.zeros(2, np.int32)})
    assert one.digest == two.digest


def test_every_field_counts_in_the_digest():
    codes = np.zeros((2, 2), np.int32)
    variants = [
        Encodings.none(),
        Encodings({OUT: affine()}),
        Encodings({IN: affine()}),
        Encodings({OUT: affine(0.25)}),
        Encodings({OUT: affine(bits=4)}),
        Encodings({OUT: affine(signed=False)}),
        Encodings({OUT: affine(zero_point=3, signed=False)}),
        Encodings({OUT: affine([0.5, 0.5], [0, 0], axis=0)}),
        Encodings({OUT: affine([0.5, 0.5], [0, 0], axis=1)}),
        Encodings({OUT: affine()}, {OUT: codes}),
        Encodings({OUT: affine()}, {OUT: codes + 1}),
        Encodings({OUT: affine()}, {OUT: codes.reshape(4)}),
        Encodings({OUT: Float()}),
        Encodings({OUT: Float("float16")}),
        Encodings({IN: Dynamic()}),
        Encodings({IN: Dynamic(4)}),
        Encodings({OUT: blocks()}),
        Encodings({OUT: blocks(minimum=np.ones((4, 2), np.float32))}),
        Encodings({OUT: Codebook(1, np.zeros(2, np.float32))}),
    ]
    assert len({each.digest for each in variants}) == len(variants)


@given(st.floats(min_value=2.0**-20, max_value=2.0**20, width=32), st.integers(0, 255))
def test_the_digest_sees_the_smallest_change_of_a_scale(scale, zero_point):
    one = affine(scale, zero_point, signed=False)
    two = affine(np.nextafter(np.float32(scale), np.float32(np.inf)), zero_point, signed=False)
    assert Encodings({OUT: one}).digest == Encodings({OUT: affine(scale, zero_point, signed=False)}).digest
    assert Encodings({OUT: one}).digest != Encodings({OUT: two}).digest


def test_a_weight_of_one_bit_is_minus_one_or_one():
    signs = Affine(1, signed=True, axis=None, scale=np.array(1.0, np.float32), zero_point=np.array(0, np.int32))
    assert (signs.low, signs.high, signs.binary) == (-1, 1, True)
    assert not Affine(2, True, None, signs.scale, signs.zero_point).binary
    key = "a:linear#0:weight"
    assert Encodings({key: signs}, {key: np.array([[1, -1]], np.int32)}).integers[key].shape == (1, 2)
    with pytest.raises(ValueError, match="0 is no code of one bit"):
        Encodings({key: signs}, {key: np.array([[1, 0]], np.int32)})
    with pytest.raises(ValueError, match="leave the codes"):
        Encodings({key: signs}, {key: np.array([[1, -2]], np.int32)})
