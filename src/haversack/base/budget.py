"""Budgets: joint, hard limits on what ships, as a user types them."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

from haversack.base.errors import Fault, UsageError

BYTE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_BYTES = ("size", "download", "memory")
EXAMPLE = "--budget size=5.2MB,latency=0.55x,memory=40MB,drop=1pt"
_AMOUNT = re.compile(r"^(?P<number>[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)(?P<unit>[A-Za-z]*|%)$")
_UNITS = {
    "size": "bytes as KB, MB, GB (10^3, 10^6, 10^9) or KiB, MiB, GiB",
    "download": "bytes as KB, MB, GB (10^3, 10^6, 10^9) or KiB, MiB, GiB",
    "memory": "bytes as KB, MB, GB (10^3, 10^6, 10^9) or KiB, MiB, GiB",
    "latency": "ms, or x (the ratio to the same runtime's float file)",
    "drop": "pt (0.01 of a fraction), or a bare number in the metric's unit",
}


@dataclass(frozen=True)
class Budget:
    """Upper limits; None is no limit.

    Attributes:
        size, download, memory: bytes (MB = 10^6).
        latency_ms: milliseconds, batch 1, on the named device.
        latency_ratio: ratio to the same runtime's float artefact.
        drop: loss of quality in the metric's unit (``1pt`` = 0.01).
    """

    size: int | None = None
    download: int | None = None
    memory: int | None = None
    latency_ms: float | None = None
    latency_ratio: float | None = None
    drop: float | None = None

    @property
    def judges_speed(self) -> bool:
        """Whether it says how slow a file may be: then that, and not the float file, is what speed is held against."""
        return self.latency_ms is not None or self.latency_ratio is not None

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def parse(text: str) -> Budget:
    """Read ``size=5.2MB,latency=0.55x,drop=1pt``; ``latency`` may appear once in ms and once in x.

    Raises:
        UsageError: with every fault of the text at once, and the nearest name for an unknown one; or it limits nothing.
    """
    values: dict[str, float] = {}
    faults: list[Fault] = []
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, amount = (piece.strip() for piece in item.partition("="))
        try:
            if not equals:
                raise ValueError("has no value (write name=value)")
            field, value = _read(name, amount)
            if field in values:
                raise ValueError("is given twice")
            values[field] = value
        except ValueError as error:
            faults.append(Fault(name or item, str(error)))
    if faults:
        raise UsageError("the budget cannot be read", where="--budget", faults=tuple(faults), next_step=EXAMPLE)
    if not values:
        raise UsageError("it limits nothing", where="--budget", next_step=EXAMPLE)
    whole = {name: round(value) for name, value in values.items() if name in _BYTES}
    return Budget(**{**values, **whole})  # type: ignore[arg-type]


def parse_bytes(amount: str, where: str) -> int:
    """Read a number of bytes with its unit: ``300KB`` (10^3), ``1MiB`` (2^20).

    Raises:
        UsageError: it is none that anything can meet.
    """
    try:
        return round(_read("size", amount.strip())[1])
    except ValueError as error:
        raise UsageError(str(error), where=where, next_step=f"{where} 300KB") from error


def _read(name: str, amount: str) -> tuple[str, float]:
    if name not in _UNITS:
        near = difflib.get_close_matches(name, _UNITS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no such budget (one of {', '.join(_UNITS)}){hint}")
    match = _AMOUNT.match(amount)
    if match is None:
        raise ValueError(f"{amount!r} is not a non-negative number with a unit: {_UNITS[name]}")
    number, unit = float(match["number"]), match["unit"]
    field, factor = _unit(name, unit)
    value = number * factor
    if not math.isfinite(value) or (name != "drop" and value == 0) or (name in _BYTES and value < 1):
        raise ValueError(f"{amount!r} is no limit that anything can meet")
    return field, value


def _unit(name: str, unit: str) -> tuple[str, float]:
    if name in _BYTES and unit.upper() in BYTE_UNITS:
        return name, BYTE_UNITS[unit.upper()]
    if name == "latency" and unit in ("ms", "x"):
        return ("latency_ms" if unit == "ms" else "latency_ratio"), 1.0
    if name == "drop" and unit in ("", "pt"):
        return name, 0.01 if unit == "pt" else 1.0
    hint = "; a percentage point is drop=1pt" if (name, unit) == ("drop", "%") else ""
    cause = f"the unit {unit} does not fit" if unit else "it has no unit"
    raise ValueError(f"{cause}: {_UNITS[name]}{hint}")


def check_unit(text: str, unit: str, metric: str) -> None:
    """Refuse a bare drop of 1 or more where the metric is a fraction: it allows any loss, and 1 % was meant.

    Args:
        text: the budget as it was typed, which ``parse`` takes.
        unit: of the metric.
        metric: its name, for the error.

    Raises:
        UsageError: such a drop; with what to write.
    """
    typed = [piece.partition("=")[2].strip() for piece in text.split(",") if piece.strip().startswith("drop")]
    for amount in typed:
        match = _AMOUNT.match(amount)
        if unit == "fraction" and match and not match["unit"] and float(match["number"]) >= 1:
            raise UsageError(
                f"drop={amount} would allow any loss: {metric} is a fraction, and a bare number is in its unit",
                where="--budget",
                next_step=f"drop={float(match['number']):g}pt    (1pt is 0.01 of a fraction)",
            )
