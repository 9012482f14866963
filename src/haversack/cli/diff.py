"""``haversack diff``."""

from __future__ import annotations

from pathlib import Path

from haversack.cli.terminal import say, say_json


def diff(old: Path, new: Path, *, json: bool = False) -> None:
    """Tell what an update brings: which files travel, which layers changed and by how much.

    Parameters
    ----------
    old:
        The bundle that a device has.
    new:
        The one that it is to get.
    json:
        Print JSON.
    """
    from haversack.flow import bundle as flow

    found = flow.diff(old, new)
    if json:
        say_json(found.data())
    else:
        for line in found.lines():
            say(line)
