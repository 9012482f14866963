"""Activations of 16 bits beside those of 8 and beside float, where a runtime has kernels for them at all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from accounting import Packed, Table, pack
from lite0 import JOB
from peers import static

from haversack import load
from haversack.tools.data.preprocess.pipeline import Pipeline

TARGETS = ("onnxruntime", "litert")
ROUNDS = 8
HEAD = ("runtime", "float, ms", "8 bits, against float", "16 bits, against float")
WORDS = """The same EfficientNet-Lite0, weights of 8 bits. For LiteRT our int8 file is given activations of 16 bits and
sums of 64 (the 16x8 kernels of its own; XNNPACK has none); for ONNX Runtime its `quantize_static` writes them, and the
session computes in float what has no kernel. XNNPACK, and so ExecuTorch, has no such type at all. Single thread, calls
interleaved."""


def tables() -> list[Table]:
    """Return one table: a row for each runtime that opens a file with such activations."""
    packed = pack("lite0-sixteen", JOB, "size=5.2MB,drop=1pt", TARGETS, effort="fast")
    rows = [_row("onnxruntime", _onnxruntime(packed)), _row("litert", _litert(packed))]
    return [Table("Activations of 16 bits", WORDS, HEAD, tuple(rows))]


def _row(name: str, calls: Mapping[str, Callable[[], object]]) -> tuple[str, ...]:
    took: dict[str, list[float]] = {kind: [] for kind in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for kind, call in calls.items():
            start = time.perf_counter()
            call()
            took[kind].append(time.perf_counter() - start)
    full = took["float"]
    against = {
        kind: statistics.median(mine / other for mine, other in zip(took[kind], full, strict=True)) for kind in took
    }
    return (name, f"{1e3 * statistics.median(full):.1f}", f"x{against['8']:.2f}", f"x{against['16']:.2f}")


def _files(packed: Packed, target: str) -> tuple[Path, Path]:
    """Return the float file and the int8 file for a target."""
    (floats,) = (packed.out / ".haversack" / "float" / target).glob("model.*")
    return floats, packed.opened(target)[0].path


def _onnxruntime(packed: Packed) -> dict[str, Callable[[], object]]:
    import onnxruntime as ort

    floats, narrow = _files(packed, "onnxruntime")
    wide, job = packed.out / "wide.onnx", load.open_job(JOB)
    (name,) = job.input_names
    samples = Pipeline.parse(job.preprocess).over(job.calibration())
    rows = ({name: row[None]} for sample in samples for row in sample[0][:1])
    static(floats, wide, rows, "MinMax", "QInt16")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    found: dict[str, Callable[[], object]] = {}
    for kind, path in {"float": floats, "8": narrow, "16": wide}.items():
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        port = session.get_inputs()[0]
        image = {port.name: np.zeros((1, *port.shape[1:]), np.uint8 if "uint8" in port.type else np.float32)}
        found[kind] = lambda session=session, image=image: session.run(None, image)  # type: ignore[misc]
    return found


def _litert(packed: Packed) -> dict[str, Callable[[], object]]:
    from ai_edge_litert.interpreter import Interpreter

    floats, narrow = _files(packed, "litert")
    wide = packed.out / "wide.tflite"
    wide.write_bytes(widened(narrow.read_bytes()))
    found: dict[str, Callable[[], object]] = {}
    for kind, path in {"float": floats, "8": narrow, "16": wide}.items():
        opened = Interpreter(str(path), num_threads=1)
        opened.allocate_tensors()
        for port in opened.get_input_details():
            opened.set_tensor(port["index"], np.zeros(port["shape"], port["dtype"]))
        found[kind] = opened.invoke
    return found


def widened(data: bytes) -> bytes:
    """Return an int8 LiteRT file with activations of 16 bits over the same ranges, and biases of 64 bits."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(data), 0))
    kinds, (graph,) = schema.TensorType, model.subgraphs
    made = {index for operator in graph.operators for index in operator.outputs} | set(graph.inputs)
    for index in made:
        tensor = graph.tensors[index]
        if tensor.type in (kinds.INT8, kinds.UINT8) and tensor.quantization.scale is not None:
            step, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
            low, high = (-128, 127) if tensor.type == kinds.INT8 else (0, 255)
            most = max(abs(low - zero), abs(high - zero)) * step
            tensor.quantization.scale = np.array([most / 32767], np.float32)
            tensor.quantization.zeroPoint = np.array([0], np.int64)
            tensor.type = kinds.INT16
    for operator in graph.operators:
        if len(operator.inputs) == 3 and graph.tensors[operator.inputs[2]].type == kinds.INT32:
            source, weight, bias = (graph.tensors[index] for index in operator.inputs)
            scale = np.asarray(weight.quantization.scale) * source.quantization.scale[0]
            codes = np.frombuffer(np.asarray(model.buffers[bias.buffer].data, np.uint8).tobytes(), np.int32)
            wide = np.rint(codes * np.asarray(bias.quantization.scale) / scale).astype(np.int64)
            model.buffers[bias.buffer].data = np.frombuffer(wide.tobytes(), np.uint8)
            bias.type, bias.quantization.scale = kinds.INT64, scale.astype(np.float32)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
