"""A home's small files and locks under hostile words, broken disks and other processes; where a site may lie."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from marks import free, marks

from haversack.base import digest
from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.release import Blob
from haversack.deliver import bandwidth, locking, places, root, settings
from haversack.deliver.bandwidth import Allowed, Choice, Past, Transfer
from haversack.deliver.floor import Floor
from haversack.deliver.home import Home
from haversack.deliver.site import Site
from haversack.deliver.slots import Pointer, Slots
from haversack.deliver.starts import Starts
from haversack.deliver.storage import Folder
from haversack.deliver.store import Store
from haversack.tools.trust import canonical

FULL = Blob("a" * 64, 4_000_000, "download")


@pytest.fixture
def slots(tmp_path):
    return Slots(tmp_path / "lines" / "digits")


@pytest.fixture
def installed(slots, tmp_path):
    """Slots of which one holds release 1 and the other release 2, which is in use."""
    store = Store(tmp_path / "store")
    for number in (1, 2):
        data = f"model {number}".encode()
        with store.adding(digest.of_bytes(data)) as stream:
            stream.write(data)
        slots.stage({"m.onnx": digest.of_bytes(data)}, store)
        slots.activate(f"1.{number}.0", number, "onnxruntime", 1.0)
    return slots


@pytest.mark.parametrize(
    "reason",
    [
        "half \ud800 a pair",
        "\udfff",
        "界" * 500,
        "😀" * 500,
        "\x1b[2J\x07",
        "\0",
        "a\nb\r\n",
        "",
        '"\\',
        "\u2028\u202e",
    ],
)
def test_whatever_a_child_says_is_remembered_and_read_again(slots, reason):
    """A reason comes from the process that the model had in its hands; it must not spoil the list of bad releases."""
    slots.quarantine(7, "1.0.0", reason)
    [bad] = slots.quarantined()
    assert (bad.sequence, bad.version) == (7, "1.0.0")
    assert bad.reason == reason[:400].encode(errors="replace").decode()


@pytest.mark.parametrize("sign", ["😀", "\udcff"])
def test_a_full_list_of_the_longest_reasons_is_read_again(slots, sign):
    (slots.folder).mkdir(parents=True)
    for number in range(1, 66):
        slots.quarantine(number, "99999999.99999999.99999999", sign * 500)
    found = slots.quarantined()
    assert [bad.sequence for bad in found] == list(range(2, 66))
    assert {len(bad.reason) for bad in found} == {400}


@hypothesis_settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(1, 9), st.text(max_size=5)), max_size=12))
def test_quarantine_is_a_list_without_repeats_the_newest_last(tmp_path_factory, told):
    slots, model = Slots(tmp_path_factory.mktemp("line")), {}
    for sequence, reason in told:
        slots.quarantine(sequence, "1.0.0", reason)
        model.pop(sequence, None)
        model[sequence] = reason
    assert [(bad.sequence, bad.reason) for bad in slots.quarantined()] == list(model.items())
    assert [bad.time for bad in slots.quarantined()] == sorted(bad.time for bad in slots.quarantined())


def test_an_older_fault_does_not_lead_back_from_a_newer_release(installed):
    """Two processes find release 2 bad; the second comes too late, when the other release is in use."""
    assert installed.way_back("bad", sequence=2).sequence == 1
    before = (installed.folder / "current").read_bytes()
    assert installed.way_back("bad", sequence=2).sequence == 1
    assert (installed.folder / "current").read_bytes() == before
    assert [bad.sequence for bad in installed.quarantined()] == [2]
    with pytest.raises(EnvironmentFault, match="no other model to go back to") as caught:
        installed.way_back("worse", sequence=1)
    assert caught.value.where == "digits"
    assert installed.pointer().current.sequence == 1
    assert len(installed.quarantined()) == 1  # the only model there is


def test_a_damaged_slot_is_left_and_may_come_again(installed):
    assert installed.way_back("its bytes changed", damaged=True).sequence == 1
    assert installed.quarantined() == ()
    assert installed.pointer().other is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_pointer_that_cannot_be_written_stays(installed, tmp_path, monkeypatch, number):
    before = installed.pointer()
    installed.stage({"m.onnx": digest.of_bytes(b"model 1")}, Store(tmp_path / "store"))

    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", broken)
        for act in (
            lambda: installed.activate("1.3.0", 3, "onnxruntime", 1.0),
            lambda: installed.way_back("bad"),
            lambda: installed.quarantine(2, "1.2.0", "bad"),
        ):
            with pytest.raises(EnvironmentFault) as caught:
                act()
            assert caught.value.exit_code == 6
            assert caught.value.next_step
    assert installed.pointer() == before
    assert installed.quarantined() == ()
    assert not list(installed.folder.glob(".*.part"))
    with installed.opening() as current:
        assert (installed.path(current) / "m.onnx").read_bytes() == b"model 2"


def test_a_stranger_in_a_slot_is_told_and_the_model_stays(installed, tmp_path):
    """A folder where only plain files may lie: nothing is removed that we did not put there."""
    (installed.folder / "a" / "mine").mkdir()
    with pytest.raises(EnvironmentFault, match=r"folder|permitted|directory") as caught:
        installed.stage({}, Store(tmp_path / "store"))
        installed.activate("1.3.0", 3, "onnxruntime", 1.0)
    assert caught.value.where.endswith("/a")
    assert installed.pointer().current.version == "1.2.0"
    assert installed.pointer().other is None  # forgotten before it was touched


def test_a_file_that_the_store_lacks_is_not_staged(installed, tmp_path):
    with pytest.raises(EnvironmentFault, match="gone"):
        installed.stage({"x": "0" * 64}, Store(tmp_path / "store"))
    assert installed.pointer().current.version == "1.2.0"


def test_what_was_set_aside_is_pardoned_whole(installed):
    assert installed.pardon() == ()
    assert not (installed.folder / "quarantine.json").exists()
    installed.quarantine(3, "1.3.0", "bad")
    installed.quarantine(4, "1.4.0", "worse")
    before = installed.pointer()
    assert [bad.version for bad in installed.pardon()] == ["1.3.0", "1.4.0"]
    assert installed.quarantined() == ()
    assert installed.pointer() == before
    assert Slots(installed.folder.with_name("words")).pardon() == ()
    assert not installed.folder.with_name("words").exists(), "asking makes no line"


@pytest.mark.parametrize("name", ["current", "quarantine.json"])
@pytest.mark.parametrize("spoil", ["cut", "flip", "grow", "folder"])
def test_spoiled_records_of_a_line_are_told_with_their_place(installed, name, spoil):
    installed.quarantine(9, "1.9.0", "bad")
    path = installed.folder / name
    data = path.read_bytes()
    if spoil == "folder":
        path.unlink()
        path.mkdir()
    else:
        changed = {"cut": data[:-2], "flip": data.replace(b'"format":1', b'"format":2'), "grow": data + b" "}
        path.write_bytes(changed[spoil])
    with pytest.raises(Refused) as caught:
        installed.pointer() if name == "current" else installed.quarantined()
    assert str(path) in caught.value.where
    assert caught.value.next_step.startswith("move it away, then haversack client ") == (spoil == "folder")


@hypothesis_settings(max_examples=20)
@given(data=st.data())
def test_a_pointer_with_any_byte_changed_is_another_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("line")
    slots, store = Slots(folder), Store(folder / "store")
    slots.stage({}, store)
    slots.activate("1.0.0", 1, "onnxruntime", 1.5)
    slots.stage({}, store)
    slots.activate("1.1.0", 2, "litert", 2.5)
    before, path = slots.pointer(), slots.folder / "current"
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        found = slots.pointer()
    except Refused:
        return
    assert isinstance(found, Pointer)
    assert found != before
    assert canonical.dumps(found) == bytes(whole)


@hypothesis_settings(max_examples=10)
@given(st.lists(st.sampled_from(["stage", "activate", "back", "damaged"]), max_size=14))
def test_the_two_slots_against_a_model(tmp_path_factory, acts):
    """The model keeps what is in use and the way back; staging changes neither."""
    folder = tmp_path_factory.mktemp("turns")
    slots, store = Slots(folder / "line"), Store(folder / "store")
    slots.folder.mkdir()
    current, other, bad, sequence = None, None, [], 0
    for act in acts:
        if act == "stage":
            assert slots.stage({}, store).name == "next"
        elif act == "activate":
            sequence += 1
            slots.stage({}, store)
            made = slots.activate(f"1.{sequence}.0", sequence, "litert", 0.0)
            current, other = (sequence, made.slot), current
        elif current is None or other is None:
            with pytest.raises(EnvironmentFault):
                slots.way_back("x", damaged=act == "damaged")
        else:
            slots.way_back("x", damaged=act == "damaged")
            bad += [current[0]] * (act == "back")
            current, other = other, None
        pointer = slots.pointer()
        told = [(one.sequence, one.slot) if one else None for one in (pointer.current, pointer.other)]
        assert told == [current, other]
        assert other is None or other[1] != current[1]
    assert [one.sequence for one in slots.quarantined()] == bad


def test_shared_and_single_locks_keep_each_other_out(tmp_path):
    path = tmp_path / "lock"
    with locking.held(path, shared=True), locking.held(path, shared=True):
        assert free(path)  # nobody holds it alone
        with (
            pytest.raises(EnvironmentFault, match="another process or thread works here") as caught,
            locking.held(path),
        ):
            raise AssertionError
        assert caught.value.where == str(path)
        assert "repeat" in caught.value.next_step
    with locking.held(path), pytest.raises(EnvironmentFault), locking.held(path, shared=True):
        raise AssertionError
    assert free(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 in {0o044, 0o040, 0o000}


def test_a_lock_that_is_let_go_in_time_is_taken(tmp_path):
    path, went = tmp_path / "lock", threading.Event()

    def other():
        with locking.held(path):
            went.set()
            threading.Event().wait(0.2)

    thread = threading.Thread(target=other)
    thread.start()
    assert went.wait(5)
    with locking.held(path, wait_seconds=10):
        assert not free(path)
    thread.join()


def test_who_asks_for_a_lock_at_the_same_moment_is_no_holder(tmp_path, monkeypatch):
    path, found, flock = tmp_path / "lock", [], fcntl.flock
    path.touch()

    def asked_twice(descriptor, kind):
        flock(descriptor, kind)
        if not found:
            found.append("asked")
            found.append(free(path))

    monkeypatch.setattr(fcntl, "flock", asked_twice)
    assert free(path)
    assert found == ["asked", True]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_lock_ends_with_its_block_however_it_ends(tmp_path, error):
    with pytest.raises(error), locking.held(tmp_path / "lock"):
        raise error
    assert free(tmp_path / "lock")


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_ends_with_its_block_though_a_child_lives(tmp_path, shared):
    reading, writing = os.pipe()
    with locking.held(tmp_path / "lock", shared=shared):
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # as long as the parent holds the other end
            os._exit(0)
    os.close(reading)
    try:
        with locking.held(tmp_path / "lock"):
            assert not free(tmp_path / "lock")
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_a_child_that_leaves_the_block_leaves_the_lock_to_its_parent(tmp_path):
    block = locking.held(tmp_path / "lock")
    with block:
        child = os.fork()
        if not child:
            block.__exit__(None, None, None)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(EnvironmentFault), locking.held(tmp_path / "lock"):
            raise AssertionError
    assert free(tmp_path / "lock")


def test_a_lock_where_none_can_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "lock", tmp_path / "none" / "lock", tmp_path / "folder"):
        with pytest.raises(EnvironmentFault) as caught, locking.held(place):
            raise AssertionError
        assert "--home" in caught.value.next_step


def test_marks_that_are_none_of_ours_are_left_and_not_counted(tmp_path):
    starts = Starts(tmp_path)
    folder = tmp_path / "starts"
    folder.mkdir()
    for name in ("x", "-1", "2x-ab", "notes.txt"):
        (folder / name).write_bytes(b"\0")
    for name in ("2-aa", "2-bb", "20-cc", "3-dd"):
        (folder / name).write_bytes(b"\0")
    assert [starts.crashed(number) for number in (1, 2, 3, 20)] == [0, 2, 1, 1]
    starts.forget(3)
    assert [starts.crashed(number) for number in (2, 3, 20)] == [2, 0, 1]
    starts.went_well(3)
    assert [starts.crashed(number) for number in (2, 3, 20)] == [0, 0, 1]
    assert {path.name for path in folder.iterdir()} == {"x", "-1", "2x-ab", "notes.txt", "20-cc"}


def test_an_opening_under_way_is_no_crash_and_is_not_forgotten(tmp_path):
    starts = Starts(tmp_path)
    with starts.marked(4):
        with starts.marked(4):
            assert starts.crashed(4) == 0
            starts.went_well(4)
            starts.forget(4)
            assert marks(tmp_path) == ["4-0", "4-1"]
        assert marks(tmp_path) == ["4-0"]
    assert marks(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["http://[", "https://[::1", "http://[x]y/", "~nobody-of-this-name/site", "file://[", "//[x://", "s3://b"]
)
def test_what_is_no_site_is_a_mistake_of_whoever_typed_it(text):
    with pytest.raises(UsageError) as caught:
        Site.of(text)
    assert caught.value.where == "--repository"
    assert text in caught.value.cause
    assert caught.value.exit_code == 2
    assert caught.value.next_step


@pytest.mark.parametrize("name", ["plain", "a b", "ü%20", "100%", "#x", "a+b"])
def test_who_publishes_and_who_reads_mean_the_same_folder(tmp_path, quick, name):
    """By its path and by its URL, whatever signs its name has."""
    folder = tmp_path / name
    for place in (str(folder), folder.as_uri()):
        assert places.opened(place) == Folder(folder)
        assert Site.of(place).root == folder.as_uri()
    places.opened(folder.as_uri()).create("a/b.json", b"{}")
    assert Site.of(folder, quick).small("a/b.json", 2) == b"{}"


@pytest.mark.parametrize("name", ["file://", "file://relative/x", "file://host", "FILE:///x", "file://file:///x"])
def test_a_url_that_names_no_folder_here_is_no_place(name):
    with pytest.raises(UsageError, match="no place to publish to") as caught:
        places.opened(name)
    assert caught.value.where == "--repository"


def test_a_folder_is_no_small_file_of_a_site(tmp_path, quick):
    (tmp_path / "metadata").mkdir()
    with pytest.raises(EnvironmentFault, match="no regular file"):
        Site.of(tmp_path, quick).small("metadata", 10)


@pytest.mark.parametrize("time", [b"-1.0", b"1e+300", b"253402300800.0"])
def test_times_that_no_calendar_has_are_refused(tmp_path, time):
    """They would be an error without a place wherever they are told, and in every later update."""
    (tmp_path / "floor.json").write_bytes(b'{"format":1,"sequences":{},"time":' + time + b"}\n")
    with pytest.raises(Refused) as caught:
        Floor(tmp_path / "floor.json").time()
    assert "is no time" in str(caught.value)
    bad = b'{"reason":"x","sequence":1,"time":' + time + b',"version":"1.0.0"}'
    (tmp_path / "quarantine.json").write_bytes(b'{"format":1,"releases":[' + bad + b"]}\n")
    with pytest.raises(Refused) as caught:
        Slots(tmp_path).quarantined()
    assert "is no time" in str(caught.value)


@pytest.mark.parametrize("name", ["client.json", "floor.json"])
@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"format":2}\n', b"\xff", b"{" * 99, b"1" * (1 << 21)])
def test_spoiled_records_of_a_home_are_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    read = settings.read if name == "client.json" else lambda path: Floor(path).sequence("digits")
    with pytest.raises(Refused) as caught:
        read(tmp_path / name)
    assert caught.value.exit_code == 7
    assert str(tmp_path / name) in caught.value.where


def test_a_folder_in_the_place_of_a_record_is_to_be_moved_away(tmp_path):
    for act in (settings.read, lambda path: Floor(path).time(), lambda path: Floor(path).lift("digits", 1, 1.0)):
        with pytest.raises(Refused, match="is a directory") as caught:
            act(tmp_path)
        assert caught.value.next_step.startswith("move it away, then ")


def test_records_that_cannot_be_read_are_the_machines_fault(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for act in (settings.read, lambda path: Floor(path).time(), lambda path: Floor(path).lift("digits", 1, 1.0)):
        with pytest.raises(EnvironmentFault, match="a part of the path is a file") as caught:
            act(tmp_path / "file" / "record")
        assert "--home" in caught.value.next_step


@pytest.mark.parametrize(
    "write",
    [
        lambda place: Slots(place).quarantine(1, "1.0.0", "bad"),
        lambda place: settings.remember("https://a", place / "client.json"),
        lambda place: Floor(place / "floor.json").lift("digits", 1, 1.0),
        lambda place: bandwidth.write(Past(), place / "speeds.json"),
    ],
    ids=["line", "settings", "floor", "speeds"],
)
@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS, errno.EACCES])
def test_what_cannot_be_written_leads_to_another_home(tmp_path, monkeypatch, write, number):
    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(EnvironmentFault) as caught:
        write(tmp_path)
    assert caught.value.next_step == "name another home with --home"


def test_a_home_that_cannot_be_made_leads_to_another(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for write in (
        lambda place: Slots(place).quarantine(1, "1.0.0", "bad"),
        lambda place: settings.remember("https://a", place / "client.json"),
        lambda place: root.kept(Path(__file__), place / "root.json"),
    ):
        with pytest.raises(EnvironmentFault) as caught:
            write(tmp_path / "file" / "home")
        assert "--out" not in caught.value.next_step


def test_a_repository_is_asked_for_until_one_is_given(tmp_path):
    path = tmp_path / "home" / "client.json"
    with pytest.raises(UsageError, match="nobody said where updates come from") as caught:
        settings.repository(None, path)
    assert (caught.value.where, caught.value.exit_code) == ("--repository", 2)
    assert not path.parent.exists()
    for given_url in ("https://a/ü", "file:///b"):
        assert settings.repository(given_url, path) == given_url
        settings.remember(given_url, path)
        assert settings.repository(None, path) == given_url == settings.read(path).repository


@pytest.mark.parametrize("data", [b"", b"x" * (root.LARGEST + 1)])
def test_what_is_no_root_is_neither_believed_nor_kept(tmp_path, data):
    (tmp_path / "given").write_bytes(data)
    for given_path in (tmp_path / "given", tmp_path / "none", tmp_path):
        with pytest.raises(UsageError) as caught:
            root.kept(given_path, tmp_path / "home" / "root.json")
        assert caught.value.where == str(given_path)
    assert not (tmp_path / "home").exists()


def test_a_kept_root_that_was_emptied_is_told(tmp_path):
    place = tmp_path / "root.json"
    place.write_bytes(b"")
    with pytest.raises(Refused, match="no root metadata: the file is damaged"):
        root.kept(None, place)


@hypothesis_settings(max_examples=40)
@given(st.text(alphabet="abz09-_./\\ Aé\n\0", max_size=8) | st.sampled_from(["a" * 64, "a" * 65, "..", "con", "-a"]))
def test_a_line_is_a_plain_folder_below_lines_or_none(name):
    home = Home(Path("/home/x"))
    try:
        found = home.line(name)
    except UsageError as error:
        assert error.where == "--line"
        assert len(error.cause) < 500
        return
    assert found.parent == home.lines
    assert found.name == name
    assert os.path.normpath(found) == str(found)


@pytest.mark.parametrize(
    "transfer", [Transfer(9**500, 0.0, 1.0), Transfer(-5, 0.0, 1.0), Transfer(5, -1.0, 1.0), Transfer(5, 0.0, -1e-9)]
)
def test_times_that_cannot_be_are_forgotten(tmp_path, transfer):
    """The file is a hint: a damaged one costs a worse forecast and never an update."""
    path = tmp_path / "speeds.json"
    bandwidth.write(Past(transfers=(transfer,)), path)
    assert bandwidth.read(path) == Past()
    bandwidth.write(Past(work={"download": -1e9}), path)
    assert bandwidth.read(path) == Past()
    assert bandwidth.read(path).seconds(FULL, 10) >= 0


blobs = st.lists(st.integers(0, 10**8), min_size=1, max_size=5, unique=True).map(
    lambda sizes: [
        Blob(f"{size:064x}", size, "hvd1" if place else "download", "b" * 64 if place else "")
        for place, size in enumerate(sizes)
    ]
)


@hypothesis_settings(max_examples=50)
@given(blobs, st.integers(1, 10**7), st.floats(0.001, 100), st.integers(0, 10**8), st.floats(0, 1e-5))
def test_the_cheapest_blob_is_never_much_later_nor_larger_than_need_be(found, rate, seconds, result, work):
    past = Past(transfers=(Transfer(rate * 100, 0.1, seconds),), work={"hvd1": work})
    chosen = bandwidth.cheapest(past, found, result)
    times = {blob: past.seconds(blob, result) for blob in found}
    soon = min(times.values()) + bandwidth.HARDLY_SECONDS
    assert times[chosen] <= soon
    assert not [blob for blob in found if times[blob] <= soon and blob.bytes < chosen.bytes]


choices = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=5).map(
    lambda pairs: [Choice(str(n), (Blob("a" * 64, size, "plain"),), float(s)) for n, (size, s) in enumerate(pairs)]
)
bound = st.none() | st.integers(0, 20)


@hypothesis_settings(max_examples=50)
@given(choices, bound, bound)
def test_the_first_allowed_choice_is_made_or_the_soonest(found, seconds, size):
    chosen = bandwidth.choose(found, Allowed(seconds, size))
    allowed = [
        one for one in found if (seconds is None or one.seconds <= seconds) and (size is None or one.bytes <= size)
    ]
    if allowed:
        assert chosen is allowed[0]
    else:
        assert all((chosen.seconds, chosen.bytes) <= (one.seconds, one.bytes) for one in found)
