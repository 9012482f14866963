"""From a bundle to a release: what is stored, in which form, for whom, and what publishing again changes."""

from __future__ import annotations

import hashlib
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save
from sites import Site, bundle, opened

from haversack.base import digest
from haversack.base.bundle import BundleFile
from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.release import Release
from haversack.deliver import publishing, releases
from haversack.tools.codec import download
from haversack.tools.formats.index import index
from haversack.tools.trust import canonical, stream, wrap


def tree(site: Site) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(site.root.rglob("*")) if path.is_file()}


def whole(site: Site, release: Release, key: bytes | None = None) -> dict[str, bytes]:
    """Return every file of a release, from the blobs that lie in the repository."""
    found = {}
    for file in release.files:
        blob = file.blobs[0]
        data = (site.root / blob.path).read_bytes()
        assert (digest.of_bytes(data), len(data)) == (blob.sha256, blob.bytes)
        data = data if key is None else stream.opened(data, key, limit=len(data))
        data = download.unpack(data, limit=file.bytes) if blob.form == "download" else data
        assert (digest.of_bytes(data), len(data)) == (file.sha256, file.bytes)
        found[file.name] = data
    return found


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def xor(old: bytes, new: bytes) -> tuple[str, bytes]:
    """Say at which places two files differ: a delta that a test can read."""
    places = [place for place in range(len(new)) if place >= len(old) or old[place] != new[place]]
    return "hvd1", b"".join(place.to_bytes(4, "big") + new[place : place + 1] for place in places)


def changed(data: bytes, count: int) -> bytes:
    copy = bytearray(data)
    for place in range(count):
        copy[place * 3] ^= 1
    return bytes(copy)


def test_every_file_of_the_bundle_is_in_the_release(site):
    done = site.publish("1.0.0")
    folder = site.folder / "bundles" / "digits-1.0.0.haversack"
    assert whole(site, done.release) == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert done.release == site.device().release("digits")
    manifest = next(file for file in done.release.files if file.name == "manifest.json")
    assert (manifest.role, manifest.target) == ("manifest", "")


def test_the_release_is_in_canonical_form_under_its_sha256(site):
    done = site.publish("1.0.0")
    (path,) = (site.root / "targets" / "digits").iterdir()
    data = path.read_bytes()
    assert data == canonical.dumps(done.release)
    assert path.name == f"{hashlib.sha256(data).hexdigest()}.1.0.0.json"


def test_the_smaller_form_travels(site):
    """Noise cannot be packed, text can."""
    done = site.publish("1.0.0", model=noise(5000))
    forms = {file.name: file.blobs[0] for file in done.release.files}
    assert (forms["litert.tflite"].form, forms["litert.tflite"].bytes) == ("plain", 5000)
    done = site.publish("1.1.0", model=b"text " * 1000)
    forms = {file.name: file.blobs[0] for file in done.release.files}
    assert forms["litert.tflite"].form == "download"
    assert forms["litert.tflite"].bytes < 200


def test_tensors_of_a_model_are_told_to_the_form(site):
    """A blob has the size that the report named, and knows rows and columns of unlike spread."""
    random = np.random.default_rng(0)
    spread = random.permutation(np.geomspace(1, 40, 512)) * random.permutation(np.geomspace(0.5, 2, 256))[:, None]
    weights = np.rint(random.normal(0, 1, (256, 512)) * spread).clip(-127, 127).astype(np.int8)
    model = save({"w": weights})
    done = site.publish("1.0.0", model=model)
    blob = next(file.blobs[0] for file in done.release.files if file.name == "litert.tflite")
    assert blob.bytes == len(download.pack(model, index(model))) < 0.97 * len(download.pack(model))
    assert whole(site, done.release)["litert.tflite"] == model


def test_the_same_bundle_twice_changes_nothing(published):
    before = tree(published)
    published.clock.wait(hours=5)
    done = published.publish("1.1.0")
    assert not done.changed
    assert done.release.sequence == 2
    assert tree(published) == before


def test_the_same_manifest_over_files_that_were_changed_is_refused(published):
    path = published.folder / "bundles" / "digits-1.1.0.haversack" / "litert.tflite"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Refused):
        published.publish("1.1.0")


def test_a_version_with_other_content_is_refused(published):
    before = tree(published)
    shutil.rmtree(published.folder / "bundles" / "digits-1.0.0.haversack")
    with pytest.raises(Refused, match="published with other content") as caught:
        published.publish("1.0.0", model=b"another")
    assert "litert.tflite" in caught.value.cause
    assert "new version" in caught.value.next_step
    assert tree(published) == before


