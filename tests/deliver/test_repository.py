"""What a publisher writes, in which order, and what becomes of it when he is stopped anywhere or is not alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from sites import Site, files, later
from tuf.api.metadata import Metadata, Targets

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.deliver import releases
from haversack.deliver.metadata import past_half, signed_at, stamp
from haversack.deliver.repository import LARGEST, Repository
from haversack.deliver.rotation import revoke, rotate
from haversack.deliver.storage import Folder
from haversack.tools.trust import keys


class Stopped(Exception):
    """The publisher's process is killed here."""


@dataclass
class Watched:
    """A folder that notes what is made or replaced, calls somebody before it, and may stop the publisher there."""

    inner: Folder
    stop_at: int = -1
    before: object = None
    writes: list[str] = field(default_factory=list)

    name = "watched"

    def read(self, path, limit):
        return self.inner.read(path, limit)

    def create(self, path, data):
        if self.inner.read(path, 1 << 30) is None:
            self._note(path)
        return self.inner.create(path, data)

    def swap(self, path, data, seen):
        self._note(path)
        return self.inner.swap(path, data, seen)

    def _note(self, path):
        if len(self.writes) == self.stop_at:
            raise Stopped(path)
        if self.before is not None:
            self.before()
        self.writes.append(path)


def watched(site: Site, **more) -> Watched:
    storage = Watched(Folder(site.root), **more)
    site.storage = storage
    return storage


def test_the_timestamp_comes_last_and_after_all_that_it_leads_to(site):
    storage = watched(site)
    site.publish("1.0.0", encrypt=True)
    site.publish("1.1.0", encrypt=True)
    kinds = [path.partition("/")[0] for path in storage.writes]
    last = storage.writes.index("metadata/timestamp.json", storage.writes.index("metadata/timestamp.json") + 1)
    second = storage.writes[last + 1 :]
    order = [path.partition("/")[0] for path in second]
    ranks = [("blobs", "keys", "targets", "metadata").index(kind) for kind in order]
    assert ranks == sorted(ranks)
    assert {"blobs", "keys", "targets", "metadata"} <= set(kinds)
    assert second[-2:] == ["metadata/3.snapshot.json", "metadata/timestamp.json"]


@pytest.mark.parametrize(
    "act", ["publish", "rotate timestamp", "rotate digits", "rotate root-1", "rotate snapshot", "rotate targets"]
)
def test_a_device_that_reads_meanwhile_sees_the_old_or_the_new(published, act):
    """Between any two writes a new device and one with a cache both find a release."""
    seen = []
    old = published.device("old")
    old.release("digits")

    def look():
        fresh = published.device(f"new{len(seen)}", fetch=files(published.root))
        seen.append((old.release("digits").version, fresh.release("digits").version))

    watched(published, before=look)
    if act == "publish":
        published.publish("1.2.0", encrypt=True)
    else:
        rotate(published.repository, act.partition(" ")[2])
    look()
    assert len(seen) > 1
    after = "1.2.0" if act == "publish" else "1.1.0"
    assert seen[-1] == (after, after)
    assert set(seen[:-1]) == {("1.1.0", "1.1.0")}


def test_a_publisher_stopped_at_any_write_goes_on(site):
    """Stopped before each write, devices see the last release; the same command publishes, with the next sequence."""
    site.publish("1.0.0")
    device = site.device()
    number, done = 0, False
    while not done:
        number += 1
        version, before = f"1.{number}.0", device.release("digits")
        storage = watched(site, stop_at=number - 1)
        try:
            site.publish(version, encrypt=bool(number % 2))
            done = True
        except Stopped:
            site.storage = None
            assert device.release("digits") == before
            site.publish(version, encrypt=bool(number % 2))
        assert device.release("digits").version == version
        assert device.release("digits").sequence == before.sequence + 1
    assert len(storage.writes) >= 5
    assert number > 5


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root-2", "digits"])
@pytest.mark.parametrize("lost", [False, True], ids=["", "without the old key"])
def test_a_rotation_stopped_at_any_write_goes_on(published, role, lost):
    if lost and role != "root-2":
        (published.keys / f"{role}.pem").rename(published.folder / "lost.pem")
    for stop in range(40):
        storage = watched(published, stop_at=stop)
        try:
            rotate(published.repository, role)
        except Stopped:
            published.storage = None
            if not lost:
                assert published.device("fresh").release("digits").version == "1.1.0"
            continue
        break
    else:
        pytest.fail("it never comes to its end")
    assert len(storage.writes) == stop > 0
    published.storage = None
    assert published.device("fresh").release("digits").version == "1.1.0"
    published.publish("1.2.0")
    assert published.device("fresh").release("digits").version == "1.2.0"


