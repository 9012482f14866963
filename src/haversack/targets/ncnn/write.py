"""From a model and its encodings to the two files of ncnn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from haversack.base.encodings import Affine, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.targets.ncnn import integers, layers
from haversack.targets.ncnn.faults import faults, unwritten
from haversack.targets.ncnn.integers import Grids
from haversack.targets.ncnn.naming import CAST, CODES, SCALE, VALUE, WHOLE
from haversack.targets.ncnn.ops import WRITERS
from haversack.targets.ncnn.padding import Absorbed, absorbed
from haversack.targets.ncnn.sheet import HINT, Sheet, Value, hint, plain, sizes
from haversack.targets.ncnn.site import Site
from haversack.tools.graph.demands import demands
from haversack.tools.graph.injection import derived
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.roles import Role, Unit, clamp_bounds, role, units

_INT8, _FLOAT32 = 3, 1
"""ncnn's numbers of element types, for Cast."""


@dataclass(frozen=True)
class Written:
    """Files, not yet on disk.

    Attributes:
        text: the .param file.
        data: the .bin file.
        tensor_names: activation tensor key -> name of its blob: of the codes where it is encoded.
        absorbed: encoded tensor key -> name of the blob that serves it, for pads that a convolution does itself.
    """

    text: str
    data: bytes
    tensor_names: Mapping[str, str]
    absorbed: Mapping[str, str]


def write(model: Model, encodings: Encodings) -> Written:
    """Return the files of a model with encodings.

    Raises:
        ConversionError: ops that ncnn has no layer for, or encodings that have no place in the files, all at once.
    """
    if found := unwritten(model):
        raise ConversionError(
            "the model has ops that the ncnn target does not write",
            where=model.name,
            faults=found,
            next_step="replace these ops, or leave this target out",
        )
    if found := faults(model, encodings):
        raise ConversionError(
            "ncnn cannot hold these encodings",
            where=model.name,
            faults=found,
            next_step="encode the model under this target's constraints",
        )
    walk = _Walk(model, encodings)
    walk.run()
    try:
        text, data = walk.sheet.files()
    except ValueError as error:
        raise ConversionError(str(error), where=model.name) from error
    return Written(text, data, walk.names, walk.absorbed())


