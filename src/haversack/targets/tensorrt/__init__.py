"""TensorRT: one .onnx file with explicit symmetric int8 Q/DQ, for its parser; written and checked, not run here."""

from __future__ import annotations

from collections.abc import Mapping
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
from haversack.targets.contract import Target, artifact_file, told_by
from haversack.tools.graph.tied import Stores
from haversack.tools.store import atomic

_MINIMUM = "10.0"
"""The first TensorRT that takes int8 weights as constants under opset 20."""
_LARGEST = 1_900_000_000
"""Bytes; protobuf ends at 2 GiB."""


@dataclass(frozen=True)
class TensorRT(Target):
    """TensorRT's ONNX parser: float32, static int8 with explicit symmetric Q/DQ, int8 weights; export only.

    NVIDIA's «Explicit Quantization» decides the form: signed int8, all zero-points 0, one scale for an activation and
    one for each output channel of a weight, a DequantizeLinear between stored integers and what reads them, biases in
    float. Clamps stay operators: a symmetric grid does not do them.

    Attributes:
        file: name of the written file.
    """

    platforms: ClassVar[Mapping[str, str]] = {
        "linux-arm": "NVIDIA's JetPack brings it to Jetson boards, where trtexec builds the engine from the file",
    }
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnx-ir")
    runs_here: ClassVar[bool] = False
    stores: ClassVar[Stores] = "call"
    runs_where: ClassVar[str] = (
        "on a machine with an NVIDIA GPU and TensorRT 10 or later: trtexec --onnx={file} --stronglyTyped"
    )
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "int8", "int8_weights")
    kernels: ClassVar[Mapping[Precision, str]] = {
        "float32": "float kernels",
        "int8": "int8 kernels",
        "int8_weights": "float kernels, weights widened",
    }
    file: str = "model.onnx"

    def _constraints(self, graph: Graph) -> Constraints:
        from haversack.tools.graph.demands import demands

        return replace(demands(graph), symmetric=True)

    def _refusals(self, model: Model) -> tuple[Fault, ...]:
        from haversack.tools.graph.onnx.skeleton import skeleton

        size = sum(value.nbytes for value in model.weights.values())
        if size > _LARGEST:
            return (Fault(model.name, f"{size / 1e9:.1f} GB of weights do not fit one ONNX file"),)
        try:
            skeleton(model)
        except ConversionError as error:
            return error.faults or (Fault(error.where, error.cause),)
        return ()

    def _unheld(self, model: Model, encodings: Encodings) -> tuple[Fault, ...]:
        from haversack.targets.tensorrt.write import write
        from haversack.tools.graph.onnx.skeleton import skeleton

        return told_by(lambda: write(skeleton(model), model, encodings))

    def _lower(self, model: Model, encodings: Encodings, folder: Path) -> Artifact:
        from haversack.targets.tensorrt.read import checked, read
        from haversack.targets.tensorrt.write import write
        from haversack.tools.graph.injection import proven
        from haversack.tools.graph.onnx.skeleton import skeleton

        frame = skeleton(model)
        written = write(frame, model, encodings)
        path = folder / self.file
        with atomic.replacing(path) as stream:
            stream.write(written.data)
            stream.flush()
            draft = Path(stream.name)
            checked(draft, model)
            proof = proven(encodings, {}, read(draft, written.tensor_names, written.absorbed), path)
        return Artifact(
            target="tensorrt",
            files=(artifact_file(path, folder),),
            inputs=model.inputs,
            outputs=model.outputs,
            runtime_version=_MINIMUM,
            opset=frame.opset,
            tensor_names=written.tensor_names,
            absorbed=written.absorbed,
            injected=proof.injected,
            read_back=proof.read_back,
        )

    def _read(self, path: Path, artifact: Artifact) -> Encodings:
        from haversack.targets.tensorrt.read import read

        return read(path, artifact.tensor_names, artifact.absorbed).encodings()
