"""Whether what was measured establishes that a limit is kept: the drop by its samples, the latency by its pairs."""

from __future__ import annotations

from dataclasses import replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.counted import counted
from haversack.base.finding import Finding
from haversack.choose.verdict import amount
from haversack.report.wording import interval, points
from haversack.tools.numerics import bootstrap

KIND = "not-established"
BUSY = "the machine was busy: "
WIDE = 1.2
"""The upper quartile of the pairs' ratios over the lower one, from which on the machine was busy."""


def certain(candidate: Candidate, budget: Budget) -> Candidate:
    """Return a candidate with what its measurements do not establish of the limits.

    The finding is ``not-established`` where the interval of its drop crosses the limit, and ``noisy`` where the limit
    on the latency lies between the quartiles of pairs timed on a busy machine. What another budget left on it is taken
    off.
    """
    found = candidate.findings
    findings = tuple(one for one in found if one.kind != KIND and not one.text.startswith(BUSY))
    took = candidate.latency
    for limit, got in (("latency_ratio", took.ratio), ("latency_ms", took.median_ms)) if took is not None else ():
        allowed = budget.limits().get(limit)
        if allowed is None or took is None or took.ratio_high <= WIDE * took.ratio_low:
            continue
        low, high = (got * quartile / took.ratio for quartile in (took.ratio_low, took.ratio_high))
        if low <= allowed <= high:
            words = f"{amount(limit, low)} to {amount(limit, high)}, the limit is {amount(limit, allowed)}"
            text = f"{BUSY}the quartiles of its latency are {words}; pack again when it is quiet"
            findings = (*findings, Finding("noisy", text))
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
