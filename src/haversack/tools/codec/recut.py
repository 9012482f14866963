"""Segments cut again, finer, now that the tables are there: each small block goes to the models that code it shortest.

The first cut pays for a table with every segment, so its segments are long. With shared tables a segment costs an entry
in the directory alone. The cheapest way through all blocks is found by dynamic programming (A. Viterbi, "Error bounds
for convolutional codes", 1967): a block costs its bits with each choice of models, and a change of choice an entry.
"""

from __future__ import annotations

import numpy as np

from haversack.tools.codec import entropy
from haversack.tools.codec.plan import FIRST_TABLE, PACKED, STORED
from haversack.tools.codec.rans import PRECISION

Choice = tuple[int, ...]
"""The model at each position modulo the stride, which is how many there are."""

_FINEST = 128
_MOST_BLOCKS = 1 << 16
_PHASES = 4
_BIT = 1 << 8
_ABSENT = 22 * _BIT
_ENTRY = 24 * _BIT
_NEVER = 1 << 40
_CHUNK = 1 << 12
_MOST_CHOICES = 1 << 8
_MOST_BYTES = 1 << 25


def recut(content: bytes, segments: list[tuple[int, Choice]], frequencies: np.ndarray) -> list[tuple[int, Choice]]:
    """Return segments of a file that take fewer bits with the same tables; as they are, in a file of over 32 MiB.

    Args:
        content: the file.
        segments: length in bytes and choice of each, in order; those that are packed stay as they are.
        frequencies: of the tables, integers [tables, 256], 2^14 in all each.
    """
    choices = list(dict.fromkeys([(STORED,), (PACKED,), *(choice for _, choice in segments)]))
    if len(choices) > _MOST_CHOICES or len(content) > _MOST_BYTES:  # seconds, for a part in a thousand
        return segments
    block = _FINEST
    while len(content) > block * _MOST_BLOCKS:
        block *= 2
    bits = _bits_of_blocks(content, block, _lengths(choices, frequencies))
    packed = choices.index((PACKED,))
    bits[:, packed] = _NEVER
    starts = np.cumsum([0, *(length for length, _ in segments)])
    for (length, choice), start in zip(segments, starts.tolist(), strict=False):
        if choice == (PACKED,):  # segments begin at multiples of larger blocks
            inside = slice(start // block, -(-(start + length) // block))
            bits[inside] = _NEVER
            bits[inside, packed] = 0
    way = _cheapest(bits)
    change = np.flatnonzero(np.diff(way, prepend=-1))
    lengths = np.diff(change * block, append=len(content))
    return [(int(length), choices[way[at]]) for at, length in zip(change, lengths, strict=True)]


def _lengths(choices: list[Choice], frequencies: np.ndarray) -> np.ndarray:
    """Return the bits of each byte at each position with each choice, in 1/256 bit: float32 [choices, 4 * 256]."""
    coded = PRECISION * _BIT - entropy.logarithms(frequencies) * _BIT // entropy.UNIT
    models = np.full((FIRST_TABLE + len(frequencies), 256), 8 * _BIT, np.float32)
    models[FIRST_TABLE:] = np.where(frequencies > 0, coded, _ABSENT)
    return np.stack([models[np.resize(choice, _PHASES)].reshape(-1) for choice in choices])


def _bits_of_blocks(content: bytes, block: int, lengths: np.ndarray) -> np.ndarray:
    """Return the bits of each block with each choice, in 1/256 bit: float32 [blocks, choices], whole numbers.

    They stay below 2^24, for blocks are of 512 bytes at most: no order of adding can change them.
    """
    data = np.frombuffer(content, np.uint8)
    chunk = _CHUNK * block
    parts = []
    for low in range(0, len(data), chunk):
        part = data[low : low + chunk]
        place = np.arange(len(part))
        cells = (place // block * _PHASES + place % _PHASES) * 256 + part
        blocks = -(-len(part) // block)
        counts = np.bincount(cells, minlength=blocks * _PHASES * 256).reshape(blocks, -1)
        parts.append(counts.astype(np.float32) @ lengths.T)
    return np.concatenate([np.zeros((0, len(lengths)), np.float32), *parts])


def _cheapest(bits: np.ndarray) -> np.ndarray:
    """Return the choice of each block on the cheapest way, int64 [blocks]; of equals the one before, then the first."""
    blocks, choices = bits.shape
    came = np.empty((blocks, choices), np.uint8)
    same = np.arange(choices)
    total = np.zeros(choices)
    for at, row in enumerate(bits):
        best = int(total.argmin())
        change = total[best] + _ENTRY
        came[at] = np.where(total <= change, same, best)
        total = np.minimum(total, change) + row
    way = np.empty(blocks, np.int64)
    here = int(total.argmin())
    for at in range(blocks - 1, -1, -1):
        way[at] = here
        here = int(came[at, here])
    return way
