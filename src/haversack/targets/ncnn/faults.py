"""What ncnn cannot hold, told before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from haversack.base.encodings import Affine, Encoding, Encodings, Float
from haversack.base.errors import ConversionError, Fault
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.targets.ncnn.ops import WRITERS
from haversack.targets.ncnn.sheet import Sheet, Value
from haversack.targets.ncnn.site import Site, rows
from haversack.tools.graph.demands import demands
from haversack.tools.graph.injection import unheld
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.roles import Role, role, units

_NAME = re.compile(r"\S{1,200}")
_INSTEAD = {
    "embedding": "look rows up before the model, and give it the rows",
    "upsample_nearest2d": "resize outside of the model",
    "upsample_bilinear2d": "resize outside of the model",
    "scaled_dot_product_attention": "use litert or onnxruntime for transformers",
    "matmul": "use litert or onnxruntime for products of two activations",
    "bmm": "use litert or onnxruntime for products of two activations",
    "gru": "unroll the cell, with its state as input and output",
    "lstm": "unroll the cell, with its state as input and output",
    "select": "slice and reshape instead",
}
"""What replaces an op that has no writer."""


def unwritten(model: Model) -> tuple[Fault, ...]:
    """Return every op that ncnn has no layer for, and every name that it cannot read; empty when it takes all."""
    found = [*_names(model)]
    for node in model.graph.nodes:
        cause = rows(model.graph, node)
        if not cause and role(node) is not Role.INPUT:
            cause = _unwritten(model, node)
        if cause:
            found.append(Fault(node.key, cause))
    return tuple(found)


def _names(model: Model) -> Iterator[Fault]:
    ports = [port.name for port in (*model.inputs, *model.outputs)]
    for name in sorted(set(ports)):
        if ports.count(name) > 1:
            yield Fault(name, "an input and an output have one name")
        if not _NAME.fullmatch(name):
            yield Fault(name, "a name in ncnn has 1 to 200 characters without spaces")
    for node in model.graph.nodes:
        if not _NAME.fullmatch(node.key):
            yield Fault(node.key, "a name in ncnn has 1 to 200 characters without spaces")


def _unwritten(model: Model, node: Node) -> str:
    """Write one op alone, to hear what is wrong with it."""
    if node.op not in WRITERS:
        instead = _INSTEAD.get(node.op, "")
        return f"ncnn has no {node.op} here" + (f": {instead}" if instead else "")
    sources = [model.graph.by_key[key] for key in node.inputs]
    if any(rows(model.graph, source) for source in sources):
        return ""  # told where it is made
    inputs = [Value("x", tuple(int(size) for size in source.output.shape[1:])) for source in sources]
    shape = tuple(int(size) for size in node.output.shape[1:])
    try:
        WRITERS[node.op](Site(Sheet(), node, inputs, model.weights, shape, node.out))
    except ConversionError as error:
        return error.cause
    return ""


def faults(model: Model, encodings: Encodings) -> tuple[Fault, ...]:
    """Return every encoding that has no place in the files; empty when all have."""
    ops = demands(model.graph).integer_ops
    whole = [unit for unit in units(model.graph) if runs_in_integers(unit, encodings, ops)]
    inside = {unit.head.key for unit in whole if unit.clamp is not None}
    found = [*unheld(model, encodings, inside, _weight, _input)]
    told = {fault.where for fault in found}
    for key, encoding in sorted(encodings.tensors.items()):
        if key.endswith(":out") and isinstance(encoding, Affine) and key not in told:
            found += [Fault(key, cause)] if (cause := _activation(encoding)) else []
    return tuple(found)


def _activation(encoding: Affine) -> str:
    if int(encoding.zero_point) != 128:
        return f"ncnn's activations are symmetric, and zero is the code {int(encoding.zero_point)} here instead of 128"
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.float32(1) / encoding.scale)
    return "" if finite else "its scale has no float32 inverse"


def _weight(node: Node, encoding: Encoding) -> str:
    if role(node) is not Role.LAYER:
        return f"the weight of {node.op} stays in float32"
    if isinstance(encoding, Float):
        return ""
    if not isinstance(encoding, Affine):
        return f"a weight is held as Affine or float16, not as {type(encoding).__name__}"
    if not encoding.signed or encoding.bits != 8:
        return "a weight is held as symmetric int8"
    return "" if encoding.axis in (None, 0) else f"the scales of a weight go along axis 0, not {encoding.axis}"


def _input(node: Node, encoding: Encoding) -> str:  # noqa: ARG001 - whatever it is
    return "ncnn quantizes no input at run time here"
