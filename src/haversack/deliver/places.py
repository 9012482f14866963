"""What ``--repository`` names to a publisher."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from haversack.base.errors import UsageError
from haversack.deliver.s3 import bucket
from haversack.deliver.storage import INSTEAD, Folder, Storage
from haversack.tools.store import atomic


def opened(name: str) -> Storage:
    """Return the storage that ``--repository`` names: a folder, or s3://BUCKET/PREFIX.

    Parts of files that a killed publisher left in a folder are removed; a bucket has none.

    Raises:
        UsageError: it is neither.
        MissingExtra: the package boto3 is not installed.
        EnvironmentFault: what is left there cannot be removed.
    """
    if name.startswith("s3://"):
        return bucket(name)
    if name.startswith("file:///"):
        return _tidied(Path(unquote(name.removeprefix("file://"))))
    if "://" in name or not name.strip():
        raise UsageError(
            f"{name[:80]!r} is no place to publish to: a folder, or s3://BUCKET/PREFIX",
            where="--repository",
            next_step="publish to the folder or bucket that the web server serves",
        )
    return _tidied(Path(name))


def _tidied(folder: Path) -> Folder:
    with atomic.told(folder, "remove unfinished files", INSTEAD):
        atomic.remove_leftovers(folder, "**/.*.part")
    return Folder(folder)
