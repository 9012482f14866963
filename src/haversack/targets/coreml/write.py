"""From a model and its encodings to a Core ML program and its weights file.

The float file computes in float32. With encodings the program computes in float16, which is what Apple's accelerators
compute in; a layer whose weight has no encoding then keeps float32, weight and arithmetic, between casts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from haversack.base.encodings import Affine, Codebook, Encoding, Encodings, Float
from haversack.base.errors import ConversionError, Fault
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.targets.coreml.ops import WRITERS
from haversack.targets.coreml.sheet import OPSET, Sheet, Value, identifier, short
from haversack.targets.coreml.site import Site, Values
from haversack.tools.graph.injection import unheld
from haversack.tools.graph.program import Program
from haversack.tools.graph.roles import Role, role

MAIN = "main"
MOST_AXES = 5
"""Core ML's tensors have no more."""
PALETTE_BITS = (1, 2, 4, 6, 8)


@dataclass(frozen=True)
class Written:
    """A package, not yet on disk.

    Attributes:
        program: the program's message.
        inputs, outputs: names of its interface, in the model's order -> (shape, type).
        weights: the weights file.
        tensor_names: activation tensor key -> its name in the program.
    """

    program: Any
    inputs: Mapping[str, tuple[tuple[int, ...], str]]
    outputs: Mapping[str, tuple[tuple[int, ...], str]]
    weights: bytes
    tensor_names: Mapping[str, str]


def write(model: Model, encodings: Encodings, sizes: Mapping[str, int]) -> Written:
    """Return the program of a model with encodings.

    Args:
        model: the canonical model; its current weights count.
        encodings: of its weights.
        sizes: free dimension -> length.

    Raises:
        ConversionError: ops that have no form here, or encodings that have no place, all at once.
    """
    faults = tuple(unheld(model, encodings, (), _weight_fault(encodings), _input))
    faults += tuple(_activations(encodings))
    if faults:
        raise ConversionError(
            "Core ML cannot hold these encodings",
            where=model.name,
            faults=faults,
            next_step="encode the model under this target's constraints",
        )
    return _Walk(model, encodings, sizes).run()


