"""Two slots a model line and one pointer that says which is in use: replaced whole, so there is always one model.

A slot is a folder of plain files, links into the store. The pointer also says what lies in the other slot; it forgets
that before the other slot is cleared, so what it names is always whole. A release is staged and tried beside them, so
that one that fails costs no way back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from haversack.base.bundle import MANIFEST
from haversack.base.errors import EnvironmentFault, Refused
from haversack.base.shelf import nearest
from haversack.deliver import locking, remembered
from haversack.deliver.quarantine import Bad, Quarantine
from haversack.deliver.store import Store
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

CURRENT, QUARANTINE, LOCK, STAGED = "current", "quarantine.json", "lock", "next"
_LARGEST = 1 << 19
"""Of 64 reasons of 400 signs, each up to 12 bytes in canonical form."""
_LOADING_SECONDS = 120.0
Record = TypeVar("Record")


@dataclass(frozen=True)
class Installed:
    """A release in a slot.

    Attributes:
        slot: which.
        version, sequence: of the release; the sequence is ``UNKNOWN`` after a damaged pointer was written anew.
        target: the runtime that its files are for.
        median_ms: of a call, measured by the self-test; 0 where none was.
    """

    slot: Literal["a", "b"]
    version: str
    sequence: int
    target: str
    median_ms: float = 0.0


@dataclass(frozen=True)
class Pointer:
    """What ``current`` says.

    Attributes:
        format: 1.
        current: what is in use; None before the first.
        other: what lies whole in the other slot, the way back; None where nothing does.
    """

    format: int = 1
    current: Installed | None = None
    other: Installed | None = None


_NONE = Pointer()


@dataclass(frozen=True)
class Slots:
    """The slots of one line. Every change of the pointer holds the line's lock alone; an opening shares it.

    Attributes:
        folder: of the line.
    """

    folder: Path

    def pointer(self) -> Pointer:
        """Return which slots hold what.

        Raises:
            Refused: the file is damaged; an update mends it.
            EnvironmentFault: it cannot be read.
        """
        step = f"haversack client update {self.folder.name}    (finds out from what lies there, or installs anew)"
        found = self._read(CURRENT, _NONE, step)
        if found is _NONE and self.filled():
            raise Refused("it is gone, and slots are filled", where=str(self.folder / CURRENT), next_step=step)
        return found

    def filled(self) -> bool:
        """Say whether anything lies in a slot.

        Raises:
            EnvironmentFault: the slots cannot be read.
        """
        with atomic.told(self.folder, "look at slots", atomic.HOME):
            return any((self.folder / slot / MANIFEST).exists() for slot in ("a", "b"))

    def written(self) -> int:
        """Return when the pointer was written, in nanoseconds; 0 where there is none."""
        try:
            return (self.folder / CURRENT).stat().st_mtime_ns
        except OSError:
            return 0

    def is_there(self) -> bool:
        """Say whether anything of the line is.

        Raises:
            EnvironmentFault: the home cannot be read.
        """
        with atomic.told(self.folder, "look for a line", atomic.HOME):
            return self.folder.is_dir()

    def path(self, installed: Installed) -> Path:
        """Return the folder of a slot."""
        return self.folder / installed.slot

    @contextlib.contextmanager
    def opening(self) -> Iterator[Installed]:
        """Yield what is in use; its slot is not cleared before the block ends (see ``held`` for the way back too).

        Raises:
            EnvironmentFault: nothing is installed.
        """
        with self.held() as (current, _):
            yield current

    @contextlib.contextmanager
    def held(self) -> Iterator[tuple[Installed, Installed | None]]:
        """Yield what is in use and what it can go back to; neither slot is cleared before the block ends.

        Raises:
            EnvironmentFault: nothing is installed.
        """
        with contextlib.ExitStack() as stack:
            if self.is_there():
                stack.enter_context(locking.held(self._lock, shared=True, wait_seconds=_LOADING_SECONDS))
            pointer = self.pointer()
            if pointer.current is None:
                raise self.nothing()
            yield pointer.current, pointer.other

    def nothing(self) -> EnvironmentFault:
        """Return what to say where nothing is installed, the nearest line that is among it."""
        name, lines = self.folder.name, self.folder.parent
        with atomic.told(lines, "look for lines", atomic.HOME):
            names = sorted(path.name for path in lines.iterdir() if (path / CURRENT).exists()) if lines.is_dir() else []
        step = f"haversack client update --line {name} --repository URL --root 1.root.json"
        if near := nearest(name, names):
            step = f"haversack client status    (installed: {', '.join(names)})"
        return EnvironmentFault(f"nothing is installed{near}", where=name, next_step=step)

    def stage(self, files: Mapping[str, str], store: Store) -> Path:
        """Fill a folder beside the slots, and return it; what is in use stays, and so does the way back.

        Args:
            files: name -> sha256 of a file that is in the store.
            store: where they are.

        Raises:
            EnvironmentFault: the folder cannot be filled.
        """
        folder = self.folder / STAGED
        atomic.make_folder(self.folder, atomic.HOME)
        with atomic.told(folder, "clear what was staged", atomic.HOME):
            _clear(folder)
            folder.mkdir()
        for name, sha256 in sorted(files.items()):
            store.link(sha256, folder / name)
        with atomic.told(folder, "stage a release", atomic.HOME):
            atomic.sync_folder(folder)
        return folder

    def activate(self, version: str, sequence: int, target: str, median_ms: float) -> Installed:
        """Let what was staged be in use, and what was in use be the way back.

        Of the release that is in use, staged again since its files were damaged, the files are put in place of these.
        Where the pointer is damaged, nobody knows what is in use: a new one is written, without a way back.

        Raises:
            EnvironmentFault: it cannot be written; what was in use still is.
        """
        staged = self.folder / STAGED
        with self._alone():
            pointer = self._known()
            current = pointer.current
            if current is not None and (current.sequence, current.target) == (sequence, target):
                with atomic.told(self.path(current), "mend a slot", atomic.HOME):
                    _mend(self.path(current), staged)
                self._write(CURRENT, pointer)  # who could not open it before looks again
                return current
            installed = Installed(_free_slot(pointer), version, sequence, target, median_ms)
            if pointer.other is not None:
                self._write(CURRENT, replace(pointer, other=None))
            with atomic.told(self.path(installed), "fill a slot", atomic.HOME):
                _clear(self.path(installed))
                staged.rename(self.path(installed))
                atomic.sync_folder(self.folder)
            self._write(CURRENT, Pointer(current=installed, other=current))
        return installed

    def way_back(self, reason: str, *, sequence: int | None = None, damaged: bool = False) -> Installed:
        """Use what lies in the other slot, and quarantine what was in use; where that cannot be written, it is not.

        Args:
            reason: in words.
            sequence: of what was found bad; where that is in use no more, nothing is done. None for whatever is.
            damaged: its bytes are not what was installed: it is not quarantined, an update brings it again.

        Raises:
            EnvironmentFault: there is nothing to go back to; what is in use still is.
        """
        if not self.is_there():
            raise self.nothing()
        with self._alone():
            pointer = self.pointer()
            if pointer.current is not None and sequence not in (None, pointer.current.sequence):
                return pointer.current
            if pointer.current is None or pointer.other is None:
                step = "haversack client status    (says what there is)"
                raise EnvironmentFault("there is no other model to go back to", where=self.folder.name, next_step=step)
            if not damaged:
                with contextlib.suppress(EnvironmentFault):  # a full disk keeps nobody from going back
                    self._quarantine(pointer.current.sequence, pointer.current.version, reason)
            self._write(CURRENT, Pointer(current=pointer.other))
        return pointer.other

    def rewrite(self, pointer: Pointer) -> Pointer:
        """Put a pointer in the place of a damaged one, and return what holds then: somebody may have been quicker.

        Raises:
            EnvironmentFault: it cannot be written.
        """
        with self._alone():
            try:
                return self.pointer()
            except Refused:
                self._write(CURRENT, pointer)
        return pointer

    def number(self, installed: Installed, sequence: int) -> Installed:
        """Write down the sequence of what is in use, and return that with it: of a release whose slot alone told of it.

        Raises:
            Refused: the pointer is damaged.
            EnvironmentFault: it cannot be written.
        """
        numbered = replace(installed, sequence=sequence)
        with self._alone():
            pointer = self.pointer()
            if pointer.current == installed:
                self._write(CURRENT, replace(pointer, current=numbered))
        return numbered

    def quarantined(self) -> tuple[Bad, ...]:
        """Return the releases that are not installed again, the newest last.

        Raises:
            Refused: the list is damaged; the next release that is set aside begins it anew, and so does ``pardon``.
            EnvironmentFault: it cannot be read.
        """
        step = f"haversack client retry {self.folder.name}    (begins the list anew)"
        return self._read(QUARANTINE, Quarantine(), step).releases

    def set_aside(self) -> tuple[Bad, ...]:
        """Return the releases that were set aside; none where the list is damaged: it keeps nobody from going back."""
        with contextlib.suppress(Refused):
            return self.quarantined()
        return ()

    def is_set_aside(self, installed: Installed) -> bool:
        """Say whether a release was set aside."""
        with atomic.told(self.folder, "look at what was set aside", atomic.HOME):
            if not (self.folder / QUARANTINE).exists():  # mostly: an opening reads no file for it
                return False
        return any(bad.names(installed.sequence, installed.version) for bad in self.set_aside())

    def quarantine(self, sequence: int, version: str, reason: str) -> None:
        """Remember never to install a release again.

        Raises:
            EnvironmentFault: it cannot be written.
        """
        atomic.make_folder(self.folder, atomic.HOME)
        with self._alone():
            self._quarantine(sequence, version, reason)

    def _quarantine(self, sequence: int, version: str, reason: str) -> None:
        """Do so, the line's lock held: a process that goes back and one that updates may set releases aside at once."""
        self._write(QUARANTINE, Quarantine(releases=self.set_aside()).with_one(sequence, version, reason))

    def pardon(self) -> tuple[Bad, ...]:
        """Forget every release that was set aside, so that an update tries it again; return them.

        A damaged list is begun anew.

        Raises:
            EnvironmentFault: it cannot be read or written; all of them stay set aside.
        """
        if not self.is_there():
            return ()
        with self._alone():
            found = self.set_aside()
            if (self.folder / QUARANTINE).exists():
                self._write(QUARANTINE, Quarantine())
        return found

    def remove_leftovers(self) -> None:
        """Remove what killed writers left, and what is staged: whoever stages holds the lock of the home.

        Raises:
            EnvironmentFault: it cannot be removed.
        """
        with atomic.told(self.folder, "remove unfinished files", atomic.HOME):
            atomic.remove_leftovers(self.folder)
            _clear(self.folder / STAGED)

    @property
    def _lock(self) -> Path:
        return self.folder / LOCK

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with locking.held(self._lock, wait_seconds=_LOADING_SECONDS):
            yield

    def _known(self) -> Pointer:
        try:
            return self.pointer()
        except Refused:
            return Pointer()

    def _read(self, name: str, absent: Record, next_step: str) -> Record:
        doing = "read what is installed"
        return remembered.read(self.folder / name, absent, limit=_LARGEST, doing=doing, next_step=next_step)

    def _write(self, name: str, record: object) -> None:
        atomic.write_bytes(self.folder / name, canonical.dumps(record), atomic.HOME)


def _clear(folder: Path) -> None:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            path.unlink()
        folder.rmdir()


def _mend(slot: Path, staged: Path) -> None:
    names = sorted(path.name for path in staged.iterdir())
    slot.mkdir(exist_ok=True)
    for name in names:
        (staged / name).replace(slot / name)
        (staged / name).unlink(missing_ok=True)  # of two links to one file rename leaves both
    for path in sorted(slot.iterdir()):
        if path.name not in names:
            path.unlink()
    atomic.sync_folder(slot)
    staged.rmdir()


def _free_slot(pointer: Pointer) -> Literal["a", "b"]:
    return "b" if pointer.current is not None and pointer.current.slot == "a" else "a"
