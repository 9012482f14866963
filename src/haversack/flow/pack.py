"""START HERE: ``haversack pack`` as a page of plain calls, from a job to a verified artefact under its budgets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.errors import ConversionError, UsageError
from haversack.base.finding import Finding
from haversack.base.job import Job
from haversack.base.progress import Event, Sink, silent
from haversack.choose.runtimes import Choice, between, outdone
from haversack.flow import architectures, entrants, planned, robustness, room, typed
from haversack.flow.cluster import spreading
from haversack.flow.crossing import crossed, parting, told
from haversack.flow.foreign import foreign
from haversack.flow.outputs import Wishes, leave, shipped
from haversack.flow.reporting import confirmed
from haversack.flow.request import Request, Runtimes, opened, runtimes
from haversack.flow.request import degraded as degraded_by
from haversack.flow.search import (
    PLANS,
    allowed,
    beyond_of,
    exit_code,
    limits_of,
    ruling,
    searched,
    steps_of,
    taking,
    tell_beyond,
)
from haversack.flow.steps import Steps
from haversack.flow.unlike import unlike
from haversack.flow.where import measured_on
from haversack.flow.workshop import Workshop, refuse_anothers, refuse_unmakeable
from haversack.load.forecast import Preflight, Preflights
from haversack.report.record import Record


@dataclass(frozen=True)
class Outcome:
    """What a run ends with: its record and page, the seconds it took, and the exit code of the command."""

    record: Record
    page: Path
    seconds: float
    exit_code: int


def pack(request: Request | str, sink: Sink = silent, **wishes: Any) -> Outcome:  # noqa: ANN401 - Request's fields
    """Fit a model into its budgets, verified and measured on the artefact itself.

    Args:
        request: what to pack; or its source, with the other fields of ``Request`` by name.
        sink: told about every step.

    Raises:
        HaversackError: ``base/errors`` draws the tree; a missed budget is no error but exit code 3.
    """
    wish = request if isinstance(request, Request) else Request.of(request, wishes)
    started, memory = time.monotonic(), room.left()
    typed.check(wish)
    asked = runtimes(wish)
    sink(Event("load", "start", f"reading {wish.source}"))
    job, budget, fixed = opened(wish)
    with (
        spreading(wish.ray, sink) as spread,
        measured_on(wish.device, asked) as (device, offered),
        Workshop(wish.out, _owner(job), sink, wish.command) as shop,
    ):
        allow = allowed(wish.allow, budget)
        if job.models is not None:
            errand = entrants.Errand(wish, job, budget, fixed, allow, offered, device, shop, memory, spread)
            record, code = architectures.pack(errand)
            return Outcome(record, wish.out / "report.html", time.monotonic() - started, code)
        steps, tried = taking(steps_of(shop, job, offered, device, wish.effort, allow, budget, spread), offered)
        steps, tried, rules = ruling(steps, tried, fixed)
        worse = robustness.checked(steps.data, job)
        preflight = steps.preflight(PLANS * len(tried.targets), memory)
        shop.tell(Event("load", "note", preflight.lines()[0], data={"forecast_seconds": preflight.forecast_seconds}))
        _refuse(preflight, tried)
        room.refuse(preflight)
        tell_beyond(steps, budget, rules, fixed)
        for line in planned.idle(wish.effort, fixed, steps.targets):
            shop.tell(Event("load", "note", line))
        strange = _strange(wish, steps)
        steps.checked_baseline()
        candidates, instead = searched(steps, tried.targets, budget, fixed, rules)
        final = confirmed(steps, candidates, budget)
        pairs = crossed(steps, shipped(final))
        final = told(final, parting(shipped(final), pairs, steps.constraints))
        for finding in strange:
            final = told(final, dict.fromkeys(shipped(final), finding))
        only = _one_of(final, budget, tried) if tried.one else None
        degraded = robustness.measured(steps, _shipping(final, only), worse)
        final = robustness.told(final, degraded, steps.metric.unit)
        ships = outdone(final, only) if only else final
        left = Wishes(budget, allow, wish.command, only, rules.scope, degraded_by(wish), "; ".join(instead.values()))
        record = leave(steps, ships, pairs, left, shop.seconds, degraded)
    code = exit_code([one for one in ships if not only or one.plan.target == only.target], allow, budget)
    return Outcome(record, wish.out / "report.html", time.monotonic() - started, code)


def preflight(request: Request, sink: Sink = silent) -> Preflight | Preflights:
    """Export, look and forecast; nothing is made, nothing is left in the output folder.

    Raises:
        HaversackError: as ``pack``.
    """
    import tempfile

    memory = room.left()
    typed.check(request)
    sink(Event("load", "start", f"reading {request.source}"))
    job, budget, fixed = opened(request)
    notes = _of_folder(request.out, _owner(job))
    with (
        tempfile.TemporaryDirectory(prefix="haversack-") as folder,
        Workshop(Path(folder), _owner(job), sink) as shop,
        measured_on(request.device, runtimes(request)) as (device, offered),
    ):
        if job.models is not None:
            errand = entrants.Errand(request, job, budget, fixed, (), offered, device, shop, memory)
            return replace(architectures.preflight(errand), notes=notes)
        steps, tried = taking(steps_of(shop, job, offered, device, request.effort), offered)
        steps, tried, rules = ruling(steps, tried, fixed)
        robustness.checked(steps.data, job)
        found = steps.preflight(PLANS * len(tried.targets), memory)
        strange = tuple(finding.text for finding in _strange(request, steps))
        planned.refuse_unmakeable(steps.model.graph, fixed, steps.targets)
        told, idle = limits_of(steps, budget, rules, fixed), planned.idle(request.effort, fixed, steps.targets)
        beyond = beyond_of(steps, budget, rules, fixed, one=tried.one)
        found = replace(found, beyond=beyond)
        return replace(found, limits=told, left_out=tried.left_out, notes=(*notes, *idle, *strange))


def _of_folder(out: Path, owner: str) -> tuple[str, ...]:
    """Return what the run that was looked at would need of its output folder; nothing where that is as it should be.

    Raises:
        UsageError, EnvironmentFault: no run could make the folder. One that holds something else is only told of.
    """
    try:
        refuse_anothers(out, owner)
    except UsageError as refusal:
        if not out.is_dir():
            raise
        return (f"{refusal.where}: {refusal.cause}; the run itself needs another --out",)
    refuse_unmakeable(out)
    return ()


def _strange(request: Request, steps: Steps) -> tuple[Finding, ...]:
    """Return what is strange about what was given, and tell it at once: a recipe of another model, unlike samples."""
    looked = foreign(request, steps.model.digest), unlike(steps.data, steps.model.inputs)
    found = tuple(one for one in looked if one is not None)
    for one in found:
        steps.shop.tell(Event("load", "note", one.text))
    return found


def _owner(job: Job) -> str:
    """Return what the output folder belongs to: a job file by its whole path, however it was typed."""
    return str(Path(job.source).resolve()) if Path(job.source).is_file() else job.source


def _one_of(candidates: Sequence[Candidate], budget: Budget, tried: Runtimes) -> Choice | None:
    """Return the runtime that ships, or None when none left a file."""
    best = shipped(candidates)
    return between(best, budget, shipping=tried.shipping, left_out=tried.left_out) if best else None


def _shipping(candidates: Sequence[Candidate], only: Choice | None) -> dict[str, Candidate]:
    """Return target -> what ships for it; of one target alone where only one of them ships."""
    return {name: one for name, one in shipped(candidates).items() if only is None or name == only.target}


def _refuse(preflight: Preflight, tried: Runtimes) -> None:
    refused = [name for name in tried.targets if preflight.refusals[name]]
    if refused:
        faults = tuple(fault for name in refused for fault in preflight.refusals[name])
        others = "" if tried.one else "; --target any leaves out a runtime that cannot take the model"
        raise ConversionError(
            f"{', '.join(refused)} cannot take this model",
            where=faults[0].where,
            faults=faults,
            tried="exporting it once and looking at every layer",
            next_step=f"replace the layers named above, or choose another --target{others}",
        )
