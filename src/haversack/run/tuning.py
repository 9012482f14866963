"""Threads and delegate, chosen by measurement on the device and remembered there.

Candidates are opened one at a time, by turns, so that no idle threads of another disturb the clock and memory never
holds more than one. A candidate is out where its answers to the golden vectors are not those that the bundle promises:
another delegate may round otherwise. Of the others the one with the fewest threads wins, unless more are quicker beyond
the noise, and by what makes them worth it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np

from haversack.base import digest, versions
from haversack.base.errors import HaversackError, VerificationError
from haversack.base.progress import Event, Sink, silent
from haversack.run.session import Setting
from haversack.run.source import Source, kind_of, package
from haversack.targets import contract
from haversack.targets.contract import Target
from haversack.targets.onnxruntime import cpu
from haversack.tools.data import comparison, golden_file
from haversack.tools.data.golden_file import Golden
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

FILE = "tuning.json"
ROUNDS, CALLS = 9, 5
WORTH = 1.05
"""So much quicker must a setting with more threads be: they cost power, and the other work of the device."""
SECONDS = 20.0
_LARGEST = 1 << 20
_MOST = 64


class Comparison(Protocol):
    """How two settings compare."""

    @property
    def different(self) -> bool:
        """Whether beyond the noise."""

    @property
    def ratio(self) -> float:
        """Time of the first over that of the second."""


Differ = Callable[[np.ndarray, np.ndarray], Comparison]
"""Compares paired seconds, shape [rounds] each (``measure.noise.differ``)."""


@dataclass(frozen=True)
class Trial:
    """A setting that was measured: median milliseconds of a call, 0 where it is out; and why it was left or taken."""

    setting: Setting
    median_ms: float
    why: str


@dataclass(frozen=True)
class Tuned:
    """What was chosen on a device for an artefact.

    Attributes:
        setting: threads and delegate.
        trials: all that was measured.
        runtime: version of the runtime's package.
        cpu: machine and the features of its processor.
    """

    setting: Setting
    trials: tuple[Trial, ...]
    runtime: str
    cpu: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """What was chosen, under the digest of device and artefact."""

    key: str
    tuned: Tuned


@dataclass(frozen=True)
class Memory:
    """What ``tuning.json`` in a home says: format 1, the newest last."""

    format: int = 1
    kept: tuple[Kept, ...] = ()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def candidates(most: int, delegates: Sequence[str] = ()) -> tuple[Setting, ...]:
    """Return 1, 2, 4 … threads and all cores, with the runtime's own delegate; the others with one thread and all.

    Args:
        most: cores.
        delegates: beside the runtime's own choice.
    """
    threads = [count for count in (1 << power for power in range(most.bit_length())) if count < most] + [most]
    own = [Setting(count) for count in threads]
    return (*own, *(Setting(count, name) for name in delegates for count in dict.fromkeys((1, most))))


def tune(
    source: Source,
    differ: Differ,
    *,
    settings: Sequence[Setting] = (),
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    sink: Sink = silent,
) -> Tuned:
    """Measure settings on the bundle's golden vectors, and choose.

    Args:
        source: a variant with golden vectors.
        differ: compares paired timings.
        settings: what is measured; by default ``candidates`` of this machine.
        rounds: so often each is opened and timed, by turns, at most.
        seconds: after which no further round begins; too few rounds decide nothing, and one thread is taken.
        sink: told of every round, and of what was chosen.

    Raises:
        VerificationError: there are no golden vectors, or no setting gives their answers.
    """
    golden = source.manifest.file(source.target, "golden")
    if golden is None:
        raise VerificationError("the bundle has no golden vectors to measure with", where=source.manifest.name)
    vectors = golden_file.read(source.folder / golden.name)
    wanted = tuple(settings) or candidates(cores(), _kind(source).delegates)
    out: dict[Setting, str] = {}
    times: dict[Setting, list[float]] = {setting: [] for setting in wanted}
    until = time.monotonic() + seconds
    for number in range(rounds):
        if number and time.monotonic() > until:
            break
        sink(Event("run", "progress", f"threads for {source.target}", number, rounds))
        order = wanted if number % 2 == 0 else wanted[::-1]
        for setting in (one for one in order if one not in out):
            try:
                times[setting].append(_timed(source, setting, vectors, check=number == 0))
            except HaversackError as error:
                out[setting] = str(error).splitlines()[0]
    left = [setting for setting in wanted if setting not in out]
    if not left:
        told = "; ".join(f"{setting}: {why}" for setting, why in out.items())
        raise VerificationError(f"no setting gives the bundle's answers: {told}", where=source.manifest.name)
    best, why = _best(left, times, differ)
    trials = tuple(
        Trial(setting, median(times[setting]) * 1000 if setting in why else 0.0, why.get(setting) or out[setting])
        for setting in wanted
    )
    sink(Event("run", "done", f"{source.target} takes {best}: {why[best]}", data={"setting": str(best)}))
    return Tuned(best, trials, _version(source.target), cpu.features())


def remembered(home: Path, source: Source) -> Tuned | None:
    """Return what was chosen here for an artefact; None where nothing was, or the runtime or processor is another."""
    kept = _read(home).kept
    if not kept:
        return None
    key = _key(source)
    found = next((one.tuned for one in kept if one.key == key), None)
    now = (_version(source.target), cpu.features())
    return found if found is not None and (found.runtime, found.cpu) == now else None


def remember(home: Path, source: Source, tuned: Tuned) -> None:
    """Keep a choice in a home.

    Raises:
        EnvironmentFault: the home cannot be written.
    """
    key = _key(source)
    others = [one for one in _read(home).kept if one.key != key]
    atomic.make_folder(home, atomic.HOME)
    atomic.write_bytes(home / FILE, canonical.dumps(Memory(kept=(*others, Kept(key, tuned))[-_MOST:])), atomic.HOME)


def _kind(source: Source) -> type[Target]:
    """Return the target's class.

    Raises:
        VerificationError: it is none of ours.
    """
    kind = kind_of(source.target)
    if kind is None:
        raise VerificationError(f"this version knows no runtime {source.target}", where=source.manifest.name)
    return kind


def _timed(source: Source, setting: Setting, vectors: Sequence[Golden], *, check: bool) -> float:
    """Open, call once, and return median seconds of some calls; the first round holds answers against the vectors."""
    target = _kind(source)()
    chosen = {contract.DELEGATE: setting.delegate} if setting.delegate else {}
    options = {**source.artifact.session_options, **chosen}
    session = target.open_session(source.path, options, setting.threads, proven=source.proven)
    try:
        near = None if source.variant.exact else comparison.within(source.variant.tolerance)
        for number, vector in enumerate(vectors if check else ()):
            for fault in comparison.differing(number, vector.outputs, session.run(vector.inputs), near):
                raise VerificationError(f"it gives other answers than the bundle promises: {fault.cause}")
        session.run(vectors[0].inputs)
        spent = []
        for _ in range(CALLS):
            began = time.perf_counter()
            session.run(vectors[0].inputs)
            spent.append(time.perf_counter() - began)
    finally:
        session.close()
    return median(spent)


def _best(
    left: Sequence[Setting], times: Mapping[Setting, Sequence[float]], differ: Differ
) -> tuple[Setting, dict[Setting, str]]:
    """Return the setting to take, and why each was taken or left."""
    best, why = left[0], {left[0]: "it is the first"}
    for setting in left[1:]:
        pairs = min(len(times[setting]), len(times[best]))
        found = differ(np.array(times[best][:pairs]), np.array(times[setting][:pairs]))
        if not found.different:
            why[setting] = f"it does not differ from {best} beyond the noise"
        elif found.ratio < WORTH:
            why[setting] = f"it is not {WORTH - 1:.0%} quicker than {best} (\u00d7{found.ratio:.2f})"
        else:
            why[best] = f"{setting} is \u00d7{found.ratio:.2f} quicker"
            best, why[setting] = setting, f"it is \u00d7{found.ratio:.2f} quicker than {best}"
    return best, why


@cache
def _version(target: str) -> str:
    """Return the version of a target's runtime: it is the same as long as the process lives."""
    return versions.installed(package(target))


def _key(source: Source) -> str:
    """Return the digest of this device and an artefact."""
    return digest.of_data([*_processors(), cores(), source.target, source.digest])


@cache
def _processors(listing: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return the names of the processor's models; none where the system does not list them."""
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    names = ("model name", "cpu part", "cpu implementer", "hardware", "model")
    return tuple(sorted({line.strip() for line in lines if line.partition(":")[0].strip().lower() in names}))


def _read(home: Path) -> Memory:
    """Return what is remembered; nothing where the file is missing or damaged: it only costs another measurement."""
    path = home / FILE
    try:
        return canonical.loads(atomic.read(path, _LARGEST), Memory, where=str(path), limit=_LARGEST)
    except (OSError, HaversackError):
        return Memory()
