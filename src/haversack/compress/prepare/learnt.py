"""What is learnt of one layer: soft roundings around the codes that it has, a factor for each scale, and its bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine
from haversack.base.graph import Node
from haversack.tools.numerics.affine import dequantize, is_power, symmetric
from haversack.tools.numerics.granularity import along
from haversack.tools.numerics.soft_rounding import gate, gate_at, undecided

if TYPE_CHECKING:
    import torch

NEAR, EDGE = 0.1, 0.02
"""How far from its code a rounding begins, towards the other; and how near to either where it saturates."""
BOUND = 0.1
"""How far a scale may go, as a fraction of itself."""
BIAS_UNIT = 0.02
"""What a bias moves by while a rounding's number moves by 1, as a fraction of the layer's mean bias."""


@dataclass(frozen=True, eq=False)
class Stored:
    """How a layer is stored.

    Attributes:
        encoding: of the weight.
        codes: int32, in the weight's shape.
        bias: float32 [channels].
    """

    encoding: Affine
    codes: np.ndarray
    bias: np.ndarray

    def values(self, node: Node) -> dict[str, np.ndarray]:
        """Return the values of a layer's weight and bias, float32, by parameter name."""
        return {str(node.weight): dequantize(self.codes, self.encoding), str(node.bias): self.bias}


class Learnt:
    """A layer in training: numbers with derivatives, which stand for how it is stored.

    Each weight is between the code that it has and the next one towards the float weight, at the scale times a factor
    (Esser et al. 2020, arXiv:1902.08153, learn the step itself).

    Args:
        node: a layer with a bias.
        begun: how it is stored.
        exact: the float weight.
        scales: whether scales may move. Those that are powers of two stay so.
    """

    def __init__(self, node: Node, begun: Stored, exact: np.ndarray, *, scales: bool) -> None:
        import torch

        self.node, self.begun = node, begun
        encoding, codes = begun.encoding, begun.codes
        wanted = exact / along(encoding.scale, encoding.axis, exact.ndim)
        low = np.where(wanted > codes, codes, codes - 1)
        self._low = torch.from_numpy(np.clip(low, encoding.low, encoding.high - 1).astype(np.float32))
        up = torch.from_numpy(codes.astype(np.float32)) - self._low
        self._scale = torch.from_numpy(encoding.scale.copy())
        self._bias = torch.from_numpy(begun.bias.astype(np.float32))
        self._unit = BIAS_UNIT * float(self._bias.abs().mean())
        self._v = gate_at((up * (1 - 2 * NEAR) + NEAR).clamp(EDGE, 1 - EDGE)).requires_grad_(not encoding.binary)
        free = scales and not bool(is_power(encoding.scale).all())
        self._stretch = torch.zeros_like(self._scale).requires_grad_(free)
        self._shift = torch.zeros_like(self._bias).requires_grad_()

    def numbers(self) -> list[torch.Tensor]:
        """Return what is trained, all at one rate."""
        return [one for one in (self._v, self._stretch, self._shift) if one.requires_grad]

    def soft(self) -> dict[str, torch.Tensor]:
        """Return weight and bias as they are now, float32, by parameter name."""
        codes = self._low + gate(self._v) if self._v.requires_grad else self._codes()
        shape = [1] * codes.ndim
        if self.begun.encoding.axis is not None:
            shape[self.begun.encoding.axis] = -1
        return {
            str(self.node.weight): codes * self._stretched().reshape(shape),
            str(self.node.bias): self._bias + self._unit * self._shift,
        }

    def penalty(self, exponent: float) -> tuple[torch.Tensor, int]:
        """Return the penalty of all roundings that are undecided, float32 [], and how many roundings there are."""
        return undecided(self._v, exponent).sum(), self._v.numel() if self._v.requires_grad else 0

    def hardened(self) -> Stored:
        """Return how the layer is stored after training: each weight at the code that it is nearer to."""
        import torch

        with torch.no_grad():
            encoding = self.begun.encoding
            scale = self._stretched().numpy() if self._stretch.requires_grad else encoding.scale
            bias = (self._bias + self._unit * self._shift).numpy()
            return Stored(symmetric(scale, encoding.bits, encoding.axis), self._codes().numpy().astype(np.int32), bias)

    def _codes(self) -> torch.Tensor:
        import torch

        if not self._v.requires_grad:
            return torch.from_numpy(self.begun.codes.astype(np.float32))
        return self._low + (gate(self._v.detach()) >= 0.5).float()

    def _stretched(self) -> torch.Tensor:
        return self._scale * (1 + BOUND * self._stretch.tanh())
