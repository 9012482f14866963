"""Several architectures of one job: ``models()`` gives them by name, and each becomes a job of one model.

They share the data, the metric and the interface; a name stands in paths and in reports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from haversack.base.errors import Fault, JobError
from haversack.base.job import Job

if TYPE_CHECKING:
    from torch import nn

MOST = 16
"""Each is packed by itself."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_EXAMPLE = 'def models(): return {"narrow": Net(16).eval(), "wide": Net(32).eval()}'


def architectures(job: Job) -> dict[str, Job]:
    """Return architecture -> the job of it alone, in the order of ``models()``; nothing for a job of one model.

    Raises:
        JobError: ``models()`` raised, gives no mapping of modules, or names that are no file names; all faults at once.
    """
    if job.models is None:
        return {}
    given: Any = job.models()
    if not isinstance(given, Mapping) or not given:
        what = "an empty mapping" if isinstance(given, Mapping) else f"a {type(given).__name__}"
        raise _wrong(f"models() returned {what}, and a mapping of names to modules is wanted", job)
    faults = [*_names(list(given)), *_modules(given)]
    if faults:
        raise _wrong("models() cannot be used", job, tuple(faults))
    return {
        name: replace(job, name=f"{job.name}-{name}", model=partial(_same, module), models=None)
        for name, module in given.items()
    }


def _names(names: list[Any]) -> list[Fault]:
    faults = [
        Fault(repr(name), "is no name: it begins with a letter or digit, has '.', '-' and '_' beside, and 40 at most")
        for name in names
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith(".")
    ]
    folded: dict[str, str] = {}
    for name in (name for name in names if isinstance(name, str)):
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            faults.append(Fault(repr(name), f"is the same file name as {other!r} where capitals do not count"))
    if len(names) > MOST:
        faults.append(Fault("models()", f"gives {len(names)} architectures, {MOST} at most"))
    return faults


def _modules(given: Mapping[Any, Any]) -> list[Fault]:
    from torch import nn

    return [
        Fault(repr(name), f"is a {type(module).__name__}, not an nn.Module")
        for name, module in given.items()
        if not isinstance(module, nn.Module)
    ]


def _same(module: nn.Module) -> nn.Module:
    return module


def _wrong(cause: str, job: Job, faults: tuple[Fault, ...] = ()) -> JobError:
    return JobError(cause, where=job.source, faults=faults, tried="calling models()", next_step=_EXAMPLE)
