"""Shelves: parts found by file name, without importing them. A part is one file with one frozen dataclass."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from haversack.base.errors import UsageError

NOT_PARTS = frozenset({"__init__", "contract"})
CUTOFF = 0.5
"""From so much in common on a name is near (``difflib``): fp16 and float16 have 0.55, and nothere and coarse 0.46."""


@dataclass(frozen=True)
class Shelf:
    """A folder of parts.

    Attributes:
        package: dotted name of the folder (``haversack.metrics``).
        noun: what a part is called in messages (``metric``).
        also: names of files in the folder that are the shelf's own and no parts.

    A third party adds a part through an entry point in the group named like the package; it may not hide one of ours.
    """

    package: str
    noun: str
    also: frozenset[str] = frozenset()

    def _folder(self) -> Path:
        return _place(__file__, self.package)

    def files(self) -> dict[str, Path]:
        """Return part name -> file, sorted; a part that is a folder is named by its ``__init__.py``."""
        folder = self._folder()
        return dict(_listed(folder, folder.stat().st_mtime_ns, NOT_PARTS | self.also))

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts, ours and third parties', sorted."""
        return tuple(sorted({*self.files(), *(point.name for point in entry_points(group=self.package))}))

    def catalogue(self) -> dict[str, str]:
        """Return part name -> first line of its class's docstring (ours only), read without importing."""
        return {name: _first_line(path) for name, path in self.files().items()}

    def type_of(self, name: str) -> type[Any]:
        """Import a part and return its class.

        Raises:
            UsageError: there is no such part (the nearest name is shown), or its file does not hold exactly one.
        """
        if name in self.files():
            module = importlib.import_module(f"{self.package}.{name}")
            return _only_part(module, self.noun)
        for point in entry_points(group=self.package):
            if point.name == name:
                loaded: type[Any] = point.load()
                return loaded
        near = difflib.get_close_matches(name, self.names(), n=1, cutoff=CUTOFF)
        raise UsageError(
            f"there is no {self.noun} named {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
            next_step=f"haversack parts    (has: {', '.join(self.names())})",
        )

    def build(self, name: str, settings: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - the shelf's contract
        """Return a part with its settings validated: unknown names forbidden, every fault told at once.

        Raises:
            UsageError: unknown part, unknown setting, or a value of the wrong type.
        """
        from haversack.base.recipe import plain, structure

        part = self.type_of(name)
        made = plain(settings or {}, part)
        return structure(dict(settings or {}), part, where=f"{self.noun} {name}") if made is None else made


@cache
def _place(own: str, package: str) -> Path:
    """Return the folder of a package of ours; ``own`` is this file."""
    return Path(own).parent.parent.joinpath(*package.split(".")[1:])


@cache
def _listed(folder: Path, changed: int, left_out: frozenset[str]) -> Mapping[str, Path]:  # noqa: ARG001 - its key
    """Return part name -> file; listed again when a file came or went (``changed``, the folder's time)."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        inside = path / "__init__.py"
        if path.suffix == ".py" and path.stem not in left_out:
            found[path.stem] = path
        elif inside.exists() and path.name not in left_out:
            found[path.name] = inside
    return found


@cache
def _only_part(module: Any, noun: str) -> type[Any]:  # noqa: ANN401 - a module
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and is_dataclass(value)
        and not value.__name__.startswith("_")
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
    ]
    if len(found) != 1:
        names = ", ".join(part.__name__ for part in found) or "none"
        raise UsageError(f"a {noun}'s file holds exactly one public dataclass, this has {names}", where=module.__name__)
    return found[0]


def _first_line(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for item in tree.body:
        if isinstance(item, ast.ClassDef) and not item.name.startswith("_"):
            return (ast.get_docstring(item) or "").partition("\n")[0]
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean NEAR?`` for a misspelt name, or an empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=CUTOFF)
    return f"; did you mean {near[0]}?" if near else ""
