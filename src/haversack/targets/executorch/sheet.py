"""One XNNPACK graph while it is rewritten: its values, its nodes, and in which forms each value is there."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from haversack.base.encodings import Affine
from haversack.targets.executorch import parse
from haversack.targets.executorch.capture import Part
from haversack.tools.graph.law import equal

_INPUTS = ("input_id", "query_id", "key_id", "value_id", "mask_id", *(f"input{index}_id" for index in range(1, 6)))
_EXTERNAL = 3
_DIGEST = 6
"""Bytes of the digest in the names of constants."""
_INT8 = 128
"""What a uint8 code is lowered by to be int8: the same bits of information."""


@dataclass(frozen=True)
class Finished:
    """A graph's bytes, its constants by name, and where its values and nodes have gone."""

    payload: bytes
    data: Mapping[str, bytes]
    values: Mapping[int, int]


class Sheet:
    """A part with this model's weights.

    Args:
        part: unchanged.
        weights: parameter name -> value.

    Attributes:
        values: tensor values of ExecuTorch's schema, by id; ids are those of the part as far as it has them.
        nodes: (node, owner), those that are done.
        constants: value id -> bytes.
        scales: value id -> float32 scales, one for each channel; or bfloat16 bits (uint16), one for each group.
    """

    def __init__(self, part: Part, weights: Mapping[str, np.ndarray]) -> None:
        self.part = part
        self.values: list[Any] = copy.deepcopy(part.graph.xvalues)
        self.nodes: list[tuple[Any, str]] = []
        self.constants: dict[int, bytes] = dict(part.data)
        for value, name in part.parameters.items():
            shape, axes = part.layouts[value]
            self.constants[value] = np.asarray(weights[name], np.float32).reshape(shape).transpose(axes).tobytes()
        self.scales: dict[int, np.ndarray] = {}
        self._codes: dict[int, tuple[int, Affine]] = {}
        self._floats: dict[int, int] = {}
        self._made: dict[tuple[int, bytes, bytes], int] = {}

    def tensor(self, value: int) -> Any:  # noqa: ANN401 - XNNTensorValue
        """Return the tensor of a value, quantized or not."""
        union = self.values[value].xvalue_union
        return getattr(union, "tensor_value", union)

    def is_external(self, value: int) -> bool:
        """Say whether a value comes from outside or goes there."""
        return bool(self.tensor(value).flags & _EXTERNAL)

    def new(self, dims: Any, datatype: int = parse.FLOAT32, quantization: Any = None) -> int:  # noqa: ANN401
        """Return the id of a new internal value."""
        from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema

        tensor = schema.XNNTensorValue(
            datatype=schema.XNNDatatype(datatype),
            num_dims=len(dims),
            dims=[int(size) for size in dims],
            constant_buffer_idx=0,
            external_id=parse.NOWHERE,
            flags=0,
            id_out=len(self.values),
        )
        union = tensor if quantization is None else schema.XNNQuantizedTensorValue(tensor, quantization)
        self.values.append(schema.XValue(union))
        return int(tensor.id_out)

    def grid(self, dims: Any, encoding: Affine) -> int:  # noqa: ANN401 - sequence of int
        """Return a new value of int8 codes."""
        from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import PerTensorQuant

        parameters = PerTensorQuant(scale=float(encoding.scale), zero_point=int(encoding.zero_point) - _INT8)
        return self.new(dims, parse.QINT8, parameters)

    def constant(
        self,
        integers: np.ndarray,
        dims: Any,  # noqa: ANN401 - sequence of int
        scale: np.ndarray,
        axis: int,
        datatypes: tuple[int, int],
    ) -> int:
        """Return a new constant of integers.

        Args:
            integers: int8 or int32, in the order of ``dims`` (4-bit codes already packed).
            dims: its shape in XNNPACK.
            scale: float32 [] or [channels].
            axis: of the channels in ``dims``.
            datatypes: for one scale, and for one scale a channel.
        """
        from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import PerChannelQuant, PerTensorQuant

        if scale.ndim:
            found = self.new(dims, datatypes[1], PerChannelQuant([], axis, 0, scale.size))
            self.scales[found] = scale
        else:
            found = self.new(dims, datatypes[0], PerTensorQuant(float(scale), 0))
        self.constants[found] = integers.tobytes()
        return found

    def grouped(self, codes: np.ndarray, dims: Any, scale: np.ndarray, group: int) -> int:  # noqa: ANN401 - ints
        """Return a new constant of 4-bit codes with a scale for each group of a row.

        Args:
            codes: uint8, two codes in a byte.
            dims: [rows, length].
            scale: uint16 bits of bfloat16 [rows, length / group].
            group: how many codes share a scale.
        """
        from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import PerChannelGroupQuant

        found = self.new(dims, parse.QBINT4, PerChannelGroupQuant([], 0, group, num_scales=scale.size))
        self.scales[found], self.constants[found] = scale, codes.tobytes()
        return found

    def add(self, kind: str, owner: str, **arguments: Any) -> None:  # noqa: ANN401 - as the schema has them
        """Append a node."""
        from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema

        self.nodes.append((schema.XNode(getattr(schema, f"XNN{kind}")(**arguments, flags=0), 0), owner))

    def convert(self, source: int, target: int, owner: str = "") -> None:
        """Append a change of datatype."""
        self.add("Convert", owner, input_id=source, output_id=target)

    def codes(self, value: int) -> tuple[int, Affine] | None:
        """Return (id, encoding) of the codes of a value where it has been encoded."""
        return self._codes.get(value)

    def set_codes(self, value: int, codes: int, encoding: Affine) -> None:
        """Say which codes serve a value: from now on everybody reads what they mean."""
        self._codes[value] = codes, encoding
        self._floats.pop(value, None)

    def as_codes(self, value: int, encoding: Affine) -> int:
        """Return the codes of a value in an encoding, made of its float form if they are not there."""
        found = self._codes.get(value)
        if found is not None and equal(found[1], encoding):
            return found[0]
        key = value, encoding.scale.tobytes(), encoding.zero_point.tobytes()
        if key not in self._made:
            source = self.as_float(value)
            self._made[key] = self.grid(self.tensor(value).dims, encoding)
            self.convert(source, self._made[key])
        return self._made[key]

    def as_float(self, value: int) -> int:
        """Return the float form of a value; of an encoded one, what its codes mean."""
        if value not in self._codes:
            return value
        if value not in self._floats:
            self._floats[value] = self.new(self.tensor(value).dims)
            self.convert(self._codes[value][0], self._floats[value])
        return self._floats[value]

    def finish(self) -> Finished:
        """Return the graph without what nobody reads."""
        used = set(self.part.graph.input_ids) | set(self.part.graph.output_ids)
        for node, _ in self.nodes:
            union = node.xnode_union
            used |= {getattr(union, f.name) for f in fields(union) if f.name.endswith("_id")}
        used.discard(parse.NOWHERE)
        renamed = {old: new for new, old in enumerate(sorted(used))}
        graph = _Graph(self, renamed)
        return Finished(graph.payload(), graph.data, renamed)


