"""Another budget through ``resolve``: how long the answer takes, and its forecast against the file made of its plan."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from accounting import ROOT, WORK, Packed, Row, pack
from lite0 import LIMITS, SMALL, together

SECONDS = 10.0
FIGURES = {"size": "file", "download": "download", "latency_ratio": "latency against float", "relative_error": "error"}


def run() -> tuple[Packed, list[Row]]:
    """Ask the run of Lite0 for three runtimes for small files, make what is forecast, and return the figures."""
    if not (WORK / "lite0-three" / "report.json").exists():
        together()
    plan = WORK / "resolved.toml"
    where = (WORK / "lite0-three").relative_to(ROOT)
    command = ["resolve", str(where), "--budget", SMALL, "--json", "--write", str(plan.relative_to(ROOT))]
    started = time.monotonic()
    asked = [sys.executable, "-m", "haversack.cli", *command]
    done = subprocess.run(asked, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    took = time.monotonic() - started
    answer = json.loads(done.stdout)["targets"]
    made = pack("lite0-resolved", "examples/efficientnet_lite0.py", SMALL, tuple(LIMITS), plan=plan)
    rows = [Row("the answer", f"< {SECONDS:g} s", f"{took:.1f} s", took < SECONDS)]
    rows += [_row(target, name, answer[target]["forecast"], made) for target in LIMITS for name in FIGURES]
    return Packed(made.out, made.report, 0.0, 0, 0, " ".join(["haversack", *command])), rows


def _row(target: str, name: str, forecast: dict[str, float], made: Packed) -> Row:
    truth = _truth(made.best_of(target))[name]
    margin = forecast[f"{name}_margin"]
    off = abs(truth / forecast[name] - 1.0)
    unit, scale = (" MB", 1e6) if name in ("size", "download") else ("", 1.0)
    text = f"{truth / scale:.3f}{unit}, forecast {forecast[name] / scale:.3f}{unit}: {off:.1%} off"
    return Row(f"{target}: {FIGURES[name]}", f"forecast within {margin:.0%}", text, off <= margin)


def _truth(best: dict[str, Any]) -> dict[str, float]:
    return {
        "size": best["artifact"]["bytes"],
        "download": best["artifact"]["download_bytes"],
        "latency_ratio": best["latency"]["ratio"],
        "relative_error": best["parity"]["relative_error"],
    }
