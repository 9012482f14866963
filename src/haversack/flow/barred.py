"""Limits that only something could meet which the user forbids or fixes otherwise: said early, and after a miss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import WEIGHT_BITS, Plan
from haversack.base.scope import Scope, precision
from haversack.choose import resolve as choosing
from haversack.choose.mixing import Mixer
from haversack.choose.verdict import checks
from haversack.flow.next_step import typed
from haversack.flow.rules import LAYER, WITHOUT, module

SHOWN = 3
"""At most so many layers are named."""


def words(plan: Plan, scope: Scope) -> str:
    """Return what of a plan the user's say bars, in words; nothing where it bars nothing.

    Args:
        plan: somebody else's.
        scope: the user's say.
    """
    names = scope.forbids(plan)
    other: dict[str, list[str]] = {}
    for key, layer in scope.fixed.items():
        held = precision(plan.layers.get(key))
        if held != layer.precision:
            other.setdefault(held, []).append(module(key))
    told = [f"{' and '.join(names)}, which {WITHOUT} forbids,"] if names else []
    told += [f"{_places(places)} in {kind}, which {LAYER} fixes otherwise," for kind, places in other.items()]
    return " and ".join(told)


@dataclass(frozen=True)
class Barred:
    """What would be forecast to meet limits: in ``words``, and the ``scope`` with which the user would allow it."""

    words: str
    scope: Scope


def lifts(scope: Scope) -> Iterator[Scope]:
    """Yield what else the user might say: one forbidden name less, the gentlest first, fixed layers free, all of it."""
    bits: dict[str, int] = {str(name): count for name, count in WEIGHT_BITS.items()}
    for name in sorted(scope.without, key=lambda one: (-bits.get(one, 0), one == "palette")):
        yield replace(scope, without=tuple(other for other in scope.without if other != name))
    if scope.fixed:
        yield replace(scope, rules=(), fixed={})
    if len(scope.without) + bool(scope.fixed) > 1:
        yield Scope()


def else_free(scope: Scope, plan: Plan) -> Iterator[Scope]:
    """Yield, for each thing that a plan uses and the user bars, what allows everything but that.

    Where none of these leads to it, only this plan's way does.
    """
    for name in scope.forbids(plan):
        yield Scope((), (name,), {})
    if any(precision(plan.layers.get(key)) != layer.precision for key, layer in scope.fixed.items()):
        yield replace(scope, without=())


def instead(
    found: Mapping[str, Sequence[Candidate]],
    budget: Budget,
    mixer: Mixer,
    uniform: Callable[[str, Scope], Iterable[Plan]] = lambda *_: (),
) -> dict[str, Barred]:
    """Return target -> what would be forecast to meet its limits, if the user allowed it.

    Only targets that miss a limit are told, and only where nothing that is allowed is forecast to meet it. First each
    forbidden name is allowed by itself, the gentlest first, then what is fixed is set free, then everything. It is told
    as the only way where nothing else leads there.

    Args:
        found: target -> its candidates, judged, best first.
        budget: the limits.
        mixer: with what the user allows.
        uniform: returns the uniform plans of a target under another say.
    """
    told = {}
    for target, order in found.items():
        missed = [check for check in checks(order[0], budget) if not check.met] if order else []

        def reach(scope: Scope, target: str = target, order: Sequence[Candidate] = order) -> Plan | None:
            more = [_unmade(plan) for plan in uniform(target, scope)]
            return choosing.resolve([*order, *more], budget, replace(mixer, scope=scope))[target].plan

        for lifted in lifts(mixer.scope) if missed else ():
            plan = reach(lifted)
            barred = words(plan, mixer.scope) if plan is not None else ""
            if plan is not None and barred:
                only = "" if any(map(reach, else_free(mixer.scope, plan))) else "only "
                unit = order[0].quality.unit if order[0].quality is not None else ""
                limits = ",".join(typed(check.limit, check.allowed, unit) for check in missed)
                told[target] = Barred(f"{only}{barred} is forecast to reach {limits}", lifted)
                break
    return told


def _unmade(plan: Plan) -> Candidate:
    return Candidate(plan, None, None, None, None, None, None, verdict="missed", reason="not made: it is forbidden")


def _places(places: Sequence[str]) -> str:
    return ", ".join(places[:SHOWN]) + (", …" if len(places) > SHOWN else "")
