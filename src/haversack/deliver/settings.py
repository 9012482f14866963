"""What a home remembers between commands: where its updates come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from haversack.base.errors import UsageError
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
    with atomic.told(path, "read the settings", atomic.HOME):
        try:
            with path.open("rb") as stream:
                data = stream.read(_LARGEST + 1)
        except FileNotFoundError:
            return Settings()
    return canonical.loads(data, Settings, where=str(path), limit=_LARGEST)


def repository(given: str | None, path: Path) -> str:
    """Return where updates come from: what is given, or what is remembered.

    The first address is remembered at once; another one takes its place when it has proven good (``remember``).

    Raises:
        UsageError: nothing was given.
        Refused, EnvironmentFault: as ``read``, or it cannot be written.
    """
    before = read(path)
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
        Refused, EnvironmentFault: as ``read``, or it cannot be written.
    """
    if given != read(path).repository:
        atomic.make_folder(path.parent, atomic.HOME)
        atomic.write_bytes(path, canonical.dumps(Settings(repository=given)), atomic.HOME)
