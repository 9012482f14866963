"""The key of an encrypted release: fetched as it was wrapped for this device, kept so, and opened when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.release import Release
from haversack.deliver.trusted import Missing
from haversack.tools.store import atomic
from haversack.tools.trust import wrap

Small = Callable[[str, int], bytes]
"""(path below the repository's root, most bytes) -> a file; raises ``Missing``."""


def release_key(release: Release, private: Path, kept: Path, small: Small) -> bytes | None:
    """Return the key of a release, 32 bytes; None where it is not encrypted.

    Args:
        release: signed.
        private: the device's private key.
        kept: a folder for wrapped keys.
        small: fetches a file of the repository.

    Raises:
        UsageError: the device has no key.
        EnvironmentFault: its key was not given the release, or the repository cannot be reached.
        Refused: what was fetched is no key of this release for this device.
    """
    if release.encryption is None:
        return None
    with atomic.told(private, "read the device's key", atomic.HOME):
        if not private.exists():
            step = "haversack client enrol, and give the publisher the .pub file that it makes"
            raise UsageError("the release is encrypted, and this device has no key", where=release.line, next_step=step)
    key, number = wrap.read_private(private), release.encryption.key_id
    device = wrap.public_half(key, "this-device")
    place = kept / f"{number}.hpke"
    with atomic.told(place, "read a release's key", atomic.HOME):
        if place.is_file():
            try:
                return wrap.unwrap(place.read_bytes(), key, release.line, release.version, number)
            except Refused:
                place.unlink()
    try:
        data = small(wrap.path(number, device), wrap.WRAPPED_BYTES)
    except Missing as error:
        step = f"give the publisher {private.name}.pub of {private.parent}: haversack publish … --devices FOLDER"
        cause = "the release is encrypted, and its key was not given to this device"
        raise EnvironmentFault(cause, where=release.line, next_step=step) from error
    found = wrap.unwrap(data, key, release.line, release.version, number)
    atomic.make_folder(kept, atomic.HOME)
    atomic.write_bytes(place, data, atomic.HOME)
    return found