class _Walk:
    """One program, node by node."""

    def __init__(self, model: Model, encodings: Encodings, sizes: Mapping[str, int]) -> None:
        self.model, self.encodings = model, encodings
        self.program = Program(model, sizes)
        self.sheet = Sheet()
        self.values = Values()
        self.floats = "fp16" if encodings.tensors else "fp32"

    def run(self) -> Written:
        """Write all nodes, inputs first."""
        self._refuse()
        graph, sheet = self.model.graph, self.sheet
        ends = [identifier(port.name) for port in (*self.model.inputs, *self.model.outputs)]
        if len(set(ends)) < len(ends):
            raise ConversionError("two inputs or outputs have one name in Core ML", where=self.model.name)
        sheet.counts.update(ends)
        inputs = {}
        for key, name in zip(graph.inputs, ends, strict=False):
            node = graph.by_key[key]
            value = Value(name, self.program.shape(node), short(node.output.dtype, "fp32"))
            if value.dtype == "bool":
                raise ConversionError("an input of truths; Core ML takes numbers", where=key)
            inputs[name] = (value.shape, value.dtype)
            self.values.made[key] = value
        for key, array in self.program.constants.items():
            kind = short(str(array.dtype), self.floats)
            if any(key in node.inputs for node in graph.nodes) or key in graph.outputs:
                self.values.made[key] = sheet.constant(key, array, kind)
        for node in graph.nodes:
            if role(node) is not Role.INPUT and node.key not in self.program.constants:
                self.values.made[node.key] = self._written(node)
        outputs = self._outputs(ends[len(graph.inputs) :])
        return Written(self._message(inputs, outputs), inputs, outputs, sheet.blobs.finish(), self._names())

    def _refuse(self) -> None:
        """Refuse ops that have no writer, and tensors of too many axes."""
        missing = []
        for node in self.model.graph.nodes:
            if role(node) is Role.INPUT or node.key in self.program.constants:
                continue
            if node.op not in WRITERS:
                missing.append(Fault(node.key, f"Core ML has no {node.op} here"))
            elif len(node.output.shape) > MOST_AXES:
                missing.append(Fault(node.key, f"{len(node.output.shape)} axes; Core ML has at most {MOST_AXES}"))
        if missing:
            raise ConversionError(
                "the model has ops that the Core ML target does not write",
                where=self.model.name,
                faults=tuple(missing),
                next_step="replace these ops, or leave this target out",
            )

    def _written(self, node: Node) -> Value:
        arguments = self.program.arguments(node)
        layer = role(node) in (Role.LAYER, Role.EMBEDDING)
        kept = layer and f"{node.key}:weight" not in self.encodings.tensors
        floats = "fp32" if kept else self.floats
        site = Site(self.sheet, self.values, self.program, self.encodings, node, arguments, floats)
        try:
            made = WRITERS[node.op](site)
        except (KeyError, StopIteration) as error:
            raise site.refused(f"an argument is missing: {error}") from error
        if made.shape != site.shape:
            raise site.refused(f"written with shape {made.shape} instead of {site.shape}")
        return made

    def _outputs(self, names: list[str]) -> dict[str, tuple[tuple[int, ...], str]]:
        """Give each output its name: by a cast to what the interface takes, or an identity."""
        found = {}
        for name, key in zip(names, self.model.graph.outputs, strict=True):
            value = self.values.made[key]
            kind = "fp32" if value.dtype in ("fp16", "fp32") else "int32"
            self.sheet.counts[identifier(name)] = 0
            if value.dtype == kind:
                made = self.sheet.emit("identity", name, value.shape, kind, x=value)
            else:
                made = self.sheet.emit("cast", name, value.shape, kind, x=value, dtype=kind)
            found[made.name] = (made.shape, made.dtype)
        return found

    def _message(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a message
        mil = self.sheet.mil
        program = mil.Program(version=1)
        function = program.functions[MAIN]
        function.opset = OPSET
        for name, (shape, dtype) in inputs.items():
            port = function.inputs.add()
            port.name = name
            self.sheet.typed(port.type, shape, dtype)
        block = function.block_specializations[OPSET]
        block.outputs.extend(outputs)
        block.operations.extend(self.sheet.operations)
        return program

    def _names(self) -> dict[str, str]:
        """Return tensor key -> name, for what the program computes."""
        made = {output.name for operation in self.sheet.operations for output in operation.outputs}
        made |= {self.values.made[key].name for key in self.model.graph.inputs}
        return {
            node.out: value.name
            for node in self.model.graph.nodes
            if (value := self.values.made.get(node.key)) is not None and value.name in made
        }


def _activations(encodings: Encodings) -> Iterator[Fault]:
    for key in sorted(encodings.tensors):
        if key.endswith(":out"):
            yield Fault(key, "activations are computed in float16, without codes")


def _weight_fault(encodings: Encodings) -> Any:  # noqa: ANN401 - what ``unheld`` takes
    def cause(node: Node, encoding: Encoding) -> str:
        if role(node) not in (Role.LAYER, Role.EMBEDDING):
            return f"the weight of {node.op} is no layer's"
        codes = encodings.integers.get(f"{node.key}:weight")
        return _unstorable(encoding, codes)

    return cause


def _unstorable(encoding: Encoding, codes: np.ndarray | None) -> str:
    if isinstance(encoding, Float):
        return "" if encoding.dtype == "float16" else "float32 is what a weight without an encoding has: leave it out"
    if isinstance(encoding, Affine):
        if not encoding.signed or encoding.bits != 8 or encoding.axis not in (None, 0):
            return "a weight is held as symmetric int8, its scales along axis 0"
        return "" if _is_half(encoding.scale) else "its scales are no float16 numbers, which the program computes in"
    if isinstance(encoding, Codebook):
        if encoding.bits not in PALETTE_BITS or encoding.group or codes is None:
            return f"a palette serves a whole weight, with indices of {', '.join(map(str, PALETTE_BITS))} bits"
        return "" if _is_half(encoding.entries) else "its entries are no float16 numbers, which the program computes in"
    return f"a weight is held as Affine, Codebook or float16, not as {type(encoding).__name__}"


def _is_half(numbers: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(numbers.astype(np.float16).astype(np.float32), numbers))


def _input(node: Node, encoding: Encoding) -> str:
    return f"{node.op} quantizes nothing at run time there ({type(encoding).__name__})"
