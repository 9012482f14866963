"""What a user wants shipped of a finished run, and whether it may be: every fault at once, with the command to type."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from haversack.base import labels
from haversack.base.bundle import FOLDER, LIMITS, LINE, OPERATIONS, VERSION
from haversack.base.candidate import Artifact
from haversack.base.errors import BudgetMissed, Fault, HaversackError, UsageError, VerificationError
from haversack.base.finding import KINDS
from haversack.base.shelf import nearest
from haversack.bundle import variant
from haversack.bundle.variant import Piece
from haversack.flow.settings import built
from haversack.flow.shipped import Shipped
from haversack.flow.verify import verdict
from haversack.report import headline
from haversack.report.record import Record
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

Content = TypeVar("Content")
MISSED = "missed"
"""What ``--allow`` takes beside kinds of findings: a budget that was missed."""


@dataclass(frozen=True)
class Wish:
    """What the user said of a bundle.

    Attributes:
        name, version: of the release; empty to take them from the folder's name.
        labels: a text file, one label a line, in place of the job's; None for these.
        licences: text files.
        targets: runtimes; empty for all that the run ships.
        allow: kinds of findings that may not stop it, and ``missed``.
    """

    name: str = ""
    version: str = ""
    labels: Path | None = None
    licences: tuple[Path, ...] = ()
    targets: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """The same, read and checked."""

    name: str
    version: str
    targets: tuple[str, ...]
    labels: tuple[str, ...] = ()
    licences: tuple[bytes, ...] = field(default=(), repr=False)

    def pieces(self, record: Record) -> Iterator[Piece]:
        """Yield the files that all runtimes need."""
        if record.preprocess:
            yield Piece("preprocess.json", "preprocess", canonical.dumps(list(record.preprocess)))
        if self.labels:
            yield Piece("labels.txt", "labels", labels.to_bytes(self.labels))
        for number, text in enumerate(self.licences, 1):
            yield Piece(f"licence-{number}.txt" if number > 1 else "licence.txt", "licence", text)

    def demand_fitting(self, artifacts: Mapping[str, Artifact]) -> None:
        """Refuse labels that are not as many as classes.

        Raises:
            UsageError: they are not, for some runtime.
        """
        faults = tuple(variant.misfit(self.labels, artifacts)) if self.labels else ()
        if faults:
            step = "give as many labels as the model has classes with --labels FILE, one a line"
            raise UsageError("the labels do not fit the model", where="labels", faults=faults, next_step=step)


def asked(record: Record, run: Path, to: Path, wish: Wish) -> Said:
    """Read what the user said.

    Raises:
        UsageError: a part of it cannot be met: all faults together.
        VerificationError: the run left nothing to ship.
    """
    if not record.best:
        raise VerificationError(
            "the run left no artefact: there is nothing to ship", where=str(run), next_step=record.next_step
        )
    faults: list[Fault] = []
    name, version = _named(to, wish, faults)
    targets = _targets(record, run, to, wish, faults)
    if record.preprocess is None:
        again = f"an earlier version packed it and kept none; the same command keeps it: {record.command}"
        faults.append(Fault("preprocess", again))
    can = ", ".join(sorted(OPERATIONS))
    faults += [
        Fault(f"preprocess[{index}]", f"a device cannot do {step.get('op')} as it is done here (it can: {can})")
        for index, step in enumerate(record.preprocess or ())
        if step.get("op") not in OPERATIONS
    ]
    known = {kind for kind, (severity, _, _) in KINDS.items() if severity == "error"} | {MISSED}
    faults += [
        Fault("--allow", f"{kind!r} stops nothing{nearest(kind, known)}") for kind in wish.allow if kind not in known
    ]
    classes = _read(wish.labels, "--labels", LIMITS["labels"], labels.typed, faults) if wish.labels else record.labels
    licences = [_read(path, "--licence", LIMITS["licence"], _text, faults) for path in wish.licences]
    if faults:
        raise UsageError(
            "no bundle can be made so",
            where=str(to),
            faults=tuple(faults),
            next_step="haversack bundle --help    (tells what it takes)",
        )
    return Said(name, version, targets, classes or (), tuple(text for text in licences if text is not None))


def _named(to: Path, wish: Wish, faults: list[Fault]) -> tuple[str, str]:
    """Return name and version, from the folder's name or the flags."""
    found = FOLDER.fullmatch(to.name)
    typed = {"name": wish.name, "version": wish.version}
    for flag, pattern, example in (("name", LINE, "digits"), ("version", VERSION, "1.3.0")):
        value = typed[flag]
        if value and not pattern.fullmatch(value):
            faults.append(Fault(f"--{flag}", f"{value!r} is none, as {example} is"))
        elif value and found and value != found[flag]:
            faults.append(Fault(f"--{flag}", f"{value!r}, and --out says {found[flag]!r}"))
        elif not value and not found:
            cause = f"--out {to.name} tells none: name it NAME-VERSION.haversack, as digits-1.3.0.haversack"
            cause = f"{cause}, or say --{flag} {example}"
            faults.append(Fault(f"--{flag}", cause))
    return (wish.name or (found["name"] if found else "")), (wish.version or (found["version"] if found else ""))


