"""``make bench``: packs the real models from nothing, measures the peer beside them, and writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import bits
import detector
import four_bits
import lite0
import minilm
from accounting import ROOT, Packed, Row
from peers import METHODS, Peer, measure, quantize

from haversack import load
from haversack.report import facts

PAGE = ROOT / "docs" / "benchmarks.md"


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
            "and agreement over all 372 scored pictures. On x86 without VNNI all of them are opened with the session",
            "option `session.x64quantprecision=1`: int8 is wrong there without it, since 16-bit sums saturate.",
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
    """Return our file and the peer's, measured alike."""
    floats = packed.out / ".haversack" / "float" / "onnxruntime" / "model.onnx"
    ours = packed.out / packed.best["artifact"]["path"]
    options = packed.best["artifact"]["session_options"]
    job = load.open_job(str(ROOT / lite0.JOB))
    found = [measure("haversack", ours, floats, job, options)]
    return found + [quantize(job, floats, packed.out, method, options) for method in METHODS]


def main() -> int:
    """Run everything; exit with 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part, printed instead of written")
    parser.add_argument("--no-peers", action="store_true", help="leave the peer out")
    wish = parser.parse_args()
    sections: list[tuple[Packed, list[Row]]] = []
    peers: list[Peer] = []
    for name in PARTS if wish.only is None else (wish.only,):
        sections += MAKERS[name]()
        if name == "lite0" and not wish.no_peers:
            peers = beside(sections[0][0])
        text = page(sections, peers)
        if wish.only is None:  # after each part, so that what was measured is there if a later one is interrupted
            PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if all(row.met for _, rows in sections for row in rows) else 1


def three() -> Made:
    """Pack Lite0 for three runtimes, and run its files on emulated processors."""
    packed, rows = lite0.together()
    return [(packed, [*rows, *bits.emulated(packed)])]


Made = list[tuple[Packed, list[Row]]]
MAKERS: dict[str, Callable[[], Made]] = {
    "lite0": lambda: [lite0.alone()],
    "three": three,
    "small": lambda: [lite0.smallest()],
    "light": lite0.lightest,
    "detector": lambda: [detector.run()],
    "minilm": lambda: [minilm.alone(), minilm.others()],
    "four_bits": lambda: [four_bits.run()],
    "networks": bits.networks,
}
PARTS = tuple(MAKERS)


if __name__ == "__main__":
    sys.exit(main())
