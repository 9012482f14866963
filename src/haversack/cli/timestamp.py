"""``haversack timestamp``."""

from __future__ import annotations

import sys
from pathlib import Path

from haversack.cli.terminal import say, say_json


def timestamp(*, repository: str, keys: Path, json: bool = False) -> int:
    """Sign a repository's timestamp anew, for 24 hours: for cron, every 6 hours.

    What else is past the half of its time is signed anew as well, where its key is there. Exit code 6: the last
    timestamp had expired, or more than half of its time was over. It is signed anew all the same.

    Parameters
    ----------
    repository:
        A folder, or s3://BUCKET/PREFIX.
    keys:
        A folder with the key of the timestamp at least, and 1.root.json.
    json:
        Print JSON.
    """
    from haversack.flow import publish as flow

    done = flow.renew(repository, keys)
    if json:
        say_json(done.data())
    else:
        for line in done.lines():
            say(line)
    for line in done.alarms():
        sys.stderr.write(f"haversack: {line}\n")
    return done.exit_code
