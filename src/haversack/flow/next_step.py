"""What to do next: check what shipped, or, where a limit was missed, ask for what was measured."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.choose.verdict import checks
from haversack.flow.judging import errors

BUDGET = "--budget"
FAILED = "mend what failed, as told above, or choose another --target: no artefact was left"


def next_step(
    out: Path,
    best: Mapping[str, Candidate],
    budget: Budget,
    chosen_on: Mapping[str, float],
    instead: str = "",
    command: str = "",
) -> str:
    """Return the command that leads on from a run.

    Args:
        out: its folder.
        best: target -> what ships for it.
        budget: its limits.
        chosen_on: candidate id -> its drop on the half that chose; ``resolve`` goes by the worse half.
        instead: what would meet the limits if the user allowed it, in words, or nothing.
        command: the run's own, as it was typed; empty where nothing was.
    """
    if not best:
        return FAILED
    loosened: dict[str, float] = {}
    for one in best.values():
        for check in checks(one, budget):
            worse = chosen_on.get(one.id, -math.inf) if check.limit == "drop" else -math.inf
            got = max(check.got, worse)
            if got > check.allowed and math.isfinite(got):
                loosened[check.limit] = max(got, loosened.get(check.limit, -math.inf))
    if not loosened:
        return f"haversack verify {shlex.quote(str(out))}"
    unit = next((one.quality.unit for one in best.values() if one.quality is not None), "")
    limits = ",".join(typed(name, loosened.get(name, value), unit) for name, value in budget.limits().items())
    kinds = dict.fromkeys(kind for one in best.values() if one.verdict == "failed" for kind in errors(one))
    if kinds:  # ``resolve`` counts what failed as no answer, whatever its limits
        return _allowing(command, limits, [*kinds])
    told = f"what was measured meets that{f'; {instead}' if instead else ''}"
    return f"haversack resolve {shlex.quote(str(out))} --budget {limits}    ({told})"


def _allowing(command: str, limits: str, kinds: Sequence[str]) -> str:
    """Return the run's command with other limits, allowing what its files failed for; in words where none was typed."""
    told = f"what was measured meets that, and failed for {', '.join(kinds)}"
    words = shlex.split(command)
    if words[:2] != ["haversack", "pack"]:
        return f"pack it again with the limits {limits}, allowing {', '.join(kinds)}    ({told})"
    kept = [word for before, word in pairwise(["", *words]) if BUDGET not in (before, word.partition("=")[0])]
    allow = [word for kind in kinds for word in ("--allow", kind)]
    return f"{shlex.join([*kept, BUDGET, limits, *allow])}    ({told})"


def typed(name: str, value: float, unit: str) -> str:
    """Return a limit as it is typed, rounded up to what a person reads.

    Args:
        name: of the limit, as ``Budget`` has it.
        value: of it.
        unit: of the metric.
    """
    if name in {"size", "download", "memory"}:
        for letters, size in (("MB", 1e6), ("KB", 1e3)):
            if value >= size:
                return f"{name}={_up(value / size)}{letters}"
        return f"{name}={value:.0f}B"
    if name == "drop":
        return f"drop={_up(100 * value)}pt" if unit == "fraction" else f"drop={_up(value, 6)}"
    return f"latency={_up(value)}{'x' if name == 'latency_ratio' else 'ms'}"


def _up(value: float, places: int = 3) -> str:
    scale = 10.0**places
    return f"{math.ceil(value * scale - 1e-6) / scale:g}"
