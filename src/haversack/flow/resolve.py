"""``haversack resolve``: another budget answered from a finished run, measured where it can, else forecast."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from haversack.base import budget as budgets
from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.errors import EXIT_BUDGET_MISSED, EXIT_MET, UsageError
from haversack.base.plan import Plan
from haversack.base.recipe import unstructure
from haversack.base.scope import Scope
from haversack.choose.architectures import Winner, between
from haversack.choose.mixing import Mixer, margins
from haversack.choose.resolve import Resolution
from haversack.choose.verdict import checks
from haversack.flow.barred import Barred, instead
from haversack.flow.certainty import certain
from haversack.flow.choice import Choice, read_all, source_of
from haversack.flow.figures import figures, forecast_figures
from haversack.flow.judging import errors
from haversack.flow.lost import GONE, answers
from haversack.flow.request import write_plan
from haversack.flow.scoping import flags
from haversack.flow.settings import spelled
from haversack.flow.unmeasured import sharing, unforecast, unmeasured
from haversack.flow.workshop import FOLDER
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.graph import tied
from haversack.tools.store import atomic

DEFAULT_TARGET = "onnxruntime"
"""What ``pack`` makes where no target is named."""
UNTOUCHED = "with figures of the half of the evaluation set that is reported, "
"""Before why an architecture is the best; in a run's own report it is by the half that chooses."""


