"""``haversack bundle``."""

from __future__ import annotations

import shlex
from pathlib import Path

from haversack.cli.terminal import say, say_json


def bundle(
    run: Path,
    *,
    out: Path,
    name: str = "",
    version: str = "",
    target: tuple[str, ...] = (),
    labels: Path | None = None,
    licence: tuple[Path, ...] = (),
    allow: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Make a folder that can be shipped of a finished run: the same bytes, whoever makes it, when and where.

    Exit codes: 0 made, 2 usage, 3 the run missed its budget, 5 a file failed or is not the one measured, 6 environment.

    Parameters
    ----------
    run:
        The folder of a finished run.
    out:
        The bundle's folder. NAME-VERSION.haversack tells name and version too: digits-1.3.0.haversack.
    name:
        Of the model line, where the folder's name does not tell it: small letters, digits and dashes.
    version:
        Of the release, where the folder's name does not tell it: 1.3.0, or 1.3.0-rc.1.
    target:
        A runtime that goes in; repeat for more. All that the run ships, unless one is named.
    labels:
        A text file with one label a line, in place of the job's.
    licence:
        A text file that travels along; repeat for more.
    allow:
        missed: ship what misses its budget. Or a kind of finding that the run failed for; repeat for more.
    json:
        Print JSON: what inspect tells of it.
    """
    from haversack.flow import bundle as flow
    from haversack.flow.shipping import Wish
    from haversack.flow.workshop import unfinished

    if (stopped := unfinished(run)) is not None:
        raise stopped
    flow.bundle(run, out, Wish(name, version, labels, licence, target, allow))
    contents = flow.inspect(out)
    if json:
        say_json(contents.data())
    else:
        for line in contents.lines():
            say(line)
        say(f"next: haversack verify {shlex.quote(str(out))}")
    return 0
