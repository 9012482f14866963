"""Files open in ncnn, without torch: it has no batch axis, so rows of a batch run one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.errors import ConversionError, MissingExtra, UsageError, VerificationError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.targets.ncnn.read import beside, files
from haversack.targets.ncnn.sheet import HINT
from haversack.targets.ncnn.text import Line, Malformed

_OFF = ("use_vulkan_compute", "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
"""What would compute in other numbers than float32 and int8."""


def opened(path: Path, threads: int) -> Any:  # noqa: ANN401 - untyped package
    """Return an ``ncnn.Net`` with its layers and weights.

    Args:
        path: the .param file, known to be whole.
        threads: of one call.

    Raises:
        MissingExtra: ncnn is not installed.
        ConversionError: the runtime refuses a file.
    """
    try:
        import ncnn
    except ImportError as error:
        raise MissingExtra("ncnn", "ncnn", purpose="running an ncnn file") from error
    net = ncnn.Net()
    for name in _OFF:
        setattr(net.opt, name, False)
    net.opt.num_threads = threads
    if net.load_param(str(path)) != 0 or net.load_model(str(beside(path))) != 0:
        raise ConversionError("ncnn does not open it", where=str(path))
    return net


class NcnnSession:
    """Open files; see ``targets.contract.Session``. Shapes are the model's, with a batch of one."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            lines = files(path).lines
            self.inputs = tuple(_port(line, line.name, _input(line)) for line in lines if line.type == "Input")
            self.outputs = tuple(_port(line, line.outputs[0], _output(line)) for line in lines if line.type == "Noop")
        except (VerificationError, Malformed, OSError) as error:
            cause = error.cause if isinstance(error, VerificationError) else str(error)
            raise ConversionError(f"ncnn does not open it: {cause}", where=str(path)) from error
        self._net = opened(path, threads)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return output name -> array for input name -> array, float32, any number of rows.

        Raises:
            UsageError: the session is closed, an input is missing or unknown, or does not fit.
        """
        if self._net is None:
            raise UsageError("the session is closed")
        rows = self._rows(inputs)
        found = [self._row({name: np.asarray(array)[row] for name, array in inputs.items()}) for row in range(rows)]
        return {port.name: np.stack([one[port.name] for one in found]) for port in self.outputs}

    def _rows(self, inputs: Mapping[str, np.ndarray]) -> int:
        """Return the number of rows of inputs that fit."""
        wanted = {port.name: port.spec.shape[1:] for port in self.inputs}
        fits = inputs.keys() == wanted.keys() and all(
            array.ndim > 0 and array.shape[1:] == wanted[name] and array.dtype == np.float32
            for name, array in inputs.items()
        )
        counts = {len(array) for array in inputs.values() if array.ndim}
        if not fits or len(counts) != 1 or counts == {0}:
            given = ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in inputs.items())
            needs = ", ".join(f"{name} [rows, {', '.join(map(str, shape))}] float32" for name, shape in wanted.items())
            raise UsageError(f"the inputs do not fit: {given or 'none'}", next_step=f"give {needs}")
        return counts.pop()

    def _row(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        extractor = self._net.create_extractor()
        kept = feed(extractor, inputs)
        shapes = {port.name: tuple(map(int, port.spec.shape[1:])) for port in self.outputs}
        found = {name: extracted(extractor, name).reshape(shape) for name, shape in shapes.items()}
        kept.clear()
        return found

    def close(self) -> None:
        """Let go of the runtime's memory."""
        self._net = None


def feed(extractor: Any, inputs: Mapping[str, np.ndarray]) -> list[Any]:  # noqa: ANN401 - untyped package
    """Give an extractor its inputs, one row each, and return what must live until its last call.

    Layers that work in place change what they are given, so that ncnn gets copies; but it does not hold them itself.
    """
    import ncnn

    held: list[Any] = []
    for name, array in inputs.items():
        held.append(np.array(array, np.float32, order="C"))
        held.append(ncnn.Mat(held[-1]))
        held.append(held[-1].clone())
        extractor.input(name, held[-1])
    return held


def extracted(extractor: Any, name: str) -> np.ndarray:  # noqa: ANN401 - untyped package
    """Return a blob, float32 or int8, without the batch.

    Raises:
        UsageError: the runtime does not compute it.
    """
    code, mat = extractor.extract(name)
    if code != 0:
        raise UsageError(f"ncnn does not compute {name} (it returns {code})")
    return np.array(mat)


def _input(line: Line) -> tuple[int, ...]:
    """Return the shape of an input without the batch."""
    return tuple(line.whole(number) for number in sorted(line.settings, reverse=True))


def _output(line: Line) -> tuple[int, ...]:
    """Return the shape of an output without the batch."""
    told: Any = line.settings.get(HINT, ())
    if not isinstance(told, tuple) or len(told) != 4 or not all(isinstance(one, int) for one in told):
        raise Malformed(f"{line.name} does not tell its shape")
    rank, *sizes = told
    return tuple(int(size) for size in reversed(sizes[: int(rank)]))


def _port(line: Line, name: str, shape: Sequence[int]) -> Port:
    if not shape or min(shape) < 1 or len(shape) > 3:
        raise Malformed(f"{line.name} has the shape {list(shape)}")
    return Port(name, TensorSpec((1, *shape), "float32"))
