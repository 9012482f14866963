"""The publisher's side of a repository: TUF metadata (https://theupdateframework.io, specification 1.0) by python-tuf.

``root`` says which keys count for what, and is signed by two of three keys; ``targets`` gives every model line to a
role of its own, whose key signs ``LINE/*`` and nothing else; ``snapshot`` says which versions of these belong together,
and ``timestamp``, for a day at most, which snapshot is the newest. Files have their version in their names (consistent
snapshots), so that a change becomes visible by the one write of ``timestamp.json``, which comes last: a client that
reads meanwhile sees all of it, or nothing.

What is read is verified before it is signed again: who can write to the place cannot have his work signed.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.deliver.metadata import LIVES, newest_root, past_half, roots, stamp
from haversack.deliver.storage import Storage
from haversack.tools.trust.keys import TOP, Keys

if TYPE_CHECKING:
    from securesystemslib.signer import Signer
    from tuf.api.metadata import DelegatedRole, Metadata, Role, Root, Snapshot, Targets, Timestamp

    Kind = TypeVar("Kind", Root, Timestamp, Snapshot, Targets)

LARGEST = 5_000_000
"""Bytes of metadata that are read at all."""
TIMESTAMP = "metadata/timestamp.json"
MOST_ORPHANS = 1000
"""Versions that publishers left behind which were stopped half-way, at most."""


@dataclass(frozen=True)
class State:
    """What a repository says, verified; expired or not.

    Attributes:
        root, timestamp, snapshot, targets: the newest.
        lines: of every model line that is trusted.
        mark: of ``timestamp.json`` as it was read.
    """

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    lines: Mapping[str, Metadata[Targets]]
    mark: str


def utc() -> datetime:
    """Return the time in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Repository:
    """A repository and the keys to sign it with.

    Attributes:
        storage: where it lies.
        keys: those at hand.
        now: tells the time.
    """

    storage: Storage
    keys: Keys
    now: Callable[[], datetime] = utc

    def state(self) -> State:
        """Return what it says, verified from the newest root beside the keys on.

        Raises:
            UsageError: nothing was published there.
            Refused: some of it is missing, too large, or not signed by the keys that it should be signed by.
            EnvironmentFault: it cannot be read.
        """
        from tuf.api.metadata import Snapshot, Targets, Timestamp

        root = self.root()
        found = self.storage.read(TIMESTAMP, LARGEST)
        if found is None:
            step = "haversack publish BUNDLE --line LINE --repository … --keys …"
            raise UsageError("nothing was published there", where=self.storage.name, next_step=step)
        timestamp = self._verified(found.data, Timestamp, "timestamp", root.signed)
        meta = timestamp.signed.snapshot_meta
        snapshot = self._numbered("snapshot", meta.version, Snapshot, root.signed)
        listed = snapshot.signed.meta
        targets = self._numbered("targets", listed["targets.json"].version, Targets, root.signed)
        lines = {
            line: self._numbered(line, listed[f"{line}.json"].version, Targets, targets.signed)
            for line in delegated(targets)
            if f"{line}.json" in listed
        }
        return State(root, timestamp, snapshot, targets, lines, found.mark)

    def root(self) -> Metadata[Root]:
        """Return the newest root, each version signed by the one before it and by itself.

        Raises:
            UsageError: the folder of keys has no root metadata to begin with.
            Refused: a version is not signed so.
        """
        from tuf.api.metadata import Root

        anchor = newest_root(self.keys)
        root = self._verified(anchor, Root, "root", None)
        while found := self.storage.read(f"metadata/{root.signed.version + 1}.root.json", LARGEST):
            following = self._verified(found.data, Root, "root", root.signed)
            self._check(following, "root", following.signed)
            if following.signed.version != root.signed.version + 1:
                raise Refused("its version is not that of its name", where=f"{root.signed.version + 1}.root.json")
            root = following
        return root

    def start(self) -> State:
        """Return the state, of an empty repository if nothing was published there: it is made.

        Raises:
            UsageError: a key is missing.
            Refused: as ``state``.
            EnvironmentFault: it cannot be written.
        """
        from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp

        if self.storage.read(TIMESTAMP, LARGEST) is not None:
            return self.state()
        for number, data in roots(self.keys).items():
            if not self.storage.create(f"metadata/{number}.root.json", data):
                cause = "another root lies there: it is a repository of other keys"
                raise Refused(cause, where=f"{self.storage.name}, {number}.root.json")
        targets, snapshot, timestamp = Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp())
        snapshot.signed.meta = {}
        for new in (targets, snapshot, timestamp):
            new.signed.version = 0  # the first that is stored becomes 1
        return self.commit(State(self.root(), timestamp, snapshot, targets, {}, ""), {"targets": targets.signed})

    def commit(
        self, state: State, changed: Mapping[str, Targets], cosigners: Mapping[str, tuple[Signer, ...]] | None = None
    ) -> State:
        """Sign what was changed, write it, and make it visible with a new timestamp; return the new state.

        Args:
            state: as it was read.
            changed: role -> what it says now; a line, or ``targets``. Version, times and signatures are set here.
            cosigners: role -> keys that sign beside those that root names, which a new root will name.

        Raises:
            UsageError: a key is missing.
            EnvironmentFault: it cannot be written, or somebody else published meanwhile.
        """
        from tuf.api.metadata import Metadata, MetaFile

        more, root = cosigners or {}, state.root.signed
        new = {role: Metadata(copy.deepcopy(signed)) for role, signed in changed.items()}
        targets = new.pop("targets", state.targets)
        lines = {line: state.lines[line] for line in state.lines if line in delegated(targets)} | new
        snapshot, timestamp = copy.deepcopy(state.snapshot), copy.deepcopy(state.timestamp)
        for role in changed:
            metadata, delegate = (targets, root) if role == "targets" else (lines[role], targets.signed)
            before = snapshot.signed.meta.get(f"{role}.json")
            metadata.signed.version = before.version if before else 0
            data = self._store(metadata, role, delegate, more.get(role, ()))
            snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(metadata.signed.version, data, ["sha256"])
        due = past_half(snapshot.signed, self.now()) and self.can_sign("snapshot", root)
        if changed or "snapshot" in more or due:
            data = self._store(snapshot, "snapshot", root, more.get("snapshot", ()))
            timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
        timestamp.signed.version += 1
        self._sign(timestamp, "timestamp", root, more.get("timestamp", ()))
        if not self.storage.swap(TIMESTAMP, timestamp.to_bytes(), state.mark):
            step = "repeat the same command"
            raise EnvironmentFault("somebody else published meanwhile", where=self.storage.name, next_step=step)
        found = self.storage.read(TIMESTAMP, LARGEST)
        return State(state.root, timestamp, snapshot, targets, lines, found.mark if found else "")

    def can_sign(self, role: str, delegate: Root | Targets) -> bool:
        """Say whether the keys of a role are at hand."""
        asked = delegate.get_delegated_role(role)
        return len(self.keys.signers(asked.keyids)) >= asked.threshold

    def _store(self, metadata: Metadata[Kind], role: str, delegate: Root | Targets, more: Iterable[Signer]) -> bytes:
        """Write it under the next version that is free: a publisher who was stopped may have left some behind."""
        first = metadata.signed.version + 1
        for version in range(first, first + MOST_ORPHANS):
            metadata.signed.version = version
            self._sign(metadata, role, delegate, more)
            data = metadata.to_bytes()
            if self.storage.create(f"metadata/{version}.{role}.json", data):
                return data
        raise EnvironmentFault(f"the versions from {first} on are all taken", where=f"{self.storage.name}, {role}.json")

    def _sign(self, metadata: Metadata[Kind], role: str, delegate: Root | Targets, more: Iterable[Signer]) -> None:
        asked = delegate.get_delegated_role(role)
        stamp(metadata.signed, LIVES.get(role, LIVES["targets"]), self.now())
        signers: tuple[Signer, ...] = self.keys.signers(asked.keyids)
        check_enough(len(signers), asked, role, self.keys)
        metadata.signatures.clear()
        for signer in dict.fromkeys((*signers, *more)):
            metadata.sign(signer, append=True)

    def _numbered(self, role: str, version: int, kind: type[Kind], delegate: Root | Targets) -> Metadata[Kind]:
        path = f"metadata/{version}.{role}.json"
        found = self.storage.read(path, LARGEST)
        if found is None:
            raise Refused("the repository lacks a file that its metadata name", where=f"{self.storage.name}, {path}")
        metadata = self._verified(found.data, kind, role, delegate)
        if metadata.signed.version != version:
            raise Refused("its version is not that of its name", where=f"{self.storage.name}, {path}")
        return metadata

    def _verified(self, data: bytes, kind: type[Kind], role: str, delegate: Root | Targets | None) -> Metadata[Kind]:
        """Return metadata that a delegate's keys signed; None: its own do, for root is where trust begins."""
        from tuf.api.exceptions import RepositoryError
        from tuf.api.metadata import Metadata

        try:
            metadata: Metadata[Kind] = Metadata.from_bytes(data)
        except RepositoryError as error:
            raise Refused(f"its metadata cannot be read: {error}", where=f"{self.storage.name}, {role}") from error
        if not isinstance(metadata.signed, kind):
            raise Refused("it is metadata of another kind", where=f"{self.storage.name}, {role}")
        self._check(metadata, role, delegate if delegate is not None else metadata.signed)
        return metadata

    def _check(self, metadata: Metadata[Kind], role: str, delegate: Root | Timestamp | Snapshot | Targets) -> None:
        from tuf.api.exceptions import RepositoryError
        from tuf.api.metadata import Root, Targets

        assert isinstance(delegate, Root | Targets)
        try:
            delegate.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError) as error:
            if self._by_our_own(metadata, role):
                return
            cause = f"it is not signed by the keys that it should be signed by: {error}"
            step = "somebody else wrote to it, or --keys are those of another repository: look at both"
            raise Refused(cause, where=f"{self.storage.name}, {role}", next_step=step) from error

    def _by_our_own(self, metadata: Metadata[Kind], role: str) -> bool:
        """Say whether a key at hand signed it: so it is where a rotation was stopped before its root was written."""
        from securesystemslib.exceptions import UnverifiedSignatureError

        for key in self.keys.of(role) if role in TOP else ():
            with contextlib.suppress(UnverifiedSignatureError, KeyError):
                key.signer.public_key.verify_signature(metadata.signatures[key.id], metadata.signed_bytes)
                return True
        return False


def check_enough(count: int, asked: Role, role: str, keys: Keys) -> None:
    """Say whether enough keys of a role are at hand.

    Raises:
        UsageError: there are fewer than its threshold.
    """
    if count < asked.threshold:
        some = "the key" if asked.threshold == 1 else f"{asked.threshold - count} more of the keys"
        cause = f"{some} of {role} that the repository trusts must be there, and only {count} is"
        cause = cause if count else f"{some} of {role} that the repository trusts is not there"
        raise UsageError(cause, where=str(keys.folder), next_step="copy it there, or give another folder with --keys")


def delegated(targets: Metadata[Targets]) -> Mapping[str, DelegatedRole]:
    """Return the roles of the model lines that ``targets`` trusts."""
    return (targets.signed.delegations.roles if targets.signed.delegations else None) or {}
