"""all-MiniLM-L6-v2 on STS-B: ONNX Runtime alone with free lengths, then LiteRT and ExecuTorch."""

from __future__ import annotations

from accounting import Packed, Row, pack

JOB = "examples/minilm.py"
FAST = "size=24MB,latency=0.4x,drop=0.5pt"
"""2.5 times as fast as float. With ``latency=1x`` the time that is left goes to layers in float, as it is asked for."""
BUDGET = "size=24MB,latency=1x,drop=0.5pt"
LIGHT = "download=15MB,latency=0.4x,drop=1pt"
LIMITS = {"onnxruntime": (0.4, 24e6), "litert": (0.45, 24e6), "executorch": (1.0, None)}
"""Target -> what its latency may be of its float file's, and the bytes of its file if they are limited."""


def alone() -> tuple[Packed, list[Row]]:
    """Pack for ONNX Runtime, and return the run with its figures."""
    packed = pack("minilm", JOB, FAST)
    return packed, rows(packed, "onnxruntime")


def others() -> tuple[Packed, list[Row]]:
    """Pack for LiteRT and ExecuTorch, and return the run with its figures."""
    packed = pack("minilm-two", JOB, BUDGET, ("litert", "executorch"))
    return packed, [*rows(packed, "litert"), *rows(packed, "executorch")]


def light() -> tuple[Packed, list[Row]]:
    """Pack a small download for ONNX Runtime, and return the run with its figures."""
    packed = pack("minilm-light", JOB, LIGHT)
    best = packed.best
    took, quality, size = best["latency"], best["quality"], best["artifact"]["download_bytes"]
    return packed, [
        Row("onnxruntime: download", "≤ 15 MB", f"{size / 1e6:.2f} MB", size <= 15e6),
        Row(
            "onnxruntime: Spearman on STS-B dev against float",
            "within 1 point",
            f"drop {100 * quality['drop']:+.2f} points, {quality['samples']} pairs",
            quality["drop"] <= 0.01,
        ),
        Row(
            "onnxruntime: latency against float",
            "≤ x0.4",
            f"x{took['ratio']:.3f} (quartiles {took['ratio_low']:.3f} to {took['ratio_high']:.3f})",
            took["ratio"] <= 0.4,
        ),
    ]


def rows(packed: Packed, target: str) -> list[Row]:
    """Return quality, latency and size of a target's file."""
    best = packed.best_of(target)
    took, quality, size = best["latency"], best["quality"], best["artifact"]["bytes"]
    ratio, most = LIMITS[target]
    found = [
        Row(
            f"{target}: Spearman on STS-B dev against float",
            "within 0.5 points",
            f"drop {100 * quality['drop']:+.2f} points, {quality['samples']} pairs",
            quality["drop"] <= 0.005,
        ),
        Row(
            f"{target}: latency against float",
            f"≤ x{ratio:g}",
            f"x{took['ratio']:.3f} (quartiles {took['ratio_low']:.3f} to {took['ratio_high']:.3f})",
            took["ratio"] <= ratio,
        ),
    ]
    megabytes = f"{size / 1e6:.2f} MB"
    bound = "told" if most is None else f"≤ {most / 1e6:g} MB"
    return [*found, Row(f"{target}: file", bound, megabytes, most is None or size <= most)]
