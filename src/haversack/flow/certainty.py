"""Whether so many samples establish that a drop is within its limit: a finding of the limit that is asked for."""

from __future__ import annotations

from dataclasses import replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.counted import counted
from haversack.base.finding import Finding
from haversack.report.wording import interval, points
from haversack.tools.numerics import bootstrap

KIND = "not-established"


def certain(candidate: Candidate, budget: Budget) -> Candidate:
    """Return a candidate with the finding ``not-established`` if the interval of its drop crosses the limit.

    One that another budget left on it is taken off.
    """
    findings = tuple(finding for finding in candidate.findings if finding.kind != KIND)
    drop = candidate.drop
    if drop is not None and budget.drop is not None and not bootstrap.established(drop, budget.drop):
        unit = candidate.quality.unit if candidate.quality is not None else ""
        on = f"{counted(drop.samples, 'sample')} {'does' if drop.samples == 1 else 'do'}"
        text = (
            f"the drop is {points(drop.value, unit)}, 95 %: {interval(drop.low, drop.high, unit)}; "
            f"{on} not establish that it is within {points(budget.drop, unit)}"
        )
        findings = (*findings, Finding(KIND, text))
    return replace(candidate, findings=findings)
