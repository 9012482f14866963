"""ncnn (Tencent): a .param and a .bin file, written from our graph; float32, float16 storage and int8 on CPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.constraints import Constraints
from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, Fault, UsageError
from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.model import Model, Sample
from haversack.base.plan import Precision
from haversack.targets.contract import Session, Target, artifact_file, told_by
from haversack.tools.graph.tied import Stores
from haversack.tools.store import atomic

_MINIMUM = "20210322"
"""The first release whose int8 convolutions give int8 themselves."""


@dataclass(frozen=True)
class Ncnn(Target):
    """ncnn on CPUs: float32, float16 storage, static int8 with symmetric activations, int8 storage; batch 1.

    Attributes:
        file: name of the written .param file; the .bin file has the same name but for that.
    """

    platforms: ClassVar[Mapping[str, str]] = {
        "android": "a small C++ library without dependencies, prebuilt for every release",
        "ios": "a prebuilt framework comes with every release",
        "linux-arm": "it is built from source with CMake, and pip brings it to 64-bit ARM",
        "browser": "it is built as WebAssembly, and prebuilt for every release",
    }
    runtime: ClassVar[str] = "ncnn"
    packages: ClassVar[tuple[str, ...]] = ("ncnn",)
    verified: ClassVar[Mapping[str, str]] = {"ncnn": ">=1.0.20261020,<1.0.20261021"}
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "float16", "int8", "int8_weights")
    kernels: ClassVar[Mapping[Precision, str]] = {
        "float32": "float kernels",
        "float16": "float kernels, weights widened when the file is opened",
        "int8": "int8 kernels",
        "int8_weights": "float kernels, weights widened when the file is opened",
    }
    arithmetic: ClassVar[str] = "symmetric"
    keeps_order: ClassVar[bool] = False
    stores: ClassVar[Stores] = "call"
    file: str = "model.param"

    def _constraints(self, graph: Graph) -> Constraints:
        from haversack.tools.graph.demands import demands

        return replace(demands(graph), symmetric=True)

    def _refusals(self, model: Model) -> tuple[Fault, ...]:
        from haversack.targets.ncnn.faults import unwritten

        return unwritten(model)

    def _unheld(self, model: Model, encodings: Encodings) -> tuple[Fault, ...]:
        from haversack.targets.ncnn.write import write

        return told_by(lambda: write(model, encodings))

    def _lower(self, model: Model, encodings: Encodings, folder: Path) -> Artifact:
        from haversack.targets.ncnn.read import beside, read
        from haversack.targets.ncnn.write import write
        from haversack.tools.graph.injection import derived, proven

        written = write(model, encodings)
        path = folder / self.file
        with tempfile.TemporaryDirectory(dir=folder, prefix=".ncnn-") as temporary:
            draft = Path(temporary) / self.file
            atomic.write_bytes(beside(draft), written.data)
            atomic.write_text(draft, written.text)
            session = self._opened(draft)
            content = read(draft, written.absorbed)
            biases = derived(model, encodings, self.constraints(model.graph).integer_ops)
            proof = proven(encodings, biases, content, path)
            beside(draft).replace(beside(path))
            draft.replace(path)
            atomic.sync_folder(folder)
        return Artifact(
            target="ncnn",
            files=(artifact_file(path, folder), artifact_file(beside(path), folder)),
            inputs=session.inputs,
            outputs=session.outputs,
            runtime_version=_MINIMUM,
            tensor_names=written.tensor_names,
            absorbed=written.absorbed,
            bias_digests=proof.bias_digests,
            injected=proof.injected,
            read_back=proof.read_back,
        )

    def _opened(self, draft: Path) -> Session:
        """Open files just written."""
        try:
            return self.open_session(draft)
        except ConversionError as error:
            raise ConversionError(
                error.cause,
                where=error.where,
                tried="ncnn's Net on the files just written",
                next_step="leave this target out, and report this",
            ) from error

    def _read(self, path: Path, artifact: Artifact) -> Encodings:
        from haversack.targets.ncnn.read import read

        return read(path, artifact.absorbed).held(artifact.bias_digests, path)

    def _open(self, path: Path, options: Mapping[str, str], threads: int) -> Session:
        from haversack.targets.ncnn.session import NcnnSession

        if options:
            raise UsageError(f"ncnn has no session options: {', '.join(sorted(options))}", where=str(path))
        return NcnnSession(path, threads)

    def _tensors(self, path: Path, artifact: Artifact, inputs: Sample, keys: Sequence[str]) -> dict[str, np.ndarray]:
        from haversack.targets.ncnn.observe import tensors

        names = {key: artifact.tensor_names[key] for key in keys}
        return tensors(path, names, _named(artifact, inputs)) if names else {}

    def _layer_seconds(self, path: Path, artifact: Artifact, inputs: Sample, runs: int) -> dict[str, float]:
        from haversack.targets.ncnn.observe import layer_seconds

        return layer_seconds(path, _named(artifact, inputs), runs)

    def _unfused(self, path: Path, artifact: Artifact) -> tuple[str, ...]:  # noqa: ARG002 - see _findings
        """Return nothing: what ncnn has no integer kernel for computes whole numbers, exactly (a fallback each)."""
        return ()

    def _findings(self, path: Path, artifact: Artifact) -> tuple[Finding, ...]:  # noqa: ARG002 - the file tells it
        from haversack.targets.ncnn.observe import fallbacks

        return fallbacks(path)


def _named(artifact: Artifact, inputs: Sample) -> dict[str, np.ndarray]:
    """Return the inputs by name."""
    return {port.name: array for port, array in zip(artifact.inputs, inputs, strict=True)}
