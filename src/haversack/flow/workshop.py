"""One run's folder: its ledger, its files and its clock. What was made once is found again, after kill -9 too."""

from __future__ import annotations

import contextlib
import copy
import json
import shlex
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from haversack.base import digest
from haversack.base.errors import EnvironmentFault, UsageError
from haversack.base.progress import Event, Sink
from haversack.tools.store import atomic, ledger
from haversack.tools.store.blobs import Blobs
from haversack.tools.store.ledger import Held, Ledger, holder

FOLDER = ".haversack"
MARKER = "job.json"
ROOMS = "architectures"
"""Where each of several architectures has a folder."""
LEDGER, EVENTS, REPORT = "ledger.jsonl", "events.jsonl", "report.json"
Thing = TypeVar("Thing")
Saved = tuple[Mapping[str, Any], Mapping[str, np.ndarray]]
"""What the ledger keeps of a thing: JSON-able data, and arrays in a blob."""


class Workshop:
    """The folder of one run; a context manager.

    Args:
        out: the output folder, made when missing.
        source: what is packed; another source's folder is refused, unless nothing was made in it yet.
        sink: told about every step; everything told also goes to ``events.jsonl``.
        command: what goes on with the run, for those who find it unfinished.

    When an error ends it before anything was made, the folder is left as it was found.

    Raises:
        UsageError: the folder holds another job, or files that no run of haversack made.
        EnvironmentFault: it cannot be written, or another process works in it.
    """

    def __init__(self, out: Path, source: str, sink: Sink, command: str = "") -> None:
        refuse_anothers(out, source)
        self.out = out
        self._new = [folder for folder in (out, *out.parents) if not folder.exists()]
        self.inside = atomic.make_folder(out / FOLDER)
        try:
            self.ledger = Ledger(self.inside / LEDGER)
        except Held as error:
            raise EnvironmentFault(
                error.cause,
                where=str(out),
                tried="claiming the folder for this run",
                next_step=f"{elsewhere(command, out)}    (or wait until that run ends)",
            ) from error
        if self._nothing_made():
            self._clear()  # what a run left that ended before it made anything
        mark = {"source": source, "command": command, "folder": str(Path.cwd())}
        atomic.write_text(self.inside / MARKER, json.dumps(mark))
        self.blobs = Blobs(self.inside / "blobs")
        self.blobs.remove_leftovers()
        self.seconds: dict[str, float] = defaultdict(float)
        self._sink = sink
        self.called = ""
        # Without a buffer: what a full disk refused once is not tried again on closing.
        with atomic.told(out / EVENTS, "write the events"):
            self._events = (out / EVENTS).open("ab", buffering=0)
        for fault in self.ledger.faults:
            self.tell(Event("pack", "note", str(fault)))

    def room(self, name: str) -> Workshop:
        """Return the same workshop with a folder of its own inside, and a name before all that is told.

        Ledger, events and clock are shared: what is remembered goes by its content.

        Args:
            name: of an architecture, a file name.
        """
        room = copy.copy(self)
        room.inside = atomic.make_folder(self.inside / ROOMS / name)
        room.called = f"{name}: "
        return room

    def tell(self, event: Event) -> None:
        """Pass an event on, and write it down."""
        event = replace(event, text=f"{self.called}{event.text}") if self.called else event
        with atomic.told(self.out / EVENTS, "write the events"):
            self._events.write(json.dumps(asdict(event), default=str).encode() + b"\n")
        self._sink(event)

    @contextlib.contextmanager
    def clocked(self, stage: str) -> Iterator[None]:
        """Add the wall time of what is done inside to the stage's seconds."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - start

    def remember(
        self,
        stage: str,
        text: str,
        parts: Sequence[object],
        make: Callable[[], Thing],
        *,
        save: Callable[[Thing], Saved],
        load: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Thing | None],
    ) -> Thing:
        """Return a thing from the ledger, or make it and write it down.

        Args:
            stage, text: for progress and the clock.
            parts: JSON-able content that decides the thing: digests, versions, settings; never a name or a time.
            make: makes it.
            save: takes it apart for the ledger: JSON-able data, and arrays of any shape and dtype.
            load: puts it together again; None when what it refers to is gone, and it is made again.
        """
        key = digest.of_data([stage, text, *parts])
        record = self.ledger.get(key)
        if record is not None:
            arrays = self.arrays(record.blobs)
            found = load(record.value, arrays) if arrays is not None else None
            if found is not None:
                self.seconds[stage] += float(record.value.get("seconds", 0.0))
                self.tell(Event(stage, "reused", text))
                return found
        start = time.monotonic()
        made = make()
        spent = time.monotonic() - start
        data, arrays = save(made)
        self.ledger.put(key, {**data, "seconds": spent}, self.keep(arrays))
        self.seconds[stage] += spent
        self.tell(Event(stage, "done", text, data={"seconds": round(spent, 3)}))
        return made

    def keep(self, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Put arrays of any shape and dtype into one blob and return its reference.

        The blob is a safetensors file, so reading it back runs no code.
        """
        from safetensors.numpy import save

        if not arrays:
            return {}
        return {"arrays": self.blobs.put(save({name: np.asarray(value, order="C") for name, value in arrays.items()}))}

    def arrays(self, blobs: Mapping[str, str]) -> Mapping[str, np.ndarray] | None:
        """Return the arrays of a record, shapes and dtypes as they were kept; None when the blob is gone or damaged."""
        from safetensors.numpy import load

        if "arrays" not in blobs:
            return {}
        if not self.blobs.has(blobs["arrays"]):
            return None
        try:
            content = self.blobs.get(blobs["arrays"])
        except EnvironmentFault as fault:  # putting it again repairs it
            self.tell(Event("pack", "note", f"{fault.where}: {fault.cause}; it is made again"))
            return None
        found: Mapping[str, np.ndarray] = load(content)
        return found

    def close(self) -> None:
        """Let another process work here."""
        self._events.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        """Return the workshop."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; after an error, leave nothing where nothing was made."""
        self._events.close()
        if error is not None and self._nothing_made():
            self._clear()
            with contextlib.suppress(OSError):  # the error is the one to tell
                shutil.rmtree(self.inside)
            for folder in self._new:
                with contextlib.suppress(OSError):  # somebody else put something there
                    folder.rmdir()
        self.close()

    def _nothing_made(self) -> bool:
        return not len(self.ledger) and not (self.out / REPORT).exists()

    def _clear(self) -> None:
        """Remove what is ours beside the ledger."""
        for path in (self.out / EVENTS, *self.inside.iterdir()):
            if path.name.startswith(LEDGER):
                continue
            with contextlib.suppress(OSError):  # it is written anew, or stands in nobody's way
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def unfinished(out: Path) -> UsageError | None:
    """Return what to say of a folder whose run is at work, or was stopped before it wrote a report; None otherwise.

    Args:
        out: the folder.
    """
    marker = out / FOLDER / MARKER
    if (out / REPORT).exists() or not marker.is_file():
        return None
    if process := holder(out / FOLDER / LEDGER):
        return UsageError(
            f"the run in it is not finished: process {process} is at work there",
            where=str(out),
            next_step="wait until it ends",
        )
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
        command, folder = str(found.get("command", "")), str(found.get("folder", ""))
    except (OSError, ValueError, AttributeError):
        command = folder = ""
    if command and folder and folder != str(Path.cwd()):
        command = f"cd {shlex.quote(folder)} && {command}"  # its paths are meant from there
    return UsageError(
        "the run in it is not finished: it was stopped, or an error ended it; what it made is kept",
        where=str(out),
        next_step=f"{command or 'repeat its haversack pack command'}    (goes on from where it was)",
    )


