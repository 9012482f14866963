"""``haversack delta make`` and ``haversack delta apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from haversack.cli.terminal import say, say_json


def make(
    old: Path, new: Path, patch: Path, /, *, codec: Literal["hvd1", "bsdiff", "auto"] = "auto", json: bool = False
) -> int:
    """Write what makes the new file from the old one; works on model files and on any other.

    Parameters
    ----------
    old:
        The file that is there already.
    new:
        The file that is to be made from it.
    patch:
        The delta; an older delta of that name is replaced.
    codec:
        hvd1 (word by word where tensors are), bsdiff, or auto: the smaller of both.
    json:
        Print JSON.
    """
    from haversack.flow import deltas

    made = deltas.make_file(old, new, patch, codec)
    if json:
        say_json(made.data())
    else:
        for line in made.lines():
            say(line)
    return 0


def apply(old: Path, patch: Path, new: Path, /, *, json: bool = False) -> int:
    """Write the new file from the old one and a delta, checked against the hash that the delta states.

    Parameters
    ----------
    old:
        The file that the delta was made for.
    patch:
        What delta make wrote.
    new:
        Where the new file goes; nothing is replaced.
    json:
        Print JSON.
    """
    from haversack.flow import deltas

    applied = deltas.apply_file(old, patch, new)
    if json:
        say_json(applied.data())
    else:
        for line in applied.lines():
            say(line)
    return 0
