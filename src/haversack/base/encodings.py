"""Encodings: how each tensor is stored, decided once per model and injected into every runtime.

The law that gives an encoded graph its meaning (``targets/reference`` executes it, the other targets must match):

1. An activation ``node:out`` with *Affine* holds integers ``q``; its value is ``scale * (q - zero_point)``.
2. A node runs in integers when the runtime has such a kernel for its op, and all tensors that flow in, its output
   (the output of the clamp fused behind it, if there is one) and its weight, if it has one, are *Affine*.
3. Every other node runs in float on dequantized values; if its output is *Affine*, the result is quantized.
4. A weight with *Affine* on a float node is stored in integers and used as ``scale * q`` (weight only) unless the
   node's ``:in`` is *Dynamic*: then its input is quantized at run time, per tensor. With *BlockAffine* each block has
   its own scale, and the sums of blocks are added in float.
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
    """Kept in floating point: ``float32`` or ``float16``.

    Raises:
        ValueError: another dtype.
    """

    dtype: str = "float32"

    def __post_init__(self) -> None:
        _demand(self.dtype in {"float32", "float16"}, f"no float encoding: {self.dtype!r}")


@dataclass(frozen=True)
class Dynamic:
    """Quantized at run time, per tensor, asymmetric: only ever on ``:in``.

    Raises:
        ValueError: ``bits`` is not 2 to 16.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        _demand_bits(self.bits, 2, 16)


@dataclass(frozen=True, eq=False)
class Affine:
    """Uniform integers: value = scale * (q - zero_point).

    Attributes:
        bits: 1 to 16.
        signed: whether ``q`` is in [-2^(bits-1)+1, 2^(bits-1)-1] (the lowest code is never used; of one bit it is -1
            or 1, and never 0) or [0, 2^bits-1].
        axis: the channel axis of ``scale``, or None when one scale serves the tensor.
        scale: float32, shape [channels] or [].
        zero_point: int32, the shape of ``scale``; all zero when signed.

    Raises:
        ValueError: a field is not as above, a scale is not finite and positive, or a zero-point is no code.
    """

    bits: int
    signed: bool
    axis: int | None
    scale: np.ndarray
    zero_point: np.ndarray

    def __post_init__(self) -> None:
        _demand_bits(self.bits, 1, 16)
        _demand(self.scale.dtype == np.float32, f"a scale is float32, not {self.scale.dtype}")
        _demand(self.zero_point.dtype == np.int32, f"a zero-point is int32, not {self.zero_point.dtype}")
        _demand(
            self.scale.ndim == (0 if self.axis is None else 1) and self.zero_point.shape == self.scale.shape,
            f"scale {self.scale.shape} and zero-point {self.zero_point.shape} do not go with axis {self.axis}",
        )
        _demand(bool((np.isfinite(self.scale) & (self.scale > 0)).all()), "a scale is finite and positive")
        least, most = (0, 0) if self.signed else (self.low, self.high)
        inside = (self.zero_point >= least) & (self.zero_point <= most)
        _demand(bool(inside.all()), f"a zero-point is in [{least}, {most}]")

    @property
    def low(self) -> int:
        """Smallest code."""
        return -self.high if self.signed else 0

    @property
    def high(self) -> int:
        """Largest code."""
        return largest_code(self.bits) if self.signed else (1 << self.bits) - 1

    @property
    def binary(self) -> bool:
        """Whether its only codes are -1 and 1."""
        return self.signed and self.bits == 1


@dataclass(frozen=True, eq=False)
class BlockAffine:
    """Blocks of ``block`` values along the last axis, each with a scale (and minimum), as GGUF's k-quants have them.

    Without minimum and scale of scales it is symmetric, ``scale[row, column // block] * q``, with ``q`` in
    [-2^(bits-1)+1, 2^(bits-1)-1]: what runtimes call block-wise or group-wise integers.

    Attributes:
        block: values per block.
        bits: 2 to 8.
        scale: float32 [rows, blocks], or integers when ``scale_of_scales`` is given.
        minimum: as ``scale``, subtracted, or None.
        scale_of_scales: float32 [rows, superblocks], or None.

    Raises:
        ValueError: ``block`` or ``bits`` is out of range, the shapes do not agree, or a scale of the symmetric form is
            not float32, finite and positive.
    """

    block: int
    bits: int
    scale: np.ndarray
    minimum: np.ndarray | None = None
    scale_of_scales: np.ndarray | None = None

    def __post_init__(self) -> None:
        _demand_bits(self.bits, 2, 8)
        _demand(self.block > 0, f"a block of {self.block} values")
        _demand(self.scale.ndim == 2, f"scales of blocks are [rows, blocks], not {self.scale.shape}")
        if self.minimum is not None:
            _demand(self.minimum.shape == self.scale.shape, f"minimum {self.minimum.shape}, scale {self.scale.shape}")
        if self.scale_of_scales is not None:
            agree = self.scale_of_scales.ndim == 2 and len(self.scale_of_scales) == len(self.scale)
            _demand(agree, f"scale of scales {self.scale_of_scales.shape}, scale {self.scale.shape}")
        if self.symmetric:
            _demand(self.scale.dtype == np.float32, f"a scale is float32, not {self.scale.dtype}")
            _demand(bool((np.isfinite(self.scale) & (self.scale > 0)).all()), "a scale is finite and positive")

    @property
    def symmetric(self) -> bool:
        """Whether a value is its block's scale times its code."""
        return self.minimum is None and self.scale_of_scales is None

    @property
    def low(self) -> int:
        """Smallest code of the symmetric form."""
        return -self.high

    @property
    def high(self) -> int:
        """Largest code of the symmetric form."""
        return (1 << (self.bits - 1)) - 1


