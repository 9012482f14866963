"""Synthetic inputs for golden vectors: calibration data never leave the workshop unless the job says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from haversack.base.errors import Fault, JobError
from haversack.base.model import Port, Sample

_STEP = 65536 // 8


def synthetic(
    ports: Sequence[Port],
    seed: int,
    count: int,
    *,
    ranges: Mapping[str, tuple[int, int]] | None = None,
    lengths: Mapping[str, int] | None = None,
) -> list[Sample]:
    """Return ``count`` samples of one row for the model's inputs, the same bits on every machine and NumPy.

    Floats are near standard normal (a sum of twelve uniforms of 16 bits: exact arithmetic, within six sigma), in steps
    of 1/8: a hundred values at most, so that a file of them is small.
    Integers are uniform between the bounds of ``ranges``, both included; booleans are fair.

    Args:
        ports: the model's inputs.
        seed: another seed gives other values.
        count: how many samples.
        ranges: input name -> smallest and largest value that calibration data showed (see ``observed``).
        lengths: length of each named dimension other than the batch (axis 0, which is 1).

    Raises:
        JobError: an integer input without a range, or a free dimension without a length; all are told.
    """
    ranges, lengths = ranges or {}, lengths or {}
    faults = [fault for port in ports for fault in _faults(port, ranges, lengths)]
    if faults:
        step = "give golden() in the job file, or calibration data that show these"
        raise JobError("no synthetic inputs can be made", where="golden()", faults=tuple(faults), next_step=step)
    return [tuple(_array(port, seed, index, ranges, lengths) for port in ports) for index in range(count)]


def observed(samples: Iterable[Sample], ports: Sequence[Port]) -> dict[str, tuple[int, int]]:
    """Return input name -> (smallest, largest) value seen, for the integer inputs."""
    found: dict[str, tuple[int, int]] = {}
    for sample in samples:
        for port, array in zip(ports, sample, strict=True):
            if array.dtype.kind in "iu":
                low, high = found.get(port.name, (int(array.min()), int(array.max())))
                found[port.name] = min(low, int(array.min())), max(high, int(array.max()))
    return found


def _faults(port: Port, ranges: Mapping[str, tuple[int, int]], lengths: Mapping[str, int]) -> list[Fault]:
    faults = [
        Fault(port.name, f"the length of its dimension {size} is not known")
        for size in port.spec.shape[1:]
        if isinstance(size, str) and size not in lengths
    ]
    kind = np.dtype(port.spec.dtype).kind
    if kind in "iu" and port.name not in ranges:
        faults.append(Fault(port.name, f"{port.spec.dtype} values need a range"))
    if kind not in "iufb":
        faults.append(Fault(port.name, f"dtype {port.spec.dtype} has no synthetic values"))
    return faults


def _array(
    port: Port, seed: int, index: int, ranges: Mapping[str, tuple[int, int]], lengths: Mapping[str, int]
) -> np.ndarray:
    batch = tuple(1 if isinstance(size, str) else size for size in port.spec.shape[:1])
    shape = batch + tuple(lengths[size] if isinstance(size, str) else size for size in port.spec.shape[1:])
    size = int(np.prod(shape))
    name = hashlib.sha256(f"{seed}/{port.name}/{index}".encode()).digest()
    # Raw words of Philox never change between versions of NumPy; its distributions may (NEP 19).
    stream = np.random.Philox(key=int.from_bytes(name[:16], "little"))
    dtype = np.dtype(port.spec.dtype)
    if dtype.kind == "f":
        words = stream.random_raw(3 * size).astype("<u8").view("<u2").astype(np.int64).reshape(size, 12)
        values = ((words.sum(axis=1) - 6 * 65535 + _STEP // 2) // _STEP) * _STEP / 65536
    elif dtype.kind == "b":
        values = stream.random_raw(size) >> np.uint64(63)
    else:
        low, high = ranges[port.name]
        values = low + (stream.random_raw(size) >> np.uint64(32)).astype(np.int64) % (high - low + 1)
    return np.asarray(values.astype(dtype).reshape(shape))
