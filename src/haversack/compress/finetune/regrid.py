"""Grids of activations on new data: how much leaves them, and those of the release with some set anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Encodings
from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.keys import split_tensor
from haversack.base.plan import Step
from haversack.base.profile import TensorStatistics
from haversack.compress import activations
from haversack.compress.quantize.contract import SHELF

KIND = "ranges-exceeded"
NAMED = 3
MOST = 0.02
"""Of the values of a tensor, so many may leave its grid: training learns to live with fewer."""


def outside(encodings: Encodings, ranges: Mapping[str, TensorStatistics]) -> dict[str, float]:
    """Return key of an activation -> the fraction of its values that its grid clips, for those that it clips any of.

    Args:
        encodings: of the release.
        ranges: statistics of the new data, by tensor key; the fraction is known to a bin of the histogram.
    """
    found = {}
    for key, encoding in encodings.tensors.items():
        if not isinstance(encoding, Affine) or key not in ranges or encoding.scale.ndim:
            continue
        told, step = ranges[key], float(encoding.scale)
        low, high = (step * (code - int(encoding.zero_point)) for code in (encoding.low, encoding.high))
        edges = np.linspace(told.low, told.high, len(told.counts) + 1)
        beyond = (edges[1:] < low - step / 2) | (edges[:-1] > high + step / 2)
        if share := float(told.counts[beyond].sum() / max(1, told.counts.sum())):
            found[key] = share
    return found


def regridded(
    graph: Graph,
    encodings: Encodings,
    ranges: Mapping[str, TensorStatistics],
    quantizer: Step,
    constraints: Constraints,
    keys: Collection[str],
) -> tuple[Encodings, frozenset[str]]:
    """Return the encodings with the grids of some activations set anew, and which they are.

    With a tensor go those that are tied to it, or whose scales stand in a ratio to its: all others keep their grids.

    Args:
        graph: of the model.
        encodings: of the release.
        ranges: statistics of the new data.
        quantizer: sets ranges, the plan's.
        constraints: of the targets.
        keys: tensors whose grids do not hold.

    Raises:
        ConversionError: a tensor has no statistics.
    """
    held = frozenset(key for key, one in encodings.tensors.items() if isinstance(one, Affine) and _leaves(key))
    if not held & {*keys}:
        return encodings, frozenset()
    part = SHELF.build(quantizer.part, quantizer.settings)
    fresh, _ = activations.encode(graph, held, ranges, part, constraints)
    taken = held & {*keys}
    links = [*constraints.ties, *(frozenset({one.input, one.output}) for one in constraints.ratios)]
    while wider := frozenset().union(*(link & held for link in links if link & taken)) - taken:
        taken |= wider
    return Encodings({**encodings.tensors, **{key: fresh[key] for key in taken}}, encodings.integers), taken


def told(clipped: Mapping[str, float], anew: Collection[str]) -> Finding | None:
    """Return the finding that says how much leaves the release's grids, and which were set anew; None for nothing.

    Args:
        clipped: fraction of values by tensor key, in the release's grids.
        anew: tensors whose grids were set anew.
    """
    worst = sorted(clipped, key=lambda key: -clipped[key])
    if not worst:
        return None
    names = ", ".join(f"{clipped[key]:.2%} of {key}" for key in worst[:NAMED])
    more = f" and less of {len(worst) - NAMED} more" if len(worst) > NAMED else ""
    end = f"{len(anew)} were calibrated anew" if anew else "all were kept: training learns to live with them"
    text = f"the new data leave the ranges of the release in {len(worst)} activations ({names}{more}); {end}"
    return Finding(KIND, text, split_tensor(worst[0])[0])


def _leaves(key: str) -> bool:
    return split_tensor(key)[1] == "out"
