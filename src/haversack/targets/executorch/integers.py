"""Encodings put into a sheet: which nodes work on codes, with which weights, and where values change their form."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Dynamic, Encodings
from haversack.base.errors import ConversionError
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.targets.executorch import parse
from haversack.targets.executorch.sheet import Sheet, inputs
from haversack.tools.graph.law import equal
from haversack.tools.graph.roles import Role, Unit, clamp_bounds, role
from haversack.tools.numerics import affine, blocks

_MOVES = frozenset(
    "StaticTranspose StaticReshape MaxPooling2d StaticConstantPad StaticSlice Copy "
    "Concatenate2 Concatenate3 Concatenate4 Concatenate5".split()
)
NARROW = 4
_LAYERS = frozenset({"Conv2d", "DepthwiseConv2d", "FullyConnected"})
_INTEGERS = (Affine, BlockAffine)
_COMPUTES = _LAYERS | {"Add", "GlobalAvgPooling2d"}


class Writer:
    """Writes the nodes of one sheet.

    Args:
        sheet: its weights are float.
        model: the model.
        encodings: of its tensors.
        whole: head key -> unit, of those that the law runs in integers.
        biases: head key -> (codes, scale) of derived biases.
        grids: node key -> encoding that its output gets, with those of nodes that left the graph.

    Attributes:
        names: node key -> value id of its output: of the codes where it is encoded.
        done: head keys that were written in integers.
    """

    def __init__(
        self,
        sheet: Sheet,
        model: Model,
        encodings: Encodings,
        *,
        whole: Mapping[str, Unit],
        biases: Mapping[str, tuple[np.ndarray, np.ndarray]],
        grids: Mapping[str, Affine],
    ) -> None:
        self.sheet, self.model, self.encodings = sheet, model, encodings
        self.whole, self.biases, self.grids = whole, biases, grids
        self.clamps = {unit.clamp.key: unit for unit in whole.values() if unit.clamp is not None}
        self.owners = frozenset(sheet.part.owners)
        self.rows: dict[int, int] = {}
        self.names: dict[str, int] = {}
        self.done: set[str] = set()

    def write(self, nodes: list[tuple[Any, str]]) -> None:
        """Write all nodes, in order.

        Raises:
            ConversionError: a layer that XNNPACK has in another form than the one with an integer kernel.
        """
        for value, key in self.sheet.part.sources.items():
            asked = self.grids.get(key)
            if asked is not None:
                self.sheet.set_codes(value, self.sheet.as_codes(value, asked), asked)
            found = self.sheet.codes(value)
            self.names[key] = value if found is None else found[0]
        for node, owner in nodes:
            self._node(node, owner)
        for value in self.sheet.part.graph.output_ids:
            if (found := self.sheet.codes(value)) is not None:
                self.sheet.convert(found[0], value)

    def _node(self, node: Any, owner: str) -> None:  # noqa: ANN401 - XNode
        kind = type(node.xnode_union).__name__.removeprefix("XNN")
        key = self._final(node, owner)
        asked = self.grids.get(key) if key else None
        unit = self.whole.get(owner) or self.clamps.get(owner)
        if unit is not None and kind in _COMPUTES and owner == unit.head.key:
            self._compute(node, unit, kind)
        elif kind == "Clamp" and unit is not None and self._held(node):
            self._clamp(node, unit)
        elif kind in _MOVES and self._moves(node, asked, is_final=bool(key)):
            self._move(node, owner, kind)
        elif kind == "FullyConnected" and isinstance(self.encodings.tensors.get(f"{owner}:weight"), _INTEGERS):
            self._stored(node, owner)
            self._quantized(node, asked)
        else:
            if self.encodings.affine(f"{owner}:weight") is not None and kind in _LAYERS:
                raise ConversionError(
                    "XNNPACK multiplies float by stored integers in linear layers only",
                    where=owner,
                    next_step="leave this layer in float32, or run it in int8",
                )
            self._float(node, owner)
            self._quantized(node, asked)
        is_inside = unit is not None and unit.clamp is not None and key == unit.head.key
        if key and not is_inside:
            value = node.xnode_union.output_id
            found = self.sheet.codes(value)
            self.names[key] = value if found is None else found[0]
            if key != owner:
                self.names.pop(owner, None)

    def _final(self, node: Any, owner: str) -> str:  # noqa: ANN401 - XNode
        """Return the node key whose output a node's output is: of the clamp, if that is done inside; or ""."""
        value = node.xnode_union.output_id
        key = self.sheet.part.finals.get(value, "")
        if key and node.output_min_max is not None:
            readers = [reader for reader in self.model.graph.consumers[key] if reader.key not in self.owners]
            if len(readers) == 1 and role(readers[0]) is Role.CLAMP:
                return readers[0].key
        return key if key == owner else ""

    def _held(self, node: Any) -> bool:  # noqa: ANN401 - XNode
        return self.sheet.codes(node.xnode_union.input_id) is not None

    def _float(self, node: Any, owner: str) -> None:  # noqa: ANN401 - XNode
        """Write a node on float values."""
        made = copy.deepcopy(node)
        for name in inputs(made.xnode_union):
            setattr(made.xnode_union, name, self.sheet.as_float(getattr(made.xnode_union, name)))
        self.sheet.nodes.append((made, owner))

    def _quantized(self, node: Any, asked: Affine | None) -> None:  # noqa: ANN401 - XNode
        """Encode what a node just written gives; an external value then comes out as its codes mean."""
        value = node.xnode_union.output_id
        if asked is None:
            return
        made, owner = self.sheet.nodes[-1]
        source = value
        if self.sheet.is_external(value):
            source = self.sheet.new(self.sheet.tensor(value).dims)
            made.xnode_union.output_id = source
        codes = self.sheet.grid(self.sheet.tensor(value).dims, asked)
        self.sheet.convert(source, codes, owner)
        self.sheet.set_codes(value, codes, asked)

    def _moves(self, node: Any, asked: Affine | None, *, is_final: bool) -> bool:  # noqa: ANN401 - XNode
        """Say whether a node moves codes: all it reads has one encoding, which what it gives must have too."""
        found = [self.sheet.codes(getattr(node.xnode_union, name)) for name in inputs(node.xnode_union)]
        if not found or found[0] is None or any(one is None or not equal(one[1], found[0][1]) for one in found):
            return False
        return equal(asked, found[0][1]) if asked is not None else not is_final

    def _move(self, node: Any, owner: str, kind: str) -> None:  # noqa: ANN401 - XNode
        """Write a node on codes that it only moves."""
        made = copy.deepcopy(node)
        union, value = made.xnode_union, node.xnode_union.output_id
        encoding = None
        for name in inputs(union):
            found = self.sheet.codes(getattr(union, name))
            assert found is not None, "only codes are moved"
            encoding = found[1]
            setattr(union, name, found[0])
        assert encoding is not None, "a move reads something"
        union.output_id = self.sheet.grid(self.sheet.tensor(value).dims, encoding)
        if kind == "MaxPooling2d":
            made.output_min_max = None
        self.sheet.nodes.append((made, owner))
        self.sheet.set_codes(value, union.output_id, encoding)
        self.done.add(owner)

    def _clamp(self, node: Any, unit: Unit) -> None:  # noqa: ANN401 - XNode
        """Write a clamp of a unit that stands alone: nothing where the grid does it."""
        source, value = node.xnode_union.input_id, node.xnode_union.output_id
        found = self.sheet.codes(source)
        assert found is not None, "the unit's head has given codes"
        codes, encoding = found
        if not _is_implied(unit, encoding):
            made = copy.deepcopy(node)
            made.xnode_union.input_id = codes
            codes = made.xnode_union.output_id = self.sheet.grid(self.sheet.tensor(value).dims, encoding)
            self.sheet.nodes.append((made, unit.head.key))
        self.sheet.set_codes(value, codes, encoding)

    def _compute(self, node: Any, unit: Unit, kind: str) -> None:  # noqa: ANN401 - XNode
        """Write a layer, an add or a mean in integers."""
        made = copy.deepcopy(node)
        union, value = made.xnode_union, node.xnode_union.output_id
        out = self.grids[unit.last.key]
        for name, key in zip(inputs(union), unit.head.inputs, strict=True):
            encoding = self.encodings.affine(f"{key}:out")
            assert encoding is not None, "the law demands an Affine input"
            setattr(union, name, self.sheet.as_codes(getattr(union, name), encoding))
        if kind == "Conv2d" and self._narrow(unit.head):
            union = made.xnode_union = self._product(union, unit.head)
            kind = "FullyConnected"
        if kind in _LAYERS:
            self._layer(union, unit.head, kind)
        if unit.clamp is None or _is_implied(unit, out):
            made.output_min_max = None
        union.output_id = self.sheet.grid(self.sheet.tensor(value).dims, out)
        self.sheet.nodes.append((made, unit.head.key))
        self.sheet.set_codes(value, union.output_id, out)
        self.done.add(unit.head.key)

    def _narrow(self, node: Node) -> bool:
        """Say whether a layer's weight has 4 bits."""
        encoding = self.encodings.affine(f"{node.key}:weight")
        return encoding is not None and encoding.bits == NARROW

    def _product(self, union: Any, node: Node) -> Any:  # noqa: ANN401 - nodes of the schema
        """Return a plain 1x1 convolution as a product of matrices over its channels, which lie last.

        XNNPACK has kernels for 4-bit weights in products alone.
        """
        from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNFullyConnected

        sides = union.padding_top, union.padding_right, union.padding_bottom, union.padding_left
        kernel = union.kernel_height, union.kernel_width, union.subsampling_height, union.subsampling_width
        if any(sides) or set(kernel) != {1} or union.groups != 1:
            raise ConversionError("XNNPACK has no convolution with 4-bit weights but plain 1x1", where=node.key)
        return XNNFullyConnected(union.input1_id, union.filter_id, union.bias_id, union.output_id, 0)

    def _layer(self, union: Any, node: Node, kind: str) -> None:  # noqa: ANN401 - a node of the schema
        """Give a layer its int8 weight and its int32 bias."""
        union.filter_id = self._weight(union.filter_id, node, 3 if kind == "DepthwiseConv2d" else 0)
        if node.key in self.biases:
            codes, scale = self.biases[node.key]
            union.bias_id = self.sheet.constant(codes, codes.shape, scale, 0, (parse.QINT32, parse.QCINT32))

    def _weight(self, value: int, node: Node, axis: int) -> int:
        key = f"{node.key}:weight"
        encoding = self.encodings.tensors[key]
        assert isinstance(encoding, _INTEGERS), "an encoded layer"
        integers, dims = self.encodings.integers[key], self.sheet.tensor(value).dims
        layout = self.sheet.part.layouts.get(value)
        if layout is None or value not in self.sheet.part.parameters or integers.size != np.prod(dims):
            raise ConversionError("its weight has a layout that is not known", where=node.key)
        shape, axes = layout
        turned = np.ascontiguousarray(integers.reshape(shape).transpose(axes)).reshape(dims)
        if isinstance(encoding, BlockAffine):
            return self.sheet.grouped(_packed(turned), dims, blocks.to_bfloat16(encoding.scale), encoding.block)
        if encoding.bits == NARROW:
            if ":conv2d#" in key:
                dims = [dims[0], dims[-1]]
            scale = encoding.scale if encoding.scale.ndim else np.repeat(encoding.scale, len(integers))
            return self.sheet.constant(_packed(turned), dims, scale, axis, (parse.QCINT4, parse.QCINT4))
        return self.sheet.constant(turned.astype(np.int8), dims, encoding.scale, axis, (parse.QINT8, parse.QCINT8))

    def _stored(self, node: Any, owner: str) -> None:  # noqa: ANN401 - XNode
        """Write a linear layer in float with a stored weight, its input quantized at run time where that is asked.

        The kernel that multiplies float inputs by integers scales a bias along with the sum (XNNPACK of ExecuTorch
        1.5.1: right only where the scale is 1), so that the bias is a node of its own there.
        """
        from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import PerTokenDynamicQuant

        made = copy.deepcopy(node)
        union = made.xnode_union
        union.input1_id = self.sheet.as_float(union.input1_id)
        dynamic, bias = isinstance(self.encodings.tensors.get(f"{owner}:in"), Dynamic), union.bias_id
        if dynamic:
            source = union.input1_id
            if source not in self.rows:  # layers that read the same value share its codes
                dims = self.sheet.tensor(source).dims
                self.rows[source] = self.sheet.new(dims, parse.QDINT8, PerTokenDynamicQuant(1))
                self.sheet.convert(source, self.rows[source], owner)
            union.input1_id = self.rows[source]
        union.filter_id = self._weight(union.filter_id, self.model.graph.by_key[owner], 0)
        self.done.add(owner)
        self.sheet.nodes.append((made, owner))
        if not dynamic and bias != parse.NOWHERE:
            value, limits = union.output_id, made.output_min_max
            union.bias_id, made.output_min_max = parse.NOWHERE, None
            union.output_id = self.sheet.new(self.sheet.tensor(value).dims)
            self.sheet.add("Add", owner, input1_id=union.output_id, input2_id=bias, output_id=value)
            self.sheet.nodes[-1][0].output_min_max = limits


def _is_implied(unit: Unit, out: Affine) -> bool:
    """Say whether a unit's clamp does nothing that the ends of its grid do not do."""
    bounds = clamp_bounds(unit.clamp) if unit.clamp is not None else None
    if bounds is None:
        return True
    low, high = (int(code) for code in affine.quantize(np.array(bounds, np.float32), out))
    return (low, high) == (out.low, out.high)


def _packed(integers: np.ndarray) -> np.ndarray:
    """Return 4-bit codes, two in a byte along the last axis, low half first, 8 added; rows of odd length get a zero."""
    rows = integers.reshape(len(integers), -1)
    rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))) + 8
    return np.asarray(rows[:, 0::2] | rows[:, 1::2] << 4, np.uint8)
