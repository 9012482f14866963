"""What a run leaves in its folder: the best artefact of each target, recipe, encodings, golden vectors, report."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haversack import report
from haversack.base import digest
from haversack.base.budget import Budget
from haversack.base.candidate import Artifact, Candidate, Pair
from haversack.base.encodings import Affine, BlockAffine, Codebook, Encodings, Float
from haversack.base.job import Job
from haversack.base.model import Model, Sample
from haversack.base.plan import Plan, Step
from haversack.base.progress import Event
from haversack.base.recipe import FORMAT, Recipe, unstructure, write
from haversack.base.scope import Scope
from haversack.choose.runtimes import Choice
from haversack.flow import choice, memory
from haversack.flow.making import CHOOSE, ENCODINGS
from haversack.flow.next_step import next_step
from haversack.flow.proposals import FOLD
from haversack.flow.running import feeds
from haversack.flow.steps import Steps
from haversack.flow.where import environment
from haversack.flow.workshop import FOLDER, ROOMS, Workshop
from haversack.measure.device import Opening
from haversack.report import facts
from haversack.report.degraded import DegradedRecord
from haversack.report.record import Forecast, ModelFacts, Record, Samples
from haversack.targets.contract import Target
from haversack.tools.data import golden, golden_file
from haversack.tools.formats import encodings_file
from haversack.tools.store import atomic, whole

GOLDEN_SAMPLES = 4
GOLDEN_SEED = 20260101
BEST, RECIPE = "best", "recipe.toml"
STAGE = "leaving"
"""Where all of it is made, inside the run's own folder, until it takes its place."""
ARTIFACT, GOLDEN = "artifact.json", "golden.npz"
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Wishes:
    """What the user said, for the record.

    Attributes:
        budget: the limits.
        allowed: kinds of findings that may not fail the run.
        command: what repeats the run.
        only: the one runtime that ships, where the user left the choice to us.
        scope: what plans may hold.
        degraded: the degradations that stand in place of the job's; None where none do.
        instead: what would meet a limit that was missed, if the user allowed it, in words.
    """

    budget: Budget
    allowed: tuple[str, ...]
    command: str
    only: Choice | None = None
    scope: Scope = field(default_factory=Scope)
    degraded: tuple[Mapping[str, Any], ...] | None = None
    instead: str = ""


def leave(
    steps: Steps,
    candidates: Sequence[Candidate],
    pairs: Sequence[Pair],
    wishes: Wishes,
    seconds: Mapping[str, float],
    degraded: Sequence[DegradedRecord] = (),
) -> Record:
    """Write everything of a finished run and return its record: all of it takes its place together, or nothing does.

    Args:
        steps: the run.
        candidates: all of them, judged, best first; the first of each target that left an artefact ships.
        pairs: what ships, compared across runtimes.
        wishes: what the user said.
        seconds: stage -> seconds.
        degraded: what ships, on inputs made worse.

    Raises:
        EnvironmentFault: the folder cannot be written; what an earlier run left in it is whole.
    """
    return placed(steps.shop, lambda stage: _left(steps, candidates, pairs, wishes, seconds, degraded, stage))


def placed(shop: Workshop, left: Callable[[Path], Record]) -> Record:
    """Let everything of a finished run be written into a folder aside, and put it in its place together.

    Args:
        shop: the run's folder.
        left: writes it all into a folder, and returns the record.

    Raises:
        EnvironmentFault: the folder cannot be written; what an earlier run left in it is whole.
    """
    stage = shop.inside / STAGE
    try:
        shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
        record = left(atomic.make_folder(stage))
        kept = f"{FOLDER}/{choice.NAME}"
        names = (*(f"{BEST}/{target}" for target in record.best), kept, RECIPE, report.HTML_NAME, report.JSON_NAME)
        whole.put(stage, shop.out, names)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return record


def _left(
    steps: Steps,
    candidates: Sequence[Candidate],
    pairs: Sequence[Pair],
    wishes: Wishes,
    seconds: Mapping[str, float],
    degraded: Sequence[DegradedRecord],
    stage: Path,
) -> Record:
    """Write everything into a folder, and return the record."""
    only = wishes.only
    best = {target: one for target, one in shipped(candidates).items() if only is None or target == only.target}
    record, chosen = record_of(steps, candidates, best, wishes, seconds, stage)
    own = {name: one for name, one in steps.settings.items() if name in best}
    plans = tuple(one.plan for one in best.values())
    write_recipe(recipe_of(steps.job, steps.model.digest, wishes, plans, own), steps.shop.out, stage)
    atomic.make_folder(stage / FOLDER)
    choice.write(chosen, stage)
    across = tuple(report.pair(one) for one in pairs)
    why = only.paragraph if only else ""
    record = replace(record, across=across, why=why, degraded=tuple(degraded))
    steps.shop.tell(Event("pack", "start", "writing the report"))
    report.write(record, stage)
    return record


