"""Where a file's statistics change: its bytes cut into segments that one model each codes well, whatever the format.

Blocks of a file are merged with their neighbours for as long as that saves bits: those of all symbols at their entropy,
of a table for each model, of the entry in the directory. A model codes every byte, or every second or fourth (a float's
or an integer's bytes have a distribution each); a block in which repetitions save more is left to Zstandard.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from haversack.tools.codec import entropy, zstd

STRIDES = (1, 2, 4)
MATCHED = 0
_PHASES = 4
_BLOCK = 1024
_MOST_BLOCKS = 8192
_ROUNDS = 200
_PATIENCE = 1 << 19
_NEVER = np.int64(1) << 52
_ENTRY = 40 * entropy.UNIT
_TABLE = 80 * entropy.UNIT
_SYMBOL = 4 * entropy.UNIT


@dataclass(frozen=True)
class Segment:
    """Neighbouring bytes: from ``start`` so many as ``length``, with a model for each position modulo ``stride``.

    A stride of 0 says that its bytes repeat others or each other: no distribution of single bytes is as short.
    """

    start: int
    length: int
    stride: int


@dataclass
class _Row:
    """Segments while they are merged: counts int32 [n, 4, 256], first block [n], bits with matches and bits [n]."""

    counts: np.ndarray
    first: np.ndarray
    matched: np.ndarray
    bits: np.ndarray


def cut(content: bytes) -> tuple[Segment, ...]:
    """Return the segments of a file's bytes, in order and without gaps."""
    if not content:
        return ()
    block = _BLOCK
    while len(content) > block * _MOST_BLOCKS:
        block *= 2
    counts = _histograms(content, block)
    matched = _with_matches(content, block, counts)
    row = _merged(_Row(counts, np.arange(len(counts)), matched, _bits(counts, matched)))
    strided = np.stack(_strided(row.counts))
    strides = np.where(row.matched + _ENTRY <= row.bits, MATCHED, np.array(STRIDES)[np.argmin(strided, axis=0)])
    starts = row.first * block
    lengths = np.diff(starts, append=len(content))
    return tuple(
        Segment(int(start), int(length), int(stride))
        for start, length, stride in zip(starts, lengths, strides, strict=True)
    )


def model_bits(counts: np.ndarray) -> np.ndarray:
    """Return the bits of a table, int64 [...] in 1/4096 bit, for histograms of integers [..., 256]."""
    distinct = (counts > 0).sum(axis=-1)
    return np.asarray(distinct * _SYMBOL + _TABLE)


def _histograms(content: bytes, block: int) -> np.ndarray:
    """Return how often each byte occurs at each position modulo 4 in each block: int32 [blocks, 4, 256]."""
    data = np.frombuffer(content, np.uint8)
    counts = np.zeros((-(-len(data) // block), _PHASES, 256), np.int32)
    step = max((1 << 20) // block, 1) * block
    place = np.arange(min(step, len(counts) * block), dtype=np.int64)
    cells = (place // block * _PHASES + place % _PHASES) * 256
    for low in range(0, len(data), step):
        part = data[low : low + step]
        blocks = -(-len(part) // block)
        found = np.bincount(cells[: len(part)] + part, minlength=blocks * _PHASES * 256)
        counts[low // block : low // block + blocks] = found.reshape(blocks, _PHASES, 256)
    return counts


def _with_matches(content: bytes, block: int, counts: np.ndarray) -> np.ndarray:
    """Return each block's bits by Zstandard behind all before it, int64 [blocks].

    They are more than any where its entropy is not well above.
    """
    sizes = zstd.block_sizes(content, block, zstd.BEST if len(content) <= _PATIENCE else zstd.QUICK)
    found = np.array(sizes, np.int64) * (8 * entropy.UNIT)
    own = entropy.of_counts(counts.sum(axis=1))
    return np.where(found < own - own // 10, found, _NEVER)


def _merged(row: _Row) -> _Row:
    """Merge neighbours, round by round: in each, every pair that saves more than the pairs beside it.

    Of pairs that save the same, as in a file of zeros, every second one is merged; and so of all pairs that save
    anything, once there were so many rounds that they must be merging one by one.
    """
    pairs, stale = np.zeros(len(row.bits) - 1, np.int64), np.ones(len(row.bits) - 1, bool)
    for turn in itertools.count():
        if len(row.bits) < 2:
            break
        left = np.flatnonzero(stale)
        pairs[left] = _bits(row.counts[left] + row.counts[left + 1], row.matched[left] + row.matched[left + 1])
        saved = np.maximum(row.bits[:-1] + row.bits[1:] - pairs, 0)
        rank = 2 * (saved if turn < _ROUNDS else np.sign(saved)) + np.arange(len(saved)) % 2
        before, after = np.append(0, rank[:-1]), np.append(rank[1:], 0)
        chosen = np.flatnonzero((saved > 0) & (rank > before) & (rank >= after))
        if not chosen.size:
            break
        row.counts[chosen] += row.counts[chosen + 1]
        row.matched[chosen] = np.minimum(row.matched[chosen] + row.matched[chosen + 1], _NEVER)
        row.bits[chosen] = pairs[chosen]
        kept, grown = np.ones(len(row.bits), bool), np.zeros(len(row.bits), bool)
        kept[chosen + 1], grown[chosen] = False, True
        stay = np.flatnonzero(kept)
        row = _Row(row.counts[stay], row.first[stay], row.matched[stay], row.bits[stay])
        pairs, stale = pairs[stay[:-1]], grown[stay[:-1]] | grown[stay[1:]]
    return row


def _bits(counts: np.ndarray, matched: np.ndarray) -> np.ndarray:
    """Return the bits of segments in their cheapest form: int64 [n]."""
    return np.asarray(np.minimum(np.minimum.reduce(_strided(counts)), matched) + _ENTRY)


def _strided(counts: np.ndarray) -> list[np.ndarray]:
    """Return the bits of segments at each stride, each model a table's or stored bytes: int64 [n] each."""
    halves = counts[:, :2] + counts[:, 2:]
    return [_planes(each) for each in (halves.sum(axis=1, keepdims=True), halves, counts)]


def _planes(counts: np.ndarray) -> np.ndarray:
    stored = counts.sum(axis=-1, dtype=np.int64) * (8 * entropy.UNIT)
    return np.asarray(np.minimum(entropy.of_counts(counts) + model_bits(counts), stored).sum(axis=-1))
