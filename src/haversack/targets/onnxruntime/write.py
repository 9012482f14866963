"""From a skeleton, weights and encodings to the bytes of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haversack.base.encodings import Affine, Codebook, Dynamic, Encoding, Encodings, Float
from haversack.base.errors import ConversionError, Fault
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.base.plan import GROUPS, NARROW
from haversack.targets.onnxruntime.attention import write_attention
from haversack.targets.onnxruntime.integers import Codes, write_unit
from haversack.targets.onnxruntime.palettes import palette_fault
from haversack.targets.onnxruntime.stored import write_layer
from haversack.tools.graph.demands import demands
from haversack.tools.graph.injection import by_groups, unheld
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.onnx.held import held
from haversack.tools.graph.onnx.naming import key_of
from haversack.tools.graph.onnx.pools import is_open
from haversack.tools.graph.onnx.sheet import Sheet
from haversack.tools.graph.onnx.skeleton import Skeleton
from haversack.tools.graph.roles import Role, role, units

if TYPE_CHECKING:
    import onnx_ir as ir

_REQUANTIZED = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operators whose float weights ONNX Runtime quantizes by itself between codes."""


@dataclass(frozen=True)
class Written:
    """A file, not yet on disk.

    Attributes:
        data: the ONNX model.
        opset: version of its operators.
        tensor_names: activation tensor key -> its name in the file: of the codes where it is encoded.
        absorbed: encoded tensor key -> name of the codes that serve it, for tensors that the file does not have.
    """

    data: bytes
    opset: int
    tensor_names: Mapping[str, str]
    absorbed: Mapping[str, str]


def write(skeleton: Skeleton, model: Model, encodings: Encodings) -> Written:
    """Return the file of a model with encodings.

    Raises:
        ConversionError: encodings that have no place in the file, all of them at once; or a layer that was exported
            in a form without an integer kernel.
    """
    places = held(skeleton, model, encodings)
    ops = demands(model.graph).integer_ops
    whole = {unit.last.key: unit for unit in units(model.graph) if runs_in_integers(unit, encodings, ops)}
    inside = {unit.head.key for unit in whole.values() if unit.clamp is not None}
    open_ends = [
        Fault(node.out, "how far the last window of this pool reaches is not known before the lengths are")
        for node in model.graph.nodes
        if encodings.affine(node.out) is not None and is_open(model.graph, node)
    ]
    groups = demands(model.graph, groups=GROUPS).groups
    weights = by_groups(_weight_fault, encodings, groups)
    faults = [*unheld(model, encodings, inside, weights, _input_fault), *places.faults, *open_ends]
    if faults:
        raise ConversionError(
            "ONNX Runtime cannot hold these encodings",
            where=model.name,
            faults=tuple(faults),
            next_step="encode the model under this target's constraints",
        )
    sheet = Sheet(skeleton, model)
    codes = Codes(sheet, encodings)
    for node in model.graph.nodes:
        source = skeleton.source(node.key)
        if source != node.key:
            if source in codes.codes:
                codes.share(node.key, source)
        elif node.key in whole:
            write_unit(codes, whole[node.key])
        elif node.key not in inside:
            _write_float(codes, node, skeleton, places.encodings.get(node.key))
    write_attention(sheet)
    data = sheet.finish(model.weights)
    names = _names(codes, skeleton)
    absorbed = {key: str(codes.codes[source].name) for key, source in places.absorbed.items() if key not in names}
    return Written(data, sheet.opset, names, absorbed)


def _write_float(codes: Codes, node: Node, skeleton: Skeleton, out: Affine | None) -> None:
    """Write a node that runs in float: its stored weight, and its output's codes if it has an encoding."""
    weight = codes.encodings.tensors.get(f"{node.key}:weight")
    if weight is not None and weight != Float("float32"):
        write_layer(codes.sheet, node, codes.encodings, _read(codes, node, skeleton))
    _keep_float(codes, node, skeleton)
    if out is not None:
        codes.adopt(node.key, out, codes.quantized(node.key, out, codes.sheet.floats[node.key]))


def _keep_float(codes: Codes, node: Node, skeleton: Skeleton) -> None:
    """Let a node that reads codes read them so that ONNX Runtime leaves its weight and bias in float.

    Its WeightBiasQuantization takes a float weight between DequantizeLinear and QuantizeLinear for a forgotten one,
    and quantizes it by one scale in all; it does so only where the scale of what is read is one number.
    """
    for source in {skeleton.source(key) for key in node.inputs} & codes.values.keys():
        readers = [
            use.node
            for use in codes.values[source].uses()
            if use.idx == 0 and use.node.op_type in _REQUANTIZED and key_of(use.node.name or "") == node.key
        ]
        value = codes.by_channel(source, node.key) if readers else None
        for reader in readers:
            reader.replace_input_with(0, value)


def _read(codes: Codes, node: Node, skeleton: Skeleton) -> ir.Value:
    """Return what a layer reads; the indices of an embedding may be constants, which no node of ours computes."""
    source = skeleton.source(node.inputs[0]) if node.inputs else ""
    if source in codes.values or source in codes.sheet.floats:
        return codes.values.get(source) or codes.sheet.floats[source]
    indices = codes.sheet.only(node.key, "Gather").inputs[1]
    assert indices is not None, f"{node.key}: a Gather without indices"
    return indices


def _names(codes: Codes, skeleton: Skeleton) -> dict[str, str]:
    """Return tensor key -> name, for values that are in the file, and for what merely passes such a value on."""
    sheet, graph = codes.sheet, codes.sheet.model.graph
    present = {value.name for value in sheet.graph.inputs}
    present |= {value.name for node in sheet.graph for value in node.outputs}
    found: dict[str, str] = {}
    for node in graph.nodes:
        source = skeleton.source(node.key)
        asked, given = (codes.encodings.affine(f"{key}:out") is not None for key in (node.key, source))
        value = codes.codes.get(source) if given else sheet.floats.get(source)
        passes = source == node.key or graph.by_key[source].output == node.output
        if value is not None and asked == given and passes and value.name in present:
            found[node.out] = str(value.name)
    return found


def _weight_fault(node: Node, encoding: Encoding) -> str:
    if role(node) not in (Role.LAYER, Role.EMBEDDING):
        return f"the weight of {node.op} stays in float32"
    if isinstance(encoding, Float):
        return "" if encoding.dtype in ("float32", "float16") else f"{encoding.dtype} is not known"
    if isinstance(encoding, Codebook):
        return palette_fault(node, encoding)
    if not isinstance(encoding, Affine):
        return f"a weight is held as Affine, Codebook or float16, not as {type(encoding).__name__}"
    widths = {8} if role(node) is Role.EMBEDDING else NARROW | {8}
    if encoding.bits not in widths or not encoding.signed or encoding.zero_point.any():
        return "a weight is held as symmetric int8, or in 1 to 7 bits in a layer"
    return "" if encoding.axis in (None, 0) else f"the scales of a weight go along axis 0, not {encoding.axis}"


def _input_fault(node: Node, encoding: Encoding) -> str:
    if not isinstance(encoding, Dynamic):
        return "only Dynamic says something about what a node reads"
    if node.op != "linear" or encoding.bits != 8:
        return "only a linear layer's input is quantized at run time, to 8 bits"
    return ""
