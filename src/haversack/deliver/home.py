"""The folder of a device: where what lies. Nothing here reads or writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from haversack.base.bundle import LINE
from haversack.base.errors import UsageError

GOES_ON = "the model in use goes on; "
"""How a next step begins after an update that failed; left out where none is in use."""


@dataclass(frozen=True)
class Home:
    """The paths in a device's home.

    Attributes:
        folder: the home.
    """

    folder: Path

    @classmethod
    def at(cls, folder: str | Path) -> Home:
        """Return the home in a folder, which may begin with ``~`` and is no other when the working folder changes.

        Raises:
            UsageError: there is no such person.
        """
        try:
            return cls(Path(folder).expanduser().absolute())
        except (RuntimeError, OSError) as error:  # ~nobody; a working folder that was removed
            step = "name a folder, such as --home ~/.haversack"
            raise UsageError(f"no home of a person: {error}", where=f"--home {folder}", next_step=step) from error

    @property
    def lock(self) -> Path:
        """Of whoever changes the home."""
        return self.folder / "lock"

    @property
    def trust(self) -> Path:
        """The cache of TUF metadata."""
        return self.folder / "trust"

    @property
    def floor(self) -> Path:
        """The file below whose sequences nothing is installed."""
        return self.folder / "floor.json"

    @property
    def store(self) -> Path:
        """Files by their sha256."""
        return self.folder / "store"

    @property
    def incoming(self) -> Path:
        """What is being fetched."""
        return self.folder / "incoming"

    @property
    def speeds(self) -> Path:
        """What past transfers took."""
        return self.folder / "speeds.json"

    @property
    def settings(self) -> Path:
        """Where updates come from."""
        return self.folder / "client.json"

    @property
    def root(self) -> Path:
        """The root metadata that trust begins with, as the owner gave them."""
        return self.folder / "root.json"

    @property
    def release_keys(self) -> Path:
        """Keys of encrypted releases, wrapped for this device."""
        return self.folder / "keys"

    @property
    def device_key(self) -> Path:
        """The device's private key, once it is enrolled."""
        return self.folder / "device"

    @property
    def lines(self) -> Path:
        """One folder a model line."""
        return self.folder / "lines"

    def line(self, name: str) -> Path:
        """Return the folder of a line.

        Raises:
            UsageError: the name has another form than ``base.bundle.LINE``.
        """
        if not LINE.fullmatch(name):
            raise UsageError(f"{name[:80]!r} is no name of a model line", where="--line")
        return self.lines / name
