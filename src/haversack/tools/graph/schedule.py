"""An order of steps in which less is alive at the peak; what is computed stays the same.

The bytes alive after a set of steps do not depend on their order, so the best order is a path through such sets whose
worst step is least bad. It is searched between cuts: steps that every other step comes before or after, whatever the
order. A stretch is searched exactly while its sets are few, else by a beam that keeps the best sets of each size (Ahn
et al., "Ordering Chaos: Memory-Aware Scheduling of Irregularly Wired Neural Networks for Edge Devices", 2020, does so
with a budget for each step). A step that frees at least as much as it makes is taken at once: later it frees no more.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from haversack.tools.graph.lifetimes import Steps

STATES = 20_000
"""Sets of steps that an exact search looks at before it gives up."""
BEAM = 48
"""Sets of one size that the search goes on with where there are too many."""
_MOST = 4_000
"""Steps of a graph; a larger one keeps its order."""


@dataclass(frozen=True)
class Order:
    """An order of steps.

    Attributes:
        places: places of the steps, in the order they run.
        before, peak: bytes alive at the peak in the given order, and in this one.
        exact: whether no order has a lower peak.
    """

    places: tuple[int, ...]
    before: int
    peak: int
    exact: bool


def lowest(steps: Steps, *, states: int = STATES, beam: int = BEAM) -> Order:
    """Return an order whose peak is lower than that of the order given, or that order itself where none was found.

    Only stretches that decide the peak change. The same steps give the same order.

    Args:
        steps: in an order that computes.
        states: sets of steps looked at before a stretch counts as too large for an exact search.
        beam: sets kept of each size then.
    """
    order = list(range(len(steps.steps)))
    live = [one.bytes for one in steps.over(order)]
    before = max(live, default=0)
    if len(order) > _MOST:
        return Order(tuple(order), before, before, exact=False)
    stretches = _stretches(steps)
    peaks = {number: max(live[first:end]) for number, (first, end) in enumerate(stretches)}
    exact, tried = True, set[int]()
    while peaks:
        worst = max(peaks, key=lambda number: peaks[number])
        if worst in tried:
            break
        tried.add(worst)
        first, end = stretches[worst]
        search = _Stretch(steps, first, end)
        found, sure = search.best(peaks[worst], states, beam)
        exact = exact and sure
        if found is None:
            break
        order[first:end] = found
        peaks[worst] = max(one.bytes for one in steps.over(order)[first:end])
    return Order(tuple(order), before, max(peaks.values(), default=0), exact)


def _stretches(steps: Steps) -> list[tuple[int, int]]:
    """Return the ranges of places between cuts, each with the cut that ends it."""
    count = len(steps.steps)
    before = [0] * count
    for place, step in enumerate(steps.steps):
        for earlier in step.after:
            before[place] |= before[earlier] | 1 << earlier
    behind = [0] * count
    for place in reversed(range(count)):
        for earlier in steps.steps[place].after:
            behind[earlier] |= behind[place] | 1 << place
    cuts = [p for p in range(count) if before[p].bit_count() + behind[p].bit_count() == count - 1]
    ends = [cut + 1 for cut in cuts]
    if not ends or ends[-1] < count:
        ends.append(count)
    return [(first, end) for first, end in zip([0, *ends], ends, strict=False) if first < end]


@dataclass(frozen=True)
class _State:
    """Steps that ran, as bits of their places in the stretch; bytes alive behind them; the worst step on the way."""

    done: int
    live: int
    peak: int
    last: int
    before: _State | None

    def order(self) -> list[int]:
        state, found = self, list[int]()
        while state.before is not None:
            found.append(state.last)
            state = state.before
        return found[::-1]


class _Stretch:
    """The steps from ``first`` up to ``end``."""

    def __init__(self, steps: Steps, first: int, end: int) -> None:
        self.first = first
        self.count = end - first
        inside = range(first, end)
        self.makes = [sum(steps.tensors[t].bytes for t in steps.steps[p].makes) for p in inside]
        self.after = [sum(1 << (q - first) for q in steps.steps[p].after if q >= first) for p in inside]
        self.frees = [list(self._freed(steps, p, end)) for p in inside]
        self.alive = steps.always + self._entering(steps, first)

    def _freed(self, steps: Steps, place: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (bytes, readers) of the tensors that may end with a step."""
        for number in dict.fromkeys((*steps.steps[place].reads, *steps.steps[place].makes)):
            tensor = steps.tensors[number]
            if not tensor.held and all(reader < end for reader in tensor.readers):
                yield tensor.bytes, sum(1 << (r - self.first) for r in tensor.readers if r >= self.first)

    def _entering(self, steps: Steps, first: int) -> int:
        """Return the bytes of tensors that were made before the stretch and are still alive."""
        made = {number for step in steps.steps[:first] for number in step.makes}
        tensors = (steps.tensors[number] for number in made)
        return sum(t.bytes for t in tensors if t.held or any(reader >= first for reader in t.readers))

    def best(self, peak: int, states: int, beam: int) -> tuple[list[int] | None, bool]:
        """Return (an order with a lower peak, or None, whether the search was exact)."""
        start = _State(0, self.alive, self.alive, -1, None)
        found, sure = self._exact(start, peak, states)
        if not sure:
            found = self._beam(start, peak, beam)
        return None if found is None else [self.first + place for place in found.order()], sure

    def _exact(self, start: _State, peak: int, states: int) -> tuple[_State | None, bool]:
        """Look at sets by the worst step that leads to them, least first."""
        waiting = [(start.peak, 0, 0, start)]
        seen, number, whole = set[int](), 0, (1 << self.count) - 1
        while waiting:
            state = heapq.heappop(waiting)[-1]
            if state.done == whole:
                return state, True
            if state.done in seen:
                continue
            seen.add(state.done)
            if len(seen) > states:
                return None, False
            for following in self._following(state, peak):
                if following.done not in seen:
                    number += 1
                    heapq.heappush(waiting, (following.peak, -following.done.bit_count(), number, following))
        return None, True

    def _beam(self, start: _State, peak: int, beam: int) -> _State | None:
        """Go on with the best sets of each size."""
        level = [start]
        for _ in range(self.count):
            best: dict[int, _State] = {}
            for state in level:
                for following in self._following(state, peak):
                    other = best.get(following.done)
                    if other is None or following.peak < other.peak:
                        best[following.done] = following
            level = sorted(best.values(), key=lambda state: (state.peak, state.live))[:beam]
        return level[0] if level else None

    def _following(self, state: _State, peak: int) -> list[_State]:
        """Return what may come next below a peak; one alone where it is no worse than any other."""
        found = []
        for place in range(self.count):
            bit = 1 << place
            if state.done & bit or self.after[place] & ~state.done:
                continue
            at = state.live + self.makes[place]
            if at >= peak:
                continue
            done = state.done | bit
            live = at - sum(size for size, readers in self.frees[place] if not readers & ~done)
            following = _State(done, live, max(state.peak, at), place, state)
            if live <= state.live and at <= state.peak:
                return [following]
            found.append(following)
        return found
