"""Core ML: one .mlpackage whose program and weights we write, for Apple's devices; checked, not run here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from haversack.base.candidate import Artifact
from haversack.base.constraints import Constraints
from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, Fault
from haversack.base.graph import Graph
from haversack.base.model import Model
from haversack.base.plan import Precision
from haversack.targets.contract import Lengths, Target, artifact_file

_MINIMUM = "iOS 16, macOS 13"


@dataclass(frozen=True)
class CoreML(Target):
    """Core ML programs: float32, float16, int8 weights and palettes computed in float16; export only.

    Written from our graph, operation by operation, batch 1; no converter decides anything. Specification 7.

    Attributes:
        file: name of the written package, a folder.
        length: what free dimensions other than the batch are fixed to.
    """

    platforms: ClassVar[Mapping[str, str]] = {
        "ios": "it is part of the system, and Xcode compiles the package into the app",
    }
    packages: ClassVar[tuple[str, ...]] = ("coremltools",)
    runs_here: ClassVar[bool] = False
    runs_where: ClassVar[str] = (
        "on a Mac: xcrun coremlcompiler compile {file} . and MLModel on it, or coremltools.models.MLModel({file!r})"
    )
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "float16", "int8_weights", "palette")
    kernels: ClassVar[Mapping[Precision, str]] = {
        "float32": "float kernels",
        "float16": "half-precision kernels",
        "int8_weights": "half-precision kernels, weights widened",
        "palette": "half-precision kernels, values looked up",
    }
    file: str = "model.mlpackage"
    length: int = 128

    def _constraints(self, graph: Graph) -> Constraints:
        from haversack.tools.graph.demands import demands

        return replace(demands(graph), half_scales=True)

    def _sized(self, lengths: Sequence[int]) -> Target:
        return replace(self, length=max(lengths))

    def _lengths(self) -> Lengths:
        return Lengths((self.length,), self.length)

    def _refusals(self, model: Model) -> tuple[Fault, ...]:
        from haversack.targets.coreml.write import write

        try:
            write(model, Encodings.none(), self._sizes(model))
        except ConversionError as error:
            return error.faults or (Fault(error.where, error.cause),)
        return ()

    def _sizes(self, model: Model) -> dict[str, int]:
        """Return what the free dimensions of a model are fixed to: 1 for the batch."""
        first = {port.spec.shape[0] for port in model.inputs if port.spec.shape}
        names = {size for port in model.inputs for size in port.spec.shape if isinstance(size, str)}
        return {name: 1 if name in first else self.length for name in sorted(names)}

    def _lower(self, model: Model, encodings: Encodings, folder: Path) -> Artifact:
        from haversack.targets.coreml.package import files, save
        from haversack.targets.coreml.read import read
        from haversack.targets.coreml.write import write
        from haversack.tools.graph.injection import proven

        written = write(model, encodings, self._sizes(model))
        package = folder / self.file
        contents = dict(files(written))
        save(contents, package)
        main = package / next(iter(contents))
        proof = proven(encodings, {}, read(main, written.tensor_names), main)
        return Artifact(
            target="coreml",
            files=tuple(artifact_file(package / name, folder) for name in contents),
            inputs=model.inputs,
            outputs=model.outputs,
            runtime_version=_MINIMUM,
            tensor_names=written.tensor_names,
            lengths=self.lengths_of(model).fixed,
            injected=proof.injected,
            read_back=proof.read_back,
        )

    def _read(self, path: Path, artifact: Artifact) -> Encodings:
        from haversack.targets.coreml.read import read

        return read(path, artifact.tensor_names).encodings()
