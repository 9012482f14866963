"""After the search: the chosen artefact is compared with the reference on more samples, and the other half speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.finding import Finding
from haversack.choose.verdict import checks, judged
from haversack.flow.steps import Steps
from haversack.tools.numerics import bootstrap


def confirmed(steps: Steps, candidates: Sequence[Candidate], budget: Budget) -> list[Candidate]:
    """Return the candidates, best first in each target, with figures of the untouched half of the evaluation set.

    The order is the search's, made on the other half. The first of each target is confirmed: if the untouched half
    says that it misses the allowed drop, its verdict says so.
    """
    result: list[Candidate] = []
    for target in steps.targets:
        order = judged([one for one in candidates if one.plan.target == target], budget)
        reported = [steps.reported(one) for one in order]
        result += [_confirmed(steps, reported[0], budget), *reported[1:]]
    return result


def _confirmed(steps: Steps, candidate: Candidate, budget: Budget) -> Candidate:
    candidate = steps.confirmed(candidate)
    if candidate.verdict == "failed":
        return candidate
    missed = [check for check in checks(candidate, budget) if not check.met]
    if missed and candidate.verdict == "chosen":
        words = "; ".join(str(check) for check in missed)
        candidate = replace(candidate, verdict="missed", reason=f"on the untouched half: {words}")
    drop = candidate.drop
    if drop is not None and budget.drop is not None and not bootstrap.established(drop, budget.drop):
        text = (
            f"the drop is {drop.value:.4f} with 95 % between {drop.low:.4f} and {drop.high:.4f}: "
            f"{drop.samples} samples do not establish that it is within {budget.drop:.4f}"
        )
        candidate = replace(candidate, findings=(*candidate.findings, Finding("not-established", text)))
    return candidate
