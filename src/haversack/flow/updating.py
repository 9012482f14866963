"""What an update leaves: a finished run like any other, with the quality of each point against its delta's bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from haversack import report
from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.model import Model
from haversack.base.progress import Event
from haversack.compress.apply import Compressed
from haversack.flow import choice
from haversack.flow.crossing import crossed
from haversack.flow.learning import Found
from haversack.flow.outputs import Wishes, placed, recipe_of, record_of, shipped, write_recipe
from haversack.flow.released import TRAINED
from haversack.flow.search import exit_code
from haversack.flow.squeeze import Squeezer
from haversack.flow.steps import Steps
from haversack.flow.tuning import Tuning
from haversack.flow.workshop import FOLDER
from haversack.report.record import Limit, Record
from haversack.report.update import OfferRecord, UpdateRecord
from haversack.report.wording import size
from haversack.tools.store import atomic

DELTA = "delta"


def leave(
    tuning: Tuning, found: Found, limit: int, allow: Sequence[str], said: tuple[str, str, str]
) -> tuple[Record, int]:
    """Verify and measure what ships as ``pack`` does, write everything of the run; return its record and exit code.

    Args:
        tuning: the release.
        found: what ships, and what was made beside it.
        limit: bytes of a delta.
        allow: kinds of findings that may not fail the run.
        said: the release's folder as it was typed, the command, and the next one.

    Raises:
        EnvironmentFault: the folder cannot be written; what an earlier run left in it is whole.
    """
    steps = _after(tuning, found.best.compressed)
    origin = f"fine-tuned: {found.best.point.name}"
    plans = [replace(plan, origin=origin) for plan in tuning.released.plans.values()]
    made = [replace(one, findings=(*tuning.findings, *one.findings)) for one in map(steps.evaluate, plans)]
    candidates = [_judged(steps, steps.confirmed(one), found.best.deltas) for one in made]
    pairs = crossed(steps, shipped(candidates))
    wishes = Wishes(Budget(), tuple(allow), said[1], scope=choice.read(tuning.released.out).scope)
    shop = steps.shop
    base = tuning.steps.model.digest
    _keep(steps.model, tuning.steps.model, shop.out / FOLDER / TRAINED)

    def left(stage: Path) -> Record:
        best = shipped(candidates)
        record, chosen = record_of(steps, candidates, best, wishes, shop.seconds, stage)
        ships = tuple(one.plan for one in best.values())
        recipe = recipe_of(steps.job, steps.model.digest, wishes, ships, steps.settings)
        write_recipe(recipe, shop.out, stage)
        atomic.make_folder(stage / FOLDER)
        choice.write(chosen, stage)
        told = _update(tuning, found, limit, said[0], base)
        across = tuple(report.pair(one) for one in pairs)
        record = replace(record, update=told, budget=_limits(told), across=across, next_step=said[2])
        shop.tell(Event("pack", "start", "writing the report"))
        report.write(record, stage)
        return record

    return placed(shop, left), exit_code(candidates, allow, Budget())


def _after(tuning: Tuning, made: Compressed) -> Steps:
    """Return the steps of a run whose float model is the fine-tuned one, and whose plans give what was trained."""
    steps = replace(tuning.steps, made={}, failed={})
    vars(steps).update(exported=made.model, model=made.model, profile=tuning.released.profile)
    squeezer = Squeezer(made.model, steps.ranges, steps.constraints, steps.data.calibration, OrderedDict())
    for plan in tuning.released.plans.values():
        squeezer.made[squeezer.key(plan)] = made
    vars(steps).update(squeeze=squeezer)
    return steps


def _judged(steps: Steps, candidate: Candidate, deltas: Mapping[str, int]) -> Candidate:
    told = steps.reported(candidate)
    if told.verdict == "failed":
        return told
    return replace(told, verdict="chosen", reason=f"its delta takes {size(deltas[told.plan.target])}")


def _keep(model: Model, own: Model, path: Path) -> None:
    """Write down which float weights are others than the job's: another update starts from them."""
    from safetensors.numpy import save

    changed = {
        name: np.asarray(value, order="C")
        for name, value in model.weights.items()
        if value.tobytes() != own.weights[name].tobytes()
    }
    atomic.write_bytes(path, save(changed))


def _update(tuning: Tuning, found: Found, limit: int, where: str, base: str) -> UpdateRecord:
    offers = tuple(OfferRecord(one.layer, one.way, one.gain, round(one.bytes), one.chosen) for one in found.offers)
    counts = tuning.lesson.counts
    return UpdateRecord(where, base, limit, found.best.deltas, found.points, offers, counts)


def _limits(told: UpdateRecord) -> tuple[Limit, ...]:
    return tuple(
        Limit(DELTA, told.limit, got, got <= told.limit, target, "bytes", got - told.limit)
        for target, got in told.deltas.items()
    )
