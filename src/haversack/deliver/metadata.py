"""What all metadata of a repository have: a time of signing, a life; and where trust begins, the first root."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from haversack.base.errors import UsageError
from haversack.tools.store import atomic
from haversack.tools.trust.keys import FIRST_ROOT, ROOTS, TOP, Keys

if TYPE_CHECKING:
    from securesystemslib.signer import Key
    from tuf.api.metadata import Signed

LIVES = {"root": timedelta(365), "targets": timedelta(365), "snapshot": timedelta(30), "timestamp": timedelta(hours=24)}
"""How long what a role signs is valid; of a line as ``targets``."""
THRESHOLD = 2
SIGNED_AT = "signed_at"
"""A field of our own in every role: when it was signed. Devices without a clock learn the time from it."""
OWNER = "x-haversack-name"
"""A field of our own in the keys of root: which of the three it is."""


def first_root(keys: Keys, now: datetime) -> bytes:
    """Return the first root metadata of new keys, signed by all three root keys."""
    from tuf.api.metadata import Metadata, Root

    root = Root(version=1, consistent_snapshot=True)
    root.roles["root"].threshold = THRESHOLD
    for role in (*ROOTS, *TOP):
        for key in keys.of(role):
            root.add_key(owned(key.signer.public_key, role), "root" if role in ROOTS else role)
    stamp(root, LIVES["root"], now)
    metadata = Metadata(root)
    for role in ROOTS:
        for key in keys.of(role):
            metadata.sign(key.signer, append=True)
    return metadata.to_bytes()


def owned(key: Key, name: str) -> Key:
    """Return a public key that says which role's it is."""
    named = copy.deepcopy(key)
    named.unrecognized_fields[OWNER] = name
    return named


def roots(keys: Keys) -> dict[int, bytes]:
    """Return the root metadata beside keys, by version.

    Raises:
        UsageError: there is none.
        EnvironmentFault: it cannot be read.
    """
    with atomic.told(keys.folder, "read the root metadata"):
        found = {
            int(path.name.partition(".")[0]): path.read_bytes()
            for path in keys.folder.glob("*.root.json")
            if path.name.partition(".")[0].isdecimal()
        }
    if not found:
        cause = f"the folder of keys has no {FIRST_ROOT}, which says whom to believe"
        raise UsageError(cause, where=str(keys.folder), next_step="copy it there from the repository's folder metadata")
    return dict(sorted(found.items()))


def newest_root(keys: Keys) -> bytes:
    """Return the newest root metadata beside keys.

    Raises:
        UsageError: there is none.
    """
    return list(roots(keys).values())[-1]


def stamp(signed: Signed, life: timedelta, now: datetime) -> None:
    """Say when something is signed and until when it is valid."""
    signed.expires = now + life
    signed.unrecognized_fields[SIGNED_AT] = now.strftime("%Y-%m-%dT%H:%M:%SZ")


def signed_at(signed: Signed) -> datetime | None:
    """Return when something was signed; None where it does not say so."""
    text = signed.unrecognized_fields.get(SIGNED_AT)
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if isinstance(text, str) else None
    except ValueError:
        return None


def past_half(signed: Signed, now: datetime) -> bool:
    """Say whether the half of its time is over, or the other as well; so too where nothing says when it began."""
    began = signed_at(signed)
    return began is None or now - began > (signed.expires - began) / 2
