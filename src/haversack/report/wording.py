"""Numbers as people read them: one unit each, no digit that was not measured, a dash where nothing was."""

from __future__ import annotations

import math

DASH = "\u2014"
TIMES = "\u00d7"
MINUS = "\u2212"
LIMIT_NAMES = {
    "size": "Size",
    "download": "Download",
    "memory": "Peak memory",
    "latency_ms": "Latency",
    "latency_ratio": "Latency against float",
    "drop": "Drop in quality",
    "delta": "Delta from the release",
}


def _digits(value: float, significant: int = 3) -> str:
    """Return a number with ``significant`` digits, never as a power of ten, with a true minus sign."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    rounded = round(value, significant - 1 - exponent)
    places = max(0, significant - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{places}f}".replace("-", MINUS)


def size(value: float | None) -> str:
    """Return bytes as B, kB, MB or GB (powers of 1000)."""
    if value is None:
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= 0.9995 * factor:
            return f"{_digits(value / factor)} {unit}"
    return f"{_digits(value)} B"


def milliseconds(value: float | None) -> str:
    """Return milliseconds."""
    return DASH if value is None else f"{_digits(value)} ms"


def seconds(value: float | None) -> str:
    """Return seconds, or minutes and seconds from two minutes on."""
    if value is None:
        return DASH
    if value < 120:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def ratio(value: float | None) -> str:
    """Return a ratio: ``x0.49``, with a multiplication sign."""
    return DASH if value is None else f"{TIMES}{value:.2f}".replace("-", MINUS)


def percent(value: float | None) -> str:
    """Return a fraction in percent; what is not all never reads as 100 %, nor what is something as 0 %."""
    if value is None:
        return DASH
    for places in (1, 2, 3, 4):
        text = f"{100 * value:.{places}f}"
        if value in {0.0, 1.0} or float(text) not in {0.0, 100.0}:
            return f"{text} %".replace("-", MINUS)
    bound, side = ("100", value > 1) if abs(value) > 0.5 else ("0", value > 0)
    return f"{'over' if side else 'under'} {bound} %"


def error(value: float | None) -> str:
    """Return a relative error with three digits."""
    return DASH if value is None else _digits(value)


def count(value: float | None) -> str:
    """Return a whole number with thousands apart."""
    return DASH if value is None else f"{value:,.0f}".replace("-", MINUS)


def large(value: float | None) -> str:
    """Return a count in thousands (k), millions (M) or thousands of millions (G)."""
    if value is None:
        return DASH
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * factor:
            return f"{_digits(value / factor)} {unit}"
    return count(value)


def points(value: float | None, unit: str) -> str:
    """Return a difference of quality: a fraction in points (``0.27 pt``), anything else in its own unit."""
    if value is None:
        return DASH
    if unit == "fraction":
        return f"{100 * value:.2f} pt".replace("-", MINUS)
    return f"{_digits(value)} {unit}".rstrip()


def change(value: float | None, unit: str) -> str:
    """Return how a quality changes, with its sign: ``-3.10 pt``, ``+0.02 nats``."""
    told = points(value, unit)
    return told if value is None or value <= 0 else f"+{told}"


def quality(value: float | None, unit: str) -> str:
    """Return a quality: a fraction in percent, anything else in its own unit."""
    if value is None:
        return DASH
    return percent(value) if unit == "fraction" else f"{_digits(value, 4)} {unit}".rstrip()


def interval(low: float | None, high: float | None, unit: str) -> str:
    """Return a 95 % interval of a difference of quality, or an empty string."""
    if low is None or high is None:
        return ""
    if unit == "fraction":
        return f"{100 * low:.2f} to {100 * high:.2f} pt".replace("-", MINUS)
    return f"{_digits(low)} to {_digits(high)} {unit}".rstrip()


def amount(value: float | None, unit: str) -> str:
    """Return the value of a limit in the limit's unit."""
    if value is None:
        return DASH
    plain = {"bytes": size, "ms": milliseconds, "x": ratio}
    return plain[unit](value) if unit in plain else points(value, unit)


def difference(value: float | None, unit: str) -> str:
    """Return by how much a limit was missed or kept, without sign, in digits enough not to read as nothing."""
    if value is None:
        return DASH
    value = abs(value)
    if unit == "x" and 0 < value < 0.005:
        return f"{TIMES}{_digits(value, 1)}"
    if unit == "fraction" and 0 < value < 0.00005:
        return f"{_digits(100 * value, 1)} pt"
    return amount(value, unit)


def limit_name(limit: str) -> str:
    """Return a limit's name in words."""
    return LIMIT_NAMES.get(limit, limit)


def exactness(differing: int, compared: int) -> str:
    """Return how many output values equal the reference's, bit for bit."""
    if differing < 0 or compared <= 0:
        return "not compared"
    return f"{compared - differing:,} of {compared:,}"


def module(key: str) -> str:
    """Return the module path of a node or tensor key; of what stands in no module, its operation."""
    return key.partition(":")[0] or key.removeprefix(":")


def operation(key: str) -> str:
    """Return what follows the module path of a node or tensor key; nothing where ``module`` tells it already."""
    return "" if key.startswith(":") else key.partition(":")[2]
