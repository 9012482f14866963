"""A repository in memory that may say anything, signed by whoever is asked to, and a server for it.

It is built on python-tuf's records only; what a client must make of it is in the specification of TUF, 1.0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from sites import answered
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

TOP = ("root", "timestamp", "snapshot", "targets")
NOW = datetime.now(UTC).replace(microsecond=0)
POOL = [CryptoSigner.generate_ed25519() for _ in range(10)]
"""Keys, made once: 0 to 3 are those of the roles at first, the others are anybody's."""


@dataclass
class Simulator:
    """What is published, what is to be published next, and what was asked for.

    Attributes:
        signed: role -> what it says next.
        signers: role -> keys that sign it.
        files: path -> bytes that are served.
        asked: paths in the order of requests.
        endless: paths that never end.
        hashes: whether snapshot and timestamp state digests and lengths.
    """

    signed: dict[str, Signed] = field(default_factory=dict)
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    endless: set[str] = field(default_factory=set)
    hashes: bool = True

    def __post_init__(self) -> None:
        root, end = Root(expires=NOW + timedelta(30), consistent_snapshot=True), NOW + timedelta(30)
        self.signed = {"root": root, "targets": Targets(expires=end)}
        self.signed |= {"snapshot": Snapshot(expires=end), "timestamp": Timestamp(expires=end)}
        for role, signer in zip(TOP, POOL, strict=False):
            root.add_key(signer.public_key, role)
            self.signers[role] = [signer]
        for role in TOP:
            self.signed[role].version = 0
        self.publish("root", "targets")

    @property
    def root(self) -> Root:
        return self.signed["root"]

    @property
    def first_root(self) -> bytes:
        return self.files["metadata/1.root.json"]

    def path(self, role: str, version: int) -> str:
        return "metadata/timestamp.json" if role == "timestamp" else f"metadata/{version}.{quote(role, '')}.json"

    def write(self, role: str, version: int | None = None) -> bytes:
        """Sign a role as it stands, and serve it, under its own version or another."""
        signed = self.signed[role]
        metadata = Metadata(signed)
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        data = metadata.to_bytes()
        self.files[self.path(role, signed.version if version is None else version)] = data
        return data

    def publish(self, *roles: str) -> None:
        """Raise the versions of roles, and of those that must follow, and serve them all."""
        for role in roles:
            self.signed[role].version += 1
            data = self.write(role)
            if role not in ("root", "snapshot", "timestamp"):
                self.signed["snapshot"].meta[f"{role}.json"] = self.meta(role, data)
        if set(roles) - {"root", "timestamp"}:
            if "snapshot" not in roles:
                self.signed["snapshot"].version += 1
            self.signed["timestamp"].snapshot_meta = self.meta("snapshot", self.write("snapshot"))
        if "timestamp" not in roles and set(roles) - {"root"}:
            self.signed["timestamp"].version += 1
        self.write("timestamp")

    def meta(self, role: str, data: bytes) -> MetaFile:
        version = self.signed[role].version
        return MetaFile.from_data(version, data, ["sha256"]) if self.hashes else MetaFile(version)

    def rotate(self, role: str, *numbers: int, threshold: int = 1, signed_by: tuple[int, ...] | None = None) -> None:
        """Let root name other keys of a role; others may sign it than those."""
        self.root.roles[role].keyids.clear()
        self.root.roles[role].threshold = threshold
        for number in numbers:
            self.root.add_key(POOL[number].public_key, role)
        self.signers[role] = [POOL[number] for number in (numbers if signed_by is None else signed_by)]

    def delegate(self, above: str, role: str, *paths: str, terminating: bool = False, key: int = 4) -> Targets:
        """Give paths to a role, new or not, and return what it says."""
        if self.signed[above].delegations is None:
            self.signed[above].delegations = Delegations({}, {})
        self.signed[above].delegations.roles[role] = DelegatedRole(role, [], 1, terminating, list(paths))
        self.signed[above].add_key(POOL[key].public_key, role)
        if role not in self.signed:
            self.signed[role] = Targets(expires=NOW + timedelta(30))
            self.signed[role].version = 0  # of what is not published yet
            self.signers[role] = [POOL[key]]
        return self.signed[role]

    def add(self, role: str, path: str, content: bytes) -> str:
        """Let a role name a file, serve that, and return the path under which it is served."""
        file = TargetFile.from_data(path, content, ["sha256"])
        self.signed[role].targets[path] = file
        place = f"targets/{file.get_prefixed_paths()[0]}"
        self.files[place] = content
        return place


@contextlib.contextmanager
def serving(held: list[Simulator]) -> Iterator[str]:
    """Serve the last simulator of a list, and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, now = self.path.lstrip("/"), held[-1]
            now.asked.append(path)
            if path not in now.files and path not in now.endless:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(now.files.get(path, b""))
                while path in now.endless:
                    self.wfile.write(bytes(1 << 16))

        def log_message(self, *_: object) -> None:
            """Tell nobody."""

    with answered(Handler) as address:
        yield address
