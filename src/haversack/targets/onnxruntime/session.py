"""A file open in ONNX Runtime, without torch and without onnx."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.errors import ConversionError, MissingExtra, UsageError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port

if TYPE_CHECKING:
    import onnxruntime

_ERRORS_ONLY = 3
_TYPES = {"float": "float32", "double": "float64"}
_NAME = re.compile(r"""["'(]([^"':#()]*:[A-Za-z_][A-Za-z0-9_]*#[0-9]+)[^0-9]""")


def options(settings: Mapping[str, str], threads: int) -> onnxruntime.SessionOptions:
    """Return session options: all graph optimisations, one inter-op thread, no spinning beside other work.

    Raises:
        MissingExtra: onnxruntime is not installed.
    """
    try:
        import onnxruntime as runtime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "pack", purpose="running an ONNX file") from error
    found = runtime.SessionOptions()
    found.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    found.intra_op_num_threads, found.inter_op_num_threads = threads, 1
    found.log_severity_level = _ERRORS_ONLY + 1
    for name, value in settings.items():
        found.add_session_config_entry(name, value)
    return found


def start(model: str | bytes, chosen: onnxruntime.SessionOptions, where: str) -> onnxruntime.InferenceSession:
    """Open a path or the bytes of a file.

    Raises:
        ConversionError: the runtime refuses it; ``where`` names the layer if the runtime does.
    """
    import onnxruntime as runtime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    refused = (
        state.Fail,
        state.InvalidGraph,
        state.InvalidArgument,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.NoSuchFile,
        state.NoModel,
        state.RuntimeException,
        state.EPFail,
        ValueError,
    )
    try:
        return runtime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])
    except refused as error:
        text = str(error)
        named = _NAME.search(text)
        raise ConversionError(
            f"ONNX Runtime does not open it: {text.splitlines()[0] if text else type(error).__name__}",
            where=named[1] if named else where,
        ) from error


class OrtSession:
    """An open file; see ``targets.contract.Session``."""

    def __init__(self, path: Path, settings: Mapping[str, str], threads: int) -> None:
        self._session: Any = start(str(path), options(settings, threads), str(path))
        self.inputs = ports(self._session.get_inputs())
        self.outputs = ports(self._session.get_outputs())
        self._names = [port.name for port in self.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return output name -> array for input name -> array, shapes and dtypes as ``inputs`` and ``outputs`` say.

        Raises:
            UsageError: the session is closed, an input is missing or unknown, or does not fit.
        """
        if self._session is None:
            raise UsageError("the session is closed")
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        try:
            found = self._session.run(self._names, dict(inputs))
        except (state.InvalidArgument, ValueError) as error:
            wanted = ", ".join(f"{port.name} {list(port.spec.shape)} {port.spec.dtype}" for port in self.inputs)
            raise UsageError(
                f"the inputs do not fit: {str(error).splitlines()[0]}", next_step=f"give {wanted}"
            ) from error
        return dict(zip(self._names, found, strict=True))

    def close(self) -> None:
        """Let go of the runtime's memory."""
        self._session = None


def ports(arguments: Sequence[Any]) -> tuple[Port, ...]:
    """Return inputs or outputs as the runtime describes them."""
    found = []
    for argument in arguments:
        word = argument.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int | str) else "?" for size in argument.shape)
        found.append(Port(argument.name, TensorSpec(shape, _TYPES.get(word, word))))
    return tuple(found)
