"""From a model and its encodings to the bytes of a LiteRT file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError, Fault
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.targets.litert import order as orders
from haversack.targets.litert import padding
from haversack.targets.litert.arithmetic import ACTIVATIONS, limited, limited_codes
from haversack.targets.litert.faults import faults
from haversack.targets.litert.flat import pack
from haversack.targets.litert.naming import CODES, key_of
from haversack.targets.litert.ops import WRITERS
from haversack.targets.litert.order import LAYOUTS, NHWC, NWC
from haversack.targets.litert.session import MAIN
from haversack.targets.litert.sheet import OFFSET, Sheet, Store, Value
from haversack.targets.litert.site import Site, Values
from haversack.tools.graph.demands import demands
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.program import Flow, Program
from haversack.tools.graph.roles import Role, Unit, clamp_bounds, role, units
from haversack.tools.numerics import affine

_IMAGE_OPS = frozenset("conv2d conv_transpose2d max_pool2d avg_pool2d adaptive_avg_pool2d".split())
_LINE_OPS = frozenset("conv1d conv_transpose1d max_pool1d avg_pool1d".split())


@dataclass(frozen=True)
class Written:
    """A file, not yet on disk.

    Attributes:
        data: the flatbuffer.
        tensor_names: activation tensor key -> its name in the file: of the codes where it is encoded.
        absorbed: encoded tensor key -> name of the codes that serve it, for tensors that the file does not have.
        layouts: port name or tensor key -> layout, where it is not the model's.
        operators: node key of each operator of the first signature, in order; empty where it belongs to none.
    """

    data: bytes
    tensor_names: Mapping[str, str]
    absorbed: Mapping[str, str]
    layouts: Mapping[str, str]
    operators: tuple[str, ...] = ()


def write(model: Model, encodings: Encodings, lengths: Sequence[Mapping[str, int]], *, integer_io: bool) -> Written:
    """Return the file of a model with encodings.

    Args:
        model: the canonical model; its current weights count.
        encodings: of its tensors.
        lengths: free dimension -> length, one for each signature; all free dimensions are in each.
        integer_io: whether encoded inputs and outputs are int8 in the file's interface.

    Raises:
        ConversionError: ops that no LiteRT operator does, or encodings that have no place in the file, all at once.
    """
    found = faults(model, encodings)
    if found:
        raise ConversionError(
            "LiteRT cannot hold these encodings",
            where=model.name,
            faults=found,
            next_step="encode the model under this target's constraints",
        )
    store = Store()
    walks = []
    for index, sizes in enumerate(lengths):
        name = MAIN if index == 0 else "_".join(f"{n}{size}" for n, size in sorted(sizes.items()))
        walks.append(_Walk(Sheet(store, name), Program(model, sizes), encodings, integer_io=integer_io))
        walks[-1].run()
    first = walks[0]
    data = pack([walk.sheet.graph for walk in walks], store.buffers)
    names = first.names()
    absorbed = {key: name for key, name in first.absorbed_names() if key not in names}
    graph = first.sheet.graph
    operators = tuple(key_of(graph.tensors[one.outputs[0]].name) for one in graph.operators)
    return Written(data, names, absorbed, first.layouts(), operators)


@dataclass
class _Walk:
    """One subgraph, unit by unit."""

    sheet: Sheet
    program: Program
    encodings: Encodings
    integer_io: bool
    outputs: dict[str, Value] = field(default_factory=dict)
    refused: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = self.program.model
        self.graph = self.model.graph
        self.values = Values(self.sheet)
        self.ops = demands(self.graph).integer_ops
        self.pads = padding.absorbed(self.graph, self.program, self.encodings)
        self.held: dict[str, Affine] = {}

    def run(self) -> None:
        """Write all units, and what the signature says.

        Raises:
            ConversionError: ops that have no writer, all of them at once.
        """
        for key in self.graph.inputs:
            self._input(self.graph.by_key[key])
        for key, array in self.program.constants.items():
            if any(key in node.inputs for node in self.graph.nodes) or key in self.graph.outputs:
                self.values.floats[key] = self.sheet.number(f"{key}:out", array)
        for unit in units(self.graph):
            known = unit.head.key in self.program.constants
            if role(unit.head) is not Role.INPUT and not known and unit.head.key not in self.pads:
                self._tried(unit)
        if self.refused:
            raise ConversionError(
                "the model has layers that the LiteRT target does not write",
                where=self.model.name if len(self.refused) > 1 else self.refused[0].where,
                faults=tuple(self.refused),
                next_step="replace these layers, or leave this target out",
            )
        for port, key in zip(self.model.outputs, self.graph.outputs, strict=True):
            self._output(port.name, key)

    def _tried(self, unit: Unit) -> None:
        """Write a unit; where it is refused, remember why and go on with what it would give, so that all is told."""
        try:
            self._unit(unit)
        except ConversionError as error:
            self.refused += error.faults or (Fault(error.where, error.cause),)
            for node in filter(None, (unit.head, unit.clamp)):
                self._stand_in(node)

    def _stand_in(self, node: Node) -> None:
        """Give a node that has no form values that nothing computes: the file is not written any more."""
        dtype, grid = node.output.dtype, self.encodings.affine(node.out)
        pieces = [
            self.sheet.value(f"{node.out}/none", shape, orders.plain(len(shape)), dtype)
            for shape in self.program.shapes(node)
        ]
        self.values.several[node.key] = pieces
        self.values.floats[node.key] = pieces[0]
        if grid is not None:
            self._encode(node.key, grid, pieces[0])

    def _input(self, node: Node) -> None:
        shape = self.program.shape(node)
        order = self._input_order(node, len(shape))
        port = self.model.inputs[self.graph.inputs.index(node.key)].name
        grid = self.encodings.affine(node.out)
        dtype = node.output.dtype
        if grid is not None and self.integer_io:
            value = self.sheet.value(f"{node.out}{CODES}", shape, order, grid=grid)
            self.values.codes[node.key] = value
        else:
            value = self.sheet.value(node.out, shape, order, dtype)
            self.values.floats[node.key] = value
            if grid is not None:
                self._encode(node.key, grid, value)
        self._free(value, node.output.shape)
        self.sheet.graph.inputs.append((port, value.tensor))

    def _free(self, value: Value, shape: Sequence[int | str]) -> None:
        """Mark the axes of an input or output whose length is free in the model, but for the batch."""
        batch = {port.spec.shape[0] for port in self.model.inputs if port.spec.shape}
        free = {axis for axis, size in enumerate(shape) if isinstance(size, str) and size not in batch}
        tensor = self.sheet.graph.tensors[value.tensor]
        tensor.free = tuple(place for place, axis in enumerate(value.order) if axis in free)

    def _input_order(self, node: Node, rank: int) -> orders.Order:
        """Return in which order an input comes: channels last where images, or lines, are convolved."""
        ops = {one.op for one in self.graph.nodes}
        if rank == 4 and node.output.dtype == "float32" and ops & _IMAGE_OPS:
            return NHWC
        readers = {one.op for one in self.graph.consumers[node.key]}
        if rank == 3 and node.output.dtype == "float32" and readers & _LINE_OPS:
            return NWC
        return orders.plain(rank)

    def _encode(self, key: str, grid: Affine, value: Value) -> None:
        """Quantize a float value; whoever reads it in float reads what the codes mean."""
        self.values.codes[key] = self.sheet.quantized(value, grid, f"{key}:out{CODES}")
        self.values.floats.pop(key, None)

    def _unit(self, unit: Unit) -> None:
        whole = runs_in_integers(unit, self.encodings, self.ops)
        if whole:
            made = self._written(unit.head, unit.clamp, self.encodings.affine(unit.out))
            self._keep(unit.last, made, unit.head, codes=True)
            return
        grid = self.encodings.affine(unit.head.out)
        if unit.clamp is not None and grid is None:
            self._keep(unit.last, self._written(unit.head, unit.clamp, None), unit.head, codes=False)
            return
        for node in (unit.head, unit.clamp):
            if node is not None:
                self._keep(node, self._written(node, None, None), node, codes=False)

    def _written(self, head: Node, clamp: Node | None, grid: Affine | None) -> Value:
        """Write a node and the clamp that is fused behind it."""
        arguments = self.program.arguments(head)
        source = next(iter(head.inputs), "")
        if source in self.pads:
            pad = self.graph.by_key[source]
            arguments["pad"] = padding.sides_of(pad, len(self.program.shape(pad)) - 2)
            arguments["input"] = Flow(self.pads[source])
        bounds = clamp_bounds(clamp) if clamp is not None else None
        limits = None
        site = Site(self.values, self.program, self.encodings, head, arguments, grid)
        if bounds is not None and grid is not None:
            low, high = (int(code) for code in affine.quantize(np.array(bounds, np.float32), grid))
            limits = None if (low, high) == (grid.low, grid.high) else (low, high)
        if bounds is not None and (grid is None or limits is not None):
            site.activation = ACTIVATIONS.get(bounds, "NONE")
        if head.op not in WRITERS:
            raise ConversionError(f"LiteRT has no {head.op} here", where=head.key)
        try:
            made = WRITERS[head.op](site)
        except KeyError as error:
            raise site.refused(f"an argument {error} is missing") from error
        if made.shape != site.shape:
            raise site.refused(f"written with shape {made.shape} instead of {site.shape}")
        if bounds is None or (site.fused and site.activation != "NONE"):
            return made
        if grid is None:
            return limited(site, made, *bounds)
        if limits is None:
            return made
        ends = (grid.low - OFFSET, grid.high - OFFSET)
        return limited_codes(site, made, limits[0] - OFFSET, limits[1] - OFFSET, ends)

    def _keep(self, node: Node, made: Value, head: Node, *, codes: bool) -> None:
        """Remember what a node makes, alone or as the clamp behind ``head``, under its name."""
        name = node.out if node is head else f"{head.key}/{node.out}"
        known = {v.tensor for found in (self.values.floats, self.values.codes) for v in found.values()}
        fresh = made.tensor not in known and not self.sheet.graph.tensors[made.tensor].buffer
        if codes:
            self.values.codes[node.key] = made
            if fresh:
                self.sheet.rename(made.tensor, f"{name}{CODES}")
            return
        if fresh:
            self.sheet.rename(made.tensor, name)
        grid = self.encodings.affine(node.out)
        if grid is None:
            self.values.floats[node.key] = made
        else:
            self._encode(node.key, grid, made)

    def _output(self, port: str, key: str) -> None:
        """Give a signature its output: a tensor that is no other output and no input."""
        value = self.values.codes[key] if self.integer_io and key in self.values.codes else self.values.floating(key)
        if value.order not in LAYOUTS and value.order != orders.plain(len(value.shape)):
            value = self.sheet.ordered(value, orders.plain(len(value.shape)), key)
        taken = {number for _, number in (*self.sheet.graph.inputs, *self.sheet.graph.outputs)}
        if value.tensor in taken or self.sheet.graph.tensors[value.tensor].buffer:
            value = self.sheet.reshaped(value, value.shape, value.order, f"{key}/output")
        self._free(value, self.graph.by_key[key].output.shape)
        self.outputs[port] = value
        self.sheet.graph.outputs.append((port, value.tensor))

    def _seen(self) -> Iterator[tuple[str, Value]]:
        """Yield tensor key -> value, for all that the file holds as the model means it."""
        for node in self.graph.nodes:
            found = self.values.codes if self.encodings.affine(node.out) is not None else self.values.floats
            value = found.get(node.key)
            named = value is not None and (value.order in LAYOUTS or value.order == orders.plain(len(value.shape)))
            if value is not None and named and not self.sheet.graph.tensors[value.tensor].buffer:
                yield node.out, value

    def names(self) -> dict[str, str]:
        """Return tensor key -> name in the file."""
        return {key: self.sheet.graph.tensors[value.tensor].name for key, value in self._seen()}

    def absorbed_names(self) -> Iterator[tuple[str, str]]:
        """Yield encoded tensor key -> name of the codes that serve it, where it has no tensor as the model means it."""
        for key, source in self.pads.items():
            if self.encodings.affine(f"{key}:out") is not None:
                yield f"{key}:out", self.sheet.graph.tensors[self.values.codes[source].tensor].name
        whole = {unit.head.key for unit in units(self.graph) if runs_in_integers(unit, self.encodings, self.ops)}
        for key in self.program.constants:
            readers = self.graph.consumers[key]
            if readers and all(role(one) is Role.CONCAT and one.key in whole for one in readers):
                yield f"{key}:out", self.sheet.graph.tensors[self.values.codes[readers[0].key].tensor].name
        for key, value in self.values.codes.items():
            yield f"{key}:out", self.sheet.graph.tensors[value.tensor].name

    def layouts(self) -> dict[str, str]:
        """Return port name or tensor key -> layout, where it is not the model's."""
        found = {key: LAYOUTS[value.order] for key, value in self._seen() if value.order in LAYOUTS}
        for port, key in zip(self.model.inputs, self.graph.inputs, strict=True):
            value = self.values.floats.get(key) or self.values.codes[key]
            if value.order in LAYOUTS:
                found[port.name] = LAYOUTS[value.order]
        return found | {port: LAYOUTS[value.order] for port, value in self.outputs.items() if value.order in LAYOUTS}
