"""What a person sees while a command works: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from haversack.base.progress import Event, Sink

if TYPE_CHECKING:
    from rich.progress import Progress

    from haversack.flow.pack import Outcome

PLAIN_SECONDS = 5.0
"""At most one plain line in so many seconds for the same step."""


def say(text: str = "") -> None:
    """Print one line of a command's result."""
    print(text)


@contextmanager
def results(*, as_json: bool) -> Iterator[None]:
    """Keep standard output for the command's result: what native libraries print there goes to standard error.

    Args:
        as_json: only then is it done; a person may see everything.
    """
    if not as_json:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):  # what a job prints; the descriptor is for native libraries
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def plain(text: str) -> str:
    """Return text that only prints: what a server, a model or a file says of itself may hold a terminal's commands."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def say_json(data: Any) -> None:  # noqa: ANN401 - JSON-able data
    """Print one JSON document."""
    say(json.dumps(data, indent=2, allow_nan=False, default=str))


def clock(seconds: float) -> str:
    """Return seconds as ``45 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def display() -> Iterator[Sink]:
    """Yield the sink for a command's events, which go to standard error: bars on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        with _bars() as progress:
            yield _Live(progress)
    else:
        yield _Plain()


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.fields[stage]:>8}", style="bold"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", style="dim"),
        console=Console(stderr=True),
        transient=True,
    )


class _Left:
    """Says how long it takes: the whole run once, as it is forecast, and each step by its own progress."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.reused = False
        self.began: dict[tuple[str, str], tuple[float, int]] = {}
        self.last = ("", "", "")

    def repeats(self, event: Event) -> bool:
        """Say whether this is what was told just now, taken from before once more: one line is enough for both."""
        before, self.last = self.last, (event.kind, event.stage, event.text)
        return event.kind == "reused" and self.last == before

    def words(self, event: Event) -> str:
        """Return what is known of the time left with this event, or an empty string.

        A forecast of the run is told when it is made, and not counted down: what follows is not known by number. A
        run that takes steps from the last one is shorter than its forecast, by how much nobody knows: none is told.
        """
        if event.kind == "reused":
            self.reused = True
        if "forecast_seconds" in event.data and not self.reused:
            return f"forecast: about {clock(float(event.data['forecast_seconds']))} more"
        if event.kind != "progress":
            return ""
        now = time.monotonic()
        start, before = self.began.setdefault((event.stage, event.text), (now, event.done))
        if event.done <= before:  # the same step again, of another candidate
            start, before = self.began[event.stage, event.text] = now, event.done
        if not before < event.done < event.total or now <= start:
            return ""
        left = (now - start) / (event.done - before) * (event.total - event.done)
        return f"about {clock(left)} left of this step"


class _Plain:
    """One line for each thing that happened, without control characters."""

    def __init__(self) -> None:
        self.left = _Left()
        self.told: dict[tuple[str, str], float] = {}

    def __call__(self, event: Event) -> None:
        """Write the event to standard error, unless the same step was told a moment ago."""
        if self.left.repeats(event):
            return
        words = self.left.words(event)
        now = time.monotonic()
        step = (event.stage, event.text)
        # Its first line says what is being done, though the same step was done a moment ago: of another candidate.
        at_an_end = event.total and event.done in (0, event.total)
        if event.kind == "progress" and not at_an_end and now - self.told.get(step, -PLAIN_SECONDS) < PLAIN_SECONDS:
            return
        self.told[step] = now
        count = f" {event.done}/{event.total}" if event.total else ""
        reused = " (as before)" if event.kind == "reused" else ""
        left = f"  [{words}]" if words else ""
        sys.stderr.write(
            f"{now - self.left.started:7.1f} s  {event.stage:<8} {plain(event.text)}{count}{reused}{left}\n"
        )


class _Live:
    """Bars: one for the step in work, done steps as lines above it."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.left = _Left()
        self.tasks: dict[tuple[str, str], Any] = {}

    def __call__(self, event: Event) -> None:
        """Show the event."""
        from rich.text import Text

        if self.left.repeats(event):
            return
        words = self.left.words(event)
        step = (event.stage, event.text)
        if event.kind != "progress":
            mark = {"finding": "!", "reused": "=", "done": "✓"}.get(event.kind, "·")
            text = f"{event.text}  [{words}]" if words else event.text
            # One print: what ends without a new line is erased with the bars below it.
            line = Text.assemble(f"{mark} ", (f"{event.stage:>8}", "bold"), f" {text}")
            self.progress.console.print(line, highlight=False)
            self._end(event.stage)
            return
        if step not in self.tasks:
            self._end()
            self.tasks[step] = self.progress.add_task(event.text, total=event.total or None, stage=event.stage, left="")
        if event.total and event.done == event.total:
            self.progress.remove_task(self.tasks.pop(step))
        else:
            self.progress.update(self.tasks[step], completed=event.done, left=words)

    def _end(self, stage: str | None = None) -> None:
        for step in [step for step in self.tasks if stage is None or step[0] == stage]:
            self.progress.remove_task(self.tasks.pop(step))


def ran(run: Callable[[Sink], Outcome], *, as_json: bool) -> int:
    """Show a run on the terminal, then what came of it, and return its exit code.

    Args:
        run: told of every step through the sink that it is given.
        as_json: print the report as JSON and nothing else.
    """
    from haversack.base.recipe import unstructure
    from haversack.report import text

    with results(as_json=as_json), display() as sink:
        outcome = run(sink)
    if as_json:
        say_json(unstructure(outcome.record))
    else:
        for line in text.lines(outcome.record):
            say(line)
        say(f"report: {outcome.page}    ({clock(outcome.seconds)})")
    return outcome.exit_code
