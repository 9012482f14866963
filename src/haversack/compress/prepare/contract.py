"""What a preparation step is: it takes a float model and returns another; the public method checks both.

An author writes ``_inner`` and says what the step needs and what it leaves unchanged; the check after every step
holds it to that.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.errors import UsageError, VerificationError
from haversack.base.finding import Finding
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.base.progress import Sink, silent
from haversack.base.shelf import Shelf
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.execute import Executor
from haversack.tools.numerics.relative import Errors

SHELF = Shelf(
    "haversack.compress.prepare",
    "preparation step",
    also=frozenset({"by_outputs", "channels", "float_means", "learnt", "means", "moments", "stages"}),
)
TOLERANCE = 1e-4
"""How far a step that keeps the outputs may move them, each relative to its norm, before it is refused."""


@dataclass(frozen=True)
class PrepareContext:
    """What a step may look at besides the model.

    Attributes:
        samples: returns calibration batches, afresh at each call.
        encodings: those of the plan, for steps that need them.
        sink: told of the progress.
        tell: takes findings: what of the model or the samples a user should know.
        rescale: takes a weight's tensor key and new scales, float32 in the shape of its encoding's, for a step whose
            weights are values at these; None where scales stay.
    """

    samples: Callable[[], Iterable[Sample]]
    encodings: Encodings | None = None
    sink: Sink = silent
    tell: Callable[[Finding], None] = lambda _: None
    rescale: Callable[[str, np.ndarray], None] | None = None


@dataclass(frozen=True)
class PrepareStep(abc.ABC):
    """A step of preparation; its fields are its settings.

    Class attributes:
        needs: ``encodings`` if it runs after these exist.
        leaves: what it does not change: ``outputs`` (the float model's, up to rounding), ``graph`` (all nodes).
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    leaves: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """The part's name: its file's."""
        return type(self).__module__.rpartition(".")[2]

    def apply(self, model: Model, context: PrepareContext) -> Model:
        """Return the prepared model; the given one stays as it is.

        Raises:
            UsageError: the step needs encodings and there are none.
            VerificationError: the step changed what it says it leaves, or made a weight NaN or infinite.
        """
        if "encodings" in self.needs and context.encodings is None:
            raise UsageError("the step needs encodings, which come later", where=self.name)
        made = self._inner(model, context)
        if made is not model:
            self._check(model, made, context)
        return made

    @abc.abstractmethod
    def _inner(self, model: Model, context: PrepareContext) -> Model:
        """Return the prepared model, or ``model`` itself when there is nothing to do."""

    def _check(self, before: Model, after: Model, context: PrepareContext) -> None:
        if (before.inputs, before.outputs) != (after.inputs, after.outputs):
            raise VerificationError(f"{self.name} changed the model's inputs or outputs", where=after.name)
        if "graph" in self.leaves and before.graph.digest != after.graph.digest:
            raise VerificationError(f"{self.name} changed the graph", where=after.name)
        broken = sorted(
            name
            for name, value in after.weights.items()
            if value is not before.weights.get(name)
            and np.issubdtype(value.dtype, np.floating)
            and not np.isfinite(value).all()
        )
        if broken:
            raise VerificationError(f"{self.name} made a weight NaN or infinite", where=", ".join(broken))
        if "outputs" in self.leaves:
            for sample in islice(rebatch(before, context.samples(), 1), 1):
                moved = relative_error(Executor(after).run(sample), Executor(before).run(sample))
                if not moved <= TOLERANCE:
                    text = f"{self.name} moved the float outputs by {moved:.2g} of their norm"
                    raise VerificationError(text, where=after.name, tried="one calibration sample, before and after")


def relative_error(outputs: Iterable[np.ndarray], exact: Iterable[np.ndarray]) -> float:
    """Return the relative error of a model's outputs, absolute when all are zero in float (see ``Errors.moved``)."""
    errors = Errors()
    errors.add(tuple(outputs), tuple(exact))
    return errors.moved


def only_reader(model: Model, node: Node, parameter: str) -> bool:
    """Say whether a node is the only one that reads a parameter, so that changing it changes nothing else."""
    return all(parameter not in other.parameters for other in model.graph.nodes if other.key != node.key)
