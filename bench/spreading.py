"""The pure work of packing EfficientNet-Lite0, here and over Ray with one and two workers; more workers are forecast.

    python bench/spreading.py WORKERS      # 0: here; prints JSON

One thread in every process. Measured is from the first task to the last result. What workers read before there are any
tasks (PyTorch, the model), they read while the activation ranges are taken, as in a run; starting Ray is told apart.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accounting import ROOT, WORK, Packed, Row

if TYPE_CHECKING:
    from haversack.base.spread import Spread
    from haversack.flow.steps import Steps

JOB = "examples/efficientnet_lite0.py"
TARGET = "onnxruntime"
LEAST = 0.8
FORECAST = (4, 8, 16)


def run() -> tuple[Packed, list[Row]]:
    """Measure here, with one and with two workers, each in a process of its own, and return the figures."""
    found = {workers: _measured(workers) for workers in (0, 1, 2)}
    walls = {workers: sum(part["wall"] for part in one["parts"].values()) for workers, one in found.items()}
    same = len({one["digest"] for one in found.values()}) == 1
    efficiency = walls[1] / (2 * walls[2])
    parts = found[1]["parts"]
    rows = [
        Row("results here, with 1 and with 2 workers", "the same bits", "the same" if same else "not the same", same),
        *(
            Row(f"{name}: here, 1 worker, 2 workers", "told", _three(found, name), met=True)
            for name in found[0]["parts"]
        ),
        Row("all of it: here, 1 worker, 2 workers", "told", ", ".join(f"{walls[n]:.1f} s" for n in walls), met=True),
        Row("efficiency of 2 workers", f"≥ {LEAST}", f"{efficiency:.3f}", efficiency >= LEAST),
        Row("starting Ray, with 1 and with 2 workers", "told", _starts(found), met=True),
    ]
    for workers in FORECAST:
        wall = sum(scheduled(part["tasks"], workers) + part["wall"] - sum(part["tasks"]) for part in parts.values())
        text = f"{wall:.1f} s, efficiency {walls[1] / (workers * wall):.2f}"
        rows.append(Row(f"forecast for {workers} workers, from the tasks' times with 1", "told", text, met=True))
    command = "OMP_NUM_THREADS=1 python bench/spreading.py 0, 1 and 2"
    return Packed(WORK / "ray", {}, 0.0, 0, 0, command), rows


def scheduled(tasks: list[float], workers: int) -> float:
    """Return the seconds until the last task ends when each goes, in order, to the worker that is free first."""
    free = [0.0] * workers
    for seconds in tasks:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def _three(found: dict[int, Any], name: str) -> str:
    tasks = len(found[1]["parts"][name]["tasks"])
    return ", ".join(f"{one['parts'][name]['wall']:.1f} s" for one in found.values()) + f" ({tasks} tasks)"


def _starts(found: dict[int, Any]) -> str:
    return ", ".join(f"{found[workers]['start']:.1f} s" for workers in (1, 2))


def _measured(workers: int) -> dict[str, Any]:
    """Run this file in a process with one thread.

    Raises:
        CalledProcessError: it failed.
    """
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-W", "ignore", __file__, str(workers)]
    done = subprocess.run(command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main(workers: int) -> None:
    """Do the work and print its times."""
    from haversack.base.progress import silent
    from haversack.flow.cluster import spreading

    began = time.monotonic()
    with spreading(f"local:{workers}" if workers else "", silent) as spread, _steps(spread) as steps:
        start = time.monotonic() - began
        parts, digest = {}, hashlib.sha256()
        for name, work in _work(steps).items():
            before, began = len(getattr(spread, "seconds", ())), time.monotonic()
            made = work()
            wall = time.monotonic() - began
            digest.update(repr(made).encode())
            parts[name] = {"wall": wall, "tasks": getattr(spread, "seconds", [])[before:]}
    sys.stdout.write(json.dumps({"start": start, "parts": parts, "digest": digest.hexdigest()}) + "\n")


@contextmanager
def _steps(spread: Spread) -> Iterator[Steps]:
    """Give the steps of a run."""
    from haversack import load, metrics
    from haversack.base.progress import silent
    from haversack.flow.data import Data
    from haversack.flow.steps import Steps
    from haversack.flow.workshop import Workshop
    from haversack.measure.local import LocalDevice
    from haversack.targets.contract import SHELF

    job = load.open_job(str(ROOT / JOB))
    metric = metrics.resolve(job.metric)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalDevice() as device,
        Workshop(Path(folder) / "out", "bench", silent) as shop,
    ):
        targets = {TARGET: SHELF.build(TARGET)}
        yield Steps(shop, job, Data(job, None, metric), metric, targets, device, spread=spread)


def _work(steps: Steps) -> dict[str, Callable[[], Any]]:
    """Return the spread parts of a run by name; what they need beforehand is made now."""
    from haversack.choose.options import stores, ways
    from haversack.compress.perturb import perturb
    from haversack.compress.rates import rates
    from haversack.flow.crossing import Meant, outputs_of
    from haversack.flow.meaning import meaning
    from haversack.flow.proposals import FOLD, proposals, worth_knowing
    from haversack.flow.race import race
    from haversack.profile.sensitivity import sensitivity
    from haversack.tools.data.stock import Stock

    model, target = steps.model, steps.targets[TARGET]
    narrow = steps.constraints[TARGET].widths
    able = worth_knowing(model.graph, [target.precisions], narrow)
    variants = proposals(model.graph, TARGET, target.precisions, (TARGET,)).variants
    found = partial(perturb, ranges=steps.ranges(model), widths=narrow)
    held = Stock.of(model.inputs, steps.data.held).take(1, steps.spend.rows)
    made = steps.squeeze(replace(variants[0], prepare=FOLD))
    meant = Meant(meaning(target), made.model, made.encodings)
    steps.squeeze.made.clear()

    def outputs() -> list[bytes]:
        samples = (inputs for inputs, _ in steps.data.evaluation())
        return [array.tobytes() for row in steps.spread(outputs_of, meant, samples) for array in row]

    return {
        "sensitivity of layers": lambda: sensitivity(
            model,
            found,
            held,
            ways=lambda node: ways(able(node), light=True),
            spread=steps.spread,
            rows=steps.spend.rows,
        ),
        "rates of layers": lambda: rates(model, lambda node: stores(able(node)), spread=steps.spread),
        "race of variants": lambda: race(steps, variants),
        "the reference's outputs for the evaluation set": outputs,
    }


if __name__ == "__main__":
    main(int(sys.argv[1]))
