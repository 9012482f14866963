"""Settings of targets, as the user types them behind a target's name: ``litert:integer_io=true``.

They are the fields of the target's dataclass; values are TOML's. What a run was made with stands in its recipe and its
report, so that both can be used again.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from haversack.base.errors import Fault, UsageError
from haversack.base.shelf import nearest
from haversack.targets.contract import SHELF as TARGETS
from haversack.targets.contract import Target

Settings = Mapping[str, Any]


def parsed(text: str) -> tuple[str, Settings]:
    """Return name and settings of a target, ``NAME`` or ``NAME:SETTING=VALUE,SETTING=VALUE``.

    Raises:
        UsageError: the settings are not TOML values by name; or the target has none of these names (the nearest is
            shown), or not with such values: all at once.
    """
    name, colon, words = text.partition(":")
    if not colon:
        return name, {}
    try:
        found: Settings = tomllib.loads(f"settings = {{{words}}}")["settings"]
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"the settings of {name} cannot be read: {words!r}",
            where="--target",
            tried=f"reading them as values of TOML: {error}",
            next_step=f'write --target {name}:NAME=VALUE, with values such as true, 8 or "text"',
        ) from error
    built(name, found)
    return name, found


def built(name: str, settings: Settings | None = None) -> Target:
    """Return a target with its settings.

    Raises:
        UsageError: there is no such target, or it has no such settings.
    """
    known = [field.name for field in fields(TARGETS.type_of(name))]
    if strange := [one for one in settings or {} if one not in known]:
        faults = [Fault(f"{name}:{one}", f"there is no such setting{nearest(one, known)}") for one in strange]
        raise UsageError(
            f"{name} has no such settings", where="--target", faults=tuple(faults), next_step=f"has {', '.join(known)}"
        )
    target: Target = TARGETS.build(name, settings)
    return target
