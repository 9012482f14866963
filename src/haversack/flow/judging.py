"""What findings mean for a candidate: judged after it was measured, or found in the ledger, never by the measuring."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from haversack.base.candidate import Candidate


def judged(candidate: Candidate, allow: Collection[str]) -> Candidate:
    """Return a candidate that has the verdict ``failed`` when it has a finding of an error that is not allowed."""
    wrong = [finding for finding in candidate.findings if finding.severity == "error" and finding.kind not in allow]
    if not wrong or candidate.verdict == "failed":
        return candidate
    reason = "; ".join(f"{finding.kind}: {finding.text}" for finding in wrong)
    return replace(candidate, verdict="failed", reason=reason)
