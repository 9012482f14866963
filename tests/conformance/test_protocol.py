"""What a client of TUF must do, case by case, asked of the executable for the public conformance suite.

The suite (theupdateframework/tuf-conformance) is on no package index; these are the cases that it and the
specification name: versions, expiry, digests and lengths, endless data, files that are downloaded. Keys and delegations
have a file of their own.
"""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from simulator import NOW, Simulator
from tuf.api.metadata import Metadata


def test_a_new_client_asks_for_each_role_once(client, repository):
    assert client.init() == 0
    assert repository.asked == []
    assert client.refresh() == 0
    wanted = ["2.root", "timestamp", "1.snapshot", "1.targets"]
    assert repository.asked == [f"metadata/{name}.json" for name in wanted]
    assert client.versions() == (1, 1, 1, 1)


def test_what_did_not_change_is_not_asked_again(client, repository):
    client.ready()
    assert client.refresh() == 0
    assert repository.asked[-2:] == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert len(repository.asked) == 6


def test_a_download_alone_refreshes_first(client, repository):
    client.init()
    assert client.download("nothing of this name") == 1
    assert client.versions() == (1, 1, 1, 1)
    assert client.files() == []


@pytest.mark.parametrize("spoil", ["version", "signature", "role", "text"])
def test_a_first_root_that_is_none_is_not_trusted(client, repository, spoil):
    data = json.loads(repository.first_root)
    if spoil == "version":
        del data["signed"]["version"]
    elif spoil == "signature":
        data["signatures"][0]["sig"] = "00" * 64
    elif spoil == "role":
        data = json.loads(repository.files["metadata/timestamp.json"])
    client.root = b"no metadata" if spoil == "text" else json.dumps(data).encode()
    client.init()
    assert client.refresh() == 1
    assert repository.asked == []


def test_fields_that_nobody_knows_are_signed_and_left_alone(client, repository):
    client.ready()
    repository.root.unrecognized_fields["x-more"] = {"a": [1, None]}
    repository.root.roles["root"].unrecognized_fields["x-more"] = "b"
    repository.publish("root")
    assert client.refresh() == 0
    assert client.version("root") == 2


# Older versions.


def test_an_older_timestamp_is_refused(client, repository):
    repository.publish("timestamp")
    client.ready()
    repository.signed["timestamp"].version = 1
    repository.write("timestamp")
    assert client.refresh() == 1
    assert client.version("timestamp") == 2
    assert repository.asked[-1] == "metadata/timestamp.json"


def test_another_timestamp_of_the_same_version_is_not_taken(client, repository):
    client.ready()
    before = client.kept("timestamp")
    repository.signed["timestamp"].snapshot_meta.version = 100
    repository.write("timestamp")
    assert client.refresh() == 0
    assert client.kept("timestamp") == before


@pytest.mark.parametrize("hashes", [True, False])
def test_an_older_snapshot_is_refused(client, repository, hashes):
    repository.hashes = hashes
    repository.publish("snapshot")
    client.ready()
    repository.signed["snapshot"].version = 0
    repository.publish("snapshot")
    assert client.refresh() == 1
    assert client.versions()[1:3] == (2, 2)


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("role", ["targets", "below"])
def test_older_targets_are_refused(client, repository, role, hashes):
    repository.hashes = hashes
    repository.delegate("targets", "below", "below/*")
    repository.publish("targets", "below")
    repository.publish("targets", "below")
    client.ready()
    client.download("below/nothing")
    repository.signed[role].version = 0
    repository.publish(role)
    assert client.refresh() == 1
    assert client.version("snapshot") == 3


def test_a_snapshot_that_forgets_a_role_is_refused(client, repository):
    client.ready()
    del repository.signed["snapshot"].meta["targets.json"]
    repository.publish("snapshot")
    assert client.refresh() == 1
    assert client.version("snapshot") == 1


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_new_key_brings_versions_back_that_somebody_drove_ahead(client, repository, role):
    """A thief signs version 1001; root names other keys, and 1 is what counts again."""
    repository.signed[role].version = 1000
    repository.publish(role)
    client.ready()
    assert client.version(role) == 1001
    for number, name in enumerate(("timestamp", "snapshot"), 5):
        repository.rotate(name, number)
    repository.signed[role].version = 0
    repository.publish("root")
    repository.publish(role, *({"snapshot"} - {role}))
    assert client.refresh() == 0
    assert client.version(role) == 1


# Roots.


def test_a_gap_in_the_roots_ends_the_way(client, repository):
    """3.root.json without 2.root.json leads nowhere, whoever signed it."""
    client.ready()
    repository.publish("root")
    repository.publish("root")
    del repository.files["metadata/2.root.json"]
    assert client.refresh() == 0
    assert client.version("root") == 1


@pytest.mark.parametrize("version", [1, 3, 1000])
def test_a_root_under_the_name_of_another_version_is_refused(client, repository, version):
    client.ready()
    repository.root.version = version
    repository.write("root", 2)
    assert client.refresh() == 1
    assert client.version("root") == 1


def test_more_roots_than_there_may_be_are_not_followed_for_ever(client, repository, monkeypatch):
    monkeypatch.setattr("haversack.deliver.trusted.MOST_ROTATIONS", 5)
    for _ in range(12):
        repository.publish("root")
    client.ready()
    assert client.version("root") == 6
    assert sum("root" in path for path in repository.asked) == 5


