"""``haversack verify``: what a finished run left is checked again, on the machine where it is typed. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from haversack import report
from haversack.base.counted import counted
from haversack.base.errors import (
    EXIT_CONVERSION,
    EXIT_MET,
    EXIT_REFUSED,
    EXIT_VERIFICATION,
    ConversionError,
    EnvironmentFault,
    Fault,
    HaversackError,
    Refused,
    VerificationError,
)
from haversack.base.finding import KINDS
from haversack.base.progress import Event, Sink, silent
from haversack.deliver.trial import ACCEPTED
from haversack.flow.exports import where_to_run
from haversack.flow.making import ENCODINGS
from haversack.flow.outputs import ARTIFACT, BEST, GOLDEN
from haversack.flow.settings import built
from haversack.flow.shipped import Shipped
from haversack.measure import devices
from haversack.measure.device import Device, NotThere, Opening
from haversack.measure.local import LocalDevice
from haversack.measure.remote import RemoteDevice
from haversack.report import headline
from haversack.report.files import JSON_NAME
from haversack.report.record import CandidateRecord, Limit, Record
from haversack.tools.data import golden_file
from haversack.tools.data.comparison import Near, differing
from haversack.tools.formats import encodings_file
from haversack.tools.graph.injection import count, differences
from haversack.tools.worker.again import twice
from haversack.tools.worker.faults import LinkLost, NeverReady, WorkerError, WorkerFault
from haversack.tools.worker.process import Limits

FLOAT_TOLERANCE = 1e-5
"""Of the largest value of an output, where a plan leaves layers in float; integers are compared bit for bit."""
CALL_SECONDS = 120.0
ENCODINGS_BYTES, ENCODINGS_FACTOR = 64 << 20, 8
"""The file of encodings may have so many bytes, and so many times those of the artefact: codes of one bit take 8."""


@dataclass(frozen=True)
class Check:
    """One thing looked at: what it was, what was found in words, and its faults; or why it was not looked at."""

    target: str
    name: str
    text: str
    faults: tuple[Fault, ...] = ()
    refused: bool = False
    skipped: bool = False


@dataclass(frozen=True)
class Answer:
    """Every check of every target.

    Attributes:
        out: the run's folder, or the bundle's.
        checks: in order.
        never: what is not to be used where something is wrong.
        next_step: what to do then.
        then: the command that leads on where nothing is wrong, if there is one.
    """

    out: Path
    checks: tuple[Check, ...]
    never: Path
    next_step: str
    then: str = ""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All faults."""
        return tuple(fault for check in self.checks for fault in check.faults)

    @property
    def exit_code(self) -> int:
        """0 when nothing is wrong, 7 when a file was refused for security, else 5."""
        if any(check.refused for check in self.checks):
            return EXIT_REFUSED
        return EXIT_VERIFICATION if self.faults else EXIT_MET

    def lines(self) -> list[str]:
        """Return the answer for a terminal."""
        lines = []
        for check in self.checks:
            mark = "wrong" if check.faults else "skip" if check.skipped else "ok"
            lines.append(f"{mark:<6} {check.target}: {check.name}: {check.text}")
            lines += [f"         - {fault}" for fault in check.faults if str(fault) != check.text]
        if self.faults:
            lines.append(f"{counted(len(self.faults), 'fault')}: do not use what is in {self.never}")
            lines.append(f"next: {self.next_step}")
        elif self.then:
            lines.append(f"next: {self.then}")
        return lines

    def data(self) -> dict[str, Any]:
        """Return the answer as JSON-able data."""
        checks = [
            {
                "target": check.target,
                "check": check.name,
                "ok": not (check.faults or check.skipped),
                "skipped": check.skipped,
                "text": check.text,
                "faults": [{"where": fault.where, "cause": fault.cause} for fault in check.faults],
            }
            for check in self.checks
        ]
        return {"out": str(self.out), "ok": not self.faults, "exit_code": self.exit_code, "checks": checks}


