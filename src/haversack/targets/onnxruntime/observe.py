"""What ONNX Runtime makes of a file: which layers it fused, how long each takes, and what flows between them."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from haversack.base.model import Sample
from haversack.targets.onnxruntime.naming import CODES, key_of, key_within
from haversack.targets.onnxruntime.session import options, ports, start

_FLOAT_LAYERS = frozenset(
    {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Add", "GlobalAveragePool"}
)
_LAYERS = frozenset({"Conv", "Gemm", "Add", "GlobalAveragePool"})


def unfused(path: Path, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Return keys of layers that stand between DQ and Q in the file and are computed in float all the same."""
    import onnx

    meant = _meant_for_integers(onnx.load(path).graph)
    with tempfile.TemporaryDirectory() as folder:
        chosen = options(settings, 1)
        chosen.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        start(str(path), chosen, str(path))
        made = onnx.load(chosen.optimized_model_filepath).graph
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

    graph = onnx.load(path, load_external_data=False).graph
    known = frozenset(filter(None, (key_of(node.name) for node in graph.node)))
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
    for total in _by_call(events, known)[-runs:]:
        for key, seconds in total.items():
            calls[key].append(seconds)
    return {key: median(each + [0.0] * (runs - len(each))) for key, each in sorted(calls.items())}


def _by_call(events: Sequence[Mapping[str, object]], known: frozenset[str]) -> list[Counter[str]]:
    """Return node key -> seconds for each call, in order (an event ``model_run`` covers the kernels of one)."""
    runs = sorted((e for e in events if e.get("name") == "model_run"), key=_begin)
    kernels = sorted(
        (e for e in events if e.get("cat") == "Node" and str(e["name"]).endswith("_kernel_time")), key=_begin
    )
    found: list[Counter[str]] = []
    for run in runs:
        begin, end = _begin(run), _begin(run) + float(run["dur"])  # type: ignore[arg-type]  # microseconds
        total: Counter[str] = Counter()
        for event in kernels:
            if begin <= _begin(event) < end:
                name = str(event["name"]).removesuffix("_kernel_time")
                total[key_within(name, known)] += float(event["dur"]) * 1e-6  # type: ignore[arg-type, assignment]
        found.append(total)
    return found


def _begin(event: Mapping[str, object]) -> float:
    return float(event["ts"])  # type: ignore[arg-type]  # microseconds


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
    data: onnx.ModelProto = ir.to_proto(model)
    session = start(data.SerializeToString(), options(settings, 1), str(path))
    feeds = {port.name: array for port, array in zip(ports(session.get_inputs()), inputs, strict=True)}
    wanted = [name for name in dict.fromkeys(shown.values()) if name not in feeds]
    found = feeds | (dict(zip(wanted, session.run(wanted, feeds), strict=True)) if wanted else {})
    return {key: np.asarray(found[name]) for key, name in shown.items()}
