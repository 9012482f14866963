"""What LiteRT makes of a file: which layers XNNPACK takes, how long each lasts, and what flows between them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from haversack.base.model import Sample
from haversack.targets.litert.flat import Operator, Subgraph, Tensor, pack
from haversack.targets.litert.naming import ASKED, key_of
from haversack.targets.litert.read import LAYERS
from haversack.targets.litert.session import LiteRTSession, interpreter
from haversack.targets.litert.sheet import OFFSET
from haversack.targets.litert.unflat import File, guarded
from haversack.tools.data.codes import Grid, to_codes
from haversack.tools.data.layouts import to_file, to_model

_CALCULATE = LAYERS | {"ADD", "MEAN"}
_BORDERS = frozenset({"QUANTIZE", "TRANSPOSE"})


def unfused(path: Path) -> tuple[str, ...]:
    """Return keys of layers written for integers that XNNPACK does not take.

    Each operator that it takes becomes a node of its own when fusion is off, so what it left is told. Left to LiteRT's
    own kernels, such a layer is slow, and rounds its multiplier to a whole number first.
    """
    file = guarded(path, lambda found: found)
    meant = [
        (key_of(graph.tensors[one.outputs[0]].name), one.outputs)
        for graph in file.subgraphs[:1]
        for one in graph.operators
        if file.name(one) in _CALCULATE and file.dtype(graph.tensors[one.outputs[0]]) == "INT8"
    ]
    if not meant:
        return ()
    opened = interpreter(path, 1, str(path), experimental_disable_delegate_node_fusion=True)
    nodes = opened._get_ops_details()  # noqa: SLF001 - the one way to ask which nodes a delegate took
    taken = {int(number) for node in nodes if node["op_name"] == "DELEGATE" for number in node["outputs"]}
    return tuple(key for key, outputs in meant if not taken.issuperset(outputs))


def detours(path: Path) -> tuple[tuple[str, str], ...]:
    """Return (node key, operator) of what a file has to move, pad or convert that no layer of the model asked for.

    A QUANTIZE that reads an input, a DEQUANTIZE that makes an output or unpacks a weight, and an exchange of axes that
    the model itself does belong there. A pad does not: a convolution could do it, were its sides as LiteRT has them.
    """
    file = guarded(path, lambda found: found)
    graph = file.subgraphs[0]
    inputs, outputs = ({number for _, number in ports} for ports in (graph.inputs, graph.outputs))
    found = []
    for one in graph.operators:
        name = file.name(one)
        belongs = {
            **dict.fromkeys(("PAD", "PADV2"), False),
            "TRANSPOSE": f"/{ASKED}" in graph.tensors[one.outputs[0]].name,
            "QUANTIZE": one.inputs[0] in inputs,
            "DEQUANTIZE": one.outputs[0] in outputs or bool(graph.tensors[one.inputs[0]].buffer),
        }
        if not belongs.get(name, True):
            found.append((key_of(graph.tensors[one.outputs[0]].name), name))
    return tuple(found)


def filed(
    inputs: Sample, names: Sequence[str], layouts: Mapping[str, str], grids: Mapping[str, Grid] | None = None
) -> dict[str, np.ndarray]:
    """Return inputs by name as the file has them, codes where it has ``grids``, from the model's axes and order."""
    found = {name: to_file(array, layouts.get(name, "")) for name, array in zip(names, inputs, strict=True)}
    given = grids or {}
    return {name: to_codes(array, given[name]) if name in given else array for name, array in found.items()}


