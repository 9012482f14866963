"""A sheet: the graph that is being written, with the means to find, add and replace by node key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.errors import ConversionError
from haversack.base.model import Model
from haversack.base.plan import NARROW
from haversack.tools.graph.onnx import unpack
from haversack.tools.graph.onnx.naming import CODES, key_of
from haversack.tools.graph.onnx.skeleton import PARAMETER, Skeleton
from haversack.tools.numerics import planes

if TYPE_CHECKING:
    import onnx_ir as ir

_INT4 = 4
"""Bits of a code in an INT4 initializer, two of them in a byte."""
_OPSET = 21
"""The first that has INT4 and UINT4."""


class Sheet:
    """An editable copy of a skeleton.

    Attributes:
        file: the ONNX model.
        graph: its graph.
        nodes: node key -> the skeleton's nodes of that key, in order.
        floats: node key -> the value that holds its result in the skeleton.
        opset: version of the ONNX operators that the file needs.
        unpacks: names of the functions that unpack weights, which the file brings.
        holders: name of a weight, and a way to hold it -> tensor keys of the layers that hold it so, all unlike.
        made: name -> a value that several layers read.
        copies: value -> how many copies of it there are.
    """

    def __init__(self, skeleton: Skeleton, model: Model) -> None:
        self.model = model
        self.opset = skeleton.opset
        self.unpacks: set[str] = set()
        self.holders: dict[tuple[str, str], list[str]] = {}
        self.made: dict[str, ir.Value] = {}
        self.copies: Counter[ir.Value] = Counter()
        self.file = skeleton.load()
        self.graph = self.file.graph
        self.nodes: dict[str, list[ir.Node]] = {}
        for node in self.graph:
            self.nodes.setdefault(key_of(node.name or ""), []).append(node)
        by_name = {value.name: value for value in self.graph.inputs}
        by_name |= {value.name: value for node in self.graph for value in node.outputs}
        self.floats = {key: by_name[name] for key, name in skeleton.names.items()}
        taken = {port.name for port in (*model.inputs, *model.outputs)}
        self.parameters: dict[str, ir.Value] = {}
        for value in self.graph.inputs[len(model.inputs) :]:
            name = str(value.name).removeprefix(PARAMETER)
            self.parameters[name] = value
            value.name = f"{name}/parameter" if name in taken else name

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Return the initializer of this name, made on first use with the array's shape and dtype."""
        import onnx_ir as ir

        if name not in self.graph.initializers:
            value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name))
            self.graph.register_initializer(value)
        return self.graph.initializers[name]

    def integers(self, key: str, codes: np.ndarray, bits: int) -> ir.Value:
        """Return the int8 value of a weight's codes: as they are, stored as INT4 and widened by a Cast, or packed.

        ONNX Runtime folds that Cast when it opens the file, before it looks for what it fuses: so the same integer
        kernels run as on int8 weights (a DequantizeLinear that reads INT4 itself leaves the layer in float). Other
        widths are unpacked to the same effect (see ``unpack``).

        Args:
            key: tensor key of the weight.
            codes: integers that fit ``bits``, in the shape the file has them in.
            bits: 1 to 8.
        """
        if bits >= _INT4 and bits in NARROW:
            self.opset = max(self.opset, _OPSET)
        if bits in planes.WIDTHS:
            packed = [self.constant(name, array) for name, array in unpack.inputs(key, codes, bits).items()]
            name = unpack.name_of(codes.size, bits)
            self.unpacks.add(name)
            return self.own(name, unpack.DOMAIN, packed, f"{key}/{name}")
        if bits == _INT4:
            import ml_dtypes
            import onnx_ir as ir

            stored = self.constant(f"{key}{CODES}", codes.astype(ml_dtypes.int4))
            return self.node("Cast", [stored], f"{key}/Widen", to=int(ir.DataType.INT8))
        return self.constant(f"{key}{CODES}", codes.astype(np.int8))

    def indices(self, key: str, codes: np.ndarray, bits: int) -> ir.Value:
        """Return the int32 value of indices into a palette, stored as UINT4 or UINT8; a Cast widens them.

        Args:
            key: tensor key of the weight.
            codes: int32, in the shape the file has them in.
            bits: of an index, 1 to 8; up to 4 two indices share a byte.
        """
        import ml_dtypes
        import onnx_ir as ir

        if bits <= _INT4:
            self.opset = max(self.opset, _OPSET)
        stored = self.constant(f"{key}{CODES}", codes.astype(ml_dtypes.uint4 if bits <= _INT4 else np.uint8))
        return self.node("Cast", [stored], f"{key}/Widen", to=int(ir.DataType.INT32))

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        out: str | Sequence[str] = "",
        **attributes: Any,  # noqa: ANN401 - whatever the operator takes
    ) -> ir.Value:
        """Add a node and return its first output; ``out`` names the outputs (``name/0`` if empty)."""
        import onnx_ir as ir

        names = [out or f"{name}/0"] if isinstance(out, str) else list(out)
        made = ir.node(op, inputs, attributes or None, outputs=[ir.val(each) for each in names], name=name)
        self.graph.append(made)
        return made.outputs[0]

    def own(self, op: str, domain: str, inputs: Sequence[ir.Value | None], name: str, **attributes: int) -> ir.Value:
        """Add a node of a domain that is not ONNX's (its version 1) and return its output."""
        import onnx_ir as ir

        made = ir.node(op, inputs, attributes, domain=domain, outputs=[ir.val(f"{name}/0")], name=name)
        self.graph.append(made)
        self.graph.opset_imports[domain] = 1
        return made.outputs[0]

    def only(self, key: str, op: str) -> ir.Node:
        """Return the one node with this operator that a key was exported to.

        Raises:
            ConversionError: there is none, or there are several.
        """
        found = [node for node in self.nodes.get(key, []) if node.op_type == op]
        if len(found) != 1:
            ops = ", ".join(node.op_type for node in self.nodes.get(key, [])) or "nothing"
            raise ConversionError(
                f"it was exported as {ops}, which has no integer form here",
                where=key,
                next_step="keep this layer in float32",
            )
        return found[0]

    def replace(self, old: ir.Value, new: ir.Value, but: AbstractSet[str] = frozenset()) -> None:
        """Let what reads ``old`` read ``new`` (but for the named nodes); an output of the model keeps its name."""
        for use in list(old.uses()):
            if use.node.name not in but:
                use.node.replace_input_with(use.idx, new)
        for index, value in enumerate(self.graph.outputs):
            if value is old:
                self.graph.outputs[index] = new
                new.type, new.shape = old.type, old.shape
                new.name, old.name = old.name, f"{old.name}/before"
                old.type = old.shape = None

    def finish(self, weights: Mapping[str, np.ndarray]) -> bytes:
        """Put the parameters that are still read in place, drop what is not, and return the file's bytes."""
        import onnx_ir as ir
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        RemoveUnusedNodesPass()(self.file)
        for name, value in self.parameters.items():
            self.graph.inputs.remove(value)
            if value.uses():
                value.const_value = ir.tensor(np.asarray(weights[name], order="C"), name=value.name)
                self.graph.register_initializer(value)
        for name in [name for name, value in self.graph.initializers.items() if not value.uses()]:
            self.graph.initializers.pop(name)
        for value in self.graph.initializers.values():
            value.type = value.shape = None  # the tensor itself tells both: a second telling is only larger
        self.graph.sort()
        self.graph.opset_imports[""] = self.opset
        for name in sorted(self.unpacks):
            made = unpack.function(name, self.opset)
            self.file.functions[made.identifier()] = made
        self.file.producer_name, self.file.producer_version = "haversack", ""
        data: bytes = ir.to_proto(self.file).SerializeToString(deterministic=True)
        return data