def _targets(record: Record, run: Path, to: Path, wish: Wish, faults: list[Fault]) -> tuple[str, ...]:
    """Return the runtimes that go in."""
    why = {target: _unbundled(record, target) for target in record.best}
    able = [target for target, cause in why.items() if not cause]
    wanted = tuple(dict.fromkeys(wish.targets)) or tuple(record.best)
    for target in wanted:
        if target not in record.best:
            has = ", ".join(record.best)
            faults.append(Fault("--target", f"the run ships nothing for {target!r}{nearest(target, why)} (has: {has})"))
        elif why[target]:
            faults.append(Fault(target, f"{why[target]}{_instead(run, to, able)}"))
    if not wish.targets and not record.why:
        lost = [target for target in record.targets if target not in record.best]
        faults += [Fault(target, f"the run left no file for it{_instead(run, to, able)}") for target in lost]
    return wanted


def _instead(run: Path, to: Path, able: Sequence[str]) -> str:
    words = ["haversack", "bundle", str(run), "--out", str(to), *(word for one in able for word in ("--target", one))]
    return f"; without it: {shlex.join(words)}" if able else ""


def _unbundled(record: Record, target: str) -> str:
    candidate = record.best_of(target)
    if candidate is None or candidate.artifact is None:
        return "report.json names no file of it"
    names = [file.path.rpartition("/")[2] for file in candidate.artifact.files]
    try:
        part = built(target, record.settings.get(target))
    except HaversackError as error:
        return error.cause
    return variant.unbundled(names, runs_here=part.runs_here)


def demand_shippable(record: Record, ships: Mapping[str, Shipped], wish: Wish, run: Path) -> None:
    """Refuse what is not what was measured, what the run itself found wrong, and a budget that was missed.

    Args:
        record: of the run.
        ships: target -> what would go in.
        wish: says what is allowed.
        run: the run's folder.

    Raises:
        VerificationError: a file is another, or an error was found and not allowed; missed limits are told as well.
        BudgetMissed: only limits were missed, and nobody allowed that.
    """
    changed = [fault for one in ships.values() for fault in one.hashes()[1]]
    if changed:
        raise VerificationError(
            "what lies there is not what was measured",
            where=str(run),
            faults=tuple(changed),
            next_step=f"haversack verify {shlex.quote(str(run))}    (tells more); then pack into another --out",
        )
    allowed = replace(record, allowed=(*record.allowed, *wish.allow))
    wrong = [
        Fault(f"{target}: {fault.where}", fault.cause)
        for target, one in ships.items()
        for fault in verdict(allowed, one.record)[1]
    ]
    missed = [] if MISSED in wish.allow else [fault for target in ships for fault in _missed(record, target)]
    kinds = [fault.cause.partition(":")[0] for fault in wrong]
    allow = "".join(f" --allow {kind}" for kind in dict.fromkeys([*kinds, *([MISSED] if missed else [])]))
    step = f"to ship it all the same, add{allow}; or pack again: {record.next_step or record.command}"
    if wrong:
        raise VerificationError("the run found it wrong", where=str(run), faults=(*wrong, *missed), next_step=step)
    if missed:
        raise BudgetMissed("the run missed its budget", where=str(run), faults=tuple(missed), next_step=step)


def _missed(record: Record, target: str) -> list[Fault]:
    told = [Fault(target, headline.miss(limit)) for limit in record.limits_of(target) if limit.missed]
    best = record.best_of(target)
    if not told and best is not None and best.verdict == "missed":
        told.append(Fault(target, best.reason or "it misses its budget"))
    return told


def _text(data: bytes) -> bytes:
    data.decode()
    return data


def _read(path: Path, flag: str, most: int, parse: Callable[[bytes], Content], faults: list[Fault]) -> Content | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most} bytes")
        return parse(data)
    except OSError as error:
        faults.append(Fault(flag, f"{path} cannot be read: {atomic.why(error)}"))
    except ValueError as error:
        faults.append(Fault(flag, f"{path} is no such text: {error}"))
    return None
