"""What runs on a worker of a cluster: it proves to be like the machine that asks, and answers one task at a time."""

from __future__ import annotations

import importlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from haversack.base import errors
from haversack.base.errors import HaversackError
from haversack.flow import parcels
from haversack.flow.own_code import own_code
from haversack.report import facts

if TYPE_CHECKING:
    from torch.export import ExportedProgram

NEEDED = ("torch.export", "haversack.flow.steps", "haversack.flow.race", "haversack.flow.crossing")
"""Modules that bring all that tasks are made of."""
COMPUTING = ("torch", "numpy", "scipy")
"""Packages whose version may change a bit of what a task computes."""


@dataclass(frozen=True)
class Terms:
    """What a worker must be like so that its results are those of the machine that asks, bit for bit.

    Attributes:
        alike: what must be the same there, by what it is called.
        threads: in how many it computes: sums that are cut otherwise are rounded otherwise.
    """

    alike: Mapping[str, str]
    threads: int


@dataclass(frozen=True)
class Answer:
    """What becomes of a task.

    Attributes:
        kind: ``value``; ``error``, one of ours that the function raised; ``unlike``, a worker that may not answer.
        value: the result; or the error's class and its parts; or what is other there, one line each.
        seconds: that the function took.
    """

    kind: str
    value: Any
    seconds: float = 0.0


@cache
def likeness() -> Mapping[str, str]:
    """Return what of this machine decides the bits of a result, by what it is called."""
    machine = facts.of_machine(packages=COMPUTING)
    own = own_code()
    return {
        "haversack": f"the version with the digest {own[:12]}",
        "the processor": f"{machine.cpu} ({platform.machine()}; {' '.join(machine.cpu_flags)})",
        **{name: number.partition("+")[0] for name, number in machine.versions.items()},
    }


def differing(mine: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is other than it must be, one line each.

    Args:
        mine: what it must be.
        theirs: as it is there.
    """
    return tuple(
        f"{name} is {theirs.get(name) or 'missing'} there, {mine.get(name) or 'missing'} here"
        for name in dict.fromkeys((*mine, *theirs))
        if mine.get(name) != theirs.get(name)
    )


def greet(terms: Terms) -> Answer:
    """Return whether this machine may answer tasks."""
    other = differing(terms.alike, likeness())
    return Answer("unlike", other) if other else Answer("value", platform.node())


def warm(seconds: float = 1.0) -> None:
    """Load what tasks need; for a while, so that the next one asked to is another worker."""
    for module in NEEDED:
        importlib.import_module(module)
    time.sleep(seconds)


def read(reference: list[Any], seconds: float = 1.0) -> None:
    """Read a program that tasks will share; for a while, as ``warm``.

    Args:
        reference: where it is, as bytes: a Ray reference in a list.
        seconds: to stay busy afterwards.
    """
    _program(reference[0])
    time.sleep(seconds)


def answer(terms: Terms, function: str, shared: Any, programs: Mapping[str, Any], task: bytes) -> bytes:  # noqa: ANN401 - references
    """Run one task.

    Args:
        terms: refuses to answer where they are not met.
        function: ``module:name`` of a function of a shared value and a task.
        shared: where the shared value is, packed: a Ray reference in a list.
        programs: name -> the like, of a program as bytes.
        task: packed.

    Returns:
        The packed ``Answer``.
    """
    found = _answered(terms, function, shared, programs, task)
    return parcels.packed(found, _no_program)


def _answered(terms: Terms, function: str, shared: Any, programs: Mapping[str, Any], task: bytes) -> Answer:  # noqa: ANN401 - as above
    refused = greet(terms)
    if refused.kind == "unlike":
        return refused
    _settle(terms.threads)
    run, value = named(function), _value(shared, programs)
    start = time.perf_counter()
    try:
        made = run(value, parcels.unpacked(task, _no_program))
    except HaversackError as error:
        return Answer("error", plainly(error), time.perf_counter() - start)
    return Answer("value", made, time.perf_counter() - start)


def plainly(error: HaversackError) -> tuple[str, dict[str, Any]]:
    """Return an error as the nearest class of the error tree that takes all parts, by name, and its parts."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
    name = next(kind for kind in kinds if kind != "MissingExtra")
    parts = ("where", "tried", "next_step", "faults")
    return name, {"cause": error.cause, **{part: getattr(error, part) for part in parts}}


def raised(name: str, parts: Mapping[str, Any]) -> HaversackError:
    """Return the error that ``plainly`` took apart."""
    kind: type[HaversackError] = getattr(errors, name)
    return kind(parts["cause"], **{part: value for part, value in parts.items() if part != "cause"})


def named(function: str) -> Callable[[Any, Any], Any]:
    """Return a function by ``module:name``."""
    module, _, name = function.partition(":")
    found: Callable[[Any, Any], Any] = getattr(importlib.import_module(module), name)
    return found


def name_of(function: Callable[[Any, Any], Any]) -> str:
    """Return ``module:name`` of a function.

    Raises:
        TypeError: no module names it: it stands inside another function, or has no name.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    if "." in function.__qualname__ or "<" in function.__qualname__:
        raise TypeError(f"only a function that a module names can be spread: {name}")
    return name


def _settle(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


_shared: dict[str, Any] = {}
_programs: dict[str, ExportedProgram] = {}
"""The last shared value and the programs that this process has read, by the reference they came from."""


def _value(shared: Any, programs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - Ray's references, and what is shared
    import ray

    key = shared[0].hex()
    if key not in _shared:
        _shared.clear()  # one at a time: each may hold all weights of a model

        _shared[key] = parcels.unpacked(ray.get(shared[0]), lambda name: _program(programs[name][0]))
    return _shared[key]


def _program(reference: Any) -> ExportedProgram:  # noqa: ANN401 - Ray's
    import ray

    key = reference.hex()
    if key not in _programs:
        _programs[key] = parcels.program_from(ray.get(reference))
    return _programs[key]


def _no_program(_: object) -> Any:  # noqa: ANN401 - never returns
    raise TypeError("a program travels with what tasks share, not with a task or its result")
