"""``haversack publish``."""

from __future__ import annotations

from pathlib import Path

from haversack.cli.terminal import display, say, say_json


def publish(
    bundle: Path,
    *,
    line: str,
    repository: str,
    keys: Path,
    encrypt: bool = False,
    devices: Path | None = None,
    json: bool = False,
) -> int:
    """Sign a bundle and put it into a repository: a folder, or a bucket of S3, served by anything static.

    Published again it changes nothing, except that more devices may open an encrypted release.

    Parameters
    ----------
    bundle:
        The folder that haversack bundle made.
    line:
        The model line, as the bundle names it.
    repository:
        A folder, made if need be, or s3://BUCKET/PREFIX.
    keys:
        The folder that haversack keys init made.
    encrypt:
        Encrypt what travels, with one key for this release.
    devices:
        A folder with the .pub files of the devices that get this key.
    json:
        Print JSON.
    """
    from haversack.flow import deltas
    from haversack.flow import publish as flow

    with display() as sink:
        done = flow.publish(
            bundle,
            line=line,
            repository=repository,
            keys=keys,
            encrypt=encrypt,
            devices=devices,
            delta=deltas.smallest,
            sink=sink,
        )
    if json:
        say_json(done.data())
    else:
        for text in done.lines():
            say(text)
    return 0
