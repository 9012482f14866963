"""What ``--repository`` names to a publisher."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from haversack.base.errors import UsageError
from haversack.deliver.s3 import bucket
from haversack.deliver.storage import Folder, Storage


def opened(name: str) -> Storage:
    """Return the storage that ``--repository`` names: a folder, or s3://BUCKET/PREFIX.

    Raises:
        UsageError: it is neither.
        MissingExtra: the package boto3 is not installed.
    """
    if name.startswith("s3://"):
        return bucket(name)
    if name.startswith("file:///"):
        return Folder(Path(unquote(name.removeprefix("file://"))))
    if "://" in name or not name:
        raise UsageError(
            f"{name[:80]!r} is no place to publish to: a folder, or s3://BUCKET/PREFIX",
            where="--repository",
            next_step="publish to the folder or bucket that the web server serves",
        )
    return Folder(Path(name))
