"""Lite0 with 1x1 convolutions and classifier in 4 bits, on three runtimes beside the same in 8."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from accounting import ROOT, WORK, Packed, Row, meanwhile, pack

from haversack import load, metrics
from haversack.base.budget import parse
from haversack.base.constraints import Constraints
from haversack.base.model import Model, Sample
from haversack.base.plan import Plan, Precision, Step
from haversack.base.recipe import FORMAT, Recipe, write
from haversack.choose.options import CLIPPED, FULL
from haversack.compress.plans import uniform
from haversack.flow.data import Data
from haversack.flow.effort import EFFORTS
from haversack.measure import latency
from haversack.measure.local import LocalDevice
from haversack.targets.contract import SHELF
from haversack.tools.data.layouts import to_file

JOB = "examples/efficientnet_lite0.py"
BUDGET = "size=2.9MB,latency=0.65x"
RATIOS = {"onnxruntime": 0.55, "litert": 0.55, "executorch": 0.65}
"""Target -> what its latency may be of its float file's."""
FAST, HIGH = (EFFORTS[name].rounding for name in ("fast", "high"))
LEAST = 0.86
"""Top-1 of the 4-bit files on the pictures that are scored."""
FEW = "40"
"""Pictures of the 8-bit run, whose files are only timed."""


def run() -> tuple[Packed, list[Row]]:
    """Pack both widths and return the run in 4 bits with its figures."""
    job = load.open_job(str(ROOT / JOB))
    data = Data(job, None, metrics.resolve(job.metric))
    first = data.look()
    model = load.export(data.prepared_job(), batch=first)
    with few_pictures(FEW):
        wide = pack("lite0-w8a8", str(_recipe(model, "int8").relative_to(ROOT)), BUDGET, tuple(RATIOS))
    narrow = pack("lite0-w4a8", str(_recipe(model, "w4a8").relative_to(ROOT)), BUDGET, tuple(RATIOS))
    sample = data.first()
    return narrow, [row for target in RATIOS for row in _rows(narrow, wide, target, sample)]


def _recipe(model: Model, precision: Precision) -> Path:
    """Write a recipe in which every layer has a precision, or the nearest that all three targets keep fast.

    Weights of 4 bits are rounded as ``--effort high`` does; the files of 8 bits are only timed.
    """
    demands = Constraints.union(SHELF.build(name).constraints(model.graph) for name in RATIOS)
    layers = uniform(
        model.graph,
        precision,
        weights=FULL if precision == "int8" else CLIPPED,
        integer_ops=demands.integer_ops,
        widths=demands.widths,
    )
    prepare = (Step("fold_norm"), FAST if precision == "int8" else HIGH)
    plans = tuple(Plan(name, layers, prepare, Step("mse"), tuple(RATIOS)) for name in RATIOS)
    path = WORK / f"{precision}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Recipe(FORMAT, str(ROOT / JOB), "", parse(BUDGET), plans), path)
    return path


def few_pictures(count: str) -> AbstractContextManager[None]:
    """Let jobs take few pictures inside."""
    return meanwhile("HAVERSACK_IMAGES", count)


def _rows(narrow: Packed, wide: Packed, target: str, sample: Sample) -> list[Row]:
    best = narrow.best_of(target)
    parity, cost = best["parity"], best["latency"]
    size = best["artifact"]["bytes"]
    beside = _beside(narrow, wide, target, sample)
    figure = f"Lite0 4-bit, {target}"
    return [
        Row(f"{figure}: file", "≤ 2.9 MB", f"{size / 1e6:.3f} MB", size <= 2.9e6),
        Row(
            f"{figure}: latency against float",
            f"≤ x{RATIOS[target]}",
            f"x{cost['ratio']:.3f} (quartiles {cost['ratio_low']:.3f} to {cost['ratio_high']:.3f})",
            cost["ratio"] <= RATIOS[target],
        ),
        Row(
            f"{figure}: top-1 (float {narrow.report['baseline']['value']:.4f})",
            f"≥ {LEAST}",
            f"{best['quality']['value']:.4f}",
            best["quality"]["value"] >= LEAST,
        ),
        Row(f"{figure}: latency against the int8 file", "≤ x1.05", f"x{beside:.3f}", beside <= 1.05),
        Row(
            f"{figure}: output values that differ from the reference",
            "0 of 64 images",
            f"{parity['reference_differing']} of {parity['reference_compared']}",
            parity["reference_differing"] == 0 and parity["reference_compared"] == 64_000,
        ),
        Row(
            f"{figure}: relative logit error, agreement with float",
            "told",
            f"{parity['relative_error']:.4f}, {parity['agreement']:.2%}",
            met=True,
        ),
    ]


def _beside(narrow: Packed, wide: Packed, target: str, sample: Sample) -> float:
    """Return the latency of the 4-bit file over that of the 8-bit file, calls by turns in one process."""
    files = [packed.opened(target) for packed in (narrow, wide)]
    (port,) = files[0][1]["inputs"]
    feed = {port["name"]: to_file(sample[0][:1], files[0][1].get("layouts", {}).get(port["name"], ""))}
    with LocalDevice() as device:
        handles = [device.load(opening) for opening, _ in files]
        return latency.compare(device, *handles, feed, cold_ms=0.0).latency.ratio
