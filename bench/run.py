"""``make bench``: packs the real models from nothing, measures the peer beside them, and writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import ablation
import bits
import deltas
import detector
import finetuning
import four_bits
import lite0
import minilm
import resolving
import running
import shipping
import sixteen_bits
import spoiled
import spreading
import table
from accounting import ROOT, Packed, Row, Table, commit
from peers import METHODS, Peer, measure, quantize

from haversack import load
from haversack.report import facts

PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench` (`bench/run.py`), part by part; `python bench/run.py --only PART` measures one of them anew.

Every figure was measured on the artefact in its runtime. Speeds are medians of ratios to the same runtime's
float file, batch 1, one thread, calls interleaved in one process. Quality figures of the chosen artefact are
from the half of the evaluation set that no choice looked at; error and agreement are over all of it.
"""
BESIDE = """
## Beside the peer: the same float file, pictures, machine and session options

ONNX Runtime's own `quantize_static` (QDQ, per channel, uint8 activations), by `bench/peers.py`; error
and agreement over all 372 scored pictures. On x86 without VNNI all of them are opened with the session
option `session.x64quantprecision=1`: int8 is wrong there without it, since 16-bit sums saturate.

| file | relative error | agreement | latency | MB | CPU s to make it |
|---|---|---|---|---|---|
"""
MARK = re.compile(r"^<!-- part: (\w+) -->$", re.MULTILINE)


def known(page: str) -> dict[str, str]:
    """Return part -> its text, of a page as this file writes it."""
    pieces = MARK.split(page)
    return dict(zip(pieces[1::2], (text.strip("\n") for text in pieces[2::2]), strict=True))


def section(sections: list[tuple[Packed, list[Row]]], peers: list[Peer]) -> str:
    """Return the text of one part: when and where it was measured, and its figures against their bounds."""
    lines = [_measured()]
    for packed, rows in sections:
        lines += ["", f"## `{packed.command}`", "", "| figure | must reach | measured | reached |", "|---|---|---|---|"]
        lines += [str(row) for row in rows]
    text = "\n".join(lines) + "\n"
    return text + BESIDE + "\n".join(map(_beside, peers)) if peers else text


def _measured() -> str:
    """Say when and where a part was measured."""
    machine = facts.of_machine()
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    where = f"{machine.cpu}, {os.cpu_count()} cores, {', '.join(machine.cpu_flags)}"
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC at commit {commit()}"
    return f"Measured {when}: {where}; Python {platform.python_version()}, {versions}."


def written(parts: dict[str, str]) -> str:
    """Return the page, parts in the order in which they are measured."""
    blocks = [f"<!-- part: {name} -->\n\n{parts[name].strip()}\n" for name in PARTS if name in parts]
    return "\n".join([HEAD, *blocks])


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
    """Run what is asked for; exit with 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, nargs="+", help="these parts; the others stay as they were measured")
    parser.add_argument("--no-peers", action="store_true", help="leave the peer out")
    wish = parser.parse_args()
    met = True
    for name in wish.only or PARTS:
        text, holds = told(name, peers=not wish.no_peers)
        sys.stdout.write(text)
        # After each part, so that what was measured is there if a later one is interrupted.
        parts = known(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
        PAGE.write_text(written({**parts, name: text}), encoding="utf-8")
        met = met and holds
    return 0 if met else 1


def told(name: str, *, peers: bool) -> tuple[str, bool]:
    """Measure one part, and return its text and whether all that it is held to holds."""
    if name in TABLES:
        tables = TABLES[name]()
        return "\n\n".join([_measured(), *map(str, tables)]) + "\n", not any(one.missed for one in tables)
    made = MAKERS[name]()
    text = section(made, beside(made[0][0]) if name == "lite0" and peers else [])
    return text, all(row.met for _, rows in made for row in rows)


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
    "resolve": lambda: [resolving.run()],
    "detector": lambda: [detector.run()],
    "minilm": lambda: [minilm.alone(), minilm.light(), minilm.others()],
    "four_bits": lambda: [four_bits.run()],
    "networks": bits.networks,
    "ray": lambda: [spreading.run()],
}
TABLES: dict[str, Callable[[], list[Table]]] = {
    "ablation": ablation.tables,
    "table": table.tables,
    "sixteen_bits": sixteen_bits.tables,
    "running": running.tables,
    "shipping": shipping.tables,
    "deltas": deltas.tables,
    "spoiled": spoiled.tables,
    "finetune": finetuning.tables,
}
PARTS = (*MAKERS, *TABLES)


if __name__ == "__main__":
    sys.exit(main())
