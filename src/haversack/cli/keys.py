"""``haversack keys``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from haversack.cli.terminal import say, say_json


def keys(
    action: Literal["init", "rotate", "revoke"],
    folder: Path,
    *,
    role: str | None = None,
    repository: str | None = None,
    json: bool = False,
) -> int:
    """Make the keys that releases are signed with, or put new ones in the place of old ones.

    A passphrase for them is taken from HAVERSACK_KEYS_PASSPHRASE.

    Parameters
    ----------
    action:
        init makes them; rotate gives a role a new key; revoke does so at once and sets the old one aside, and withdraws
        a line with all its releases.
    folder:
        Where they lie.
    role:
        root-1, root-2, root-3, targets, snapshot, timestamp, or the name of a model line.
    repository:
        The folder or s3://BUCKET/PREFIX that trusts them.
    json:
        Print JSON.
    """
    from haversack.base.errors import UsageError
    from haversack.flow import publish as flow

    if action == "init":
        if role is not None or repository is not None:
            raise UsageError("keys init takes no --role and no --repository", next_step=f"haversack keys init {folder}")
        done: flow.Made | flow.Changed = flow.make_keys(folder)
    else:
        if role is None or repository is None:
            step = f"haversack keys {action} {folder} --role timestamp --repository site"
            raise UsageError("--role and --repository must be there", where=f"keys {action}", next_step=step)
        done = (flow.rotate if action == "rotate" else flow.revoke)(folder, role, repository)
    if json:
        say_json(done.data())
    else:
        for line in done.lines():
            say(line)
    return 0
