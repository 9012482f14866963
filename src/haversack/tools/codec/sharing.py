"""Which tables may be one: distributions so alike that a second table costs more than it saves.

Layers of a network repeat: their weights have the same bell curve, their scales the same exponents. Tables are merged
in rounds, each with the one that would code its symbols shortest, where the bits of the merged table prove it.
"""

from __future__ import annotations

import numpy as np

from haversack.tools.codec import entropy

_BATCH = 2048


def share(counts: np.ndarray, table_bits: np.ndarray, most: int) -> np.ndarray:
    """Return for each histogram the number of its table, int64 [n]: 0 upwards, in the order of their first use.

    Args:
        counts: integers [n, 256].
        table_bits: int64 [n]: what a table of its own costs each, in 1/4096 bit.
        most: so many tables at most; where more are worth it, the last ones go to what codes them shortest.
    """
    batches = -(-len(counts) // _BATCH)
    if batches <= 1:
        return _shared(counts, table_bits, most)
    # Neighbours first, and what is left of them together: all against all would take memory by the square.
    owner = np.zeros(len(counts), np.int64)
    for low in range(0, len(counts), _BATCH):
        part = slice(low, low + _BATCH)
        owner[part] = _shared(counts[part], table_bits[part], max(most // batches, 1)) + owner.max() + (low > 0)
    joint, dearest = np.zeros((owner.max() + 1, 256), np.int64), np.zeros(owner.max() + 1, np.int64)
    np.add.at(joint, owner, counts)
    np.maximum.at(dearest, owner, table_bits)
    return share(joint, dearest, most)[owner]


def _shared(counts: np.ndarray, table_bits: np.ndarray, most: int) -> np.ndarray:
    owner = np.arange(len(counts))
    groups, bits = counts.astype(np.int64), table_bits.astype(np.int64)
    names = np.arange(len(counts))
    while len(groups) > 1:
        forced = len(groups) > most
        own = entropy.of_counts(groups)
        target = _nearest(groups)
        joint = groups + groups[target]
        saved = own + own[target] + np.minimum(bits, bits[target]) - entropy.of_counts(joint)
        moves = _moves(saved, target, len(groups) - most if forced else 0)
        if not moves.size:
            break
        np.add.at(groups, target[moves], groups[moves])
        np.maximum.at(bits, target[moves], bits[moves])
        renamed = np.arange(len(counts))
        renamed[names[moves]] = names[target[moves]]
        owner = renamed[owner]
        stay = np.setdiff1d(np.arange(len(groups)), moves)
        groups, bits, names = groups[stay], bits[stay], names[stay]
    _, first, number = np.unique(owner, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(rank[number])


def _nearest(groups: np.ndarray) -> np.ndarray:
    """Return for each histogram the other one whose code would be shortest for it: int64 [n]."""
    smooth = groups * 64 + 1
    # Integers of 8 bits after the point: products and sums stay exact in float64, whatever order BLAS adds them in.
    lengths = (entropy.logarithms(smooth.sum(axis=1, keepdims=True)) - entropy.logarithms(smooth)) >> 4
    cost = groups.astype(np.float64) @ lengths.T.astype(np.float64)
    np.fill_diagonal(cost, np.inf)
    return np.asarray(np.argmin(cost, axis=1))


def _moves(saved: np.ndarray, target: np.ndarray, least: int) -> np.ndarray:
    """Return the histograms that go to their targets, best first; what others go to stays where it is."""
    chosen: list[int] = []
    moved: set[int] = set()
    goals: set[int] = set()
    for source in np.argsort(-saved, kind="stable").tolist():
        if saved[source] <= 0 and len(chosen) >= least:
            break
        goal = int(target[source])
        if source not in goals and goal not in moved:
            chosen.append(source)
            moved.add(source)
            goals.add(goal)
    return np.array(chosen, np.int64)
