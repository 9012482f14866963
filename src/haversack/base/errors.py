"""The error tree. Every error says its cause, where it stands, what was tried and the next command.

::

    HaversackError
    ├── UsageError            exit 2    a flag, a budget, a recipe or a job file is wrong
    │   └── JobError          exit 2    what a job file gives cannot be used (shape, dtype, NaN, empty …)
    ├── BudgetMissed          exit 3    what misses its budget was to be shipped, and nobody allowed that
    ├── ConversionError       exit 4    a layer cannot be exported or lowered
    ├── VerificationError     exit 5    an artefact is not what was asked for
    ├── EnvironmentFault      exit 6    the machine: disk, permissions, a crashed worker
    │   └── MissingExtra      exit 6    a package of an extra is not installed
    ├── Refused               exit 7    refused for security
    └── Interrupted           exit 130  stopped by the user; the same command resumes

Where a run misses its budget (exit 3), that is its result, not an error: the best effort is still written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from haversack.base.counted import counted

EXIT_MET = 0
EXIT_USAGE = 2
EXIT_BUDGET_MISSED = 3
EXIT_CONVERSION = 4
EXIT_VERIFICATION = 5
EXIT_ENVIRONMENT = 6
EXIT_REFUSED = 7
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Fault:
    """One fault: ``where`` is a line, a field or a layer's module path; ``cause`` is a sentence without a full stop."""

    where: str
    cause: str

    def __str__(self) -> str:
        return f"{self.where}: {self.cause}" if self.where else self.cause


ALIKE, PLACES = 4, 3
"""Faults of one cause are told on one line when there are so many, with the first so many of their places."""


def grouped(faults: Iterable[Fault], most: int | None = None) -> list[str]:
    """Return faults as lines, those of one cause together: their number, the first places and the cause.

    Args:
        faults: in order.
        most: so many lines at most, and one more that says how many faults are left out.
    """
    causes: dict[str, list[Fault]] = {}
    for fault in faults:
        causes.setdefault(fault.cause, []).append(fault)
    groups: list[list[Fault]] = []
    for alike in causes.values():
        groups += [alike] if len(alike) >= ALIKE else [[one] for one in alike]
    lines = [_told(alike) for alike in groups[:most]]
    if left := sum(map(len, groups[len(lines) :])):
        lines.append(f"and {counted(left, 'more fault')}, all of them with --json")
    return lines


def _told(alike: list[Fault]) -> str:
    if len(alike) == 1:
        return str(alike[0])
    places = [fault.where for fault in alike if fault.where]
    first = ", ".join(places[:PLACES]) + ", …" * (len(places) > PLACES)
    return f"{len(alike)} times{f' ({first})' if first else ''}: {alike[0].cause}"


class HaversackError(Exception):
    """The root of all errors of haversack.

    Args:
        cause: what is wrong, one sentence.
        where: the layer by module path, or ``file:line``, or the field; empty when there is no place.
        tried: what was tried, one sentence; empty when nothing was.
        next_step: what to type or change next.
        faults: every fault of the file at once, when there are several.
    """

    exit_code = 1
    lines_of_faults: int | None = None
    """At most so many lines of faults in its text; None for all."""

    def __init__(
        self, cause: str, *, where: str = "", tried: str = "", next_step: str = "", faults: tuple[Fault, ...] = ()
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.where = where
        self.tried = tried
        self.next_step = next_step
        self.faults = faults

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.cause}" if self.where else self.cause]
        lines += [f"  - {line}" for line in grouped(self.faults, self.lines_of_faults)]
        if self.tried:
            lines.append(f"  tried: {self.tried}")
        if self.next_step:
            lines.append(f"  next: {self.next_step}")
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data, every fault among it."""
        return {
            "kind": type(self).__name__,
            "cause": self.cause,
            "where": self.where,
            "faults": [{"where": fault.where, "cause": fault.cause} for fault in self.faults],
            "tried": self.tried,
            "next": self.next_step,
        }


class UsageError(HaversackError):
    """A flag, a budget, a recipe or a job file is wrong."""

    exit_code = EXIT_USAGE


class JobError(UsageError):
    """What a job file gives cannot be used: a missing name, a wrong shape or dtype, NaN, an empty set."""


class BudgetMissed(HaversackError):
    """What misses its budget was to be shipped, and nobody allowed that."""

    exit_code = EXIT_BUDGET_MISSED


class ConversionError(HaversackError):
    """A layer cannot be exported or lowered; ``where`` is its module path."""

    exit_code = EXIT_CONVERSION
    lines_of_faults = 8


class VerificationError(HaversackError):
    """An artefact is not what was asked for; ``where`` is the first tensor that differs."""

    exit_code = EXIT_VERIFICATION


class EnvironmentFault(HaversackError):
    """The machine is at fault: a full disk, a read-only folder, a worker that crashed."""

    exit_code = EXIT_ENVIRONMENT


class MissingExtra(EnvironmentFault):
    """A package of an extra is not installed; ``next_step`` is the command that adds it."""

    def __init__(self, package: str, extra: str, *, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            next_step=f"pip install 'haversack[{extra}]'",
        )
        self.package = package
        self.extra = extra


class Refused(HaversackError):
    """Refused for security: a pickle, an unsigned or oversized input, a path that leaves its folder."""

    exit_code = EXIT_REFUSED


class Interrupted(HaversackError):
    """Stopped by the user; what was done is kept and the same command resumes."""

    exit_code = EXIT_INTERRUPTED
