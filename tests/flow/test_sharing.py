"""Constraints that only some targets have: symmetric activations, and scales that are float16 numbers."""

from __future__ import annotations

import pytest

from haversack.base.constraints import Constraints
from haversack.flow.squeeze import narrowable, together

PLAIN, HALF, SYMMETRIC = Constraints(), Constraints(half_scales=True), Constraints(symmetric=True)


def test_half_scales_hold_for_all_that_share():
    assert Constraints.union([PLAIN, HALF]).half_scales
    assert not Constraints.union([PLAIN, PLAIN]).half_scales


def test_symmetric_shares_with_symmetric_only():
    assert Constraints.union([SYMMETRIC, SYMMETRIC]).symmetric
    with pytest.raises(ValueError, match="symmetric activations only"):
        Constraints.union([PLAIN, SYMMETRIC])


def test_targets_share_on_each_side():
    found = together({"a": PLAIN, "b": SYMMETRIC, "c": HALF})
    assert found["a"] == found["c"] == HALF
    assert found["b"] == SYMMETRIC


def test_four_bits_are_worth_knowing_where_some_side_takes_them():
    sides = together({"a": Constraints(widths={"a:linear#0": frozenset({4})}), "b": SYMMETRIC})
    assert narrowable(sides.values()) == {"a:linear#0": {4}}
    others = Constraints(widths={"a:linear#0": frozenset({2, 4}), "b:linear#0": frozenset({3})})
    assert narrowable([others, *sides.values()]) == {"a:linear#0": {2, 4}, "b:linear#0": {3}}
    assert narrowable([]) == {}
