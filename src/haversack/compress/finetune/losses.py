"""What training makes small: the job's own loss, or the one that goes with its metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base import blame
from haversack.base.errors import JobError

if TYPE_CHECKING:
    import torch

Loss = Callable[["tuple[torch.Tensor, ...]", np.ndarray], "torch.Tensor"]
"""(outputs of the model, expected) -> float32 [], with derivatives."""
EXAMPLE = "loss = torch.nn.functional.cross_entropy, taking (outputs[0], expected): def loss(outputs, expected): …"


def of_metric(name: str) -> Loss | None:
    """Return the loss that goes with a metric by its name; None where none does."""
    return {"top1": _cross_entropy, "mean_squared_error": _squares}.get(name)


def of_job(function: Callable[[Any, Any], Any]) -> Loss:
    """Return a job's own loss, ``(outputs, expected) -> scalar``, with its faults told at the user's line.

    It is called with a tuple of float32 tensors, one for each output of the model, and the expected array as a tensor.
    """

    def loss(outputs: tuple[torch.Tensor, ...], expected: np.ndarray) -> torch.Tensor:
        import torch

        try:
            found = function(outputs, torch.from_numpy(np.ascontiguousarray(expected)))
        except Exception as error:
            raise JobError(
                f"loss raised {blame.sentence(error)}",
                where=blame.place(error) or "loss",
                tried=f"it was called with outputs of shape {', '.join(str(tuple(one.shape)) for one in outputs)}",
                next_step=EXAMPLE,
            ) from error
        learns = any(one.requires_grad for one in outputs)  # not where it is only looked at
        if not isinstance(found, torch.Tensor) or found.numel() != 1 or (learns and not found.requires_grad):
            what = f"the shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise JobError(
                f"it returned {what}, not one number that depends on the outputs", where="loss", next_step=EXAMPLE
            )
        return found.reshape(())

    return loss


def _cross_entropy(outputs: tuple[torch.Tensor, ...], expected: np.ndarray) -> torch.Tensor:
    """Return the cross entropy of scores [n, classes] under labels [n]."""
    import torch

    return torch.nn.functional.cross_entropy(outputs[0], torch.from_numpy(expected.astype(np.int64)))


def _squares(outputs: tuple[torch.Tensor, ...], expected: np.ndarray) -> torch.Tensor:
    """Return the mean squared error of an output against values of its shape."""
    import torch

    return torch.nn.functional.mse_loss(outputs[0], torch.from_numpy(expected.astype(np.float32)))
