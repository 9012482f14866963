"""A record as plain lines: what the terminal shows at the end of a run."""

from __future__ import annotations

from haversack.report import headline, wording
from haversack.report.record import CandidateRecord, Record

SEVERITIES = ("error", "warning", "note")


def lines(record: Record) -> tuple[str, ...]:
    """Return the summary: the verdict, one line a target, every finding of what ships, and the next command."""
    told = [headline.of(record).sentence]
    told += [_target(record, target) for target in record.targets]
    told += _findings(record)
    if record.next_step:
        told.append(f"next: {record.next_step}")
    return tuple(told)


def _target(record: Record, target: str) -> str:
    best = record.best_of(target)
    if best is None:
        reasons = [one.reason for one in record.candidates if one.target == target and one.reason]
        return f"{target}: failed" + (f" ({reasons[-1]})" if reasons else "")
    verdict = "met" if all(limit.met for limit in record.limits_of(target)) else "missed"
    return f"{target}: {'  '.join((*_figures(best, record.baseline.unit), verdict))}"


def _figures(best: CandidateRecord, unit: str) -> list[str]:
    figures = [wording.size(best.artifact.bytes) if best.artifact else "no file"]
    if best.latency:
        figures.append(f"{wording.ratio(best.latency.ratio)} ({wording.milliseconds(best.latency.median_ms)})")
    else:
        figures.append("not timed")
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


def _findings(record: Record) -> list[str]:
    found = [
        (SEVERITIES.index(finding.severity), target, finding)
        for target in record.targets
        if (best := record.best_of(target))
        for finding in best.findings
    ]
    return [
        f"{finding.severity}{' (allowed)' if finding.allowed else ''}: {target}: {finding.kind}"
        + (f" at {finding.layer}" if finding.layer else "")
        + f": {finding.text}"
        for _, target, finding in sorted(found, key=lambda item: item[0])
    ]
