"""The home of a device in commands that are told: what leads on leads on in the same home."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

HOME = Path("~/.haversack")
_COMMAND = re.compile(r"haversack (?:client (?:update|status|rollback|retry|enrol|key)|run)\b[^,;]*?(?=    |[,;]|$)")
"""A command of a device in a text, up to what explains it."""


def again(home: Path) -> str:
    """Return the words that name a home in another command; none for the usual one."""
    return "" if home.expanduser() == HOME.expanduser() else f" --home {shlex.quote(str(home))}"


def homed(text: str, home: Path) -> str:
    """Return a text whose commands of a device name its home."""
    return _COMMAND.sub(lambda found: found[0] + ("" if "--home" in found[0] else again(home)), text)


@contextlib.contextmanager
def leading_on(home: Path) -> Iterator[None]:
    """Let an error of the block lead to commands that name the home."""
    from haversack.base.errors import HaversackError

    try:
        yield
    except HaversackError as error:
        error.next_step = homed(error.next_step, home)
        raise