def test_a_version_that_was_not_encrypted_stays_so(published):
    with pytest.raises(Refused, match="without encryption"):
        published.publish("1.0.0", encrypt=True)
    published.publish("1.2.0", encrypt=True)
    with pytest.raises(Refused, match="with encryption"):
        published.publish("1.2.0")


def test_sequences_count_by_line(published):
    assert published.publish("0.9.0").release.sequence == 3
    assert published.publish("1.0.0", "words").release.sequence == 1
    assert published.device().release("digits").version == "0.9.0"
    assert published.device().release("words").version == "1.0.0"


def test_unchanged_files_are_stored_once(published):
    before = set(tree(published))
    done = published.publish("1.2.0", model=b"the model 1.1.0 of digits\n" * 20)
    new = {path for path in set(tree(published)) - before if "/blobs/" in path}
    assert len(new) == 1  # the manifest
    assert done.changed


# Deltas.


def test_deltas_from_the_last_three_releases(site):
    model = noise(20_000)
    for number in range(5):
        done = site.publish(f"1.{number}.0", model=changed(model, number * 50), delta=xor)
    file = next(file for file in done.release.files if file.name == "litert.tflite")
    bases = [digest.of_bytes(changed(model, number * 50)) for number in (3, 2, 1)]
    assert [blob.base for blob in file.blobs] == ["", *bases]
    assert [blob.form for blob in file.blobs] == ["plain", "hvd1", "hvd1", "hvd1"]
    delta = (site.root / file.blobs[1].path).read_bytes()
    assert delta == xor(changed(model, 150), changed(model, 200))[1]
    assert site.device().release("digits") == done.release


def test_a_delta_that_saves_little_does_not_travel(site):
    model = noise(20_000)
    site.publish("1.0.0", model=model)
    fits = int(20_000 * publishing.WORTH) // 5
    done = site.publish("1.1.0", model=changed(model, fits), delta=xor)
    file = next(file for file in done.release.files if file.name == "litert.tflite")
    assert file.blobs[1].bytes == 12_000
    done = site.publish("1.2.0", model=changed(model, 2 * fits + 1), delta=xor)
    file = next(file for file in done.release.files if file.name == "litert.tflite")
    assert len(file.blobs) == 1


def test_no_delta_of_what_did_not_change_or_is_small(site):
    asked = []

    def noted(old, new):
        asked.append((len(old), len(new)))
        return xor(old, new)

    site.publish("1.0.0", model=noise(9000))
    site.publish("1.1.0", model=noise(9000), delta=noted)
    site.publish("1.2.0", model=noise(9000)[:1000], delta=noted)
    assert asked == []
    site.publish("1.3.0", model=noise(9000, 1), delta=lambda old, new: noted(old, new) and None)
    assert asked == [(1000, 9000), (9000, 9000)]


def test_no_delta_of_what_no_device_fetches(site):
    asked = []

    def noted(old, new):
        asked.append(len(new))
        return xor(old, new)

    for number in range(2):
        folder = bundle(site.folder / "bundles", f"1.{number}.0", model=changed(noise(20_000), number))
        data = changed(noise(30_000, 7), number)
        (folder / "encodings.safetensors").write_bytes(data)
        entry = BundleFile("encodings.safetensors", "encodings", len(data), digest.of_bytes(data))
        manifest, read = opened(folder)
        manifest = replace(manifest, files=(entry, *manifest.files))
        done = publishing.publish(site.repository, manifest, read, delta=noted)
    assert [file.name for file in done.release.files if len(file.blobs) > 1] == ["litert.tflite"]
    assert asked == [20_000]


def test_deltas_between_encrypted_releases(site):
    """The publisher's own copy of the key opens the older one; what travels is encrypted with the new key."""
    model = noise(20_000)
    site.publish("1.0.0", model=model, encrypt=True)
    done = site.publish("1.1.0", model=changed(model, 30), encrypt=True, delta=xor)
    file = next(file for file in done.release.files if file.name == "litert.tflite")
    assert file.blobs[1].base == digest.of_bytes(model)
    key = releases.release_key(site.repository, done.release)
    data = (site.root / file.blobs[1].path).read_bytes()
    assert stream.opened(data, key, limit=len(data)) == xor(model, changed(model, 30))[1]
    assert file.blobs[1].bytes == stream.sealed_bytes(len(xor(model, changed(model, 30))[1]))


