"""Block reconstruction: what a block of layers gives is trained to come near to float, roundings and scales at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Encodings
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.base.progress import Event, steps
from haversack.compress.prepare.contract import PrepareContext, PrepareStep, only_reader
from haversack.compress.prepare.gptq import Gptq
from haversack.compress.prepare.learnt import Learnt, Stored
from haversack.compress.prepare.means import correctable
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.segments import Alive, Hooks, Segments, encoded
from haversack.tools.graph.simulate import stored_weight
from haversack.tools.numerics.affine import quantize
from haversack.tools.numerics.soft_rounding import beta

if TYPE_CHECKING:
    import torch

BATCH = 16
HELD = 4
"""One in so many batches is held back from training and judges it."""
PENALTY = 0.1
"""What all roundings undecided cost, of the error that the block begins with."""


@dataclass(frozen=True)
class BlockReconstruction(PrepareStep):
    """Rounds as gptq does, then trains block after block to give what the float block gives.

    Li et al. 2021 (arXiv:2102.05426): a block reaches from one place of the graph where a single tensor is alive to
    another, so a residual block is whole; it has at most ``layers`` weights, or is one that cannot be cut. In each,
    Adam trains on its inputs as they arrive, behind the blocks before it: for each weight whether it stays at gptq's
    code or goes to the next one towards float (soft roundings, arXiv:2004.10568), the biases, and a factor of at most
    a tenth for each scale (Esser et al. 2020, arXiv:1902.08153). A quarter of the batches is held back: a block keeps
    what it learnt only where that brings its outputs nearer to float on these. Only layers that run in integers with
    fixed scales are trained. Float copies of what is alive between two blocks are held for all samples.

    Attributes:
        samples: rows of calibration samples at most.
        epochs: how often each batch is seen.
        rate: Adam's, for all that is learnt.
        megabytes: memory that what is alive between blocks may take; fewer rows where it does not fit.
        layers: weights of a block at most, where it can be cut.

    Raises:
        ValueError: a setting is not positive.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encodings"})
    leaves: ClassVar[frozenset[str]] = frozenset({"graph"})
    samples: int = 1024
    epochs: int = 20
    rate: float = 0.02
    megabytes: float = 1000.0
    layers: int = 3

    def __post_init__(self) -> None:
        if min(self.samples, self.epochs, self.layers) < 1 or not min(self.rate, self.megabytes) > 0:
            text = f"{self.samples}, {self.epochs}, {self.rate}, {self.megabytes} and {self.layers}"
            raise ValueError(f"samples, epochs, rate, megabytes and layers must be positive, not {text}")

    def _inner(self, model: Model, context: PrepareContext) -> Model:
        encodings = context.encodings
        assert encodings is not None, "the contract checks that they are there"
        if not correctable(model, encodings):
            return model
        start = Gptq(samples=self.samples, megabytes=self.megabytes).apply(model, context)
        changed = {name: value for name, value in start.weights.items() if value is not model.weights[name]}
        blocks = _blocks(Segments(model), _trainable(model, encodings), self.layers)
        batches = _fitting(model, blocks, context, self.samples, self.megabytes)
        work = _Reconstruction(self, model, start, context, blocks, batches)
        changed |= work.weights()
        rows = sum(batch[0].shape[0] for batch in batches)
        text = f"{work.kept} of {counted(work.trained, 'block')} came nearer to float than by gptq"
        context.sink(Event("compress", "note", f"{text}, on samples that they were not trained on"))
        return model.with_weights(changed, f"{self.name}: {text}, {counted(rows, 'sample')}")


@dataclass(frozen=True)
class _Block:
    """A span of steps, and the layers that are trained there."""

    span: range
    nodes: tuple[Node, ...]


def _trainable(model: Model, encodings: Encodings) -> list[Node]:
    """Return the layers that run in integers with fixed scales, with a weight and a bias that nobody else reads."""
    return [
        node
        for node in correctable(model, encodings).values()
        if encodings.affine(f"{node.key}:weight") is not None
        and encodings.affine(f"{node.inputs[0]}:out") is not None
        and only_reader(model, node, str(node.weight))
    ]


