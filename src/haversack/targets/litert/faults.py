"""What a LiteRT file cannot hold, told before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from haversack.base.encodings import Affine, Encoding, Encodings, Float
from haversack.base.errors import Fault
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.base.plan import GROUPS
from haversack.tools.graph.demands import demands
from haversack.tools.graph.injection import by_groups, unheld
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.roles import Role, Unit, role, units
from haversack.tools.numerics import affine

_BITS = (4, 8)
_MOST = 256.0


def faults(model: Model, encodings: Encodings) -> tuple[Fault, ...]:
    """Return every encoding that has no place in a file; empty when all have."""
    ops = demands(model.graph).integer_ops
    whole = [unit for unit in units(model.graph) if runs_in_integers(unit, encodings, ops)]
    inside = {unit.head.key for unit in whole if unit.clamp is not None}
    groups = demands(model.graph, groups=GROUPS).groups
    return (
        *unheld(model, encodings, inside, by_groups(_weight, encodings, groups), _input),
        *_multipliers(whole, encodings),
    )


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
