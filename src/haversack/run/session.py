"""A variant of a bundle, open in its runtime, with the model's own names and layouts.

The file is opened by its path, so that a runtime that can map it does: LiteRT and ExecuTorch map the file, ONNX Runtime
what lies beside it. ExecuTorch's Python session takes torch tensors, so that it alone needs torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from haversack.base import versions
from haversack.base.counted import counted
from haversack.base.errors import ConversionError, EnvironmentFault, Fault, MissingExtra, UsageError
from haversack.base.model import Port
from haversack.run.source import Source, kind_of, lacks, package
from haversack.targets import contract
from haversack.tools.data import interface

Arrays = Mapping[str, np.ndarray]
"""Input or output name -> array, batch first."""


MOST_THREADS = max(64, os.cpu_count() or 1)
"""Threads of one call: more than a device has cores only wait for each other, and thousands take minutes to start."""


@dataclass(frozen=True)
class Setting:
    """What a device chooses: threads of one call, and a delegate of the runtime's, empty for its own choice."""

    threads: int = 1
    delegate: str = ""

    def __post_init__(self) -> None:
        """Refuse what no device has.

        Raises:
            UsageError: less than one thread, or more than ``MOST_THREADS``.
        """
        if not 1 <= self.threads <= MOST_THREADS:
            step = f"give 1 to {MOST_THREADS}, or none for what was measured on this device"
            raise UsageError(f"{self.threads} threads of one call", where="threads", next_step=step)

    def __str__(self) -> str:
        threads = counted(self.threads, "thread")
        return f"{threads}, {self.delegate}" if self.delegate else threads


class Session:
    """An open variant: calls by the model's own names, in its own layouts, float32 where the file has codes.

    Args:
        source: what to open.
        setting: threads and delegate.

    Attributes:
        inputs, outputs: the model's ports, in order.

    Raises:
        ConversionError: the runtime does not open the file; it may be older than the file asks for.
        EnvironmentFault: the runtime is not installed.
    """

    def __init__(self, source: Source, setting: Setting | None = None) -> None:
        setting = setting or Setting()
        artifact = self._artifact = source.artifact
        self.source, self.setting = source, setting
        self.inputs, self.outputs = (
            tuple(interface.port_of_model(artifact, port) for port in side)
            for side in (artifact.inputs, artifact.outputs)
        )
        kind = kind_of(source.target)
        if kind is None:
            raise _missing(source.target)
        chosen = {contract.DELEGATE: setting.delegate} if setting.delegate else {}
        try:
            self._session = kind().open_session(
                source.path, {**artifact.session_options, **chosen}, setting.threads, proven=source.proven
            )
        except MissingExtra as error:
            raise _missing(source.target) from error
        except ConversionError as error:
            name, asked = package(source.target), artifact.runtime_version or "any version"
            tried = f"{name} {versions.installed(name)}; the file asks for {asked} or later of {source.target}"
            raise ConversionError(error.cause, where=error.where, tried=tried, faults=error.faults) from error

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Return output name -> array for input name -> array, batch first, both as the model has them.

        Raises:
            UsageError: an input is missing, unknown, of another shape or dtype, or the session is closed.
        """
        self.fit(inputs)
        return interface.as_model(self._artifact, self._session.run(interface.as_file(self._artifact, inputs)))

    def fit(self, inputs: Arrays) -> None:
        """Make sure that inputs are the model's: names, ranks, dtypes, lengths that are not free (batch first).

        Raises:
            UsageError: with every input that does not fit.
        """
        known = {port.name: port for port in self.inputs}
        faults = [Fault(name, "the model has no such input") for name in sorted({*inputs} - {*known})]
        faults += [Fault(name, "it is missing") for name in known if name not in inputs]
        for name in known.keys() & inputs.keys():
            if cause := unfit(known[name], inputs[name]):
                faults.append(Fault(name, cause))
        if faults:
            raise UsageError("the inputs do not fit", faults=tuple(faults), next_step=f"give {words(self.inputs)}")

    def close(self) -> None:
        """Let go of the runtime's memory; later calls raise."""
        self._session.close()


def words(ports: Sequence[Port]) -> str:
    """Return ports as a person reads them: name, shape and dtype; the first axis is the batch."""
    told = []
    for port in ports:
        shape = [str(size) for size in port.spec.shape]
        told.append(f"{port.name} [{', '.join(['n', *shape[1:]] if shape else [])}] {port.spec.dtype}")
    return ", ".join(told)


def unfit(port: Port, array: np.ndarray) -> str:
    """Say why an array, batch first, of any shape and dtype, is not an input's, or nothing."""
    shape, dtype = port.spec.shape, port.spec.dtype
    if str(array.dtype) != dtype:
        return f"it is {array.dtype}, not {dtype}: give x.astype('{dtype}')"
    if array.ndim != len(shape):
        batch = ": add the batch, x[None]" if array.ndim == len(shape) - 1 else ""
        return f"it has {array.ndim} axes, not {len(shape)}{batch}"
    if array.size == 0:
        return "it is empty"
    wrong = [
        f"axis {axis} has {size}, not {asked}"
        for axis, (size, asked) in enumerate(zip(array.shape, shape, strict=True))
        if axis and isinstance(asked, int) and size != asked
    ]
    return ", ".join(wrong)


def _missing(target: str) -> EnvironmentFault:
    why = lacks(target)
    torch = " torch" if "torch" in why else ""
    step = "haversack doctor" if kind_of(target) is None else f"pip install {package(target)}{torch}"
    return EnvironmentFault(f"the variant for {target} cannot be opened: {why}", next_step=step)
