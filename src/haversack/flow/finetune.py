"""``haversack finetune``: a release that learns new data by a small delta, as a page of plain calls."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from haversack import load, metrics
from haversack.base import budget as budgets
from haversack.base.errors import Fault, JobError, UsageError
from haversack.base.job import Job
from haversack.base.progress import Event, Sink, silent
from haversack.compress.finetune import losses
from haversack.compress.finetune.course import Course
from haversack.compress.finetune.losses import Loss
from haversack.flow import learning, released, requirements, typed
from haversack.flow.learning import AUTO
from haversack.flow.pack import Outcome
from haversack.flow.request import Runtimes
from haversack.flow.search import steps_of
from haversack.flow.tuning import begun
from haversack.flow.updating import leave
from haversack.flow.where import measured_on
from haversack.flow.workshop import Workshop
from haversack.measure import devices

EPOCHS = 6
MOST_EPOCHS = 1000


@dataclass(frozen=True)
class Wish:
    """What the user typed.

    Attributes:
        source: a job whose data are the new ones, and whose model is the one that was released.
        max_delta: bytes that the delta of each runtime's files may have, with a unit: ``300KB``.
        released: the folder of the finished run that is updated.
        out: the folder for the results.
        freeze: ``auto`` and globs over module paths: what they name stays as it is. What does not pay does so anyway.
        targets: runtimes of the release that are updated; empty for all.
        epochs: passes over the training data at most.
        compare_full: whether all layers are fine-tuned as well, to compare with.
        allow: kinds of findings that may not fail the run.
        allow_pickle: whether model files may be unpickled.
        device: where artefacts run, by its name.
        command: what repeats the run, for the report.
    """

    source: str
    max_delta: str
    released: Path = Path("out")
    out: Path = Path("out2")
    freeze: tuple[str, ...] = (AUTO,)
    targets: tuple[str, ...] = ()
    epochs: int = EPOCHS
    compare_full: bool = False
    allow: tuple[str, ...] = ()
    allow_pickle: bool = False
    device: str = "local"
    command: str = ""


def finetune(wish: Wish, sink: Sink = silent) -> Outcome:
    """Fine-tune the layers of a release that pay most for the bytes of a delta, and pack them on its encodings.

    Args:
        wish: what the user said.
        sink: told about every step.

    Raises:
        UsageError: a flag cannot be read, the release is of another model, or no update is as small as asked for.
        JobError: the job gives no training data or no loss, or nothing is learnt of them.
        HaversackError: as ``pack``.
    """
    started, limit = time.monotonic(), check(wish)
    requirements.demand("pack", purpose="fine-tuning a model")
    old = released.read(wish.released, wish.targets)
    sink(Event("load", "start", f"reading {wish.source}"))
    job = load.open_job(wish.source, allow_pickle=wish.allow_pickle)
    loss = demanded(job)
    tried = Runtimes(tuple(old.ships), settings={name: old.record.settings.get(name, {}) for name in old.ships})
    owner = str(Path(job.source).resolve()) if Path(job.source).is_file() else job.source
    with measured_on(wish.device, tried) as (device, _), Workshop(wish.out, owner, sink, wish.command) as shop:
        allow = tuple(dict.fromkeys((*old.record.allowed, *wish.allow, "slower-than-float")))
        steps = steps_of(shop, job, tried, device, "default", allow)
        ways = learning.ways(steps.model.graph, old.encodings, old.plans, wish.freeze)
        tuning = begun(steps, old, loss)
        course = Course(epochs=wish.epochs)
        found = learning.update(tuning, ways, limit, course)
        if wish.compare_full:
            found = learning.beside_all(tuning, ways, course, found)
        record, code = leave(tuning, found, limit, allow, (str(wish.released), wish.command, _next(wish.out)))
    return Outcome(record, wish.out / "report.html", time.monotonic() - started, code)


def check(wish: Wish) -> int:
    """Refuse what cannot be read of a wish, all of it at once, and return the limit in bytes.

    Raises:
        UsageError: of one flag as it is; of several with the faults of all.
    """
    typed.together(
        (
            lambda: budgets.parse_bytes(wish.max_delta, "--max-delta"),
            lambda: _refuse(not wish.freeze, "--freeze", f"it freezes nothing: {AUTO}, or globs over module paths"),
            lambda: _refuse(
                not 1 <= wish.epochs <= MOST_EPOCHS, "--epochs", f"{wish.epochs} is not between 1 and {MOST_EPOCHS}"
            ),
            lambda: _refuse(
                wish.out.resolve() == wish.released.resolve(), "--out", f"{wish.out} holds the release itself"
            ),
            lambda: typed.findings(wish.allow),
            lambda: devices.check_measuring(wish.device),
        ),
        "haversack finetune --help    (says what each takes)",
    )
    return budgets.parse_bytes(wish.max_delta, "--max-delta")


def _refuse(wrong: bool, where: str, cause: str) -> None:
    if wrong:
        raise UsageError(cause, where=where, next_step="haversack finetune --help")


def demanded(job: Job) -> Loss:
    """Return the loss that a job is fine-tuned by.

    Raises:
        JobError: it gives no training data, no loss follows from its metric, or it gives several architectures; all
            at once.
    """
    metric = metrics.resolve(job.metric)
    loss = losses.of_job(job.loss) if job.loss is not None else losses.of_metric(metric.name)
    faults = []
    if job.models is not None:
        faults.append(Fault("models", "it gives several architectures, and one is fine-tuned: give model()"))
    if job.training is None:
        faults.append(Fault("training", "is missing    (def training(): yield (inputs,), expected)"))
    if loss is None:
        faults.append(Fault("loss", f"is missing, and none follows from {metric.name}    ({losses.EXAMPLE})"))
    if faults or loss is None:
        raise JobError(
            "it gives nothing to fine-tune by",
            where=job.source,
            faults=tuple(faults),
            next_step="add them to the job file; its data are those of the new domain",
        )
    return loss


def _next(out: Path) -> str:
    return f"haversack bundle {shlex.quote(str(out))} --out NAME-VERSION.haversack"
