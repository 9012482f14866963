"""A home that a disk, or a person, has damaged: what lies whole goes on, each file is told, and no advice is false."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys

import pytest
from commands import typed
from shop import asked, spoil, texts, tried_here

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.deliver import locking, settings
from haversack.deliver.floor import Floor
from haversack.deliver.home import Home
from haversack.deliver.slots import Slots
from haversack.deliver.store import Store
from haversack.flow.client import Client

DAMAGED = [b"", b"x", b"\xff" * 10, b'{"a":1}\n', b"[]\n", b"[" * 100_000, b'{"format":2}\n', b'{"format":1}']


@pytest.fixture
def client(updated):
    return updated


LOST = {
    "a file": lambda slot: (slot / "labels.txt").unlink(),
    "the manifest": lambda slot: (slot / "manifest.json").unlink(),
    "the model": lambda slot: (slot / "onnxruntime.onnx").unlink(),
    "all files": lambda slot: [path.unlink() for path in slot.iterdir()],
    "the folder": shutil.rmtree,
}


@pytest.mark.parametrize("lost", LOST)
def test_what_a_slot_has_lost_leads_back_and_comes_anew(client, line, told, lost):
    LOST[lost](line / "b")
    assert asked(client) == 1.0
    assert "digits 1.1.0 is set aside for 1.0.0: it is not what was installed" in texts(told)
    assert client.status().lines_held[0].quarantined == ()
    assert client.update("digits").installed.version == "1.1.0"
    assert asked(client) == 2.0


@pytest.mark.parametrize("lost", LOST)
def test_what_the_only_slot_has_lost_comes_anew(shop, tmp_path, lost):
    client = Client(tmp_path / "home", shop.url, shop.root, test=tried_here, tune=None)
    client.update("digits")
    LOST[lost](client.home.line("digits") / "a")
    with pytest.raises(Refused, match="it is not what was installed") as caught:
        client.open("digits")
    assert caught.value.next_step.startswith("haversack client update digits ")
    assert client.update("digits").action in ("installed", "current")  # the store may still have what was lost
    assert asked(client) == 1.0


def test_a_new_release_takes_the_slot_that_is_damaged(shop, client, line):
    """Else the release before, which is whole, would be cleared for it, and the way back lead to the damaged one."""
    spoil(line / "b" / "onnxruntime.onnx")
    shutil.rmtree(client.home.store)
    shop.publish("1.2.0", 3.0)
    done = client.update("digits")
    assert (done.installed.version, done.installed.slot, done.before.version) == ("1.2.0", "b", "1.0.0")
    assert client.rollback("digits").version == "1.0.0"
    assert asked(client) == 1.0


def test_an_update_that_comes_before_a_way_back_is_not_gone_back_from(shop, client, monkeypatch):
    shop.publish("1.2.0", 3.0)
    pointer, ahead = Slots.pointer, []

    def late(self):
        found = pointer(self)
        if not ahead:
            ahead.append(True)
            Client(client.home.folder, test=tried_here, tune=None).update("digits")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Slots, "pointer", late)
        with pytest.raises(EnvironmentFault, match=r"an update came first: 1\.2\.0 is in use now"):
            client.rollback("digits")
    assert asked(client) == 3.0
    assert client.status().lines_held[0].quarantined == ()
    assert client.rollback("digits").version == "1.1.0"


@pytest.mark.parametrize("content", DAMAGED[:-1])
def test_a_damaged_pointer_is_found_out_from_the_slots_by_whoever_opens(client, line, told, content):
    (line / "current").write_bytes(content)
    assert asked(client) == 2.0
    assert "what tells which release is in use was damaged; 1.1.0 lies whole, and is" in texts(told)
    pointer = client.status().lines_held[0].pointer
    assert (pointer.current.version, pointer.current.slot, pointer.other.version) == ("1.1.0", "b", "1.0.0")
    assert client.rollback("digits").version == "1.0.0"
    assert asked(client) == 1.0


def test_one_that_is_gone_too(client, line, told):
    (line / "current").unlink()
    assert client.status().damaged
    assert asked(client) == 2.0
    assert "1.1.0 lies whole, and is" in texts(told)
    assert client.rollback("digits").version == "1.0.0"


def test_one_that_is_a_link_to_itself_too(client, line):
    (line / "current").unlink()
    (line / "current").symlink_to("current")
    assert asked(client) == 2.0
    assert client.update("digits").action == "current"


@pytest.mark.parametrize("what", ["a folder", "bytes"])
def test_what_lies_whole_answers_where_no_pointer_can_be_written(client, line, told, monkeypatch, what):
    (line / "current").unlink()
    if what == "a folder":
        (line / "current").mkdir()
    else:
        (line / "current").write_bytes(b"x")

        def full(*_):
            raise EnvironmentFault("the file system is read-only")

        monkeypatch.setattr(Slots, "rewrite", full)
    assert asked(client) == 2.0
    assert asked(client) == 2.0
    assert "is damaged; 1.1.0 lies whole, and answers" in texts(told)


def test_what_was_put_there_last_is_in_use_whatever_its_version(shop, client, line):
    for version, value in (("2.0.0-rc.9", 3.0), ("2.0.0-rc.10", 4.0), ("1.5.0", 5.0)):
        shop.publish(version, value)
        client.update("digits")
        (line / "current").write_bytes(b"x")
        assert asked(client) == value


def test_and_by_an_update(shop, client, line, told):
    (line / "current").write_bytes(b"x")
    assert client.update("digits").installed.version == "1.1.0"
    assert "is in use was damaged; 1.1.0 lies whole, and is" in texts(told)
    assert asked(client) == 2.0
    shop.publish("1.2.0", 3.0)
    assert client.update("digits").installed.version == "1.2.0"
    assert client.rollback("digits").version == "1.1.0"


def test_what_was_set_aside_is_not_used_again_for_it(client, line):
    client.rollback("digits")
    (line / "current").write_bytes(b"x")
    assert asked(client) == 1.0
    (line / "current").write_bytes(b"x")
    done = client.update("digits")
    assert (done.action, done.installed.version) == ("quarantined", "1.0.0")
    assert asked(client) == 1.0


def test_nor_is_what_is_damaged_itself(client, line):
    (line / "current").write_bytes(b"x")
    spoil(line / "b" / "onnxruntime.onnx")
    assert asked(client) == 1.0
    pointer = client.status().lines_held[0].pointer
    assert (pointer.current.version, pointer.other) == ("1.0.0", None)
    assert client.update("digits").installed.version == "1.1.0"
    assert asked(client) == 2.0


def test_where_nothing_lies_whole_the_newest_comes_anew(client, line, told):
    (line / "current").write_bytes(b"x")
    spoil(line / "a" / "onnxruntime.onnx")
    spoil(line / "b" / "onnxruntime.onnx")
    with pytest.raises(Refused) as caught:
        client.open("digits")
    assert caught.value.next_step.startswith("haversack client update digits ")
    done = client.update("digits")
    assert (done.action, done.installed.version, done.before) == ("installed", "1.1.0", None)
    assert "is damaged, the newest comes anew" in texts(told)
    assert asked(client) == 2.0


def test_nobody_goes_back_to_a_damaged_release(shop, client, line):
    spoil(line / "a" / "onnxruntime.onnx")
    before = (line / "current").read_bytes()
    with pytest.raises(EnvironmentFault, match=r"1\.0\.0, to which it would go back, is damaged") as caught:
        client.rollback("digits")
    assert any("onnxruntime.onnx" in str(fault) for fault in caught.value.faults)
    assert caught.value.next_step.startswith("haversack client update digits ")
    assert (line / "current").read_bytes() == before
    assert client.status().lines_held[0].quarantined == ()
    assert asked(client) == 2.0
    shop.publish("1.2.0", 3.0)
    client.update("digits")
    assert client.rollback("digits").version == "1.1.0"
    assert asked(client) == 2.0


def test_where_the_release_in_use_is_damaged_and_the_newest_set_aside_an_update_says_both(client, line):
    client.rollback("digits", "too many sevens")
    spoil(line / "a" / "onnxruntime.onnx")
    shutil.rmtree(client.home.store)  # else it is mended from there
    with pytest.raises(EnvironmentFault, match="which is in use, is damaged, and the newest, 1.1.0 is set") as caught:
        client.update("digits")
    assert "too many sevens" in caught.value.cause
    assert caught.value.next_step == "haversack client retry digits, then haversack client update digits"
    assert client.retry("digits") == ("1.1.0",)
    assert client.update("digits").installed.version == "1.1.0"
    assert asked(client) == 2.0


@pytest.mark.parametrize("name", ["client.json", "floor.json", "lines/digits/current", "lines/digits/quarantine.json"])
@pytest.mark.parametrize("content", DAMAGED)
def test_every_file_is_told_and_keeps_no_other_from_being_told(shop, client, name, content, told):
    shop.publish("1.0.0", 7.0, line="words")
    client.update("words")
    path = client.home.folder / name
    path.write_bytes(content)
    done = typed("client", "status", "--home", client.home.folder)
    assert done.code == 7
    assert f"damaged: {path}: " in done.out
    commands = [text for text in done.out.splitlines() if "; next: haversack client" in text]
    assert all(f" --home {client.home.folder}" in text for text in commands)
    assert "; next: " in done.out
    assert "words 1.0.0 (sequence 1)" in done.out
    assert ("digits 1.1.0" in done.out) == (path.name != "current")
    data = typed("client", "status", "--home", client.home.folder, "--json")
    assert (data.code, len(data.json["damage"]) + len(data.json["lines"][0]["damage"])) == (7, 1)


@pytest.mark.parametrize("name", ["client.json", "floor.json", "root.json", "speeds.json"])
@pytest.mark.parametrize("content", DAMAGED)
def test_the_way_back_needs_none_of_them(client, name, content):
    (client.home.folder / name).write_bytes(content)
    done = typed("client", "rollback", "digits", "--home", client.home.folder)
    assert done.code == 0, done.err
    assert "digits 1.0.0 is in use" in done.out
    assert "1.1.0 is not installed again, unless you type haversack client retry digits" in done.out


@pytest.mark.parametrize("content", DAMAGED)
def test_an_address_that_is_given_takes_the_place_of_a_damaged_one(shop, client, content):
    path = client.home.settings
    path.write_bytes(content)
    home = Client(client.home.folder, test=tried_here, tune=None)
    with pytest.raises(Refused) as caught:
        home.update("digits")
    assert "--repository URL" in caught.value.next_step
    assert Client(client.home.folder, shop.url, test=tried_here, tune=None).update("digits").action == "current"
    assert settings.read(path).repository == shop.url


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_floor_opens_no_way_back_by_itself(client, content):
    client.home.floor.write_bytes(content)
    with pytest.raises(Refused) as caught:
        client.update("digits")
    step = f"rm {client.home.floor}, then update: an older release is taken once, if it was signed"
    assert caught.value.next_step == step
    assert asked(client) == 2.0
    client.home.floor.unlink()
    client.update("digits")
    assert Floor(client.home.floor).sequence("digits") == 2


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_root_metadata_are_given_once_more(shop, client, content):
    client.home.root.write_bytes(content)
    home = Client(client.home.folder, test=tried_here, tune=None)
    with pytest.raises(Refused, match="it is no root metadata: the file is damaged") as caught:
        home.update("digits")
    assert "--root KEYS/1.root.json" in caught.value.next_step
    again = Client(client.home.folder, root=shop.root, test=tried_here, tune=None)
    assert again.update("digits").action == "current"
    assert client.home.root.read_bytes() == shop.root.read_bytes()


@pytest.mark.parametrize("content", DAMAGED)
def test_what_is_no_root_metadata_is_not_kept(shop, tmp_path, content):
    (tmp_path / "mine.json").write_bytes(content)
    with pytest.raises(UsageError, match="it is no root metadata") as caught:
        Client(tmp_path / "new", shop.url, tmp_path / "mine.json").update("digits")
    assert caught.value.where == str(tmp_path / "mine.json")
    assert not (tmp_path / "new" / "root.json").exists()


def test_a_folder_that_is_gone_does_not_keep_the_store_from_its_quota(shop, client, told, monkeypatch):
    cleaned, make_room = [], Store.make_room

    def counted(self, needed, keep):
        cleaned.append(needed)
        return make_room(self, needed, keep)

    monkeypatch.setattr(Store, "make_room", counted)
    shop.publish("1.2.0", 3.0)
    activate = Slots.activate

    def gone(self, *words):
        subprocess.run(["rm", "-r", str(client.home.incoming)], check=True)
        return activate(self, *words)

    monkeypatch.setattr(Slots, "activate", gone)
    assert client.update("digits").action == "installed"
    assert cleaned[-1] == 0
    assert "not everything was tidied up" not in texts(told)


def test_a_full_disk_keeps_nobody_from_going_back(client, line, told, monkeypatch):
    def full(*_):
        raise EnvironmentFault("the disk is full")

    monkeypatch.setattr(Slots, "quarantine", full)
    monkeypatch.setattr(Slots, "_quarantine", full)
    assert client.rollback("digits").version == "1.0.0"
    assert asked(client) == 1.0
    assert "that 1.1.0 is set aside could not be written down (the disk is full): an update may" in texts(told)


@contextlib.contextmanager
def disk(folder, size):
    """A small file system of its own, in the place of a folder; skipped where we may not mount."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system, where that is possible at all")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_full_disk_what_was_fetched_makes_room_for_the_way_back(shop, tmp_path):
    with disk(tmp_path / "small" / "home", "4M") as folder:
        client = Client(folder, shop.url, shop.root, test=tried_here, tune=None)
        client.update("digits")
        shop.publish("1.1.0", 2.0)
        client.update("digits")
        part = folder / "incoming" / "digits" / f"{'0' * 64}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        with pytest.raises(OSError, match="No space left"), part.open("wb") as stream:
            while True:
                stream.write(bytes(1 << 16))
        assert client.rollback("digits").version == "1.0.0"
        assert not part.exists()
        assert [bad.version for bad in client.status().lines_held[0].quarantined] == ["1.1.0"]
        assert asked(client) == 1.0


