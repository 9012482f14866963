"""A release is tried in a child before it is used: golden vectors, NaN, latency. The child may die, the client not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack.base.errors import EnvironmentFault, Fault, Refused
from haversack.tools.trust import canonical
from haversack.tools.worker.again import ready, twice
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerFault, WorkerTimeout
from haversack.tools.worker.process import Limits, Worker

ENTRY = "haversack.deliver.trial:methods"
GREETING = "hello"
"""What a worker is asked first, before it knows of any model."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_ASKED = (-signal.SIGTERM, -signal.SIGHUP)
"""How a child ends that somebody asked to: systemd asks all processes of a service. No runtime does so to itself."""
_NOTHING_TOLD, _MOST_TOLD, _LONGEST = -1.0, 1e15, 2000


@dataclass(frozen=True)
class Trial:
    """A model to be tried.

    Attributes:
        target: its runtime.
        main: its main file; external data lie beside it.
        golden: its golden vectors.
        options: of the session.
        exact: whether golden outputs must be met bit for bit; else within ``tolerance``.
        tolerance: |y - golden| / |golden|, Euclidean.
        threads: of the session.
    """

    target: str
    main: Path
    golden: Path
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    exact: bool = False
    tolerance: float = 0.0
    threads: int = 1

    def header(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {**vars(self), "main": str(self.main), "golden": str(self.golden), "options": dict(self.options)}


@dataclass(frozen=True)
class Demands:
    """What a model must hold to, and what the child may use.

    Attributes:
        slowest: its fastest call to that of the last model, at most; 0 does not look.
        noise_ms: a smaller difference is none.
        address_space: bytes of virtual memory beyond four times the model's file.
        cpu_seconds: of the whole self-test.
        call_seconds: wall clock of each of its two parts.
        start_seconds: wall clock until the child answers at all.
    """

    slowest: float = 2.0
    noise_ms: float = 0.5
    address_space: int = 6 << 30
    cpu_seconds: int = 300
    call_seconds: float = 180.0
    start_seconds: float = 60.0

    def limits(self, model_bytes: int) -> Limits:
        """Return the child's limits."""
        return Limits(
            call_seconds=self.call_seconds,
            start_seconds=self.start_seconds,
            address_space=self.address_space + 4 * model_bytes,
            cpu_seconds=self.cpu_seconds,
        )


@dataclass(frozen=True)
class Verdict:
    """What a self-test found.

    Attributes:
        faults: why the model is not to be used; none where it is.
        vectors: golden vectors that were asked.
        median_ms: of a call.
        ratio: its fastest call to that of the last model; 0 where they were not compared.
    """

    faults: tuple[Fault, ...] = ()
    vectors: int = 0
    median_ms: float = 0.0
    ratio: float = 0.0

    @property
    def well(self) -> bool:
        """Whether the model may be used."""
        return not self.faults


def trial_of(folder: Path, target: str) -> Trial:
    """Return how the model in a slot is tried; the whole slot is read and checked for that.

    Raises:
        Refused: it is not what its manifest says, or has no golden vectors.
        UsageError, EnvironmentFault: it cannot be read.
    """
    from haversack.tools.trust.bundle import open_bundle

    bundle = open_bundle(folder, target)
    artifact = bundle.artifacts[target]
    variant = next(one for one in bundle.manifest.variants if one.target == target)
    golden = bundle.manifest.file(target, "golden")
    if golden is None:
        raise Refused("it has no golden vectors, so that nothing can be proven of it", where=str(folder))
    return Trial(
        target=target,
        main=folder / artifact.files[0].path,
        golden=folder / golden.name,
        options=artifact.session_options,
        exact=variant.exact,
        tolerance=variant.tolerance,
    )


_DEMANDS = Demands()
Start = Callable[[Limits], Worker]


def start(limits: Limits) -> Worker:
    """Start a child that tries models.

    Raises:
        WorkerFault: it does not come up.
    """
    return Worker.start(ENTRY, env=_ONE_THREAD, limits=limits)


def tried(trial: Trial, last: Trial | None = None, demands: Demands = _DEMANDS, child: Start = start) -> Verdict:
    """Try a model in a child.

    Args:
        trial: the new one.
        last: the one in use, if any.
        demands: what it must hold to.
        child: starts the child.

    Returns:
        The verdict; a child that dies twice, hangs or cannot open the model is a fault of the model.

    Raises:
        EnvironmentFault: no child comes up, the runtime is not installed, or somebody stopped the child: nothing is
            said of the model.
    """
    limits = demands.limits(trial.main.stat().st_size)
    try:
        told = twice(lambda: _asked(limits, child, "answer", trial.header()))
        verdict = _verdict(told)
    except WorkerError as error:
        if error.method == GREETING or error.type.endswith((".MissingExtra", ".EnvironmentFault")):
            raise EnvironmentFault(error.text or error.type, where=trial.target) from error
        return Verdict((_shown(trial.main.name, error.text or error.type),))
    except (WorkerCrashed, WorkerTimeout) as error:
        if isinstance(error, WorkerCrashed) and error.returncode in _ASKED:
            cause, step = f"the self-test was stopped: {error.cause}", "repeat the same command"
            raise EnvironmentFault(cause, where=trial.target, next_step=step) from error
        faults = tuple(_shown(fault.where, fault.cause) for fault in error.faults)
        return Verdict((_shown(trial.main.name, error.cause), *faults))
    if not verdict.well or last is None or not demands.slowest:
        return verdict
    return _compared(verdict, trial, last, demands, child)


def _compared(verdict: Verdict, trial: Trial, last: Trial, demands: Demands, child: Start) -> Verdict:
    """Hold the new model's time against the last one's; where that cannot be done nothing is said."""
    try:
        both = {"new": trial.header(), "last": last.header()}
        told = _asked(demands.limits(trial.main.stat().st_size), child, "compare", both)
    except WorkerFault:
        return verdict  # the last one takes other inputs, or it is the one that dies
    ratio, more = _number(told, "ratio"), _number(told, "more_ms")
    faults: tuple[Fault, ...] = ()
    if ratio > demands.slowest and more > demands.noise_ms:
        cause = f"a call takes {ratio:.2f} times as long as the last model's, and {demands.slowest:g} is allowed"
        faults = (Fault(trial.main.name, cause),)
    return Verdict(faults, verdict.vectors, verdict.median_ms, ratio)


def _asked(limits: Limits, child: Start, method: str, header: Mapping[str, Any]) -> Mapping[str, Any]:
    with ready(lambda: child(limits)) as worker:
        return worker.call(method, header)[0]


def _verdict(told: Mapping[str, Any]) -> Verdict:
    """Return what the child says; one that a model has in its hands may say anything."""
    faults = told.get("faults")
    vectors, median = _number(told, "vectors"), _number(told, "median_ms")
    if not isinstance(faults, list) or vectors < 1 or median < 0:
        return Verdict((Fault("", "the child's answer is none"),))
    return Verdict(tuple(_fault(each) for each in faults), int(vectors), median)


def _number(told: Mapping[str, Any], name: str) -> float:
    value = told.get(name)
    return float(value) if isinstance(value, int | float) and abs(value) <= _MOST_TOLD else _NOTHING_TOLD


def _shown(where: str, cause: str) -> Fault:
    """Return a fault as a terminal may show it: what a child says may be what a model says."""
    return Fault(canonical.shown(where), canonical.shown(cause, _LONGEST))


def _fault(told: object) -> Fault:
    if isinstance(told, list) and len(told) == 2 and all(isinstance(each, str) for each in told):
        return _shown(*told)
    return Fault("", "the child tells a fault without place and cause")
