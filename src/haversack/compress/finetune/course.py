"""Training: Adam under a rate that falls to zero, judged on batches held back; what was done is kept on the way."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.errors import JobError
from haversack.base.model import Sample
from haversack.base.progress import Event, Sink
from haversack.compress.finetune.losses import Loss
from haversack.compress.finetune.tuned import Tuned
from haversack.tools.store import atomic

if TYPE_CHECKING:
    import torch

Pair = tuple[Sample, np.ndarray]
FIRST, SECOND, SMALL = 0.9, 0.999, 1e-8
"""Adam's decay of both moments, and what keeps it from dividing by zero (Kingma and Ba 2015, arXiv:1412.6980)."""
KEPT_SECONDS = 20.0
"""So often it is written down where training stands."""


@dataclass(frozen=True)
class Course:
    """How is trained.

    Attributes:
        epochs: passes over the batches at most.
        rate: steps that a weight moves by in one update, at first; it falls to zero as a cosine does.
        patience: so many epochs without a gain on the batches held back end it.
        seed: of the order of the batches.
    """

    epochs: int = 4
    rate: float = 0.25
    patience: int = 2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Learnt:
    """What training found.

    Attributes:
        values: float32 by the name of a number (``Tuned.numbers``): the best ones on the batches held back.
        before, after: the loss on these, as it was and with the values.
        epochs: how many were trained.
    """

    values: dict[str, np.ndarray]
    before: float
    after: float
    epochs: int


def train(
    tuned: Tuned,
    batches: Sequence[Pair],
    held: Sequence[Pair],
    loss: Loss,
    course: Course,
    *,
    place: Path,
    key: str,
    sink: Sink,
) -> Learnt:
    """Train a released model in place; what is learnt is what did best on the batches held back.

    A run that was killed goes on where it stood, and ends with the same numbers.

    Args:
        tuned: what is trained.
        batches, held: (inputs, expected) to train on, and to judge by.
        loss: made small.
        course: how.
        place: a file that keeps where training stands, removed at the end.
        key: what the run is: a file of another one is not gone on with.
        sink: told how far it is.

    Raises:
        JobError: the loss is not finite, or depends on nothing that is trained.
        EnvironmentFault: the file cannot be written.
    """
    state = _State.resumed(place, key, tuned) or _State.begun(tuned, mean_loss(tuned, held, loss))
    total, kept = course.epochs * len(batches), time.monotonic()
    while state.step < total and state.idle < course.patience:
        epoch, index = divmod(state.step, len(batches))
        order = np.random.default_rng((course.seed, epoch)).permutation(len(batches))
        _update(state, tuned, batches[order[index]], loss, course, state.step / total)
        state.step += 1
        sink(Event("compress", "progress", "fine-tuning", state.step, total))
        if index + 1 == len(batches):
            state.judge(tuned, mean_loss(tuned, held, loss))
        if time.monotonic() - kept > KEPT_SECONDS:
            state.keep(place, key)
            kept = time.monotonic()
    place.unlink(missing_ok=True)
    tuned.load(state.best)
    return Learnt(state.best, state.first, state.least, -(-state.step // len(batches)))


def mean_loss(tuned: Tuned, pairs: Sequence[Pair], loss: Loss, active: Collection[str] | None = None) -> float:
    """Return the mean loss over batches, each counted by its rows.

    Args:
        tuned: as it is now.
        pairs: (inputs, expected).
        loss: of a batch.
        active: keys of the layers that are as trained, the others as they were; None for all.

    Raises:
        JobError: it is not finite.
    """
    import torch

    total, rows = 0.0, 0
    for inputs, expected in pairs:
        with torch.no_grad():
            total += len(expected) * float(loss(tuned(inputs, active), expected))
        rows += len(expected)
    found = total / max(1, rows)
    if not math.isfinite(found):
        raise _not_finite()
    return found


def _not_finite() -> JobError:
    return JobError(
        "it is not finite on the training samples",
        where="loss",
        tried="computing it with the released model",
        next_step="look at the labels, and for a logarithm or a division by zero",
    )


@dataclass(eq=False)
class _State:
    """Where training stands."""

    numbers: dict[str, torch.Tensor]
    first_moments: dict[str, torch.Tensor]
    second_moments: dict[str, torch.Tensor]
    best: dict[str, np.ndarray]
    first: float
    least: float
    step: int = 0
    idle: int = 0

    @classmethod
    def begun(cls, tuned: Tuned, loss: float) -> _State:
        import torch

        numbers = tuned.numbers()
        first, second = (
            {name: torch.zeros_like(one, requires_grad=False) for name, one in numbers.items()} for _ in range(2)
        )
        return cls(numbers, first, second, _values(numbers), loss, loss)

    @classmethod
    def resumed(cls, place: Path, key: str, tuned: Tuned) -> _State | None:
        """Return where a training of the same was interrupted, its numbers put in place; None where none was."""
        import torch
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(place), framework="np") as file:
                told = json.loads((file.metadata() or {}).get("state", "{}"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, ValueError):
            return None
        if told.get("key") != key:
            return None
        numbers = tuned.numbers()
        parts: list[dict[str, np.ndarray]] = [
            {name: arrays[f"{part} {name}"] for name in numbers} for part in ("now", "first", "second", "best")
        ]
        tuned.load(parts[0])
        first, second = ({name: torch.from_numpy(value) for name, value in part.items()} for part in parts[1:3])
        return cls(numbers, first, second, parts[3], told["before"], told["least"], told["step"], told["idle"])

    def keep(self, place: Path, key: str) -> None:
        from safetensors.numpy import save

        parts = {
            "now": _values(self.numbers),
            "first": _values(self.first_moments),
            "second": _values(self.second_moments),
            "best": self.best,
        }
        arrays = {f"{part} {name}": value for part, values in parts.items() for name, value in values.items()}
        told = {"key": key, "before": self.first, "least": self.least, "step": self.step, "idle": self.idle}
        atomic.write_bytes(place, save(arrays, {"state": json.dumps(told)}))

    def judge(self, tuned: Tuned, loss: float) -> None:
        """Take in the loss after an epoch."""
        if loss < self.least:
            self.least, self.best, self.idle = loss, _values(tuned.numbers()), 0
        else:
            self.idle += 1


def _values(numbers: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: np.array(one.detach().numpy(), np.float32, order="C") for name, one in numbers.items()}


def _update(state: _State, tuned: Tuned, pair: Pair, loss: Loss, course: Course, progress: float) -> None:
    """Make one step of Adam."""
    import torch

    found = loss(tuned(pair[0]), pair[1])
    if not bool(torch.isfinite(found)):
        raise _not_finite()
    names = list(state.numbers)
    numbers = [state.numbers[name] for name in names]
    gradients = torch.autograd.grad(found, numbers, allow_unused=True, materialize_grads=True)
    rate, count = course.rate * 0.5 * (1 + math.cos(math.pi * progress)), state.step + 1
    with torch.no_grad():
        for name, gradient in zip(names, gradients, strict=True):
            one, two = state.first_moments[name], state.second_moments[name]
            one.mul_(FIRST).add_(gradient, alpha=1 - FIRST)
            two.mul_(SECOND).addcmul_(gradient, gradient, value=1 - SECOND)
            size = (two / (1 - SECOND**count)).sqrt_().add_(SMALL)
            state.numbers[name].sub_(one / size * (rate / (1 - FIRST**count)))
