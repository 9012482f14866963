"""ONNX Runtime: one .onnx file, with Q/DQ nodes that we place and that it fuses into integer kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Dynamic, Encodings
from haversack.base.errors import ConversionError, Fault
from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.keys import split_tensor
from haversack.base.model import Model, Sample
from haversack.base.plan import GROUPS, NARROW, PRECISIONS, STATIC, Precision
from haversack.targets.contract import Session, Target, artifact_file, told_by
from haversack.targets.onnxruntime.cpu import PRECISION
from haversack.tools.graph.onnx import mapped
from haversack.tools.store import atomic

_MINIMUM = "1.18"
"""The first release that reads opset 20 in IR version 10."""
_MINIMUM_INT4 = "1.23"
"""The first release that casts INT4."""
_LARGEST = 1_900_000_000
"""Bytes; protobuf ends at 2 GiB."""


@dataclass(frozen=True)
class OnnxRuntime(Target):
    """ONNX Runtime on CPUs: float32, float16 storage, int8 static, dynamic, weight only, 1 to 7 bits, palettes.

    A palette is looked up when the file is opened: its layer computes in float.

    Attributes:
        file: name of the written file.
        mapped_from: bytes from which on the weights get a file of their own, which is mapped instead of read.
    """

    platforms: ClassVar[Mapping[str, str]] = {
        "android": "a Maven package brings it, and it can be built smaller for one model",
        "ios": "a pod and a Swift package bring it",
        "linux-arm": "pip and a C library bring it to 64-bit ARM",
        "browser": "onnxruntime-web from npm runs it as WebAssembly",
    }
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxscript", "onnx-ir")
    verified: ClassVar[Mapping[str, str]] = {"onnx": ">=1.23,<1.24", "onnxruntime": ">=1.32,<1.33"}
    precisions: ClassVar[tuple[Precision, ...]] = (*PRECISIONS, "palette")
    kernels: ClassVar[Mapping[Precision, str]] = {
        "float32": "float kernels",
        "float16": "float kernels, weights widened when the file is opened",
        **dict.fromkeys(STATIC, "int8 kernels (QLinearConv, QGemm), weights widened when the file is opened"),
        "int8": "int8 kernels (QLinearConv, QGemm)",
        "int8_dynamic": "int8 kernels (MatMulInteger), inputs quantized in each call",
        "w4_grouped": "4-bit kernels (MatMulNBits), inputs quantized in each call",
        "int8_weights": "float kernels, weights widened when the file is opened",
        "palette": "float kernels, values looked up when the file is opened",
    }
    session_settings: ClassVar[frozenset[str]] = frozenset({PRECISION})
    overlapping: ClassVar[bool] = True
    keeps_order: ClassVar[bool] = False
    file: str = "model.onnx"
    mapped_from: int = mapped.LEAST

    def _constraints(self, graph: Graph) -> Constraints:
        from haversack.tools.graph.demands import demands

        # Whatever they are stored in, they are int8 once the file is open.
        return demands(graph, narrow=lambda _, node: node.weight is not None, widths=NARROW, groups=GROUPS)

    def _refusals(self, model: Model) -> tuple[Fault, ...]:
        from haversack.tools.graph.onnx.skeleton import skeleton

        size = sum(value.nbytes for value in model.weights.values())
        if size > _LARGEST:
            return (Fault(model.name, f"{size / 1e9:.1f} GB of weights do not fit one ONNX file"),)
        return told_by(lambda: skeleton(model))

    def _unheld(self, model: Model, encodings: Encodings) -> tuple[Fault, ...]:
        from haversack.targets.onnxruntime.write import write
        from haversack.tools.graph.onnx.skeleton import skeleton

        return told_by(lambda: write(skeleton(model), model, encodings))

    def _lower(self, model: Model, encodings: Encodings, folder: Path) -> Artifact:
        from haversack.targets.onnxruntime import cpu
        from haversack.targets.onnxruntime.read import read
        from haversack.targets.onnxruntime.write import write
        from haversack.tools.graph.injection import derived, proven
        from haversack.tools.graph.onnx.skeleton import skeleton

        frame = skeleton(model)
        written = write(frame, model, encodings)
        path = folder / self.file
        features = cpu.features()
        options = cpu.session_options(features) if _multiplies_integers(encodings) else {}
        whole = len(written.data) < self.mapped_from
        with mapped.parted(written.data, path, whole=whole) as (data, beside), atomic.replacing(path) as stream:
            stream.write(data)
            stream.flush()
            draft = Path(stream.name)
            session = self._opened(draft, options, model.name)
            content = read(draft, written.tensor_names, written.absorbed)
            proof = proven(
                encodings, derived(model, encodings, self.constraints(model.graph).integer_ops), content, path
            )
        return Artifact(
            target="onnxruntime",
            files=tuple(artifact_file(each, folder) for each in (path, *beside)),
            inputs=session.inputs,
            outputs=session.outputs,
            runtime_version=_MINIMUM if written.opset == frame.opset else _MINIMUM_INT4,
            opset=written.opset,
            cpu_features=features,
            session_options=options,
            tensor_names=written.tensor_names,
            absorbed=written.absorbed,
            bias_digests=proof.bias_digests,
            injected=proof.injected,
            read_back=proof.read_back,
        )

    def _opened(self, draft: Path, options: Mapping[str, str], name: str) -> Session:
        """Open a file just written."""
        try:
            return self.open_session(draft, options)
        except ConversionError as error:
            raise ConversionError(
                error.cause,
                where=name if error.where == str(draft) else error.where,
                tried="onnxruntime.InferenceSession on the file just written",
                next_step="keep this layer in float32",
            ) from error

    def _read(self, path: Path, artifact: Artifact) -> Encodings:
        from haversack.targets.onnxruntime.read import read

        return read(path, artifact.tensor_names, artifact.absorbed).held(artifact.bias_digests, path)

    def _open(self, path: Path, options: Mapping[str, str], threads: int) -> Session:
        from haversack.targets.onnxruntime.cpu import features, suited
        from haversack.targets.onnxruntime.session import OrtSession

        return OrtSession(path, suited(options, features()), threads)

    def _tensors(self, path: Path, artifact: Artifact, inputs: Sample, keys: Sequence[str]) -> dict[str, np.ndarray]:
        from haversack.targets.onnxruntime.observe import tensors

        names = {key: artifact.tensor_names[key] for key in keys}
        return tensors(path, names, artifact.session_options, inputs)

    def _layer_seconds(self, path: Path, artifact: Artifact, inputs: Sample, runs: int) -> dict[str, float]:
        from haversack.targets.onnxruntime.observe import layer_seconds

        return layer_seconds(path, artifact.session_options, inputs, runs)

    def _unfused(self, path: Path, artifact: Artifact) -> tuple[str, ...]:
        from haversack.targets.onnxruntime.observe import unfused

        return unfused(path, artifact.session_options)

    def _findings(self, path: Path, artifact: Artifact) -> tuple[Finding, ...]:
        from haversack.targets.onnxruntime.cpu import risks

        return risks(artifact.session_options) if _multiplies_integers(self._read(path, artifact)) else ()


def _multiplies_integers(encodings: Encodings) -> bool:
    """Say whether some kernel multiplies integers of 8 bits: an encoded activation, or an input quantized at run time.

    Sums of products with 4-bit weights in groups fit 16 bits everywhere.
    """
    return any(
        encodings.affine(f"{split_tensor(key)[0]}:weight") is not None
        if isinstance(encoding, Dynamic)
        else isinstance(encoding, Affine) and key.endswith(":out")
        for key, encoding in encodings.tensors.items()
    )
