"""Block reconstruction: what a block of layers gives is trained to come near to float, roundings and scales at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Encodings
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.base.progress import Event, steps
from haversack.compress.prepare.adaround import Adaround
from haversack.compress.prepare.by_outputs import mendable
from haversack.compress.prepare.contract import PrepareContext, PrepareStep
from haversack.compress.prepare.learnt import Learnt, Stored
from haversack.compress.prepare.means import Wanted, mean_output, tell_few
from haversack.tools.data.stock import Stock
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.segments import Alive, Hooks, Segments, encoded
from haversack.tools.graph.simulate import Arrival, stored_weight
from haversack.tools.numerics.affine import dequantize
from haversack.tools.numerics.soft_rounding import beta

if TYPE_CHECKING:
    import torch

START = Adaround()
"""Its integers are what a block begins with."""
BATCH = 16
HELD = 4
"""One in so many batches is held back from training and judges it."""
PENALTY = 1000.0
"""What it costs where all roundings are undecided, of the error that the block begins with."""


@dataclass(frozen=True)
class BlockReconstruction(PrepareStep):
    """Rounds as adaround does, and trains block after block to give what the float block gives.

    Li et al. 2021 (arXiv:2102.05426): a block reaches from one place of the graph where a single tensor is alive to
    another, so a residual block is whole; it has at most ``layers`` weights, or is one that cannot be cut. In each,
    Adam trains on its inputs as they arrive, behind the blocks before it: for each weight whether it stays at its code
    or goes to the next one towards float (soft roundings, arXiv:2004.10568), the biases, and a factor of at most
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
    rate: float = 0.05
    megabytes: float = 1000.0
    layers: int = 3

    def __post_init__(self) -> None:
        if min(self.samples, self.epochs, self.layers) < 1 or not min(self.rate, self.megabytes) > 0:
            text = f"{self.samples}, {self.epochs}, {self.rate}, {self.megabytes} and {self.layers}"
            raise ValueError(f"samples, epochs, rate, megabytes and layers must be positive, not {text}")

    def _inner(self, model: Model, context: PrepareContext) -> Model:
        encodings = context.encodings
        assert encodings is not None, "the contract checks that they are there"
        nodes = mendable(model, encodings)
        if not nodes:
            return model
        blocks = _blocks(Segments(model), list(nodes.values()), self.layers)
        stock = Stock.of(model.inputs, context.samples)
        batches = _fitting(model, blocks, stock, self.samples, self.megabytes)
        work = _Reconstruction(self, model, context, blocks, batches)
        changed = work.weights()
        rows = sum(batch[0].shape[0] for batch in batches)
        tell_few(rows, Wanted(self.samples, stock.total, self.megabytes), context.tell)
        text = f"{work.kept} of {counted(work.trained, 'block')} came nearer to float by training"
        context.sink(Event("compress", "note", f"{text}, on samples that they were not trained on"))
        return model.with_weights(changed, f"{self.name}: {text}, {counted(rows, 'sample')}")


@dataclass(frozen=True)
class _Block:
    """A span of steps, and the layers that are rounded there, in execution order."""

    span: range
    nodes: tuple[Node, ...]


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


