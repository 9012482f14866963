"""Across runtimes: every artefact's outputs held against every other's, value by value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

from haversack.base.candidate import Pair
from haversack.base.model import Sample
from haversack.tools.numerics.relative import Errors
from haversack.verify.bits import differing_bits
from haversack.verify.parity import Predict


def across(runs: Mapping[str, Predict], samples: Iterable[Sample]) -> tuple[Pair, ...]:
    """Return one row for each two of several predictors, over all outputs of all samples.

    Args:
        runs: name -> what runs one batch and returns the outputs in the model's order; all give the same shapes.
        samples: batches, read once; one is held at a time.

    Raises:
        ValueError: outputs differ in number or shape.
    """
    names = list(combinations(runs, 2))
    differing, compared = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    errors = {pair: Errors() for pair in names}
    for sample in samples:
        outputs = {name: run(sample) for name, run in runs.items()}
        for pair in names:
            for mine, theirs in zip(outputs[pair[0]], outputs[pair[1]], strict=True):
                differing[pair] += differing_bits(mine, theirs)
                compared[pair] += theirs.size
            errors[pair].add(outputs[pair[0]], outputs[pair[1]])
    return tuple(
        Pair(first, second, differing[first, second], compared[first, second], errors[first, second].relative)
        for first, second in names
    )