def inputs(union: Any) -> list[str]:  # noqa: ANN401 - a node of the schema
    """Return the names of the fields through which a node reads what flows."""
    return [name for name in _INPUTS if getattr(union, name, parse.NOWHERE) != parse.NOWHERE]


class _Graph:
    """A sheet's graph with its final numbers."""

    def __init__(self, sheet: Sheet, renamed: Mapping[int, int]) -> None:
        from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema

        self.schema = schema
        self._constants: dict[bytes, int] = {}
        self._table: list[int] = []
        self.values = [self._value(sheet, old, new) for old, new in renamed.items()]
        self.nodes = [self._node(node, renamed) for node, _ in sheet.nodes]
        graph = sheet.part.graph
        self.inputs = [renamed[value] for value in graph.input_ids]
        self.outputs = [renamed[value] for value in graph.output_ids]
        self.externs = graph.num_externs

    @cached_property
    def data(self) -> dict[str, bytes]:
        """Return the constants by name, in the order in which values read them first.

        A name must tell a constant apart from those of every other file, for a runtime may keep what it has packed
        under that name. So one digest of all of them, which repeats, and a number: a digest for each would not. It is
        short, for with an update it changes wherever it stands.
        """
        every = hashlib.sha256()
        for one in self._constants:
            every.update(len(one).to_bytes(8, "little") + one)
        digest = base64.urlsafe_b64encode(every.digest()[:_DIGEST]).decode()
        return {f"{digest}.{number}": one for one, number in self._constants.items()}

    def payload(self) -> bytes:
        """Return header and FlatBuffer."""
        from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import serialize_xnnpack_binary

        names = list(self.data)
        table = [self.schema.ConstantDataOffset(0, 0)]
        for number in self._table:
            size = len(self.data[names[number]])
            table.append(self.schema.ConstantDataOffset(parse.OFFSET_IS_NAMED, size, names[number]))
        graph = self.schema.XNNGraph("0", self.nodes, self.values, self.externs, self.inputs, self.outputs, table)
        found: bytes = serialize_xnnpack_binary(graph, bytearray())
        return found

    def _value(self, sheet: Sheet, old: int, new: int) -> Any:  # noqa: ANN401 - XValue
        value = copy.deepcopy(sheet.values[old])
        tensor = getattr(value.xvalue_union, "tensor_value", value.xvalue_union)
        tensor.id_out, tensor.constant_buffer_idx = new, 0
        if old in sheet.constants:
            tensor.constant_buffer_idx = self._stored(sheet.constants[old])
        if old in sheet.scales:
            value.xvalue_union.quant_params.scale_buffer_idx = self._stored(sheet.scales[old].tobytes())
        return value

    def _stored(self, data: bytes) -> int:
        self._table.append(self._constants.setdefault(data, len(self._constants)))
        return len(self._table)

    def _node(self, node: Any, renamed: Mapping[int, int]) -> Any:  # noqa: ANN401 - XNode
        made = copy.deepcopy(node)
        for field in fields(made.xnode_union):
            if field.name.endswith("_id"):
                old = getattr(made.xnode_union, field.name)
                setattr(made.xnode_union, field.name, renamed.get(old, old))
        return made
