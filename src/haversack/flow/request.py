"""What the user typed, read: the job, the budget, and the plans of a recipe."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from haversack import load, metrics
from haversack.base import budget as budgets
from haversack.base import recipe
from haversack.base.budget import Budget
from haversack.base.errors import Fault, JobError, UsageError, grouped
from haversack.base.job import Job
from haversack.base.plan import Plan
from haversack.base.shelf import nearest
from haversack.flow import degradations, requirements, scoping, settings
from haversack.flow.effort import DEFAULT
from haversack.targets.contract import PLATFORMS, Target
from haversack.targets.contract import SHELF as TARGETS

ANY = "any"
DEFAULT_BUDGET = Budget(drop=0.01)
"""When nothing is limited: one point of the metric, and then the smallest and fastest."""
ARCHITECTURE = "architecture"
"""What a plan file calls the one its plan is for."""
USUAL = "onnxruntime"
"""The runtime where nobody names one."""


@dataclass(frozen=True)
class Request:
    """What the user typed.

    Attributes:
        source: a job file, ``module:callable``, or a recipe.toml of an earlier run.
        budget: ``size=5.2MB,latency=0.55x,drop=1pt``; None for the recipe's, or for a drop of one point.
        targets: runtimes by name, each with settings of its own behind a colon where it is given some
            (``litert:integer_io=true``); ``any`` for all that run here, of which one ships. None: those of the
            recipe, or else onnxruntime.
        platform: where the artefact will run (``targets.contract.PLATFORMS``), or empty.
        out: the folder for the results; text will do, here and for ``plan``.
        allow: kinds of findings that may not fail the run.
        plan: a file with one plan, that alone is made real.
        allow_pickle: whether model files may be unpickled.
        device: where artefacts are opened, run and timed, by its name (``measure.devices``).
        command: what repeats the run, for the report.
        effort: what rounding weights may cost (``effort.EFFORTS``).
        degraded: operations that make inputs worse, in place of the job's list, each with settings of its own behind a
            colon (``noise:level=0.2``); ``none`` for an empty list. Empty: the recipe's, or the job's.
        layers: which layers have which precision, ``GLOB=PRECISION``; ``none`` for no rules. Empty: those of the
            recipe, or else the job's.
        without: precisions and parts that no plan may use; ``none`` and empty as for ``layers``.
        ray: over which Ray cluster pure work is spread (``flow.cluster``); empty: it is done here.
    """

    source: str
    budget: str | None = None
    targets: tuple[str, ...] = ()
    platform: str = ""
    out: Path = Path("out")
    allow: tuple[str, ...] = ()
    plan: Path | None = None
    allow_pickle: bool = False
    command: str = ""
    device: str = "local"
    effort: str = DEFAULT
    degraded: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    ray: str = ""

    def __post_init__(self) -> None:
        """Take folders and files as text, and one name for a tuple of them.

        Raises:
            UsageError: a field holds something else.
        """
        for name in ("out", "plan"):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, Path(value))
            elif not (isinstance(value, Path) or (name == "plan" and value is None)):
                raise _unfit_field(name, value, "a path")
        for name in ("targets", "allow", "degraded", "layers", "without"):
            value = getattr(self, name)
            given = (value,) if isinstance(value, str) else value
            if not isinstance(given, tuple | list) or not all(isinstance(one, str) for one in given):
                raise _unfit_field(name, value, "a tuple of names")
            object.__setattr__(self, name, tuple(given))
        for name in ("source", "budget", "platform", "command", "device", "effort", "ray"):
            if not (isinstance(getattr(self, name), str) or (name == "budget" and self.budget is None)):
                raise _unfit_field(name, getattr(self, name), "text")

    @classmethod
    def of(cls, source: str, wishes: Mapping[str, Any]) -> Request:
        """Return a request with the fields that ``pack`` was given by name.

        Raises:
            UsageError: there is no such field (the nearest name is shown), or it holds something else.
        """
        known = [one.name for one in fields(cls)]
        faults = [Fault(name, f"there is no such field{nearest(name, known)}") for name in wishes if name not in known]
        if faults:
            raise UsageError("the request cannot be read", faults=tuple(faults), next_step=f"it has {', '.join(known)}")
        return cls(**{"source": source, **wishes})


def _unfit_field(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(f"it is a {type(value).__name__}, not {wanted}", where=name)


@dataclass(frozen=True)
class Runtimes:
    """The runtimes of a run.

    Attributes:
        targets: by name, in order.
        one: whether only one of them ships.
        left_out: target -> why it is not tried, where the user asked for any.
        shipping: target -> what shipping it to the user's platform takes.
        settings: target -> its own, for targets that were given some, here or in the recipe that is replayed.
    """

    targets: tuple[str, ...]
    one: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    shipping: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, settings.Settings] = field(default_factory=dict)

    def taking(self, refusals: Mapping[str, Sequence[Fault]], cause: str = "it cannot take this model") -> Runtimes:
        """Return the runtimes without those that refuse the model, where the user asked for any and one takes it.

        Args:
            refusals: target -> what it cannot take and why.
            cause: what that means, in words.
        """
        refused = {name: faults for name, faults in refusals.items() if faults and name in self.targets}
        kept = tuple(name for name in self.targets if name not in refused)
        if not (self.one and kept):
            return self
        why = {name: f"{cause}: {'; '.join(grouped(faults, 1))}" for name, faults in refused.items()}
        return replace(self, targets=kept, left_out={**self.left_out, **why})


def runtimes(request: Request) -> Runtimes:
    """Return what the user's targets and platform mean on this machine.

    Raises:
        UsageError: an unknown target or platform, or a runtime that the platform does not have.
    """
    if request.platform and request.platform not in PLATFORMS:
        raise UsageError(
            f"there is no platform {request.platform!r}{nearest(request.platform, PLATFORMS)}",
            where="--platform",
            next_step=f"one of {', '.join(PLATFORMS)}",
        )
    replayed = _recipe(request)
    planned = tuple(dict.fromkeys(plan.target for plan in replayed.plans)) if replayed else ()
    texts = request.targets or planned or (USUAL,)
    asked = [settings.parsed(text) for text in texts if text != ANY]
    named = [name for name, _ in asked]
    for name in named:
        TARGETS.type_of(name)  # a misspelt name beside ``any`` is told, and not covered by it
    if named and ANY in texts:
        raise UsageError(
            f"any ships one of the runtimes that run here, and {', '.join(named)} is named beside it",
            where="--target",
            next_step=f"--target any alone, or the names alone: --target {' --target '.join(named)}",
        )
    wanted = dict.fromkeys(TARGETS.names() if ANY in texts else named)
    own = {**(replayed.settings if replayed else {}), **{name: one for name, one in asked if one}}
    parts: dict[str, Target] = {name: settings.built(name, own.get(name)) for name in wanted}
    why = {name: reason for name, part in parts.items() if (reason := _unfit(part, request.platform))}
    if ANY not in texts:
        elsewhere = [name for name, reason in why.items() if reason == _elsewhere(request.platform)]
        if elsewhere:
            raise UsageError(
                f"{', '.join(elsewhere)} does not run on {request.platform}",
                where="--platform",
                next_step="--target any tries what does",
            )
        why = {}
    elif planned:
        why = {
            name: why.get(name, "the recipe has no plan for it") for name in parts if name in why or name not in planned
        }
    kept = tuple(name for name in parts if name not in why)
    if not kept:
        raise UsageError("no runtime is left to try", faults=tuple(Fault(*one) for one in why.items()))
    shipping = {name: parts[name].platforms[request.platform] for name in kept} if request.platform else {}
    return Runtimes(kept, ANY in texts, why, shipping, {name: own[name] for name in kept if name in own})


def _recipe(request: Request) -> recipe.Recipe | None:
    """Return the recipe that is replayed, or None."""
    return recipe.read(Path(request.source)) if request.source.endswith(".toml") else None


def _unfit(part: Target, platform: str) -> str:
    if platform and platform not in part.platforms:
        return _elsewhere(platform)
    if not part.runs_here:
        return "its files are written but do not run here, so nothing can be measured"
    missing = [name for name in part.packages if not _installed(name)]
    other = ", ".join(str(fault) for fault in part.unverified())
    return f"{', '.join(missing)} is not installed" if missing else other


def _elsewhere(platform: str) -> str:
    return f"it does not run on {platform}"


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def opened(request: Request) -> tuple[Job, Budget, Mapping[str, Plan]]:
    """Return the job, the limits, and target -> plan where a recipe or a plan file says what to make.

    The job file is the last thing looked at: what was typed wrongly beside it (``typed.check``) is told before any of
    its code runs.

    Raises:
        UsageError: a target, budget, recipe or job file that cannot be read, or a drop or baseline in percent where the
            metric is a fraction.
    """
    tried = runtimes(request)
    limits = budgets.parse(request.budget) if request.budget is not None else None
    worse = degraded(request)
    layers, without = said(request)
    source, fixed = request.source, {}
    if source.endswith(".toml"):
        found = recipe.read(Path(source))
        beside = os.path.normpath(Path(source).parent / found.job)
        source = beside if Path(beside).is_file() else found.job
        fixed = {plan.target: plan for plan in found.plans}
        if fixed and not set(tried.targets) <= set(fixed):
            raise UsageError(
                f"the recipe has no plan for {', '.join(name for name in tried.targets if name not in fixed)}",
                where=request.source,
                tried="making just what it says",
                next_step=f"leave --target out for {', '.join(fixed)}, or pack the job: {source}",
            )
        limits = limits or found.budget
    if request.plan is not None:
        plan = read_plan(request.plan)
        if plan.target not in tried.targets:
            chosen = ", ".join(tried.targets)
            raise UsageError(
                f"the plan is for {plan.target!r}, the run for {chosen}",
                where=str(request.plan),
                next_step=f"--target {plan.target}",
            )
        fixed = {plan.target: plan}
    requirements.demand("pack", purpose="packing a model")
    requirements.demand_runtimes({name: TARGETS.build(name) for name in tried.targets})
    if limits is not None and not limits.limits():
        limits = None
    job = load.open_job(source, allow_pickle=request.allow_pickle)
    _check_units(job, request.budget or "")
    job = _with(job, worse, layers, without)
    return job, limits or DEFAULT_BUDGET, fixed


def _with(
    job: Job,
    worse: tuple[Mapping[str, Any], ...] | None,
    layers: tuple[str, ...] | None,
    without: tuple[str, ...] | None,
) -> Job:
    """Return a job with what stands in place of its own lists; None leaves them.

    Raises:
        UsageError: something is wrong with the job's own, or with one of them beside another.
    """
    scoping.check(job.layer_precisions, job.without, typed=False)
    job = replace(
        job,
        degraded=job.degraded if worse is None else worse,
        layer_precisions=job.layer_precisions if layers is None else layers,
        without=job.without if without is None else without,
    )
    scoping.check(job.layer_precisions, job.without)  # one may be the job's, and the other typed
    degradations.of(job)  # tells what is wrong with the job's list
    return job


def degraded(request: Request) -> tuple[Mapping[str, Any], ...] | None:
    """Return the operations that stand in place of the job's list: typed, or of the recipe; None where nothing does.

    Raises:
        UsageError: as ``degradations.asked``, or the recipe cannot be read.
    """
    if request.degraded:
        return degradations.asked(request.degraded)
    found = _recipe(request)
    return found.degraded if found else None


def said(request: Request) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return what stands in place of the job's rules for layers, and of what it forbids: typed, or of the recipe.

    Raises:
        UsageError: as ``scoping.typed``, or the recipe cannot be read.
    """
    layers, without = scoping.typed(request.layers, request.without)
    found = _recipe(request)
    if found is None:
        return layers, without
    return found.layers if layers is None else layers, found.without if without is None else without


