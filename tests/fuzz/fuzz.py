"""Fuzzes one target with atheris (libFuzzer that sees which lines of Python were reached), or replays bytes.

    python tests/fuzz/fuzz.py TARGET SECONDS [CORPUS]      ends with 0, or with the bytes that break it, in base64
    python tests/fuzz/fuzz.py TARGET --replay BASE64

A corpus is a folder in which found inputs are kept for the next time. Bounds of one input: 64 KiB, 30 seconds, and of
the process 2 GiB.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

LONGEST, SECONDS, MEGABYTES = 1 << 16, 30, 2048
CHILD = "HAVERSACK_FUZZ_CHILD"


def main() -> int:
    name, how, *more = sys.argv[1:]
    if how == "--replay":
        target_of(name).check(base64.b64decode(more[0]))
        return 0
    if CHILD in os.environ:
        return fuzz(name, how, more[0])
    return watched(name, int(how), Path(more[0]) if more else None)


def target_of(name: str):
    sys.path.insert(0, str(Path(__file__).parent))
    from targets import TARGETS

    return TARGETS[name]()


def fuzz(name: str, seconds: str, folder: str) -> int:
    """Fuzz in this process, which ends with the first fault, or when the time is over."""
    import atheris

    with atheris.instrument_imports(include=["haversack", "tuf"]):
        target = target_of(name)
    for number, seed in enumerate(target.seeds):
        target.check(seed)
        Path(folder, f"seed-{number}").write_bytes(seed)
    bounds = [f"-max_len={LONGEST}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_total_time={seconds}"]
    words = [f"-artifact_prefix={folder}/found-", "-print_final_stats=1", "-seed=1", folder]
    atheris.Setup([sys.argv[0], *bounds, *words], target.check)
    atheris.Fuzz()
    return 0


def watched(name: str, seconds: int, corpus: Path | None) -> int:
    """Fuzz in a child with a folder of its own, all of which goes with it; tell what it found."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="haversack-fuzz-", dir=memory))
    folder = corpus or place / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    for told in folder.glob("found-*"):
        told.unlink()
    command = [sys.executable, "-B", __file__, name, str(seconds), str(folder)]
    environment = {**os.environ, CHILD: "1", "TMPDIR": str(place), "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        told = child.communicate(timeout=seconds + 240)[1]
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        told = child.communicate()[1] + "\nit never came to an end"
    found = sorted(folder.glob("found-*"))
    sys.stdout.write(told[-6000:])
    for path in found:
        sys.stdout.write(f"\n{name}: {path.name}: --replay {base64.b64encode(path.read_bytes()).decode()}\n")
    shutil.rmtree(place, ignore_errors=True)
    return int(bool(child.returncode or found))


if __name__ == "__main__":
    sys.exit(main())
