"""From a skeleton, weights and encodings to the bytes of a .pte file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Dynamic, Encoding, Encodings, Float
from haversack.base.errors import ConversionError, Fault
from haversack.base.graph import Node
from haversack.base.keys import split_tensor
from haversack.base.model import Model, Port
from haversack.targets.executorch import parse
from haversack.targets.executorch.constraints import constraints
from haversack.targets.executorch.integers import NARROW, Writer
from haversack.targets.executorch.pads import fold
from haversack.targets.executorch.sheet import Finished, Sheet
from haversack.targets.executorch.skeleton import PICK, Skeleton
from haversack.targets.executorch.tables import write_tables
from haversack.tools.graph.injection import by_groups, derived, unheld
from haversack.tools.graph.law import equal, runs_in_integers
from haversack.tools.graph.roles import Role, Unit, is_product, role, units

FORMAT = 1
_PADS = frozenset({"pad", "constant_pad_nd"})

_ODD = "XNNPACK computes rows of odd length wrongly on some processors where weights have 4 bits"
"""Where inputs are integers, fixed beforehand (AVX-512 VNNI) or at run time; weights alone in 4 bits are right."""


@dataclass(frozen=True)
class Written:
    """A file, not yet on disk.

    Attributes:
        data: the .pte file.
        tensor_names: activation tensor key -> ``delegate/value``: of the codes where it is encoded.
        absorbed: encoded tensor key -> name of the codes that serve it, for tensors that the file does not have.
        biases: node key -> (codes, scale).
    """

    data: bytes
    tensor_names: Mapping[str, str]
    absorbed: Mapping[str, str]
    biases: Mapping[str, tuple[np.ndarray, np.ndarray]]


def write(skeleton: Skeleton, model: Model, encodings: Encodings) -> Written:
    """Return the file of a model with encodings.

    Raises:
        ConversionError: encodings that have no place in the file, all of them at once.
    """
    ops = constraints(model.graph).integer_ops
    whole = {unit.head.key: unit for unit in units(model.graph) if runs_in_integers(unit, encodings, ops)}
    try:
        biases = derived(model, encodings, ops)
    except ValueError as error:
        raise ConversionError(str(error), where=model.name, next_step="encode the model again") from error
    present = {owner for part in skeleton.parts for owner in part.owners}
    _raise(
        model,
        [
            *_faults(model, encodings, whole),
            *_unreached(model, encodings, skeleton, present),
            *_normed(model, encodings, {*present, *skeleton.alone}),
        ],
    )
    names: dict[str, str] = {}
    layers: dict[str, str] = {}
    finished = []
    done: set[str] = set()
    sheets = [Sheet(part, model.weights) for part in skeleton.parts]
    keep = _staying(model, encodings)
    nodes = [fold(s, list(zip(copy.deepcopy(s.part.graph.xnodes), s.part.owners, strict=True)), keep) for s in sheets]
    grids, served = _grids(model, encodings, {owner for each in nodes for _, owner in each})
    for number, sheet in enumerate(sheets):
        writer = Writer(sheet, model, encodings, whole=whole, biases=biases, grids=grids)
        writer.write(nodes[number])
        made = sheet.finish()
        finished.append(made)
        done |= writer.done
        layers |= {f"{number}/{index}": owner for index, (_, owner) in enumerate(sheet.nodes) if owner}
        for key, value in writer.names.items():
            if value in made.values:
                names.setdefault(f"{key}:out", f"{number}/{made.values[value]}")
    heads = [key for key, unit in whole.items() if role(unit.head) in (Role.LAYER, Role.ADD, Role.MEAN)]
    _raise(model, [Fault(key, "XNNPACK does not take it in integers") for key in heads if key not in done])
    absorbed = _absorbed(model, encodings, names, served)
    lost = [
        n.out for n in model.graph.nodes if encodings.affine(n.out) and n.out not in names and n.out not in absorbed
    ]
    _raise(model, [Fault(key, "the file has no tensor for it, so it cannot be encoded") for key in lost])
    held = {k: v for k, v in names.items() if (encodings.affine(k) is None) == (split_tensor(k)[0] not in grids)}
    return Written(_file(skeleton, finished, model, layers, encodings), held, absorbed, biases)


def _raise(model: Model, faults: list[Fault]) -> None:
    if faults:
        raise ConversionError(
            "ExecuTorch with XNNPACK cannot hold these encodings",
            where=model.name,
            faults=tuple(faults),
            next_step="encode the model under this target's constraints",
        )


def _grids(model: Model, encodings: Encodings, present: set[str]) -> tuple[dict[str, Affine], dict[str, str]]:
    """Return (node key -> encoding its output gets, node key that left the graph -> node key that serves it)."""
    grids = {node.key: one for node in model.graph.nodes if (one := encodings.affine(node.out)) is not None}
    served: dict[str, str] = {}
    for node in reversed(model.graph.nodes):
        if node.key in present or role(node) is not Role.SAME or len(node.inputs) != 1:
            continue
        source = node.inputs[0]
        served[node.key] = source
        alone = len(model.graph.consumers[source]) == 1 and source not in model.graph.outputs
        if node.key in grids and source not in grids and alone:
            grids[source] = grids[node.key]
    return grids, served


def _staying(model: Model, encodings: Encodings) -> frozenset[str]:
    """Return the pads that cannot be folded: their output has an encoding that their input cannot have as well."""
    found = set()
    for node in model.graph.nodes:
        if node.op in _PADS:
            before, after = encodings.affine(f"{node.inputs[0]}:out"), encodings.affine(node.out)
            alone = len(model.graph.consumers[node.inputs[0]]) == 1 and node.inputs[0] not in model.graph.outputs
            same = before is not None and after is not None and equal(before, after)
            if not same and not (before is None and (alone or after is None)):
                found.add(node.key)
    return frozenset(found)


def _absorbed(
    model: Model, encodings: Encodings, names: Mapping[str, str], served: Mapping[str, str]
) -> dict[str, str]:
    """Return the encoded tensors that another's codes serve."""
    found = {}
    for node in model.graph.nodes:
        source = node.key
        if encodings.affine(node.out) is None or node.out in names:
            continue
        while f"{source}:out" not in names and source in served:
            source = served[source]
        if f"{source}:out" in names:
            found[node.out] = names[f"{source}:out"]
    return found


