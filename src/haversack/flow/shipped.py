"""What ships for one target, as its files tell it: believed only where report.json says the same."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from haversack.base import digest
from haversack.base.candidate import Artifact
from haversack.base.errors import Fault, Refused, UsageError, VerificationError
from haversack.base.plan import STATIC
from haversack.base.recipe import structure
from haversack.flow.outputs import ARTIFACT, BEST, beside
from haversack.report.record import ArtifactRecord, CandidateRecord, Record
from haversack.targets.contract import Target
from haversack.tools.store import atomic


@dataclass(frozen=True)
class Shipped:
    """What ships for one target.

    Attributes:
        out: the run's folder.
        target: the runtime.
        part: the target's part.
        record: what report.json says of the candidate.
        proofs: path below ``out`` -> sha256, of what lies beside the file.
        layers: keys of the model's weighted layers.
    """

    out: Path
    target: str
    part: Target
    record: CandidateRecord
    proofs: Mapping[str, str] = field(default_factory=dict, hash=False)
    layers: tuple[str, ...] = ()

    @classmethod
    def of(cls, out: Path, record: Record, part: Target, candidate: CandidateRecord) -> Shipped:
        """Return what a record says of one candidate that ships."""
        layers = tuple(layer.key for layer in record.model_of(candidate).layers)
        return cls(out, candidate.target, part, candidate, record.proofs, layers)

    @property
    def folder(self) -> Path:
        """Where the target's files lie."""
        return self.out / BEST / self.target

    @property
    def prefix(self) -> str:
        """What the names of the target's files begin with in report.json."""
        return f"{BEST}/{self.target}/"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the artefact's files in the target's folder."""
        files = self.record.artifact.files if self.record.artifact is not None else ()
        return tuple(file.path.removeprefix(self.prefix) for file in files)

    @property
    def exact(self) -> bool:
        """Whether every layer runs in integers, so that every machine gives the same bits."""
        plans = self.record.plan.layers
        return bool(self.layers) and all(key in plans and plans[key].precision in STATIC for key in self.layers)

    def hashes(self) -> tuple[int, list[Fault]]:
        """Compare the bytes of every file with report.json: how many files, and the faults.

        Raises:
            Refused: report.json names a file outside the target's folder.
        """
        files = self.record.artifact.files if self.record.artifact is not None else ()
        prefix = self.prefix
        self._inside(self.out, [file.path for file in files], "report.json")
        faults = []
        for file in files:
            size = _size(self.out / file.path)
            if size is not None and size != file.bytes:
                faults.append(Fault(file.path, f"it has {size} bytes, report.json says {file.bytes}"))
            else:
                faults += _wrong(self.out / file.path, file.path, file.sha256)
        for name in beside(self.part):
            told = self.proofs.get(prefix + name)
            if told is None:
                faults.append(Fault("report.json", f"proofs has no sha256 of {prefix}{name}"))
            else:
                faults += _wrong(self.folder / name, prefix + name, told)
        return len(files) + len(beside(self.part)), faults

    def artifact(self) -> Artifact:
        """Return what ``artifact.json`` tells, where it tells what report.json does.

        Raises:
            Refused: it names a file outside its folder, or a session option that the target does not set.
            VerificationError: it is missing, cannot be read, or contradicts report.json; all its faults.
        """
        path = self.folder / ARTIFACT
        try:
            found = structure(json.loads(path.read_text(encoding="utf-8")), Artifact, where=str(path))
        except (OSError, ValueError, RecursionError) as error:
            raise VerificationError(f"it cannot be read: {atomic.why(error)}", where=str(path)) from error
        except UsageError as error:
            raise VerificationError(error.cause, where=str(path), faults=error.faults) from error
        self._inside(self.folder, [file.path for file in found.files], str(path))
        strange = sorted(set(found.session_options) - self.part.session_settings)
        if strange:
            faults = tuple(Fault(f"session_options.{name}", f"{self.target} never sets it") for name in strange)
            raise Refused("it asks for session options that no run gives", where=str(path), faults=faults)
        if faults := self._contradictions(found):
            raise VerificationError("it contradicts report.json", where=str(path), faults=faults)
        return found

    def _contradictions(self, found: Artifact) -> tuple[Fault, ...]:
        told = self.record.artifact or ArtifactRecord("", 0, 0, "")
        prefix = self.prefix
        mine = [(prefix + file.path, file.bytes, file.sha256) for file in found.files]
        pairs = {
            "target": (found.target, self.target),
            "files": (mine, [(file.path, file.bytes, file.sha256) for file in told.files]),
            "injected": (found.injected, told.injected),
            "session_options": (dict(found.session_options), dict(told.session_options)),
        }
        faults = [
            Fault(name, f"{_words(one)}; report.json says {_words(other)}")
            for name, (one, other) in pairs.items()
            if one != other
        ]
        return (*faults, *(() if found.files else (Fault("files", "there is none"),)))

    def _inside(self, base: Path, names: list[str], where: str) -> None:
        """Refuse paths below ``base`` that leave the target's folder: absolute, by ``..``, or by a link."""
        home = os.path.realpath(self.folder)
        faults = tuple(
            Fault(name, "it is not in the folder of its target")
            for name in names
            if "\0" in name
            or {"/", ".."} & set(PurePosixPath(name).parts)
            or not Path(os.path.realpath(base / name)).is_relative_to(home)
        )
        if faults:
            raise Refused("it names files outside the folder of its target", where=where, faults=faults)


def _words(value: object) -> str:
    """Return what a person reads of a field: a list of files by name, bytes and hash; settings by name."""
    if isinstance(value, list):
        told = [f"{name} ({size} bytes, sha256 {sha[:16]}…)" for name, size, sha in value]
        return ", ".join(told) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={setting}" for name, setting in sorted(value.items())) or "none"
    return str(value)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _wrong(path: Path, name: str, told: str) -> list[Fault]:
    if not path.is_file():
        return [Fault(name, "it is missing")]
    found = digest.of_file(path)
    return [] if found == told else [Fault(name, f"its sha256 is {found[:16]}…, report.json says {told[:16]}…")]
