"""What a home remembers between commands: where its updates come from."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from haversack.base.errors import Refused, UsageError
from haversack.deliver import remembered
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

_LARGEST = 1 << 14


@dataclass(frozen=True)
class Settings:
    """What ``client.json`` says: format 1, and the repository's URL."""

    format: int = 1
    repository: str = ""


def read(path: Path) -> Settings:
    """Return what a home remembers; nothing where it is new.

    Raises:
        Refused: the file is damaged.
        EnvironmentFault: it cannot be read.
    """
    step = "name the repository once more, and it is written anew: haversack client update LINE --repository URL"
    return remembered.read(path, Settings(), limit=_LARGEST, doing="read the settings", next_step=step)


def repository(given: str | None, path: Path) -> str:
    """Return where updates come from: what is given, or what is remembered.

    The first address is remembered at once; another one takes its place when it has proven good (``remember``).

    Raises:
        UsageError: nothing was given.
        Refused: nothing was given, and the file is damaged.
        EnvironmentFault: it cannot be read or written.
    """
    before = read(path) if given is None else _before(path)
    if given is None:
        if not before.repository:
            step = "--repository https://…    (a folder on this machine will do as well)"
            raise UsageError("nobody said where updates come from", where="--repository", next_step=step)
        return before.repository
    if not before.repository:
        remember(given, path)
    return given


def remember(given: str, path: Path) -> None:
    """Let updates come from there from now on: what it offers was signed by whom this home believes.

    Raises:
        EnvironmentFault: the file cannot be read or written.
    """
    if given != _before(path).repository:
        atomic.make_folder(path.parent, atomic.HOME)
        atomic.write_bytes(path, canonical.dumps(Settings(repository=given)), atomic.HOME)


def _before(path: Path) -> Settings:
    """Return what a home remembers; nothing where that is damaged: another address takes its place."""
    with contextlib.suppress(Refused):
        return read(path)
    return Settings()
