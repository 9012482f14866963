"""How many of what, in words: ``1 layer``, ``2 layers``."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``counted(1, "layer")`` is ``1 layer``, and 1200 of them are ``1,200 layers``.

    Args:
        number: how many, none or more.
        one: the noun for one of them.
        many: for any other number; ``one`` with an s where nothing is said.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