def recipe_of(
    job: Job, model_digest: str, wishes: Wishes, plans: tuple[Plan, ...], settings: Mapping[str, Mapping[str, Any]]
) -> Recipe:
    """Return the plans of what ships, with what was said that led to them."""
    scope = wishes.scope
    return Recipe(
        FORMAT, job.source, model_digest, wishes.budget, plans, settings, scope.rules, scope.without, wishes.degraded
    )


def write_recipe(recipe: Recipe, out: Path, stage: Path) -> None:
    """Write a recipe that names its job as it is seen from the output folder.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    with atomic.told(stage / RECIPE, "write the recipe"):
        write(replace(recipe, job=_beside(recipe.job, out)), stage / RECIPE)


def record_of(
    steps: Steps,
    candidates: Sequence[Candidate],
    best: Mapping[str, Candidate],
    wishes: Wishes,
    seconds: Mapping[str, float],
    stage: Path,
) -> tuple[Record, choice.Choice]:
    """Copy what ships of one model into a folder; return what a report tells of it, and what ``resolve`` needs.

    Args:
        steps: the run.
        candidates: all of them, judged, best first.
        best: target -> what ships for it.
        wishes: what the user said.
        seconds: stage -> seconds.
        stage: the folder.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    out = steps.shop.out
    after = {one.id: _ship(steps, stage / BEST / target, one) for target, one in best.items()}
    calibration, evaluation = steps.data.counts()
    relocated = [_relocated(one, best) for one in candidates]
    record = report.build(
        relocated,
        model=facts.of_model(steps.model, source=steps.job.source, time_share=_shares(steps)),
        baseline=steps.baseline_reported(),
        budget=wishes.budget,
        best={target: one.id for target, one in best.items()},
        environment=environment(steps.machine, steps.device),
        samples=Samples(calibration, (evaluation + 1) // 2, evaluation // 2),
        seconds=seconds,
        command=wishes.command,
        stated=steps.job.baseline,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        next_step=next_step(
            out,
            best,
            wishes.budget,
            choice.drops([one.candidate for one in steps.made.values()]),
            wishes.instead,
            wishes.command,
        ),
        allowed=wishes.allowed,
        floats={name: one.artifact for name, one in steps.floats.items()},
        after=after,
        forecasts={one.id: _forecast(one) for one in candidates if "forecast" in one.extra},
    )
    proofs = _proofs(stage, {name: beside(steps.targets[name]) for name in best})
    record = replace(record, proofs=proofs, settings=dict(steps.settings))
    record = replace(record, preprocess=tuple(steps.data.pipeline.data()), labels=steps.job.labels)
    record = memory.told(record, steps, best, {target: stage / BEST / target for target in best})
    own = [one for one in relocated if one.architecture == steps.architecture]
    return record, _choice(steps, own, wishes)


def beside(target: Target) -> tuple[str, ...]:
    """Return the names of what lies beside a target's file and proves it: golden vectors only where it runs here."""
    return (ENCODINGS, GOLDEN, ARTIFACT) if target.runs_here else (ENCODINGS, ARTIFACT)


def _proofs(out: Path, targets: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return path below the output folder -> sha256, of what lies beside each target's file."""
    paths = [f"{BEST}/{target}/{name}" for target, names in targets.items() for name in names]
    with atomic.told(out, "read what was written"):
        return {path: digest.of_file(out / path) for path in paths}


def _choice(steps: Steps, candidates: Sequence[Candidate], wishes: Wishes) -> choice.Choice:
    """Return what ``resolve`` needs to answer another budget."""
    return choice.Choice(
        format=choice.FORMAT,
        job=steps.job.source,
        model_digest=steps.model.digest,
        graph=choice.wiring(steps.model.graph),
        profile=steps.profile,
        weight_elements=steps.weight_elements(),
        candidates=tuple(candidates),
        chosen_on=choice.drops([made.candidate for made in steps.made.values()]),
        settings=dict(steps.settings),
        scope=wishes.scope,
        architecture=steps.architecture,
        float_drop=float_drop(steps),
        budget=wishes.budget,
    )


def float_drop(steps: Steps) -> float:
    """Return the drop of a run's own float model, on the half that chooses, against the one that drops are against."""
    if steps.against is None:
        return 0.0
    return steps.metric.drop(steps.against.rows[CHOOSE], steps.baseline.rows[CHOOSE]).value


def _beside(source: str, out: Path) -> str:
    """Return a job file's path as seen from the output folder; another source as it was typed."""
    return os.path.relpath(source, out) if Path(source).is_file() else source


def shipped(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """Return target -> the candidate that ships for it: the first, best first, that left an artefact."""
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.artifact is not None:
            best.setdefault(candidate.plan.target, candidate)
    return best


def _ship(steps: Steps, folder: Path, candidate: Candidate) -> ModelFacts:
    """Copy an artefact into a folder with what proves it there, and return the compressed model in numbers."""
    target = candidate.plan.target
    made = steps.makers[target].folder_of(candidate.plan)
    atomic.make_folder(folder)
    artifact = candidate.artifact
    if artifact is None:
        message = f"{candidate.id} left no artefact"
        raise ValueError(message)
    with atomic.told(folder, "write the best artefact"):
        for file in artifact.files:
            atomic.make_folder((folder / file.path).parent)
            _copy(made / file.path, folder / file.path)
        encodings = encodings_file.read(made / ENCODINGS)
        _copy(made / ENCODINGS, folder / ENCODINGS)
    atomic.write_bytes(folder / ARTIFACT, _json(unstructure(artifact)))
    opening = Opening(folder / artifact.files[0].path, target, artifact.session_options)
    seconds: Mapping[str, float] = {}
    if target in steps.running:
        steps.shop.tell(Event("measure", "start", f"golden vectors and time of each layer of what ships for {target}"))
        write_golden(steps, opening, artifact, folder / GOLDEN)
        sample = tuple(array[:1] for array in steps.data.first())
        seconds = steps.device.layer_seconds(opening, artifact, sample)
    total = sum(seconds.values()) or 1.0
    shares = {key: value / total for key, value in seconds.items() if key}
    told = facts.of_model(steps.model, source=steps.job.source, time_share=shares)
    later = tuple(_named(step) for step in candidate.plan.prepare if step not in FOLD)
    return replace(told, weight_bytes=stored_bytes(steps.model, encodings), notes=(*told.notes, *later))


def _named(step: Step) -> str:
    """Return a preparation step with its settings, as a line of a report."""
    settings = ", ".join(f"{name} = {value}" for name, value in step.settings.items())
    return f"{step.part}: {settings or 'usual settings'}"


def write_golden(steps: Steps, opening: Opening, artifact: Artifact, path: Path) -> None:
    """Write golden vectors: inputs (the job's, or synthetic) and what the artefact gives for them on this host.

    Both are as the file has them: a device that checks them needs to know nothing of the model.
    """
    ports = steps.model.inputs
    if steps.job.golden is not None:
        samples: Sequence[Sample] = list(steps.data.pipeline.over(steps.job.golden()))
    else:
        ranges = golden.observed(steps.data.calibration(), ports)
        lengths = _lengths(steps)
        samples = golden.synthetic(ports, GOLDEN_SEED, GOLDEN_SAMPLES, ranges=ranges, lengths=lengths)
    handle = steps.device.load(opening)
    vectors = []
    for sample in samples:
        inputs = feeds(artifact, sample)
        vectors.append(golden_file.Golden(inputs, steps.device.run(handle, inputs)))
    steps.device.unload(handle)
    golden_file.write(vectors, path)


def stored_bytes(model: Model, encodings: Encodings) -> int:
    """Return the bytes of all weights as the encodings store them, scales left out."""
    read = {name for node in model.graph.nodes for name in node.parameters}
    bits = dict.fromkeys(read, 8 * _FLOAT_BYTES)
    for node in model.graph.nodes:
        found = encodings.tensors.get(f"{node.key}:weight")
        if node.weight and isinstance(found, Affine | BlockAffine | Codebook):
            bits[node.weight] = found.bits
        elif node.weight and isinstance(found, Float) and found.dtype == "float16":
            bits[node.weight] = 16
    return sum(-(-model.weights[name].size * width // 8) for name, width in bits.items())


def _lengths(steps: Steps) -> dict[str, int]:
    """Return the lengths of free dimensions as the first calibration batch has them."""
    return {
        size: array.shape[axis]
        for port, array in zip(steps.model.inputs, steps.data.first(), strict=True)
        for axis, size in enumerate(port.spec.shape)
        if isinstance(size, str)
    }


def _shares(steps: Steps) -> dict[str, float]:
    target = next(iter(steps.targets))
    return {key: steps.profile.share(target, key) for key in steps.profile.seconds.get(target, {})}


def _relocated(candidate: Candidate, best: Mapping[str, Candidate]) -> Candidate:
    """Return a candidate whose paths are relative to the output folder: in best/ when it ships."""
    artifact = candidate.artifact
    if artifact is None:
        return candidate
    ships = any(one.id == candidate.id for one in best.values())
    inside = f"{FOLDER}/{ROOMS}/{candidate.architecture}" if candidate.architecture else FOLDER
    folder = f"{BEST}/{candidate.plan.target}" if ships else f"{inside}/candidates/{candidate.plan.id}"
    files = tuple(replace(file, path=f"{folder}/{file.path}") for file in artifact.files)
    return replace(candidate, artifact=replace(artifact, files=files))


def _forecast(candidate: Candidate) -> Forecast:
    found = candidate.extra["forecast"]
    error, ratio = (found[name] if math.isfinite(found[name]) else None for name in ("relative_error", "latency_ratio"))
    return Forecast(bytes=round(found["bytes"]), relative_error=error, latency_ratio=ratio)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as stream, atomic.replacing(target) as copy:
        shutil.copyfileobj(stream, copy)


def _json(data: object) -> bytes:
    import json

    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"