@pytest.mark.parametrize(
    ("number", "cause"), [(errno.ENOLCK, "the disk gives no locks"), (errno.EOPNOTSUPP, "the disk cannot do that")]
)
def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, number, cause):
    def refuses(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(EnvironmentFault, match=cause) as caught, locking.held(tmp_path / "lock"):
        pass
    assert caught.value.next_step == "name a home on another disk with --home"


def test_a_file_of_the_store_that_goes_while_it_is_looked_at_counts_nothing(tmp_path):
    store = Store(tmp_path / "store")
    (store.folder / "ab").mkdir(parents=True)
    (store.folder / "ab" / ("0" * 62)).write_bytes(bytes(7))
    (store.folder / "ab" / ("1" * 62)).symlink_to("nowhere")
    assert store.bytes() == 7


@pytest.mark.parametrize("command", [("client", "status"), ("run", "digits", "x.npy"), ("client", "update", "digits")])
def test_a_home_of_nobody_is_told(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(b"x")
    done = typed(*command, "--home", "~nosuchuser/x")
    assert done.code == 2
    assert "no home of a person" in done.err
    with pytest.raises(UsageError):
        Home.at("~nosuchuser/x")


def test_a_home_that_may_not_be_read_is_told(client, monkeypatch):
    """Root may read everything: the system's refusal is put in its place."""
    path = type(client.home.lines)
    for name in ("is_dir", "iterdir"):

        def refuses(self, *_, name=name):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))

        with monkeypatch.context() as patch:
            patch.setattr(path, name, refuses)
            acts = [client.status]
            if name == "is_dir":
                acts += [lambda act=act: act("digits") for act in (client.rollback, client.retry, client.open)]
            for act in acts:
                with pytest.raises(EnvironmentFault, match="permission denied"):
                    act()


@pytest.mark.parametrize("words", [("client", "status"), ("client", "status", "--json")])
@pytest.mark.parametrize(("out", "code"), [(">/dev/full", 6), (">&-", 0)])
def test_a_result_that_cannot_be_written_is_told(client, environment, words, out, code):
    command = f"{sys.executable} -m haversack.cli {' '.join(words)} --home {client.home.folder} {out}"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("standard output cannot be written: No space left on device" in done.stderr) == (code == 6)
    assert "Traceback" not in done.stderr
