"""The executable for the public conformance suite of TUF, run against a repository of ours on a real server."""

from __future__ import annotations

import subprocess
import sys
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from sites import Site, served

from haversack.deliver.repository import utc
from haversack.deliver.rotation import rotate

CLIENT = Path(__file__).parent / "client"


class Asked(SimpleHTTPRequestHandler):
    """Notes what is asked for."""

    paths: list[str] = []  # noqa: RUF012 - one server at a time

    def do_GET(self) -> None:
        self.paths.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Tell nobody."""


class Client:
    """The executable, with its folders."""

    def __init__(self, folder: Path, url: str, environment: dict[str, str]) -> None:
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self.metadata.mkdir(parents=True)
        self.targets.mkdir()
        self.url, self.environment = url, environment

    def __call__(self, *words: str) -> int:
        command = [sys.executable, str(CLIENT), "--metadata-dir", str(self.metadata), *words]
        return subprocess.run(command, env=self.environment, check=False, capture_output=True).returncode

    def init(self, root: Path) -> int:
        return self("init", str(root))

    def refresh(self) -> int:
        return self("--metadata-url", f"{self.url}/metadata", "refresh")

    def download(self, name: str) -> int:
        return self(
            *("--metadata-url", f"{self.url}/metadata", "--target-name", name),
            *("--target-base-url", f"{self.url}/targets", "--target-dir", str(self.targets), "download"),
        )

    def kept(self, role: str) -> bytes:
        return (self.metadata / f"{role}.json").read_bytes()


@pytest.fixture
def live(tmp_path: Path) -> Site:
    """Return a repository whose times are those of now: another process has its own clock."""
    made = Site.create(tmp_path / "made", now=utc())
    made.publish("1.0.0")
    return made


def test_the_three_commands(live, tmp_path, environment):
    Asked.paths.clear()
    with served(live.root, Asked) as url:
        client = Client(tmp_path / "client", url, environment)
        assert client.init(live.keys / "1.root.json") == 0
        assert Asked.paths == []
        assert client.refresh() == 0
        assert client.kept("timestamp") == (live.root / "metadata" / "timestamp.json").read_bytes()
        assert client.kept("root") == (live.keys / "1.root.json").read_bytes()
        assert client.download("digits/1.0.0.json") == 0
        (target,) = client.targets.iterdir()
        assert target.read_bytes() == next((live.root / "targets" / "digits").iterdir()).read_bytes()
        Asked.paths.clear()
        assert client.download("digits/1.0.0.json") == 0
        assert not any(path.startswith("/targets") for path in Asked.paths)
        assert client.download("digits/9.9.9.json") == 1
        rotate(live.repository, "timestamp")
        assert client.refresh() == 0
        assert client.kept("root") == (live.root / "metadata" / "2.root.json").read_bytes()
        path = live.root / "metadata" / "timestamp.json"
        path.write_bytes(path.read_bytes().replace(b'"version":', b'"version":9'))
        before = client.kept("timestamp")
        assert client.refresh() == 1
        assert client.kept("timestamp") == before


def test_an_expired_repository_and_a_dead_server_are_told(live, tmp_path, environment):
    live.clock.wait(days=-3)
    live.repository.commit(live.repository.state(), {})
    with served(live.root) as url:
        client = Client(tmp_path / "client", url, environment)
        assert client.init(live.keys / "1.root.json") == 0
        assert client.refresh() == 1
    assert client.refresh() == 1
    assert client.init(tmp_path / "no root") == 1
