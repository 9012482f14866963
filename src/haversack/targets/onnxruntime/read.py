"""Reading a file back: every scale, zero-point and integer that it holds, under the keys they were injected for.

Nothing is taken from names alone: a tensor's encoding is what the QuantizeLinear that made its codes says, a weight's
is what the layer reads. A Q/DQ node that leads nowhere we know is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine, Dynamic, Float, largest_code
from haversack.base.errors import Fault
from haversack.targets.onnxruntime.grouped import read_grouped
from haversack.targets.onnxruntime.integers import MOVES
from haversack.targets.onnxruntime.palettes import read_palette, read_rows
from haversack.targets.onnxruntime.sharing import original
from haversack.tools.graph.injection import Content
from haversack.tools.graph.law import equal
from haversack.tools.graph.onnx import unpack
from haversack.tools.graph.onnx.foreign import Foreign, constant, guarded
from haversack.tools.graph.onnx.foreign import axis as axis_of
from haversack.tools.graph.onnx.naming import CODES, key_of

if TYPE_CHECKING:
    import onnx_ir as ir

_ENCODING_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_BITS = {"int8": 8, "int4": 4}
_Codes = tuple[np.ndarray, int]
"""Numbers of a weight, and the bits of each."""
_LAYERS = {"Conv": 1, "Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "MatMulNBits": 1, "Gather": 0}
"""Operator -> which of its inputs is the weight."""


def read(path: Path, tensor_names: Mapping[str, str], absorbed: Mapping[str, str]) -> Content:
    """Read a file.

    Args:
        path: an ONNX file.
        tensor_names: activation tensor key -> name in the file.
        absorbed: tensor key -> name in the file of the codes that serve it.

    Raises:
        VerificationError: it is no ONNX file, or not one that we have written; all faults together.
    """
    content = guarded(path, lambda graph: _content(graph, {**tensor_names, **absorbed}))
    return content.sound(path)


def _content(graph: ir.Graph, names: Mapping[str, str]) -> Content:
    reader = _Reader(graph)
    reader.activations(names)
    reader.weights()
    reader.strays()
    try:
        reader.content.encodings()
    except ValueError as error:
        raise Foreign(str(error)) from error
    return reader.content


class _Reader:
    """One file, being read."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.content = Content()
        self.known: set[ir.Node] = set()
        self.values = {value.name: value for value in graph.inputs}
        self.values |= {value.name: value for node in graph for value in node.outputs}

    def fault(self, where: str, cause: str) -> None:
        self.content.faults.append(Fault(where, cause))

    def activations(self, tensor_names: Mapping[str, str]) -> None:
        """Read the encoding of every activation that has codes."""
        for key, name in tensor_names.items():
            value = self.values.get(name)
            if value is None:
                self.fault(key, f"the file has no tensor {name!r}")
            elif name.endswith(CODES):
                self.activation(key, value)

    def activation(self, key: str, codes: ir.Value) -> None:
        """Read one: as its readers see it (DequantizeLinear), which must be as it was made unless it was moved."""
        makers = list(self.makers(codes))
        made = [found for maker in makers if (found := self.affine(maker, key)) is not None]
        readers = [use.node for use in codes.uses() if use.node.op_type == "DequantizeLinear"]
        seen = [found for reader in readers if (found := self.affine(reader, key)) is not None]
        self.known.update(makers, readers)
        if not makers or len(made) < len(makers) or len(seen) < len(readers):
            self.fault(key, "no QuantizeLinear with constant scale and zero-point leads to its codes")
            return
        own = [maker for maker in makers if codes in maker.outputs]
        if any(not equal(one, seen[0]) for one in seen) or (own and seen and not equal(made[0], seen[0])):
            self.fault(key, "it is quantized with one scale and read with another")
            return
        self.content.tensors[key] = (seen or made)[0]

    def makers(self, codes: ir.Value) -> Iterator[ir.Node]:
        """Yield the QuantizeLinear nodes whose codes arrive in a value by being moved or clamped."""
        waiting, seen = [codes], set()
        while waiting:
            node = waiting.pop().producer()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node.op_type == "QuantizeLinear":
                yield node
            elif node.op_type in MOVES | {"Clip"}:
                sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
                waiting += [value for value in reversed(sources) if value is not None]

    def affine(self, node: ir.Node, key: str) -> Affine | None:
        """Return what a Q or DQ node of an activation says, or None where it is not constant.

        A DequantizeLinear may tell the same scale and zero-point once for each channel.
        """
        scale, zero_point = (_one(constant(value)) for value in (*node.inputs[1:3], None, None)[:2])
        if scale is None or zero_point is None or zero_point.dtype != np.uint8:
            return None
        if scale.dtype != np.float32 or scale.ndim or zero_point.ndim:
            return None
        try:
            return Affine(8, signed=False, axis=None, scale=scale, zero_point=zero_point.astype(np.int32))
        except ValueError as error:
            self.fault(key, str(error))
            return None

    def weights(self) -> None:
        """Read the weight and the bias of every layer."""
        for node in self.graph:
            index = _LAYERS.get(node.op_type)
            key = key_of(node.name or "")
            if index is None or not key or len(node.inputs) <= index:
                continue
            weight = node.inputs[index]
            if node.op_type == "MatMulInteger":
                self.dynamic(key, node)
            elif node.op_type == "MatMulNBits":
                self.grouped(key, node)
            elif node.op_type == "Gather":
                self.rows(key, node)
            elif weight is not None:
                self.stored(f"{key}:weight", weight)
            if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2:
                self.bias(key, node.inputs[2])

    def stored(self, key: str, value: ir.Value) -> None:
        """Read a weight: int8 with DequantizeLinear or with a product of cast and scale, a palette, or float16."""
        node = value.producer()
        while node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        if node is None or not node.inputs:
            return
        if node.op_type in ("Gather", "Reshape"):
            if (found := read_palette(node)) is not None:
                self.content.tensors[key], self.content.integers[key] = found
            return
        codes = _codes(node.inputs[0])
        if node.op_type == "DequantizeLinear" and codes is not None:
            self.known.add(node)
            zeros = constant(node.inputs[2]) if len(node.inputs) > 2 else None
            self.integer_weight(key, codes, constant(node.inputs[1]), axis_of(node), zeros)
        elif node.op_type == "Mul":
            cast = node.inputs[0].producer() if node.inputs[0] is not None else None
            codes = _codes(cast.inputs[0]) if cast is not None and cast.op_type == "Cast" else None
            scale = constant(node.inputs[1])
            if codes is not None and scale is not None:
                self.integer_weight(key, codes, scale.reshape(-1) if scale.ndim else scale, 0 if scale.ndim else None)
        elif node.op_type == "Cast" and codes is not None and codes[0].dtype == np.float16:
            self.content.tensors[key] = Float("float16")

    def integer_weight(
        self, key: str, held: _Codes, scale: np.ndarray | None, axis: int | None, zeros: np.ndarray | None = None
    ) -> None:
        bits, codes = held[1], held[0].astype(np.int32)
        if scale is None or scale.dtype != np.float32 or not bits or (zeros is not None and zeros.any()):
            self.fault(key, "it is not symmetric integers of 1 to 8 bits with constant scales")
            return
        if codes.size and codes.min() < -largest_code(bits):
            self.fault(key, f"it holds {codes.min()}, which no weight has")
            return
        axis = axis if scale.ndim else None
        try:
            self.content.tensors[key] = Affine(
                bits, signed=True, axis=axis, scale=scale, zero_point=np.zeros(scale.shape, np.int32)
            )
        except ValueError as error:
            self.fault(key, str(error))
            return
        self.content.integers[key] = codes

    def dynamic(self, key: str, node: ir.Node) -> None:
        """Read a layer whose input is quantized at run time: its scale is a factor of the scale behind it."""
        codes = _codes(node.inputs[1])
        maker = node.inputs[0].producer() if node.inputs[0] is not None else None
        scale = None
        for cast in _readers(node, "Cast"):
            for product in _readers(cast, "Mul"):
                factor = product.inputs[1].producer() if product.inputs[1] is not None else None
                if factor is not None and factor.op_type == "Mul":
                    scale = constant(factor.inputs[1])
        if maker is None or maker.op_type != "DynamicQuantizeLinear" or codes is None or scale is None:
            self.fault(key, "MatMulInteger without DynamicQuantizeLinear before it or a constant scale behind it")
            return
        self.known.add(maker)
        self.content.tensors[f"{key}:in"] = Dynamic(8)
        self.integer_weight(f"{key}:weight", (np.ascontiguousarray(codes[0].T), codes[1]), scale, 0)

    def grouped(self, key: str, node: ir.Node) -> None:
        """Read a layer with 4-bit weights in groups, whose kernel quantizes its input at run time."""
        try:
            encoding, codes = read_grouped(node)
        except ValueError as error:
            self.fault(f"{key}:weight", str(error))
            return
        if codes.size and codes.min() < encoding.low:
            self.fault(f"{key}:weight", f"it holds {codes.min()}, which no weight has")
            return
        self.content.tensors |= {f"{key}:weight": encoding, f"{key}:in": Dynamic(8)}
        self.content.integers[f"{key}:weight"] = codes

    def rows(self, key: str, node: ir.Node) -> None:
        """Read an embedding's table, where it is stored in fewer bits."""
        table = constant(node.inputs[0])
        casts = _readers(node, "Cast")
        if table is None or not casts:
            return
        if table.dtype == np.float16:
            self.content.tensors[f"{key}:weight"] = Float("float16")
            return
        if (book := read_rows(table, casts[0])) is not None:
            self.content.tensors[f"{key}:weight"], self.content.integers[f"{key}:weight"] = book
            return
        for product in _readers(casts[0], "Mul"):
            found = product.inputs[1]
            gather = found.producer() if found is not None else None
            scale = constant(gather.inputs[0]) if gather is not None else constant(found)
            flat = scale.reshape(-1) if scale is not None and scale.ndim else scale
            self.integer_weight(f"{key}:weight", (table, _BITS.get(str(table.dtype), 0)), flat, 0)

    def bias(self, key: str, value: ir.Value | None) -> None:
        node = value.producer() if value is not None else None
        codes = constant(node.inputs[0]) if node is not None and node.op_type == "DequantizeLinear" else None
        if node is None or codes is None or codes.dtype != np.int32:
            return
        scale = constant(node.inputs[1])
        if scale is not None:
            self.known.add(node)
            self.content.biases[key] = (codes, scale)

    def strays(self) -> None:
        """Tell of every encoding node that nothing we know has led to."""
        for node in self.graph:
            if node.op_type in _ENCODING_OPS and node not in self.known and not self.reads_moved(node):
                self.fault(node.name or node.op_type, f"{node.op_type} that was not asked for")

    def reads_moved(self, node: ir.Node) -> bool:
        """Say whether a DequantizeLinear reads codes that were moved, as they were made."""
        codes = node.inputs[0]
        makers = list(self.makers(codes)) if codes is not None and node.op_type == "DequantizeLinear" else []
        own = self.affine(node, key_of(node.name or ""))
        made = [self.affine(maker, "") for maker in makers if maker in self.known]
        return own is not None and bool(made) and all(found is not None and equal(own, found) for found in made)


