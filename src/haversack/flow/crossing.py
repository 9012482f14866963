"""Across runtimes: what ships for several targets is compared with each other, with float, and with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack import verify
from haversack.base.candidate import Candidate, Pair
from haversack.base.constraints import Constraints
from haversack.base.encodings import Encodings
from haversack.base.finding import Finding
from haversack.base.model import Model, Sample
from haversack.base.plan import Plan
from haversack.base.progress import Event
from haversack.base.recipe import structure, unstructure
from haversack.base.spread import Light
from haversack.flow.making import is_static
from haversack.flow.meaning import meaning
from haversack.flow.steps import Steps
from haversack.targets.reference import Reference

if TYPE_CHECKING:
    from haversack.targets.reference.interpret import Interpreter

LAST_BITS = 1e-5
"""Outputs that are nearer than this differ in what float layers round: nobody is to blame."""
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


def parting(
    best: Mapping[str, Candidate], pairs: tuple[Pair, ...], constraints: Mapping[str, Constraints]
) -> dict[str, Finding]:
    """Return target -> a finding, for targets in integers whose outputs are not another's.

    Either both hold the same integers, and a runtime is to blame; or what they demand of encodings differs, so that
    each holds integers of its own, and the text says which demand parts them.

    Args:
        best: target -> what ships for it.
        pairs: of these, compared.
        constraints: target -> what its encodings satisfy; a target that is absent demands nothing.
    """
    found: dict[str, Finding] = {}
    demands = {name: constraints.get(name, Constraints()) for name, one in best.items() if is_static(one.plan)}
    alike = {name: sum(mine == theirs for theirs in demands.values()) for name, mine in demands.items()}
    for pair in pairs:
        if not {pair.first, pair.second} <= {*demands} or not pair.differing:
            continue
        values = f"{pair.differing} of {pair.compared} output values are not those of"
        far = f" (relative error {pair.relative_error:.1g})"
        if demands[pair.first] != demands[pair.second]:
            # Told of the side that fewer share, so that one odd target among several is one finding.
            odd, other = sorted((pair.second, pair.first), key=alike.__getitem__)
            why = f"it holds other integers than {other}, since {_parted(odd, other, demands)}"
            found.setdefault(odd, Finding("runtimes-differ", f"{values} {other}{far}: {why}"))
        elif _untargeted(best[pair.first].plan) == _untargeted(best[pair.second].plan):
            kind = "float-rounding" if pair.relative_error < LAST_BITS else "runtimes-differ"
            found.setdefault(pair.second, Finding(kind, f"{values} {pair.first}{far}"))
    return found


def told(candidates: Sequence[Candidate], found: Mapping[str, Finding]) -> list[Candidate]:
    """Return the candidates; what ships for a target tells that target's finding as well."""
    result = list(candidates)
    for target, finding in found.items():
        place = next(index for index, one in enumerate(result) if one.plan.target == target and one.artifact)
        result[place] = replace(result[place], findings=(*result[place].findings, finding))
    return result


def _untargeted(plan: Plan) -> Plan:
    """Return what decides a plan's integers beside what is demanded of them."""
    return replace(plan, target="", constrained_by=())


def _parted(odd: str, other: str, demands: Mapping[str, Constraints]) -> str:
    """Say which demands part two targets; symmetric activations alone would, whatever else differs."""
    mine, theirs = demands[odd], demands[other]
    if mine.symmetric != theirs.symmetric:
        some, rest = (odd, other) if mine.symmetric else (other, odd)
        return f"{some} takes activations around 0 only (symmetric), and the grids of {rest} do the work of clamps"
    names = [one.name for one in fields(Constraints) if getattr(mine, one.name) != getattr(theirs, one.name)]
    return f"they demand other {', '.join(names).replace('_', ' ')} of encodings"


def _compared(steps: Steps, best: Mapping[str, Candidate]) -> tuple[Pair, ...]:
    steps.shop.tell(Event("verify", "start", f"parity across {len(best)} runtimes"))
    with ExitStack() as stack:
        runs = {name: stack.enter_context(steps.makers[name].running(one)) for name, one in best.items()}
        static = next((one for one in best.values() if is_static(one.plan)), None)
        if static is not None:
            kept = steps.makers[static.plan.target].kept(static.plan)
            meant = Meant(meaning(steps.targets[static.plan.target]), kept.model, kept.encodings)
            outputs = steps.spread(outputs_of, meant, (inputs for inputs, _ in steps.data.evaluation()))
            runs[REFERENCE] = lambda _: next(outputs)  # in the order in which samples are read below
        runs[FLOAT] = steps.float_predict
        return verify.across(runs, (inputs for inputs, _ in steps.data.evaluation()))


@dataclass(frozen=True, eq=False)
class Meant(Light):
    """What outputs are meant to be: the reference, and the model and encodings that it executes."""

    reference: Reference
    model: Model
    encodings: Encodings

    @cached_property
    def interpreter(self) -> Interpreter:
        """The model, ready to run many times."""
        return self.reference.opened(self.model, self.encodings)


def outputs_of(meant: Meant, sample: Sample) -> tuple[np.ndarray, ...]:
    """Return the reference's outputs for one batch, in the model's order.

    Raises:
        ConversionError: encodings that the reference cannot execute.
    """
    return meant.interpreter.run(sample)
