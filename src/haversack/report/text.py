"""A record as plain lines: what the terminal shows at the end of a run."""

from __future__ import annotations

from haversack.base.counted import counted
from haversack.report import headline, wording
from haversack.report.record import Baseline, CandidateRecord, FindingRecord, Record

SEVERITIES = ("error", "warning", "note")


def lines(record: Record) -> tuple[str, ...]:
    """Return the summary: the verdict, one line a target, every finding of what ships, and the next command."""
    told = [headline.of(record).sentence]
    told += [_target(record, target) for target in record.targets if target in record.best or not record.why]
    told += _update(record)
    told += _memory(record)
    told += _degraded(record)
    told += [f"{target}: {words}" for target, words in record.between.items()]
    lost = {name: one.lost for name, one in record.architectures.items() if one.lost}
    told += [f"{name} is left out: {' '.join(why.split())}" for name, why in lost.items()]
    told += [record.why] if record.why else []
    told += _across(record)
    told += _findings(record)
    told += _failures(record)
    if record.next_step:
        told.append(f"next: {record.next_step}")
    return tuple(told)


def _target(record: Record, target: str) -> str:
    best = record.best_of(target)
    if best is None:
        reasons = [one.reason for one in record.candidates if one.target == target and one.reason]
        return f"{target}: failed" + (f" ({reasons[-1]})" if reasons else "")
    missed = any(limit.missed for limit in record.limits_of(target)) or headline.halved(record, target)
    verdict = "missed" if missed else "met"
    figures = _figures(best, record.baseline, "best float" if record.architectures else "float")
    return f"{target}: {'  '.join((*filter(None, [best.architecture]), *figures, verdict))}"


def _update(record: Record) -> list[str]:
    """Return what an update brings, one line a point: quality on the new data against the bytes of its delta."""
    told = record.update
    if told is None:
        return []
    unit, first = record.baseline.unit, told.first
    lines = [f"of {told.released}, on the new data:"]
    for one in told.points:
        gained = None if one.value is None or first.value is None else one.value - first.value
        gain = f" ({wording.change(gained, unit)})" if one is not first else ""
        layers = f", {counted(len(one.layers), 'layer')} changed" if one.layers else ""
        lines.append(
            f"  {'->' if one.ships else '  '} {wording.size(one.bytes):>8}  {record.baseline.metric} "
            f"{wording.quality(one.value, unit)}{gain}  {one.name}{layers}"
        )
    return lines


def _memory(record: Record) -> list[str]:
    """Return where memory peaks, one line a target that ships: measured, and the activations as counted."""
    told = []
    for target, found in record.activations.items():
        best, floats = record.best_of(target), record.floats.get(target)
        if best is None or best.memory is None:
            continue
        was = f" (float {wording.size(floats.memory.peak_bytes)})" if floats and floats.memory else ""
        gained = found.keeps_order and found.exported_bytes > found.peak_bytes
        less = f", {wording.size(found.exported_bytes)} as exported" if gained else ""
        told.append(
            f"{target}: memory {wording.size(best.memory.peak_bytes)} at the peak{was}; activations peak at "
            f"{wording.module(found.node)} ({wording.size(found.peak_bytes)} counted{less})"
        )
    return told


def _degraded(record: Record) -> list[str]:
    """Return how quality changes on degraded inputs, one line a target; nothing where none was asked for."""
    unit, told = record.baseline.unit, dict[str, list[str]]()
    for one in record.degraded:
        change = "not scored" if one.change is None else wording.change(one.change, unit)
        was = "" if one.float_change is None else f" (float {wording.change(one.float_change, unit)})"
        told.setdefault(one.target, []).append(f"{one.degradation} {change}{was}")
    return [f"{target}: degraded inputs: {', '.join(words)}" for target, words in told.items()]


def _across(record: Record) -> list[str]:
    """Return which artefacts give the same bits; nothing where fewer than two do."""
    equal = [one for one in record.across if not one.differing and one.compared]
    names = dict.fromkeys(name for one in equal for name in (one.first, one.second))
    if not equal or len(equal) < len(names) * (len(names) - 1) // 2:
        return [f"{one.first} and {one.second} give the same bits, all {one.compared:,} values" for one in equal]
    return [f"the same bits from {', '.join(names)}: all {equal[0].compared:,} values"]


def _figures(best: CandidateRecord, baseline: Baseline, floats: str) -> list[str]:
    unit = baseline.unit
    figures = [wording.size(best.artifact.bytes) if best.artifact else "no file"]
    if best.exported:
        return [*figures, "not run here"]
    if best.latency:
        figures.append(f"{wording.ratio(best.latency.ratio)} ({wording.milliseconds(best.latency.median_ms)})")
    else:
        figures.append("not timed")
    if best.quality and best.quality.value is not None:
        was = f" ({floats} {wording.quality(baseline.value, unit)})" if baseline.value is not None else ""
        figures.append(f"{baseline.metric} {wording.quality(best.quality.value, unit)}{was}")
    if best.quality and best.quality.drop is not None:
        bounds = wording.interval(best.quality.drop_low, best.quality.drop_high, unit)
        figures.append(f"drop {wording.points(best.quality.drop, unit)}" + (f" [{bounds}]" if bounds else ""))
    else:
        figures.append("not scored")
    if best.parity and best.parity.agreement is not None:
        figures.append(f"agreement {wording.percent(best.parity.agreement)}")
    elif best.parity:
        figures.append(f"relative error {wording.error(best.parity.relative_error)}")
    return figures


def _failures(record: Record) -> list[str]:
    """Return one line for candidates that failed and do not ship: the search was told, and so is the user."""
    failed = [
        one for one in record.candidates if one.verdict == "failed" and record.best.get(one.target, one.id) != one.id
    ]
    kinds = dict.fromkeys(f.kind for one in failed for f in one.findings if f.severity == "error" and not f.allowed)
    why = f": {', '.join(kinds)}" if kinds else ""
    return [f"{len(failed)} of {len(record.candidates)} candidates failed{why} (the report says why)"] if failed else []


def _findings(record: Record) -> list[str]:
    found: dict[tuple[int, str, str], list[FindingRecord]] = {}
    for target in record.targets:
        best = record.best_of(target)
        for finding in best.findings if best else ():
            found.setdefault((SEVERITIES.index(finding.severity), target, finding.kind), []).append(finding)
    return [_finding(target, found[rank, target, kind]) for rank, target, kind in sorted(found)]


def _finding(target: str, alike: list[FindingRecord]) -> str:
    """Return one line for findings of one kind: the first, and how many more (the page has them all)."""
    first = alike[0]
    place = f" at {first.layer}" if first.layer else ""
    more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
    allowed = " (allowed)" if first.allowed else ""
    return f"{first.severity}{allowed}: {target}: {first.kind}{place}: {first.text}{more}"
