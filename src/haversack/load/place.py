"""A place: the names that a job file or module gives."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack.base.errors import JobError
from haversack.load.user_code import guarded


@dataclass(frozen=True)
class Place:
    """An executed Python file or an imported module.

    Attributes:
        text: the path or dotted name, as the user wrote it.
        folder: where its file lies; relative paths in it start here.
        names: what it defines.
        is_module: whether it was imported by its dotted name.
    """

    text: str
    folder: Path
    names: Mapping[str, Any] = field(repr=False)
    is_module: bool = False

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.text

    def function(self, name: str) -> Callable[[], Any]:
        """Return a callable by its name, with its errors told at the user's line.

        Raises:
            JobError: there is none (the nearest name is shown), or it cannot be called.
        """
        if name not in self.names:
            hint = nearest(name, self.names)
            raise JobError(f"has no {name!r}{hint}", where=self.label, next_step=f"define {name}() there")
        if not callable(self.names[name]):
            raise JobError(f"{name} is a {type(self.names[name]).__name__}, not a callable", where=self.label)
        return guarded(self.names[name], name, self.folder)


def nearest(name: str, known: Mapping[str, Any], cutoff: float = 0.6) -> str:
    """Return ``; did you mean …?`` for the nearest public name, or an empty string."""
    public = [other for other in known if not other.startswith("_") and other != name]
    near = difflib.get_close_matches(name, public, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""