def test_two_publishers_at_once_lose_nothing(site):
    """The second reads before the first is done: it is told to repeat, and then both releases are there."""
    site.publish("1.0.0")
    once = []

    def other():
        if len(storage.writes) == 3 and not once:
            once.append(True)
            Site(site.folder, site.clock).publish("1.0.0", "words")

    storage = watched(site, before=other)
    with pytest.raises(EnvironmentFault, match="somebody else published") as caught:
        site.publish("1.1.0")
    assert caught.value.next_step == "repeat the same command"
    site.publish("1.1.0")
    device = site.device()
    assert device.release("digits").version == "1.1.0"
    assert device.release("words").version == "1.0.0"


def test_what_somebody_else_wrote_is_not_signed_again(published):
    """Whoever can write to the place puts a delegation of his own into targets, and waits for the publisher."""
    path = published.root / "metadata" / "2.targets.json"
    data = json.loads(path.read_bytes())
    data["signed"]["delegations"]["roles"][0]["paths"] = ["*/*"]
    path.write_text(json.dumps(data))
    with pytest.raises(Refused, match="not signed by the keys") as caught:
        published.publish("1.2.0")
    assert "somebody else wrote to it" in caught.value.next_step


@pytest.mark.parametrize("damage", ["gone", "torn", "other", "large"])
@pytest.mark.parametrize("name", ["3.snapshot.json", "2.targets.json", "2.digits.json", "timestamp.json"])
def test_a_damaged_repository_is_refused(published, name, damage):
    path = published.root / "metadata" / name
    other = published.root / "metadata" / "1.snapshot.json" if name != "1.snapshot.json" else path
    if damage == "gone":
        path.unlink()
    else:
        content = {"torn": path.read_bytes()[:-9], "other": other.read_bytes(), "large": bytes(LARGEST + 1)}
        path.write_bytes(content[damage])
    with pytest.raises((Refused, UsageError)):
        published.repository.state()


def test_an_older_file_under_a_newer_name_is_refused(published):
    folder = published.root / "metadata"
    (folder / "3.snapshot.json").write_bytes((folder / "2.snapshot.json").read_bytes())
    with pytest.raises(Refused, match="version"):
        published.repository.state()


def test_keys_of_another_repository_publish_nothing(published, tmp_path):
    other = Site.create(tmp_path / "other")
    repository = Repository(Folder(published.root), keys.read(other.keys), published.clock)
    with pytest.raises(Refused):
        repository.state()
    with pytest.raises(Refused):
        repository.start()


def test_a_missing_timestamp_with_another_root_is_refused(published, tmp_path):
    other = Site.create(tmp_path / "other")
    (published.root / "metadata" / "timestamp.json").unlink()
    with pytest.raises(Refused, match="repository of other keys"):
        Repository(Folder(published.root), keys.read(other.keys), published.clock).start()


def test_without_root_metadata_nothing_is_believed(published):
    (published.keys / "1.root.json").unlink()
    with pytest.raises(UsageError, match="1.root.json"):
        published.repository.state()


def test_an_empty_place_is_told(site):
    with pytest.raises(UsageError, match="nothing was published"):
        site.repository.state()


@pytest.mark.parametrize("role", ["digits", "targets", "snapshot", "timestamp"])
def test_a_missing_key_is_named(site, role):
    if role != "targets":
        site.publish("1.0.0")
    (site.keys / f"{role}.pem").unlink(missing_ok=True)
    with pytest.raises(UsageError, match=f"the key of {role}"):
        site.publish("1.1.0")


def test_what_a_small_machine_needs_to_publish(published):
    """The keys of root and targets lie elsewhere: a line that is known needs its own, snapshot and timestamp."""
    for name in ("root-1", "root-2", "root-3", "targets", "publisher"):
        (published.keys / f"{name}.pem").unlink()
    published.publish("1.2.0")
    assert published.device().release("digits").version == "1.2.0"