def _codes(value: ir.Value | None) -> _Codes | None:
    """Return a weight's stored numbers and their bits, through what widens those of fewer bits; 0 bits if no integers.

    Raises:
        Foreign: they are packed, and not as we pack.
    """
    value, turned = original(value)
    found = _held(value)
    return found if found is None or not turned else (np.ascontiguousarray(found[0].T), found[1])


def _held(value: ir.Value | None) -> _Codes | None:
    import onnx_ir as ir

    node = value.producer() if value is not None else None
    if node is not None and node.domain == unpack.DOMAIN:
        try:
            return unpack.meaning(node.op_type, [constant(each) for each in node.inputs])
        except ValueError as error:
            raise Foreign(f"{node.name}: {error}") from error
    cast = node is not None and node.op_type == "Cast"
    found = constant(node.inputs[0] if node is not None and cast else value)
    if found is None:
        return None
    if node is not None and cast:
        to = node.attributes.get("to")
        if to is None or to.is_ref() or to.value != ir.DataType.INT8 or str(found.dtype) != "int4":
            return None
    return found, _BITS.get(str(found.dtype), 0)


def _readers(node: ir.Node, op: str) -> list[ir.Node]:
    return [use.node for use in node.outputs[0].uses() if use.node.op_type == op]


def _one(array: np.ndarray | None) -> np.ndarray | None:
    """Return a row of equal numbers as the one number that it tells; anything else as it is."""
    if array is None or array.ndim != 1 or not array.size or array.tobytes() != np.full_like(array, array[0]).tobytes():
        return array
    return np.array(array[0])
