"""Free lengths of a model against files that have none: what becomes of them, and data that are too long for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from haversack.base.candidate import Candidate
from haversack.base.errors import Fault, JobError
from haversack.base.finding import Finding
from haversack.base.job import Job
from haversack.base.model import Model, Sample
from haversack.flow.data import Data
from haversack.targets.contract import Lengths, Target

Longest = tuple[int, str, int, str]
"""(length, what gives it, number of the batch, dimension of which input)."""


def refuse(job: Job, model: Model, data: Data, targets: Mapping[str, Target]) -> None:
    """Refuse data that are longer than a target's files take, before anything is lowered.

    Raises:
        JobError: a batch is too long for a target (every set and target is told); or the job states lengths, and the
            model has no free dimension for them.
    """
    if not model.free_lengths:
        if job.lengths:
            raise JobError(
                "the model has no free dimension but the batch",
                where="lengths",
                tried="exporting it once",
                next_step='name the dimension, dims = {"input_ids": {0: "batch", 1: "length"}}, or leave lengths out',
            )
        return
    limits = {name: target.lengths_of(model) for name, target in targets.items()}
    limits = {name: found for name, found in limits.items() if found.longest}
    if not limits:
        return
    sets = (("calibration()", data.whole()), ("evaluation()", (inputs for inputs, _ in data.evaluation())))
    longest = [found for what, samples in sets for found in _longest(model, samples, what)]
    faults = [
        Fault(f"{what}, batch {index}", f"{where} is {length}, and files of {name} take at most {found.longest}")
        for name, found in limits.items()
        for length, what, index, where in longest
        if length > found.longest
    ]
    if faults:
        raise _too_long(job, limits, max(longest)[0], faults)


def _too_long(job: Job, limits: Mapping[str, Lengths], longest: int, faults: list[Fault]) -> JobError:
    kept = sorted({*(job.lengths or next((one.fixed for one in limits.values() if one.fixed), ())), longest})
    stated = f"({', '.join(map(str, kept))}{',' if len(kept) == 1 else ''})"
    least = min(one.longest for one in limits.values())
    return JobError(
        "the data are longer than the files can take",
        where=job.source,
        faults=tuple(faults),
        tried=f"every batch against {', '.join(limits)}, before anything is lowered",
        next_step=f"write lengths = {stated} into the job file, or cut the data to {least}",
    )


def told(candidate: Candidate, target: Target, model: Model) -> Candidate:
    """Return a candidate that says so where lengths which are free in the model are not in its file."""
    text = _words(target, model) if candidate.artifact is not None else ""
    found = Finding("fixed-lengths", text) if text else None
    return replace(candidate, findings=(*candidate.findings, found)) if found else candidate


def words(targets: Mapping[str, Target], model: Model) -> dict[str, str]:
    """Return target -> what becomes of free lengths in its files; targets that keep them free are left out."""
    found = {name: _words(target, model) for name, target in targets.items()}
    return {name: text for name, text in found.items() if text}


def _words(target: Target, model: Model) -> str:
    found, names = target.lengths_of(model), " and ".join(model.free_lengths)
    if found.fixed:
        listed = " or ".join(filter(None, [", ".join(map(str, found.fixed[:-1])), str(found.fixed[-1])]))
        return f"{names}: fixed to {listed} in the file, what is shorter is filled up"
    return f"{names}: at most {found.longest}, memory is planned for that" if found.longest else ""


def _longest(model: Model, samples: Iterable[Sample], what: str) -> Iterator[Longest]:
    """Yield the longest of each free dimension over all batches, and where it stands."""
    free, found = set(model.free_lengths), dict[str, Longest]()
    for index, sample in enumerate(samples):
        for port, array in zip(model.inputs, sample, strict=True):
            for axis, name in enumerate(port.spec.shape):
                if name in free and array.shape[axis] > found.get(str(name), (0,))[0]:
                    found[str(name)] = (array.shape[axis], what, index, f"{name} of {port.name}")
    yield from found.values()
