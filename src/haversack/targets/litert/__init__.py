"""LiteRT (TensorFlow Lite): one .tflite file, written from our graph, whose kernels are XNNPACK's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.constraints import Constraints
from haversack.base.encodings import BlockAffine, Encodings
from haversack.base.errors import ConversionError, Fault
from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.model import Model, Port, Sample
from haversack.base.plan import GROUPS, PRECISIONS, STATIC, Precision
from haversack.targets.contract import DELEGATE, Lengths, Session, Target, artifact_file, told_by
from haversack.tools.data import layouts
from haversack.tools.data.codes import Grid, grid_of
from haversack.tools.store import atomic

_MINIMUM = "2.17"
"""The first release of TensorFlow Lite with all that we write (FULLY_CONNECTED per channel, versions of operators)."""
_OPERATOR = re.compile(r"Node number ([0-9]+)")
"""How LiteRT tells which operator it does not take."""
_MINIMUM_BLOCKS = "2.3"
"""The release of ai-edge-litert with which weights in blocks were proven; whether older ones take them is not known."""
_LARGEST = 1_900_000_000
"""Bytes; a flatbuffer ends at 2 GiB."""


@dataclass(frozen=True)
class LiteRT(Target):
    """LiteRT on CPUs with XNNPACK: float32, float16 storage, int8 static, dynamic and weight only, batch 1, NHWC.

    Attributes:
        file: name of the written file.
        lengths: what a free dimension other than the batch is fixed to, one signature of the file for each.
        integer_io: whether encoded inputs and outputs are int8 in the file's interface, without conversion.
    """

    runtime: ClassVar[str] = "ai_edge_litert.interpreter"
    platforms: ClassVar[Mapping[str, str]] = {
        "android": "it is the platform's own runtime, and Google Play services bring it, so that the app grows little",
        "ios": "a pod and a Swift package bring it",
        "linux-arm": "pip and a C library bring it to 64-bit ARM",
        "browser": "LiteRT.js from npm runs it as WebAssembly",
    }
    packages: ClassVar[tuple[str, ...]] = ("ai-edge-litert",)
    verified: ClassVar[Mapping[str, str]] = {"ai-edge-litert": ">=2.3,<2.4"}
    precisions: ClassVar[tuple[Precision, ...]] = tuple(
        one for one in PRECISIONS if one not in STATIC or one in ("int8", "w4a8")
    )
    kernels: ClassVar[Mapping[Precision, str]] = {
        "float32": "float kernels (XNNPACK)",
        "float16": "float kernels (XNNPACK), weights widened when the file is opened",
        "int8": "int8 kernels (XNNPACK)",
        "w4a8": "4-bit kernels (XNNPACK, fully connected)",
        "int8_dynamic": "int8 kernels (XNNPACK), inputs quantized in each call",
        "w4_grouped": "4-bit kernels (XNNPACK), inputs quantized in each call",
        "int8_weights": "float kernels (XNNPACK), weights widened when the file is opened",
    }
    delegates: ClassVar[tuple[str, ...]] = ("builtin",)
    file: str = "model.tflite"
    lengths: tuple[int, ...] = (16, 32, 64, 128)
    integer_io: bool = False

    def _constraints(self, graph: Graph) -> Constraints:
        from haversack.tools.graph.demands import demands
        from haversack.tools.graph.roles import is_even_product

        return demands(graph, narrow=is_even_product, groups=GROUPS)

    def _refusals(self, model: Model) -> tuple[Fault, ...]:
        size = sum(value.nbytes for value in model.weights.values())
        if size > _LARGEST:
            return (Fault(model.name, f"{size / 1e9:.1f} GB of weights do not fit one LiteRT file"),)
        return self._unheld(model, Encodings.none()) or self._unfillable(model)

    def _unheld(self, model: Model, encodings: Encodings) -> tuple[Fault, ...]:
        from haversack.targets.litert.write import write

        return told_by(lambda: write(model, encodings, self._sizes(model)[:1], integer_io=self.integer_io))

    def _unfillable(self, model: Model) -> tuple[Fault, ...]:
        """Return what keeps shorter inputs from being filled up."""
        from haversack.targets.litert.lengths import faults

        return faults(model, self._sizes(model)[0])

    def _sized(self, lengths: Sequence[int]) -> Target:
        return replace(self, lengths=tuple(lengths))

    def _lengths(self) -> Lengths:
        return Lengths(tuple(sorted(set(self.lengths))), max(self.lengths))

    def _sizes(self, model: Model) -> list[dict[str, int]]:
        """Return what the free dimensions of a model are fixed to, for each signature."""
        first = {port.spec.shape[0] for port in model.inputs if port.spec.shape}
        names = {size for port in model.inputs for size in port.spec.shape if isinstance(size, str)}
        batch = dict.fromkeys(sorted(names & first), 1)
        others = sorted(names - first)
        if not others:
            return [batch]
        return [{**batch, **dict.fromkeys(others, length)} for length in sorted(set(self.lengths))]

    def _lower(self, model: Model, encodings: Encodings, folder: Path) -> Artifact:
        from haversack.targets.litert.read import read
        from haversack.targets.litert.write import write
        from haversack.tools.graph.injection import derived, proven

        written = write(model, encodings, self._sizes(model), integer_io=self.integer_io)
        if found := self._unfillable(model):
            raise ConversionError(
                "a file of fixed lengths cannot stand for this model",
                where=model.name,
                faults=found,
                next_step="give the model fixed lengths, or leave this target out",
            )
        path = folder / self.file
        with atomic.replacing(path) as stream:
            stream.write(written.data)
            stream.flush()
            draft = Path(stream.name)
            session = self._opened(draft, model.name, written.operators)
            content = read(draft, written.tensor_names, written.absorbed)
            biases = {
                key: (codes, scale.reshape(-1))
                for key, (codes, scale) in derived(model, encodings, self.constraints(model.graph).integer_ops).items()
            }
            proof = proven(encodings, biases, content, path)
        return Artifact(
            target="litert",
            files=(artifact_file(path, folder),),
            inputs=_ordered(session.inputs, model.inputs, written.layouts),
            outputs=_ordered(session.outputs, model.outputs, written.layouts),
            runtime_version=_MINIMUM_BLOCKS if _has_blocks(encodings) else _MINIMUM,
            tensor_names=written.tensor_names,
            absorbed=written.absorbed,
            layouts=written.layouts,
            grids=self._grids(model, encodings),
            lengths=self.lengths_of(model).fixed,
            bias_digests=proof.bias_digests,
            injected=proof.injected,
            read_back=proof.read_back,
        )

    def _grids(self, model: Model, encodings: Encodings) -> dict[str, Grid]:
        """Return what the codes of the interface mean, where it has codes."""
        sides = ((model.inputs, model.graph.inputs), (model.outputs, model.graph.outputs))
        ports = [one for names, keys in sides for one in zip(names, keys, strict=True)] if self.integer_io else []
        found = {port.name: encodings.affine(f"{key}:out") for port, key in ports}
        return {name: grid_of(encoding) for name, encoding in found.items() if encoding is not None}

    def _opened(self, draft: Path, name: str, operators: Sequence[str]) -> Session:
        """Open a file just written; where it is refused, say which layer the operator belongs to."""
        try:
            return self.open_session(draft)
        except ConversionError as error:
            told = _OPERATOR.search(error.cause)
            place = int(told[1]) if told else len(operators)
            raise ConversionError(
                error.cause,
                where=(operators[place] if place < len(operators) else "") or name,
                tried="ai_edge_litert's Interpreter on the file just written",
                next_step="keep this layer in float32",
            ) from error

    def _read(self, path: Path, artifact: Artifact) -> Encodings:
        from haversack.targets.litert.read import read

        return read(path, artifact.tensor_names, artifact.absorbed).held(artifact.bias_digests, path)

    def _open(self, path: Path, options: Mapping[str, str], threads: int) -> Session:
        from haversack.targets.litert.session import LiteRTSession

        return LiteRTSession(path, threads, options.get(DELEGATE, ""))

    def _tensors(self, path: Path, artifact: Artifact, inputs: Sample, keys: Sequence[str]) -> dict[str, np.ndarray]:
        from haversack.targets.litert.observe import filed, tensors

        names = {key: artifact.tensor_names[key] for key in keys}
        feeds = filed(inputs, [port.name for port in artifact.inputs], artifact.layouts, artifact.grids)
        return tensors(path, names, artifact.layouts, feeds) if names else {}

    def _layer_seconds(self, path: Path, artifact: Artifact, inputs: Sample, runs: int) -> dict[str, float]:
        from haversack.targets.litert.observe import filed, layer_seconds

        feeds = filed(inputs, [port.name for port in artifact.inputs], artifact.layouts, artifact.grids)
        return layer_seconds(path, feeds, runs)

    def _unfused(self, path: Path, artifact: Artifact) -> tuple[str, ...]:  # noqa: ARG002 - the file tells it
        from haversack.targets.litert.observe import unfused

        return unfused(path)

    def _findings(self, path: Path, artifact: Artifact) -> tuple[Finding, ...]:
        from haversack.targets.litert.observe import detours

        cost = "it takes time in every call, and no accuracy; pads as SAME has them, and fewer reshapes, avoid such"
        found = [Finding("detour", f"{op} that belongs to no layer: {cost}", key) for key, op in detours(path)]
        return (*found, *(self._idle(artifact) if self.integer_io else ()))

    def _idle(self, artifact: Artifact) -> Iterator[Finding]:
        """Yield a finding for each input and output that ``integer_io`` leaves float: the plan has no codes for it."""
        why = "the plan has no codes for it: layers there compute in float, or find their scales at run time"
        for what, ports in (("input", artifact.inputs), ("output", artifact.outputs)):
            for port in ports:
                if port.name not in artifact.grids and port.spec.dtype.startswith("float"):
                    text = f"integer_io: the {what} {port.name} stays {port.spec.dtype}; {why}"
                    yield Finding("setting-idle", text, port.name)


def _has_blocks(encodings: Encodings) -> bool:
    return any(isinstance(encoding, BlockAffine) for encoding in encodings.tensors.values())


def _ordered(ports: Sequence[Port], wanted: Sequence[Port], orders: Mapping[str, str]) -> tuple[Port, ...]:
    """Return the file's ports in the model's order, lengths that may be shorter by the model's names for them."""
    by_name = {port.name: port for port in ports}
    return tuple(_named(by_name[port.name], port, orders.get(port.name, "")) for port in wanted)


def _named(port: Port, wanted: Port, order: str) -> Port:
    shape = wanted.spec.shape
    names = [shape[axis] for axis in layouts.order_of(order, len(shape))]
    sizes = (name if isinstance(size, str) else size for size, name in zip(port.spec.shape, names, strict=True))
    return replace(port, spec=replace(port.spec, shape=tuple(sizes)))
