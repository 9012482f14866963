"""``haversack resolve``: another budget answered from a finished run, measured where it can, else forecast."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from haversack.base import budget as budgets
from haversack.base import digest
from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.errors import EXIT_BUDGET_MISSED, EXIT_MET, UsageError
from haversack.base.plan import Plan
from haversack.base.recipe import unstructure
from haversack.choose import resolve as choosing
from haversack.choose.best import Mixer
from haversack.choose.resolve import Resolution
from haversack.flow.choice import Choice
from haversack.flow.choice import read as read_choice
from haversack.flow.figures import figures, forecast_figures
from haversack.flow.request import write_plan
from haversack.tools.store import atomic

GONE = "its file is gone, or is not the one that was measured"


@dataclass(frozen=True)
class Answer:
    """The answer for another budget, for every target of the run.

    Attributes:
        out: the run's folder.
        choice: what the run chose by.
        budget: the other limits.
        typed: the same, as the user typed them.
        found: target -> what was found for it.
    """

    out: Path
    choice: Choice
    budget: Budget
    typed: str
    found: Mapping[str, Resolution] = field(hash=False)

    @property
    def exit_code(self) -> int:
        """0 when every target has a measured artefact that meets the budget, else 3."""
        met = bool(self.found) and all(one.met for one in self.found.values())
        return EXIT_MET if met else EXIT_BUDGET_MISSED

    @property
    def plan(self) -> Plan | None:
        """The forecast plan of the first target that has one; None when measurement answers, or nothing is found."""
        return next((one.plan for one in self.found.values() if one.plan is not None), None)

    def write(self, path: Path) -> None:
        """Write the forecast plan, for ``pack --plan``.

        Raises:
            UsageError: there is none.
            EnvironmentFault: it cannot be written.
        """
        if self.plan is None:
            raise UsageError("there is no forecast plan to write", where=str(path))
        with atomic.told(path, "write the plan"):
            write_plan(self.plan, path)

    def next_command(self, path: Path | None = None) -> str:
        """Return the command that makes the forecast plan real; ``path`` is where it was written."""
        file, out = str(path or "plan.toml"), f"{self.out}-again"
        words = ["haversack", "pack", self.choice.job, "--plan", file, "--budget", self.typed, "--out", out]
        return shlex.join(words)

    def lines(self, written: Path | None = None) -> list[str]:
        """Return the answer for a terminal; ``written`` is where the plan went."""
        lines: list[str] = []
        for target, one in self.found.items():
            lines += _met(target, self._reported(one), self.choice) if one.met else self._missed(target, one)
        if self.plan is not None:
            if written is None:
                words = ["haversack", "resolve", str(self.out), "--budget", self.typed, "--write", "plan.toml"]
                lines.append(f"write the plan: {shlex.join(words)}")
            lines.append(f"next: {self.next_command(written)}")
        elif self.exit_code:
            lines.append("next: loosen the limit that is missed above, or pack another model")
        return lines

    def data(self) -> dict[str, Any]:
        """Return the answer as JSON-able data; a figure that was not measured is None."""
        targets = {}
        for target, one in self.found.items():
            nearest = self._reported(one) if one.candidates else None
            targets[target] = {
                "met": one.met,
                "measured": None if nearest is None else {"id": nearest.id, **figures(nearest, self.choice).data()},
                "reason": one.candidates[0].reason if one.candidates else "",
                "forecast": None if one.forecast is None else forecast_figures(one.forecast).data(),
                "plan": None if one.plan is None else unstructure(one.plan),
            }
        command = self.next_command() if self.plan is not None else ""
        return {"budget": self.budget.limits(), "exit_code": self.exit_code, "targets": targets, "next": command}

    def _missed(self, target: str, one: Resolution) -> list[str]:
        nearest = one.candidates[0] if one.candidates else None
        lines = [f"{target}: no measured artefact meets {self.typed}"]
        if nearest is not None and nearest.artifact is not None:
            lines.append(f"  nearest measured: {nearest.artifact.files[0].path} ({nearest.id}): {nearest.reason}")
        if one.plan is None or one.forecast is None:
            return [*lines, "  no plan is forecast to meet it either"]
        wished = one.plan
        base = min((other.plan for other in one.candidates), key=lambda plan: len(plan.differences(wished)))
        changes = base.differences(wished)
        lines.append(f"  forecast plan {one.plan.id} (a forecast: nothing of it was made or measured):")
        lines += [f"    {line}" for line in forecast_figures(one.forecast).lines("forecast")]
        lines.append("    drop: not forecast, only measurement tells")
        lines += [f"    {change}" for change in changes] or ["    as a plan of the run that was not made"]
        return lines

    def _reported(self, one: Resolution) -> Candidate:
        """Return the first candidate with the figures of the untouched half."""
        first = one.candidates[0]
        known = next(other for other in self.choice.candidates if other.id == first.id)
        return replace(first, quality=known.quality, drop=known.drop)


def resolve(out: Path, budget: str) -> Answer:
    """Answer another budget from the run in ``out``.

    A candidate counts as meeting a limit on the drop when it does on both halves of the evaluation set: the one that
    chooses and the one that reports. Its file must still be the one that was measured.

    Args:
        out: the folder of a finished run.
        budget: the other limits, as for ``pack``.

    Raises:
        UsageError: the budget cannot be read or limits nothing, or the folder holds no finished run.
    """
    limits = budgets.parse(budget)
    if not limits.limits():
        raise UsageError("it limits nothing", where="--budget", next_step=budgets.EXAMPLE)
    choice = read_choice(out)
    candidates = [_there(one, out) for one in choice.severe()]
    found = {}
    for target in dict.fromkeys(one.plan.target for one in candidates):
        mine = [one for one in candidates if one.plan.target == target]
        mixer = Mixer(choice.graph, choice.profile, target, choice.weight_elements)
        found[target] = choosing.resolve(mine, limits, [mixer])
    return Answer(out, choice, limits, budget, found)


def _there(candidate: Candidate, out: Path) -> Candidate:
    """Return a candidate; as failed when its files are not those that were measured."""
    files = candidate.artifact.files if candidate.artifact is not None else ()
    if all((out / file.path).is_file() and digest.of_file(out / file.path) == file.sha256 for file in files):
        return candidate
    return replace(candidate, verdict="failed", reason=GONE)


def _met(target: str, candidate: Candidate, choice: Choice) -> list[str]:
    path = candidate.artifact.files[0].path if candidate.artifact is not None else ""
    lines = [f"{target}: {path} ({candidate.plan.origin or candidate.id}), measured:"]
    return [*lines, *(f"  {line}" for line in figures(candidate, choice).lines())]
