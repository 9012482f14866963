"""Records in files: frozen dataclasses from and to JSON and TOML, with every fault told at once."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from haversack.base.budget import Budget
from haversack.base.errors import Fault, UsageError
from haversack.base.plan import Plan

if TYPE_CHECKING:
    from cattrs import Converter

FORMAT = 2
"""2 keeps what was said of layers, parts and degraded inputs as well; 1 is read."""
ANEW = "mend the file there, or pack the job itself: haversack pack job.py writes a recipe.toml anew"
_SCALARS: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (float, int), str: (str,)}
_BY_NAME = {kind.__name__: kind for kind in _SCALARS}
Record = TypeVar("Record")


@dataclass(frozen=True)
class Architecture:
    """Which of a job's architectures a plan was made for, and the content digest of its model."""

    name: str
    model_digest: str


@dataclass(frozen=True)
class Recipe:
    """What ``recipe.toml`` holds: the plan of the artefact that was chosen, and what it was chosen for.

    Attributes:
        format: the file's format number.
        job: the job file or reference, relative to the recipe.
        model_digest: content digest of the model that the plan was made for; empty where the job gives several.
        budget: the limits it was chosen under.
        plans: one plan a target.
        settings: target -> its own settings, for targets that were given some.
        layers, without: what was said of layers (``GLOB=PRECISION``) and what no plan may use; the plans obey it.
        degraded: what was typed in place of the job's list of degradations; None where nothing was.
        architectures: target -> the one its plan is for, where the job gives several; else it is not in the file.
    """

    format: int
    job: str
    model_digest: str
    budget: Budget
    plans: tuple[Plan, ...]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    degraded: tuple[Mapping[str, Any], ...] | None = None
    architectures: Mapping[str, Architecture] = field(default_factory=dict)


@cache
def _converter() -> Converter:
    """Return the one converter of this process: what it has learnt of a class is kept, which takes milliseconds."""
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True, omit_if_default=False)
    for kind, accepted in _SCALARS.items():
        converter.register_structure_hook(kind, partial(_scalar, accepted))
    converter.register_structure_hook_func(_is_literal, _literal)
    return converter


def _scalar(accepted: tuple[type, ...], value: object, kind: type) -> object:
    if type(value) not in accepted:
        message = f"{value!r} is not {'true or false' if kind is bool else f'a value of type {kind.__name__}'}"
        raise TypeError(message)
    return kind(value)


def _is_literal(kind: object) -> bool:
    origin: object = get_origin(kind)
    return origin is Literal


def _literal(value: object, kind: object) -> object:
    known = get_args(kind)
    if any(type(value) is type(one) and value == one for one in known):
        return value
    near = difflib.get_close_matches(str(value), map(str, known), n=1, cutoff=0.4)
    hint = f"there is no {value!r}; did you mean {near[0]}?" if near else f"{value!r} is none of them"
    raise ValueError(f"{hint} (has: {', '.join(map(str, known))})")


def plain(data: Mapping[str, Any], kind: type[Record]) -> Record | None:
    """Return what ``structure`` returns for a flat record all of whose values are scalars of the right type, else None.

    No code is made for the class, which takes a process that reads one of a kind longer than all the rest.
    """
    named = {one.name: one.type for one in fields(kind) if one.init}  # type: ignore[arg-type]  # it is a dataclass
    given: dict[str, Any] = {}
    for name, value in data.items():
        scalar = _BY_NAME.get(str(named.get(name)))
        if scalar is None or type(value) not in _SCALARS[scalar]:
            return None
        given[name] = scalar(value)
    try:
        return kind(**given)
    except (TypeError, ValueError):  # one is missing, or the record refuses them: ``structure`` says which
        return None


def structure(data: Mapping[str, Any], kind: type[Record], *, where: str) -> Record:
    """Return ``data`` as a frozen dataclass of ``kind``: unknown keys forbidden, values of the right type.

    Nothing is converted silently: 2.7 is no int and "false" no bool. What a record's own ``__post_init__`` refuses
    with a ValueError is told in its words.

    Raises:
        UsageError: with every fault, its path, and the nearest name for an unknown key.
    """
    from cattrs import BaseValidationError

    try:
        return _converter().structure(data, kind)
    except BaseValidationError as error:
        faults = tuple(_faults(error, ""))
    raise UsageError(
        "it cannot be read",
        where=where,
        faults=faults,
        tried="reading every field",
        next_step="write the fields named above as they should be, or let haversack pack write it anew",
    )


def unstructure(record: object) -> Any:  # noqa: ANN401 - JSON-able data
    """Return a record as JSON-able data: dictionaries, lists, strings, numbers."""
    return _converter().unstructure(record)


def read(path: Path) -> Recipe:
    """Read a recipe.toml.

    Raises:
        UsageError: no such file, not TOML (with its line), an unknown format, or wrong fields, all told at once.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        step = "haversack pack writes one: name its output folder's recipe.toml, or the job file"
        raise UsageError(f"it cannot be read: {error.strerror}", where=str(path), next_step=step) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not TOML: {error}", where=str(path), next_step=ANEW) from error
    if data.get("format") not in (FORMAT, FORMAT - 1):
        told = f"format {data['format']!r} is" if "format" in data else "it says no format, which is"
        cause = f"{told} not one this version reads ({FORMAT - 1} or {FORMAT})"
        raise UsageError(cause, where=str(path), next_step=ANEW)
    return structure(data, Recipe, where=str(path))


def write(recipe: Recipe, path: Path) -> None:
    """Write a recipe.toml (absent limits left out: TOML has no null).

    Raises:
        OSError: the folder cannot be written.
    """
    import tomli_w

    data = unstructure(recipe)
    if not recipe.architectures:
        del data["architectures"]
    path.write_text(tomli_w.dumps(_without_none(data)), encoding="utf-8")


def _without_none(data: Any) -> Any:  # noqa: ANN401 - JSON-able data
    if isinstance(data, dict):
        return {key: _without_none(value) for key, value in data.items() if value is not None}
    if isinstance(data, list | tuple):
        return [_without_none(value) for value in data]
    return data


def _faults(error: BaseException, path: str) -> Iterator[Fault]:
    from cattrs import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

    if isinstance(error, ClassValidationError):
        named, bare = error.group_exceptions()
        inner = [(f"{path}.{note.name}", cause) for cause, note in named] + [(path, cause) for cause in bare]
    elif isinstance(error, IterableValidationError):
        indexed, bare = error.group_exceptions()
        inner = [(f"{path}[{note.index!r}]", cause) for cause, note in indexed] + [(path, cause) for cause in bare]
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [one.name for one in fields(error.cl)]
        for key in sorted(error.extra_fields):
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else f" (has: {', '.join(known) or 'none'})"
            yield Fault(f"{path}.{key}".lstrip("."), f"unknown name{hint}")
        return
    else:
        text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        yield Fault(path.lstrip("."), text)
        return
    for place, cause in inner:
        yield from _faults(cause, place)
