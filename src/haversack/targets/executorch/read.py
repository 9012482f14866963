"""Reading a file back: every scale, zero-point and integer that it holds, under the keys they were injected for."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Dynamic
from haversack.base.errors import Fault, VerificationError
from haversack.targets.executorch import parse
from haversack.targets.executorch.parse import Delegate, Program, Step, Value
from haversack.targets.executorch.tables import read_tables
from haversack.tools.formats.flat import Spoiled
from haversack.tools.graph.injection import Content
from haversack.tools.numerics import blocks

_INT8 = 128
_LAYERS = frozenset({"Conv2d", "DepthwiseConv2d", "FullyConnected"})
_CHANNELS_FIRST = {"Conv2d": (0, 3, 1, 2), "DepthwiseConv2d": (3, 0, 1, 2)}
_WEIGHTS = {parse.QINT8: 8, parse.QCINT8: 8, parse.QCINT4: 4, parse.QBINT4: 4}
_SHARED = 16
"""How many numbers are unpacked for each byte of a file: layers that share a constant take no memory without end."""


class _Constants:
    """Unpacks constants: one that many layers share once, and no more numbers than a file of that many bytes has."""

    def __init__(self, size: int) -> None:
        self._room = _SHARED * size
        self._made: dict[tuple[int, int, tuple[int, ...]], np.ndarray] = {}

    def integers(self, delegate: Delegate, value: Value) -> np.ndarray:
        """Return a constant's numbers; see ``Delegate.integers``."""
        at = np.frombuffer(delegate.constants[value.constant], np.uint8).ctypes.data
        key = at, value.datatype, value.dims
        if key not in self._made:
            self.take(prod(value.dims))
            self._made[key] = delegate.integers(value)
            self._made[key].flags.writeable = False
        return self._made[key]

    def take(self, count: int) -> None:
        """Count numbers for which memory is taken.

        Raises:
            Spoiled: they are more than a file of ours has.
        """
        self._room -= count
        if self._room < 0:
            raise Spoiled("its layers share constants, so that they would take memory without end")


def read(path: Path, tensor_names: Mapping[str, str], absorbed: Mapping[str, str]) -> Content:
    """Read a file.

    Args:
        path: a .pte file.
        tensor_names: activation tensor key -> ``delegate/value``.
        absorbed: tensor key -> name of the codes that serve it.

    Raises:
        VerificationError: it is no .pte file, or not one that we have written; all faults together.
    """
    program = parse.parse(path)
    try:
        content = _content(program, {**tensor_names, **absorbed}, _Constants(path.stat().st_size))
        content.encodings()
    except (Spoiled, ValueError) as error:
        raise VerificationError(f"not a .pte file that we have written: {error}", where=str(path)) from error
    return content.sound(path)


def _content(program: Program, names: Mapping[str, str], constants: _Constants) -> Content:
    content = Content()
    known: set[tuple[int, int]] = set()
    for key, name in names.items():
        number, index = parse.place(name)
        if number >= len(program.delegates) or index >= len(program.delegates[number].values):
            content.faults.append(Fault(key, f"the file has no value {name!r}"))
            continue
        value = program.delegates[number].values[index]
        if value.datatype == parse.QINT8:
            content.tensors[key] = _activation(value)
            known.add((number, index))
    for key, table in read_tables(program).items():
        constants.take(2 * table.codes.size)
        zeros = np.zeros(table.scale.shape, np.int32)
        content.tensors[f"{key}:weight"] = Affine(8, signed=True, axis=0, scale=table.scale, zero_point=zeros)
        content.integers[f"{key}:weight"] = table.codes.astype(np.int32)
    layers = program.about.get("layers")
    owners = {parse.place(where): key for where, key in layers.items()} if isinstance(layers, dict) else {}
    for number, delegate in enumerate(program.delegates):
        for index, step in enumerate(delegate.steps):
            if step.kind in _LAYERS:
                _layer(content, constants, delegate, step, owners.get((number, index), ""))
        content.faults += _strays(delegate, number, {one for part, one in known if part == number}, content)
    return content


def _activation(value: Value) -> Affine:
    if value.scale is None:
        raise Spoiled("codes without a scale")
    if not -_INT8 <= value.zero_point < _INT8:
        raise Spoiled(f"a zero-point of {value.zero_point}")
    zero_point = np.array(value.zero_point + _INT8, np.int32)
    return Affine(8, signed=False, axis=None, scale=value.scale, zero_point=zero_point)