def verify(out: Path, sink: Sink = silent, device: str = "local") -> Answer:
    """Check every artefact that a finished run ships; every fault of every check is told.

    Hashes of every file against report.json, and what artifact.json tells against it; every scale, zero-point and
    integer that the file holds against encodings.safetensors; the golden vectors in the runtime, in a process of its
    own: bit for bit where all layers run in integers, else within ``FLOAT_TOLERANCE``; and what the run itself found
    wrong. A file that is not the one that was measured is not opened.

    Args:
        out: the folder of a finished run.
        sink: told about each check.
        device: where the golden vectors run, by its name.

    Raises:
        UsageError: there is no finished run in it, or no such device.
        ConversionError, VerificationError: the run left no artefact; as the run itself ended.
        EnvironmentFault: what the device needs is not installed, it is out of reach, or has no runtime of any target.
    """
    record = report.read(out / JSON_NAME)
    _demand_one(out, record)
    with devices.opened(device, Limits(call_seconds=CALL_SECONDS)) as there:
        _demand_some(there, [name for name in record.best if record.best_of(name)])
        checks = tuple(check for target in record.best for check in _target(out, record, target, there, sink))
    again = f"repeat the run's command into another --out; it stands in {out / JSON_NAME}"
    ship = f"haversack bundle {shlex.quote(str(out))} --out NAME-VERSION.haversack    (to ship it)"
    return Answer(out, checks, out / BEST, again, ship if {*record.best} & {*ACCEPTED} else "")


def _demand_one(out: Path, record: Record) -> None:
    """Refuse a run that left nothing to check, with the exit code that it ended with."""
    if record.best:
        return
    kinds = [finding.kind for one in record.candidates for finding in one.findings]
    code = max((KINDS[kind][1] for kind in kinds), default=EXIT_VERIFICATION)
    raise (ConversionError if code == EXIT_CONVERSION else VerificationError)(
        "the run left no artefact: there is nothing to check",
        where=str(out),
        faults=tuple(Fault(f"{one.target}: {one.id}", one.reason or "it failed") for one in record.candidates),
        next_step=record.next_step,
    )


def _target(out: Path, record: Record, target: str, device: Device, sink: Sink) -> Iterator[Check]:
    candidate = record.best_of(target)
    if candidate is None or candidate.artifact is None:
        yield Check(target, "report", "it names no artefact", (Fault("report.json", f"best.{target} has no file"),))
        return
    shipped = Shipped.of(out, record, built(target, record.settings.get(target)), candidate)
    looks = {
        "hashes": (partial(_hashes, shipped), ()),
        "read back": (partial(_read_back, shipped), (*shipped.names, ARTIFACT, ENCODINGS)),
        "golden vectors": (partial(_golden, device, shipped), (*shipped.names, ARTIFACT, GOLDEN)),
        "findings of the run": (partial(verdict, record, candidate), ()),
    }
    spoiled: set[str] = set()
    for number, (name, (look, needs)) in enumerate(looks.items()):
        sink(Event("verify", "progress", f"{target}: {name}", number, len(looks)))
        if wrong := sorted(spoiled & set(needs)):
            yield Check(target, name, f"not run: {', '.join(wrong)} is not the file that was measured", skipped=True)
            continue
        try:
            text, faults = look()
        except (LinkLost, NeverReady):
            raise  # nothing is said of the file
        except NotThere as error:
            check = Check(target, name, error.cause, skipped=True)
        except HaversackError as error:
            inner = error.faults or (Fault(error.where, error.cause),)
            check = Check(target, name, str(Fault(error.where, error.cause)), inner, isinstance(error, Refused))
            spoiled |= {ARTIFACT} if error.where == str(shipped.folder / ARTIFACT) else set()
        else:
            check = Check(target, name, text, tuple(faults))
        yield check
        spoiled |= _spoiled(shipped, check) if name == "hashes" else set()
    sink(Event("verify", "done", f"{target}: checked"))


def _demand_some(device: LocalDevice, targets: Sequence[str]) -> None:
    """See to it that something runs on a machine that could have what it lacks."""
    if not isinstance(device, RemoteDevice):
        return
    lacking = {target: why for target in targets if (why := device.lacks(target))}
    if lacking and len(lacking) == len(targets):
        faults = tuple(Fault("", why) for why in lacking.values())
        step = f"haversack doctor --device {device.name}"
        raise EnvironmentFault("nothing of this run can run there", where="--device", faults=faults, next_step=step)


def _spoiled(shipped: Shipped, check: Check) -> set[str]:
    """Return the names of files that no later check opens, because their hashes are not those of the report."""
    names = {*shipped.names, ENCODINGS, GOLDEN, ARTIFACT}
    found = {fault.where.removeprefix(shipped.prefix) for fault in check.faults}
    return names if check.refused or "report.json" in found else found & names


def _hashes(shipped: Shipped) -> tuple[str, list[Fault]]:
    """Compare the bytes of every file with report.json."""
    files, faults = shipped.hashes()
    return f"{counted(files, 'file')} against report.json", faults


