"""The steps of an update: trained, packed on the encodings that the release has, held against its files and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base import digest
from haversack.base.candidate import Artifact
from haversack.base.counted import counted
from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import JobError
from haversack.base.finding import Finding
from haversack.base.model import Model
from haversack.base.plan import STATIC
from haversack.base.progress import Event
from haversack.base.quality import Quality
from haversack.compress.apply import Compressed
from haversack.compress.finetune import pay, regrid
from haversack.compress.finetune.course import Course, Learnt, Pair, train
from haversack.compress.finetune.losses import Loss
from haversack.compress.finetune.pay import Offer
from haversack.compress.finetune.tuned import Tuned, Way
from haversack.flow import deltas
from haversack.flow.data import up_to
from haversack.flow.making import REPORT, quality_of
from haversack.flow.released import Released
from haversack.flow.running import Running
from haversack.flow.steps import Steps
from haversack.lower.emit import emit
from haversack.measure import quality
from haversack.measure.device import Opening
from haversack.report.update import PointRecord
from haversack.tools.data import batches
from haversack.tools.formats import encodings_file

HELD = 8
"""One batch in so many is held back, the last of them; it judges what is learnt."""
CHECKPOINT = "training.safetensors"


@dataclass(frozen=True)
class Lesson:
    """What is trained on.

    Attributes:
        batches, held: (inputs, expected) to train on, and to judge by.
        loss: made small.
    """

    batches: Sequence[Pair]
    held: Sequence[Pair]
    loss: Loss

    @property
    def counts(self) -> tuple[int, int]:
        """Samples trained on, and held back."""
        return sum(len(one) for _, one in self.batches), sum(len(one) for _, one in self.held)

    @cached_property
    def digest(self) -> str:
        """Content digest of all batches, and of where each ends: what is learnt depends on it."""
        pairs = (*self.batches, *self.held)
        parts = batches.digest(inputs for inputs, _ in pairs), batches.digest((expected,) for _, expected in pairs)
        return digest.of_data([*parts, len(self.held), [len(expected) for _, expected in pairs]])


def lesson(steps: Steps, loss: Loss) -> Lesson:
    """Return what a job gives to train on, as much as memory keeps; some batches are held back.

    Raises:
        JobError: a batch that does not fit the model, or fewer than two.
    """
    kept, rest = up_to(steps.data.training(), lambda pair: sum(array.nbytes for array in pair[0]))
    if rest is not None:
        text = f"training() gives more than is kept in memory: the first {counted(len(kept), 'batch', 'batches')} count"
        steps.shop.tell(Event("load", "note", text))
    held = kept[HELD - 1 :: HELD] or kept[1:][-1:]
    if not held:
        raise JobError(
            f"it gives {counted(len(kept), 'batch', 'batches')}, and at least two are needed: one is held back",
            where="training()",
            next_step="yield a few hundred samples in batches of 16 to 64",
        )
    fitted = [pair for index, pair in enumerate(kept) if index % HELD != HELD - 1]
    return Lesson(fitted if len(kept) >= HELD else kept[:-1], held, loss)


def begun(steps: Steps, released: Released, loss: Loss) -> Tuning:
    """Return a release ready to be trained on a job's data: its grids are held against these first.

    Grids that clip more than a few values are set anew, with those that are bound to them; the others stay.

    Args:
        steps: of the run.
        released: what is updated.
        loss: made small.

    Raises:
        UsageError: the release is of another model.
        JobError: as ``lesson``.
    """
    model, encodings = released.model(steps.model), released.encodings
    plan = next(iter(released.plans.values()))
    if not any(layer.precision in STATIC for layer in plan.layers.values()):
        return Tuning(steps, released, model, lesson(steps, loss), encodings)
    ranges = steps.ranges(model)
    clipped = regrid.outside(encodings, ranges)
    wrong = [key for key, share in clipped.items() if share > regrid.MOST]
    demands = steps.constraints[plan.target]
    encodings, anew = regrid.regridded(model.graph, encodings, ranges, plan.ranges, demands, wrong)
    told = regrid.told(clipped, anew)
    if told is not None:
        steps.shop.tell(Event("compress", "note", told.text))
    return Tuning(steps, released, model, lesson(steps, loss), encodings, (told,) if told else ())


@dataclass(frozen=True)
class Made:
    """An update that was packed: its point, what its files were made from, and target -> bytes of its delta."""

    point: PointRecord
    compressed: Compressed
    deltas: Mapping[str, int]


@dataclass(frozen=True)
class Tuning:
    """One release in training.

    Attributes:
        steps: of the run; its model is the job's own.
        released: what is updated.
        model: the float model that was released.
        lesson: what is trained on.
        encodings: of the release, grids that do not hold on the new data set anew.
        findings: what that tells.
    """

    steps: Steps
    released: Released
    model: Model
    lesson: Lesson
    encodings: Encodings
    findings: tuple[Finding, ...] = ()

    @cached_property
    def content(self) -> list[str]:
        """What decides every result."""
        return [self.model.digest, _digest(self.encodings), self.lesson.digest, *self.steps.content]

    def tuned(self, ways: Mapping[str, Way]) -> Tuned:
        """Return the release with some layers that may change."""
        return Tuned(self.model, self.encodings, ways)

    def learnt(self, text: str, ways: Mapping[str, Way], course: Course) -> tuple[Tuned, Learnt]:
        """Return the release trained, from the ledger where it was before.

        Args:
            text: what it is, for progress.
            ways: layers that may change, and how.
            course: how is trained.

        Raises:
            JobError: the loss is not finite.
        """
        tuned, shop = self.tuned(ways), self.steps.shop
        parts = [dict(ways), vars(course), *self.content]

        def make() -> Learnt:
            place = shop.inside / CHECKPOINT
            return train(
                tuned,
                self.lesson.batches,
                self.lesson.held,
                self.lesson.loss,
                course,
                place=place,
                key=digest.of_data(parts),
                sink=shop.tell,
            )

        def load(data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Learnt:
            return Learnt(dict(arrays), data["before"], data["after"], data["epochs"])

        found = shop.remember(
            "compress",
            f"fine-tuning: {text}",
            parts,
            make,
            save=lambda one: ({"before": one.before, "after": one.after, "epochs": one.epochs}, one.values),
            load=load,
        )
        tuned.load(found.values)
        return tuned, found

    def offers(self, text: str, ways: Mapping[str, Way], course: Course) -> tuple[Tuned, Learnt, tuple[Offer, ...]]:
        """Return the release trained as a whole, for a short time, and what each layer's change brings there."""
        tuned, learnt = self.learnt(text, ways, course)
        shop = self.steps.shop

        def load(data: Mapping[str, Any], _: Mapping[str, np.ndarray]) -> tuple[Offer, ...]:
            return tuple(Offer(**one) for one in data["offers"])

        shop.tell(Event("compress", "start", f"what each of {counted(len(ways), 'layer')} brings: {text}"))
        found = shop.remember(
            "compress",
            f"what layers bring: {text}",
            [dict(ways), vars(course), *self.content],
            lambda: pay.offers(tuned, ways, self.lesson.held, self.lesson.loss),
            save=lambda made: ({"offers": [vars(one) for one in made]}, {}),
            load=load,
        )
        return tuned, learnt, found

    def made(self, name: str, tuned: Tuned, loss: float, *, scored: bool = True) -> Made:
        """Pack an update for every runtime, make its real deltas, and score it where it runs.

        Args:
            name: of it, a file name.
            tuned: trained.
            loss: on what was held back.
            scored: whether its quality is wanted.
        """
        model, encodings = tuned.hardened()
        folder = self.steps.shop.inside / "updates" / name
        sizes: dict[str, int] = {}
        told: Quality | None = None
        for target in self.released.ships:
            artifact = emit(model, encodings, self.steps.targets[target], folder / target)
            files = [folder / target / file.path for file in artifact.files]
            sizes[target] = delta_bytes(self.released.files(target), files)
            if scored and told is None and self.steps.targets[target].runs_here:
                opening = Opening(files[0], target, artifact.session_options)
                told = self._scored(opening, artifact)
        point = _point(name, max(sizes.values()), told, loss, _changed(tuned, model, encodings))
        return Made(point, Compressed(model, encodings), sizes)

    def first(self, loss: float) -> PointRecord:
        """Return the release itself on the new data."""
        for target, ship in self.released.ships.items():
            if self.steps.targets[target].runs_here:
                artifact = ship.artifact()
                opening = Opening(ship.folder / artifact.files[0].path, target, artifact.session_options)
                return _point("released", 0, self._scored(opening, artifact), loss, {})
        return _point("released", 0, None, loss, {})

    def _scored(self, opening: Opening, artifact: Artifact) -> Quality:
        steps = self.steps
        steps.shop.tell(Event("measure", "start", "quality of the artefact on the new data"))
        handle = steps.device.load(opening)
        try:
            state = quality.score(
                Running(steps.device, handle, artifact, steps.model.outputs),
                steps.data.evaluation(),
                steps.metric,
                float_predict=steps.float_predict if steps.metric.against == "float" else None,
                names=[port.name for port in steps.model.outputs],
            )
        finally:
            steps.device.unload(handle)
        return quality_of(steps.metric, state.rows()[REPORT])


