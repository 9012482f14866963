"""What the user typed, read: the job, the budget, and the plans of a recipe."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from haversack import load
from haversack.base import budget as budgets
from haversack.base import recipe
from haversack.base.budget import Budget
from haversack.base.errors import UsageError
from haversack.base.finding import KINDS
from haversack.base.job import Job
from haversack.base.plan import Plan
from haversack.base.shelf import nearest
from haversack.flow import requirements
from haversack.targets.contract import SHELF as TARGETS

DEFAULT_BUDGET = Budget(drop=0.01)
"""When nothing is limited: one point of the metric, and then the smallest and fastest."""


@dataclass(frozen=True)
class Request:
    """What the user typed.

    Attributes:
        source: a job file, ``module:callable``, or a recipe.toml of an earlier run.
        budget: ``size=5.2MB,latency=0.55x,drop=1pt``; a drop of one point when nothing is limited.
        targets: runtimes by name.
        out: the folder for the results.
        allow: kinds of findings that may not fail the run.
        plan: a file with one plan, that alone is made real.
        allow_pickle: whether model files may be unpickled.
        command: what repeats the run, for the report.
    """

    source: str
    budget: str = ""
    targets: tuple[str, ...] = ("onnxruntime",)
    out: Path = Path("out")
    allow: tuple[str, ...] = ()
    plan: Path | None = None
    allow_pickle: bool = False
    command: str = ""


def opened(request: Request) -> tuple[Job, Budget, Mapping[str, Plan]]:
    """Return the job, the limits, and target -> plan where a recipe or a plan file says what to make.

    Raises:
        UsageError: an unknown target or finding, a budget, recipe or job file that cannot be read.
    """
    for name in request.targets:
        TARGETS.type_of(name)
    for kind in request.allow:
        if kind not in KINDS:
            raise UsageError(
                f"there is no finding named {kind!r}{nearest(kind, KINDS)}",
                where="--allow",
                next_step=f"one of {', '.join(KINDS)}",
            )
    limits = budgets.parse(request.budget) if request.budget else None
    source, fixed = request.source, {}
    if source.endswith(".toml"):
        found = recipe.read(Path(source))
        beside = os.path.normpath(Path(source).parent / found.job)
        source = beside if Path(beside).is_file() else found.job
        fixed = {plan.target: plan for plan in found.plans}
        limits = limits or found.budget
    if request.plan is not None:
        plan = read_plan(request.plan)
        if plan.target not in request.targets:
            chosen = ", ".join(request.targets)
            raise UsageError(
                f"the plan is for {plan.target!r}, the run for {chosen}",
                where=str(request.plan),
                next_step=f"--target {plan.target}",
            )
        fixed = {plan.target: plan}
    requirements.demand("pack", purpose="packing a model")
    if limits is not None and not limits.limits():
        limits = None
    return load.open_job(source, allow_pickle=request.allow_pickle), limits or DEFAULT_BUDGET, fixed


def read_plan(path: Path) -> Plan:
    """Read a plan that ``resolve --write`` wrote.

    Raises:
        UsageError: not TOML, or wrong fields, all told at once.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the plan cannot be read: {error}", where=str(path)) from error
    return recipe.structure(data, Plan, where=str(path))


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan for ``pack --plan``.

    Raises:
        OSError: it cannot be written.
    """
    import tomli_w

    path.write_text(tomli_w.dumps(recipe.unstructure(plan)), encoding="utf-8")
