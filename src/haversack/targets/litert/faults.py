"""What a LiteRT file cannot hold, told before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from haversack.base.encodings import Affine, Encoding, Encodings, Float
from haversack.base.errors import Fault
from haversack.base.graph import Node
from haversack.base.keys import split_tensor
from haversack.base.model import Model
from haversack.targets.litert.constraints import constraints
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.roles import Role, Unit, role, units
from haversack.tools.numerics import affine

_BITS = (4, 8)
_MOST = 256.0


def faults(model: Model, encodings: Encodings) -> tuple[Fault, ...]:
    """Return every encoding that has no place in a file; empty when all have."""
    ops = constraints(model.graph).integer_ops
    whole = [unit for unit in units(model.graph) if runs_in_integers(unit, encodings, ops)]
    inside = {unit.head.key for unit in whole if unit.clamp is not None}
    return (*_found(model, encodings, inside), *_multipliers(whole, encodings))


def _multipliers(whole: Iterable[Unit], encodings: Encodings) -> Iterator[Fault]:
    """Yield layers whose accumulator would be multiplied by more than XNNPACK takes: it refuses the whole file."""
    for unit in whole:
        keys = (f"{unit.head.inputs[0]}:out", f"{unit.head.key}:weight", unit.out)
        source, weight, out = (encodings.affine(key) for key in keys)
        if source is None or weight is None or out is None:
            continue
        largest = float(affine.multiplier(source.scale, weight.scale, out.scale).max())
        if largest >= _MOST:
            cause = f"scale_in * scale_weight / scale_out is {largest:.3g}, and XNNPACK takes less than {_MOST:g}"
            yield Fault(unit.head.key, cause)


def _found(model: Model, encodings: Encodings, inside: set[str]) -> Iterator[Fault]:
    for key, encoding in sorted(encodings.tensors.items()):
        node_key, port = split_tensor(key)
        node = model.graph.by_key[node_key]
        cause = {"out": _activation, "weight": _weight, "in": _input}[port](node, encoding)
        if not cause and port == "out" and node_key in inside and isinstance(encoding, Affine):
            cause = "it is inside a fused unit: only what leaves the clamp behind it can be encoded"
        if not cause and port == "in" and encodings.affine(f"{node_key}:weight") is None:
            cause = "an input quantized at run time needs an int8 weight"
        if cause:
            yield Fault(key, cause)


def _activation(node: Node, encoding: Encoding) -> str:
    if isinstance(encoding, Float) and encoding.dtype == "float32":
        return "float32 is what a tensor without an encoding has: leave it out"
    if not isinstance(encoding, Affine):
        return f"an activation is held as Affine, not as {type(encoding).__name__}"
    if (encoding.bits, encoding.signed, encoding.axis) != (8, False, None):
        return "an activation is held as uint8 with one scale"
    return "" if node.output.dtype == "float32" else f"a tensor of {node.output.dtype} has no codes"


def _weight(node: Node, encoding: Encoding) -> str:
    if role(node) not in (Role.LAYER, Role.EMBEDDING):
        return f"the weight of {node.op} stays in float32"
    if isinstance(encoding, Float):
        return ""
    if not isinstance(encoding, Affine):
        return f"a weight is held as Affine or float16, not as {type(encoding).__name__}"
    if not encoding.signed or encoding.bits not in _BITS or (encoding.bits == 4 and role(node) is Role.EMBEDDING):
        return "a weight is held as symmetric int8, or int4 in a layer"
    return "" if encoding.axis in (None, 0) else f"the scales of a weight go along axis 0, not {encoding.axis}"


def _input(node: Node, encoding: Encoding) -> str:
    if type(encoding).__name__ != "Dynamic":
        return "only Dynamic says something about what a node reads"
    if node.op != "linear" or getattr(encoding, "bits", 0) != 8:
        return "only a linear layer's input is quantized at run time, to 8 bits"
    return ""