# Expired.


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_expired_is_not_taken(client, repository, role):
    client.ready()
    before = client.version(role)
    repository.signed[role].expires = NOW - timedelta(5)
    repository.publish(role)
    assert client.refresh() == 1
    if role == "timestamp":
        assert client.version(role) == before
    assert repository.asked[-1] == repository.path(role, before + 1)


def test_an_expired_root_is_kept_and_nothing_below_it_is_asked(client, repository):
    """The specification, 5.3.10: what follows an expired root may yet be one that is not."""
    client.ready()
    repository.root.expires = NOW - timedelta(1)
    repository.publish("root")
    repository.publish("targets")
    assert client.refresh() == 1
    assert client.versions() == (2, 1, 1, 1)
    repository.root.expires = NOW + timedelta(9)
    repository.publish("root")
    assert client.refresh() == 0
    assert client.versions() == (3, 2, 2, 2)


def test_an_expired_role_below_targets_gives_no_file(client, repository):
    below = repository.delegate("targets", "below", "below/*")
    repository.add("below", "below/file", b"content")
    below.expires = NOW - timedelta(1)
    repository.publish("targets", "below")
    client.init()
    assert client.download("below/file") == 1
    assert client.files() == []


def test_what_a_client_has_may_have_expired(client, repository):
    repository.signed["timestamp"].expires = NOW + timedelta(7)
    repository.publish("timestamp")
    client.ready()
    repository.signed["timestamp"].expires = NOW + timedelta(21)
    repository.publish("targets")
    assert client.refresh(days=18) == 0
    assert client.versions() == (1, 3, 2, 2)


def test_a_repository_that_is_kept_still_is_told(client, repository):
    """Freeze: the same files for ever; they count until they expire."""
    client.ready()
    assert client.refresh(days=29) == 0
    assert client.refresh(days=31) == 1


# Digests, lengths, mixtures.


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_other_bytes_than_are_stated_are_refused(client, repository, role):
    """Rightly signed, of the right version, and not what the role above it named."""
    client.ready()
    repository.publish("targets")
    repository.signed[role].unrecognized_fields["x-more"] = "changed"
    repository.write(role)
    assert client.refresh() == 1
    assert client.version(role) == 1


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_another_version_than_is_stated_is_refused(client, repository, role):
    repository.hashes = False
    client.ready()
    repository.publish("targets")
    repository.signed[role].version += 5
    repository.write(role, 2)
    assert client.refresh() == 1
    assert client.version(role) == 1


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_files_of_two_moments_do_not_mix(client, repository, role):
    client.ready()
    before = repository.files[repository.path(role, 1)]
    repository.publish("targets")
    repository.files[repository.path(role, 2)] = before
    assert client.refresh() == 1
    assert client.version(role) == 1


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "below"])
def test_endless_metadata_are_left(client, repository, role):
    repository.hashes = False
    repository.delegate("targets", "below", "below/*")
    repository.publish("targets", "below")
    client.init()
    version = {"root": 2, "below": 1, "snapshot": 2, "targets": 2}.get(role, 0)
    repository.endless.add(repository.path(role, version))
    assert client.download("below/file") == 1
    assert repository.asked[-1] == repository.path(role, version)


# Files.


@pytest.mark.parametrize("path", ["file.txt", "a/path/of/three/file", "ein Name mit %2e und ü"])
def test_a_file_is_downloaded_once(client, repository, path):
    place = repository.add("targets", path, b"content")
    repository.files[place.replace(path, "") + path] = b"content"
    repository.files |= {client.quoted(place): b"content"}
    repository.publish("targets")
    client.ready()
    assert client.files() == []
    assert client.download(path) == 0
    assert client.files() == [b"content"]
    asked = len(repository.asked)
    assert client.download(path) == 0
    assert not any(one.startswith("targets/") for one in repository.asked[asked:])


@pytest.mark.parametrize("content", [b"Content", b"conten", b"content and more", b""])
def test_a_file_that_somebody_put_there_is_not_taken(client, repository, content):
    place = repository.add("targets", "file", b"content")
    repository.publish("targets")
    repository.files[place] = content
    client.init()
    assert client.download("file") == 1
    assert client.files() == []


def test_an_endless_file_is_left(client, repository):
    place = repository.add("targets", "file", b"content")
    repository.publish("targets")
    repository.endless.add(place)
    client.init()
    assert client.download("file") == 1
    assert client.files() == []


def test_a_file_that_changes_is_replaced_and_a_false_one_is_not(client, repository):
    client.init()
    for number in range(3):
        place = repository.add("targets", "file", f"content {number}".encode())
        repository.publish("targets")
        assert client.download("file") == 0
        assert client.files() == [f"content {number}".encode()]
        place = repository.add("targets", "file", b"the next")
        repository.publish("targets")
        repository.files[place] = b"false it"
        assert client.download("file") == 1
        assert client.files() == [f"content {number}".encode()]


def test_the_simulator_says_what_it_is_asked_to():
    """Its own defects would show as cases that nobody sees fail."""
    made = Simulator()
    made.publish("targets")
    timestamp = Metadata.from_bytes(made.files["metadata/timestamp.json"]).signed
    snapshot = Metadata.from_bytes(made.files["metadata/2.snapshot.json"]).signed
    timestamp.snapshot_meta.verify_length_and_hashes(made.files["metadata/2.snapshot.json"])
    snapshot.meta["targets.json"].verify_length_and_hashes(made.files["metadata/2.targets.json"])
    assert (timestamp.version, snapshot.version, timestamp.snapshot_meta.version) == (2, 2, 2)
