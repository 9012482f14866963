"""Residuals of words: new minus old, word by word, as symbols of a byte and bits that follow them, all in integers.

A word is predicted from the old one, which may be multiplied first: when one scale of a model changes, all its biases
do by the same factor. Integers are subtracted modulo 2^bits, floats by their rank among all floats, so that a step is
one unit in the last place. docs/spec/delta.md is the format.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ONE = 1 << 28
"""The factor 1 of predictions."""
LEAST_FACTOR, MOST_FACTOR = 1 << 20, (1 << 32) - 1
PLAIN = 8
"""Residuals below it are symbols by themselves."""


@dataclass(frozen=True)
class Kind:
    """How the bytes of a segment are words.

    Attributes:
        width: bytes of a word.
        floating: whether words are IEEE 754 numbers.
        halves: whether a byte is two words of 4 bits.
    """

    width: int
    floating: bool = False
    halves: bool = False

    @property
    def single(self) -> bool:
        """Whether the residual of a byte is its symbol, without bits behind it."""
        return self.width == 1

    @property
    def scaled(self) -> bool:
        """Whether predictions may have a factor."""
        return self.width == 4


KINDS = (
    Kind(1),
    Kind(1, halves=True),
    Kind(2),
    Kind(4),
    Kind(8),
    Kind(2, floating=True),
    Kind(4, floating=True),
    Kind(8, floating=True),
)
"""By their number in a delta."""
BYTES, NIBBLES, INT16, INT32, INT64, FLOAT16, FLOAT32, FLOAT64 = range(8)


def residual(old: np.ndarray, new: np.ndarray, kind: Kind, factor: int = ONE, shift: int = 0) -> np.ndarray:
    """Return what separates new bytes from old ones: unsigned integers [words], small where they are alike.

    Args:
        old, new: uint8 [bytes], a whole number of words each.
        kind: of the words.
        factor: of predictions, in 2^-28; only where ``kind.scaled``.
        shift: of predictions too, a power of two; only of float32.
    """
    if kind.halves:
        low = (new & 15) - (old & 15) & 15
        return np.asarray(low | (new & 0xF0) - (old & 0xF0))
    if kind.single:
        return np.asarray(new - old)
    before, after = _ranks(_predicted(_words(old, kind), kind, factor, shift), kind), _ranks(_words(new, kind), kind)
    return _zigzag(after - before, kind.width)


def restore(old: np.ndarray, found: np.ndarray, kind: Kind, factor: int = ONE, shift: int = 0) -> np.ndarray:
    """Return the new bytes, uint8 [bytes], for the old ones and ``residual``."""
    if kind.halves:
        low = (old & 15) + (found & 15) & 15
        return np.asarray(low | (old & 0xF0) + (found & 0xF0))
    if kind.single:
        return np.asarray(old + found)
    before = _ranks(_predicted(_words(old, kind), kind, factor, shift), kind)
    return np.asarray(_unranked(before + _unzigzag(found), kind).astype(f"<u{kind.width}").view(np.uint8))


def _words(data: np.ndarray, kind: Kind) -> np.ndarray:
    return np.frombuffer(data.tobytes(), f"<u{kind.width}").astype(f"u{kind.width}")


def _zigzag(difference: np.ndarray, width: int) -> np.ndarray:
    """Return 0, -1, 1, -2 … as 0, 1, 2, 3 …, in unsigned integers of their width."""
    top = difference.dtype.type(8 * width - 1)
    return np.asarray((difference << difference.dtype.type(1)) ^ (~(difference >> top) + difference.dtype.type(1)))


def _unzigzag(found: np.ndarray) -> np.ndarray:
    one = found.dtype.type(1)
    return np.asarray((found >> one) ^ (~(found & one) + one))


def _ranks(words: np.ndarray, kind: Kind) -> np.ndarray:
    """Return the rank of each float among all of its width, unsigned; integers as they are."""
    if not kind.floating:
        return words
    sign = words.dtype.type(1 << (8 * kind.width - 1))
    return np.where(words & sign, ~words, words | sign)


def _unranked(ranks: np.ndarray, kind: Kind) -> np.ndarray:
    if not kind.floating:
        return ranks
    sign = ranks.dtype.type(1 << (8 * kind.width - 1))
    return np.where(ranks & sign, ranks ^ sign, ~ranks)


def _predicted(words: np.ndarray, kind: Kind, factor: int, power: int) -> np.ndarray:
    """Return words multiplied by a factor, rounded half up; floats that are or become no normal ones stay."""
    if factor == ONE and not power:
        return words
    if not kind.floating:
        wide = words.view(np.int32).astype(np.int64)
        return ((wide * factor + (ONE >> 1)) >> 28).astype(np.uint32)
    exponent = (words >> np.uint32(23)).astype(np.int64) & 255
    mantissa = (words & np.uint32(0x7FFFFF)).astype(np.int64) | 1 << 23
    product = mantissa * factor
    shift = (factor.bit_length() - 1) + (product >> (23 + factor.bit_length()))
    rounded = (product + (np.int64(1) << (shift - 1))) >> shift
    carry = rounded >> 24
    raised = exponent + shift + carry - 28 + power
    normal = (exponent > 0) & (exponent < 255) & (raised > 0) & (raised < 255)
    made = (raised << 23 | (rounded >> carry) & 0x7FFFFF).astype(np.uint32) | words & np.uint32(1 << 31)
    return np.where(normal, made, words)


def split(found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return symbols (uint8), the numbers of bits that follow (int64), and these bits (uint64) of residuals [words].

    A residual below 8 is its symbol. Another one of n bits has the symbol 8 + 4 * (n - 4) + its two bits after the
    first; the n - 3 others follow.
    """
    wide = found.astype(np.uint64)
    length = _bit_lengths(wide)
    rest = np.maximum(length - 3, 0)
    top = (wide >> rest.astype(np.uint64)).astype(np.int64)  # three bits, 4 to 7, where there are so many
    symbols = np.where(length > 3, PLAIN + 4 * (length - 4) + (top & 3), top)
    return symbols.astype(np.uint8), rest, wide & ((np.uint64(1) << rest.astype(np.uint64)) - np.uint64(1))