@dataclass(frozen=True)
class Answer:
    """The answer for another budget, for every target of the run.

    Attributes:
        out: the run's folder.
        choice: what the run chose by.
        budget: the other limits.
        typed: the same, as the user typed them.
        found: target -> what was found for it.
        instead: target -> what would meet its limits if the run had been allowed to.
        sharing: target -> the others whose integers it has; without them it might meet its limits.
        unmeasured: target -> what might meet them, and was not measured for the run's own limits, in words.
    """

    out: Path
    choice: Choice
    budget: Budget
    typed: str
    found: Mapping[str, Resolution] = field(hash=False)
    instead: Mapping[str, Barred] = field(default_factory=dict, hash=False)
    unmeasured: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    sharing: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)

    @property
    def exit_code(self) -> int:
        """0 when every target has a measured artefact that meets the budget, else 3."""
        met = bool(self.found) and all(one.met for one in self.found.values())
        return EXIT_MET if met else EXIT_BUDGET_MISSED

    @property
    def plan(self) -> Plan | None:
        """The forecast plan of the first target that has one; None when measurement answers, or nothing is found."""
        return next((one.plan for one in self.found.values() if one.plan is not None), None)

    @property
    def writable(self) -> Plan | None:
        """The plan for ``pack --plan``: the forecast one, else that of the first measured candidate that meets."""
        met = (one.candidates[0].plan for one in self.found.values() if one.met)
        return self.plan if self.plan is not None else next(met, None)

    def write(self, path: Path) -> None:
        """Write the plan, forecast or measured, for ``pack --plan``.

        Raises:
            UsageError: there is none.
            EnvironmentFault: it cannot be written.
        """
        if self.writable is None:
            raise UsageError("there is no plan to write: nothing meets it, nor is forecast to", where=str(path))
        with atomic.told(path, "write the plan", "choose a file that can be written with --write"):
            write_plan(self.writable, path, self.choice.architecture)

    def next_command(self, path: Path | None = None) -> str:
        """Return the command that makes the plan what ships; ``path`` is where it was written."""
        plan = self.writable
        usual = plan is None or (plan.target == DEFAULT_TARGET and not self.choice.settings.get(plan.target))
        target = () if plan is None or usual else (plan.target,)
        return self._pack(("--plan", str(path or "plan.toml")), target, self._excused())

    def lines(self, written: Path | None = None) -> list[str]:
        """Return the answer for a terminal; ``written`` is where the plan went."""
        lines: list[str] = []
        for target, one in self.found.items():
            lines += self._met(target, one) if one.met else self._missed(target, one)
        makes = self._makes(written)
        if makes and written is None:
            words = ["haversack", "resolve", str(self.out), "--budget", self.typed, "--write", "plan.toml"]
            lines.append(f"write the plan: {shlex.join(words)}")
        if self._left_out:
            lines.append(f"not limited by this budget, though the run was: {', '.join(self._left_out)}")
        if command := self._command(written):
            lines.append(f"next: {command}" + self._why(written))
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
                "forecast": None if one.forecast is None else forecast_figures(one.forecast, self._within).data(),
                "plan": None if one.plan is None else unstructure(one.plan),
                "unmeasured": list(self.unmeasured.get(target, ())),
                "sharing": list(self.sharing.get(target, ())),
            }
        told = {"budget": self.budget.limits(), "not_limited": self._left_out, "exit_code": self.exit_code}
        return {**told, "out": str(self.out), "targets": targets, "next": self._command(None)}

    @property
    def _left_out(self) -> list[str]:
        """The run's own limits that the other budget does not speak of."""
        return [name for name in self.choice.budget.limits() if name not in self.budget.limits()]

    @property
    def _within(self) -> dict[str, float]:
        """How far off a forecast of this run may be."""
        return margins(self.choice.candidates)

    def _makes(self, written: Path | None) -> bool:
        """Say whether a plan is worth packing: it was written, or it is not what ships already."""
        return self.writable is not None and (written is not None or self.plan is not None or not self._ships())

    def _command(self, written: Path | None) -> str:
        """Return the command that leads on, or nothing."""
        if self._makes(written):
            return self.next_command(written)
        refused = next((one for one in self._all() if self._refused(one)), None) if self.exit_code else None
        if refused is not None:
            return self._pack((), (refused.plan.target,), errors(refused))
        if barred := self._barred():
            return self._pack((), barred, self._excused(), self.instead[barred[0]].scope)
        wanted = self._open() or self._alone()
        return self._pack((), wanted, self._excused()) if wanted else ""

    def _why(self, written: Path | None) -> str:
        """Say what the command that leads on does, where that is not plain."""
        if self._makes(written):
            return "    makes it what ships" if self.plan is None else ""
        if any(self._refused(one) for one in self._all()):
            return ""
        if self._barred():
            return "    allows that"
        return "    measures these as well" if self._open() else "    alone: a run of its own"

    def _barred(self) -> list[str]:
        """Return the first target for which something that was not allowed is forecast to meet the budget."""
        return [target for target in self.found if target in self.instead][:1]

    def _open(self) -> list[str]:
        """Return the targets for which something that was not measured might meet the budget."""
        return [target for target in self.found if self.unmeasured.get(target)]

    def _alone(self) -> list[str]:
        """Return the first target that might meet the budget where no other shares its integers."""
        return [target for target in self.found if self.sharing.get(target)][:1]

    def _excused(self) -> list[str]:
        """Return the kinds of errors that did not fail the run's files: the user allowed them."""
        able = [one for one in self.choice.candidates if one.plan.target in self.found and one.verdict != "failed"]
        return [kind for one in able for kind in errors(one)]

    def _met(self, target: str, one: Resolution) -> list[str]:
        candidate = self._reported(one)
        path = self._path(candidate)
        lines = [f"{target}: {path} ({candidate.plan.origin or candidate.id}), measured:"]
        return [*lines, *(f"  {line}" for line in figures(candidate, self.choice).lines())]

    def _missed(self, target: str, one: Resolution) -> list[str]:
        nearest = one.candidates[0] if one.candidates else None
        lines = [f"{target}: no measured artefact meets {self.typed}"]
        for other in filter(self._refused, one.candidates):
            kinds = ", ".join(errors(other))
            flags = " ".join(f"--allow {kind}" for kind in errors(other))
            lines.append(f"  within the limits, but failed for {kinds}: {self._path(other)} ({other.id}): pack {flags}")
        lost = next((other for other in one.candidates if one.forecast is None and other.plan == one.plan), None)
        if lost is not None:
            return [*lines, f"  measured, and met it: {self._path(lost)} ({lost.id}), but {GONE}: make it again"]
        if nearest is not None and nearest.artifact is not None and not self._refused(nearest):
            why = nearest.reason.removeprefix("nearest: ")  # said already
            lines.append(f"  nearest measured: {self._path(nearest)} ({nearest.id}): {why}")
        if one.plan is None or one.forecast is None:
            barred = self.instead[target].words if target in self.instead else ""
            return [*lines, f"  {unforecast(target, barred, self.unmeasured, self.sharing)}"]
        wished = one.plan
        lines.append(f"  forecast plan {wished.id} (a forecast: nothing of it was made or measured):")
        lines += [f"    {line}" for line in forecast_figures(one.forecast, self._within).lines("forecast")]
        lines.append("    drop: not forecast, only measurement tells")
        if any(other.plan.digest == wished.digest for other in one.candidates):
            return [*lines, f"    {wished.origin or wished.id}: a plan of the run that was not made for its own limits"]
        base = min((other.plan for other in one.candidates), key=lambda plan: len(plan.differences(wished)))
        return [*lines, *(f"    {change}" for change in base.differences(wished))]

    def _refused(self, one: Candidate) -> bool:
        """Say whether a file is within all limits, and failed for findings that may be allowed."""
        within = one.artifact is not None and all(check.met for check in checks(one, self.budget))
        return within and one.verdict == "failed" and one.reason != GONE and bool(errors(one))

    def _ships(self) -> bool:
        """Say whether the first candidate that meets the budget is what the run ships already."""
        first = next((one.candidates[0] for one in self.found.values() if one.met), None)
        return first is not None and not str(_file(first)).startswith(FOLDER)

    def _all(self) -> list[Candidate]:
        return [candidate for one in self.found.values() for candidate in one.candidates]

    def _path(self, candidate: Candidate) -> str:
        return str(self.out / _file(candidate))

    def _pack(
        self, more: Sequence[str], targets: Sequence[str], allow: Sequence[str], scope: Scope | None = None
    ) -> str:
        words = ["haversack", "pack", self._job(), *more, "--budget", self.typed]
        words += [word for name in targets for word in ("--target", spelled(name, self.choice.settings.get(name)))]
        words += [word for kind in dict.fromkeys(allow) for word in ("--allow", kind)]
        words += flags(self.choice.scope if scope is None else scope)
        return shlex.join([*words, "--out", f"{self.out}-again"])

    def _job(self) -> str:
        """Return the job as it was typed where that leads to it from here as well, else by its whole path."""
        typed, whole = self.choice.job, Path(source_of(self.out))
        return str(whole) if whole.is_file() and Path(typed).resolve() != whole else typed

    def _reported(self, one: Resolution) -> Candidate:
        """Return the first candidate with the figures of the untouched half, and what they establish of this budget."""
        first = one.candidates[0]
        known = next(other for other in self.choice.candidates if other.id == first.id)
        return certain(replace(first, quality=known.quality, drop=known.drop), self.budget)