def _blocks(segments: Segments, nodes: Sequence[Node], most: int) -> list[_Block]:
    """Return the whole graph as blocks between its cuts, merged while they have no more than so many layers."""
    found: list[_Block] = []
    ends = (0, *segments.cuts, len(segments))
    for first, stop in pairwise(ends):
        mine = tuple(node for node in nodes if segments.readers[node.key] in range(first, stop))
        last = found[-1] if found else None
        if last is not None and (not mine or len(last.nodes) + len(mine) <= most):
            found[-1] = _Block(range(last.span.start, stop), (*last.nodes, *mine))
        else:
            found.append(_Block(range(first, stop), mine))
    return found


def _fitting(
    model: Model, blocks: Sequence[_Block], context: PrepareContext, rows: int, megabytes: float
) -> list[Sample]:
    """Return calibration batches, as many as fit: what is alive before and behind a block, in integers and float."""
    import torch

    segments, found, taken, held = Segments(model), list[Sample](), 0, 0.0
    for batch in islice(rebatch(model, context.samples(), BATCH), -(-rows // BATCH)):
        if not held:
            with torch.no_grad():
                alive, sizes = segments.start(batch, Hooks()), list[int]()
                sizes.append(_bytes(alive))
                for block in blocks:
                    alive = segments.run(block.span, alive, Hooks())
                    sizes.append(_bytes(alive))
            held = 2 * max(map(sum, pairwise(sizes))) / max(1, len(batch[0]))
        taken += len(batch[0])
        if found and taken * held > megabytes * 1e6:
            break
        found.append(batch)
    return found


def _bytes(alive: Alive) -> int:
    return sum(value.numel() * value.element_size() for value in alive.values() if hasattr(value, "numel"))


class _Reconstruction:
    """One pass over all blocks: how layers are stored, and what is alive before the block at hand, by batch."""

    def __init__(
        self,
        step: BlockReconstruction,
        model: Model,
        start: Model,
        context: PrepareContext,
        blocks: Sequence[_Block],
        batches: Sequence[Sample],
    ) -> None:
        assert context.encodings is not None, "the contract checks that they are there"
        self.step, self.model, self.context, self.encodings = step, model, context, context.encodings
        self.segments = Segments(model)
        self.blocks, self.batches = blocks, batches
        self.stored: dict[str, Stored] = {}
        self.constants = _constants(model, start, context.encodings)
        self.begun = {node.key: _begun(start, context.encodings, node) for block in blocks for node in block.nodes}
        self.kept = self.trained = 0

    def weights(self) -> dict[str, np.ndarray]:
        """Go through all blocks and return what changes against their start, float32 by parameter name."""
        import torch

        with torch.no_grad():
            arriving = [self.segments.start(batch, self._hooks()) for batch in self.batches]
            exact = [self.segments.start(batch, Hooks()) for batch in self.batches]
        busy = sum(bool(block.nodes) for block in self.blocks)
        told = steps(range(busy), self.context.sink, "compress", "blocks brought near to float", busy)
        for seed, block in enumerate(self.blocks):
            with torch.no_grad():
                exact = [self.segments.run(block.span, alive, Hooks()) for alive in exact]
            if block.nodes:
                next(told)
                self._learn(block, arriving, exact, seed)
            with torch.no_grad():
                arriving = [self.segments.run(block.span, alive, self._hooks()) for alive in arriving]
        next(told, None)
        return self._changes()

    def _hooks(self, over: Mapping[str, torch.Tensor] | None = None) -> Hooks:
        return encoded(self.encodings, {**self.constants, **(over or {})})

    def _learn(self, block: _Block, arriving: Sequence[Alive], exact: Sequence[Alive], seed: int) -> None:
        """Train a block, and keep what it learnt where the batches that were held back say so."""
        held = list(range(len(arriving)))[HELD - 1 :: HELD] or list(range(len(arriving)))[1:][-1:]
        fitted = [index for index in range(len(arriving)) if index not in held]
        if not held:
            return  # a single batch judges nothing but itself
        self.trained += 1
        pairs = [(arriving[index], exact[index]) for index in range(len(arriving))]
        judges = [pairs[index] for index in held]
        before = self._error(block, judges, self._hooks())
        learnt = [
            Learnt(
                node,
                self.begun[node.key],
                self.model.weights[str(node.weight)],
                scales=self.context.rescale is not None,
            )
            for node in block.nodes
        ]
        if not before > 0 or not self._train(block, learnt, [pairs[index] for index in fitted], before, seed):
            return
        made = {one.node.key: one.hardened() for one in learnt}
        over = {name: value for one in learnt for name, value in _tensors(one.node, made[one.node.key]).items()}
        if self._error(block, judges, self._hooks(over)) < before:
            self.kept += 1
            self.stored |= made
            self.constants |= over

    def _train(
        self, block: _Block, learnt: Sequence[Learnt], pairs: Sequence[tuple[Alive, Alive]], error: float, seed: int
    ) -> bool:
        """Train a block's layers in place; say whether that was possible: not where there is no derivative."""
        import torch

        optimizer = torch.optim.Adam([one for layer in learnt for one in layer.numbers()], lr=self.step.rate)
        drawn = np.random.default_rng(seed)
        order = [index for _ in range(self.step.epochs) for index in drawn.permutation(len(pairs))]
        for count, index in enumerate(order):
            alive, exact = pairs[index]
            over = {name: value for layer in learnt for name, value in layer.soft().items()}
            off, size = _squares(self.segments.run(block.span, alive, self._hooks(over)), exact, alive)
            if size == 0 or not off.requires_grad:
                continue
            loss, exponent = off / size, beta(count / len(order))
            if exponent is not None:
                parts = [layer.penalty(exponent) for layer in learnt]
                total = max(1, sum(number for _, number in parts))
                loss = loss + PENALTY * error * torch.stack([part for part, _ in parts]).sum() / total
            optimizer.zero_grad()
            try:
                loss.backward()  # type: ignore[no-untyped-call]
            except RuntimeError:  # PyTorch's word for an operation without a derivative
                return False
            optimizer.step()
        return True

    def _error(self, block: _Block, pairs: Sequence[tuple[Alive, Alive]], hooks: Hooks) -> float:
        """Return the squared error of what a block gives, as a fraction of its squares in float."""
        import torch

        with torch.no_grad():
            found = [_squares(self.segments.run(block.span, alive, hooks), exact, alive) for alive, exact in pairs]
        return sum(float(off) for off, _ in found) / max(
            sum(size for _, size in found), float(np.finfo(np.float32).tiny)
        )

    def _changes(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for key, made in self.stored.items():
            node, before = self.model.graph.by_key[key], self.begun[key]
            if self.context.rescale is not None and (made.encoding.scale != before.encoding.scale).any():
                self.context.rescale(f"{key}:weight", made.encoding.scale)
            found |= {str(node.weight): made.weight(), str(node.bias): made.bias}
        return found


def _begun(start: Model, encodings: Encodings, node: Node) -> Stored:
    encoding = encodings.affine(f"{node.key}:weight")
    assert encoding is not None, "trained layers have integers"
    weight, bias = start.weights[str(node.weight)], start.weights[str(node.bias)]
    return Stored(encoding, quantize(weight, encoding), bias)


def _constants(model: Model, start: Model, encodings: Encodings) -> dict[str, torch.Tensor]:
    """Return what gptq changed, and the weights of all other layers as they are stored, float32 by parameter name."""
    import torch

    found: dict[str, np.ndarray] = {}
    for node in model.graph.nodes:
        stored = stored_weight(model, encodings, node) if node.weight else None
        if stored is not None:
            found[str(node.weight)] = stored
    found |= {name: value for name, value in start.weights.items() if value is not model.weights[name]}
    return {name: torch.from_numpy(value.copy()) for name, value in found.items()}


def _tensors(node: Node, made: Stored) -> dict[str, torch.Tensor]:
    import torch

    return {str(node.weight): torch.from_numpy(made.weight()), str(node.bias): torch.from_numpy(made.bias)}


def _squares(made: Alive, exact: Alive, before: Alive) -> tuple[torch.Tensor, float]:
    """Return the squared error of what a span made, float32 [], and the squares of that in float."""
    import torch

    off, size = torch.zeros(()), 0.0
    for name, value in made.items():
        if name not in before and isinstance(value, torch.Tensor) and value.is_floating_point():
            off = off + (value - exact[name]).square().sum()
            size += float(exact[name].double().square().sum())
    return off, size
