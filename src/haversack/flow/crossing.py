"""Across runtimes: what ships for several targets is compared with each other, with float, and with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from haversack import verify
from haversack.base.candidate import Candidate, Pair
from haversack.base.finding import Finding
from haversack.base.progress import Event
from haversack.base.recipe import structure, unstructure
from haversack.flow.making import is_static
from haversack.flow.meaning import meaning
from haversack.flow.steps import Steps

FLOAT, REFERENCE = "float", "reference"


def crossed(steps: Steps, best: Mapping[str, Candidate]) -> tuple[Pair, ...]:
    """Return every pair of what ships, the float model, and the reference where integers are fixed beforehand.

    All samples of the evaluation set are run, once for each artefact. With one target there is nothing to hold against
    each other, and the table is empty: its own parity stands in the candidate.

    Args:
        steps: of the run.
        best: target -> what ships for it. One that failed before it was measured is not opened again.

    Raises:
        WorkerFault: a runtime failed that did not fail before.
    """
    best = {name: one for name, one in best.items() if one.parity is not None}
    if len(best) < 2:
        return ()
    plans = {name: one.plan.digest for name, one in best.items()}

    def load(data: Mapping[str, Any], _: Mapping[str, np.ndarray]) -> tuple[Pair, ...]:
        return tuple(structure(one, Pair, where="ledger") for one in data["pairs"])

    return steps.shop.remember(
        "verify",
        "parity across runtimes",
        [plans, *steps.content],
        lambda: _compared(steps, best),
        save=lambda made: ({"pairs": unstructure(list(made))}, {}),
        load=load,
    )


def parting(best: Mapping[str, Candidate], pairs: tuple[Pair, ...]) -> dict[str, Finding]:
    """Return target -> a finding, for targets whose outputs are not another's though both hold the same integers."""
    found: dict[str, Finding] = {}
    for pair in pairs:
        plans = [best[name].plan for name in (pair.first, pair.second) if name in best]
        same = len(plans) == 2 and plans[0].layers == plans[1].layers and all(map(is_static, plans))
        same = same and plans[0].constrained_by == plans[1].constrained_by  # else their encodings may differ
        if same and pair.differing:
            text = f"{pair.differing} of {pair.compared} output values are not those of {pair.first}"
            found.setdefault(pair.second, Finding("runtimes-differ", text))
    return found


def told(candidates: Sequence[Candidate], found: Mapping[str, Finding]) -> list[Candidate]:
    """Return the candidates; what ships for a target tells that target's finding as well."""
    result = list(candidates)
    for target, finding in found.items():
        place = next(index for index, one in enumerate(result) if one.plan.target == target and one.artifact)
        result[place] = replace(result[place], findings=(*result[place].findings, finding))
    return result


def _compared(steps: Steps, best: Mapping[str, Candidate]) -> tuple[Pair, ...]:
    steps.shop.tell(Event("verify", "start", f"parity across {len(best)} runtimes"))
    with ExitStack() as stack:
        runs = {name: stack.enter_context(steps.makers[name].running(one)) for name, one in best.items()}
        static = next((one for one in best.values() if is_static(one.plan)), None)
        if static is not None:
            kept = steps.makers[static.plan.target].kept(static.plan)
            runs[REFERENCE] = meaning(steps.targets[static.plan.target]).opened(kept.model, kept.encodings).run
        runs[FLOAT] = steps.float_predict
        return verify.across(runs, (inputs for inputs, _ in steps.data.evaluation()))
