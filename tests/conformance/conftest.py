"""The executable for the conformance suite, called in this process, and a repository that may say anything."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from simulator import POOL, Simulator, serving  # noqa: E402
from tuf.api.metadata import Metadata  # noqa: E402


def adapter():
    """Return the executable as a module."""
    loader = importlib.machinery.SourceFileLoader("conformance_client", str(HERE / "client"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Client:
    """The executable with its folders."""

    def __init__(self, folder: Path, url: str, module, root: bytes) -> None:
        self.metadata, self.targets, self.given = folder / "metadata", folder / "targets", folder / "first.json"
        self.metadata.mkdir()
        self.targets.mkdir()
        self.url, self.module, self.root = url, module, root

    def __call__(self, *words: str, days: int = 0) -> int:
        trusted = self.module.Trusted
        if days:
            later = datetime.now(UTC).timestamp() + 86400 * days
            self.module.Trusted = partial(trusted, clock=lambda: later)
        try:
            return self.module.main(["--metadata-dir", str(self.metadata), *words])
        finally:
            self.module.Trusted = trusted

    def init(self) -> int:
        self.given.write_bytes(self.root)
        return self("init", str(self.given))

    def refresh(self, days: int = 0) -> int:
        return self("--metadata-url", f"{self.url}/metadata", "refresh", days=days)

    def download(self, name: str) -> int:
        words = ["--metadata-url", f"{self.url}/metadata", "--target-name", name]
        return self(*words, "--target-base-url", f"{self.url}/targets", "--target-dir", str(self.targets), "download")

    def ready(self) -> None:
        assert self.init() == 0
        assert self.refresh() == 0

    def kept(self, role: str) -> bytes:
        return (self.metadata / f"{role}.json").read_bytes()

    def version(self, role: str) -> int:
        return Metadata.from_bytes(self.kept(role)).signed.version

    def versions(self) -> tuple[int, ...]:
        """Return those of root, timestamp, snapshot and targets."""
        return tuple(self.version(role) for role in ("root", "timestamp", "snapshot", "targets"))

    def files(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.targets.rglob("*")) if path.is_file()]

    @staticmethod
    def quoted(path: str) -> str:
        return quote(path, "/%")


@pytest.fixture(scope="session")
def held():
    """What is served: the last of these."""
    return []


@pytest.fixture(scope="session")
def address(held):
    with serving(held) as url:
        yield url


@pytest.fixture(scope="session")
def module():
    return adapter()


@pytest.fixture
def repository(held):
    held.append(Simulator())
    return held[-1]


@pytest.fixture
def client(repository, address, module, tmp_path):
    return Client(tmp_path, address, module, repository.first_root)


@pytest.fixture
def pool():
    """Keys: 0 to 3 are those of root, timestamp, snapshot and targets at first."""
    return POOL