def _read_back(shipped: Shipped) -> tuple[str, list[Fault]]:
    """Compare what the file holds with encodings.safetensors."""
    artifact = shipped.artifact()
    path = shipped.folder / ENCODINGS
    try:
        size, largest = path.stat().st_size, ENCODINGS_BYTES + ENCODINGS_FACTOR * artifact.bytes
        if size > largest:
            raise Refused(f"it has {size} bytes, and of such a model it may have {largest}", where=str(path))
        asked = encodings_file.read(path)
        found = shipped.part.read(shipped.folder / artifact.files[0].path, artifact)
    except OSError as error:
        cause = f"it cannot be read: {error.strerror or error}"
        raise VerificationError(cause, where=str(error.filename or path)) from error
    equal, faults = differences(asked, found)
    # Biases follow from the scales and stand in no file of encodings: a reader refuses those of another digest.
    biases = max(0, artifact.injected - count(asked)) if artifact.bias_digests else 0
    held, told = equal + biases, count(asked) + biases
    return f"{held:,} of {told:,} scales, zero-points and integers are those that were injected", list(faults)


def _golden(device: Device, shipped: Shipped) -> tuple[str, list[Fault]]:
    """Run the golden vectors; a file that does not run here has none."""
    if not shipped.part.runs_here:
        raise NotThere(where_to_run(shipped.part, shipped.names[0]))
    artifact = shipped.artifact()
    vectors = golden_file.read(shipped.folder / GOLDEN)
    main = artifact.files[0].path
    opening = Opening((shipped.folder / main).resolve(), shipped.target, artifact.session_options)
    faults = replayed(device, opening, vectors, None if shipped.exact else _near, shipped.prefix + main)
    how = "bit for bit" if shipped.exact else f"within {FLOAT_TOLERANCE:g} (it has float layers)"
    where = "" if device.name == "local" else f" on {device.name}"
    return f"{counted(len(vectors), 'vector')} in the runtime{where}, {how}", faults


def replayed(
    device: Device, opening: Opening, vectors: Sequence[golden_file.Golden], near: Near | None, where: str
) -> list[Fault]:
    """Run golden vectors in a runtime, in a process of its own, and return what is wrong with the outputs.

    Args:
        device: where.
        opening: the file.
        vectors: what goes in and must come out.
        near: as ``differing`` takes it.
        where: names the file in errors.

    Raises:
        NotThere: the device has no such runtime.
        VerificationError: the runtime does not take the file, fails or hangs.
    """

    def look() -> list[Fault]:
        faults: list[Fault] = []
        handle = device.load(opening)
        for number, vector in enumerate(vectors):
            faults += differing(number, vector.outputs, device.run(handle, vector.inputs), near)
        device.unload(handle)
        return faults

    try:
        return twice(look)
    except WorkerFault as error:
        raise VerificationError(_plainly(error, opening.path), where=where) from error


def _plainly(error: WorkerFault, path: Path) -> str:
    """Return what went wrong in the child as one line, without the names of our classes and the file's own path."""
    if not isinstance(error, WorkerError):
        return error.cause
    text = (error.text.splitlines() or [error.type])[0].removeprefix(f"{path.resolve()}: ")
    return text if error.type.startswith("haversack.") else f"the runtime says {text!r}"


def verdict(record: Record, candidate: CandidateRecord) -> tuple[str, list[Fault]]:
    """Say what the run itself found wrong with what it left, and the user did not allow.

    As in the run's own exit code, a file that misses its budget is not failed for being slower than float as well.
    """
    missed = [limit for limit in record.limits_of(candidate.target) if limit.missed]
    excused = {*record.allowed, "slower-than-float"} if missed else set(record.allowed)
    wrong = [finding for finding in candidate.findings if finding.severity == "error"]
    faults = [
        Fault(finding.layer or candidate.id, f"{finding.kind}: {finding.text}")
        for finding in wrong
        if finding.kind not in excused
    ]
    if candidate.verdict == "failed" and not wrong:
        faults.append(Fault(candidate.id, f"the run failed it: {candidate.reason}"))
    if faults:
        return f"it found {counted(len(faults), 'error')} that {'fails' if len(faults) == 1 else 'fail'} it", faults
    why = [
        f"{kind} was allowed"
        if kind in record.allowed
        else f"{kind} is excused by the missed budget: {_misses(missed)}"
        for kind in dict.fromkeys(finding.kind for finding in wrong)
    ]
    return f"it found no error{' that fails it: ' if why else ''}{'; '.join(why)}", faults


def _misses(limits: Sequence[Limit]) -> str:
    return "; ".join(headline.miss(limit) for limit in limits)


def _near(wanted: np.ndarray, found: np.ndarray) -> bool:
    """Say whether no value differs by more than the tolerance of the largest (NaN only where NaN is wanted)."""
    finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float64))
    near = np.isclose(found, wanted, rtol=0.0, atol=FLOAT_TOLERANCE * finite.max(initial=0.0), equal_nan=True)
    return bool(near.all())
