"""The seam of heavy pure work: a function of values, many tasks, the results in order; here, or spread over a cluster.

What goes through it reads a value that all tasks share and one task, and changes nothing. So it does not matter where
a task runs, nor whether it runs twice, and the results are the same whoever spreads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")


class Spread(Protocol):
    """Runs one function on many tasks."""

    def __call__(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task], /
    ) -> Iterator[Result]:
        """Yield the results in the order of the tasks.

        Args:
            function: pure; one that a module names, for only its name travels.
            shared: what all tasks read and none changes: values, no open files, no functions without a name.
            tasks: read as far ahead as there are workers.
        """

    def ahead(self, program: ExportedProgram) -> None:
        """Tell of a program that tasks will share, before there are any: workers may read it meanwhile."""


class Here:
    """Runs the tasks in this process, each when its result is asked for."""

    def __call__(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task], /
    ) -> Iterator[Result]:
        """Yield the results; see ``Spread``."""
        return (function(shared, task) for task in tasks)

    def ahead(self, program: ExportedProgram) -> None:
        """Do nothing: it is here already."""


here = Here()


class Light:
    """A dataclass that travels with its fields alone: what was made of them, and kept beside them, is made anew."""

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