def _file(
    skeleton: Skeleton, finished: list[Finished], model: Model, layers: Mapping[str, str], encodings: Encodings
) -> bytes:
    """Return the container with graphs and constants in it."""
    from executorch.exir._serialize._named_data_store import NamedDataStoreOutput
    from executorch.exir._serialize._program import PTEFile, serialize_pte_binary
    from executorch.exir._serialize.data_serializer import DataEntry

    program = copy.deepcopy(skeleton.container.program)
    order = {str(part.number).encode(): made for part, made in zip(skeleton.parts, finished, strict=True)}
    for blob in program.backend_delegate_data:
        blob.data = order[bytes(blob.data)].payload
    places: dict[bytes, int] = {}
    entries = {
        name: DataEntry(places.setdefault(one, len(places)), 16, None)
        for made in finished
        for name, one in made.data.items()
    }
    named = NamedDataStoreOutput(list(places), entries, {})
    about = {
        "format": FORMAT,
        "alone": _floats(skeleton, model),
        "tables": write_tables(program, skeleton.tables, encodings),
        "inputs": [_port(port) for port in model.inputs],
        "outputs": [_port(port) for port in model.outputs],
        "layers": dict(sorted(layers.items())),
    }
    for plan in program.execution_plan:
        if plan.name == parse.ABOUT:
            plan.values[0].val.string_val = json.dumps(about, separators=(",", ":"), sort_keys=True)
    return bytes(serialize_pte_binary(PTEFile(program, skeleton.container.mutable_data, named), segment_alignment=16))


def _floats(skeleton: Skeleton, model: Model) -> dict[str, str]:
    """Return node key -> op of what computes or moves floats outside of XNNPACK."""
    alone = [model.graph.by_key[key] for key in skeleton.alone]
    return {node.key: node.op for node in alone if node.output.dtype == "float32"}


def _port(port: Port) -> list[Any]:
    return [port.name, list(port.spec.shape), port.spec.dtype]


