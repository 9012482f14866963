"""What a run of several architectures leaves: for each target the best file of all, and one report of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from haversack import report
from haversack.base.candidate import Candidate, Pair
from haversack.base.progress import Event
from haversack.base.recipe import Architecture
from haversack.base.scope import Scope
from haversack.flow import choice
from haversack.flow.next_step import next_step
from haversack.flow.outputs import Wishes, placed, recipe_of, record_of, write_recipe
from haversack.flow.steps import Steps
from haversack.flow.workshop import FOLDER, Workshop
from haversack.report.degraded import DegradedRecord
from haversack.report.record import Record
from haversack.report.several import together
from haversack.tools.store import atomic


@dataclass(frozen=True)
class Part:
    """What is left of one architecture.

    Attributes:
        steps: its run.
        candidates: all of them, judged, best first in each target.
        best: target -> what ships for it; the targets for which another architecture ships are left out.
        pairs: what ships of it, compared across runtimes.
        degraded: what ships of it, on inputs made worse.
        scope: what its plans may hold.
    """

    steps: Steps
    candidates: tuple[Candidate, ...]
    best: Mapping[str, Candidate]
    pairs: tuple[Pair, ...] = ()
    degraded: tuple[DegradedRecord, ...] = ()
    scope: Scope = field(default_factory=Scope)


@dataclass(frozen=True)
class Whole:
    """What is told of all architectures together.

    Attributes:
        name: of the job.
        reference: the architecture whose float model every drop is against.
        stated: the baseline that the user stated, or None.
        order: all candidates, best first in each target.
        between: target -> why the file of one architecture ships.
        lost: architecture -> why nothing was made of it.
    """

    name: str
    reference: str
    stated: float | None
    order: Sequence[Candidate]
    between: Mapping[str, str]
    lost: Mapping[str, str]


def leave(shop: Workshop, parts: Mapping[str, Part], whole: Whole, wishes: Wishes) -> Record:
    """Write everything of a finished run and return its record: all of it takes its place together, or nothing does.

    Args:
        shop: the run's folder.
        parts: architecture -> what is left of it.
        whole: what is told of all.
        wishes: what the user said.

    Raises:
        EnvironmentFault: the folder cannot be written; what an earlier run left in it is whole.
    """
    return placed(shop, lambda stage: _left(shop, parts, whole, wishes, stage))


def _left(shop: Workshop, parts: Mapping[str, Part], whole: Whole, wishes: Wishes, stage: Path) -> Record:
    records, choices = {}, []
    for name, part in parts.items():
        told = [*part.candidates, *_strays(whole.order, parts)] if name == whole.reference else list(part.candidates)
        own = replace(wishes, scope=part.scope)
        record, chosen = record_of(part.steps, told, part.best, own, shop.seconds, stage)
        across = tuple(report.pair(one) for one in part.pairs)
        records[name] = replace(record, across=across, degraded=part.degraded)
        choices.append(chosen)
    _recipe(shop, parts, wishes, stage)
    atomic.make_folder(stage / FOLDER)
    choice.write_several(choices, stage)
    record = together(
        records,
        reference=whole.reference,
        name=whole.name,
        order=[one.id for one in whole.order],
        between=whole.between,
        lost=whole.lost,
    )
    best = {target: one for part in parts.values() for target, one in part.best.items()}
    chosen_on = {one: drop for chosen in choices for one, drop in chosen.chosen_on.items()}
    record = replace(
        record,
        baseline=replace(record.baseline, stated=whole.stated),
        why=wishes.only.paragraph if wishes.only else "",
        next_step=next_step(shop.out, best, wishes.budget, chosen_on, wishes.instead, wishes.command),
    )
    shop.tell(Event("pack", "start", "writing the report"))
    report.write(record, stage)
    return record


def _strays(order: Sequence[Candidate], parts: Mapping[str, Part]) -> list[Candidate]:
    """Return the candidates that stand for what was lost before it was searched, which no part has."""
    held = {one.id for part in parts.values() for one in part.candidates}
    return [one for one in order if one.id not in held]


def _recipe(shop: Workshop, parts: Mapping[str, Part], wishes: Wishes, stage: Path) -> None:
    plans, own, made = [], {}, {}
    for name, part in parts.items():
        for target, one in part.best.items():
            plans.append(one.plan)
            made[target] = Architecture(name, part.steps.model.digest)
            if target in part.steps.settings:
                own[target] = part.steps.settings[target]
    job = next(iter(parts.values())).steps.job
    recipe = replace(recipe_of(job, "", wishes, tuple(plans), own), architectures=made)
    write_recipe(recipe, shop.out, stage)
