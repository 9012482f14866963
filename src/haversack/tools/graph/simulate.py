"""Simulating encodings in float32: the law of ``base/encodings`` without its integer sums, fast, unit by unit.

Values are rounded to their codes wherever the law says so, but sums are taken in float32 and biases are not rounded:
right up to rare neighbouring codes. What the integers are exactly is ``targets/reference``'s to say; this serves
where many passes are needed to compare alternatives. All batches go through a unit before the next unit starts, so a
caller may look at what arrives at a layer over all samples, and mend the layer before it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encoding, Encodings, Float
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics import blocks, palette
from haversack.tools.numerics.affine import dequantize, from_range

if TYPE_CHECKING:
    import torch
    from torch import fx


@dataclass(frozen=True)
class Mended:
    """What replaces a layer's parameters in a run, float32 in their shapes; None leaves them."""

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class Arrival:
    """What arrives at a layer, batch by batch, float32; both can be iterated many times.

    Attributes:
        inputs: under the encodings of the run, behind layers that were mended.
        exact: in the run beside it, or None where there is none.
    """

    inputs: Iterable[torch.Tensor]
    exact: Iterable[torch.Tensor] | None = None

    def both(self) -> tuple[Iterable[torch.Tensor], Iterable[torch.Tensor]]:
        """Return the inputs and the exact ones, of a run that has another beside it."""
        assert self.exact is not None, "there is a run beside this one"
        return self.inputs, self.exact


Arrive = Callable[[Node, Arrival], "Mended | None"]
"""Called before each layer with what arrives there; it may mend the layer."""
Join = Callable[[], Iterable[Sample]]
"""Reads batches that join a run on the way."""


def stored_weight(model: Model, encodings: Encodings, node: Node) -> np.ndarray | None:
    """Return the values that a node's weight has as it is stored, float32, or None for the model's own."""
    key = f"{node.key}:weight"
    encoding = encodings.tensors.get(key)
    if isinstance(encoding, Affine):
        return dequantize(encodings.integers[key], encoding)
    if isinstance(encoding, BlockAffine):
        return blocks.values(encodings.integers[key], encoding)
    if isinstance(encoding, Codebook):
        return palette.values(encodings.integers[key], encoding)
    if isinstance(encoding, Float) and encoding.dtype == "float16" and node.weight is not None:
        return model.weights[node.weight].astype(np.float16).astype(np.float32)
    return None


