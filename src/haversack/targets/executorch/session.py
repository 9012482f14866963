"""A file open in ExecuTorch's Python runtime.

ExecuTorch's bindings take and give torch tensors: this is the one session that imports torch, in the worker's child.
A file holds a batch of one; the rows of a longer batch run one after another. ExecuTorch has one pool of threads for
the whole process: the last session that was opened says how many there are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.errors import ConversionError, MissingExtra, UsageError, VerificationError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.targets.executorch.parse import about, parse
from haversack.targets.executorch.quiet import quiet

BINDINGS = "executorch.extension.pybindings._C"
"""portable_lib beside it offers the same names, after importing the exporters for 14 CPU seconds."""


def bindings(threads: int) -> Any:  # noqa: ANN401 - a module without types
    """Return ExecuTorch's bindings with the process's pool of threads set.

    Raises:
        MissingExtra: torch or executorch is not installed.
    """
    try:
        import torch  # noqa: F401 - brings the libraries that the bindings are linked against
    except ImportError as error:
        purpose = "running a .pte file in Python (ExecuTorch's bindings take and give torch tensors)"
        raise MissingExtra("torch", "pack", purpose=purpose) from error
    try:
        native = import_module(BINDINGS)
        _link_quantized()
    except ImportError as error:
        raise MissingExtra("executorch", "pack", purpose="running a .pte file") from error
    if native._threadpool_get_thread_count() != threads:  # noqa: SLF001 - there is no other name for it
        native._unsafe_reset_threadpool(threads)  # noqa: SLF001 - as above
    return native


@cache
def _link_quantized() -> None:
    """Link the kernels of stored embedding tables, which the bindings leave out; where they lie is the wheel's."""
    import executorch

    for folder in executorch.__path__:
        for path in sorted(Path(folder, "lib").glob("*executorch_kernels_quantized*")):
            ctypes.CDLL(str(path))


class EtSession:
    """An open file; see ``targets.contract.Session``.

    Args:
        path: of the file.
        threads: of the process's pool.
        proven: whether these very bytes were opened before: the rest of the file is not read by us again.
    """

    def __init__(self, path: Path, threads: int, *, proven: bool = False) -> None:
        self.inputs, self.outputs = _interface(path, proven=proven)
        with quiet():
            runtime = bindings(threads)
            try:
                self._program: Any = runtime._load_program(str(path))  # noqa: SLF001 - there is no other name for it
                self._method: Any = self._program.load_method("forward")
            except RuntimeError as error:
                raise ConversionError(f"ExecuTorch does not open it: {error}", where=str(path)) from error

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return output name -> array for input name -> array, shapes and dtypes as ``inputs`` and ``outputs`` say.

        Raises:
            UsageError: the session is closed, an input is missing or unknown, or does not fit.
        """
        if self._method is None:
            raise UsageError("the session is closed")
        arrays = self._checked(inputs)
        cut = [is_free(port) for port in self.inputs]
        rows = next((len(array) for array, free in zip(arrays, cut, strict=True) if free), 1)
        found = [
            self._called([array[row : row + 1] if free else array for array, free in zip(arrays, cut, strict=True)])
            for row in range(rows)
        ]
        columns = zip(*found, strict=True)
        return {
            port.name: np.concatenate(column) if is_free(port) else column[0]
            for port, column in zip(self.outputs, columns, strict=True)
        }

    def _called(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        try:
            found = self._method.call([as_tensor(each) for each in arrays])
        except RuntimeError as error:
            step = f"give {self._wanted()}, with values that the model takes; if they are, leave this target out"
            raise UsageError(f"ExecuTorch does not run it: {error}", next_step=step) from error
        return [each.numpy() for each in found]

    def _checked(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        arrays = [inputs.get(port.name) for port in self.inputs]
        pairs = zip(self.inputs, arrays, strict=True)
        rows = {array.shape[:1] for port, array in pairs if array is not None and is_free(port)}
        fits = len(inputs) == len(arrays) and len(rows) <= 1 and rows != {(0,)}
        fits = fits and all(_fits(port, array) for port, array in zip(self.inputs, arrays, strict=True))
        if not fits:
            given = ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in inputs.items())
            raise UsageError(f"the inputs do not fit: {given}", next_step=f"give {self._wanted()}")
        return [array for array in arrays if array is not None]

    def _wanted(self) -> str:
        return ", ".join(f"{port.name} {list(port.spec.shape)} {port.spec.dtype}" for port in self.inputs)

    def close(self) -> None:
        """Let go of the runtime's memory."""
        self._method = self._program = None


def as_tensor(array: np.ndarray) -> Any:  # noqa: ANN401 - a torch tensor
    """Return an array as a torch tensor, copied where torch cannot look at its memory.

    One row of a reversed batch counts as contiguous although its stride is negative: torch refuses it.
    """
    import torch

    plain = array.flags.c_contiguous and array.flags.writeable and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if plain else np.array(array, order="C"))


def is_free(port: Port) -> bool:
    """Say whether a port's first axis is the batch, of which a file holds one row."""
    return bool(port.spec.shape) and isinstance(port.spec.shape[0], str)


def _fits(port: Port, array: np.ndarray | None) -> bool:
    if array is None or str(array.dtype) != port.spec.dtype or array.ndim != len(port.spec.shape):
        return False
    return all(
        isinstance(asked, str) or asked == size for asked, size in zip(port.spec.shape, array.shape, strict=True)
    )


def ports(told: Any) -> tuple[Port, ...]:  # noqa: ANN401 - out of a file
    """Return inputs or outputs as a file tells them: only the batch has a free length.

    Raises:
        VerificationError: they are not told as we write them.
    """
    try:
        found = tuple(Port(str(name), TensorSpec(tuple(shape), str(dtype))) for name, shape, dtype in told)
    except (TypeError, ValueError) as error:
        raise VerificationError("a .pte file whose inputs and outputs are not told as we write them") from error
    if not found:
        raise VerificationError("a .pte file without inputs or outputs: they are not told as we write them")
    return found


def _interface(path: Path, *, proven: bool) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return a file's inputs and outputs; one that is not proven is read whole, since a spoiled one is a danger."""
    try:
        told = about(path) if proven else parse(path).about
        return ports(told.get("inputs")), ports(told.get("outputs"))
    except (VerificationError, OSError) as error:
        raise ConversionError(f"ExecuTorch does not open it: {error}", where=str(path)) from error
