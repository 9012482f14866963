"""Encodings: how each tensor is stored, decided once per model and injected into every runtime.

The law that gives an encoded graph its meaning (``targets/reference`` executes it, the other targets must match):

1. An activation ``node:out`` with *Affine* holds integers ``q``; its value is ``scale * (q - zero_point)``.
2. A node runs in integers when the runtime has such a kernel for its op, and all tensors that flow in, its output
   (the output of the clamp fused behind it, if there is one) and its weight, if it has one, are *Affine*.
3. Every other node runs in float on dequantized values; if its output is *Affine*, the result is quantized.
4. A weight with *Affine* on a float node is stored in integers and used as ``scale * q`` (weight only) unless the
   node's ``:in`` is *Dynamic*: then its input is quantized at run time, per tensor.
5. A bias is derived, never stored: int32 at ``float32(scale_in * scale_weight)``, rounded half to even.

Integers are int32 arrays here; the number of bits says what they fit into.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from haversack.base import digest, keys


@dataclass(frozen=True)
class Float:
    """Kept in floating point: ``float32`` or ``float16``."""

    dtype: str = "float32"


@dataclass(frozen=True)
class Dynamic:
    """Quantized at run time, per tensor, asymmetric: only ever on ``:in``."""

    bits: int = 8


@dataclass(frozen=True, eq=False)
class Affine:
    """Uniform integers: value = scale * (q - zero_point).

    Attributes:
        bits: 2 to 16.
        signed: whether ``q`` is in [-2^(bits-1)+1, 2^(bits-1)-1] (the lowest code is never used) or [0, 2^bits-1].
        axis: the channel axis of ``scale``, or None when one scale serves the tensor.
        scale: float32, shape [channels] or [].
        zero_point: int32, the shape of ``scale``; all zero when signed.
    """

    bits: int
    signed: bool
    axis: int | None
    scale: np.ndarray
    zero_point: np.ndarray

    @property
    def low(self) -> int:
        """Smallest code."""
        return 1 - (1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


@dataclass(frozen=True, eq=False)
class BlockAffine:
    """Blocks of ``block`` values along the last axis, each with a scale (and minimum), as GGUF's k-quants have them.

    Attributes:
        block: values per block.
        bits: 2 to 8.
        scale: float32 [rows, blocks], or integers when ``scale_of_scales`` is given.
        minimum: as ``scale``, subtracted, or None.
        scale_of_scales: float32 [rows, superblocks], or None.
    """

    block: int
    bits: int
    scale: np.ndarray
    minimum: np.ndarray | None = None
    scale_of_scales: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Codebook:
    """A palette: values are ``entries[q]``.

    Attributes:
        bits: 1 to 8, the bits of an index.
        entries: float32 [2^bits] for the tensor, or [groups, 2^bits].
        group: rows that share one palette, or 0 when one serves the tensor.
    """

    bits: int
    entries: np.ndarray
    group: int = 0


Encoding = Float | Dynamic | Affine | BlockAffine | Codebook


@dataclass(frozen=True, eq=False)
class Encodings:
    """Tensor key -> encoding, and the integers of the encoded weights (int32, the weight's own shape).

    Raises:
        ValueError: a key is no tensor key, or integers are given for a tensor without an encoding.
    """

    tensors: Mapping[str, Encoding] = field(default_factory=dict)
    integers: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.tensors:
            keys.split_tensor(key)
        if stray := set(self.integers) - set(self.tensors):
            message = f"integers without an encoding: {', '.join(sorted(stray))}"
            raise ValueError(message)

    @classmethod
    def none(cls) -> Encodings:
        """Nothing encoded: the float model."""
        return cls()

    def affine(self, key: str) -> Affine | None:
        """Return the Affine encoding of a tensor, or None if it has another or none."""
        found = self.tensors.get(key)
        return found if isinstance(found, Affine) else None

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array with a name that tells its tensor and field, in sorted order."""
        for key in sorted(self.tensors):
            for name, value in vars(self.tensors[key]).items():
                if isinstance(value, np.ndarray):
                    yield f"{key}|{name}", value
        for key in sorted(self.integers):
            yield f"{key}|integers", self.integers[key]

    @cached_property
    def digest(self) -> str:
        """Content digest."""
        fields = {
            key: [type(value).__name__, {k: v for k, v in vars(value).items() if not isinstance(v, np.ndarray)}]
            for key, value in self.tensors.items()
        }
        return digest.of_data([fields, digest.of_arrays(dict(self.arrays()))])
