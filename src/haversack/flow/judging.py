"""What findings mean for a candidate: judged after it was measured, or found in the ledger, never by the measuring."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from haversack.base.candidate import Candidate
from haversack.base.finding import Finding


def judged(candidate: Candidate, allow: Collection[str]) -> Candidate:
    """Return a candidate that has the verdict ``failed`` when it has a finding of an error that is not allowed."""
    wrong = [finding for finding in candidate.findings if finding.severity == "error" and finding.kind not in allow]
    if not wrong or candidate.verdict == "failed":
        return candidate
    reason = "; ".join(f"{finding.kind}: {finding.text}" for finding in wrong)
    return replace(candidate, verdict="failed", reason=reason)


def retold(candidate: Candidate, later: Iterable[Finding]) -> Candidate:
    """Return a candidate with what a later look at it found, in place of what an earlier one told of the same.

    Findings of one kind at one place say the same thing, of fewer samples: the later ones stay.
    """
    told = tuple(dict.fromkeys(later))
    places = {(finding.kind, finding.layer) for finding in told}
    first = tuple(finding for finding in candidate.findings if (finding.kind, finding.layer) not in places)
    return replace(candidate, findings=(*first, *told))


def errors(candidate: Candidate) -> list[str]:
    """Return the kinds of a candidate's errors, each once."""
    return list(dict.fromkeys(one.kind for one in candidate.findings if one.severity == "error"))