def _check_units(job: Job, typed: str) -> None:
    """Refuse percentages where the metric is a fraction: as a limit, and as the stated baseline.

    Raises:
        UsageError: an unknown metric, or one of both.
    """
    metric = metrics.resolve(job.metric)
    budgets.check_unit(typed, metric.unit, metric.name)
    # What a callable returns is not known yet: its baseline is looked at when it is scored.
    if metric.unit == "fraction" and not callable(job.metric) and job.baseline is not None and job.baseline > 1:
        raise JobError(
            f"it is {job.baseline:g}, but {metric.name} is a fraction, at most 1",
            where="baseline",
            next_step=f"baseline = {job.baseline / 100:g}",
        )


def architectures(request: Request) -> dict[str, str]:
    """Return target -> the architecture that its plan is for, where a recipe or a plan file names one.

    Raises:
        UsageError: the file cannot be read.
    """
    if request.plan is not None:
        plan, name = _plan_file(request.plan)
        return {plan.target: name} if name else {}
    found = _recipe(request)
    return {target: one.name for target, one in found.architectures.items()} if found else {}


def read_plan(path: Path) -> Plan:
    """Read a plan that ``resolve --write`` wrote.

    Raises:
        UsageError: not TOML, or wrong fields, all told at once.
    """
    return _plan_file(path)[0]


def _plan_file(path: Path) -> tuple[Plan, str]:
    """Return a plan and the architecture that it is for; empty where none is named."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        cause = (error.strerror or "") if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"the plan cannot be read: {cause[:1].lower()}{cause[1:]}",
            where=str(path),
            next_step="haversack resolve OUT --budget … --write plan.toml writes one",
        ) from error
    name = data.pop(ARCHITECTURE, "")
    if not isinstance(name, str):
        raise UsageError(f"{ARCHITECTURE} is {name!r}, not a name", where=str(path))
    return recipe.structure(data, Plan, where=str(path)), name


def write_plan(plan: Plan, path: Path, architecture: str = "") -> None:
    """Write a plan for ``pack --plan``; with the architecture that it is for, where a job gives several.

    Raises:
        OSError: it cannot be written.
    """
    import tomli_w

    named = {ARCHITECTURE: architecture} if architecture else {}
    path.write_text(tomli_w.dumps({**named, **recipe.unstructure(plan)}), encoding="utf-8")
