"""The union of what several targets demand: everything of each, and no operation that one of them lacks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from haversack.base.constraints import Constraints, Ratio

KEYS = st.sampled_from([f"{name}:conv2d#0:out" for name in "abc"])
OPS = st.frozensets(st.sampled_from(["conv2d", "linear", "add", "mean"]))
INTERVALS = st.tuples(st.integers(-5, 0), st.integers(0, 5)).map(lambda pair: (float(pair[0]), float(pair[1])))
RATIOS = st.builds(Ratio, KEYS, KEYS, st.sampled_from([501, 255]), st.sampled_from([1, 4]))
CONSTRAINTS = st.builds(
    Constraints,
    ties=st.lists(st.frozensets(KEYS, min_size=2), max_size=2).map(tuple),
    fixed=st.just({}),
    bounds=st.dictionaries(KEYS, INTERVALS),
    ratios=st.lists(RATIOS, max_size=2).map(tuple),
    integer_ops=OPS,
)


def test_of_nobody_nothing_is_demanded():
    assert Constraints.union([]) == Constraints()


@given(CONSTRAINTS)
def test_of_one_it_is_what_it_demands_each_once(one):
    for found in (Constraints.union([one]), Constraints.union(iter([one, one]))):
        assert found.ties == tuple(dict.fromkeys(one.ties))
        assert found.ratios == tuple(dict.fromkeys(one.ratios))
        assert (found.bounds, found.integer_ops) == (one.bounds, one.integer_ops)


@given(st.lists(CONSTRAINTS, min_size=1, max_size=3))
def test_every_demand_of_each_is_in_the_union(several):
    found = Constraints.union(several)
    for one in several:
        assert set(one.ties) <= set(found.ties)
        assert set(one.ratios) <= set(found.ratios)
        assert found.integer_ops <= one.integer_ops
        for key, (low, high) in one.bounds.items():
            assert low <= found.bounds[key][0] <= found.bounds[key][1] <= high
    assert set(found.bounds) == {key for one in several for key in one.bounds}
    assert all(any(op not in one.integer_ops for one in several) for op in {"conv2d", "add"} - found.integer_ops)


@given(st.lists(CONSTRAINTS, min_size=2, max_size=3))
def test_the_order_of_targets_does_not_matter(several):
    for order in itertools.permutations(several):
        one, other = Constraints.union(several), Constraints.union(order)
        assert set(one.ties) == set(other.ties)
        assert set(one.ratios) == set(other.ratios)
        assert (one.bounds, one.integer_ops) == (other.bounds, other.integer_ops)


@given(INTERVALS, INTERVALS)
def test_bounds_are_the_intersection(one, other):
    found = Constraints.union([Constraints(bounds={"a": one}), Constraints(bounds={"a": other})])
    assert found.bounds == {"a": (max(one[0], other[0]), min(one[1], other[1]))}


def test_an_open_bound_is_closed_by_the_other():
    found = Constraints.union([Constraints(bounds={"a": (0.0, float("inf"))}), Constraints(bounds={"a": (-1.0, 6.0)})])
    assert found.bounds == {"a": (0.0, 6.0)}


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(0.001, 5), st.floats(0, 5))
def test_disjoint_bounds_are_told_with_the_tensor(low, width, gap, other_width):
    first = (low, low + width)
    second = (first[1] + gap, first[1] + gap + other_width)
    assume(second[0] > first[1])
    for several in ([first, second], [second, first]):
        with pytest.raises(ValueError, match="layer:relu#0:out: bounded to disjoint intervals"):
            Constraints.union(Constraints(bounds={"layer:relu#0:out": one}) for one in several)


def test_three_intervals_that_meet_pairwise_nowhere_together():
    several = [(0.0, 2.0), (1.0, 4.0), (3.0, 5.0)]
    with pytest.raises(ValueError, match="disjoint"):
        Constraints.union(Constraints(bounds={"a": one}) for one in several)


def test_bounds_that_touch_leave_a_point():
    found = Constraints.union([Constraints(bounds={"a": (0.0, 1.0)}), Constraints(bounds={"a": (1.0, 2.0)})])
    assert found.bounds == {"a": (1.0, 1.0)}


def test_encodings_that_several_fix_alike_are_fixed_once():
    softmax = Constraints(fixed={"a": (1 / 256, 0)})
    other = Constraints(fixed={"b": (1 / 128, 128)})
    assert Constraints.union([softmax, other, softmax]).fixed == {"a": (1 / 256, 0), "b": (1 / 128, 128)}


@pytest.mark.parametrize("other", [(1 / 255, 0), (1 / 256, 1)])
def test_encodings_that_are_fixed_differently_are_told_with_both(other):
    with pytest.raises(ValueError, match="a: one target fixes") as caught:
        Constraints.union([Constraints(fixed={"a": (1 / 256, 0)}), Constraints(fixed={"a": other})])
    assert str((1 / 256, 0)) in str(caught.value)
    assert str(other) in str(caught.value)


def test_what_one_target_has_no_place_for_stays_float_in_all():
    found = Constraints.union([Constraints(floats=frozenset("ab")), Constraints(floats=frozenset("bc")), Constraints()])
    assert found.floats == frozenset("abc")


def test_a_target_without_integers_leaves_none():
    able = Constraints(integer_ops=frozenset({"conv2d"}))
    assert Constraints.union([able, Constraints()]).integer_ops == frozenset()
