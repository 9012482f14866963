"""Which tables may be one: distributions so alike that a second table costs more than it saves.

Layers of a network repeat: their weights have the same bell curve, their scales the same exponents. Tables are merged in
rounds, each with the one that would code its symbols shortest, where the bits of the merged table prove it.
"""

from __future__ import annotations

import numpy as np

from haversack.tools.codec import entropy


def share(counts: np.ndarray, table_bits: np.ndarray, most: int) -> np.ndarray:
    """Return for each histogram the number of its table, int64 [n]: 0 upwards, in the order of their first use.

    Args:
        counts: integers [n, 256].
        table_bits: int64 [n]: what a table of its own costs each, in 1/4096 bit.
        most: so many tables at most; where more are worth it, the last ones go to what codes them shortest.
    """
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
    return rank[number]


def _nearest(groups: np.ndarray) -> np.ndarray:
    """Return for each histogram the other one whose code would be shortest for it: int64 [n]."""
    smooth = groups * 64 + 1
    # Integers of 8 bits after the point: products and sums stay exact in float64, whatever order BLAS adds them in.
    lengths = np.round((_logarithm(smooth.sum(axis=1, keepdims=True)) - _logarithm(smooth)) * 256)
    cost = groups.astype(np.float64) @ lengths.T
    np.fill_diagonal(cost, np.inf)
    return np.argmin(cost, axis=1)


def _logarithm(numbers: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(numbers.astype(np.float64))
    # A rational stand-in for the logarithm, exact to 1/100 bit and the same everywhere: it only ranks.
    return exponent - 1 + (2 * mantissa - 1) * (1.4425 - 0.4425 * (2 * mantissa - 1))


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
