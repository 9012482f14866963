"""Rows that join on the way: early layers have large activations and many places, late ones few of both.

Rounding by outputs goes layer by layer, with what is alive of all samples in memory. Where a network is wide, memory
holds few samples; where it is narrow many, and there a sample shows a layer few places. So some samples begin, and
others are run through what is rounded already as soon as there is room for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from haversack.base.encodings import Encodings
from haversack.base.model import Model, Sample
from haversack.compress.prepare.float_means import BATCH, FloatMeans, rows_of
from haversack.tools.data.stock import Stock, evenly
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import units
from haversack.tools.graph.simulate import Join

WORTH = 1.5
"""Batches join where there is room for so many times as many, or for all: each joining is a pass through all before."""


@dataclass(frozen=True)
class Stages:
    """Which batches are there from where on.

    Attributes:
        begin: those that are there from the start.
        joins: node key -> reads those that join before it is computed.
        rows: of those that begin, and of all.
    """

    begin: Sequence[Sample]
    joins: Mapping[str, Join]
    rows: tuple[int, int]


def staged(model: Model, encodings: Encodings, stock: Stock, wanted: int, megabytes: float) -> Stages:
    """Return batches of which everywhere as many are there as fit: at least one, evenly spread over the samples.

    Args:
        model: the float model, which is run beside that with encodings.
        encodings: under which the batches are to be run.
        stock: the calibration samples.
        wanted: rows of them at most.
        megabytes: that what is alive of the batches may take, in both runs together.
    """
    count = -(-wanted // BATCH)
    rows = stock.rows(count, BATCH)
    size = BATCH if rows > BATCH else max(1, -(-rows // 2))  # two halves are held against each other
    taken, lengths = _looked(model, rebatch(model, stock.take(count, BATCH), size))
    sides = (taken.alive_bytes(model, one) for one in (encodings, Encodings.none()))
    fits = [int(megabytes * 1e6 / max(1, sum(both))) for both in zip(*sides, strict=True)]
    (_, begin), *joined = _schedule(lengths, fits)
    heads = [unit.head.key for unit in units(model.graph)]
    joins = {heads[place]: partial(_read, model, stock, (count, size), chosen) for place, chosen in joined}
    there = [sum(lengths[index] for index in chosen) for _, chosen in ((0, begin), *joined)]
    return Stages(list(_read(model, stock, (count, size), begin)), joins, (there[0], sum(there)))


def _looked(model: Model, batches: Iterator[Sample]) -> tuple[FloatMeans, list[int]]:
    """Return the sizes of activations, of one batch of each shape that there is, and the rows of every batch."""
    executor, taken, lengths = Executor(model), FloatMeans({}), list[int]()
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for batch in batches:
        lengths.append(rows_of(batch))
        shapes = tuple(array.shape[1:] for array in batch)
        if shapes not in seen:
            seen.add(shapes)
            taken.start(lengths[-1])
            executor.run(batch, observe=taken.observe)
    return taken, lengths


def _schedule(lengths: Sequence[int], fits: Sequence[int]) -> list[tuple[int, frozenset[int]]]:
    """Return where batches come in, and which: the place of a unit and indices, the first place 0.

    Args:
        lengths: rows of each batch.
        fits: how many rows fit while each unit runs.
    """
    there: set[int] = set()
    found: list[tuple[int, frozenset[int]]] = []
    for place in range(max(1, len(fits))):
        most = min(fits[place:], default=sum(lengths))
        count = min(len(lengths), max(1, most // max(lengths, default=1)))
        if count > len(there) and (count >= WORTH * len(there) or count == len(lengths)):
            others = [index for index in range(len(lengths)) if index not in there]
            chosen = frozenset(others[at] for at in evenly(len(others), count - len(there)))
            found.append((place, chosen))
            there |= chosen
    return found or [(0, frozenset())]


def _read(model: Model, stock: Stock, form: tuple[int, int], chosen: Collection[int]) -> Iterator[Sample]:
    """Yield some of the batches that are taken, by their indices; ``form``: so many of ``BATCH``, of what size each."""
    count, size = form
    batches = rebatch(model, stock.take(count, BATCH), size)
    return (batch for index, batch in enumerate(batches) if index in chosen)
