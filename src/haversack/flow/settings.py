"""Settings of a part, as the user types them behind its name: ``litert:integer_io=true``.

They are the fields of the part's dataclass; values are TOML's. What a run's targets were given stands in its recipe and
its report, so that both can be used again.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from haversack.base.errors import Fault, UsageError
from haversack.base.shelf import nearest
from haversack.targets.contract import SHELF as TARGETS
from haversack.targets.contract import Target

Settings = Mapping[str, Any]
_BETWEEN = re.compile(r",\s*(?=[A-Za-z_]\w*\s*(?:=|,|$))")
"""What lies between two settings as they are typed; commas of lists are followed by values, not by names."""
_SWITCHES = {"yes": True, "on": True, "y": True, "1": True, "no": False, "off": False, "n": False, "0": False}
"""What people type for true and false elsewhere."""


@dataclass(frozen=True)
class _Typed:
    """A value that is none of TOML's, as it was typed; empty where there is no value at all."""

    text: str


def parsed(text: str) -> tuple[str, Settings]:
    """Return name and settings of a target, ``NAME`` or ``NAME:SETTING=VALUE,SETTING=VALUE``.

    Raises:
        UsageError: the settings are not TOML values by name; or the target has none of these names (the nearest is
            shown), or not with such values (what it takes is shown): all at once, with what to type instead.
    """
    return read(text, built, "--target")


def read(text: str, judge: Callable[[str, Settings], object], flag: str) -> tuple[str, Settings]:
    """Return name and settings of a part, as they are typed behind a flag.

    Args:
        text: ``NAME`` or ``NAME:SETTING=VALUE,SETTING=VALUE``.
        judge: raises ``UsageError`` for a name or settings that are none; not called without a colon.
        flag: as it is typed (``--target``).

    Raises:
        UsageError: the settings are not TOML values by name, or ``judge`` refuses them.
    """
    name, colon, words = text.partition(":")
    if not colon:
        return name, {}
    try:
        found: Settings = tomllib.loads(f"settings = {{{words}}}")["settings"]
    except tomllib.TOMLDecodeError as error:
        pieces = [_piece(piece) for piece in _BETWEEN.split(words)]
        names = [one for one, _ in pieces]
        judge(name, dict(pieces))  # tells what is wrong with each of them
        twice = dict.fromkeys(one for one in names if names.count(one) > 1)
        raise UsageError(
            f"the settings of {name} cannot be read: {words!r}",
            where=flag,
            faults=tuple(Fault(f"{name}:{one}", "it is given twice") for one in twice),
            tried=f"reading them as values of TOML: {error}",
            next_step=f"{flag} {shlex.quote(spelled(name, dict(pieces)))}",
        ) from error
    judge(name, found)
    return name, found


def built(name: str, settings: Settings | None = None) -> Target:
    """Return a target with its settings.

    Raises:
        UsageError: there is no such target, or it has no such settings or not with such values; what to type instead
            is told.
    """
    kind = TARGETS.type_of(name)
    refuse(name, settings or {}, {field.name: field.default for field in fields(kind)}, "--target")
    target: Target = TARGETS.build(name, settings)
    return target


def refuse(name: str, settings: Settings, usual: Settings, flag: str) -> None:
    """Refuse settings that a part does not have, or not with such values.

    Args:
        name: the part's.
        settings: as they were read, or typed.
        usual: all settings that it has, each as it is where nobody sets it.
        flag: behind which they were typed.

    Raises:
        UsageError: with every fault, the nearest names and what to type instead.
    """
    faults: list[Fault] = []
    meant: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in usual:
            near = nearest(key, usual)
            faults.append(Fault(f"{name}:{key}", f"there is no such setting{near}"))
            key = near.removeprefix("; did you mean ").removesuffix("?")  # noqa: PLW2901
            if key not in usual:
                continue
        cause, meant[key] = _judged(value, usual[key])
        faults += [Fault(f"{name}:{key}", cause)] if cause else []
    if faults:
        raise UsageError(
            f"the settings of {name} cannot be read",
            where=flag,
            faults=tuple(faults),
            next_step=f"{flag} {shlex.quote(spelled(name, meant))}    ({name} has: {', '.join(usual)})",
        )


def spelled(name: str, settings: Settings | None = None) -> str:
    """Return a target and its settings as they are typed: ``litert:lengths=[8, 16],integer_io=true``."""
    words = [f"{key}={_toml(value)}" for key, value in (settings or {}).items()]
    return f"{name}:{','.join(words)}" if words else name


def _piece(text: str) -> tuple[str, Any]:
    """Return name and value of one setting; a value that TOML does not read, as it stands."""
    key, _, value = (piece.strip() for piece in text.partition("="))
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, _Typed(value)


def _judged(value: object, usual: object) -> tuple[str, object]:
    """Return what is wrong with a value, with what would be right; and the value that may be meant.

    Args:
        value: of TOML, or as it was typed.
        usual: what the setting is where nobody sets it: another value is of its kind.
    """
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotation marks"}
    if isinstance(usual, tuple):
        if isinstance(value, list | tuple) and all(type(one) is type(usual[0]) for one in value if usual):
            return "", value
        wanted = "a list"
        meant: object = [value] if usual and type(value) is type(usual[0]) else None
    elif type(usual) not in kinds or type(value) is type(usual) or (type(usual) is float and type(value) is int):
        return "", value  # of another kind than these, the target itself judges it
    else:
        wanted, meant = kinds[type(usual)], _meant(value, usual)
    such = "" if isinstance(usual, bool) else f", such as {_toml(usual)}"
    shown = value.text if isinstance(value, _Typed) else _toml(value)
    cause = f"{shown} is not {wanted}{such}" if shown else f"it has no value: {wanted}{such}"
    if meant is not None:
        return f"{cause}; did you mean {_toml(meant)}?", meant
    return cause, not usual if isinstance(usual, bool) else usual


def _meant(value: object, usual: object) -> object:
    """Return the value of the usual one's kind that is near to what was typed; None where none is."""
    text = value.text if isinstance(value, _Typed) else str(value)
    if isinstance(usual, bool):
        near = nearest(text.lower(), ("true", "false"))
        return _SWITCHES.get(text.lower(), "true" in near if near else None)
    if isinstance(usual, str):
        return text.strip("'\"") or None
    return None


def _toml(value: object) -> str:
    """Return a value as TOML has it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return value.text if isinstance(value, _Typed) else str(value)
