"""Versions of packages: which is installed, and whether it is one of those that are wanted."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

_LIMIT = re.compile(r"(?P<sign>==|>=|<=|!=|~=|<|>)\s*(?P<version>[0-9][0-9A-Za-z.+]*)")


def installed(name: str) -> str:
    """Return the version of a distribution that is installed, or an empty string; nothing is imported."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def fits(found: str, wanted: str) -> bool:
    """Say whether a version is within limits such as ``>=1.23,<2`` (a local part, ``+cpu``, does not count)."""
    return all(_holds(release(found), limit["sign"], release(limit["version"])) for limit in _LIMIT.finditer(wanted))


def release(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, trailing zeros left out: ``2.13.0+cpu`` is (2, 13)."""
    numbers = [int(number) for number in re.findall(r"^[0-9]+|(?<=\.)[0-9]+", text.partition("+")[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def lower(one: str, other: str) -> bool:
    """Say whether a release's version is lower than another's; ``2.0.0-rc.1`` is lower than ``2.0.0``."""
    (mine, _, early), (theirs, _, before) = (text.partition("+")[0].partition("-") for text in (one, other))
    return (release(mine), not early) < (release(theirs), not before)


def _holds(found: tuple[int, ...], sign: str, limit: tuple[int, ...]) -> bool:
    if sign == "~=":
        return found >= limit and found[: len(limit) - 1] == limit[:-1]
    return {
        "==": found == limit,
        "!=": found != limit,
        ">=": found >= limit,
        "<=": found <= limit,
        ">": found > limit,
        "<": found < limit,
    }[sign]
