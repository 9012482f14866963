"""Progress: what a long run tells while it works. A sink is any callable that takes an Event."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Event:
    """One line of events.jsonl.

    Attributes:
        stage: one of the eleven stages, or ``pack``.
        kind: ``start``, ``progress``, ``done``, ``finding``, ``note`` or ``reused`` (taken from the ledger).
        text: what a person reads.
        done, total: steps, when known; 0 of 0 otherwise.
        data: JSON-able details.
        time: seconds since the epoch.
    """

    stage: str
    kind: str
    text: str
    done: int = 0
    total: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)


Sink = Callable[[Event], None]


def silent(event: Event) -> None:
    """Take an event and tell nobody."""


def steps(items: Iterable[Item], sink: Sink, stage: str, text: str, total: int) -> Iterator[Item]:
    """Yield ``items``, telling ``sink`` before the first and after each."""
    sink(Event(stage, "progress", text, 0, total))
    for count, item in enumerate(items, 1):
        yield item
        sink(Event(stage, "progress", text, count, total))
