"""Modules of PyTorch for Keras layers that PyTorch has no module for, and the network that strings all of them up.

Images flow as [N, C, H, W]; what sees the order of values (flattening, reshaping) turns them to Keras' order first.
Imports torch, as modules are classes of it: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

IMAGE = 4


def build(name: str, layer: Any) -> nn.Module:  # noqa: ANN401 - a Keras layer
    """Return the module of a layer by its class.

    Args:
        name: its class in Keras.
        layer: built.
    """
    rank = len(layer.output.shape)
    if name in ("Add", "Multiply"):
        return Together(multiply=name == "Multiply")
    if name == "Concatenate":
        last = layer.axis in (-1, rank - 1)
        return Joined((1 if last else layer.axis % rank + 1) if rank == IMAGE else layer.axis % rank)
    if name == "Rescaling":
        return Scaled(float(layer.scale), float(layer.offset))
    if name in ("Flatten", "Reshape"):
        return Shaped(tuple(int(size) for size in layer.output.shape[1:]))
    return Global(largest=name == "GlobalMaxPooling2D", keep=bool(layer.keepdims))


class Together(nn.Module):
    """The sum or the product of tensors."""

    def __init__(self, *, multiply: bool) -> None:
        super().__init__()
        self.multiply = multiply

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        """Return it; shapes may be broadcast."""
        total = values[0]
        for value in values[1:]:
            total = total * value if self.multiply else total + value
        return total


class Joined(nn.Module):
    """Tensors side by side along an axis of [N, C, H, W], or of anything else."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        """Return them as one."""
        return torch.cat(values, self.axis)


class Scaled(nn.Module):
    """x · scale + offset."""

    def __init__(self, scale: float, offset: float) -> None:
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return it, in the shape of x."""
        return x * self.scale + self.offset


class Shaped(nn.Module):
    """The same values, in Keras' order, in another shape (without the batch)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, *shape], an image as [N, C, H, W]."""
        if x.ndim == IMAGE and tuple(x.shape[2:]) != (1, 1):
            x = x.permute(0, 2, 3, 1)
        if len(self.shape) == IMAGE - 1 and self.shape[:2] == (1, 1):
            return x.reshape(-1, self.shape[2], 1, 1)
        x = x.reshape(-1, *self.shape)
        return x.permute(0, 3, 1, 2) if x.ndim == IMAGE else x


class Global(nn.Module):
    """The mean or the largest value of each channel."""

    def __init__(self, *, largest: bool, keep: bool) -> None:
        super().__init__()
        self.largest, self.keep = largest, keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, C], or [N, C, 1, 1] when axes are kept."""
        return x.amax((2, 3), keepdim=self.keep) if self.largest else x.mean((2, 3), keepdim=self.keep)


class Network(nn.Module):
    """A Keras model: layers by their names, called in order.

    Args:
        layers: name -> module; names as in Keras.
        calls: for each call the layer's name, the numbers of the values it takes, and the number of what it gives.
        inputs, outputs: numbers of values, and whether each is an image that is turned here (not inside a model).
    """

    def __init__(
        self,
        layers: dict[str, nn.Module],
        calls: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]],
        inputs: Sequence[tuple[int, bool]],
        outputs: Sequence[tuple[int, bool]],
    ) -> None:
        super().__init__()
        for name, module in layers.items():
            self.add_module(name, module)
        self._calls, self._inputs, self._outputs = tuple(calls), tuple(inputs), tuple(outputs)

    def forward(self, *given: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the outputs, images as Keras has them: [N, H, W, C]."""
        values: dict[int, torch.Tensor] = {}
        for (number, turn), value in zip(self._inputs, given, strict=True):
            values[number] = value.permute(0, 3, 1, 2) if turn else value
        for name, takes, gives in self._calls:
            made = getattr(self, name)(*(values[number] for number in takes))
            for number, value in zip(gives, made if isinstance(made, tuple) else (made,), strict=True):
                values[number] = value
        found = tuple(values[n].permute(0, 2, 3, 1) if turn else values[n] for n, turn in self._outputs)
        return found if len(found) > 1 else found[0]
