"""Executing the canonical graph in PyTorch, node by node, with a say at every node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.tools.graph.writes import without_writes

if TYPE_CHECKING:
    import torch
    from torch import fx
    from torch.export import ExportedProgram

Compute = Callable[[Node, "tuple[torch.Tensor, ...]"], "torch.Tensor | None"]
Observe = Callable[[Node, "torch.Tensor"], "torch.Tensor | None"]
_modules: WeakKeyDictionary[ExportedProgram, fx.GraphModule] = WeakKeyDictionary()
"""Unlifting a program takes a third of a second, and a run executes one program under many weights."""


class Executor:
    """Runs a Model in float32 with its current weights; values are freed at their last use.

    Args:
        model: its ``weights`` count, not the values inside its program.
        weights: values that replace some of the model's for this executor.

    Attributes:
        module: the program's graph; all executors of a program share it, so its own values do not count.
    """

    def __init__(self, model: Model, weights: Mapping[str, np.ndarray] | None = None) -> None:
        self.model = model
        self.module = _unlifted(model.program)
        self._values = {**model.weights, **(weights or {})}
        self._tensors: dict[str, torch.Tensor] = {}
        self._nodes = {node.name: node for node in model.graph.nodes}
        # The module renames an argument that hides a builtin (``input``): inputs are told by their order.
        arguments = (node for node in self.module.graph.nodes if node.op == "placeholder")
        self._nodes.update(
            {node.name: model.graph.by_key[key] for node, key in zip(arguments, model.graph.inputs, strict=True)}
        )

    def constant(self, path: str) -> Any:  # noqa: ANN401 - tensors, and what else a program keeps
        """Return what a ``get_attr`` node of the module fetches: the model's current weight where it has one."""
        if path not in self._values:
            owner, _, leaf = path.rpartition(".")
            return getattr(self.module.get_submodule(owner), leaf)
        if path not in self._tensors:
            self._tensors[path] = _tensor(self._values[path])
        return self._tensors[path]

    def run(
        self, inputs: Sample, *, compute: Compute | None = None, observe: Observe | None = None
    ) -> tuple[np.ndarray, ...]:
        """Run one batch.

        Args:
            inputs: arrays in the order of the model's inputs.
            compute: called before each node with the tensors that flow in (order of ``Node.inputs``);
                what it returns is the node's value; None leaves the node to PyTorch.
            observe: called with each node's value, inputs too; what it returns replaces the value.

        Returns:
            The outputs, in the order of the model's outputs.
        """
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
        with torch.no_grad():
            result = _interpreter(self, compute, observe).run(*tensors)
        flat = result if isinstance(result, tuple | list) else (result,)
        return tuple(value.numpy() for value in _tensors(flat))


def _unlifted(program: ExportedProgram) -> fx.GraphModule:
    """Return the program as a module whose ops do not change their arguments."""
    if program not in _modules:
        module = program.module(check_guards=False)
        without_writes(module)
        _modules[program] = module
    return _modules[program]


def _tensor(array: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _tensors(values: Any) -> list[Any]:  # noqa: ANN401 - nested outputs
    found: list[Any] = []
    for value in values.values() if isinstance(values, dict) else values:
        found += [value] if hasattr(value, "numpy") else _tensors(value)
    return found


def _interpreter(executor: Executor, compute: Compute | None, observe: Observe | None) -> fx.Interpreter:
    import torch
    from torch import fx

    nodes = executor._nodes  # noqa: SLF001 - the executor's other half
    names = {node.key: name for name, node in nodes.items()}

    class Interpreter(fx.Interpreter):
        def fetch_attr(self, target: str) -> Any:  # noqa: ANN401 - torch's signature
            return executor.constant(target)

        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - torch's signature
            node = nodes.get(n.name)
            value: Any = None
            if node is not None and compute is not None and n.op == "call_function":
                by_name = {used.name: used for used in n.all_input_nodes}
                flowing = tuple(self.env[by_name[names[key]]] for key in node.inputs)
                value = compute(node, flowing)
            if value is None:
                value = super().run_node(n)
            if node is not None and observe is not None and isinstance(value, torch.Tensor):
                replaced = observe(node, value)
                value = value if replaced is None else replaced
            return value

    return Interpreter(executor.module)
