"""One bit of every byte of all metadata of a small repository is turned over.

A device refuses it, or what it read is as it was signed: the case of a hexadecimal digit does not change a signature,
of three signatures of root two are enough, and python-tuf reads ``2026-06- 2`` as the date that it is.
"""

from __future__ import annotations

import shutil

import pytest
from sites import Site, files
from tuf.api.metadata import Metadata

from haversack.base.errors import EnvironmentFault, HaversackError, Refused
from haversack.deliver.rotation import rotate

FILES = ["timestamp.json", "3.snapshot.json", "2.targets.json", "2.digits.json", "2.root.json"]


def outcome(site: Site, path: str, data: bytes) -> str:
    device = site.device(fetch=files(site.root, lambda asked, was: data if asked == path else was))
    shutil.rmtree(device.cache, ignore_errors=True)
    try:
        return device.release("digits").version
    except (Refused, EnvironmentFault) as error:
        assert isinstance(error, HaversackError)
        return type(error).__name__


def signed(data: bytes) -> object:
    return Metadata.from_bytes(data).signed.to_dict()


@pytest.mark.timeout(900)  # several thousand updates of a device
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_metadata_is_refused(published, name):
    rotate(published.repository, "root-1")
    data = (published.root / "metadata" / name).read_bytes()
    assert outcome(published, "", b"") == "1.1.0"
    taken = 0
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place * 5 + 1) % 8
        if outcome(published, f"metadata/{name}", bytes(changed)) != "Refused":
            assert signed(bytes(changed)) == signed(data), f"byte {place} of {name}"
            taken += 1
    assert taken < (160 if "root" not in name else len(data) / 2)


def test_a_flipped_bit_in_a_release_is_refused(published):
    path = next((published.root / "targets").rglob("*.1.1.0.json"))
    name = path.relative_to(published.root).as_posix()
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        assert outcome(published, name, bytes(changed)) == "Refused", place