def _layer(content: Content, constants: _Constants, delegate: Delegate, step: Step, key: str) -> None:
    """Read a layer's weight and bias."""
    weight = delegate.values[step.filter]
    bits = _WEIGHTS.get(weight.datatype)
    if bits is None or weight.scale is None:
        return
    if not key:
        content.faults.append(Fault("", f"a {step.kind} with integers that belongs to no layer"))
        return
    constants.take(weight.scale.size)
    integers = _integers(constants, delegate, step, key)
    if integers.size and integers.min() < 1 - (1 << (bits - 1)):
        content.faults.append(Fault(f"{key}:weight", "it holds the lowest code, which no weight has"))
    if weight.datatype == parse.QBINT4:
        content.tensors[f"{key}:weight"] = _grouped(weight, integers, key)
        content.integers[f"{key}:weight"] = integers
        if delegate.values[step.inputs[0]].datatype == parse.QDINT8:
            content.tensors[f"{key}:in"] = Dynamic(8)
        return
    axis = 3 if step.kind == "DepthwiseConv2d" else 0
    if weight.scale.ndim and weight.axis != axis:
        content.faults.append(Fault(f"{key}:weight", f"its scales go along axis {weight.axis}"))
        return
    zeros = np.zeros(weight.scale.shape, np.int32)
    content.tensors[f"{key}:weight"] = Affine(
        bits, signed=True, axis=0 if weight.scale.ndim else None, scale=weight.scale, zero_point=zeros
    )
    content.integers[f"{key}:weight"] = integers
    if delegate.values[step.inputs[0]].datatype == parse.QDINT8:
        content.tensors[f"{key}:in"] = Dynamic(8)
    if step.bias != parse.NOWHERE:
        bias = delegate.values[step.bias]
        if bias.datatype in (parse.QCINT32, parse.QINT32) and bias.scale is not None:
            content.biases[key] = constants.integers(delegate, bias), bias.scale


def _grouped(weight: Value, integers: np.ndarray, key: str) -> BlockAffine:
    """Return the encoding of a weight with a scale for each group of a row.

    Raises:
        Spoiled: there are not as many scales as groups, or they go along another axis.
    """
    rows, length = integers.shape if integers.ndim == 2 else (0, 0)
    fits = weight.group > 0 and weight.axis == 0 and length % weight.group == 0
    if weight.scale is None or not fits or weight.scale.size * weight.group != integers.size:
        raise Spoiled(f"{key}: scales of groups of {weight.group} do not fit a weight of shape {integers.shape}")
    return BlockAffine(weight.group, 4, blocks.from_bfloat16(weight.scale).reshape(rows, -1))


def _integers(constants: _Constants, delegate: Delegate, step: Step, key: str) -> np.ndarray:
    """Return a layer's integers in the shape that the model has them in."""
    found = constants.integers(delegate, delegate.values[step.filter])
    if step.kind != "FullyConnected":
        if found.ndim != len(_CHANNELS_FIRST[step.kind]):
            raise Spoiled(f"a convolution's weight of shape {found.shape}")
        found = found.transpose(_CHANNELS_FIRST[step.kind])
    elif ":conv2d#" in key:
        return found.reshape(*found.shape, 1, 1)
    return np.ascontiguousarray(found.reshape(*found.shape[:2], -1) if ":conv1d#" in key else found)


def _strays(delegate: Delegate, number: int, known: set[int], content: Content) -> list[Fault]:
    """Tell of codes that are quantized and that neither a key nor a move of keyed codes leads to."""
    held = {content_of(found) for found in content.tensors.values() if isinstance(found, Affine)}
    found = []
    for index, value in enumerate(delegate.values):
        stray = value.datatype == parse.QINT8 and not value.constant and index not in known
        if stray and content_of(_activation(value)) not in held:
            found.append(Fault(f"{number}/{index}", "codes that were not asked for"))
    return found


def content_of(encoding: Affine) -> tuple[bytes, bytes]:
    """Return scale and zero-point of an encoding as bytes."""
    return encoding.scale.tobytes(), encoding.zero_point.tobytes()
