"""The verdict of a run in one sentence, for the page and for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from haversack.report import wording
from haversack.report.record import FindingRecord, Limit, Record


@dataclass(frozen=True)
class Headline:
    """``state`` is met, missed (a limit, exit code 3) or failed (a finding or no artefact at all)."""

    state: Literal["met", "missed", "failed"]
    sentence: str


def failing(record: Record, target: str) -> tuple[FindingRecord, ...]:
    """Return the findings on a target's shipping candidate that fail the run."""
    best = record.best_of(target)
    return tuple(f for f in best.findings if f.severity == "error" and not f.allowed) if best else ()


def halved(record: Record, target: str) -> bool:
    """Say whether the half of the evaluation set that chose finds a limit missed, though the reported figures meet it.

    Only the quality differs between them: all else is measured once.
    """
    best = record.best_of(target)
    return best is not None and best.verdict == "missed" and not any(one.missed for one in record.limits_of(target))


def of(record: Record) -> Headline:
    """Return the verdict over all targets in one sentence."""
    targets = [target for target in record.targets if target in record.best] if record.why else list(record.targets)
    empty = [target for target in targets if record.best_of(target) is None]
    missed = [
        limit for limit in record.budget if limit.missed and limit.target in targets and limit.target not in empty
    ]
    findings = {target: found for target in record.targets if (found := failing(record, target))}
    judged = {limit.target for limit in missed}
    doubted = [target for target in targets if target not in judged and halved(record, target)]
    clauses = []
    if not record.targets:
        clauses.append("nothing was made")
    if empty:
        clauses.append(f"no artefact for {_listed(empty)}")
    if missed:
        clauses.append(
            "the budget is missed " + "; ".join(_missed(record, missed, t) for t in record.targets if _of(missed, t))
        )
    if doubted:
        clauses.append("the budget is missed " + "; ".join(_halves(record, target) for target in doubted))
    clauses += [f"{_failures(found)} on {target}" for target, found in findings.items()]
    if clauses:
        limits = (missed or doubted) and not empty and not findings
        state: Literal["missed", "failed"] = "missed" if limits else "failed"
        return Headline(state, _sentence(clauses))
    unrun = [target for target in targets if (best := record.best_of(target)) and best.exported]
    if unrun and record.budget:
        ran = [target for target in targets if target not in unrun]
        rest = f"every budget is met on {_listed(ran)}; " if ran else ""
        return Headline("met", _sentence([f"{rest}only sizes are judged of what does not run here ({_listed(unrun)})"]))
    if not record.budget:
        return Headline("met", f"No budget was set; measured on {_listed(targets)}.")
    return Headline("met", f"Every budget is met on {_listed(targets)}.")


def _of(limits: list[Limit], target: str) -> list[Limit]:
    return [limit for limit in limits if limit.target == target]


def miss(limit: Limit, more: str = "") -> str:
    """Return what was measured against what is allowed: ``latency against float x1.04, allowed x0.05``.

    Args:
        limit: one that is missed.
        more: what else is said of it.
    """
    name = wording.limit_name(limit.limit).lower()
    if limit.got is None:
        return f"{name} was not measured"
    got, allowed = (wording.amount(value, limit.unit) for value in (limit.got, limit.allowed))
    alike = f"{wording.difference(limit.over, limit.unit)} too much" if got == allowed else ""
    words = "; ".join(filter(None, (alike, more)))
    return f"{name} {got}, allowed {allowed}{f' ({words})' if words else ''}"


def _missed(record: Record, limits: list[Limit], target: str) -> str:
    told = [miss(one, _bytes(record, target) if one.limit == "size" else "") for one in _of(limits, target)]
    return f"on {target}: {'; '.join(told)}"


def _halves(record: Record, target: str) -> str:
    best = record.best_of(target)
    words = best.reason.removeprefix("nearest: ") if best else ""
    return f"on {target}: {words} on the samples that chose, though within it on the others"


def _bytes(record: Record, target: str) -> str:
    """Return what the bytes of a file are: weights as they are stored, and all the rest."""
    best = record.best_of(target)
    if best is None or best.artifact is None or best.after is None or best.after.weight_bytes > best.artifact.bytes:
        return ""
    weights = best.after.weight_bytes
    return f"{wording.size(weights)} are weights, {wording.size(best.artifact.bytes - weights)} structure and scales"


def _failures(findings: tuple[FindingRecord, ...]) -> str:
    kinds = sorted({finding.kind for finding in findings})
    return f"the finding {kinds[0]} fails the run" if len(kinds) == 1 else f"the findings {_listed(kinds)} fail the run"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _sentence(clauses: list[str]) -> str:
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."
