"""What ONNX Runtime makes of a file: which layers it fused, how long each takes, and what flows between them."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from haversack.base.model import Sample
from haversack.targets.onnxruntime.session import options, ports, start
from haversack.tools.graph.onnx.naming import CODES, key_of, key_within

_FLOAT_LAYERS = frozenset(
    {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Add", "GlobalAveragePool"}
)
_LAYERS = frozenset({"Conv", "Gemm", "Add", "GlobalAveragePool"})
_ADDED = re.compile(r"(_nchwc|_token_[0-9]+)+$")
"""What ONNX Runtime appends to the name of a tensor where it makes a node's name of it."""
_MULTIPLIERS = {
    "Conv": frozenset({"Conv"}),
    "Gemm": frozenset({"Gemm", "MatMul"}),
    "MatMul": frozenset({"MatMul", "Gemm", "MatMulInteger"}),
}
"""A word in a kernel's operator -> operators of the file that it computes."""


def unfused(path: Path, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Return keys of layers that stand between DQ and Q in the file and are computed in float all the same."""
    import onnx

    meant = _meant_for_integers(onnx.load(path, load_external_data=False).graph)
    with tempfile.TemporaryDirectory() as folder:
        chosen = options(settings, 1)
        chosen.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        start(str(path), chosen, str(path))
        made = onnx.load(chosen.optimized_model_filepath, load_external_data=False).graph
    known = frozenset(meant)
    found = {key_within(node.name, known) for node in made.node if node.op_type in _FLOAT_LAYERS}
    return tuple(key for key in meant if key in found)


def _meant_for_integers(graph) -> list[str]:  # type: ignore[no-untyped-def]  # noqa: ANN001 - onnx.GraphProto
    producers = {name: node.op_type for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.node:
        for name in node.input:
            readers[name].add(node.op_type)
    return [
        key_of(node.name)
        for node in graph.node
        if node.op_type in _LAYERS
        and all(producers.get(name) == "DequantizeLinear" for name in node.input)
        and readers[node.output[0]] == {"QuantizeLinear"}
    ]


def layer_seconds(path: Path, settings: Mapping[str, str], inputs: Sample, runs: int) -> dict[str, float]:
    """Return node key -> median seconds a call, from ONNX Runtime's profiler; "" for kernels without a layer."""
    import onnx

    owners = Owners(onnx.load(path, load_external_data=False).graph.node)
    calls: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        chosen = options(settings, 1)
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(Path(folder) / "profile")
        session = start(str(path), chosen, str(path))
        feeds = {port.name: array for port, array in zip(ports(session.get_inputs()), inputs, strict=True)}
        for _ in range(runs + 1):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    for total in by_call(events, owners)[-runs:]:
        for key, seconds in total.items():
            calls[key].append(seconds)
    return {key: median(each + [0.0] * (runs - len(each))) for key, each in sorted(calls.items())}


class Owners:
    """Whose kernel it is. A kernel that does a layer and the clamp behind it may bear the name of the clamp.

    Args:
        nodes: of the file (onnx.NodeProto), in order.
    """

    def __init__(self, nodes: Iterable[Any]) -> None:
        self.ops: dict[str, set[str]] = defaultdict(set)
        self.before: dict[str, list[str]] = defaultdict(list)
        self.makers: dict[str, str] = {}
        makers = self.makers
        for node in nodes:
            key = key_of(node.name)
            self.ops[key].add(node.op_type)
            for name in node.input:
                if makers.get(name, key) != key:
                    self.before[key].append(makers[name])
            makers |= dict.fromkeys(node.output, key)
        self.known = frozenset(filter(None, self.ops))

    def key(self, kernel: str, op: str) -> str:
        """Return the node key of a kernel by its name and its operator, or an empty string."""
        found = key_within(kernel, self.known) or self.makers.get(_ADDED.sub("", kernel), "")
        wanted = next((ops for word, ops in _MULTIPLIERS.items() if word in op), frozenset())
        waiting, seen = [found], {found, ""}
        while wanted and waiting:
            key = waiting.pop(0)
            if self.ops[key] & wanted:
                return key
            fresh = [each for each in self.before[key] if each not in seen]
            waiting += fresh
            seen.update(fresh)
        return found


def by_call(events: Sequence[Mapping[str, Any]], owners: Owners) -> list[Counter[str]]:
    """Return node key -> seconds for each call, in order (an event ``model_run`` covers the kernels of one)."""
    runs = sorted((e for e in events if e.get("name") == "model_run"), key=_begin)
    kernels = sorted((e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")), key=_begin)
    found: list[Counter[str]] = []
    for run in runs:
        begin, end = _begin(run), _begin(run) + float(run["dur"])
        total: Counter[str] = Counter()
        for event in kernels:
            if begin <= _begin(event) < end:
                key = owners.key(event["name"].removesuffix("_kernel_time"), event["args"]["op_name"])
                total[key] += float(event["dur"]) * 1e-6  # type: ignore[assignment]  # Counter is typed for ints
        found.append(total)
    return found


def _begin(event: Mapping[str, Any]) -> float:
    return float(event["ts"])  # microseconds


def tensors(path: Path, names: Mapping[str, str], settings: Mapping[str, str], inputs: Sample) -> dict[str, np.ndarray]:
    """Return tensor key -> array, by making tensors further outputs of a copy of the file in memory.

    Codes can be shown without changing a kernel: they leave the same fused kernels as before. Float tensors would keep
    kernels from being fused, so they are shown only where the file has no codes at all.
    """
    import onnx
    import onnx_ir as ir

    model = ir.load(path)
    values = {value.name: value for node in model.graph for value in node.outputs}
    encoded = any(node.op_type == "QuantizeLinear" for node in model.graph)
    shown: dict[str, str] = {}
    already = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for key, name in names.items():
        if encoded and not name.endswith(CODES) and name not in already:
            continue
        shown[key] = name
        if name in values and name not in already:
            values[name].type = ir.TensorType(ir.DataType.UINT8 if name.endswith(CODES) else ir.DataType.FLOAT)
            model.graph.outputs.append(values[name])
            already.add(name)
    if not shown:
        return {}
    ir.external_data.load_to_model(model)
    data: onnx.ModelProto = ir.to_proto(model)
    session = start(data.SerializeToString(), options(settings, 1), str(path))
    feeds = {port.name: array for port, array in zip(ports(session.get_inputs()), inputs, strict=True)}
    wanted = [name for name in dict.fromkeys(shown.values()) if name not in feeds]
    found = feeds | (dict(zip(wanted, session.run(wanted, feeds), strict=True)) if wanted else {})
    return {key: np.asarray(found[name]) for key, name in shown.items()}