@dataclass(frozen=True, eq=False)
class Codebook:
    """A palette: values are ``entries[q]``.

    Attributes:
        bits: 1 to 8, the bits of an index.
        entries: float32 [2^bits] for the tensor, or [groups, 2^bits].
        group: rows that share one palette, or 0 when one serves the tensor.

    Raises:
        ValueError: ``bits`` is out of range, or ``entries`` has another shape.
    """

    bits: int
    entries: np.ndarray
    group: int = 0

    def __post_init__(self) -> None:
        _demand_bits(self.bits, 1, 8)
        fits = self.entries.ndim == (2 if self.group else 1) and self.entries.shape[-1] == 1 << self.bits
        _demand(
            self.group >= 0 and fits, f"entries {self.entries.shape} do not fit {self.bits} bits, group {self.group}"
        )


Encoding = Float | Dynamic | Affine | BlockAffine | Codebook


@dataclass(frozen=True, eq=False)
class Encodings:
    """Tensor key -> encoding, and the integers of the encoded weights (int32, the weight's own shape).

    Raises:
        ValueError: a key is no tensor key, *Dynamic* stands elsewhere than on ``:in``, or integers are given for a
            tensor without an encoding, are not int32, or do not fit the codes or the shape of what they belong to.
    """

    tensors: Mapping[str, Encoding] = field(default_factory=dict)
    integers: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, encoding in self.tensors.items():
            _, port = keys.split_tensor(key)
            _demand(port == "in" or not isinstance(encoding, Dynamic), f"{key}: Dynamic stands on :in only")
        if stray := set(self.integers) - set(self.tensors):
            message = f"integers without an encoding: {', '.join(sorted(stray))}"
            raise ValueError(message)
        for key, integers in self.integers.items():
            _check_integers(key, self.tensors[key], integers)

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


def largest_code(bits: int) -> int:
    """Return the largest of the codes that lie around 0: 2^(bits-1) - 1, and 1 of one bit."""
    return max(1, (1 << (bits - 1)) - 1)


def _check_integers(key: str, encoding: Encoding, integers: np.ndarray) -> None:
    _demand(integers.dtype == np.int32, f"{key}: integers are int32, not {integers.dtype}")
    if isinstance(encoding, Codebook) and integers.size:
        inside = int(integers.min()) >= 0 and int(integers.max()) < 1 << encoding.bits
        _demand(inside, f"{key}: an index is none of {1 << encoding.bits} entries")
    if isinstance(encoding, Codebook) and encoding.group:
        rows = len(encoding.entries) * encoding.group
        fits = integers.ndim > 0 and len(integers) == rows
        _demand(fits, f"{key}: palettes for {rows} rows do not fit integers {integers.shape}")
    if isinstance(encoding, BlockAffine) and encoding.symmetric:
        rows, blocks = encoding.scale.shape
        fits = integers.shape == (rows, blocks * encoding.block)
        _demand(fits, f"{key}: {blocks} blocks of {encoding.block} in {rows} rows do not fit integers {integers.shape}")
        inside = not integers.size or (encoding.low <= int(integers.min()) and int(integers.max()) <= encoding.high)
        _demand(inside, f"{key}: integers leave the codes [{encoding.low}, {encoding.high}]")
    if not isinstance(encoding, Affine):
        return
    if encoding.axis is not None:
        axis = encoding.axis
        fits = -integers.ndim <= axis < integers.ndim and integers.shape[axis] == len(encoding.scale)
        _demand(fits, f"{key}: {len(encoding.scale)} scales do not fit axis {axis} of integers {integers.shape}")
    if integers.size:
        least, most = int(integers.min()), int(integers.max())
        inside = encoding.low <= least and most <= encoding.high
        _demand(inside, f"{key}: integers in [{least}, {most}] leave the codes [{encoding.low}, {encoding.high}]")
        _demand(not encoding.binary or bool(integers.all()), f"{key}: 0 is no code of one bit")


def _demand_bits(bits: int, least: int, most: int) -> None:
    _demand(least <= bits <= most, f"{bits} bits are not in [{least}, {most}]")


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