@dataclass(frozen=True)
class Across:
    """The answer for another budget from a run of several architectures: for each target that of the best of them.

    Attributes:
        answers: architecture -> its own answer.
    """

    answers: Mapping[str, Answer] = field(hash=False)

    @cached_property
    def parts(self) -> dict[str, Answer]:
        """Architecture -> its answer for the targets for which it is the best; the others are left out.

        Where none meets the budget, one with a forecast plan goes before one without.
        """
        targets = dict.fromkeys(target for one in self.answers.values() for target in one.found)
        owners: dict[str, list[str]] = {}
        for target in targets:
            able = {name: one for name, one in self.answers.items() if target in one.found}
            planned = [name for name, one in able.items() if one.found[target].plan is not None]
            winner = self._winner(target)
            best = winner.architecture if winner is not None else next(iter(able))
            if not able[best].found[target].met and best not in planned:
                best = next(iter(planned), best)
            owners.setdefault(best, []).append(target)
        return {
            name: replace(self.answers[name], found={one: self.answers[name].found[one] for one in own})
            for name, own in owners.items()
        }

    @property
    def exit_code(self) -> int:
        """0 when every target has a measured artefact that meets the budget, else 3."""
        return max((one.exit_code for one in self.parts.values()), default=EXIT_BUDGET_MISSED)

    @property
    def writable(self) -> Plan | None:
        """The first plan that ``pack --plan`` can make."""
        return next((one.writable for one in self.parts.values() if one.writable is not None), None)

    def write(self, path: Path) -> None:
        """Write the plan, and the architecture that it is for.

        Raises:
            UsageError: there is none.
            EnvironmentFault: it cannot be written.
        """
        next(iter(self._writing() or self.parts.values())).write(path)

    def lines(self, written: Path | None = None) -> list[str]:
        """Return the answer for a terminal; ``written`` is where the plan went."""
        lines: list[str] = []
        for name, one in self.parts.items():
            for target in one.found:
                winner = self._winner(target)
                lines += [f"{target}: {UNTOUCHED}{winner.paragraph}"] if winner is not None else []
            lines += [f"{name}:", *one.lines(written if [one] == self._writing() else None)]
        return lines

    def data(self) -> dict[str, Any]:
        """Return the answer as JSON-able data; a figure that was not measured is None."""
        told = {name: one.data() for name, one in self.parts.items()}
        targets = {
            target: {"architecture": name, **found}
            for name, one in told.items()
            for target, found in one["targets"].items()
        }
        first = next(iter(told.values()))
        return {
            **first,
            "exit_code": self.exit_code,
            "targets": targets,
            "next": next(filter(None, (one["next"] for one in told.values())), ""),
        }

    def _writing(self) -> list[Answer]:
        return [one for one in self.parts.values() if one.writable is not None][:1]

    def _winner(self, target: str) -> Winner | None:
        firsts = {}
        for name, one in self.answers.items():
            made = (
                [other for other in one.found[target].candidates if other.artifact is not None]
                if target in one.found
                else []
            )
            if made:
                firsts[name] = made[0]
        floats = {name: one.choice.float_drop for name, one in self.answers.items()}
        budget = next(iter(self.answers.values())).budget
        return between(firsts, budget, floats) if firsts else None


