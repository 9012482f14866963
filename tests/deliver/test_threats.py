"""What somebody may do who owns the network, the server, a key or the device's clock, and what comes of it.

The client is python-tuf's, the files and servers are real; docs/security.md lists the threats.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler

import pytest
from sites import Memory, Site, files, later, over_http, served
from tuf.api.metadata import Metadata, Root, Targets

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.deliver import releases
from haversack.deliver.metadata import first_root
from haversack.deliver.repository import Repository
from haversack.deliver.rotation import delegate, revoke, rotate
from haversack.deliver.storage import Folder
from haversack.deliver.trusted import Expired
from haversack.tools.trust import keys


def newest(site: Site, role: str) -> str:
    """Return the path of the newest metadata of a role."""
    names = [path.name for path in (site.root / "metadata").glob(f"*.{role}.json")]
    return "metadata/" + max(names, key=lambda name: int(name.partition(".")[0]))


def swapped(site: Site, change, *paths: str):
    """Return what fetches from a site, with some paths changed."""
    return files(site.root, lambda path, data: change(data) if path in paths else data)


# Tampering.


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "digits"])
def test_metadata_that_somebody_wrote_himself_is_refused(published, role):
    """Whoever owns the server rewrites a role, and signs it with a key of his own."""
    path = "metadata/timestamp.json" if role == "timestamp" else newest(published, role)
    signer = keys.create(published.folder / "thief").of("targets")[0].signer

    def forged(data: bytes) -> bytes:
        metadata = Metadata.from_bytes(data)
        metadata.signed.expires += timedelta(days=900)
        metadata.sign(signer)
        return metadata.to_bytes()

    with pytest.raises(Refused):
        published.device(fetch=swapped(published, forged, path)).release("digits")


def test_a_release_that_was_changed_is_refused(published):
    target = next(
        path for path in (published.root / "targets" / "digits").iterdir() if path.name.endswith(".1.1.0.json")
    )
    data = target.read_bytes()
    target.write_bytes(data.replace(b'"sequence":2', b'"sequence":3'))
    with pytest.raises(Refused):
        published.device().release("digits")
    target.write_bytes(data[:-1])
    with pytest.raises(Refused):
        published.device().release("digits")
    target.write_bytes(data)
    assert published.device().release("digits").version == "1.1.0"


def test_a_missing_release_is_no_release(published):
    shutil.rmtree(published.root / "targets")
    with pytest.raises(EnvironmentFault):
        published.device().release("digits")


def test_a_signed_release_that_says_something_else_is_refused(site):
    """Its line's key signed another sequence than is in it."""
    site.publish("1.0.0")
    repository = site.repository
    state = repository.state()
    role = copy.deepcopy(state.lines["digits"].signed)
    role.targets["digits/1.0.0.json"].unrecognized_fields["custom"] = {"sequence": 9}
    repository.commit(state, {"digits": role})
    with pytest.raises(Refused, match="another line, version or sequence"):
        site.device().release("digits")


@pytest.mark.parametrize("custom", [None, 3, {}, {"sequence": "2"}, {"sequence": 0}, {"sequence": True}], ids=str)
def test_a_release_without_a_sequence_is_refused(site, custom):
    site.publish("1.0.0")
    state = site.repository.state()
    role = copy.deepcopy(state.lines["digits"].signed)
    role.targets["digits/1.0.0.json"].unrecognized_fields["custom"] = custom
    site.repository.commit(state, {"digits": role})
    with pytest.raises(Refused, match="no sequence"):
        site.device().release("digits")


def test_two_releases_of_one_sequence_are_refused(published):
    state = published.repository.state()
    role = copy.deepcopy(state.lines["digits"].signed)
    role.targets["digits/1.0.0.json"].unrecognized_fields["custom"] = {"sequence": 2}
    published.repository.commit(state, {"digits": role})
    with pytest.raises(Refused, match="two releases"):
        published.device().release("digits")


# Replay, freeze, mixtures.


