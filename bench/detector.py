"""A detector's head: boxes in pixels beside scores up to 1, in one output. Ours, and the peer's plain recipe."""

from __future__ import annotations

import numpy as np
from accounting import ROOT, Packed, Row, pack
from peers import quantize

from haversack import load
from haversack.base.job import Job
from haversack.measure.device import Opening
from haversack.measure.local import LocalDevice

JOB = "examples/detector.py"
THREE = ("onnxruntime", "litert", "executorch")
KEPT, FALLS = 0.97, 0.60
"""Of float's quality: what ours must keep, and what the plain recipe falls below."""


def run() -> tuple[Packed, list[Row]]:
    """Pack the detector for three runtimes, and return the run with its figures."""
    packed = pack("detector", JOB, "size=200kB,drop=2pt", THREE, allow=["slower-than-float"])
    differing, compared = packed.differing(THREE)
    whole = packed.report["baseline"]["value"]
    found = [_row(packed, target, whole) for target in THREE]
    found.append(
        Row("output values that differ between any two of the three", "0", f"{differing} of {compared}", differing == 0)
    )
    return packed, [*found, _plain(packed)]


def _row(packed: Packed, target: str, whole: float) -> Row:
    best = packed.best_of(target)
    value, size = best["quality"]["value"], best["artifact"]["bytes"]
    text = f"{value / whole:.1%} ({value:.1%} of {whole:.1%}), {size / 1e3:.1f} kB"
    return Row(f"{target}: quality, of float's", f"≥ {KEPT:.0%}", text, value >= KEPT * whole)


def _plain(packed: Packed) -> Row:
    """Return what ONNX Runtime's quantize_static keeps on the same pictures, the untouched half."""
    job = load.open_job(str(ROOT / JOB))
    floats = packed.out / ".haversack" / "float" / "onnxruntime" / "model.onnx"
    options = packed.best["artifact"]["session_options"]
    quantize(job, floats, packed.out, "MinMax", options)
    mine, exact = (_right(job, path, options) for path in (packed.out / "peer-MinMax.onnx", floats))
    text = f"{mine / exact:.1%} of float's"
    return Row("ONNX Runtime's quantize_static, MinMax", "told", text, met=True)


def _right(job: Job, path: object, options: dict[str, str]) -> float:
    """Return the fraction of pictures of the untouched half in which a file finds the digit."""
    assert callable(job.metric), "the job brings its own metric"
    rows = []
    with LocalDevice() as device:
        handle = device.load(Opening(path, "onnxruntime", options))  # type: ignore[arg-type]
        for (images,), told in job.evaluation():
            found = device.run(handle, {job.input_names[0]: images})
            rows.append(np.asarray(job.metric((next(iter(found.values())),), told)))
    return float(np.concatenate(rows)[1::2].mean())