class Simulator:
    """Runs one model under any encodings.

    Args:
        model: its structure and weights; encodings give integers for some of the weights.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.executor = Executor(model)
        self.module = self.executor.module
        self.nodes = {node.name: node for node in model.graph.nodes}
        arguments = (node for node in self.module.graph.nodes if node.op == "placeholder")
        self.inputs = {node.name: key for node, key in zip(arguments, model.graph.inputs, strict=True)}
        self.nodes.update({name: model.graph.by_key[key] for name, key in self.inputs.items()})
        self.names = {node.key: name for name, node in self.nodes.items()}
        self.clamps = {unit.head.key: unit.clamp for unit in units(model.graph) if unit.clamp is not None}

    def run(
        self,
        encodings: Encodings,
        batches: Sequence[Sample],
        *,
        arrive: Arrive | None = None,
        beside: Encodings | None = None,
        joins: Mapping[str, Join] | None = None,
    ) -> list[tuple[np.ndarray, ...]]:
        """Run batches side by side and return their outputs, in order; those that joined come last.

        Memory: what is live at one unit, for all batches; a tensor with an 8-bit encoding takes one byte a value.

        Args:
            encodings: Affine, Dynamic, Float, Codebook and symmetric BlockAffine are simulated.
            batches: arrays in the order of the model's inputs.
            arrive: see ``Arrive``.
            beside: other encodings, under which the model is run in step with this run for ``Arrival.exact``; nothing
                is mended there. It costs a second pass and its memory.
            joins: node key, of a unit's head -> batches that join before it is computed: one by one they are run
                through what lies before it, as it was mended.
        """
        import torch

        with torch.no_grad():
            exact = None if beside is None else _Walk(self, beside, batches)
            walk = _Walk(self, encodings, batches, arrive, exact)
            return walk.outputs({self.names[key]: join for key, join in (joins or {}).items()})


@dataclass(frozen=True)
class _Codes:
    """A tensor held as codes of 8 bits."""

    codes: torch.Tensor
    scale: float
    zero_point: float

    def value(self) -> torch.Tensor:
        """Return the float32 tensor."""
        return self.codes.float().sub_(self.zero_point).mul_(self.scale)


def arriving(encodings: Encodings, node: Node, value: Any) -> Any:  # noqa: ANN401 - tensors, and sizes
    """Return what a node reads of a float tensor of any shape that flows in: quantized where its input is *Dynamic*."""
    if not isinstance(encodings.tensors.get(f"{node.key}:in"), Dynamic) or not value.is_floating_point():
        return value
    return rounded(value, from_range(float(value.min()), float(value.max())))


def rounded(value: torch.Tensor, encoding: Affine) -> torch.Tensor:
    """Return the float32 values, of any shape, that an activation has in integers of one scale."""
    return _Codes(_codes(value, encoding), float(encoding.scale), float(encoding.zero_point)).value()


class _Walk:
    """One run: what is held of every batch, by the name of the node that made it."""

    def __init__(
        self,
        simulator: Simulator,
        encodings: Encodings,
        batches: Sequence[Sample],
        arrive: Arrive | None = None,
        exact: _Walk | None = None,
        mended: dict[str, Mended] | None = None,
    ) -> None:
        self.simulator = simulator
        self.encodings = encodings
        self.batches = list(batches)
        self.count = len(self.batches)
        self.arrive = arrive
        self.exact = exact
        self.mended = {} if mended is None else mended
        self.placeholders = 0
        self.held: dict[str, list[Any]] = {}
        self.fused = {clamp.name for clamp in simulator.clamps.values()}
        self.last_use = {used.name: node.name for node in simulator.module.graph.nodes for used in node.all_input_nodes}

    def outputs(self, joins: Mapping[str, Join]) -> list[tuple[np.ndarray, ...]]:
        """Walk the whole graph; the run beside this one is a step behind, so that what arrives is still held there.

        Args:
            joins: name of a node -> batches that join before it.
        """
        for node in self.simulator.module.graph.nodes:
            if node.op == "output":
                keys = self.simulator.model.graph.outputs
                names = [self.simulator.names[key] for key in keys]
                rows = [[self._value(name, index).numpy() for name in names] for index in range(self.count)]
                return [tuple(row) for row in rows]
            for batch in joins.get(node.name, lambda: ())():
                for walk in (self, *([] if self.exact is None else [self.exact])):
                    walk._join(node, batch)  # noqa: SLF001 - another walk
            self._pass(node)
            if self.exact is not None:
                self.exact._pass(node)  # noqa: SLF001 - another walk
        raise AssertionError("a graph ends with its output")

    def _join(self, before: fx.Node, batch: Sample) -> None:
        """Run one more batch through all that lies before a node, and hold it behind the others."""
        alone = _Walk(self.simulator, self.encodings, [batch], mended=self.mended)
        for node in self.simulator.module.graph.nodes:
            if node is before:
                break
            alone._pass(node)
        for name, values in alone.held.items():
            self.held[name] += values
        self.count += 1

    def _pass(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            place = self.placeholders
            self.held[node.name] = [self._hold(node, _tensor(batch[place])) for batch in self.batches]
            self.placeholders += 1
            if self.placeholders == len(self.simulator.inputs):
                self.batches.clear()  # what is alive of them is held
        elif node.op == "call_function" and node.name not in self.fused:
            self._step(node)
        self._free(node)

    def _step(self, node: fx.Node) -> None:
        canonical = self.simulator.nodes.get(node.name)
        constants = self._constants(node, canonical)
        clamp = self.simulator.clamps.get(canonical.key) if canonical is not None else None
        clamp_node = next(user for user in node.users if user.name == clamp.name) if clamp is not None else None
        made = []
        for index in range(self.count):
            value = self._call(node, index, constants)
            if clamp_node is not None:
                value = clamp_node.target(*_with_first(clamp_node, value), **clamp_node.kwargs)  # type: ignore[operator]
            made.append(self._hold(clamp_node or node, value))
        self.held[node.name] = made
        if clamp_node is not None:
            self.held[clamp_node.name] = self.held.pop(node.name)

    def _constants(self, node: fx.Node, canonical: Node | None) -> dict[str, torch.Tensor]:
        """Return the values of the parameters that a node reads, by the name of the fx node that fetches them."""
        import torch

        found = {
            n.name: self.simulator.executor.constant(str(n.target)) for n in node.all_input_nodes if n.op == "get_attr"
        }
        if canonical is None:
            return found
        names = {str(n.target): n.name for n in node.all_input_nodes if n.op == "get_attr"}
        if canonical.weight in names:
            stored = stored_weight(self.simulator.model, self.encodings, canonical)
            if stored is not None:
                found[names[canonical.weight]] = torch.from_numpy(stored)
        if self.arrive is not None and role(canonical) is Role.LAYER:
            source = node.all_input_nodes[0].name
            exact = _Inputs(self.exact, canonical, source) if self.exact is not None else None
            mended = self.arrive(canonical, Arrival(_Inputs(self, canonical, source), exact))
            self.mended |= {} if mended is None else {canonical.key: mended}
        mended = self.mended.get(canonical.key, Mended())
        for name, value in ((canonical.weight, mended.weight), (canonical.bias, mended.bias)):
            if name is not None and value is not None:
                found[names[name]] = torch.from_numpy(np.array(value, np.float32))
        return found

    def _call(self, node: fx.Node, index: int, constants: Mapping[str, torch.Tensor]) -> Any:  # noqa: ANN401 - as op
        from torch.fx.node import map_arg

        canonical = self.simulator.nodes.get(node.name)

        def value(used: fx.Node) -> Any:  # noqa: ANN401 - tensors, and sizes
            if used.name in constants:
                return constants[used.name]
            return self._value(used.name, index) if canonical is None else self._arriving(canonical, used.name, index)

        return node.target(*map_arg(node.args, value), **map_arg(node.kwargs, value))  # type: ignore[operator]

    def _arriving(self, node: Node, name: str, index: int) -> Any:  # noqa: ANN401 - tensors, and sizes
        return arriving(self.encodings, node, self._value(name, index))

    def _value(self, name: str, index: int) -> Any:  # noqa: ANN401 - tensors, and sizes
        held = self.held[name][index]
        return held.value() if isinstance(held, _Codes) else held

    def _hold(self, node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - tensors, and sizes
        canonical = self.simulator.nodes.get(node.name)
        encoding: Encoding | None = self.encodings.tensors.get(canonical.out) if canonical is not None else None
        if not isinstance(encoding, Affine):
            return value
        held = _Codes(_codes(value, encoding), float(encoding.scale), float(encoding.zero_point))
        return held if encoding.bits == 8 and not encoding.signed else held.value()

    def _free(self, node: fx.Node) -> None:
        for used in node.all_input_nodes:
            if self.last_use[used.name] == node.name:
                self.held.pop(used.name, None)


@dataclass(frozen=True)
class _Inputs:
    """What arrives at a layer, batch by batch, as often as asked for."""

    walk: _Walk
    node: Node
    source: str

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in range(self.walk.count):
            yield self.walk._arriving(self.node, self.source, index)  # noqa: SLF001 - the walk's other half


def _codes(value: torch.Tensor, encoding: Affine) -> torch.Tensor:
    import torch

    codes = value.float().div(float(encoding.scale)).round_().add_(float(encoding.zero_point))
    codes = codes.clamp_(encoding.low, encoding.high)
    return codes.to(torch.uint8) if encoding.bits == 8 and not encoding.signed else codes


def _tensor(array: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _with_first(node: fx.Node, value: torch.Tensor) -> tuple[Any, ...]:
    return (value, *node.args[1:])