def test_an_old_timestamp_is_refused(site):
    site.publish("1.0.0")
    old = site.metadata()["timestamp.json"]
    device = site.device()
    site.publish("1.1.0")
    assert device.release("digits").version == "1.1.0"
    with pytest.raises(Refused):
        later(device, fetch=swapped(site, lambda data: old, "metadata/timestamp.json")).release("digits")


def test_a_repository_that_stands_still_expires(site):
    site.publish("1.0.0")
    device = site.device()
    assert device.release("digits").version == "1.0.0"
    site.clock.wait(hours=23, minutes=59)
    assert device.release("digits").version == "1.0.0"
    site.clock.wait(minutes=1)
    with pytest.raises(Expired) as caught:
        device.release("digits")
    assert caught.value.exit_code == 6
    assert "the model in use goes on" in caught.value.next_step


@pytest.mark.parametrize("role, days", [("snapshot", 31), ("targets", 366), ("digits", 366), ("root", 366)])
def test_each_role_expires(site, role, days):
    """All others are signed anew, at the end of its life."""
    site.publish("1.0.0")
    early = site.metadata()
    site.clock.wait(days=days)
    repository = site.repository
    state = repository.state()
    if role == "root":
        repository.commit(state, {"digits": state.lines["digits"].signed, "targets": state.targets.signed})
    else:
        rotate(repository, "root-1")
        again = {"digits": state.lines["digits"].signed, "targets": state.targets.signed}
        again.pop(role, None)
        repository = site.repository
        state = repository.state()
        if role == "snapshot":  # nothing but the timestamp is signed anew
            (site.keys / "snapshot.pem").rename(site.folder / "snapshot.pem")
            repository, again = site.repository, {}
        repository.commit(state, again)
    assert len(site.metadata()) > len(early) or role == "snapshot"
    with pytest.raises(Expired, match="expired"):
        site.device().release("digits")


@pytest.mark.parametrize("role", ["snapshot", "targets", "digits"])
def test_old_and_new_metadata_do_not_mix(site, role):
    """Each file is signed, but they are of two moments: the newest timestamp with an older file of a role."""
    site.publish("1.0.0")
    old = (site.root / newest(site, role)).read_bytes()
    site.publish("1.0.0", "words")
    site.publish("1.1.0")
    assert (site.root / newest(site, role)).read_bytes() != old
    with pytest.raises(Refused):
        site.device(fetch=swapped(site, lambda data: old, newest(site, role))).release("digits")


def test_metadata_of_another_role_are_refused(published):
    snapshot = (published.root / newest(published, "snapshot")).read_bytes()
    with pytest.raises(Refused):
        published.device(fetch=swapped(published, lambda data: snapshot, "metadata/timestamp.json")).release("digits")


# Too much, too little, nothing.


@pytest.mark.parametrize(
    "role", ["2.root", "timestamp", "snapshot", "targets", "digits", "release"], ids=lambda name: name
)
def test_endless_data_is_stopped(published, role):
    """A server that never ends is left as soon as it sent more than there may be."""
    sent = [0]
    names = {"2.root": "metadata/2.root.json", "timestamp": "metadata/timestamp.json"}
    path = names.get(role) or (newest(published, role) if role != "release" else "targets/")
    plain = files(published.root)

    def endless(asked: str):
        if asked.startswith(path):
            while True:
                sent[0] += 1 << 16
                yield bytes(1 << 16)
        yield from plain(asked)

    with pytest.raises(Refused, match="more bytes"):
        published.device(fetch=endless).release("digits")
    assert sent[0] < 1 << 23


def test_a_release_larger_than_any_is_not_fetched(published, monkeypatch):
    monkeypatch.setattr("haversack.deliver.trusted.LARGEST_RELEASE", 1000)
    asked = []
    plain = files(published.root)

    def noted(path: str):
        asked.append(path)
        return plain(path)

    with pytest.raises(Refused, match="1000 are allowed"):
        published.device(fetch=noted).release("digits")
    assert not any(path.startswith("targets/") for path in asked)