def _unreached(model: Model, encodings: Encodings, skeleton: Skeleton, present: set[str]) -> Iterator[Fault]:
    """Yield encodings of what runs outside of XNNPACK and is read there too: no codes can be put between them."""
    alone = set(skeleton.alone) - present
    alone |= {node.key for node in model.graph.nodes if node.op == PICK and node.inputs[0] in alone}
    for key in sorted(encodings.tensors):
        node, port = split_tensor(key)
        read = {reader.key for reader in model.graph.consumers[node]}
        outside = node in model.graph.outputs or bool(read & alone)
        table = port == "weight" and node in skeleton.tables
        encoded = isinstance(encodings.tensors[key], Affine | BlockAffine)
        if node in alone and encoded and (port == "weight" or outside) and not table:
            yield Fault(key, "XNNPACK does not take this layer, so it stays in float32")


def _normed(model: Model, encodings: Encodings, present: set[str]) -> Iterator[Fault]:
    """Yield encodings of layers that ExecuTorch has folded a batch norm into: their weight is no longer the model's."""
    for node in model.graph.nodes:
        if "batch_norm" not in node.op or node.key in present:
            continue
        for key in (f"{node.inputs[0]}:weight", f"{node.inputs[0]}:out", node.out):
            if isinstance(encodings.tensors.get(key), Affine | BlockAffine):
                yield Fault(key, f"ExecuTorch folds the batch norm {node.key} into its layer: fold it before encoding")


def _faults(model: Model, encodings: Encodings, whole: Mapping[str, Unit]) -> Iterator[Fault]:
    """Yield what this target's files cannot hold."""
    inside = {unit.head.key for unit in whole.values() if unit.clamp is not None}
    kernels = constraints(model.graph)
    found = list(unheld(model, encodings, inside, by_groups(_weight_fault, encodings, kernels.groups), _input_fault))
    told = {fault.where for fault in found}
    yield from found
    narrow = {key for key, widths in kernels.widths.items() if NARROW in widths}
    for key in sorted(encodings.tensors.keys() - told):
        weight = encodings.affine(key)
        node_key, port = split_tensor(key)
        if port == "weight" and weight is not None and weight.bits == NARROW and node_key not in narrow:
            node = model.graph.by_key[node_key]
            if not is_product(model.graph, node):
                yield Fault(key, "only linear layers and plain 1x1 convolutions have kernels for 4 bits")
            elif encodings.affine(f"{node.inputs[0]}:out") is not None:
                yield Fault(key, _ODD)
    for key in sorted(encodings.tensors.keys() - told):
        node_key, port = split_tensor(key)
        weight = encodings.affine(f"{node_key}:weight")
        if port != "in" or weight is None:
            continue
        if weight.axis is None:
            yield Fault(key, "an input quantized at run time needs an integer weight with a scale for each row")
        elif weight.bits == NARROW and node_key not in narrow:
            yield Fault(key, _ODD)


def _weight_fault(node: Node, encoding: Encoding) -> str:
    if role(node) is not Role.LAYER:
        return _table_fault(encoding) if node.op == "embedding" else f"the weight of {node.op} stays in float32"
    if isinstance(encoding, Float):
        return "" if encoding.dtype == "float32" else "XNNPACK has no kernels for float16 weights on this path"
    if not isinstance(encoding, Affine):
        return f"a weight is held as Affine, not as {type(encoding).__name__}"
    if encoding.bits not in (NARROW, 8) or not encoding.signed or encoding.zero_point.any():
        return "a weight is held as symmetric int8 or int4"
    return "" if encoding.axis in (None, 0) else f"the scales of a weight go along axis 0, not {encoding.axis}"


def _table_fault(encoding: Encoding) -> str:
    if isinstance(encoding, Float) and encoding.dtype == "float32":
        return ""
    rows = isinstance(encoding, Affine) and (encoding.bits, encoding.signed, encoding.axis) == (8, True, 0)
    return "" if rows else "a table is held as symmetric int8 with a scale for each row"


def _input_fault(node: Node, encoding: Encoding) -> str:
    if not isinstance(encoding, Dynamic):
        return "only Dynamic says something about what a node reads"
    if node.op != "linear" or encoding.bits != 8:
        return "only a linear layer's input is quantized at run time, to 8 bits"
    return ""
