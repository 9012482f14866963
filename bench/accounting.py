"""Running ``haversack pack`` from nothing, with an account of every process it starts."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.measure.device import Opening

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"


def commit() -> str:
    """Return the commit of the tree, with ``-dirty`` where files other than the page being written differ from it."""
    number = _git("describe", "--always", "--abbrev=7")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/benchmarks.md")
    return number + "-dirty" * bool(changed) if number else "unknown"


def _git(*words: str) -> str:
    """Return what a command of git says of this tree, and nothing where it fails or there is none."""
    git = shutil.which("git")
    if git is None:
        return ""
    found = subprocess.run([git, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


@dataclass(frozen=True)
class Row:
    """One figure against the bound it must reach."""

    figure: str
    bound: str
    measured: str
    met: bool

    def __str__(self) -> str:
        return f"| {self.figure} | {self.bound} | {self.measured} | {'yes' if self.met else '**no**'} |"


@dataclass(frozen=True)
class Table:
    """Figures side by side: what is compared, in words, and a line for each of it.

    Attributes:
        title: of the section.
        words: what must be known to read it.
        head: of the columns.
        rows: a text for each column.
        missed: what does not hold of all that should.
    """

    title: str
    words: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    missed: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"## {self.title}", "", self.words, ""]
        lines += [f"| {' | '.join(row)} |" for row in (self.head, ("---",) * len(self.head), *self.rows)]
        return "\n".join([*lines, *(f"\n**Missed:** {one}." for one in self.missed)])


@dataclass(frozen=True)
class Packed:
    """One run.

    Attributes:
        out: its folder.
        report: report.json.
        cpu_seconds: user and system time of all its processes.
        peak_bytes: largest sum of the proportional set sizes of its process tree.
        exit_code: of the command.
        command: what was typed.
        wall_seconds: from the first to the last.
    """

    out: Path
    report: dict[str, Any]
    cpu_seconds: float
    peak_bytes: int
    exit_code: int
    command: str
    wall_seconds: float = 0.0

    @property
    def best(self) -> dict[str, Any]:
        """The candidate that ships for ONNX Runtime."""
        return self.best_of("onnxruntime")

    def best_of(self, target: str) -> dict[str, Any]:
        """Return the candidate that ships for a target."""
        wanted = self.report["best"][target]
        return next(one for one in self.report["candidates"] if one["id"] == wanted)

    def opened(self, target: str) -> tuple[Opening, dict[str, Any]]:
        """Return how the file for a target is opened, and what artifact.json says of it."""
        folder = self.out / "best" / target
        about = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
        path = folder / Path(about["files"][0]["path"]).name
        return Opening(path, target, about["session_options"]), about

    def differing(self, targets: Sequence[str]) -> tuple[int, int]:
        """Return how many output values differ between any two of the files and the reference, and of how many."""
        exact = {*targets, "reference"}
        rows = [row for row in self.report["across"] if {row["first"], row["second"]} <= exact]
        if len(rows) != len(exact) * (len(exact) - 1) // 2:
            return -1, 0
        return max(row["differing"] for row in rows), min(row["compared"] for row in rows)


def pack(
    name: str,
    job: str,
    budget: str,
    targets: Sequence[str] = ("onnxruntime",),
    allow: Sequence[str] = (),
    effort: str = "default",
    plan: Path | None = None,
) -> Packed:
    """Pack a job into build/bench/NAME, without anything from earlier runs.

    Args:
        name: of the folder.
        job: the job file or recipe, from the repository's root.
        budget: as it is typed.
        targets: names of runtimes.
        allow: kinds of findings that do not end the run with an error.
        effort: what rounding weights may cost.
        plan: a recipe whose plans are made, and no others.

    Raises:
        SystemExit: the run left no report.
    """
    from haversack.measure.tree import PeakOfTree

    out = WORK / name
    named = [word for target in targets for word in ("--target", target)]
    shutil.rmtree(out, ignore_errors=True)
    allowed = [word for kind in allow for word in ("--allow", kind)]
    costing = [] if effort == "default" else ["--effort", effort]
    costing += [] if plan is None else ["--plan", str(plan.relative_to(ROOT))]
    arguments = ["pack", job, "--budget", budget, *named, *allowed, *costing, "--out", str(out.relative_to(ROOT))]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with PeakOfTree() as peak:
        done = subprocess.run([sys.executable, "-m", "haversack.cli", *arguments], cwd=ROOT, check=False)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    if not (out / "report.json").exists():
        sys.exit(f"haversack pack {job} ended with {done.returncode} and left no report")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return Packed(out, report, cpu, peak.peak_bytes, done.returncode, " ".join(["haversack", *arguments]), wall)


def forecast(packed: Packed) -> float:
    """Return the seconds that a dry run of the same command forecasts."""
    command = [sys.executable, "-m", "haversack.cli", *packed.command.split()[1:], "--dry-run", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 3:  # a size that nothing can meet: the forecast is told even so
        done.check_returncode()
    return float(json.loads(done.stdout)["forecast_seconds"])


@contextmanager
def meanwhile(name: str, value: str) -> Iterator[None]:
    """Give a variable of the environment another value inside: job files take fewer samples by it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