def test_every_role_says_what_it_signs(published):
    state = published.repository.state()
    assert state.root.signed.roles["root"].threshold == 2
    assert len(state.root.signed.roles["root"].keyids) == 3
    assert state.root.signed.consistent_snapshot is True
    role = state.targets.signed.delegations.roles["digits"]
    assert (role.paths, role.terminating, role.threshold) == (["digits/*"], True, 1)
    assert (state.timestamp.signed.expires - published.clock()).total_seconds() == 24 * 3600
    assert len({key for one in state.root.signed.roles.values() for key in one.keyids} | {*role.keyids}) == 7


def test_times_of_signing(published):
    signed = published.repository.state().targets.signed
    assert signed_at(signed) == published.clock()
    assert not past_half(signed, published.clock())
    assert past_half(signed, signed.expires)
    for text in (None, 3, "yesterday", ""):
        signed.unrecognized_fields["signed_at"] = text
        assert signed_at(signed) is None
        assert past_half(signed, published.clock())
    stamp(signed, signed.expires - published.clock(), published.clock())
    assert signed_at(signed) == published.clock()


# Rotation.


def test_a_device_follows_three_new_roots(published):
    """One that slept through all of them, and one that saw each."""
    awake, asleep = published.device("awake"), published.device("asleep")
    assert asleep.release("digits").version == "1.1.0"
    for number, role in enumerate(("root-1", "root-2", "root-3"), 2):
        done = rotate(published.repository, role)
        assert (done.root_version, done.new.name) == (number, f"{role}.{number}.pem")
        assert awake.release("digits").version == "1.1.0"
    for name in ("root-1", "root-2", "root-3"):
        (published.keys / f"{name}.pem").unlink()
    published.publish("1.2.0")
    rotate(published.repository, "root-1")
    assert asleep.release("digits").version == awake.release("digits").version == "1.2.0"
    new = later(published.device("new"), root=(published.keys / "5.root.json").read_bytes())
    assert new.release("digits").version == "1.2.0"


def test_two_of_three_root_keys_rotate_and_one_does_not(published):
    (published.keys / "root-1.pem").unlink()
    done = rotate(published.repository, "root-1")
    assert (done.old, done.new.name) == ((), "root-1.2.pem")
    root = Metadata.from_bytes((published.keys / "2.root.json").read_bytes()).signed
    names = sorted(root.keys[number].unrecognized_fields["x-haversack-name"] for number in root.roles["root"].keyids)
    assert names == ["root-1", "root-2", "root-3"]
    assert published.device().release("digits").version == "1.1.0"
    for name in ("root-1.2.pem", "root-3.pem"):
        (published.keys / name).unlink()
    with pytest.raises(UsageError, match="1 more of the keys of root"):
        rotate(published.repository, "root-2")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root-1"])
def test_a_revoked_key_is_set_aside_and_counts_no_more(published, role):
    done = revoke(published.repository, role)
    assert [path.name for path in done.old] == [f"{role}.pem.revoked"]
    assert done.old[0].exists()
    root = published.repository.state().root.signed
    in_root = "root" if role == "root-1" else role
    assert keys.read(published.keys).of(role)[0].id in root.roles[in_root].keyids
    published.publish("1.2.0")
    assert published.device().release("digits").version == "1.2.0"


def test_a_rotated_line_keeps_its_releases(published):
    done = rotate(published.repository, "digits")
    assert done.new.name == "digits.3.pem"
    (published.keys / "digits.pem").unlink()
    assert published.device().release("digits").version == "1.1.0"
    state = published.repository.state()
    assert releases.find(published.repository, state, "digits", "1.0.0").sequence == 1
    published.publish("1.2.0")


@pytest.mark.parametrize("role", ["root", "words", "publisher", "../x", ""])
@pytest.mark.parametrize("act", [rotate, revoke])
def test_what_is_no_role_is_told(published, act, role):
    before = sorted(published.keys.iterdir())
    with pytest.raises(UsageError, match="role"):
        act(published.repository, role)
    assert sorted(published.keys.iterdir()) == before


def test_a_line_is_revoked_without_its_key_but_not_without_that_of_targets(published):
    (published.keys / "digits.pem").unlink()
    (published.keys / "targets.pem").rename(published.folder / "targets.pem")
    with pytest.raises(UsageError, match="the key of targets"):
        revoke(published.repository, "digits")
    (published.folder / "targets.pem").rename(published.keys / "targets.pem")
    assert revoke(published.repository, "digits").old == ()
    assert isinstance(published.repository.state().targets.signed, Targets)
