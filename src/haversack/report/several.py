"""One record of several architectures: the records of each, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from haversack.report.record import ArchitectureRecord, CandidateRecord, Limit, Record


def together(
    records: Mapping[str, Record],
    *,
    reference: str,
    name: str,
    order: Sequence[str],
    between: Mapping[str, str],
    lost: Mapping[str, str],
) -> Record:
    """Return one record of all architectures.

    Args:
        records: architecture -> what a report tells of it, with what ships of it.
        reference: the architecture whose float model every drop is against.
        name: of the job.
        order: ids of all candidates, best first in each target.
        between: target -> why the file of one architecture ships.
        lost: architecture -> why nothing was made of it, for those without a record.

    Raises:
        ValueError: two architectures ship for one target.
    """
    first = records[reference]
    ships = {target: owner for owner, one in records.items() for target in one.best}
    if len(ships) < sum(len(one.best) for one in records.values()):
        raise ValueError("two architectures ship for one target")
    candidates = {candidate.id: candidate for one in records.values() for candidate in one.candidates}
    targets = tuple(dict.fromkeys(candidates[one].target for one in order))
    parts = list(records.values())
    architectures = {
        owner: ArchitectureRecord(replace(one.model, name=owner), replace(one.baseline, stated=None), one.floats)
        for owner, one in records.items()
    }
    architectures |= {owner: ArchitectureRecord(None, None, {}, why) for owner, why in lost.items()}
    floats = {target: records[ships.get(target, reference)].floats.get(target) for target in targets}
    return replace(
        first,
        model=replace(first.model, name=name),
        budget=tuple(limit for target in targets for limit in _limits(records, target, ships.get(target, ""))),
        best={target: records[ships[target]].best[target] for target in targets if target in ships},
        candidates=tuple(candidates[one] for one in order),
        floats={target: one for target, one in floats.items() if one is not None},
        across=tuple(pair for one in parts for pair in one.across),
        proofs={path: digest for one in parts for path, digest in one.proofs.items()},
        settings={target: own for one in parts for target, own in one.settings.items()},
        activations={target: found for one in parts for target, found in one.activations.items()},
        degraded=tuple(row for one in parts for row in one.degraded),
        architectures=architectures,
        between=dict(between),
    )


def rows(record: Record) -> tuple[tuple[str, ArchitectureRecord, CandidateRecord], ...]:
    """Return name, architecture and its best candidate, one for each architecture and target."""
    firsts: dict[tuple[str, str], CandidateRecord] = {}
    for one in record.candidates:
        firsts.setdefault((one.architecture, one.target), one)
    return tuple(
        (name, one, firsts[name, target])
        for name, one in record.architectures.items()
        for target in record.targets
        if (name, target) in firsts
    )


def _limits(records: Mapping[str, Record], target: str, owner: str) -> tuple[Limit, ...]:
    """Return the limits of a target: of what ships for it, else of the first architecture that left anything."""
    if owner:
        return records[owner].limits_of(target)
    told = [limits for one in records.values() if (limits := one.limits_of(target))]
    return next((limits for limits in told if any(limit.got is not None for limit in limits)), told[0] if told else ())
