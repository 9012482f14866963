"""Room: the memory this process may still take, by the machine, its control groups and its own limit (``ulimit -v``).

A control group counts the files it has read as its own; what is not in use of them (``inactive_file``) is given back
before the limit stops anything, so it counts as free. Both layouts of Linux's control groups are read (``memory.max``
and ``memory.limit_in_bytes``), every group from the process's own up to the root: the tightest decides.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.base.errors import EnvironmentFault, Fault
from haversack.base.model import Model
from haversack.base.plan import Step
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.flow.data import Data
from haversack.flow.effort import BY_OUTPUTS
from haversack.flow.proposals import mostly_linear
from haversack.flow.replay import KEPT_BYTES
from haversack.load.forecast import ACTIVATIONS, DATA, OTHERS, ROUNDING, WEIGHTS, Preflight, peak_bytes, sized
from haversack.tools.graph.roles import Role, role

ROOT = Path("/")
_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Controller as /proc/self/cgroup names it -> the files with limit and usage, and the field of memory.stat."""
UNLIMITED = 1 << 60
"""What is no limit, though it is a number."""
SIDE_BY_SIDE = 1.25
"""Activations in float and in integers, of those in float."""
MOMENTS = 10
"""Matrices of second moments, in double precision, that are alive at once when a layer is rounded by its outputs."""
KEPT_COPIES = 4
"""How often the weights of an architecture are held while another is packed: as the user made them, exported, and in
the two plans that were applied last. Counted, not measured."""
_WIDE, _DOUBLE = 4, 8
CURES = {
    ACTIVATIONS: "let calibration() and evaluation() yield smaller batches",
    DATA: "give fewer samples",
    ROUNDING: "--effort fast",
    WEIGHTS: "pack a smaller model",
    OTHERS: "pack fewer architectures at a time",
}
"""Part of the forecast -> what makes it less."""


@dataclass(frozen=True)
class Room:
    """How many bytes are left, and what sets the limit, in words."""

    bytes: int
    limit: str


def left(root: Path = ROOT) -> Room | None:
    """Return the memory that is left for this process; None where the system tells nothing.

    Args:
        root: below which proc and sys lie.
    """
    machine = available(root / "proc" / "meminfo")
    found = [Room(machine, "what the machine has available")] if machine is not None else []
    found += [*_groups(root), *_own(root)]
    return min(found, key=lambda room: room.bytes, default=None)


def beside(found: Preflight, room: Room | None) -> Preflight:
    """Return what is known of a run with the memory that is left for it."""
    return found if room is None else replace(found, available_bytes=max(1, room.bytes), available_by=room.limit)


def among(found: Mapping[str, Preflight]) -> dict[str, Preflight]:
    """Return what is known of several architectures, each with the memory that the others keep while it is packed.

    Args:
        found: architecture -> what is known of it alone.
    """
    every = sum(one.weight_bytes for one in found.values())
    told = {}
    for name, one in found.items():
        others = KEPT_COPIES * (every - one.weight_bytes)
        memory = {**one.memory, OTHERS: others} if others else one.memory
        told[name] = replace(one, memory=memory, forecast_bytes=one.forecast_bytes + others)
    return told


def kept(model: Model, data: Data, counts: tuple[int, int]) -> int:
    """Return the bytes that a run keeps of samples, and of the outputs of two predictors on those that are scored.

    Args:
        model: the float model.
        data: what was read of it is kept.
        counts: rows that calibrate, samples that are scored.
    """
    outputs = counts[1] * sum(port.spec.elements() * _WIDE for port in model.outputs)
    return data.kept_bytes() + 2 * min(KEPT_BYTES, outputs)


def rounding(model: Model, step: Step | None, rows: int) -> int:
    """Return the bytes that rounding the weights of static plans takes at the most: activations and second moments.

    Args:
        model: the float model.
        step: what rounds, or None.
        rows: of calibration samples.
    """
    if step is None:
        return 0
    part = PREPARE.build(step.part, step.settings)
    held = min(rows, part.samples) * peak_bytes(model.graph) * SIDE_BY_SIDE
    squares = 0
    for node in model.graph.nodes if step.part in BY_OUTPUTS else ():
        if role(node) is Role.LAYER:
            shape, groups = model.weights[str(node.weight)].shape, int(node.attributes.get("groups", 1))
            squares = max(squares, groups * math.prod(shape[1:]) ** 2)
    return int(min(held, part.megabytes * 1e6)) + MOMENTS * _DOUBLE * squares


def ahead(model: Model, data: Data, counts: tuple[int, int], step: Step | None) -> tuple[int, int]:
    """Return the bytes that a run keeps of data and outputs, and what rounding takes of the plans it begins with.

    Where most layers are linear the latter is nothing: static plans of such models come last, if at all (``late``), and
    only where there is room for them then.

    Args:
        model, data, counts: as ``kept`` takes them.
        step: what rounds, or None.
    """
    return kept(model, data, counts), 0 if mostly_linear(model.graph) else rounding(model, step, counts[0])


def refuse(found: Preflight, what: str = "the run") -> None:
    """Refuse a run that is forecast to need more memory than is left.

    Args:
        found: what is known of the run.
        what: needs it, in words.

    Raises:
        EnvironmentFault: with what takes how much of it, largest first, and what makes it less.
    """
    if not found.short:
        return
    parts = sorted(found.memory.items(), key=lambda part: -part[1])
    steps = [step for name, step in CURES.items() if any(part == name for part, _ in parts[:2])]
    raise EnvironmentFault(
        f"{what} is forecast to need {sized(found.forecast_bytes)}B of memory, and {sized(found.available_bytes)}B "
        f"are left ({found.available_by})",
        where="memory",
        faults=tuple(Fault(name, f"about {sized(size)}B") for name, size in parts if size),
        tried="a forecast from the exported model and its data, before anything is made",
        next_step="; ".join([*steps, "or run it where there is more memory"]),
    )


def available(listing: Path) -> int | None:
    """Return the bytes of memory that Linux's /proc/meminfo calls available, or None without such a listing."""
    try:
        lines = listing.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields: Mapping[str, str] = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _groups(root: Path) -> Iterator[Room]:
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        kind = "memory" if controllers else ""
        mounted = root / "sys" / "fs" / "cgroup" / kind
        folder = mounted / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(mounted) and (room := _group(group, *_FILES[kind])) is not None:
                yield room


def _own(root: Path) -> list[Room]:
    """Return what the process's limit on its addresses leaves; mapped files and reserved addresses count there."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = "".join(_lines(root / "proc" / "self" / "statm")[:1]).split(" ")[0]
    if most == resource.RLIM_INFINITY or not pages.isdecimal():
        return []
    free = most - int(pages) * resource.getpagesize()
    return [Room(max(0, free), f"a limit of {sized(most)}B of addresses for each process (ulimit -v)")]


def _group(folder: Path, limit: str, usage: str, idle: str) -> Room | None:
    """Return what is left below one group's limit; None where it has none."""
    most, used = (_number(folder / name) for name in (limit, usage))
    if most is None or used is None or most >= UNLIMITED:
        return None
    fields = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat") if " " in line)
    free = most - used + min(used, int(fields.get(idle, "0")))
    return Room(max(0, free), f"a limit of {sized(most)}B for its control group")


def _number(path: Path) -> int | None:
    """Return the number in a file; None where there is no file, or a word such as max."""
    first = "".join(_lines(path)[:1]).strip()
    return int(first) if first.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
