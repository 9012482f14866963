"""Segments: spans of the canonical graph that run by themselves, with derivatives; what lives between is carried.

A graph can be cut where a single tensor is alive: what comes after depends on nothing else that was computed before. A
residual block has no such place inside, so it stays whole. Clamps run with the unit that they are fused into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from haversack.base.encodings import Affine, Dynamic, Encodings
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.tools.graph.simulate import Simulator, arriving, rounded

if TYPE_CHECKING:
    import torch
    from torch import fx

Alive = Mapping[str, Any]
"""What is alive at one place for one batch, by the name of the node that made it: tensors, and sizes."""


@dataclass(frozen=True)
class Hooks:
    """What a run lets another say; tensors are float32 in their nodes' shapes.

    Attributes:
        constant: name of a parameter -> its value, or None for the model's own.
        leaves: (node, what it gives, behind its clamp) -> what is read of that; model inputs too.
        arrives: (node, what flows in) -> what it reads of that.
    """

    constant: Callable[[str], torch.Tensor | None] = lambda _: None
    leaves: Callable[[Node, torch.Tensor], torch.Tensor] = lambda _, value: value
    arrives: Callable[[Node, Any], Any] = lambda _, value: value


def encoded(encodings: Encodings, constants: Mapping[str, torch.Tensor]) -> Hooks:
    """Return hooks that run under encodings of activations, with derivatives by straight-through estimation.

    The derivative of a rounding is taken as 1 within the range of its codes and 0 outside (Esser et al. 2020,
    arXiv:1902.08153, section 2).

    Args:
        encodings: as ``Simulator.run`` takes them; those of weights do not count here.
        constants: parameters' values that replace the model's, float32, by name.
    """

    def leaves(node: Node, value: torch.Tensor) -> torch.Tensor:
        encoding = encodings.tensors.get(node.out)
        return through(value, encoding) if isinstance(encoding, Affine) else value

    def arrives(node: Node, value: Any) -> Any:  # noqa: ANN401 - tensors, and sizes
        if not isinstance(encodings.tensors.get(f"{node.key}:in"), Dynamic) or not hasattr(value, "detach"):
            return value
        read = arriving(encodings, node, value.detach())
        return value + (read - value).detach() if value.is_floating_point() else read

    return Hooks(constants.get, leaves, arrives)


def through(value: torch.Tensor, encoding: Affine) -> torch.Tensor:
    """Return an activation of any shape as its integers have it, float32, the rounding's derivative taken as 1."""
    scale, zero_point = float(encoding.scale), float(encoding.zero_point)
    inside = value.clamp(scale * (encoding.low - zero_point), scale * (encoding.high - zero_point))
    return inside + (rounded(value.detach(), encoding) - inside.detach())


class Segments:
    """A model as steps that can be run span by span.

    Args:
        model: its structure, and the weights that hooks do not replace.
    """

    def __init__(self, model: Model) -> None:
        self._simulator = Simulator(model)
        fused = {clamp.name for clamp in self._simulator.clamps.values()}
        nodes = list(self._simulator.module.graph.nodes)
        self._steps = [node for node in nodes if node.op == "call_function" and node.name not in fused]
        self._inputs = [node for node in nodes if node.op == "placeholder"]
        self._last = self._last_uses(nodes[-1])

    def __len__(self) -> int:
        return len(self._steps)

    def _last_uses(self, output: fx.Node) -> dict[str, int]:
        """Return the step that reads each value last; what leaves the model is read behind the last step."""
        found: dict[str, int] = {}
        for index, node in enumerate(self._steps):
            clamp = self._clamp(node)
            for used in (*node.all_input_nodes, *(clamp.all_input_nodes if clamp is not None else ())):
                found[used.name] = index
        return found | {used.name: len(self._steps) for used in output.all_input_nodes}

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """How many steps lie before each place, but for both ends, where a single tensor is alive."""
        alive = {node.name: _tensors(node) for node in self._inputs}
        found = []
        for index, node in enumerate(self._steps):
            last = self._clamp(node) or node
            alive[last.name] = _tensors(last)
            alive = {name: count for name, count in alive.items() if self._last.get(name, -1) > index}
            if sum(alive.values()) == 1 and index + 1 < len(self._steps):
                found.append(index + 1)
        return tuple(found)

    @cached_property
    def readers(self) -> Mapping[str, int]:
        """Node key -> the step that computes it, its clamp with it."""
        found = {}
        for index, node in enumerate(self._steps):
            for one in (node, self._clamp(node)):
                if one is not None and one.name in self._simulator.nodes:
                    found[self._simulator.nodes[one.name].key] = index
        return found

    def start(self, batch: Sample, hooks: Hooks) -> Alive:
        """Return what is alive before the first step.

        Args:
            batch: arrays in the order of the model's inputs.
            hooks: see ``Hooks``.
        """
        import torch

        return {
            node.name: hooks.leaves(self._simulator.nodes[node.name], torch.from_numpy(array.copy()))
            for node, array in zip(self._inputs, batch, strict=True)
        }

    def run(self, span: range, alive: Alive, hooks: Hooks) -> Alive:
        """Return what is alive behind a span of steps, given what is alive before it.

        Args:
            span: steps without gaps.
            alive: what ``start`` or the run of the span before returned.
            hooks: see ``Hooks``.
        """
        values = dict(alive)
        for index in span:
            node = self._steps[index]
            clamp = self._clamp(node)
            value = self._call(node, values, hooks)
            if clamp is not None:
                value = clamp.target(value, *clamp.args[1:], **clamp.kwargs)  # type: ignore[operator]
            last = clamp or node
            canonical = self._simulator.nodes.get(last.name)
            values[last.name] = value if canonical is None else hooks.leaves(canonical, value)
            values = {name: one for name, one in values.items() if self._last.get(name, -1) > index}
        return values

    def outputs(self, alive: Alive) -> tuple[torch.Tensor, ...]:
        """Return what leaves the model, batch first in the order of its outputs, of what is alive at the end."""
        return tuple(alive[self._simulator.names[key]] for key in self._simulator.model.graph.outputs)

    def read(self, node: Node, alive: Alive, hooks: Hooks) -> torch.Tensor:
        """Return the first tensor that flows into a node, float32 of any shape, of what is alive before its step."""
        found: torch.Tensor = hooks.arrives(node, alive[self._simulator.names[node.inputs[0]]])
        return found

    def _clamp(self, node: fx.Node) -> fx.Node | None:
        canonical = self._simulator.nodes.get(node.name)
        clamp = self._simulator.clamps.get(canonical.key) if canonical is not None else None
        return next(user for user in node.users if user.name == clamp.name) if clamp is not None else None

    def _call(self, node: fx.Node, values: Alive, hooks: Hooks) -> Any:  # noqa: ANN401 - tensors, and sizes
        from torch.fx.node import map_arg

        canonical = self._simulator.nodes.get(node.name)

        def value(used: fx.Node) -> Any:  # noqa: ANN401 - tensors, and sizes
            if used.op == "get_attr":
                found = hooks.constant(str(used.target))
                return self._simulator.executor.constant(str(used.target)) if found is None else found
            return values[used.name] if canonical is None else hooks.arrives(canonical, values[used.name])

        return node.target(*map_arg(node.args, value), **map_arg(node.kwargs, value))  # type: ignore[operator]


def _tensors(node: fx.Node) -> int:
    """Return how many tensors a node makes, 2 for any tuple: sizes are none."""
    import torch

    made = node.meta.get("val")
    return 1 if isinstance(made, torch.Tensor) else 2 * isinstance(made, tuple | list)