@pytest.mark.parametrize("bomb", [b"[" * 16_000, b'{"a":' * 3000, b"", b"\0" * 16_000, b"null", b"{}", b"9" * 16_000])
def test_what_is_no_metadata_is_refused(published, bomb):
    with pytest.raises(Refused):
        published.device(fetch=swapped(published, lambda data: bomb, "metadata/timestamp.json")).release("digits")


def test_a_dead_network_is_no_refusal(published):
    def dead(path: str):
        raise EnvironmentFault("no route to host", where=path)
        yield b""

    with pytest.raises(EnvironmentFault, match="no route") as caught:
        published.device(fetch=dead).release("digits")
    assert not isinstance(caught.value, Refused)


def test_an_empty_server_is_told(published, tmp_path):
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        published.device(fetch=files(tmp_path / "nothing")).release("digits")


def test_over_http_as_from_a_folder(published):
    with served(published.root) as url:
        device = published.device(fetch=over_http(url))
        assert device.release("digits").version == "1.1.0"
        rotate(published.repository, "timestamp")
        published.publish("1.2.0")
        assert device.release("digits").version == "1.2.0"


def test_a_server_that_lies_about_files_that_it_has(published):
    """It denies the newest root, so that the device believes an older one: what that signed is still what counts."""

    class Denying(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "root.json" in self.path:
                self.send_error(404)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            """Tell nobody."""

    rotate(published.repository, "timestamp")
    published.publish("1.2.0")
    with served(published.root, Denying) as url, pytest.raises(Refused):
        published.device(fetch=over_http(url)).release("digits")


# Stolen keys.


def test_a_line_key_signs_for_no_other_line(site):
    """The key of words writes digits/9.0.0.json into its own role: it is not that role that is asked."""
    site.publish("1.0.0")
    site.publish("1.0.0", "words")
    state = site.repository.state()
    thief = copy.deepcopy(state.lines["words"].signed)
    false = copy.deepcopy(state.lines["digits"].signed.targets["digits/1.0.0.json"])
    false.path = "digits/9.0.0.json"
    false.unrecognized_fields["custom"] = {"sequence": 9}
    thief.targets["digits/9.0.0.json"] = false
    site.repository.commit(state, {"words": thief})
    device = site.device()
    assert device.release("digits").version == "1.0.0"
    with pytest.raises(Refused):
        device.release("words")
    with pytest.raises(Refused, match="nobody signed"):
        device.target("digits/9.0.0.json", 1 << 20)


def test_a_line_key_gives_its_line_to_nobody_else(site):
    """It delegates what it may sign to another key, under the other line's name."""
    site.publish("1.0.0")
    site.publish("1.0.0", "words")
    state = site.repository.state()
    thief = copy.deepcopy(state.lines["words"].signed)
    delegate(thief, "digits", keys.create(site.folder / "thief").of("targets")[0])
    site.repository.commit(state, {"words": thief})
    device = site.device()
    assert device.release("words").version == "1.0.0"
    assert device.release("digits").version == "1.0.0"


def test_one_root_key_is_not_enough(published):
    """A thief with root-1 names keys of his own, in a new root and in everything below it."""
    thief = Site(published.folder / "thief", published.clock)
    own = keys.create(thief.keys)
    stolen = keys.read(published.keys).of("root-1")[0].signer
    root = Metadata[Root].from_bytes((published.keys / "1.root.json").read_bytes())
    forged = Metadata[Root].from_bytes(first_root(own, published.clock()))
    forged.signed.version = 2
    forged.signed.keys |= root.signed.keys
    forged.signed.roles["root"].keyids = root.signed.roles["root"].keyids
    forged.signatures.clear()
    forged.sign(stolen, append=True)
    for role in ("root-1", "root-2", "root-3"):
        forged.sign(own.of(role)[0].signer, append=True)
    (published.root / "metadata" / "2.root.json").write_bytes(forged.to_bytes())
    with pytest.raises(Refused):
        published.device().release("digits")
    with pytest.raises(Refused):
        published.repository.state()


def test_the_same_signature_twice_is_not_two(published):
    root = Metadata[Root].from_bytes((published.keys / "1.root.json").read_bytes())
    root.signed.version = 2
    root.signed.roles["timestamp"].keyids = root.signed.roles["root"].keyids[:1]
    signer = keys.read(published.keys).of("root-1")[0].signer
    root.signatures.clear()
    root.sign(signer)
    data = json.loads(root.to_bytes())
    data["signatures"] *= 2
    (published.root / "metadata" / "2.root.json").write_text(json.dumps(data))
    with pytest.raises(Refused):
        published.device().release("digits")


def test_the_keys_that_lie_online_publish_nothing(published):
    """Snapshot and timestamp are stolen: what lines say cannot be changed with them."""
    state = published.repository.state()
    role = copy.deepcopy(state.lines["digits"].signed)
    del role.targets["digits/1.0.0.json"]
    forged = Metadata[Targets](role)
    forged.signed.version += 1
    thief = keys.create(published.folder / "thief").of("targets")[0].signer
    forged.sign(thief)

    class Skipping(Repository):
        def _store(self, metadata, name, delegate, more):
            if name == "digits":
                data = forged.to_bytes()
                self.storage.create(f"metadata/{forged.signed.version}.digits.json", data)
                metadata.signed.version = forged.signed.version
                return data
            return super()._store(metadata, name, delegate, more)

    Skipping(Folder(published.root), keys.read(published.keys), published.clock).commit(state, {"digits": role})
    with pytest.raises(Refused):
        published.device().release("digits")


def test_a_revoked_line_key_publishes_nothing(site):
    site.publish("1.0.0")
    device = site.device()
    stolen = keys.read(site.keys).of("digits")[0]
    before = site.repository.state()
    revoke(site.repository, "digits")
    with pytest.raises(Refused, match="no line digits"):
        device.release("digits")
    state = site.repository.state()
    forged = copy.deepcopy(before.lines["digits"])
    forged.signed.version = 50
    forged.sign(stolen.signer)
    (site.root / "metadata" / "50.digits.json").write_bytes(forged.to_bytes())
    with pytest.raises(Refused):
        device.release("digits")
    with pytest.raises(Refused):
        site.device("another").release("digits")
    assert "digits" not in state.lines


def test_a_line_comes_back_after_its_key_was_revoked(site):
    site.publish("1.0.0")
    site.publish("1.1.0")
    device = site.device()
    assert device.release("digits").sequence == 2
    revoke(site.repository, "digits")
    done = site.publish("1.2.0")
    assert done.new_key.endswith("digits.3.pem")
    assert device.release("digits").sequence == 3
    state = site.repository.state()
    assert list(state.lines["digits"].signed.targets) == ["digits/1.2.0.json"]
    assert releases.find(site.repository, state, "digits", "1.0.0") is None


def test_a_stolen_timestamp_key_cannot_brick_devices(site):
    """It signs a time and a version far ahead; a new key, which root names, brings devices back."""
    site.publish("1.0.0")
    memory = Memory()
    device = site.device(memory=memory)
    state = site.repository.state()
    state.timestamp.signed.version = 10**9
    replace(site.repository, now=lambda: site.clock() + timedelta(days=3650)).commit(state, {})
    state = site.repository.state()
    assert state.timestamp.signed.unrecognized_fields["signed_at"].startswith("2036")
    assert device.release("digits").version == "1.0.0"
    assert memory.seconds == site.clock.seconds()
    honest = {path.name: path.read_bytes() for path in (site.root / "metadata").iterdir()}
    site.clock.wait(days=1)
    revoke(site.repository, "timestamp")
    assert device.release("digits").version == "1.0.0"
    (site.root / "metadata" / "timestamp.json").write_bytes(honest["timestamp.json"])
    with pytest.raises(Refused):
        device.release("digits")


# A device that forgot, or whose clock is wrong.


def test_nothing_is_trusted_on_first_use(published):
    for root in (b"", b"{}", b"no root"):
        with pytest.raises((UsageError, Refused)):
            later(published.device(), root=root).release("digits")


def test_the_root_of_another_repository_is_refused(published, tmp_path):
    other = Site.create(tmp_path / "other")
    root = (other.keys / "1.root.json").read_bytes()
    with pytest.raises(Refused):
        later(published.device(), root=root).release("digits")


def test_a_wiped_cache_does_not_open_the_way_back(site):
    """The attacker kept a copy of the site, still valid; the device lost its metadata, but not its floor."""
    site.publish("1.0.0")
    shutil.copytree(site.root, site.folder / "copy")
    memory = Memory()
    device = site.device(memory=memory)
    site.publish("1.1.0")
    assert device.release("digits").version == "1.1.0"
    shutil.rmtree(device.cache)
    with pytest.raises(Refused, match="sequence 1, and 2 was seen"):
        later(device, fetch=files(site.folder / "copy")).release("digits")
    assert memory.sequence("digits") == 2
    assert later(device, floor=Memory(), cache=site.folder / "new", fetch=files(site.folder / "copy")).release("digits")


def test_a_clock_that_was_set_back_brings_no_old_metadata_back(site):
    """A day later the copy is expired; the clock says it is not, and the cache is gone: the floor knows the time."""
    site.publish("1.0.0")
    shutil.copytree(site.root, site.folder / "copy")
    device = site.device(memory=Memory())
    site.clock.wait(days=2)
    site.publish("1.1.0", "words")
    assert device.release("digits").version == "1.0.0"
    shutil.rmtree(device.cache)
    stopped = later(device, clock=lambda: 0.0, fetch=files(site.folder / "copy"))
    with pytest.raises(Expired):
        stopped.release("digits")
    assert later(stopped, fetch=files(site.root)).release("digits").version == "1.0.0"


def test_a_board_without_a_clock_learns_the_time(site):
    site.publish("1.0.0")
    memory = Memory()
    device = later(site.device(memory=memory), clock=lambda: 0.0)
    assert device.release("digits").version == "1.0.0"
    assert memory.seconds == site.clock.seconds()


def test_a_board_without_a_clock_begins_with_the_time_of_its_root(site):
    """What was signed before its root is older than the board: an older timestamp, which has expired by then."""
    site.publish("1.0.0")
    shutil.copytree(site.root, site.folder / "copy")
    site.clock.wait(days=3)
    rotate(site.repository, "root-1")
    root = (site.keys / "2.root.json").read_bytes()
    with pytest.raises(Expired):
        later(site.device(), root=root, clock=lambda: 0.0, fetch=files(site.folder / "copy")).release("digits")


def test_a_clock_ahead_is_not_remembered(site):
    """It stops updates as long as it is wrong, and no longer."""
    site.publish("1.0.0")
    memory = Memory()
    device = site.device(memory=memory)
    with pytest.raises(Expired):
        later(device, clock=lambda: site.clock.seconds() + 1e8).release("digits")
    assert memory.seconds == 0
    assert device.release("digits").version == "1.0.0"


@pytest.mark.parametrize(
    "line", ["", "Digits", "../digits", "a/b", "targets", "snapshot", "timestamp", "root", "1.root"]
)
def test_a_line_has_a_plain_name(published, line):
    with pytest.raises(UsageError, match="no name of a model line"):
        published.device().release(line)


def test_a_line_that_is_not_there_is_told(published):
    with pytest.raises(Refused, match="no line words"):
        published.device().release("words")


def test_a_cache_that_cannot_be_written_is_told(published, tmp_path):
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(EnvironmentFault):
        later(published.device(), cache=tmp_path / "blocked").release("digits")


@pytest.mark.parametrize(
    "name", ["timestamp.json", "snapshot.json", "targets.json", "digits.json", "root_history/1.root.json"]
)
def test_a_damaged_cache_heals(published, name):
    device = published.device()
    device.release("digits")
    (device.cache / name).write_bytes(b"torn")
    assert device.release("digits").version == "1.1.0"
