"""One fault planted anywhere is told where it is: every encoding, every layer, any code, any row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from haversack.base.encodings import Affine, Encodings
from haversack.targets.reference import Reference
from haversack.tools.graph import roles
from haversack.tools.numerics import affine
from haversack.tools.numerics.relative import judged
from haversack.verify import locate
from haversack.verify.bits import FURTHEST, Bits, check_shapes, differing_bits

UNDISTURBED = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def opened(network, coded):
    """The reference, open: whole batches."""
    return Reference(at_once=0).opened(network, coded)


def shown(opened, coded, batch, given=None):
    """Return every unit's codes as a runtime would show them, computed on from what is given."""
    seen = {}

    def look(key, value):
        seen[key] = affine.quantize(value, coded.affine(key)).astype(np.uint8)

    opened.run(batch, observe=look, given=given)
    return seen


def integer_units(network, opened):
    """Return the tensors that integers compute from what is shown before them: bits are demanded there."""
    moved = (roles.Role.SAME, roles.Role.INPUT)
    parts = [unit for unit in roles.units(network.graph) if roles.role(unit.head) not in moved]
    return [unit.out for unit in parts if unit.head.key in opened.integer_nodes]


@given(data=st.data())
@UNDISTURBED
def test_any_code_of_any_integer_tensor_is_the_place(network, coded, batch, opened, data):
    """The runtime computes on with its wrong code: what comes behind follows from it, and is no second fault."""
    key = data.draw(st.sampled_from(integer_units(network, opened)))
    codes = shown(opened, coded, batch)[key]
    place = tuple(data.draw(st.integers(0, size - 1)) for size in codes.shape)
    wrong = codes.copy()
    wrong[place] = data.draw(st.integers(0, 255).filter(lambda code: code != codes[place]))
    after = shown(opened, coded, batch, {key: affine.dequantize(wrong, coded.affine(key))})
    found = locate(network, coded, coded, batch, tensors=lambda *_: {**after, key: wrong}, float_tolerance=10.0)
    assert (found.kind, found.layer) == ("large-error-at", key)


def test_the_units_that_bits_are_demanded_of_are_these(network, opened):
    assert integer_units(network, opened) == [
        "1:relu#0:out", "3:relu#0:out", "5:conv2d#0:out", "6:adaptive_avg_pool2d#0:out", "8:linear#0:out",
    ]  # fmt: skip


def last_bit(values):
    return np.nextafter(values, np.float32(np.inf), dtype=np.float32)


def test_the_last_bit_of_any_scale_is_the_place(network, coded, batch):
    tried = 0
    for key, encoding in coded.tensors.items():
        for channel in range(encoding.scale.size):
            scale = encoding.scale.copy().reshape(-1)
            scale[channel] = last_bit(scale[channel])
            changed = replace(encoding, scale=scale.reshape(encoding.scale.shape))
            found = locate(network, coded, Encodings({**coded.tensors, key: changed}, coded.integers), batch)
            assert (found.kind, found.layer) == ("scale-changed", key)
            tried += 1
    assert tried == sum(one.scale.size for one in coded.tensors.values()) > 20


def test_any_zero_point_is_the_place(network, coded, batch):
    for key, encoding in coded.tensors.items():
        if encoding.signed:
            continue
        for by in (1, -1):
            zero = np.clip(encoding.zero_point + by, 0, 255).astype(np.int32)
            if zero == encoding.zero_point:
                continue
            changed = Affine(8, False, None, encoding.scale, zero)
            found = locate(network, coded, Encodings({**coded.tensors, key: changed}, coded.integers), batch)
            assert (found.kind, found.layer) == ("scale-changed", key)
            assert "zero-point" in found.text


