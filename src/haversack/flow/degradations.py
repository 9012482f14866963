"""What inputs are made worse with, read from a job file or the command line: operations that preprocess.

Each entry is one degradation of the raw inputs, before the job's own preprocessing; they are never combined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from haversack.base.errors import Fault, UsageError
from haversack.base.job import Job
from haversack.base.model import Sample
from haversack.flow import settings
from haversack.tools.data.preprocess.pipeline import SHELF, Pipeline

FLAG, NONE = "--degraded", "none"
FIELD = "degraded"
_INPUT = {"input": 0}


@dataclass(frozen=True)
class Degradation:
    """One way in which inputs are made worse.

    Attributes:
        entry: it alone, as the job's list has it, with every setting said.
        words: ``blur(sigma=1.5)``: what a person reads, settings that are as usual left out.
        index: its place in the job's list.
        pipeline: the job's list.
    """

    entry: Mapping[str, Any]
    words: str
    index: int
    pipeline: Pipeline

    def __call__(self, sample: Sample) -> Sample:
        """Return a raw sample made worse: arrays in the order of the model's inputs, batch first.

        Raises:
            JobError: the operation cannot take it; ``where`` is ``degraded[INDEX].OP``.
        """
        return self.pipeline.alone(self.index, sample)


def of(job: Job) -> tuple[Degradation, ...]:
    """Return what a job asks for; what it asks for twice, once.

    Raises:
        JobError: with every fault of every entry, as ``degraded[INDEX].FIELD``, the nearest name shown.
    """
    pipeline = Pipeline.parse(job.degraded, name=FIELD)
    found: dict[str, Degradation] = {}
    for index, entry in enumerate(pipeline.data()):
        words = _words(entry)
        found.setdefault(words, Degradation(entry, words, index, pipeline))
    return tuple(found.values())


def asked(texts: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    """Return the job's list as it was typed: ``blur``, ``noise:level=0.2``; ``none`` for an empty one.

    Raises:
        UsageError: an unknown operation or setting, a value that it does not take, or ``none`` beside others; every
            fault of every text at once, the nearest name shown.
    """
    if NONE in texts:
        if len(texts) > 1:
            cause = "none scores nothing on degraded inputs, and others are named beside it"
            raise UsageError(cause, where=FLAG, next_step=f"{FLAG} none alone, or the others without it")
        return ()
    entries: list[Mapping[str, Any]] = []
    errors: list[UsageError] = []
    for text in texts:
        try:
            name, own = settings.read(text, _judge, FLAG)
            _judge(name, own)
            entries.append({"op": name, **own})
        except UsageError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        told = [fault for one in errors for fault in one.faults or (Fault("", one.cause),)]
        step = f"haversack parts operation    (has: {', '.join(SHELF.names())})"
        raise UsageError("they cannot be read", where=FLAG, faults=tuple(told), next_step=step)
    return tuple(entries)


def _judge(name: str, own: settings.Settings) -> None:
    """Refuse an operation that there is not, or that has no such settings or not with such values."""
    kind = SHELF.type_of(name)
    settings.refuse(name, own, {**{one.name: one.default for one in fields(kind)}, **_INPUT}, FLAG)
    if own.get("input", 0) < 0:
        raise UsageError("it is the index of an input, 0 for the first", where=f"{FLAG} {name}:input")
    try:
        SHELF.build(name, {key: value for key, value in own.items() if key not in _INPUT})
    except UsageError as error:
        told = tuple(Fault(f"{name}:{fault.where}".rstrip(":"), fault.cause) for fault in error.faults)
        step = f"haversack parts operation    ({name} has: {', '.join(one.name for one in fields(kind))})"
        raise UsageError(f"the settings of {name} cannot be read", where=FLAG, faults=told, next_step=step) from error


def _words(entry: Mapping[str, Any]) -> str:
    """Return an operation with the settings that are not as usual; with its first one where all are."""
    kind = SHELF.type_of(entry["op"])
    usual = {**{one.name: one.default for one in fields(kind)}, **_INPUT}
    own = {key: entry[key] for key in usual if key in entry and entry[key] != usual[key]}
    own = own or {key: entry[key] for key in list(usual)[:1] if key not in _INPUT}
    return f"{entry['op']}({settings.spelled('', own).removeprefix(':')})" if own else str(entry["op"])
