"""The child's side of a self-test: it opens a model in its runtime, asks it the golden vectors, and takes times.

Served by ``haversack.tools.worker``; the parent's side is ``selftest``. Whatever happens here happens to the child.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from haversack.base.errors import UsageError
from haversack.base.shelf import Shelf
from haversack.tools.data import golden_file

Header = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]
Answer = tuple[Mapping[str, Any], Mapping[str, np.ndarray]]
ACCEPTED = ("onnxruntime", "litert", "executorch")
"""The runtimes whose files a device takes: a closed list."""
ROUNDS, TIMING_SECONDS = 30, 1.5


class Session(Protocol):
    """A model, open in its runtime."""

    def run(self, inputs: Arrays) -> Mapping[str, np.ndarray]:
        """Return outputs by name for inputs by name, shapes and dtypes as the file has them."""

    def close(self) -> None:
        """Let go of the runtime's memory."""


def methods() -> Mapping[str, Callable[[Header, Arrays], Answer]]:
    """Return what a worker serves."""
    return {"answer": answer, "compare": compare}


def answer(header: Header, _: Arrays) -> Answer:
    """Open a model, and hold its answers against its golden vectors.

    Args:
        header: ``target``, ``main``, ``options``, ``threads``; ``golden``, ``exact``, ``tolerance``.

    Returns:
        ``faults``: [where, cause] each; ``vectors``, how many were asked; ``median_ms`` of a call.

    Raises:
        HaversackError: it cannot be opened, or its golden vectors cannot be read.
    """
    vectors = golden_file.read(Path(header["golden"]))
    session = opened(header)
    faults = []
    for number, vector in enumerate(vectors):
        found = session.run(vector.inputs)
        faults += [
            [f"golden vector {number}, output {name}", cause]
            for name, cause in differing(vector.outputs, found, exact=header["exact"], tolerance=header["tolerance"])
        ]
    times = _times([session], [vectors[0].inputs])[0] if not faults else [0.0]
    session.close()
    return {"faults": faults, "vectors": len(vectors), "median_ms": 1000 * statistics.median(times)}, {}


def compare(header: Header, _: Arrays) -> Answer:
    """Call the new model and the last one by turns on the new one's golden inputs.

    Args:
        header: ``new`` and ``last``, each as for ``answer``.

    Returns:
        ``ratio``: fastest call of the new to that of the last; ``more_ms``: their difference.

    Raises:
        HaversackError: one of them cannot be opened, or the last one takes other inputs.
    """
    inputs = golden_file.read(Path(header["new"]["golden"]))[0].inputs
    times = _times([opened(header["new"]), opened(header["last"])], [inputs, inputs])
    new, last = (1000 * min(each) for each in times)
    return {"ratio": new / max(last, 1e-6), "more_ms": new - last}, {}


def opened(header: Header) -> Session:
    """Open a model.

    Raises:
        UsageError: a device takes no files of its runtime.
        MissingExtra, ConversionError: the runtime is not there, or does not open it.
    """
    if header["target"] not in ACCEPTED:
        raise UsageError(f"a device takes no files for {header['target'][:80]!r}: {', '.join(ACCEPTED)}")
    target = Shelf("haversack.targets", "target").type_of(header["target"])()
    session: Session = target.open_session(Path(header["main"]), dict(header["options"]), int(header["threads"]))
    return session


def differing(wanted: Arrays, found: Arrays, *, exact: bool, tolerance: float) -> Iterator[tuple[str, str]]:
    """Yield (output, what is wrong with it) for what a model returns.

    Args:
        wanted: the golden outputs, any shape and dtype.
        found: the model's.
        exact: whether the bits must be the same.
        tolerance: otherwise the most that |found - wanted| / |wanted| may be, Euclidean; 0 demands equal values.
    """
    for name in sorted({*wanted, *found}):
        if name not in wanted or name not in found:
            yield name, "the model does not give it" if name in wanted else "nothing is expected of it"
            continue
        mine, theirs = np.asarray(wanted[name]), np.asarray(found[name])
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            yield name, f"{theirs.dtype} {list(theirs.shape)} instead of {mine.dtype} {list(mine.shape)}"
        elif count := _not_finite(mine):
            yield name, f"{count} of {mine.size} golden values are NaN or infinite, and prove nothing"
        elif count := _not_finite(theirs):
            yield name, f"{count} of {mine.size} values are NaN or infinite"
        elif mine.tobytes() == theirs.tobytes():
            continue
        elif exact:
            yield name, f"{int(np.count_nonzero(mine != theirs))} of {mine.size} values differ"
        elif (error := _distance(mine, theirs)) > tolerance:
            yield name, f"the relative error is {error:.3g}, and {tolerance:.3g} is allowed"


def _not_finite(values: np.ndarray) -> int:
    """Return how many values are NaN or infinite."""
    return int(np.count_nonzero(~np.isfinite(values))) if values.dtype.kind in "fc" else 0


def _distance(wanted: np.ndarray, found: np.ndarray) -> float:
    """Return |found - wanted| / |wanted| of finite values; infinite where all of ``wanted`` is zero."""
    if np.array_equal(wanted, found):
        return 0.0
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    mine, theirs = wanted.astype(wide), found.astype(wide)
    largest = max(float(np.abs(mine).max(initial=0)), float(np.abs(theirs).max(initial=0)))
    mine, theirs = mine / largest, theirs / largest  # squares of float64 overflow, and vanish
    error, size = float(np.linalg.norm(theirs - mine)), float(np.linalg.norm(mine))
    # Integers beyond 2**53 may differ by less than float64 tells.
    return max(error, float(np.finfo(np.float64).tiny)) / size if size else float("inf")


def _times(sessions: Sequence[Session], inputs: Sequence[Arrays]) -> list[list[float]]:
    """Return seconds of calls by turns, one list for each session, the first call of each left out."""
    for session, feed in zip(sessions, inputs, strict=True):
        session.run(feed)
    times: list[list[float]] = [[] for _ in sessions]
    until = time.perf_counter() + TIMING_SECONDS
    for done in range(ROUNDS):
        for session, feed, taken in zip(sessions, inputs, times, strict=True):
            begin = time.perf_counter()
            session.run(feed)
            taken.append(time.perf_counter() - begin)
        if done and time.perf_counter() > until:
            break
    return times
