"""Do three runtimes and the reference give the same bits for other networks than Lite0? Here, and on emulated CPUs."""

from __future__ import annotations

import numpy as np
from accounting import ROOT, Packed, Row, pack
from four_bits import few_pictures

from haversack import load
from haversack.base.errors import HaversackError
from haversack.measure import devices
from haversack.measure.local import LocalDevice
from haversack.tools.data.layouts import to_file
from haversack.tools.data.preprocess.pipeline import Pipeline

THREE = ("onnxruntime", "litert", "executorch")
NETWORKS = {"cifar10": "size=400kB,drop=1pt", "keywords": "size=120kB,drop=1pt"}
"""Example -> its budget. Both are so small that integers need not be faster here; bits are what is asked."""
PICTURES = 8
CPUS = {
    "qemu:cortex-a76": "onnxruntime litert",
    "qemu:cortex-a53": "onnxruntime litert",
    "qemu:haswell": " ".join(THREE),
}
"""Device -> the runtimes that can be had there; ExecuTorch has no ARM64 build without torch on the package index."""


def networks() -> list[tuple[Packed, list[Row]]]:
    """Pack the small networks for three runtimes, and return each run with its figures."""
    found = []
    for name, budget in NETWORKS.items():
        packed = pack(name, f"examples/{name}.py", budget, THREE, allow=["slower-than-float"])
        differing, compared = packed.differing(THREE)
        row = Row(
            f"{name}: output values that differ between any two of the three files and the reference",
            "0",
            f"{differing} of {compared}",
            differing == 0 and compared > 0,
        )
        found.append((packed, [row, *(_told(packed, name, target) for target in THREE)]))
    return found


def _told(packed: Packed, name: str, target: str) -> Row:
    best = packed.best_of(target)
    size, whole = best["artifact"]["bytes"], packed.report["floats"][target]["bytes"]
    text = f"{size / 1e3:.1f} kB of {whole / 1e3:.1f} kB, x{best['latency']['ratio']:.2f}, "
    return Row(
        f"{name}, {target}: file, latency, drop", "told", f"{text}{100 * best['quality']['drop']:+.2f} pt", met=True
    )


def emulated(packed: Packed) -> list[Row]:
    """Return how many logits of Lite0's files differ on other CPUs from those here."""
    job = load.open_job(str(ROOT / "examples" / "efficientnet_lite0.py"))
    rows = []
    with few_pictures("40"):
        pictures = next(iter(Pipeline.parse(job.preprocess).over(job.calibration())))[0][:PICTURES]
    for name, targets in CPUS.items():
        for target in targets.split():
            rows.append(_row(packed, name, target, pictures))
    return rows


def _row(packed: Packed, name: str, target: str, pictures: np.ndarray) -> Row:
    figure = f"{target} on {name}: logits that differ from those of this machine"
    try:
        here, there = _outputs(packed, "local", target, pictures), _outputs(packed, name, target, pictures)
    except HaversackError as error:
        return Row(figure, f"0 of {PICTURES} images", f"not measured: {error.cause}", met=False)
    differing = int((here != there).sum())
    return Row(figure, f"0 of {PICTURES} images", f"{differing} of {here.size}", differing == 0)


def _outputs(packed: Packed, name: str, target: str, pictures: np.ndarray) -> np.ndarray:
    """Return the file's logits, float32 [pictures, classes], one picture a call."""
    opening, about = packed.opened(target)
    (port,), (out,) = about["inputs"], about["outputs"]
    layout = about.get("layouts", {}).get(port["name"], "")
    with LocalDevice() if name == "local" else devices.opened(name) as device:
        handle = device.load(opening)
        rows = [device.run(handle, {port["name"]: to_file(one[None], layout)})[out["name"]] for one in pictures]
    return np.concatenate(rows)
