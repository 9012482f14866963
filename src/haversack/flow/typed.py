"""What was typed, looked at before anything is read or run: everything that is wrong with it is told at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from haversack.base import budget as budgets
from haversack.base.errors import Fault, UsageError
from haversack.base.finding import KINDS
from haversack.base.shelf import nearest
from haversack.flow import cluster_address
from haversack.flow.effort import effort
from haversack.flow.request import Request, degraded, runtimes, said
from haversack.measure import devices


def check(request: Request) -> None:
    """Refuse a request of which a flag cannot be read.

    Raises:
        UsageError: of one flag as it is; of several with the faults of all.
    """
    looks: tuple[Callable[[], object], ...] = (
        lambda: request.budget is None or budgets.parse(request.budget),
        lambda: runtimes(request),
        lambda: findings(request.allow),
        lambda: effort(request.effort),
        lambda: devices.check_measuring(request.device),
        lambda: _cluster(request.ray),
        lambda: degraded(request),
        lambda: said(request),
    )
    together(looks, "haversack pack --help    (says what each takes)")


def together(looks: Sequence[Callable[[], object]], next_step: str) -> None:
    """Look at everything, and refuse all that is wrong at once.

    Args:
        looks: each raises a UsageError where something is wrong.
        next_step: where several are.

    Raises:
        UsageError: of one look as it is; of several with the faults of all.
    """
    found: list[UsageError] = []
    for look in looks:
        try:
            look()
        except UsageError as error:
            found.append(error)
    different = {(error.cause, *_faults(error)): error for error in reversed(found)}  # a file is looked at repeatedly
    found = list(reversed(different.values()))
    if len(found) == 1:
        raise found[0]
    if found:
        faults = tuple(dict.fromkeys(fault for error in found for fault in _faults(error)))
        raise UsageError(
            f"{len(faults)} of what was typed cannot be read",
            faults=faults,
            tried="reading what was typed, before anything is made",
            next_step=next_step,
        )


def _cluster(address: str) -> None:
    if address:
        cluster_address.check(address)


def findings(kinds: Sequence[str]) -> None:
    """Refuse kinds of findings that there are not.

    Raises:
        UsageError: all of them, the nearest name shown.
    """
    faults = tuple(
        Fault(f"--allow {kind}", f"there is no finding of this name{nearest(kind, KINDS)}")
        for kind in kinds
        if kind not in KINDS
    )
    if faults:
        known = ", ".join(kind for kind, (severity, _, _) in KINDS.items() if severity == "error")
        raise UsageError(
            "these findings cannot be allowed", faults=faults, next_step=f"one of those that fail a run: {known}"
        )


def _faults(error: UsageError) -> list[Fault]:
    """Return an error's faults, each with its place, or itself as one."""
    if not error.faults:
        return [Fault(error.where, error.cause)]
    return [Fault(": ".join(filter(None, (error.where, one.where))), one.cause) for one in error.faults]