@dataclass
class _Walk:
    """The graph, unit by unit; ``floats``, ``codes`` and ``wholes`` are the forms that a node's output has so far."""

    model: Model
    encodings: Encodings
    sheet: Sheet = field(default_factory=Sheet)
    floats: dict[str, Value] = field(default_factory=dict)
    codes: dict[str, Value] = field(default_factory=dict)
    wholes: dict[str, Value] = field(default_factory=dict)
    scales: dict[str, Value] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    pads: Mapping[str, Absorbed] = field(default_factory=dict)

    def run(self) -> None:
        graph, ops = self.model.graph, demands(self.model.graph).integer_ops
        self.biases = derived(self.model, self.encodings, ops)
        self.pads = absorbed(graph, self.encodings)
        for port, key in zip(self.model.inputs, graph.inputs, strict=True):
            shape = _shape(graph.by_key[key])
            self.floats[key] = self.sheet.layer("Input", port.name, (), Value(port.name, shape), sizes(shape))
            self._made(graph.by_key[key])
        for unit in units(graph):
            if role(unit.head) is Role.INPUT or unit.head.key in self.pads:
                continue
            if runs_in_integers(unit, self.encodings, ops):
                self._integer(unit)
            else:
                self._float(unit)
        for number, (port, key) in enumerate(zip(self.model.outputs, graph.outputs, strict=True)):
            value = self._floating(key)
            made = Value(port.name, value.shape)
            self.sheet.layer("Noop", f"output/{number}", [value], made, {HINT: hint(value.shape)})

    def _site(self, node: Node, inputs: list[Value], name: str, bounds: tuple[float, float] | None = None) -> Site:
        pads = [self.pads[key].pads for key in node.inputs if key in self.pads]
        site = Site(self.sheet, node, inputs, self.model.weights, _shape(node), name, bounds)
        site.pads = pads[0] if pads else site.pads
        return site

    def _source(self, key: str) -> str:
        """Return the key of the value that is in the file: of what a pad reads, where the reader does the pad."""
        return self.pads[key].source if key in self.pads else key

    def absorbed(self) -> dict[str, str]:
        """Return encoded tensor key -> the blob that serves it, for pads that are not in the file."""
        found = {}
        for key, one in self.pads.items():
            if self.encodings.affine(f"{key}:out") is not None:
                found[f"{key}:out"] = self.names[f"{one.source}:out"]
        return found

    def _float(self, unit: Unit) -> None:
        """Write a unit in float, the clamp with its layer where nobody wants to see what is between."""
        node = unit.head
        bounds = clamp_bounds(unit.clamp) if unit.clamp is not None and self._joins(unit) else None
        name = (unit.clamp or node).out if bounds is not None else node.out
        site = self._site(node, [self._floating(key) for key in node.inputs], name, bounds)
        key = f"{node.key}:weight"
        weight = self.encodings.tensors.get(key)
        if role(node) is Role.LAYER and isinstance(weight, Affine | Float) and weight != Float("float32"):
            value = layers.in_float(site, weight, self.encodings.integers.get(key))
        else:
            value = WRITERS[node.op](site)
        if not site.fused:
            self.floats[node.key] = value
            self._made(node)
        if unit.clamp is None:
            return
        if not site.fused:
            value = WRITERS[unit.clamp.op](self._site(unit.clamp, [self._floating(node.key)], unit.clamp.out))
        self.floats[unit.clamp.key] = value
        self._made(unit.clamp)

    def _joins(self, unit: Unit) -> bool:
        """Say whether a float layer does its clamp as well: its weight is not in integers, its sum not encoded."""
        weight = self.encodings.tensors.get(f"{unit.head.key}:weight")
        free = unit.head.out not in self.encodings.tensors and not isinstance(weight, Affine)
        return role(unit.head) is Role.LAYER and free

    def _made(self, node: Node) -> None:
        """Name a float value, and round it to codes where it is encoded."""
        value, grid = self.floats[node.key], self.encodings.affine(node.out)
        self.names[node.out] = value.name
        if grid is None:
            return
        site = self._site(node, [value], node.out)
        self.codes[node.key] = integers.rounded(site, value, node.out, grid)
        self._keep(node.out, grid)
        self.names[node.out] = self.codes[node.key].name
        del self.floats[node.key]

    def _keep(self, key: str, grid: Affine) -> None:
        node = key.removesuffix(":out")
        self.scales[node] = self.sheet.constant(key + SCALE, grid.scale.reshape(1))

    def _integer(self, unit: Unit) -> None:
        node, last = unit.head, unit.last
        if role(node) in (Role.SAME, Role.CONCAT):
            self._moved(unit)
            return
        site = self._site(node, [], unit.out)
        grids = self._grids(unit)
        self._keep(unit.out, grids.out)
        axes = len(self._anything(node.inputs[0]).shape)
        if integers.is_dense(node.op, int(node.attributes.get("groups", 1)), axes) and role(node) is Role.LAYER:
            site.inputs = [self._coded(node.inputs[0], node)]
            made = integers.write_int8(site, grids)
        else:
            site.inputs = [self._whole(key, node) for key in node.inputs]
            made = integers.write_whole(site, grids)
        self.codes[last.key] = made
        self.names[unit.out] = made.name

    def _grids(self, unit: Unit) -> Grids:
        node = unit.head
        tensors = [self.encodings.affine(key) for key in (unit.out, *(f"{key}:out" for key in node.inputs))]
        out, *sources = [one for one in tensors if one is not None]
        bounds = clamp_bounds(unit.clamp) if unit.clamp is not None else None
        key = f"{node.key}:weight"
        bias = self.biases.get(node.key)
        return Grids(
            tuple(sources),
            out,
            bounds,
            self.encodings.affine(key),
            self.encodings.integers.get(key),
            None if bias is None else bias[0],
        )

    def _moved(self, unit: Unit) -> None:
        """Move whole numbers; they become codes again where an int8 kernel reads them."""
        node = unit.head
        value = WRITERS[node.op](self._site(node, [self._whole(key, node) for key in node.inputs], node.out + WHOLE))
        grid = self.encodings.affine(node.out)
        assert grid is not None, "the law demands an Affine output"
        self.wholes[node.key] = value
        self._keep(node.out, grid)
        self.names[node.out] = value.name

    def _anything(self, key: str) -> Value:
        key = self._source(key)
        return next(held[key] for held in (self.codes, self.wholes, self.floats) if key in held)

    def _coded(self, key: str, reader: Node) -> Value:
        """Return the codes of a value."""
        key = self._source(key)
        if key not in self.codes:
            whole = self.wholes[key]
            made = Value(f"{key}:out{CODES}", whole.shape)
            arrays = [plain("scale", np.ones(1, np.float32))]
            self.codes[key] = self.sheet.layer("Quantize", f"{reader.key}{CODES}", [whole], made, {0: 1}, arrays)
        return self.codes[key]

    def _whole(self, key: str, reader: Node) -> Value:
        """Return the codes of a value as float32 whole numbers; the layer that casts them has its reader's name."""
        key = self._source(key)
        if key not in self.wholes:
            codes = self.codes[key]
            made = Value(f"{key}:out{WHOLE}", codes.shape)
            name = f"{reader.key}{CAST}" if reader.key else f"{key}{CAST}"
            self.wholes[key] = self.sheet.layer("Cast", name, [codes], made, {0: _INT8, 1: _FLOAT32})
        return self.wholes[key]

    def _floating(self, key: str) -> Value:
        """Return a value as whoever computes in float reads it: of the codes, where it is encoded."""
        key = self._source(key)
        if key not in self.floats:
            if key in self.wholes:
                whole = self.wholes[key]
            else:
                codes = self.codes[key]
                made = Value(f"{key}:out{VALUE}/codes", codes.shape)
                whole = self.sheet.layer("Cast", f"{key}{VALUE}", [codes], made, {0: _INT8, 1: _FLOAT32})
            made = Value(f"{key}:out{VALUE}", whole.shape)
            self.floats[key] = self.sheet.layer("BinaryOp", f"{key}{VALUE}", [whole, self.scales[key]], made, {0: 2})
        return self.floats[key]


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(size) for size in node.output.shape[1:])
