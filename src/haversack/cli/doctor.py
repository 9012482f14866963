"""``haversack doctor``."""

from __future__ import annotations

from haversack.cli.terminal import say, say_json


def doctor(*, json: bool = False) -> int:
    """Tell what is installed, what each target can do here, and what adds the rest.

    Parameters
    ----------
    json:
        Print JSON.
    """
    from haversack.base.errors import EXIT_ENVIRONMENT
    from haversack.flow import doctor as flow

    found = flow.examine()
    if json:
        say_json(found.data())
    else:
        for line in found.lines():
            say(line)
    return 0 if found.healthy else EXIT_ENVIRONMENT
