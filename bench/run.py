"""``make bench``: packs the real models from nothing, measures the peer beside them, and writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime

import four_bits
from accounting import ROOT, Packed, Row, pack
from peers import METHODS, Peer, measure, quantize

from haversack import load
from haversack.report import facts

PAGE = ROOT / "docs" / "benchmarks.md"
LITE0 = ("examples/efficientnet_lite0.py", "size=5.2MB,latency=0.55x,drop=1pt")
MINILM = ("examples/minilm.py", "size=24MB,latency=1x,drop=0.5pt")


def lite0(packed: Packed) -> list[Row]:
    """Return the figures of the vision model."""
    best = packed.best
    parity, cost = best["parity"], best["latency"]
    megabytes = best["artifact"]["bytes"] / 1e6
    differing, compared = parity["reference_differing"], parity["reference_compared"]
    return [
        Row(
            "Lite0 int8: relative logit error",
            "≤ .087",
            f"{parity['relative_error']:.4f}",
            parity["relative_error"] <= 0.087,
        ),
        Row("Lite0 int8: agreement with float", "≥ 98.3 %", f"{parity['agreement']:.2%}", parity["agreement"] >= 0.983),
        Row(
            "Lite0 int8: latency against float",
            "≤ x0.53",
            f"x{cost['ratio']:.3f} (quartiles {cost['ratio_low']:.3f} to {cost['ratio_high']:.3f})",
            cost["ratio"] <= 0.53,
        ),
        Row("Lite0 int8: file", "≤ 5.05 MB", f"{megabytes:.3f} MB", megabytes <= 5.05),
        Row(
            "Lite0 int8: output values that differ from the reference",
            "0 of 64 images",
            f"{differing} of {compared}",
            differing == 0 and compared == 64_000,
        ),
        Row(
            "whole `pack` of Lite0 without cache",
            "≤ 120 CPU s, ≤ 2.5 GB",
            f"{packed.cpu_seconds:.0f} CPU s, {packed.peak_bytes / 1e9:.2f} GB (PSS of the process tree)",
            packed.cpu_seconds <= 120 and packed.peak_bytes <= 2.5e9,
        ),
    ]


def minilm(packed: Packed) -> list[Row]:
    """Return the figures of the language model."""
    best, cost = packed.best, packed.best["latency"]
    megabytes = best["artifact"]["bytes"] / 1e6
    drop = best["quality"]["drop"]
    return [
        Row(
            "MiniLM int8: Spearman on STS-B dev against float",
            "within 0.5 points",
            f"drop {100 * drop:+.2f} points, {best['quality']['samples']} pairs",
            drop <= 0.005,
        ),
        Row(
            "MiniLM int8: latency against float",
            "< x1",
            f"x{cost['ratio']:.3f} (quartiles {cost['ratio_low']:.3f} to {cost['ratio_high']:.3f})",
            cost["ratio"] < 1,
        ),
        Row("MiniLM int8: file", "≤ 24 MB", f"{megabytes:.2f} MB", megabytes <= 24),
    ]


def page(sections: list[tuple[Packed, list[Row]]], peers: list[Peer]) -> str:
    """Return docs/benchmarks.md."""
    machine = facts.of_machine()
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` (`bench/run.py`) on {datetime.now(UTC):%Y-%m-%d}. Machine: {machine.cpu}, "
        f"{os.cpu_count()} cores, {', '.join(machine.cpu_flags)}; Python {platform.python_version()}, "
        + ", ".join(f"{name} {number}" for name, number in machine.versions.items())
        + ".",
        "",
        "Every figure was measured on the artefact in its runtime. Speeds are medians of ratios to the same runtime's",
        "float file, batch 1, one thread, calls interleaved in one process. Quality figures of the chosen artefact are",
        "from the half of the evaluation set that no choice looked at; error and agreement are over all of it.",
    ]
    for packed, rows in sections:
        lines += ["", f"## `{packed.command}`", "", "| figure | must reach | measured | reached |", "|---|---|---|---|"]
        lines += [str(row) for row in rows]
    if peers:
        lines += [
            "",
            "## Beside the peer: the same float file, pictures, machine and session options",
            "",
            "ONNX Runtime's own `quantize_static` (QDQ, per channel, uint8 activations), by `bench/peers.py`; error",
            "and agreement over all 372 scored pictures. The session option is `session.x64quantprecision=1`, which",
            "int8 needs to be right on x86 without VNNI: without it 16-bit sums saturate.",
            "",
            "| file | relative error | agreement | latency | MB | CPU s to make it |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_beside(one) for one in peers]
    return "\n".join(lines) + "\n"


def _beside(one: Peer) -> str:
    spent = "in `pack`" if one.cpu_seconds is None else f"{one.cpu_seconds:.0f}"
    return (
        f"| {one.name} | {one.relative_error:.4f} | {one.agreement:.2%} | x{one.ratio:.3f} | {one.bytes / 1e6:.3f} "
        f"| {spent} |"
    )


def beside(packed: Packed) -> list[Peer]:
    """Return our file with and without its session option, and the peer's, all measured alike."""
    floats = packed.out / ".haversack" / "float" / "onnxruntime" / "model.onnx"
    ours = packed.out / packed.best["artifact"]["path"]
    options = packed.best["artifact"]["session_options"]
    job = load.open_job(str(ROOT / LITE0[0]))
    found = [measure("haversack", ours, floats, job, options)]
    if options:
        found.append(measure("haversack, the same file without its session option", ours, floats, job, {}))
    return found + [quantize(job, floats, packed.out, method, options) for method in METHODS]


def main() -> int:
    """Run everything; exit with 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("lite0", "minilm", "four_bits"), help="one part, printed instead of written")
    parser.add_argument("--no-peers", action="store_true", help="leave the peer out")
    wish = parser.parse_args()
    sections, peers = [], []
    if wish.only in (None, "lite0"):
        packed = pack("lite0", *LITE0)
        sections.append((packed, lite0(packed)))
        if not wish.no_peers:
            peers = beside(packed)
    if wish.only in (None, "minilm"):
        packed = pack("minilm", *MINILM)
        sections.append((packed, minilm(packed)))
    if wish.only in (None, "four_bits"):
        sections.append(four_bits.run())
    text = page(sections, peers)
    sys.stdout.write(text)
    if wish.only is None:
        PAGE.write_text(text, encoding="utf-8")
    return 0 if all(row.met for _, rows in sections for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