def elsewhere(command: str, out: Path) -> str:
    """Return a command with another output folder beside the one that it has.

    Args:
        command: as it was typed; empty where nobody typed one.
        out: its folder.
    """
    other = str(out.with_name(f"{out.name}-2"))
    words = shlex.split(command) or ["haversack", "pack", "JOB"]
    for index, word in enumerate(words):
        if word == "--out" and index + 1 < len(words):
            return shlex.join([*words[: index + 1], other, *words[index + 2 :]])
        if word.startswith("--out="):
            return shlex.join([*words[:index], f"--out={other}", *words[index + 1 :]])
    return shlex.join([*words, "--out", other])


def refuse_anothers(out: Path, source: str) -> None:
    """Refuse a folder in which another job made something, or that is somebody else's.

    A job is known by its file or reference: the ledger goes by content, so editing a job file reuses what still holds.

    Args:
        out: the output folder.
        source: what is to be packed into it.

    Raises:
        UsageError: there is such a folder, or something that is none.
    """
    marker = out / FOLDER / MARKER
    if marker.exists():
        owner = _owner(marker)
        if owner != source and ((out / REPORT).exists() or ledger.read(out / FOLDER / LEDGER).records):
            raise UsageError(
                f"the folder holds the results of another job: {owner}",
                where=str(out),
                next_step="choose another folder with --out, or delete this one",
            )
        return
    # A run that was killed before it wrote its mark leaves its own folder and nothing else.
    if out.exists() and (not out.is_dir() or any(path.name != FOLDER for path in out.iterdir())):
        raise UsageError(
            "it exists and is not a folder that haversack made",
            where=str(out),
            next_step="choose an empty or new folder with --out",
        )


def refuse_unmakeable(out: Path) -> None:
    """Refuse a folder in which nothing can be written, as a run into it would; nothing is left in it.

    Only trying tells: rights say nothing of a file system like /proc. What had to be made for it is removed again.

    Args:
        out: the output folder.

    Raises:
        EnvironmentFault: it cannot be made, or not written.
    """
    inside = out / FOLDER
    new = [folder for folder in (inside, out, *out.parents) if not folder.exists()]
    try:
        atomic.make_folder(inside)
        with atomic.told(inside, "write into the folder"), tempfile.TemporaryFile(dir=inside) as stream:
            stream.write(MARKER.encode())
            stream.flush()
    finally:
        for folder in new:
            with contextlib.suppress(OSError):  # it was not made, or somebody else put something there
                folder.rmdir()


def _owner(marker: Path) -> str:
    """Return the job that a marker names.

    Raises:
        UsageError: somebody else wrote the file.
    """
    try:
        return str(json.loads(marker.read_text(encoding="utf-8"))["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "it does not say whose results the folder holds",
            where=str(marker),
            next_step="choose another folder with --out",
        ) from error
