"""After the search: the chosen artefact is compared with the reference on more samples, and the other half speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.choose.verdict import checks
from haversack.flow.certainty import certain
from haversack.flow.steps import Steps


def confirmed(steps: Steps, candidates: Sequence[Candidate], budget: Budget) -> list[Candidate]:
    """Return the candidates, best first in each target, with figures of the untouched half of the evaluation set.

    The order is the search's, made on the other half. The first of each target is confirmed: if the untouched half
    says that it misses the allowed drop, its verdict says so.
    """
    result: list[Candidate] = []
    for target in steps.targets:
        order = [one for one in candidates if one.plan.target == target]
        result += _told(_first_that_holds(steps, [steps.reported(one) for one in order], budget), budget)
    return result


def _first_that_holds(steps: Steps, order: list[Candidate], budget: Budget) -> list[Candidate]:
    """Return the order with the first candidate that its confirmation does not fail in front; the failed go last."""
    failed: list[Candidate] = []
    for place, candidate in enumerate(order):
        if candidate.verdict == "failed" or candidate.artifact is None:
            return [*order[place:], *failed]
        confirmed_one = _confirmed(steps, candidate, budget)
        if confirmed_one.verdict != "failed":
            rest = order[place + 1 :]
            if failed and confirmed_one.verdict == "met":
                confirmed_one = replace(confirmed_one, verdict="chosen")
            return [confirmed_one, *rest, *failed]
        failed.append(confirmed_one)
    return failed


def _confirmed(steps: Steps, candidate: Candidate, budget: Budget) -> Candidate:
    candidate = steps.confirmed(candidate)
    if candidate.verdict == "failed":
        return candidate
    missed = [check for check in checks(candidate, budget) if not check.met]
    if missed and candidate.verdict in ("chosen", "met"):
        words = "; ".join(str(check) for check in missed)
        candidate = replace(candidate, verdict="missed", reason=f"on the untouched half: {words}")
    return candidate


def _told(order: list[Candidate], budget: Budget) -> list[Candidate]:
    """Return the order; what ships of it says whether its drop is established, whatever its verdict is."""
    ships = next((one for one in order if one.artifact is not None), None)
    return [certain(one, budget) if one is ships else one for one in order]
