"""The coder's loops in C, where they were built: native/rans.c beside this module, called with NumPy's buffers.

Nothing is compiled here, and nothing is missing without it: ``rans`` does the same in NumPy, bit for bit and more
slowly. ``HAVERSACK_NATIVE=0`` in the environment says that it shall.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import numpy as np

SWITCH = "HAVERSACK_NATIVE"
PLACE = Path(__file__).with_name("_native.so")
"""Where a build puts the library."""
REVISION = 2
"""Of the functions that are called here; a library of another revision is left alone."""

_NO_WORD = 4
_FAULTS = {1: "arguments", 2: "the sum of a table", 3: "a table's number", 5: "a symbol without a frequency"}
_KINDS = {
    "buffer": ctypes.c_void_p,
    "lanes": ctypes.c_uint32,
    "count": ctypes.c_uint64,
    "lane": ctypes.POINTER(ctypes.c_uint32),
    "counted": ctypes.POINTER(ctypes.c_uint64),
}
_SIGNATURES = {
    "haversack_rans_tables": "buffer count buffer buffer",
    "haversack_rans_decode": "buffer lanes lane buffer count counted buffer buffer count"
    " buffer buffer buffer count buffer count counted counted",
    "haversack_rans_encode": "buffer lanes buffer count buffer buffer count buffer buffer count"
    " buffer count counted counted",
}


class NoWordError(ValueError):
    """The words of a stream end; ``symbol`` says before which one, from the first of the call."""

    def __init__(self, symbol: int) -> None:
        super().__init__(f"the words end at symbol {symbol}")
        self.symbol = symbol


class Tables:
    """Tables as the loops want them: frequencies and their sums, uint16 [tables, 256], and the symbols of all slots.

    Args:
        opened: what ``library`` returned.
        frequencies: integers [tables, 256], 0 to 2^14; each row adds up to 2^14.
        slots: whether they are to decode.

    Raises:
        ValueError: a row has another sum, or there are more than 256.
    """

    def __init__(self, opened: ctypes.CDLL, frequencies: np.ndarray, *, slots: bool) -> None:
        self._opened = opened
        self._frequencies = np.ascontiguousarray(frequencies, np.uint16)
        self._starts = np.empty_like(self._frequencies)
        self._symbols = np.empty((len(frequencies), 1 << 14), np.uint8) if slots else None
        _told(
            opened.haversack_rans_tables(
                *(_at(self._frequencies, np.uint16), len(self._frequencies)),
                *(_at(self._starts, np.uint16), _at(self._symbols)),
            )
        )

    def decode(
        self,
        states: np.ndarray,
        lane: int,
        words: np.ndarray,
        read: int,
        models: np.ndarray,
        lengths: np.ndarray | None,
        *,
        uncertain: bool = False,
    ) -> tuple[np.ndarray, int, int, int]:
        """Return the next symbols, uint8 [count], the lane of the one behind them, words that are read, symbols coded.

        Args:
            states: uint32 [lanes], moved on.
            lane: of the first symbol.
            words: uint16 [words], little-endian.
            read: so many of them are read already.
            models: uint8 [runs]: the table of each run of symbols.
            lengths: uint64 [runs]: how many symbols each has; without them, one.
            uncertain: whether symbols of tables that have but one are not in the stream; else all are coded.

        Raises:
            NoWordError: the words end.
            ValueError: a model is no table, or the buffers are none of these.
        """
        count = len(models) if lengths is None else int(lengths.sum())
        found = np.empty(count, np.uint8)
        at, taken, where = ctypes.c_uint32(lane), ctypes.c_uint64(read), ctypes.c_uint64()
        coded = ctypes.c_uint64(count)
        fault = self._opened.haversack_rans_decode(
            *(_at(states, np.uint32), len(states), ctypes.byref(at)),
            *(_at(words, np.dtype("<u2")), len(words), ctypes.byref(taken)),
            *(_at(models), _at(lengths, np.uint64), len(models)),
            *(_at(self._frequencies, np.uint16), _at(self._starts, np.uint16), _at(self._symbols)),
            *(len(self._frequencies), _at(found), count),
            *(ctypes.byref(coded) if uncertain else None, ctypes.byref(where)),
        )
        _told(fault, where.value)
        return found, at.value, taken.value, coded.value

    def encode(
        self, states: np.ndarray, symbols: np.ndarray, models: np.ndarray, lengths: np.ndarray | None
    ) -> np.ndarray:
        """Return the words of symbols, uint16 [words], little-endian.

        Args:
            states: uint32 [lanes], moved on.
            symbols: uint8 [count].
            models: uint8 [runs]: the table of each run of symbols.
            lengths: uint64 [runs]: how many symbols each has; without them, one.

        Raises:
            ValueError: a symbol has no frequency, a model is no table, or the buffers are none of these.
        """
        words = np.empty(len(symbols), "<u2")
        written, where = ctypes.c_uint64(), ctypes.c_uint64()
        fault = self._opened.haversack_rans_encode(
            *(_at(states, np.uint32), len(states), _at(symbols), len(symbols)),
            *(_at(models), _at(lengths, np.uint64), len(models)),
            *(_at(self._frequencies, np.uint16), _at(self._starts, np.uint16), len(self._frequencies)),
            *(_at(words, np.dtype("<u2")), len(words), ctypes.byref(written), ctypes.byref(where)),
        )
        _told(fault, where.value)
        return words[len(words) - written.value :].copy()


def library() -> ctypes.CDLL | None:
    """Return the library; None where none was built for this machine and this revision, or the switch is 0."""
    return None if os.environ.get(SWITCH) == "0" else _opened(PLACE)


@cache
def _opened(path: Path) -> ctypes.CDLL | None:
    try:
        opened = ctypes.CDLL(os.fspath(path))
        revision = opened.haversack_revision
    except (OSError, AttributeError):  # not built, or for another machine, or no library of ours
        return None
    revision.restype = ctypes.c_uint32
    if revision() != REVISION:
        return None
    for name, kinds in _SIGNATURES.items():
        function = getattr(opened, name)
        function.argtypes, function.restype = [_KINDS[kind] for kind in kinds.split()], ctypes.c_int32
    return opened


def _at(buffer: np.ndarray | None, kind: object = np.uint8) -> int | None:
    """Return where a buffer is; None for none."""
    if buffer is None:
        return None
    if buffer.dtype != kind or not buffer.flags.c_contiguous:
        message = f"the loops take contiguous {kind}, not {buffer.dtype}"
        raise ValueError(message)
    return int(buffer.ctypes.data)


def _told(fault: int, where: int = 0) -> None:
    if fault == _NO_WORD:
        raise NoWordError(where)
    if fault:
        message = f"refused because of {_FAULTS[fault]} ({where})"
        raise ValueError(message)
