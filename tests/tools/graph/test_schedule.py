"""An order with a lower peak: as low as any where the search is exact, never higher, always an order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.graph.lifetimes import Step, Steps, Tensor
from haversack.tools.graph.schedule import lowest


def build(sizes, reads, held=()):
    """Steps that each make one tensor; ``reads`` are places of earlier ones."""
    readers = {place: [] for place in range(len(sizes))}
    for place, sources in enumerate(reads):
        for source in sources:
            readers[source].append(place)
    tensors = tuple(
        Tensor(f"t{place}", f"n{place}", size, tuple(readers[place]), place in held or not readers[place])
        for place, size in enumerate(sizes)
    )
    made = (Step((f"n{place}",), (place,), tuple(sources), tuple(sources)) for place, sources in enumerate(reads))
    return Steps(tuple(made), tensors, (Tensor("x", "x", 3, (), held=True),))


@st.composite
def problems(draw, most=7):
    count = draw(st.integers(1, most))
    reads = [sorted(draw(st.sets(st.integers(0, place - 1), max_size=3))) if place else [] for place in range(count)]
    return build(draw(st.lists(st.integers(0, 30), min_size=count, max_size=count)), reads)


def peak(steps, order):
    return max(one.bytes for one in steps.over(order))


def is_order(steps, order):
    places = {step: place for place, step in enumerate(order)}
    return all(places[before] < places[step] for step in order for before in steps.steps[step].after)


def wide(branches, big=100, small=1):
    """A stem, then ``branches`` large tensors, each read by one step that leaves little, then a join."""
    sizes = [10, *[big] * branches, *[small] * branches, 1]
    reads = [[], *[[0]] * branches, *[[1 + n] for n in range(branches)], list(range(1 + branches, 1 + 2 * branches))]
    return build(sizes, reads)


@given(problems())
@settings(max_examples=150)
def test_the_peak_is_the_lowest_of_all_orders(steps):
    found = lowest(steps)
    every = [order for order in permutations(range(len(steps.steps))) if is_order(steps, order)]
    assert found.exact
    assert found.peak == peak(steps, found.places) == min(peak(steps, order) for order in every)
    assert found.before == peak(steps, range(len(steps.steps)))


@given(problems(most=14), st.integers(1, 6))
def test_a_beam_gives_an_order_that_is_no_worse(steps, beam):
    found = lowest(steps, states=1, beam=beam)
    assert is_order(steps, found.places)
    assert found.peak == peak(steps, found.places) <= found.before
    assert found.peak >= lowest(steps).peak


def test_branches_run_one_after_another():
    steps = wide(6)
    found = lowest(steps)
    assert (found.before, found.peak, found.exact) == (3 + 10 + 600, 3 + 10 + 5 + 100, True)
    assert list(found.places).index(7) == list(found.places).index(1) + 1


@pytest.mark.parametrize("branches", [12, 40])
def test_many_branches_are_quick(branches):
    found = lowest(wide(branches))
    assert found.peak <= 3 + 10 + branches + 100
    assert found.before > 100 * branches


def test_too_many_sets_fall_back_on_a_beam_that_still_helps():
    rng = np.random.default_rng(0)
    count = 60
    reads = [[] if n == 0 else sorted({int(rng.integers(max(0, n - 25), n)) for _ in range(2)}) for n in range(count)]
    steps = build([int(size) for size in rng.integers(1, 100, count)], reads)
    found = lowest(steps, states=300, beam=8)
    assert not found.exact
    assert found.peak < found.before
    assert is_order(steps, found.places)


def test_an_order_that_cannot_be_better_stays_as_it_is():
    chain = build([5, 50, 5, 50, 5], [[], [0], [1], [2], [3]])
    found = lowest(chain)
    assert found.places == (0, 1, 2, 3, 4)
    assert (found.peak, found.before, found.exact) == (58, 58, True)


def test_only_the_stretch_that_decides_the_peak_changes():
    """Two blocks of branches behind each other: the second, small one keeps its order."""
    sizes = [1, 90, 90, 1, 1, 1, 9, 9, 1, 1, 1]
    reads = [[], [0], [0], [1], [2], [3, 4], [5], [5], [6], [7], [8, 9]]
    found = lowest(build(sizes, reads))
    assert sorted(found.places[:6]) == list(range(6))
    assert found.places[:6] != tuple(range(6))
    assert found.places[6:] == (6, 7, 8, 9, 10)


def test_the_same_steps_give_the_same_order():
    assert lowest(wide(9)) == lowest(wide(9))


def test_nothing_to_order():
    found = lowest(Steps((), (), ()))
    assert (found.places, found.peak, found.before) == ((), 0, 0)
