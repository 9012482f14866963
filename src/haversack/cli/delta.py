"""``haversack delta``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from haversack.cli.terminal import say, say_json


def delta(
    action: Literal["make", "apply"],
    old: Path,
    other: Path,
    result: Path,
    *,
    codec: Literal["hvd1", "bsdiff", "auto"] = "auto",
    json: bool = False,
) -> int:
    """Make a file from an older one and what changed: delta make OLD NEW DELTA, delta apply OLD DELTA NEW.

    Parameters
    ----------
    action:
        make writes what makes the new file from the old one, of model files and of any others; apply writes the new
        file, checked against the hash that the delta states.
    old:
        The file that is there already.
    other:
        The new file, to make a delta; the delta, to apply it.
    result:
        Where the delta goes, which may take the place of an older one; or the new file, which replaces nothing.
    codec:
        Of a delta that is made: hvd1 (word by word where tensors are), bsdiff, or auto, the smaller of both.
    json:
        Print JSON.
    """
    from haversack.flow import deltas

    found = deltas.make_file(old, other, result, codec) if action == "make" else deltas.apply_file(old, other, result)
    if json:
        say_json(found.data())
    else:
        for line in found.lines():
            say(line)
    return 0
