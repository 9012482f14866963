"""Who runs how: the law of encodings applied to each unit of a graph, and the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.targets.reference import grid, symmetric
from haversack.targets.reference.combine import IntegerAdd, IntegerMean
from haversack.targets.reference.layer import DynamicLayer, GroupedLayer, IntegerLayer, StoredLayer, StoredTable
from haversack.targets.reference.refusals import refusals
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.roles import Role, Unit, clamp_bounds, role, units
from haversack.tools.numerics import affine, blocks, palette

if TYPE_CHECKING:
    import torch

Kernel = Callable[..., "torch.Tensor"]


class Interpreter:
    """A model with its encodings, ready to run.

    Args:
        model: the canonical model; its current weights count.
        encodings: for its tensors.
        integer_ops: see ``Reference``.
        at_once: see ``Reference``.
        arithmetic: see ``Reference``.

    Attributes:
        separable: whether rows of a batch can be computed apart without changing a value.

    Raises:
        ConversionError: encodings that cannot be executed, all of them at once.
    """

    def __init__(
        self,
        model: Model,
        encodings: Encodings,
        integer_ops: frozenset[str] | None = None,
        at_once: int = 4,
        arithmetic: str = "law",
    ) -> None:
        if faults := refusals(model, encodings):
            raise ConversionError(
                "the reference cannot execute these encodings",
                where=model.name,
                faults=faults,
                next_step="write the encodings again from the plan",
            )
        self.model, self.encodings, self.symmetric = model, encodings, arithmetic == "symmetric"
        self.integer_ops = frozenset(n.op for n in model.graph.nodes) if integer_ops is None else integer_ops
        self.separable = _separable(model, encodings)
        self.at_once = at_once if self.separable else 0
        self.executor = Executor(model)
        self.kernels: dict[str, Kernel] = {}
        self.whole: set[str] = set()
        self.silent: set[str] = set()
        for unit in units(model.graph):
            self._place(unit)

    @property
    def integer_nodes(self) -> frozenset[str]:
        """Node keys of all that run in integers (a fused clamp with its head), or only move them."""
        return frozenset(self.whole)

    def run(
        self,
        inputs: Sample,
        *,
        observe: Callable[[str, np.ndarray], None] | None = None,
        given: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Run one batch.

        Args:
            inputs: arrays in the order of the model's inputs, batch first.
            observe: called with the tensor key and float value of everything computed, in execution order and for
                each piece of the batch anew; a clamp fused in integers hides the output of its head. The array is
                valid during the call only.
            given: tensor key -> float32 values that flow on in place of those computed, so that what reads them starts
                anew from there; ``observe`` still sees what was computed. Values of another shape are not taken. With
                it the batch is not cut.

        Returns:
            The outputs in order, dequantized.
        """

        def hook(node: Node, value: torch.Tensor) -> torch.Tensor:
            value = self._encoded(node, value)
            if observe is not None and node.key not in self.silent:
                observe(node.out, value.numpy())
            return _restarted(value, given.get(node.out)) if given else value

        cut = [inputs] if given else self.pieces(inputs)
        pieces = [self.executor.run(piece, compute=self._compute, observe=hook) for piece in cut]
        return pieces[0] if len(pieces) == 1 else tuple(np.concatenate(each) for each in zip(*pieces, strict=True))

    def pieces(self, inputs: Sample) -> Iterator[Sample]:
        """Yield the batch in pieces of at most ``at_once`` rows, or whole where cutting could change a value."""
        rows = len(inputs[0]) if self.at_once else 0
        if rows <= self.at_once:
            yield inputs
            return
        for start in range(0, rows, self.at_once):
            yield tuple(array[start : start + self.at_once] for array in inputs)

    def _compute(self, node: Node, flowing: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        kernel = self.kernels.get(node.key)
        return None if kernel is None else kernel(*flowing)

    def _encoded(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        """Return a node's value as its encoding holds it."""
        encoding = self.encodings.tensors.get(node.out)
        if node.key in self.whole or encoding is None:
            return value
        if isinstance(encoding, Affine):
            return symmetric.snap(value, encoding) if self.symmetric else grid.snap(value, encoding)
        return value.half().float() if encoding == Float("float16") else value

    def _place(self, unit: Unit) -> None:
        """Give a unit its kernel, if it is not left to PyTorch."""
        node = unit.head
        if runs_in_integers(unit, self.encodings, self.integer_ops):
            self.whole.add(node.key)
            if role(node) not in (Role.SAME, Role.CONCAT):  # these move values, as PyTorch does
                self.kernels[node.key] = self._integer_kernel(unit)
            if unit.clamp is not None:
                self.kernels[unit.clamp.key] = _passed
                self.whole.add(unit.clamp.key)
                self.silent.add(node.key)
        elif (stored := self._stored_kernel(node)) is not None:
            self.kernels[node.key] = stored

    def _integer_kernel(self, unit: Unit) -> Kernel:
        """Return the kernel of a layer, add or mean whose tensors are all Affine."""
        node, tensors = unit.head, self.encodings.tensors
        out, *sources = (cast("Affine", tensors[key]) for key in (unit.out, *(f"{key}:out" for key in node.inputs)))
        bounds = clamp_bounds(unit.clamp) if unit.clamp is not None else None
        if role(node) is Role.ADD:
            return self._limited(IntegerAdd((sources[0], sources[1]), out, bounds))
        if role(node) is Role.MEAN:
            return self._limited(IntegerMean(node, sources[0], out, bounds))
        key = f"{node.key}:weight"
        weight, codes = cast("Affine", tensors[key]), self.encodings.integers[key]
        layer = symmetric.SymmetricLayer if self.symmetric else IntegerLayer
        return layer(node, codes, self._bias(node), source=sources[0], weight=weight, out=out, bounds=bounds)

    def _limited(self, kernel: IntegerAdd | IntegerMean) -> Kernel:
        """Return an add or mean that ends where the runtime's codes do; without ties both ways of rounding agree."""
        low, high = kernel.limits
        kernel.limits = (max(low, -symmetric.TOP), min(high, symmetric.TOP)) if self.symmetric else (low, high)
        return kernel

    def _stored_kernel(self, node: Node) -> Kernel | None:
        """Return the kernel of a float node with an encoded weight, or None."""
        key = f"{node.key}:weight"
        encoding = self.encodings.tensors.get(key)
        if encoding is None or encoding == Float("float32"):
            return None
        if isinstance(encoding, Affine):
            codes = self.encodings.integers[key]
            dynamic = self.encodings.tensors.get(f"{node.key}:in")
            if isinstance(dynamic, Dynamic):
                return DynamicLayer(node, codes, self._bias(node), weight=encoding, bits=dynamic.bits)
            values = affine.dequantize(codes, encoding)
        elif isinstance(encoding, BlockAffine):
            values = blocks.values(self.encodings.integers[key], encoding)
            dynamic = self.encodings.tensors.get(f"{node.key}:in")
            if isinstance(dynamic, Dynamic):
                return GroupedLayer(node, values, self._bias(node), dynamic.bits)
        elif isinstance(encoding, Codebook):
            values = palette.values(self.encodings.integers[key], encoding)
        else:
            values = self.model.weights[node.weight or ""].astype(np.float16).astype(np.float32)
        return StoredTable(values) if role(node) is Role.EMBEDDING else StoredLayer(node, values, self._bias(node))

    def _bias(self, node: Node) -> np.ndarray | None:
        return None if node.bias is None else self.model.weights[node.bias]


def _restarted(value: torch.Tensor, given: np.ndarray | None) -> torch.Tensor:
    """Return the values given for a tensor, or what was computed."""
    if given is None or given.shape != tuple(value.shape):
        return value
    return value.new_tensor(given)


def _passed(value: torch.Tensor) -> torch.Tensor:
    """Return what the head of the unit has limited already."""
    return value


def _separable(model: Model, encodings: Encodings) -> bool:
    """Say whether rows of a batch can be computed apart: one free batch dimension, no scale that the batch decides."""
    first = {port.spec.shape[0] if port.spec.shape else None for port in (*model.inputs, *model.outputs)}
    free = len(first) == 1 and all(isinstance(size, str) for size in first)
    return free and not any(isinstance(encoding, Dynamic) for encoding in encodings.tensors.values())
