"""EfficientNet-Lite0 for ONNX Runtime alone, and for three runtimes with one set of encodings; what each run costs."""

from __future__ import annotations

from accounting import Packed, Row, forecast, pack

JOB = "examples/efficientnet_lite0.py"
BUDGET = "size=5.2MB,latency=0.55x,drop=1pt"
SMALL = "size=3.3MB,latency=0.65x,drop=1pt"
LIGHT = {2.6: (0.975, "high"), 2.9: (0.985, "high")}
"""Megabytes of a download -> what agreement with float must be, and the effort (2.6 MB reach 97.3 % by default)."""
SCORED = 372
CLASSES = 1000
COMPARED = 64 * CLASSES
LIMITS = {"onnxruntime": (0.53, 5.05e6), "litert": (0.52, 5.0e6), "executorch": (0.62, 5.0e6)}
"""Target -> what its latency may be of its float file's, and the bytes of its file."""
FAST, DEFAULT = (0.087, 0.983), (0.056, 0.988)
"""Relative logit error at most and agreement with float at least, by effort."""


def alone() -> tuple[Packed, list[Row]]:
    """Pack for ONNX Runtime, and return the run with its figures."""
    packed = pack("lite0", JOB, BUDGET, effort="fast")
    parity = packed.best["parity"]
    differing, compared = parity["reference_differing"], parity["reference_compared"]
    return packed, [
        *rows(packed, "onnxruntime", FAST),
        Row(
            "onnxruntime: output values that differ from the reference",
            "0 of 64 images",
            f"{differing} of {compared}",
            differing == 0 and compared == COMPARED,
        ),
        cost(packed, 120, 2.5e9),
    ]


def together() -> tuple[Packed, list[Row]]:
    """Pack for three runtimes, and return the run with its figures."""
    packed = pack("lite0-three", JOB, BUDGET, tuple(LIMITS))
    differing, compared = packed.differing(tuple(LIMITS))
    return packed, [
        *(row for target in LIMITS for row in rows(packed, target, DEFAULT)),
        Row(
            "output values that differ between any two of the three files and the reference",
            f"0 of {SCORED} images",
            f"{differing} of {compared}",
            differing == 0 and compared == SCORED * CLASSES,
        ),
        cost(packed, 300, 3e9),
        timed(packed),
    ]


def smallest() -> tuple[Packed, list[Row]]:
    """Pack small files for three runtimes, integers of 4 and 8 bits mixed, and return the run with its figures."""
    packed = pack("lite0-small", JOB, SMALL, tuple(LIMITS))
    return packed, _shrunk(packed, "bytes", 3.3, 0.965)


def lightest() -> list[tuple[Packed, list[Row]]]:
    """Pack small downloads for three runtimes, coarser steps of ordinary int8, and return the runs with figures."""
    found = []
    for most, (agreement, effort) in LIGHT.items():
        budget = f"download={most:g}MB,latency=0.65x,drop=1pt"
        packed = pack(f"lite0-light-{most:g}", JOB, budget, tuple(LIMITS), effort=effort)
        rows = _shrunk(packed, "download_bytes", most, agreement)
        kinds = {layer["precision"] for target in LIMITS for layer in packed.best_of(target)["plan"]["layers"].values()}
        found.append(
            (packed, [Row("precision of the layers", "int8", ", ".join(sorted(kinds)), kinds == {"int8"}), *rows])
        )
    return found


def _shrunk(packed: Packed, what: str, most: float, least: float) -> list[Row]:
    """Return what three small files weigh and keep, and whether they hold the same integers."""
    differing, compared = packed.differing(tuple(LIMITS))
    found = []
    name = {"bytes": "file", "download_bytes": "download"}[what]
    for target in LIMITS:
        best = packed.best_of(target)
        size, took, quality = best["artifact"][what], best["latency"], best["quality"]
        agreement, drop = best["parity"]["agreement"], 100 * quality["drop"]
        found += [
            Row(f"{target}: {name}", f"≤ {most:g} MB", f"{size / 1e6:.3f} MB", size <= most * 1e6),
            Row(f"{target}: drop of top-1", "≤ 1 pt", f"{drop:+.2f} pt, {quality['samples']} pictures", drop <= 1),
            Row(f"{target}: agreement with float", f"≥ {least:.1%}", f"{agreement:.2%}", agreement >= least),
            Row(f"{target}: latency against float", "told", f"x{took['ratio']:.3f}", met=True),
        ]
    same = Row(
        "output values that differ between any two of them and the reference",
        "0",
        f"{differing} of {compared}",
        differing == 0,
    )
    return [*found, same]


def rows(packed: Packed, target: str, bounds: tuple[float, float]) -> list[Row]:
    """Return error, agreement, latency and size of a target's file; error and agreement are held against bounds."""
    best = packed.best_of(target)
    parity, took, size = best["parity"], best["latency"], best["artifact"]["bytes"]
    ratio, most = LIMITS[target]
    error, agreement = parity["relative_error"], parity["agreement"]
    kinds = ", ".join(sorted({layer["precision"] for layer in best["plan"]["layers"].values()}))
    return [
        Row(f"{target}: precision of the layers", "int8", kinds, kinds == "int8"),
        Row(f"{target}: relative logit error", f"≤ {bounds[0]:g}", f"{error:.4f}", error <= bounds[0]),
        Row(f"{target}: agreement with float", f"≥ {bounds[1]:.1%}", f"{agreement:.2%}", agreement >= bounds[1]),
        Row(
            f"{target}: latency against float",
            f"≤ x{ratio}",
            f"x{took['ratio']:.3f} (quartiles {took['ratio_low']:.3f} to {took['ratio_high']:.3f})",
            took["ratio"] <= ratio,
        ),
        Row(f"{target}: file", f"≤ {most / 1e6:g} MB", f"{size / 1e6:.3f} MB", size <= most),
    ]


def timed(packed: Packed) -> Row:
    """Return what the run took beside what a dry run forecasts."""
    told, took = forecast(packed), packed.wall_seconds
    off = abs(told / took - 1.0)
    return Row(
        "forecast of the run's time", "within 30%", f"{told:.0f} s, it took {took:.0f} s: {off:.0%} off", off <= 0.3
    )


def cost(packed: Packed, seconds: float, size: float) -> Row:
    """Return what the whole run took."""
    return Row(
        "whole `pack` without cache",
        f"≤ {seconds:g} CPU s, ≤ {size / 1e9:g} GB",
        f"{packed.cpu_seconds:.0f} CPU s, {packed.peak_bytes / 1e9:.2f} GB (PSS of the process tree)",
        packed.cpu_seconds <= seconds and packed.peak_bytes <= size,
    )
