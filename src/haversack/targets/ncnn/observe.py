"""Looking into open files: tensors by name, and the time of each layer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.errors import ConversionError
from haversack.base.finding import Finding
from haversack.targets.ncnn.naming import CAST, CODES, WHOLE, key_of
from haversack.targets.ncnn.read import files
from haversack.targets.ncnn.session import extracted, feed, opened
from haversack.targets.ncnn.text import Line

_AS_IT_LIES = 1
"""Tells ``extract`` to leave a blob in the layout that its layer gave it."""
_UNTIMED = frozenset({"Input", "Split", "MemoryData", "Noop"})


def tensors(path: Path, names: Mapping[str, str], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return tensor key -> its array with the batch: uint8 codes where it is encoded, else float32.

    Nothing is computed otherwise for being looked at: each layer runs by itself in any case.

    Args:
        path: the .param file.
        names: tensor key -> name of its blob.
        inputs: name -> array, batch first.
    """
    net = opened(path, 1)
    blobs = _shown(files(path).lines)
    found: dict[str, list[np.ndarray]] = {key: [] for key in names}
    for row in range(len(next(iter(inputs.values())))):
        extractor = net.create_extractor()
        extractor.set_light_mode(False)
        kept = feed(extractor, {name: array[row] for name, array in inputs.items()})
        for key, name in names.items():
            found[key].append(_codes(name, extracted(extractor, blobs.get(name, name))))
        kept.clear()
    return {key: np.stack(arrays) for key, arrays in found.items()}


def _shown(lines: Sequence[Line]) -> dict[str, str]:
    """Return blob -> its first copy, for those that are split."""
    return {line.inputs[0]: line.outputs[0] for line in lines if line.type == "Split" and line.inputs}


def _codes(name: str, array: np.ndarray) -> np.ndarray:
    """Return codes as uint8; their zero is 0 in the file."""
    if not name.endswith((CODES, WHOLE)):
        return array
    return np.asarray(np.rint(array.astype(np.float32)) + 128).astype(np.uint8)


def layer_seconds(path: Path, inputs: Mapping[str, np.ndarray], runs: int) -> dict[str, float]:
    """Return node key -> median seconds of its layers in one call, one thread.

    The package is built without ncnn's profiler: each layer is run by itself, from what the layers before it gave, in
    the layout they gave it. Some microseconds of the call itself are in every figure.

    Raises:
        ConversionError: a layer does not run.
    """
    net = opened(path, 1)
    held: dict[str, Any] = {}
    kept: list[Any] = []
    extractor = net.create_extractor()
    first = {name: array[0] for name, array in inputs.items()}
    found: dict[str, float] = {}
    for line in files(path).lines:
        if line.type == "Split":
            held.update(dict.fromkeys(line.outputs, held[line.inputs[0]]))
        elif line.type == "Input":
            kept += feed(extractor, first)
            held[line.outputs[0]] = _taken(extractor, line.outputs[0], path)
        else:
            timed, held[line.outputs[0]] = _timed(net, line, held, path, runs)
            if line.type not in _UNTIMED:
                key = key_of(line.name)
                found[key] = found.get(key, 0.0) + timed
    return found


def _timed(net: Any, line: Line, held: Mapping[str, Any], path: Path, runs: int) -> tuple[float, Any]:  # noqa: ANN401
    """Return (median seconds of a layer, what it gives)."""
    seconds = []
    made = None
    for _ in range(1 if line.type in _UNTIMED else runs + 1):
        extractor = net.create_extractor()
        for name in line.inputs:
            extractor.input(name, held[name])
        start = time.perf_counter()
        made = _taken(extractor, line.outputs[0], path)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:] or seconds)), made


def _taken(extractor: Any, name: str, path: Path) -> Any:  # noqa: ANN401 - untyped package
    code, mat = extractor.extract(name, _AS_IT_LIES)
    if code != 0:
        raise ConversionError(f"ncnn does not compute {name} (it returns {code})", where=str(path))
    return mat


def fallbacks(path: Path) -> tuple[Finding, ...]:
    """Return the layers whose codes are cast to float32, for want of an (exact) integer kernel, by node key."""
    cause = "ncnn has no exact int8 kernel for it: its codes pass as float32 whole numbers"
    keys = [key_of(line.name) for line in files(path).lines if line.type == "Cast" and line.name.endswith(CAST)]
    return tuple(Finding("fallback", cause, key) for key in dict.fromkeys(keys))
