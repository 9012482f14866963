"""The peer that runs here: ONNX Runtime's own static quantizer, on the same float file, pictures and interleaving."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.job import Job
from haversack.base.model import Sample
from haversack.measure import latency
from haversack.measure.device import Opening
from haversack.measure.local import LocalDevice
from haversack.tools.data.preprocess.pipeline import Pipeline

METHODS = ("MinMax", "Percentile")
MOST_ROWS = 128
"""It keeps every activation of every row that calibrates in memory, some 40 MB each of EfficientNet-Lite0."""


@dataclass(frozen=True)
class Peer:
    """What one scheme reached, on all scored pictures.

    Attributes:
        name: the scheme.
        relative_error: of the logits against float.
        agreement: fraction of pictures with float's arg-max.
        ratio: of its latency to float's, interleaved.
        bytes: of its file.
        cpu_seconds: that making it took, or None when it was made elsewhere.
    """

    name: str
    relative_error: float
    agreement: float
    ratio: float
    bytes: int
    cpu_seconds: float | None


def quantize(job: Job, floats: Path, folder: Path, method: str, options: dict[str, str]) -> Peer:
    """Quantize the float file with one calibration method, and measure the result as haversack measures its own."""
    pipeline = Pipeline.parse(job.preprocess)
    path = folder / f"peer-{method}.onnx"
    name = job.input_names[0]
    start = time.process_time()
    static(
        floats, path, ({name: row[None]} for sample in pipeline.over(job.calibration()) for row in sample[0]), method
    )
    spent = time.process_time() - start
    return measure(f"ONNX Runtime's quantize_static, {method}", path, floats, job, options, spent)


def static(
    floats: Path, path: Path, rows: Iterator[Mapping[str, np.ndarray]], method: str, activations: str = "QUInt8"
) -> None:
    """Let ``quantize_static`` write a file, from calibration data of one row each, by inputs' names, evenly thinned."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    every = list(rows)
    few = iter(every[:: max(1, len(every) // MOST_ROWS)])
    quantize_static(
        str(floats),
        str(path),
        _Reader(few),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, method),
    )


def dynamic(floats: Path, path: Path) -> None:
    """Let ``quantize_dynamic`` write a file: int8 weights, a scale for each channel.

    A session folds what transposes weights first: it takes no weight for one that a node comes before. Left to itself
    it takes ONNX's Attention for its older operator of that name, and no session opens the file.
    """
    import onnx
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole, folded, options = path.with_suffix(".whole.onnx"), path.with_suffix(".folded.onnx"), SessionOptions()
    onnx.save(onnx.load(floats), whole)  # weights beside a file are beside no other
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    InferenceSession(str(whole), options, providers=["CPUExecutionProvider"])
    kinds = ["MatMul", "Gemm", "Gather"]
    quantize_dynamic(str(folded), str(path), op_types_to_quantize=kinds, per_channel=True, weight_type=QuantType.QInt8)


def measure(
    name: str, path: Path, floats: Path, job: Job, options: dict[str, str], cpu_seconds: float | None = None
) -> Peer:
    """Score and time one file beside the float file, on all scored pictures."""
    pipeline = Pipeline.parse(job.preprocess)
    scored: list[Sample] = [pipeline(inputs) for inputs, _ in job.evaluation()]
    with LocalDevice() as device:
        mine = device.load(Opening(path, "onnxruntime", options))
        exact = device.load(Opening(floats, "onnxruntime"))
        label = job.input_names[0]
        pairs = [
            tuple(next(iter(device.run(handle, {label: sample[0]}).values())) for handle in (mine, exact))
            for sample in scored
        ]
        got, wanted = (np.concatenate(each) for each in zip(*pairs, strict=True))
        timed = latency.compare(device, mine, exact, {label: scored[0][0][:1]}, cold_ms=0.0)
    return Peer(
        name,
        float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted)),
        float((got.argmax(1) == wanted.argmax(1)).mean()),
        timed.latency.ratio,
        path.stat().st_size,
        cpu_seconds,
    )


class _Reader:
    """What quantize_static reads calibration data from: one dictionary of inputs at a time, then None."""

    def __init__(self, rows: Iterator[Mapping[str, np.ndarray]]) -> None:
        self.rows = rows

    def get_next(self) -> dict[str, Any] | None:
        """Return the next picture."""
        return next(self.rows, None)
