"""Which models code a file: its segments, their tables shared and counted, cut again, counted again."""

from __future__ import annotations

import numpy as np

from haversack.tools.codec import entropy, plan, recut, segments, sharing, tables
from haversack.tools.codec.plan import FIRST_TABLE, PACKED, STORED, Run
from haversack.tools.codec.recut import Choice


def fit(content: bytes) -> tuple[list[tuple[Run, ...]], np.ndarray]:
    """Return the runs of each segment, in order, and the levels of the tables that they name, uint8 [tables, 256].

    Raises:
        MissingExtra: the package zstandard is not installed.
    """
    data = np.frombuffer(content, np.uint8)
    chosen, levels = _first(data, segments.cut(content))
    chosen = recut.recut(content, chosen, tables.to_frequencies(levels))
    chosen, levels = _recounted(data, chosen, len(levels))
    return _runs(chosen), levels


def _first(data: np.ndarray, cut: tuple[segments.Segment, ...]) -> tuple[list[tuple[int, Choice]], np.ndarray]:
    """Return lengths and choices of a first cut, and levels of its tables, shared: uint8 [tables, 256]."""
    chosen = [(each.length, [STORED] * each.stride or [PACKED]) for each in cut]
    found, where = [], []
    for each, (_, models) in zip(cut, chosen, strict=True):
        for phase in range(each.stride):
            counts = np.bincount(data[each.start + phase : each.start + each.length : each.stride], minlength=256)
            bits = entropy.of_counts(counts) + segments.model_bits(counts)
            if bits < counts.sum() * 8 * entropy.UNIT:
                found.append(counts)
                where.append((models, phase))
    counts = np.array(found, np.int64).reshape(-1, 256)
    owner = sharing.share(counts, segments.model_bits(counts), plan.MOST_TABLES)
    for (models, phase), table in zip(where, owner.tolist(), strict=True):
        models[phase] = FIRST_TABLE + table
    joint = np.zeros((int(owner.max(initial=-1)) + 1, 256), np.int64)
    np.add.at(joint, owner, counts)
    return [(length, tuple(models)) for length, models in chosen], tables.to_levels(joint)


def _recounted(
    data: np.ndarray, chosen: list[tuple[int, Choice]], count: int
) -> tuple[list[tuple[int, Choice]], np.ndarray]:
    """Return the choices with the tables that are still used, numbered by first use, and their levels."""
    joint = np.zeros((count, 256), np.int64)
    for runs in _runs(chosen):
        for run in runs:
            if run.model >= FIRST_TABLE and len(run):
                joint[run.model - FIRST_TABLE] += np.bincount(data[run.place], minlength=256)
    used = dict.fromkeys(model for _, choice in chosen for model in choice if model >= FIRST_TABLE)
    kept = [model for model in used if joint[model - FIRST_TABLE].any()]
    number = {model: FIRST_TABLE + index for index, model in enumerate(kept)}
    # A model that coded nothing, at a position that a short segment has no byte for, is called stored.
    renamed = [
        (length, tuple(model if model < FIRST_TABLE else number.get(model, STORED) for model in choice))
        for length, choice in chosen
    ]
    return renamed, tables.to_levels(joint[[model - FIRST_TABLE for model in kept]].reshape(-1, 256))


def _runs(chosen: list[tuple[int, Choice]]) -> list[tuple[Run, ...]]:
    start, found = 0, []
    for length, choice in chosen:
        stride = len(choice)
        found.append(tuple(Run(start + phase, start + length, stride, m) for phase, m in enumerate(choice)))
        start += length
    return found
