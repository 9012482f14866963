"""Reading a file back: its structure, and every scale and integer it holds, under the keys they were injected for.

An activation's encoding is what the QuantizeLinear that made its codes and all DequantizeLinear that read them say, a
weight's is what its layer reads. A Q/DQ node that leads nowhere we know is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine
from haversack.base.errors import Fault, VerificationError
from haversack.base.model import Model
from haversack.tools.graph.injection import Content
from haversack.tools.graph.onnx.foreign import Foreign, axis, constant, guarded
from haversack.tools.graph.onnx.naming import CODES, key_of
from haversack.tools.numerics.affine import MIDDLE

if TYPE_CHECKING:
    import onnx_ir as ir

_WEIGHTS = {"Conv": 1, "Gemm": 1, "MatMul": 1, "Gather": 0}
"""Operator -> which of its inputs is the weight."""
_TURNS = frozenset({"Transpose", "Unsqueeze", "Reshape", "Identity"})
_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LARGEST_CODE = 127


def checked(path: Path, model: Model) -> None:
    """Check a file's structure by ONNX's own checker, types and shapes inferred, and its interface.

    Raises:
        VerificationError: it is not valid, or its inputs and outputs are not the model's.
    """
    import onnx

    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        cause = f"ONNX's checker refuses it: {(str(error).splitlines() or [''])[0]}"
        raise VerificationError(cause, where=str(path)) from error
    found = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    wanted = [port.name for port in (*model.inputs, *model.outputs)]
    if found != wanted:
        raise VerificationError(f"its interface is {found}, not {wanted}", where=str(path))


def read(path: Path, tensor_names: Mapping[str, str], absorbed: Mapping[str, str]) -> Content:
    """Read a file.

    Args:
        path: an ONNX file.
        tensor_names: activation tensor key -> name in the file.
        absorbed: tensor key -> name in the file of the codes that serve it.

    Raises:
        VerificationError: it is no ONNX file, or not one that we have written; all faults together.
    """
    return guarded(path, lambda graph: _content(graph, {**tensor_names, **absorbed})).sound(path)


def _content(graph: ir.Graph, names: Mapping[str, str]) -> Content:
    reader = _Reader(graph)
    for key, name in names.items():
        reader.activation(key, name)
    for node in graph:
        reader.weight(node)
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

    def activation(self, key: str, name: str) -> None:
        """Read the encoding of an activation, if it has codes: as it was made, which must be as it is read."""
        value = self.values.get(name)
        if value is None:
            self.fault(key, f"the file has no tensor {name!r}")
            return
        if not name.endswith(CODES):
            return
        maker = value.producer()
        if maker is None or maker.op_type != "QuantizeLinear":
            self.fault(key, "no QuantizeLinear makes its codes")
            return
        readers = [use.node for use in value.uses()]
        if not readers or any(node.op_type != "DequantizeLinear" for node in readers):
            self.fault(key, "its codes are read otherwise than by DequantizeLinear")
            return
        self.known.update([maker, *readers])
        scales = [self.scale(node, key) for node in (maker, *readers)]
        if any(scale is None for scale in scales):
            return
        if len({scale.tobytes() for scale in scales if scale is not None}) > 1:
            self.fault(key, "it is quantized with one scale and read with another")
            return
        self.affine(key, scales[0], None, signed=False)

    def scale(self, node: ir.Node, key: str) -> np.ndarray | None:
        """Return the scale of an activation's Q or DQ node; what is not symmetric int8 is a fault."""
        scale, zero = (constant(value) for value in (*node.inputs[1:3], None, None)[:2])
        if scale is None or scale.dtype != np.float32 or scale.ndim:
            self.fault(key, "its scale is not one constant float32")
            return None
        if zero is None or zero.dtype != np.int8 or zero.any():
            self.fault(key, "its codes are not symmetric: the zero-point is not a constant int8 0")
            return None
        return scale

    def affine(self, key: str, scale: np.ndarray | None, along: int | None, *, signed: bool) -> bool:
        """Take an encoding, and say whether it is one."""
        assert scale is not None, "looked at before"
        zeros = np.full(scale.shape, 0 if signed else MIDDLE, np.int32)
        try:
            self.content.tensors[key] = Affine(8, signed=signed, axis=along, scale=scale, zero_point=zeros)
        except ValueError as error:
            self.fault(key, str(error))
            return False
        return True

    def weight(self, node: ir.Node) -> None:
        """Read what a layer's weight is stored in, if it is integers."""
        place, key = _WEIGHTS.get(node.op_type), key_of(node.name or "")
        if place is None or not key or len(node.inputs) <= place:
            return
        source = next(_makers(node.inputs[place]), None)
        if source is None or source.op_type != "DequantizeLinear" or source in self.known:
            return
        codes, scale, zeros = (constant(value) for value in (*source.inputs, None)[:3])
        if codes is None:
            return
        self.known.add(source)
        key = f"{key}:weight"
        whole = codes.dtype == np.int8 and scale is not None and scale.dtype == np.float32
        if not whole or zeros is None or zeros.dtype != np.int8 or zeros.any():
            self.fault(key, "it is not symmetric int8 with constant scales")
        elif codes.size and codes.min() < -_LARGEST_CODE:
            self.fault(key, "it holds -128, which no weight has")
        elif self.affine(key, scale, axis(source) if scale is not None and scale.ndim else None, signed=True):
            self.content.integers[key] = codes.astype(np.int32)

    def strays(self) -> None:
        """Tell of every Q or DQ node that nothing we know has led to."""
        for node in self.graph:
            if node.op_type in _PAIR and node not in self.known:
                self.fault(node.name or node.op_type, f"{node.op_type} that was not asked for")


def _makers(value: ir.Value | None) -> Iterator[ir.Node]:
    """Yield the node that makes a value, past those that only turn it."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _TURNS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is not None:
        yield node
