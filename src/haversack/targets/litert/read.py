"""Reading a file back: every scale, zero-point and integer that it holds, under the keys they were injected for.

A weight's encoding is what the operator reads, an activation's what its tensor says. Codes that nobody asked for, or
that change their meaning while they are only moved, are faults.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Dynamic, Float
from haversack.base.errors import Fault
from haversack.base.keys import split_node
from haversack.targets.litert.flat import Blocks, Operator, Quantization, Subgraph, Tensor
from haversack.targets.litert.naming import NONE, WHOLE, key_of
from haversack.targets.litert.sheet import OFFSET
from haversack.targets.litert.unflat import File, Foreign, guarded, reading
from haversack.tools.graph.injection import Content, bias_digests

MOVES = frozenset(
    "RESHAPE TRANSPOSE PAD SLICE STRIDED_SLICE MAX_POOL_2D CONCATENATION GATHER BROADCAST_TO MAXIMUM MINIMUM".split()
)
"""Operators whose codes mean what the codes they read mean."""
LAYERS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_BITS = {"INT8": 8, "INT4": 4}
_LARGEST = {"INT8": 127, "INT4": 7}
_MOST = 255


def read(path: Path, tensor_names: Mapping[str, str], absorbed: Mapping[str, str]) -> Content:
    """Read a file; all its signatures must hold the same.

    Args:
        path: a LiteRT file.
        tensor_names: activation tensor key -> name in the file.
        absorbed: tensor key -> name in the file of the codes that serve it.

    Raises:
        VerificationError: it is no LiteRT file, or not one that we have written; all faults together.
    """
    content = guarded(path, lambda file: _content(file, {**absorbed, **tensor_names}))
    return content.sound(path)


def _content(file: File, names: Mapping[str, str]) -> Content:
    found = []
    for graph in file.subgraphs:
        reader = _Reader(file, graph)
        reader.activations(names)
        reader.weights()
        reader.strays()
        try:
            reader.content.encodings()
        except ValueError as error:
            raise Foreign(str(error)) from error
        found.append(reader.content)
    first = found[0]
    for graph, other in zip(file.subgraphs[1:], found[1:], strict=True):
        equal = bias_digests(other.biases) == bias_digests(first.biases)
        if not other.faults and not (equal and other.encodings().digest == first.encodings().digest):
            first.faults.append(Fault(graph.name, "this signature holds other numbers than the first"))
        first.faults += other.faults
    return first


class _Reader:
    """One subgraph, being read."""

    def __init__(self, file: File, graph: Subgraph) -> None:
        self.file, self.graph = file, graph
        self.content = Content()
        self.known: set[int] = set()
        self.numbers = {tensor.name: number for number, tensor in enumerate(graph.tensors)}
        self.makers = {number: one for one in graph.operators for number in one.outputs}
        self.readers: dict[int, list[Operator]] = defaultdict(list)
        for operator, number in reading(graph):
            self.readers[number].append(operator)

    def fault(self, where: str, cause: str) -> None:
        self.content.faults.append(Fault(where, cause))

    def activations(self, names: Mapping[str, str]) -> None:
        """Read the encoding of every activation that has codes."""
        for key, name in names.items():
            number = self.numbers.get(name)
            if number is None:
                self.fault(key, f"the file has no tensor {name!r}")
                continue
            tensor = self.graph.tensors[number]
            if self.file.dtype(tensor) == "INT8":
                self.known.add(number)
                self.activation(key, tensor)

    def activation(self, key: str, tensor: Tensor) -> None:
        meaning = tensor.quantization
        if meaning is None or meaning.scale.shape != (1,) or meaning.zero_point.shape != (1,):
            self.fault(key, "its codes have no one scale and zero-point")
            return
        zero = np.array(meaning.zero_point[0] + OFFSET)
        if not 0 <= zero <= _MOST:
            self.fault(key, f"its zero-point is {zero - OFFSET}, which is no code of 8 bits")
            return
        try:
            self.content.tensors[key] = Affine(
                8, signed=False, axis=None, scale=np.array(meaning.scale[0]), zero_point=zero.astype(np.int32)
            )
        except ValueError as error:
            self.fault(key, str(error))

    def weights(self) -> None:
        """Read the weight and the bias of every layer, and every table."""
        for operator in self.graph.operators:
            name = self.file.name(operator)
            if name in LAYERS and len(operator.inputs) > 1:
                self.layer(name, operator)
            elif name == "GATHER":
                self.table(operator)

    def layer(self, name: str, operator: Operator) -> None:
        number = operator.inputs[1]
        if number < 0:
            return
        maker = self.makers.get(number)
        unpacked = maker is not None and self.file.name(maker) == "DEQUANTIZE"
        tensor = self.graph.tensors[maker.inputs[0] if maker is not None and unpacked else number]
        key = key_of(self.graph.tensors[operator.outputs[0]].name)
        if not key or not tensor.buffer:
            return
        if self.file.dtype(tensor) == "FLOAT16":
            self.content.tensors[f"{key}:weight"] = Float("float16")
        elif self.file.dtype(tensor) in _LARGEST:
            codes = self.file.numbers(tensor)
            assert codes is not None, "it has a buffer of integers"
            if tensor.blocks is not None:
                self.blocks(key, tensor, codes, tensor.blocks)
            else:
                self.weight(key, tensor, *_turned(name, key, codes, tensor.quantization))
            real = self.file.dtype(self.graph.tensors[operator.inputs[0]]) == "FLOAT32"
            if real and not unpacked:
                self.content.tensors[f"{key}:in"] = Dynamic(8)
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            self.bias(key, self.graph.tensors[operator.inputs[2]])

    def blocks(self, key: str, tensor: Tensor, codes: np.ndarray, found: Blocks) -> None:
        """Read integers that have a scale for each block of a row."""
        scales = self.graph.tensors[found.scales]
        numbers = self.file.numbers(scales) if self.file.dtype(scales) == "FLOAT16" else None
        if numbers is None or codes.ndim != 2 or found.zeros >= 0 or found.size < 1:
            self.fault(f"{key}:weight", "it is not symmetric, with float16 scales of its blocks")
            return
        if codes.size and codes.min() < -_LARGEST[self.file.dtype(tensor)]:
            self.fault(f"{key}:weight", f"it holds {codes.min()}, which no weight has")
            return
        if numbers.shape != (codes.shape[0], -(-codes.shape[1] // found.size)) or codes.shape[1] % found.size:
            cause = f"scales of shape {numbers.shape} for codes of shape {codes.shape} in blocks of {found.size}"
            self.fault(f"{key}:weight", cause)
            return
        try:
            made = BlockAffine(found.size, _BITS[self.file.dtype(tensor)], numbers.astype(np.float32))
        except ValueError as error:
            self.fault(f"{key}:weight", str(error))
            return
        self.content.tensors[f"{key}:weight"] = made
        self.content.integers[f"{key}:weight"] = codes.astype(np.int32)

    def weight(self, key: str, tensor: Tensor, codes: np.ndarray, axis: int) -> None:
        """Read integers in the model's axes, whose scales go along ``axis``."""
        meaning, kind = tensor.quantization, self.file.dtype(tensor)
        if meaning is None or meaning.zero_point.any() or meaning.zero_point.shape != meaning.scale.shape:
            self.fault(f"{key}:weight", "it is not symmetric, with a zero-point for each scale")
            return
        if codes.size and codes.min() < -_LARGEST[kind]:
            self.fault(f"{key}:weight", f"it holds {codes.min()}, which no weight has")
            return
        whole = tensor.name.endswith(WHOLE) and meaning.scale.shape == (1,)
        self.add(key, codes, np.array(meaning.scale[0]) if whole else meaning.scale, None if whole else axis, kind)

    def add(self, key: str, codes: np.ndarray, scale: np.ndarray, axis: int | None, kind: str) -> None:
        zeros = np.zeros(scale.shape, np.int32)
        try:
            found = Affine(_BITS[kind], signed=True, axis=axis, scale=np.asarray(scale), zero_point=zeros)
        except ValueError as error:
            self.fault(f"{key}:weight", str(error))
            return
        self.content.tensors[f"{key}:weight"] = found
        self.content.integers[f"{key}:weight"] = np.ascontiguousarray(codes.astype(np.int32))

    def table(self, operator: Operator) -> None:
        """Read a table of which rows are looked up, where it is stored in fewer bits."""
        tensor = self.graph.tensors[operator.inputs[0]]
        key, kind = key_of(self.graph.tensors[operator.outputs[0]].name), self.file.dtype(tensor)
        if not key or not tensor.buffer:
            return
        if kind == "FLOAT16":
            self.content.tensors[f"{key}:weight"] = Float("float16")
        elif kind == "INT8":
            codes, scale = self.file.numbers(tensor), self.factor(operator.outputs[0])
            if codes is None or scale is None or codes.min(initial=0) < -_LARGEST[kind]:
                self.fault(f"{key}:weight", "its rows are not integers times a constant scale")
                return
            self.known.add(operator.outputs[0])
            self.add(key, codes, scale.reshape(-1) if scale.ndim else scale, 0 if scale.ndim else None, kind)

    def factor(self, rows: int) -> np.ndarray | None:
        """Return the scales by which rows that were looked up are multiplied."""
        for cast in self.readers[rows]:
            for product in self.readers[cast.outputs[0]] if self.file.name(cast) == "CAST" else ():
                other = product.inputs[-1]
                maker = self.makers.get(other)
                source = maker.inputs[0] if maker is not None and self.file.name(maker) == "GATHER" else other
                return self.file.numbers(self.graph.tensors[source])
        return None

    def bias(self, key: str, tensor: Tensor) -> None:
        codes = self.file.numbers(tensor) if self.file.dtype(tensor) == "INT32" else None
        if codes is None or tensor.quantization is None:
            return
        if tensor.quantization.zero_point.any():
            self.fault(f"{key}:bias", "it has a zero-point")
        if tensor.name == f"{key}:bias{NONE}" and not codes.any():
            return
        self.content.biases[key] = codes, tensor.quantization.scale

    def strays(self) -> None:
        """Tell of every tensor of codes that nothing we know explains."""
        for number, tensor in enumerate(self.graph.tensors):
            if tensor.buffer or number in self.known or self.file.dtype(tensor) not in {"INT8", "UINT8", "INT16"}:
                continue
            maker = self.makers.get(number)
            sources = [] if maker is None else [self.graph.tensors[n] for n in maker.inputs if n >= 0]
            same = [_same(tensor.quantization, source.quantization) for source in sources if source.type == tensor.type]
            if maker is None or self.file.name(maker) not in MOVES or not same or not all(same):
                self.inner(number, tensor)

    def inner(self, number: int, tensor: Tensor) -> None:
        """Take what a layer makes before it is only moved: it must mean what the moved codes mean."""
        readers = self.readers[number]
        moved = [self.graph.tensors[one.outputs[0]] for one in readers if self.file.name(one) in MOVES]
        if not moved or len(moved) < len(readers) or not all(_same(tensor.quantization, m.quantization) for m in moved):
            self.fault(tensor.name, "codes that were not asked for")


def _same(one: Quantization | None, other: Quantization | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.scale.tobytes() == other.scale.tobytes() and one.zero_point.tobytes() == other.zero_point.tobytes()


def _turned(name: str, key: str, codes: np.ndarray, meaning: Quantization | None) -> tuple[np.ndarray, int]:
    """Return a layer's integers in the model's axes, and the axis of its channels there.

    Raises:
        Foreign: they have no form of such a layer, or their scales go along another axis.
    """
    op = split_node(key)[1]
    wanted = 3 if name == "DEPTHWISE_CONV_2D" else 0
    if meaning is not None and meaning.scale.shape != (1,) and meaning.axis != wanted:
        raise Foreign(f"{key}: the scales of its weight go along axis {meaning.axis}")
    if name == "FULLY_CONNECTED":
        return (codes.reshape(*codes.shape, 1, 1) if op == "conv2d" else codes), 0
    if codes.ndim != 4:
        raise Foreign(f"{key}: a weight of {codes.ndim} axes")
    found = codes.transpose(3, 0, 1, 2) if name == "DEPTHWISE_CONV_2D" else codes.transpose(0, 3, 1, 2)
    return (found[:, :, 0] if op == "conv1d" else found), 0