def resolve(out: Path, budget: str) -> Answer | Across:
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
    answers = {choice.architecture: _answer(out, choice, limits, budget) for choice in read_all(out)}
    if "" in answers:
        return answers[""]
    if limits.latency_ratio is not None:
        raise UsageError(
            "a ratio is to an architecture's own float file, and says nothing of several",
            where="--budget",
            next_step="limit the latency in milliseconds: latency=8ms",
        )
    return Across(answers)


def _answer(out: Path, choice: Choice, limits: Budget, typed: str) -> Answer:
    """Return the answer of one model."""
    candidates = choice.severe()
    able = {target: TARGETS.type_of(target).precisions for target in {one.plan.target for one in candidates}}
    stores = {target: TARGETS.type_of(target).stores for target in able}
    mixer = Mixer(choice.graph, choice.profile, choice.weight_elements, able, choice.scope, stores=stores)
    told = answers(candidates, out, limits, mixer)
    open_ = [target for target, one in told.found.items() if not one.met and one.plan is None]
    lacking = {target: told.measured[target].candidates for target in open_}
    elements = sum(choice.weight_elements.get(key, 0) for key in tied.calls(choice.graph, choice.weight_elements))
    shared = {target: others for target, order in lacking.items() if (others := sharing(order, elements, limits))}
    more = {target: unmeasured(choice, order, limits) for target, order in lacking.items()}
    return Answer(out, choice, limits, typed, told.found, instead(lacking, limits, mixer), more, shared)


def _file(candidate: Candidate) -> str:
    """Return the path of a candidate's main file below the run's folder."""
    return candidate.artifact.files[0].path if candidate.artifact is not None else ""