def tensors(
    path: Path, names: Mapping[str, str], layouts: Mapping[str, str], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return tensor key -> array in the model's axes, uint8 codes or float32, by further outputs of a copy of the file.

    A further output changes no kernel: what XNNPACK does together is one operator in the file already.

    Args:
        path: the file.
        names: tensor key -> name in the file.
        layouts: of tensor keys.
        inputs: by name, as the file has them.
    """
    file = guarded(path, lambda found: found)
    shown: dict[str, str] = {}
    for graph in file.subgraphs:
        numbers = {tensor.name: number for number, tensor in enumerate(graph.tensors)}
        ports = {number: port for port, number in graph.inputs} | {number: port for port, number in graph.outputs}
        for key, name in names.items():
            number = numbers[name]
            if number not in ports:
                ports[number] = f"{name} as output"
                graph.outputs.append((ports[number], number))
            shown[key] = ports[number]
    session = LiteRTSession(pack(file.subgraphs, file.buffers), 1)
    found = {**inputs, **session.run(inputs)}
    session.close()
    arrays = {}
    for key, port in shown.items():
        array = found[port]
        array = (array.astype(np.int16) + OFFSET).astype(np.uint8) if array.dtype == np.int8 else array
        arrays[key] = to_model(array, layouts.get(key, ""))
    return arrays


def layer_seconds(path: Path, inputs: Mapping[str, np.ndarray], runs: int) -> dict[str, float]:
    """Return node key -> median seconds of a file that holds only this node's operators; "" for what has no layer.

    The Python package has no profiler: each node is cut out and timed alone, with its tensors in the cache. The time
    of entering the interpreter, that of an empty call, is taken off.

    Args:
        path: the file.
        inputs: by name, as the file has them: they choose the signature.
        runs: calls that count, after one that does not.
    """
    file = guarded(path, lambda found: found)
    session = LiteRTSession(path, 1)
    graph = next(one for one in file.subgraphs if one.name == session.signature(inputs))
    session.close()
    parts: dict[str, list[Operator]] = defaultdict(list)
    for one in graph.operators:
        parts[_owner(file, graph, one)].append(one)
    enter = _timed(_empty(file), {}, runs)
    found = {}
    for key, operators in sorted(parts.items()):
        data, feeds = _alone(file, graph, operators)
        found[key] = max(_timed(data, feeds, runs) - enter, 0.0)
    return found


def _owner(file: File, graph: Subgraph, operator: Operator) -> str:
    """Return the key of the node that an operator belongs to; "" at a border between integers and floats."""
    name = graph.tensors[operator.outputs[0]].name
    op = file.name(operator)
    if op in _BORDERS or (op == "DEQUANTIZE" and not graph.tensors[operator.inputs[0]].buffer):
        return ""
    return key_of(name)


def _alone(file: File, graph: Subgraph, operators: Iterable[Operator]) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a file with some of a graph's operators, and inputs for it (zeros)."""
    chosen = list(operators)
    kinds = dict(enumerate(graph.tensors))
    made = {number for one in chosen for number in one.outputs}
    inner = {number for one in chosen for number in one.inputs if number in made}
    numbers: dict[int, int] = {-1: -1}
    part, buffers = Subgraph("part"), [b""]
    feeds: dict[str, np.ndarray] = {}
    used = dict.fromkeys(n for one in chosen for n in (*one.inputs, *one.outputs) if n >= 0)
    scales = [blocks.scales for number in used if (blocks := kinds[number].blocks) is not None]
    for number in dict.fromkeys([*scales, *used]):
        old = kinds[number]
        numbers[number] = len(part.tensors)
        place = 0
        if old.buffer:
            place = len(buffers)
            buffers.append(file.buffers[old.buffer])
        blocks = None if old.blocks is None else replace(old.blocks, scales=numbers[old.blocks.scales])
        part.tensors.append(Tensor(f"tensor{number}", old.shape, old.type, place, old.quantization, blocks=blocks))
        if not old.buffer and number not in made:
            part.inputs.append((f"input{number}", numbers[number]))
            feeds[f"input{number}"] = np.zeros(old.shape, file.dtype(old).lower())
        if number in made and number not in inner:
            part.outputs.append((f"output{number}", numbers[number]))
    for one in chosen:
        inputs, outputs = (tuple(numbers[n] for n in each) for each in (one.inputs, one.outputs))
        part.operators.append(Operator(one.code, inputs, outputs, one.options_type, one.options, one.version))
    return pack([part], buffers), feeds


def _empty(file: File) -> bytes:
    """Return a file whose one operator moves one number."""
    names = vars(file.classes.BuiltinOperator)
    float32 = int(file.classes.TensorType.FLOAT32)
    tensors = [Tensor("in", (1,), float32), Tensor("out", (1,), float32)]
    relu = Operator(int(names["RELU"]), (0,), (1,))
    return pack([Subgraph("empty", tensors, [relu], [("in", 0)], [("out", 1)])], [b""])


def _timed(data: bytes, feeds: Mapping[str, np.ndarray], runs: int) -> float:
    opened: Any = interpreter(data, 1, "a part of the file")
    places = opened.get_signature_runner().get_input_details()
    for name, array in feeds.items():
        opened.set_tensor(places[name]["index"], array)
    found = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        opened.invoke()
        found.append(time.perf_counter() - begin)
    return median(found[1:])
