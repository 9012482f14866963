"""``haversack inspect``."""

from __future__ import annotations

from pathlib import Path

from haversack.cli.terminal import say, say_json


def inspect(bundle: Path, *, json: bool = False) -> None:
    """Tell what is in a bundle: files, sizes, downloads, runtimes, quality, golden vectors, licences.

    Parameters
    ----------
    bundle:
        The folder of a bundle; every byte of it is held against its manifest.
    json:
        Print JSON.
    """
    from haversack.flow import bundle as flow

    contents = flow.inspect(bundle)
    if json:
        say_json(contents.data())
    else:
        for line in contents.lines():
            say(line)
