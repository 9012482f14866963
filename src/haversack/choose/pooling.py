"""Drops of plans, pooled where chance alone explains that what errs less lost more of the metric.

A metric of few samples is a coarse judge: of 186 pictures one is half a point. Output error is a fine one, and a plan
whose outputs are nearer to float loses no more of the metric but by chance. So drops are estimated together, under the
condition that they do not fall as the error rises: isotonic regression, by pooling adjacent violators (Barlow et al.
1972, Statistical Inference under Order Restrictions). Without it a plan of little error would give way to one of much
that was lucky on these samples. What was measured within a limit stays there: pooling takes off only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from haversack.base.candidate import Candidate


@dataclass(frozen=True)
class _Block:
    """Neighbours by error that share a drop; means over them."""

    members: tuple[Candidate, ...]
    value: float
    low: float
    high: float

    def joined(self, other: _Block) -> _Block:
        mine, theirs = len(self.members), len(other.members)

        def mean(first: float, second: float) -> float:
            return (mine * first + theirs * second) / (mine + theirs)

        members = (*self.members, *other.members)
        return _Block(members, mean(self.value, other.value), mean(self.low, other.low), mean(self.high, other.high))


def pooled(candidates: Sequence[Candidate], loss: Callable[[Candidate], float]) -> list[Candidate]:
    """Return the candidates in their order, with the lesser of the measured and the pooled drop; intervals stay.

    Two are pooled only where their intervals overlap: where they do not, chance does not explain it. What failed, what
    has no drop and what has no error is left as it is.

    Args:
        candidates: of one target, scored on the same samples.
        loss: a candidate's output error.
    """
    able = [
        one for one in candidates if one.verdict != "failed" and one.drop is not None and not math.isnan(one.drop.value)
    ]
    blocks: list[_Block] = []
    for one in sorted((one for one in able if math.isfinite(loss(one))), key=loss):
        assert one.drop is not None, "those without are left out"
        block = _Block((one,), one.drop.value, one.drop.low, one.drop.high)
        while blocks and blocks[-1].value > block.value and not blocks[-1].low > block.high:
            block = blocks.pop().joined(block)
        blocks.append(block)
    shared = {id(one): block.value for block in blocks if len(block.members) > 1 for one in block.members}
    return [_with_drop(one, shared.get(id(one))) for one in candidates]


def _with_drop(candidate: Candidate, value: float | None) -> Candidate:
    if value is None or candidate.drop is None or value >= candidate.drop.value:
        return candidate
    return replace(candidate, drop=replace(candidate.drop, value=value))
