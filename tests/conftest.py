"""For all tests: one thread a process, properties without deadlines, and one tiny job, packed once for all."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores; read by torch and NumPy on import
settings.register_profile("house", deadline=None, derandomize=os.environ.get("CI", "").lower() in {"1", "true"})
settings.load_profile("house")

TINY_JOB = Path(__file__).parent / "flow" / "tiny_job.py"
BUDGET = "size=20KB,drop=5pt"


@dataclass(frozen=True)
class Packed:
    """The tiny job, packed by the command line with ``--json``: its folder, and what the command gave."""

    out: Path
    code: int
    stdout: str
    stderr: str

    @staticmethod
    def command(out: Path, *more: str) -> list[str]:
        """Return the command that packs the tiny job into a folder."""
        # A network this small may be slower in integers: that is not what these tests are about.
        words = ["pack", str(TINY_JOB), "--budget", BUDGET, "--allow", "slower-than-float", "--out", str(out)]
        return [sys.executable, "-m", "haversack.cli", *words, *more]


def source_on_path() -> dict[str, str]:
    """Return the environment of a command that runs this source."""
    source = str(Path(__file__).parents[1] / "src")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return source_on_path()


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """Pack the tiny job once, for all test processes of this run together."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "packed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = shared / "packed.json"
        if not told.exists():
            command = Packed.command(shared / "packed", "--json")
            done = subprocess.run(command, capture_output=True, text=True, env=source_on_path(), check=False)
            told.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
        code, stdout, stderr = json.loads(told.read_text())
    return Packed(shared / "packed", code, stdout, stderr)
