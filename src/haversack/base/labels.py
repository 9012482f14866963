"""Labels of a model's classes, in order: what ``labels.txt`` of a bundle holds, one a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MOST = 1_000_000
LONGEST = 200
"""Characters of one."""
_BEGIN = "\ufeff"


def faults(labels: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with labels; two may be alike (ImageNet has two cranes)."""
    if not labels:
        yield "there is none"
    if len(labels) > MOST:
        yield f"there are {len(labels)}, and {MOST} are allowed"
    for number, label in enumerate(labels[:MOST], 1):
        if not label.strip() or label != label.strip() or not label.isprintable() or len(label) > LONGEST:
            yield f"label {number}: {label[:LONGEST]!r} is no line of 1 to {LONGEST} printable characters"


def to_bytes(labels: Sequence[str]) -> bytes:
    """Return the file's bytes: UTF-8, each label with a line feed behind it."""
    return "".join(f"{label}\n" for label in labels).encode()


def from_bytes(data: bytes) -> tuple[str, ...]:
    """Return the labels of a file that ``to_bytes`` wrote.

    Raises:
        ValueError: it is no such file.
    """
    labels = tuple(data.decode().split("\n"))
    if labels[-1]:
        raise ValueError("its last line does not end")
    if cause := next(faults(labels[:-1]), ""):
        raise ValueError(cause)
    return labels[:-1]


def typed(data: bytes) -> tuple[str, ...]:
    """Return the labels of a file that somebody typed: lines may end as on other systems, and empty ones at the end.

    Raises:
        ValueError: it is no UTF-8, or holds no labels; the first that is wrong is told.
    """
    lines = [line.strip() for line in data.decode().removeprefix(_BEGIN).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if cause := next(faults(lines), ""):
        raise ValueError(cause)
    return tuple(lines)