def _fitting(model: Model, blocks: Sequence[_Block], stock: Stock, rows: int, megabytes: float) -> list[Sample]:
    """Return batches, as many as fit, evenly spread: what is alive before and behind a block, in integers and float."""
    import torch

    segments, count = Segments(model), -(-rows // BATCH)
    for batch in islice(rebatch(model, stock.take(count, BATCH), BATCH), 1):
        with torch.no_grad():
            alive, sizes = segments.start(batch, Hooks()), list[int]()
            sizes.append(_bytes(alive))
            for block in blocks:
                alive = segments.run(block.span, alive, Hooks())
                sizes.append(_bytes(alive))
        held = 2 * max(map(sum, pairwise(sizes))) / max(1, len(batch[0]))
        if stock.rows(count, BATCH) * held > megabytes * 1e6:
            count = max(1, min(count, int(megabytes * 1e6 / held) // max(BATCH, len(batch[0]))))
    return list(rebatch(model, stock.take(count, BATCH), BATCH))


def _bytes(alive: Alive) -> int:
    return sum(value.numel() * value.element_size() for value in alive.values() if hasattr(value, "numel"))


class _Reconstruction:
    """One pass over all blocks: how layers are stored, and what is alive before the block at hand, by batch."""

    def __init__(
        self,
        step: BlockReconstruction,
        model: Model,
        context: PrepareContext,
        blocks: Sequence[_Block],
        batches: Sequence[Sample],
    ) -> None:
        assert context.encodings is not None, "the contract checks that they are there"
        self.step, self.model, self.context, self.encodings = step, model, context, context.encodings
        self.segments = Segments(model)
        self.blocks, self.batches = blocks, batches
        self.constants = _as_stored(model, context.encodings)
        self.stored: dict[str, Stored] = {}
        self.changed: dict[str, np.ndarray] = {}
        self.kept = self.trained = 0

    def weights(self) -> dict[str, np.ndarray]:
        """Go through all blocks and return the new weights and biases, float32 by parameter name."""
        import torch

        with torch.no_grad():
            arriving = [self.segments.start(batch, self._hooks()) for batch in self.batches]
            exact = [self.segments.start(batch, Hooks()) for batch in self.batches]
        told = steps(self.blocks, self.context.sink, "compress", "blocks brought near to float", len(self.blocks))
        for seed, block in enumerate(told):
            with torch.no_grad():
                for node in block.nodes:
                    self._round(block, node, arriving, exact)
                exact = [self.segments.run(block.span, alive, Hooks()) for alive in exact]
            self._learn(block, list(zip(arriving, exact, strict=True)), seed)
            with torch.no_grad():
                arriving = [self.segments.run(block.span, alive, self._hooks()) for alive in arriving]
        return self.changed

    def _hooks(self, over: Mapping[str, torch.Tensor] | None = None) -> Hooks:
        return encoded(self.encodings, {**self.constants, **(over or {})})

    def _round(self, block: _Block, node: Node, arriving: Sequence[Alive], exact: Sequence[Alive]) -> None:
        """Round a layer by its outputs, as the part that this one starts from does, behind the layers before it."""
        before = range(block.span.start, self.segments.readers[node.key])
        made, twin = (
            _Inputs(self.segments, node, before, alive, hooks)
            for alive, hooks in ((arriving, self._hooks()), (exact, Hooks()))
        )
        weight, bias = (self.model.weights[str(name)] for name in (node.weight, node.bias))
        encoding = self.encodings.affine(f"{node.key}:weight")
        values = stored_weight(self.model, self.encodings, node)
        assert values is not None, "layers that are rounded have integers or a palette"
        wanted = mean_output(node, weight, twin) + bias
        if encoding is not None:
            found = START.rounded(node, weight, encoding, Arrival(made, twin), self.context)
            values = dequantize(found.codes, found.encoding)
        mended = (wanted - mean_output(node, values, made)).astype(np.float32)
        self._keep({str(node.weight): values, str(node.bias): mended} if encoding else {str(node.bias): mended})
        if encoding is not None and self.encodings.affine(f"{node.inputs[0]}:out") is not None:
            self.stored[node.key] = Stored(found.encoding, found.codes, mended)

    def _keep(self, values: Mapping[str, np.ndarray]) -> None:
        import torch

        self.changed |= values
        self.constants |= {name: torch.from_numpy(value) for name, value in values.items()}

    def _learn(self, block: _Block, pairs: Sequence[tuple[Alive, Alive]], seed: int) -> None:
        """Train a block's layers, and keep what they learnt where the batches that were held back say so.

        Args:
            block: its layers are rounded.
            pairs: for each batch, what is alive before the block, and what is alive behind it in float.
            seed: of the order of batches.
        """
        nodes = [node for node in block.nodes if node.key in self.stored]
        held = list(pairs[HELD - 1 :: HELD] or pairs[1:][-1:])
        fitted = [pair for index, pair in enumerate(pairs) if index % HELD != HELD - 1]
        fitted = fitted if len(pairs) >= HELD else fitted[:-1]
        if not nodes or not held:
            return  # a single batch judges nothing but itself
        self.trained += 1
        before = self._error(block, held, self._hooks())
        free = self.context.rescale is not None
        learnt = [Learnt(one, self.stored[one.key], self.model.weights[str(one.weight)], scales=free) for one in nodes]
        if not before > 0 or not self._train(block, learnt, fitted, before, seed):
            return
        made = {one.node.key: one.hardened() for one in learnt}
        values = {name: value for one in learnt for name, value in made[one.node.key].values(one.node).items()}
        if self._error(block, held, self._hooks({name: _tensor(value) for name, value in values.items()})) < before:
            self.kept += 1
            self._keep(values)
            for key, one in made.items():
                if self.context.rescale is not None and (one.encoding.scale != self.stored[key].encoding.scale).any():
                    self.context.rescale(f"{key}:weight", one.encoding.scale)

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
            squares = _squares(self.segments.run(block.span, alive, self._hooks(over)), exact, alive).values()
            if not any(size for _, size in squares) or not any(off.requires_grad for off, _ in squares):
                continue
            loss, exponent = _fraction(list(squares)), beta(count / len(order))
            if exponent is not None:
                parts = [layer.penalty(exponent) for layer in learnt]
                total = max(1, sum(number for _, number in parts))
                loss = loss + PENALTY * error * torch.stack([part for part, _ in parts]).sum() / total
            optimizer.zero_grad()
            try:
                loss.backward()
            except RuntimeError:  # PyTorch's word for an operation without a derivative
                return False
            optimizer.step()
        return True

    def _error(self, block: _Block, pairs: Sequence[tuple[Alive, Alive]], hooks: Hooks) -> float:
        """Return the squared error of what a block gives, as a fraction of its squares in float (see ``_fraction``)."""
        import torch

        with torch.no_grad():
            found = [_squares(self.segments.run(block.span, alive, hooks), exact, alive) for alive, exact in pairs]
        names = found[0] if found else {}
        return float(
            _fraction([(sum(float(each[n][0]) for each in found), sum(each[n][1] for each in found)) for n in names])
        )


@dataclass(frozen=True)
class _Inputs:
    """What arrives at a layer within a block, batch by batch, computed as often as asked for."""

    segments: Segments
    node: Node
    span: range
    before: Sequence[Alive]
    hooks: Hooks

    def __iter__(self) -> Iterator[torch.Tensor]:
        for alive in self.before:
            yield self.segments.read(self.node, self.segments.run(self.span, alive, self.hooks), self.hooks)


def _as_stored(model: Model, encodings: Encodings) -> dict[str, torch.Tensor]:
    """Return the weights of all layers that are not float32, as they are stored, by parameter name."""
    found = {str(node.weight): stored_weight(model, encodings, node) for node in model.graph.nodes if node.weight}
    return {name: _tensor(value) for name, value in found.items() if value is not None}


def _tensor(value: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(value)


def _squares(made: Alive, exact: Alive, before: Alive) -> dict[str, tuple[torch.Tensor, float]]:
    """Return for each tensor that a span made its squared error, float32 [], and the squares of that in float."""
    import torch

    return {
        name: ((value - exact[name]).square().sum(), float(exact[name].double().square().sum()))
        for name, value in made.items()
        if name not in before and isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def _fraction(squares: Sequence[tuple[Any, float]]) -> Any:  # noqa: ANN401 - a tensor where it is differentiated
    """Return the mean over tensors of squared errors as fractions of squares: each counts by its own size.

    A tensor of zeros is held against the squares of all, as in ``numerics.relative``; nothing made is no error.
    """
    whole = max(sum(size for _, size in squares), float(np.finfo(np.float32).tiny))
    return sum(off / (size or whole) for off, size in squares) / max(1, len(squares))
