"""Real repositories for the tests of delivering: bundles in folders, keys, clocks that can be set, devices, servers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from haversack.base import digest
from haversack.base.bundle import BundleFile, Manifest, Variant
from haversack.base.errors import EnvironmentFault
from haversack.deliver import publishing
from haversack.deliver.metadata import first_root
from haversack.deliver.repository import Repository
from haversack.deliver.storage import Folder, Storage
from haversack.deliver.trusted import Fetch, Missing, Trusted
from haversack.tools.trust import canonical, keys

BEGIN = datetime(2026, 6, 1, 12, tzinfo=UTC)


def bundle(folder: Path, version: str = "1.0.0", line: str = "digits", model: bytes = b"a model\n" * 40) -> Path:
    """Write a bundle of one variant and return its folder."""
    folder = folder / f"{line}-{version}.haversack"
    folder.mkdir(parents=True)
    files = {
        ("labels.txt", "labels", ""): b"zero\none\n",
        ("litert.json", "artifact", "litert"): b"{}\n",
        ("litert.tflite", "model", "litert"): model,
    }
    entries = []
    for (name, role, target), content in files.items():
        (folder / name).write_bytes(content)
        entries.append(BundleFile(name, role, len(content), digest.of_bytes(content), target))
    manifest = Manifest(1, line, version, tuple(entries), (Variant("litert"),))
    (folder / "manifest.json").write_bytes(canonical.dumps(manifest))
    return folder


def opened(folder: Path) -> tuple[Manifest, Callable[[BundleFile], bytes]]:
    """Return a bundle's manifest and what reads a file of it."""
    data = (folder / "manifest.json").read_bytes()
    manifest = canonical.loads(data, Manifest, where="manifest.json", limit=1 << 20)
    return manifest, lambda file: (folder / file.name).read_bytes()


@dataclass
class Clock:
    """A clock that stands until it is set."""

    now: datetime = BEGIN

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def seconds(self) -> float:
        """Return the time since the epoch."""
        return self.now.timestamp()

    def wait(self, **time: float) -> None:
        """Let it go on."""
        self.now += timedelta(**time)


@dataclass
class Memory:
    """What a device remembers for good."""

    lines: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def sequence(self, line: str) -> int:
        """Return the highest of a line."""
        return self.lines.get(line, 0)

    def time(self) -> float:
        """Return the newest."""
        return self.seconds

    def lift(self, line: str, sequence: int, time: float) -> None:
        """Keep the higher of each."""
        self.lines[line] = max(sequence, self.sequence(line))
        self.seconds = max(time, self.seconds)


@dataclass
class Site:
    """A repository with its keys, below one folder, and devices that read it."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    storage: Storage | None = None

    @property
    def root(self) -> Path:
        return self.folder / "site"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def repository(self) -> Repository:
        """The repository with the keys as they are on the disk now."""
        return Repository(self.storage or Folder(self.root), keys.read(self.keys), self.clock)

    @classmethod
    def create(cls, folder: Path, storage: Storage | None = None, now: datetime = BEGIN) -> Site:
        """Make keys and the first root, and nothing else."""
        site = cls(folder, Clock(now), storage)
        made = keys.create(site.keys)
        (site.keys / "1.root.json").write_bytes(first_root(made, site.clock()))
        return site

    def publish(self, version: str = "1.0.0", line: str = "digits", **more) -> publishing.Outcome:
        """Publish a small bundle; ``model`` may be its model."""
        content = more.pop("model", f"the model {version} of {line}\n".encode() * 20)
        with contextlib.suppress(FileExistsError):
            bundle(self.folder / "bundles", version, line, content)
        manifest, read = opened(self.folder / "bundles" / f"{line}-{version}.haversack")
        return publishing.publish(self.repository, manifest, read, **more)

    def device(self, name: str = "device", fetch: Fetch | None = None, memory: Memory | None = None) -> Trusted:
        """Return a device that was given the first root."""
        root = (self.keys / "1.root.json").read_bytes()
        floor = memory if memory is not None else Memory()
        return Trusted(self.folder / name, fetch or files(self.root), root, floor, self.clock.seconds)

    def metadata(self) -> dict[str, bytes]:
        """Return all metadata files by their names."""
        return {path.name: path.read_bytes() for path in sorted((self.root / "metadata").iterdir())}


def files(root: Path, change: Callable[[str, bytes], bytes | None] = lambda path, data: data) -> Fetch:
    """Return what fetches from a folder; ``change`` may give other bytes, or None for a file that is not there."""

    def fetch(path: str) -> Iterator[bytes]:
        try:
            data = change(path, (root / path).read_bytes())
        except (FileNotFoundError, IsADirectoryError):
            data = None
        if data is None:
            raise Missing("there is no such file", where=path)
        yield data

    return fetch


def over_http(url: str) -> Fetch:
    """Return what fetches from a server."""

    def fetch(path: str) -> Iterator[bytes]:
        try:
            with urlopen(f"{url}/{path}", timeout=10) as answer:  # noqa: S310 - a server of the test
                while chunk := answer.read(1 << 14):
                    yield chunk
        except HTTPError as error:
            error.close()
            raise Missing(f"the server says {error.code}", where=path) from error
        except URLError as error:
            raise EnvironmentFault(f"no server answers: {error.reason}", where=path) from error

    return fetch


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Tell nobody."""


def served(root: Path, handler: type[SimpleHTTPRequestHandler] = _Quiet) -> contextlib.AbstractContextManager[str]:
    """Serve a folder, and yield its address."""
    return answered(partial(handler, directory=str(root)))


@contextlib.contextmanager
def answered(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Let a handler answer what is asked, and yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def later(trusted: Trusted, **changes: object) -> Trusted:
    """Return a device with something changed."""
    return replace(trusted, **changes)
