"""ExecuTorch: one .pte file, its layers in XNNPACK, with quantization parameters that we put into XNNPACK's graph."""

from __future__ import annotations

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
from haversack.targets.contract import Lengths, Session, Target, artifact_file, told_by
from haversack.tools.graph.tied import Stores
from haversack.tools.store import atomic

_MINIMUM = "1.0"
"""Files of ExecuTorch 1.x are read by later releases; constants stand in named data, known since 1.0."""


@dataclass(frozen=True)
class ExecuTorch(Target):
    """ExecuTorch with XNNPACK on CPUs: float32, int8 static and dynamic; int8 weights of linear layers.

    Attributes:
        file: name of the written file.
        longest: the most that a free length other than the batch can be; memory is planned for it.
    """

    platforms: ClassVar[Mapping[str, str]] = {
        "android": "a Maven package brings it, with the kernels chosen when it is built",
        "ios": "Swift packages bring it",
        "linux-arm": "it is built from source as a C++ library",
    }
    runtime: ClassVar[str] = "torch"
    packages: ClassVar[tuple[str, ...]] = ("executorch", "torchao")
    stores: ClassVar[Stores] = "kernel"
    verified: ClassVar[Mapping[str, str]] = {"executorch": ">=1.5.1,<1.6"}
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "int8", "w4a8", "int8_dynamic", "w4_grouped")
    kernels: ClassVar[Mapping[Precision, str]] = {
        "float32": "float kernels (XNNPACK)",
        "int8": "int8 kernels (XNNPACK)",
        "w4a8": "4-bit kernels (XNNPACK, fully connected)",
        "int8_dynamic": "int8 kernels (XNNPACK), inputs quantized in each call",
        "w4_grouped": "4-bit kernels (XNNPACK), inputs quantized in each call",
    }
    file: str = "model.pte"
    longest: int = 128

    def _constraints(self, graph: Graph) -> Constraints:
        from haversack.targets.executorch.constraints import constraints

        return constraints(graph)

    def _sized(self, lengths: Sequence[int]) -> Target:
        return replace(self, longest=max(lengths))

    def _lengths(self) -> Lengths:
        return Lengths(longest=self.longest)

    def _refusals(self, model: Model) -> tuple[Fault, ...]:
        from haversack.targets.executorch.skeleton import skeleton

        return told_by(lambda: skeleton(model, self.longest))

    def _unheld(self, model: Model, encodings: Encodings) -> tuple[Fault, ...]:
        from haversack.targets.executorch.quiet import quiet
        from haversack.targets.executorch.skeleton import skeleton
        from haversack.targets.executorch.write import write

        with quiet():
            return told_by(lambda: write(skeleton(model, self.longest), model, encodings))

    def _lower(self, model: Model, encodings: Encodings, folder: Path) -> Artifact:
        from haversack.targets.executorch.quiet import quiet
        from haversack.targets.executorch.read import read
        from haversack.targets.executorch.skeleton import skeleton
        from haversack.targets.executorch.write import write
        from haversack.tools.graph.injection import proven

        frame = skeleton(model, self.longest)
        with quiet():
            written = write(frame, model, encodings)
        path = folder / self.file
        with atomic.replacing(path) as stream:
            stream.write(written.data)
            stream.flush()
            draft = Path(stream.name)
            session = self._opened(draft, model.name)
            content = read(draft, written.tensor_names, written.absorbed)
            proof = proven(encodings, written.biases, content, path)
        return Artifact(
            target="executorch",
            files=(artifact_file(path, folder),),
            inputs=session.inputs,
            outputs=session.outputs,
            runtime_version=_MINIMUM,
            tensor_names=written.tensor_names,
            absorbed=written.absorbed,
            bias_digests=proof.bias_digests,
            injected=proof.injected,
            read_back=proof.read_back,
        )

    def _opened(self, draft: Path, name: str) -> Session:
        """Open a file just written."""
        try:
            return self.open_session(draft)
        except ConversionError as error:
            raise ConversionError(
                error.cause, where=name, tried="ExecuTorch's runtime on the file just written", faults=error.faults
            ) from error

    def _read(self, path: Path, artifact: Artifact) -> Encodings:
        from haversack.targets.executorch.read import read

        return read(path, artifact.tensor_names, artifact.absorbed).held(artifact.bias_digests, path)

    def _open(self, path: Path, options: Mapping[str, str], threads: int) -> Session:
        return self._session(path, options, threads, proven=False)

    def _open_proven(self, path: Path, options: Mapping[str, str], threads: int) -> Session:
        return self._session(path, options, threads, proven=True)

    def _session(self, path: Path, options: Mapping[str, str], threads: int, *, proven: bool) -> Session:
        from haversack.targets.executorch.session import EtSession

        if options:
            raise UsageError(f"ExecuTorch has no session options: {', '.join(sorted(options))}", where=str(path))
        return EtSession(path, threads, proven=proven)

    def _tensors(self, path: Path, artifact: Artifact, inputs: Sample, keys: Sequence[str]) -> dict[str, np.ndarray]:
        from haversack.targets.executorch.observe import tensors

        return tensors(path, {key: artifact.tensor_names[key] for key in keys}, inputs)

    def _layer_seconds(self, path: Path, artifact: Artifact, inputs: Sample, runs: int) -> dict[str, float]:  # noqa: ARG002
        from haversack.targets.executorch.timing import layer_seconds

        return layer_seconds(path, inputs, runs)

    def _findings(self, path: Path, artifact: Artifact) -> tuple[Finding, ...]:  # noqa: ARG002 - the file tells all
        from haversack.targets.executorch.tables import outside

        return tuple(Finding("fallback", fault.cause, fault.where) for fault in outside(path))

    def _unfused(self, path: Path, artifact: Artifact) -> tuple[str, ...]:  # noqa: ARG002 - the file tells all
        from haversack.targets.executorch.timing import unfused

        return unfused(path)