@given(data=st.data())
@UNDISTURBED
def test_any_integer_of_any_weight_is_the_place_with_its_index(network, coded, batch, data):
    key = data.draw(st.sampled_from(sorted(coded.integers)))
    codes = coded.integers[key].copy()
    place = tuple(data.draw(st.integers(0, size - 1)) for size in codes.shape)
    before = int(codes[place])
    codes[place] = data.draw(st.integers(-127, 127).filter(lambda code: code != before))
    found = locate(network, coded, Encodings(coded.tensors, {**coded.integers, key: codes}), batch)
    assert (found.kind, found.layer) == ("weight-changed", key)
    assert f"the first at {list(place)}: {codes[place]} instead of {before}" in found.text


@given(st.data())
def test_values_that_differ_are_counted_by_their_bits(data):
    one = data.draw(
        arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32))
    )
    places = data.draw(st.sets(st.integers(0, one.size - 1)))
    other = one.copy()
    raw = other.reshape(-1).view(np.uint32)
    for place in places:
        raw[place] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert differing_bits(one, other) == differing_bits(other, one) == len(places)
    assert differing_bits(one, one.astype(np.float64)) == one.size, "another dtype is no value of it the same"
    assert differing_bits(one.T, other.T) == len(places), "however they lie in memory"


@pytest.mark.parametrize(
    "kinds, places",
    [("f", (0,)), ("fi", (0,)), ("if", (1,)), ("ii", (0, 1)), ("bfi", (1,)), ("", ())],
)
def test_float_outputs_are_judged_where_there_are_any(kinds, places):
    dtypes = {"f": np.float32, "i": np.int64, "b": bool}
    assert judged([np.zeros(2, dtypes[kind]) for kind in kinds]) == places


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 12))
@UNDISTURBED
def test_no_more_rows_are_compared_than_were_asked_for_and_no_fewer(network, opened, batch, sizes, limit):
    bits = Bits("net", opened, limit)
    for size in sizes:
        sample = (np.resize(batch[0], (size, *batch[0].shape[1:])),)
        exact = opened.run(sample)
        bits.add(sample, tuple(-value for value in exact), exact)
    rows = min(sum(sizes), limit)
    assert bits.compared == rows * 5, "five output values a row"
    assert bits.differing == bits.compared
    assert bits.relative(bits.error) == (0.0 if rows else -1.0)
    assert bits.relative(bits.distance) == (pytest.approx(2.0) if rows else -1.0)


def test_the_furthest_rows_are_those_and_in_that_order(network, opened, batch):
    (exact,) = opened.run(batch)
    size = np.array([0, 1, 9, 2, 5, 0], np.float32)
    got = exact + size[:, None] * np.linalg.norm(exact, axis=1, keepdims=True).astype(np.float32)
    bits, told = Bits("net", opened, 100), []
    bits.add(batch, (got,), (exact,))
    bits.tell(told.append)
    assert len(told) == FURTHEST == 2
    for (row,), place in zip(told, (2, 4), strict=True):
        np.testing.assert_array_equal(row, batch[0][place : place + 1])
    bits.tell(None)
    assert bits.differing == 4 * 5


def test_a_row_that_is_not_a_number_is_the_furthest(network, opened, batch):
    (exact,) = opened.run(batch)
    got = exact * np.float32(100)
    got[3, 1] = np.nan
    bits, told = Bits("net", opened, 100), []
    bits.add(batch, (got,), (exact,))
    bits.tell(told.append)
    np.testing.assert_array_equal(told[0][0], batch[0][3:4])


@pytest.mark.parametrize(
    "got, wanted",
    [([(2, 3)], [(2, 4)]), ([(2, 3)], [(2, 3), (2,)]), ([(2, 3), (1,)], [(2, 3)]), ([(6,)], [(2, 3)]), ([], [(1,)])],
)
def test_outputs_of_other_shapes_are_told_with_both(got, wanted):
    from haversack.base.errors import VerificationError

    made, meant = (tuple(np.zeros(shape) for shape in shapes) for shapes in (got, wanted))
    with pytest.raises(VerificationError) as caught:
        check_shapes("net", made, meant)
    assert caught.value.cause == f"outputs of shapes {got} where {wanted} are meant"
    assert caught.value.where == "net"
    check_shapes("net", meant, meant)