def delta_bytes(old: Sequence[Path], new: Sequence[Path]) -> int:
    """Return the bytes of the real deltas of a runtime's files together, each in the smaller codec.

    Args:
        old, new: the files, alike ones at the same place; a file that the release has not travels whole.
    """
    total = 0
    for place, path in enumerate(new):
        after = path.read_bytes()
        before = old[place].read_bytes() if place < len(old) else b""
        total += 0 if before == after else len(deltas.smallest(before, after)[1])
    return total


def _changed(tuned: Tuned, model: Model, after: Encodings) -> dict[str, str]:
    """Return key of a layer that really changed -> how."""
    before, found = tuned.encodings, dict[str, str]()
    for key, way in tuned.ways.items():
        node = tuned.model.graph.by_key[key]
        names = [name for name in (node.weight, node.bias) if name]
        one, two = before.tensors.get(f"{key}:weight"), after.tensors.get(f"{key}:weight")
        same = isinstance(one, Affine) and isinstance(two, Affine) and np.array_equal(one.scale, two.scale)
        same = same and np.array_equal(before.integers[f"{key}:weight"], after.integers[f"{key}:weight"])
        same = same and all(np.array_equal(tuned.model.weights[n], model.weights[n]) for n in names[1:])
        if not same:
            found[key] = way
    return found


def _point(name: str, size: int, told: Quality | None, loss: float, layers: Mapping[str, str]) -> PointRecord:
    value = told.value if told is not None and np.isfinite(told.value) else None
    error = told.standard_error if told is not None and np.isfinite(told.standard_error) else None
    return PointRecord(name, size, value, error, loss, dict(layers))


def _digest(encodings: Encodings) -> str:
    return digest.of_bytes(encodings_file.to_bytes(encodings))
