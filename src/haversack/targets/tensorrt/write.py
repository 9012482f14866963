"""From a skeleton, weights and encodings to the bytes of an ONNX file that TensorRT's parser takes.

Our activations are uint8; this file holds int8 with zero-point 0, which are the same codes less 128. Every encoded
tensor is quantized and dequantized once, where it is made, and all who read it read what its codes mean: TensorRT
moves and fuses such pairs by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine, Encoding, Encodings
from haversack.base.errors import ConversionError, Fault
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.tools.graph.demands import demands
from haversack.tools.graph.injection import unheld
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.onnx.held import held
from haversack.tools.graph.onnx.naming import CODES, SCALE, VALUE, ZERO_POINT
from haversack.tools.graph.onnx.sheet import Sheet
from haversack.tools.graph.onnx.skeleton import Skeleton
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics.affine import MIDDLE

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Written:
    """A file, not yet on disk.

    Attributes:
        data: the ONNX model.
        tensor_names: activation tensor key -> its name in the file: of the codes where it is encoded.
        absorbed: encoded tensor key -> name of the codes that serve it, for tensors that the file does not have.
    """

    data: bytes
    tensor_names: Mapping[str, str]
    absorbed: Mapping[str, str]


def write(skeleton: Skeleton, model: Model, encodings: Encodings) -> Written:
    """Return the file of a model with encodings.

    Raises:
        ConversionError: encodings that have no place in the file, all of them at once; or a layer that was exported
            without its weight.
    """
    places = held(skeleton, model, encodings)
    ops = demands(model.graph).integer_ops
    inside = {
        unit.head.key
        for unit in units(model.graph)
        if unit.clamp is not None and runs_in_integers(unit, encodings, ops)
    }
    faults = [*unheld(model, encodings, inside, _weight, _input), *_asymmetric(encodings), *places.faults]
    if faults:
        raise ConversionError(
            "TensorRT cannot hold these encodings",
            where=model.name,
            faults=tuple(faults),
            next_step="encode the model under this target's constraints",
        )
    sheet = Sheet(skeleton, model)
    codes: dict[str, ir.Value] = {}
    for node in model.graph.nodes:
        weight = encodings.affine(f"{node.key}:weight")
        if weight is not None:
            _store(sheet, node, weight, encodings.integers[f"{node.key}:weight"])
        if (out := places.encodings.get(node.key)) is not None:
            codes[node.key] = _quantize(sheet, node.key, out)
    data = sheet.finish(model.weights)
    names = _names(sheet, skeleton, codes, encodings)
    absorbed = {key: str(codes[source].name) for key, source in places.absorbed.items() if key not in names}
    return Written(data, names, absorbed)


def _quantize(sheet: Sheet, key: str, encoding: Affine) -> ir.Value:
    """Quantize a value where it is made, let all readers read what the codes mean, and return the codes."""
    old = sheet.floats[key]
    parameters = [
        sheet.constant(f"{key}:out{SCALE}", encoding.scale),
        sheet.constant(f"{key}:out{ZERO_POINT}", np.zeros((), np.int8)),
    ]
    codes = sheet.node("QuantizeLinear", [old, *parameters], f"{key}/QuantizeLinear", f"{key}:out{CODES}")
    name = f"{key}/DequantizeLinear"
    value = sheet.node("DequantizeLinear", [codes, *parameters], name, f"{key}:out{VALUE}")
    sheet.replace(old, value, but={f"{key}/QuantizeLinear"})
    return codes


def _store(sheet: Sheet, node: Node, encoding: Affine, integers: np.ndarray) -> None:
    """Let a layer read its weight's integers through a DequantizeLinear."""
    key = f"{node.key}:weight"
    parameter = sheet.parameters[str(node.weight)]
    uses = [
        (reader, place)
        for reader in sheet.nodes.get(node.key, [])
        for place, value in enumerate(reader.inputs)
        if value is parameter
    ]
    if not uses:
        raise ConversionError(
            "it was exported without a weight of its own", where=node.key, next_step="keep this layer in float32"
        )
    axis = {} if encoding.axis is None else {"axis": encoding.axis}
    parts = [
        sheet.constant(f"{key}{CODES}", integers.astype(np.int8)),
        sheet.constant(f"{key}{SCALE}", encoding.scale),
        sheet.constant(f"{key}{ZERO_POINT}", np.zeros(encoding.scale.shape, np.int8)),
    ]
    value = sheet.node("DequantizeLinear", parts, f"{key}/DequantizeLinear", f"{key}{VALUE}", **axis)
    for reader, place in uses:
        reader.replace_input_with(place, value)


def _names(sheet: Sheet, skeleton: Skeleton, codes: Mapping[str, ir.Value], encodings: Encodings) -> dict[str, str]:
    """Return tensor key -> name, for values that are in the file, and for what merely passes such a value on."""
    graph = sheet.model.graph
    present = {value.name for value in sheet.graph.inputs}
    present |= {value.name for node in sheet.graph for value in node.outputs}
    found: dict[str, str] = {}
    for node in graph.nodes:
        source = skeleton.source(node.key)
        asked = encodings.affine(node.out) is not None
        value = codes.get(source) if asked else sheet.floats.get(source)
        passes = source == node.key or graph.by_key[source].output == node.output
        alike = asked == (encodings.affine(f"{source}:out") is not None)
        if value is not None and passes and alike and value.name in present:
            found[node.out] = str(value.name)
    return found


def _asymmetric(encodings: Encodings) -> Iterator[Fault]:
    for key, encoding in sorted(encodings.tensors.items()):
        if key.endswith(":out") and isinstance(encoding, Affine) and np.any(encoding.zero_point != MIDDLE):
            cause = f"TensorRT's codes are symmetric: zero-point {MIDDLE} (0 as int8), not {encoding.zero_point}"
            yield Fault(key, cause)


def _weight(node: Node, encoding: Encoding) -> str:
    if role(node) not in (Role.LAYER, Role.EMBEDDING):
        return f"the weight of {node.op} stays in float32"
    if not isinstance(encoding, Affine):
        return f"a weight is held as Affine, not as {type(encoding).__name__}"
    if (encoding.bits, encoding.signed) != (8, True):
        return "a weight is held as symmetric int8"
    return "" if encoding.axis in (None, 0) else f"the scales of a weight go along axis 0, not {encoding.axis}"


def _input(node: Node, encoding: Encoding) -> str:
    return f"{node.op} quantizes nothing at run time there ({type(encoding).__name__}): scales are fixed beforehand"