def rests(symbols: np.ndarray, kind: Kind) -> np.ndarray:
    """Return how many bits follow each symbol, int64 [words].

    Raises:
        ValueError: a symbol stands for more bits than a word has.
    """
    wide = symbols.astype(np.int64)
    rest = np.where(wide >= PLAIN, (wide - PLAIN) // 4 + 1, 0)
    if rest.size and rest.max() + 3 > 8 * kind.width:
        message = f"a residual has {int(rest.max()) + 3} bits, and words {8 * kind.width}"
        raise ValueError(message)
    return rest


def join(symbols: np.ndarray, rest: np.ndarray, bits: np.ndarray, kind: Kind) -> np.ndarray:
    """Return the residuals, unsigned [words], of symbols, and of the bits (uint64) that follow them."""
    wide = symbols.astype(np.uint64)
    top = np.where(wide >= PLAIN, (wide & np.uint64(3)) | np.uint64(4), wide)
    return np.asarray(((top << rest.astype(np.uint64)) | bits).astype(f"u{kind.width}"))


def _bit_lengths(numbers: np.ndarray) -> np.ndarray:
    """Return how many bits each number has: int64; 0 for 0."""
    found, left = np.zeros(numbers.shape, np.int64), numbers.copy()
    for step in (32, 16, 8, 4, 2, 1):
        high = left >> np.uint64(step) > 0
        found += step * high
        left = np.where(high, left >> np.uint64(step), left)
    return np.asarray(found + (left > 0))


def pack_bits(rest: np.ndarray, bits: np.ndarray) -> bytes:
    """Return bits one after the other, the lowest first, from the lowest bit of each byte upwards."""
    total = int(rest.sum())
    place = np.repeat(np.cumsum(rest) - rest, rest)
    inside = np.arange(total) - place
    flat = (np.repeat(bits, rest) >> inside.astype(np.uint64)) & np.uint64(1)
    return np.packbits(flat.astype(np.uint8), bitorder="little").tobytes()


def unpack_bits(data: np.ndarray, at: int, rest: np.ndarray) -> np.ndarray:
    """Return numbers of so many bits each, uint64 [words].

    Args:
        data: uint8, with eight bytes of zeros behind what is read.
        at: of the first bit.
        rest: int64 [words]: bits of each, at most 61; they lie inside ``data``.
    """
    place = at + np.cumsum(rest) - rest
    if not rest.size or rest.max() <= 32:
        return _window(data, place, rest)
    first = np.minimum(rest, 32)
    return np.asarray(_window(data, place, first) | _window(data, place + first, rest - first) << np.uint64(32))


def _window(data: np.ndarray, place: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Return up to 32 bits from each place."""
    byte, found = place >> 3, np.zeros(place.shape, np.uint64)
    for step in range(5):
        found |= data[byte + step].astype(np.uint64) << np.uint64(8 * step)
    found >>= (place & 7).astype(np.uint64)
    return np.asarray(found & ((np.uint64(1) << rest.astype(np.uint64)) - np.uint64(1)))
