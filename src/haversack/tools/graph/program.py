"""The exported program at fixed lengths: shapes as numbers, arguments by name, and everything constant computed.

A LiteRT file has no free lengths. What depends on lengths alone (positions, masks of nothing) becomes a constant here,
by PyTorch's own kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.errors import ConversionError
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.tools.graph.canonical import op_name, user_inputs
from haversack.tools.graph.roles import Role, role

if TYPE_CHECKING:
    import torch
    from torch import fx

_LIKE = frozenset({"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"})
"""Ops that ask nothing of their first tensor but shape and dtype."""


@dataclass(frozen=True)
class Flow:
    """An argument that another node computes."""

    key: str


@dataclass(frozen=True, eq=False)
class Constant:
    """An argument that is known: its numbers (any shape and dtype), and the parameter's name if it is one."""

    array: np.ndarray
    parameter: str = ""


class Program:
    """A model at fixed lengths.

    Args:
        model: the canonical model; its current weights count.
        sizes: free dimension -> length.
    """

    def __init__(self, model: Model, sizes: Mapping[str, int]) -> None:
        self.model = model
        self.nodes: dict[str, fx.Node] = {node.name: node for node in model.program.graph.nodes}
        self.keys = {node.name: node.key for node in model.graph.nodes}
        signature = model.program.graph_signature
        self.parameters = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self._layers = {n.name for n in model.graph.nodes if role(n) in (Role.LAYER, Role.EMBEDDING)}
        self._lengths = self._symbols(sizes)
        self._constant: dict[str, bool] = {}
        self._values: dict[str, Any] = {}
        self._sizes: dict[Any, int] = {}

    def _symbols(self, sizes: Mapping[str, int]) -> dict[Any, int]:
        """Return the exporter's symbol -> length, read off the inputs."""
        found: dict[Any, int] = {}
        for port, node in zip(self.model.inputs, user_inputs(self.model.program), strict=True):
            for name, size in zip(port.spec.shape, node.meta["val"].shape, strict=True):
                if isinstance(name, str) and name in sizes and not isinstance(size, int):
                    found[size.node.expr] = sizes[name]
        return found

    def size(self, size: Any) -> int:  # noqa: ANN401 - int or SymInt
        """Return a length as a number.

        Raises:
            ConversionError: it depends on what is computed.
        """
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression not in self._sizes:
            value = expression.subs(self._lengths)
            if not value.is_number:
                raise ConversionError(f"the length {expression} is not known beforehand")
            self._sizes[expression] = int(value)
        return self._sizes[expression]

    def shape(self, node: Node) -> tuple[int, ...]:
        """Return the shape of a node's output."""
        return self.shapes(node)[0]

    def shapes(self, node: Node) -> list[tuple[int, ...]]:
        """Return the shapes of all tensors that a node gives."""
        value = self.nodes[node.name].meta["val"]
        several = value if isinstance(value, tuple | list) else [value]
        return [tuple(self.size(size) for size in one.shape) for one in several]

    def arguments(self, node: Node) -> dict[str, Any]:
        """Return a node's arguments by the names of its op's schema: Flow, Constant, numbers, lists of these."""
        fx_node = self.nodes[node.name]
        schema = getattr(fx_node.target, "_schema", None)
        if schema is None:
            return {f"arg{i}": self._argument(value) for i, value in enumerate(fx_node.args)}
        names = [argument.name for argument in schema.arguments]
        given = {**dict(zip(names, fx_node.args, strict=False)), **fx_node.kwargs}
        found = {}
        for one in schema.arguments:
            value = given.get(one.name, one.default_value if one.has_default_value() else None)
            found[one.name] = self._argument(value)
        return found

    def _argument(self, value: Any) -> Any:  # noqa: ANN401 - any argument of an op
        if isinstance(value, list | tuple):
            return [self._argument(item) for item in value]
        if not hasattr(value, "meta"):
            return value
        if isinstance(value.meta.get("val"), tuple | list):
            return Flow(self.keys[value.name])
        if not self._is_tensor(value):
            return self.size(value.meta["val"])
        if value.name in self.parameters or self._is_constant(value):
            tensor = self._value(value)
            return Constant(tensor.detach().contiguous().numpy(), self.parameters.get(value.name, ""))
        return Flow(self.keys[value.name])

    @cached_property
    def constants(self) -> Mapping[str, np.ndarray]:
        """Node key -> numbers (any shape and dtype), for nodes whose value is known beforehand."""
        return {
            node.key: self._value(self.nodes[node.name]).detach().contiguous().numpy()
            for node in self.model.graph.nodes
            if self._is_constant(self.nodes[node.name]) and self._is_tensor(self.nodes[node.name])
        }

    def _is_tensor(self, node: fx.Node) -> bool:
        return hasattr(node.meta.get("val"), "dtype")

    def _is_constant(self, node: fx.Node) -> bool:
        if node.name not in self._constant:
            value = node.meta.get("val")
            if node.op == "placeholder":
                known = node.name in self.parameters
            elif value is not None and not hasattr(value, "dtype") and not isinstance(value, tuple | list):
                known = True
            else:
                read = [one for one in node.all_input_nodes if one is not self._pattern(node)]
                known = node.name not in self._layers and all(map(self._is_constant, read))
            self._constant[node.name] = known
        return self._constant[node.name]

    @staticmethod
    def _pattern(node: fx.Node) -> Any:  # noqa: ANN401 - an argument of a node
        """Return the tensor of which an op asks nothing but shape and dtype, or None."""
        return node.args[0] if node.op == "call_function" and op_name(node) in _LIKE else None

    def _value(self, node: fx.Node) -> Any:  # noqa: ANN401 - tensors, and sizes
        """Return the value of a constant node, as torch computes it."""
        import torch
        from torch.fx.node import map_arg

        if node.name not in self._values:
            if node.name in self.parameters:
                array = self.model.weights[self.parameters[node.name]]
                found: Any = torch.from_numpy(np.require(array, requirements=["C", "W"]))
            elif not self._is_tensor(node) and not isinstance(node.meta.get("val"), tuple | list):
                found = self.size(node.meta["val"])
            else:
                pattern = self._pattern(node)

                def value(used: fx.Node) -> Any:  # noqa: ANN401 - tensors, and sizes
                    return self._blank(used.meta["val"]) if used is pattern else self._value(used)

                args = map_arg(node.args, value)
                with torch.no_grad():
                    found = node.target(*args, **map_arg(node.kwargs, value))  # type: ignore[operator]
            self._values[node.name] = found
        return self._values[node.name]

    def _blank(self, like: torch.Tensor) -> torch.Tensor:
        """Return zeros in the shape that a tensor of the program has at the fixed lengths."""
        import torch

        return torch.zeros([int(self.size(size)) for size in like.shape], dtype=like.dtype)
