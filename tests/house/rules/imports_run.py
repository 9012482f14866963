"""What happens when modules are really imported: without torch, and in how much time."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from rules.source import modules, package_folder

BLOCKED = ("torch", "onnx", "onnx_ir", "onnxscript", "scipy", "jinja2", "altair", "vl_convert", "transformers")
FIELD_HALF = (
    "base", "tools", "bundle", "deliver", "run", "monitor",
    "flow.bundle", "flow.client", "flow.publish", "flow.tuned", "flow.deltas", "flow.hub",
)  # fmt: skip
NEEDS_TORCH = ("tools.graph",)
IMPORT_SECONDS = 0.100
HELP_SECONDS = 0.350
ROUNDS = 7

_BLOCK = """
import importlib, importlib.abc, sys, traceback
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name + ": " + str(error))
"""


def check_field_half(root: Path) -> list[str]:
    """The half that runs on devices and servers is imported with torch and the other workshop packages blocked."""
    names = [module.name for module in modules(root) if _is_field(".".join(module.parts))]
    script = _BLOCK.format(blocked=set(BLOCKED), names=names)
    done = run(root, "-c", script)
    faults = [f"the field half without torch: {line}" for line in done.stdout.splitlines()]
    return faults + ([f"the field half: {done.stderr.strip()}"] if done.returncode else [])


def check_import_time(root: Path) -> list[str]:
    """``import haversack`` takes under 100 ms and ``haversack --help`` under 350 ms, median of seven.

    Processor time is counted, so that a busy machine does not decide.
    """
    faults = []
    script = "import time; start = time.process_time(); import haversack; print(time.process_time() - start)"
    seconds = statistics.median(float(run(root, "-c", script).stdout) for _ in range(ROUNDS))
    if seconds >= IMPORT_SECONDS:
        faults.append(f"import haversack takes {seconds * 1000:.0f} ms (allowed: {IMPORT_SECONDS * 1000:.0f})")
    if has_cli(root):
        command_line(root, "--help")
        seconds = statistics.median(_processor_seconds(root, "--help") for _ in range(ROUNDS))
        if seconds >= HELP_SECONDS:
            faults.append(f"haversack --help takes {seconds * 1000:.0f} ms (allowed: {HELP_SECONDS * 1000:.0f})")
    return faults


def run(root: Path, *arguments: str, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run this Python with the repository's source on its path."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


def has_cli(root: Path) -> bool:
    return (package_folder(root) / "cli" / "__init__.py").exists()


def command_line(root: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the haversack command as its console script does."""
    return run(root, "-c", "import sys; from haversack.cli import main; sys.exit(main())", *arguments, cwd=cwd)


def _processor_seconds(root: Path, *arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command_line(root, *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _is_field(name: str) -> bool:
    def below(folders: tuple[str, ...]) -> bool:
        return any(name == folder or name.startswith(f"{folder}.") for folder in folders)

    return below(FIELD_HALF) and not below(NEEDS_TORCH)