def test_an_older_release_that_cannot_be_opened_is_told(site):
    model = noise(20_000)
    site.publish("1.0.0", model=model, encrypt=True)
    (site.keys / "publisher.pem").rename(site.keys / "publisher.pem.away")
    done = site.publish("1.1.0", model=changed(model, 9), encrypt=True, delta=xor)
    assert done.left_out == ("litert.tflite of 1.0.0: the publisher's key does not open it",)
    (site.keys / "publisher.pem.away").rename(site.keys / "publisher.pem")
    first = releases.find(site.repository, site.repository.state(), "digits", "1.0.0")
    blob = next(file for file in first.files if file.name == "litert.tflite").blobs[0]
    (site.root / blob.path).unlink()
    done = site.publish("1.2.0", model=changed(model, 19), encrypt=True, delta=xor)
    assert "litert.tflite of 1.0.0: its blob is gone" in done.left_out


def test_an_older_blob_that_was_changed_is_refused(site):
    model = noise(20_000)
    first = site.publish("1.0.0", model=model).release
    blob = next(file for file in first.files if file.name == "litert.tflite").blobs[0]
    (site.root / blob.path).write_bytes(changed(model, 1))
    with pytest.raises(Refused, match="not what its name says"):
        site.publish("1.1.0", model=changed(model, 9), delta=xor)


# Encryption.


def devices(site: Site, *names: str) -> tuple[wrap.Device, ...]:
    return tuple(wrap.create_device(site.folder / name / "device.key", name) for name in names)


def test_enrolled_devices_open_an_encrypted_release(site):
    first, second = devices(site, "first", "second")
    done = site.publish("1.0.0", encrypt=True, devices=[first])
    release, number = done.release, done.release.encryption.key_id
    assert done.enrolled == 1
    data = (site.root / wrap.path(number, first)).read_bytes()
    private = wrap.read_private(site.folder / "first" / "device.key")
    key = wrap.unwrap(data, private, "digits", "1.0.0", number)
    folder = site.folder / "bundles" / "digits-1.0.0.haversack"
    assert whole(site, release, key) == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not (site.root / wrap.path(number, second)).exists()
    other = wrap.read_private(site.folder / "second" / "device.key")
    with pytest.raises(Refused):
        wrap.unwrap(data, other, "digits", "1.0.0", number)


def test_nothing_of_the_plain_files_lies_in_the_repository(site):
    model = noise(9000)
    site.publish("1.0.0", model=model, encrypt=True)
    assert not any(model[:40] in data or b"zero\none" in data for data in tree(site).values())
    assert not any(digest.of_bytes(model) in path.replace("/", "") for path in tree(site))


def test_a_device_that_is_enrolled_later(site):
    first, second = devices(site, "first", "second")
    site.publish("1.0.0", encrypt=True, devices=[first])
    before = tree(site)
    done = site.publish("1.0.0", encrypt=True, devices=[first, second])
    assert (done.changed, done.enrolled) == (False, 1)
    assert len(tree(site)) == len(before) + 1
    assert before.items() <= tree(site).items()
    private = wrap.read_private(site.folder / "second" / "device.key")
    number = done.release.encryption.key_id
    data = (site.root / wrap.path(number, second)).read_bytes()
    assert len(wrap.unwrap(data, private, "digits", "1.0.0", number)) == 32
    (site.keys / "publisher.pem").unlink()
    with pytest.raises(UsageError, match="no device can be added"):
        site.publish("1.0.0", encrypt=True, devices=[first, second])


def test_each_release_has_its_own_key(site):
    keys = [site.publish(f"1.{number}.0", encrypt=True).release.encryption.key_id for number in range(3)]
    assert len(set(keys)) == 3


def test_devices_without_encryption_are_a_mistake(site):
    with pytest.raises(UsageError, match="not to be encrypted") as caught:
        site.publish("1.0.0", devices=devices(site, "first"))
    assert caught.value.next_step == "add --encrypt"


# What must not be published.


@pytest.mark.parametrize("line", ["targets", "snapshot", "timestamp", "root", "root-1", "publisher"])
def test_a_line_has_no_name_of_a_role(site, line):
    with pytest.raises(UsageError, match="cannot be called"):
        site.publish("1.0.0", line)
    assert not site.root.exists()


def test_a_file_that_is_not_what_the_manifest_says_is_refused(site):
    folder = bundle(site.folder, "1.0.0")
    (folder / "labels.txt").write_bytes(b"zero\ntwo\n")
    manifest, read = opened(folder)
    with pytest.raises(Refused, match="not the file that the manifest names"):
        publishing.publish(site.repository, manifest, read)
    with pytest.raises(Refused):
        site.device().release("digits")


def test_a_blob_under_a_false_name_is_told(site):
    done = site.publish("1.0.0")
    blob = done.release.files[0].blobs[0]
    (site.root / blob.path).write_bytes(b"false")
    with pytest.raises(EnvironmentFault, match="other bytes lie there"):
        site.publish("1.0.0", "words")


def test_progress_is_told_by_file(site):
    told = []
    site.publish("1.0.0", sink=lambda event: told.append((event.done, event.total)))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
