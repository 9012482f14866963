"""For all tests: one thread a process, properties without deadlines, and one tiny job, packed once for all."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores; read by torch and NumPy on import
settings.register_profile("house", deadline=None, derandomize=os.environ.get("CI", "").lower() in {"1", "true"})
settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that differ from process to process: two processes that share the tests must agree on them."""
    unlike = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unlike:
        raise pytest.UsageError("give these tests ids of words: " + ", ".join(unlike))


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


@dataclass(frozen=True)
class Board:
    """A real SSH server on this machine that stands for another: its own home, and no path to our source.

    Attributes:
        folder: its keys, configuration and home.
        port: on 127.0.0.1.
    """

    folder: Path
    port: int

    @property
    def device(self) -> str:
        """Return its name for ``--device``."""
        return f"ssh:127.0.0.1:{self.port}"

    @property
    def kept(self) -> Path:
        """Return where a keeper keeps files."""
        return self.folder / "home" / ".cache" / "haversack" / "device"

    @property
    def config(self) -> Path:
        """Return the client's configuration."""
        return self.folder / "config"


def _served(folder: Path) -> tuple[subprocess.Popen[bytes], Board]:
    program = shutil.which("sshd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if program is None:
        reason = "sshd is not installed; as root: make system"
        (pytest.fail if os.environ.get("CI", "").lower() in {"1", "true"} else pytest.skip)(reason)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("host", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    home = folder / "home"
    (home / ".haversack" / "bin").mkdir(parents=True)
    (home / ".haversack" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (home / ".haversack" / "bin" / "python").chmod(0o755)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # what it demands where it may change its user
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'mine.pub'}\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nMaxStartups 100\n"
        f"SetEnv HOME={home} XDG_CACHE_HOME={home / '.cache'} OMP_NUM_THREADS=1 PATH=/usr/bin:/bin\n"
    )
    (folder / "config").write_text(
        f"IdentityFile {folder / 'mine'}\nIdentitiesOnly yes\nUser {getpass.getuser()}\n"
        f"UserKnownHostsFile {folder / 'known'}\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking no\n"
    )
    log = (folder / "log").open("wb")
    with log:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log)
    until = time.monotonic() + 10
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return server, Board(folder, port)
        time.sleep(0.05)
    server.kill()
    pytest.fail(f"sshd does not come up: {(folder / 'log').read_text()}")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One SSH server for all tests of a process; the client's configuration would weaken the checks, if it could."""
    server, found = _served(tmp_path_factory.mktemp("board"))
    yield found
    server.terminate()
    server.wait(10)


@pytest.fixture
def board(sshd: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A machine that ``ssh:`` reaches."""
    monkeypatch.setenv("HAVERSACK_SSH_CONFIG", str(sshd.config))
    return sshd


@dataclass(frozen=True)
class Killer:
    """Kills processes with SIGKILL, as a kernel without memory does: so many as ``next`` said, and no more.

    Attributes:
        folder: one file in it for each that is to die.
        python: a command that starts Python, and is killed instead while there is such a file.
    """

    folder: Path
    python: tuple[str, ...]

    def next(self, count: int) -> None:
        """Let the next so many die, and the others live."""
        for path in self.folder.glob("doom.*"):
            path.unlink()
        for number in range(count):
            (self.folder / f"doom.{number}").write_text("")

    @property
    def left(self) -> int:
        """How many are still to die."""
        return len(list(self.folder.glob("doom.*")))


@pytest.fixture
def killer(tmp_path: Path) -> Killer:
    """One that kills nobody yet."""
    folder = tmp_path / "killer"
    folder.mkdir()
    script = folder / "python"
    script.write_text(
        f"#!/bin/sh\nfor one in {folder}/doom.*; do\n"
        f'  if [ -e "$one" ]; then rm "$one"; kill -9 $$; fi\ndone\nexec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return Killer(folder, (str(script),))
