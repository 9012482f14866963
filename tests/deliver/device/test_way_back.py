"""The way back where something went wrong before: a pointer found out anew, a full disk, a kill, a damaged slot."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from shop import X, asked, spoil, texts

from haversack.base.errors import EnvironmentFault, HaversackError
from haversack.deliver import whole
from haversack.deliver.quarantine import UNKNOWN, Bad
from haversack.deliver.slots import Slots


@pytest.fixture
def client(updated):
    return updated


@pytest.fixture
def lost(line):
    """The pointer is damaged: what it said of sequences is gone."""
    (line / "current").write_bytes(b"x")


def state(client):
    return client.status().lines_held[0]


@pytest.mark.usefixtures("lost")
def test_what_is_gone_back_from_after_that_is_not_installed_again(client):
    assert asked(client) == 2.0
    client.rollback("digits", "too many sevens")
    done = client.update("digits")
    assert (done.action, done.installed.version) == ("quarantined", "1.0.0")
    assert "too many sevens" in done.reason
    assert asked(client) == 1.0
    assert client.retry("digits") == ("1.1.0",)
    assert client.update("digits").installed.version == "1.1.0"


@pytest.mark.usefixtures("lost")
def test_an_update_knows_the_release_again_and_keeps_the_way_back(client, line):
    done = client.update("digits")
    assert (done.action, done.installed.version, done.installed.sequence) == ("current", "1.1.0", 2)
    pointer = Slots(line).pointer()
    assert (pointer.current.sequence, pointer.other.version, pointer.other.sequence) == (2, "1.0.0", UNKNOWN)
    assert client.rollback("digits").version == "1.0.0"
    assert asked(client) == 1.0


@pytest.mark.usefixtures("lost")
def test_another_manifest_of_the_same_version_is_not_taken_for_the_release(client, line):
    assert asked(client) == 2.0
    spoil(line / "b" / "manifest.json")
    done = client.update("digits")
    assert (done.action, done.installed.sequence) == ("installed", 2)
    assert asked(client) == 2.0


def test_releases_of_unknown_sequence_are_told_apart_by_version(tmp_path):
    slots = Slots(tmp_path / "digits")
    for sequence, version in ((UNKNOWN, "1.1.0"), (UNKNOWN, "1.2.0"), (4, "1.3.0"), (2, "1.1.0")):
        slots.quarantine(sequence, version, "bad")
    assert [bad.version for bad in slots.quarantined()] == ["1.2.0", "1.3.0", "1.1.0"]
    known, unknown = Bad(4, "1.3.0", "", 1.0), Bad(UNKNOWN, "1.2.0", "", 1.0)
    assert [known.names(*one) for one in ((4, "1.3.0"), (5, "1.3.0"), (UNKNOWN, "1.3.0"))] == [True, False, True]
    assert [unknown.names(*one) for one in ((3, "1.2.0"), (3, "1.2.1"), (UNKNOWN, "1.2.1"))] == [True, False, False]


@pytest.mark.usefixtures("lost")
def test_crashes_of_one_are_not_counted_for_the_other(client, line, told):
    assert asked(client) == 2.0
    for number in range(3):
        (line / "starts" / f"{UNKNOWN}-{number}").write_bytes(b"x")
    assert state(client).crashed == 3
    assert asked(client) == 1.0
    assert "it is tried again: there is no other" not in texts(told)
    assert state(client).crashed == 0
    assert [bad.version for bad in state(client).quarantined] == ["1.1.0"]


def test_a_way_back_that_was_killed_after_its_first_file_comes_to_its_end(client, line, told):
    Slots(line).quarantine(2, "1.1.0", "rolled back by hand")
    assert asked(client) == 1.0
    assert "1.1.0 was set aside, and the way back did not come to its end; 1.0.0 is in use" in texts(told)
    assert client.update("digits").action == "quarantined"
    assert [bad.reason for bad in state(client).quarantined] == ["rolled back by hand"]


def test_and_so_it_does_by_an_update(client, line):
    Slots(line).quarantine(2, "1.1.0", "rolled back by hand")
    done = client.update("digits")
    assert (done.action, done.installed.version) == ("quarantined", "1.0.0")


@pytest.mark.parametrize("damaged", [True, False])
def test_what_is_in_use_stays_where_there_is_nothing_better(client, line, damaged):
    slots = Slots(line)
    slots.quarantine(2, "1.1.0", "bad")
    if damaged:
        spoil(line / "a" / "onnxruntime.onnx")
    else:
        slots.quarantine(1, "1.0.0", "bad as well")
    assert whole.mended(slots) == ""
    assert asked(client) == 2.0


def refusing(monkeypatch, name, times):
    """Let writing a file of a line fail so often for want of room."""
    write, left = Slots._write, [times]

    def full(self, what, record):
        if what == name and left[0]:
            left[0] -= 1
            raise EnvironmentFault("the disk is full") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, what, record)

    monkeypatch.setattr(Slots, "_write", full)


@pytest.fixture
def part(client):
    """What an update fetched before it broke off."""
    path = client.home.incoming / "digits" / f"{'0' * 64}.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(1000))
    return path


@pytest.mark.parametrize("name", ["quarantine.json", "current"])
def test_on_a_full_disk_room_is_made_for_both_files(client, monkeypatch, part, told, name):
    refusing(monkeypatch, name, 1)
    assert client.rollback("digits", "too many sevens").version == "1.0.0"
    assert [bad.version for bad in state(client).quarantined] == ["1.1.0"]
    assert not part.exists()
    assert "could not be written" not in texts(told)
    assert client.update("digits").action == "quarantined"


def test_what_cannot_be_written_down_is_told_and_the_way_back_is_gone(client, monkeypatch, told):
    refusing(monkeypatch, "quarantine.json", 9)
    assert client.rollback("digits").version == "1.0.0"
    assert asked(client) == 1.0
    assert "that 1.1.0 is set aside could not be written down (the disk is full)" in texts(told)


def test_files_that_no_slot_uses_make_room_as_well(client, monkeypatch):
    loose = client.home.store / "ab" / ("0" * 62)
    loose.parent.mkdir(exist_ok=True)
    loose.write_bytes(bytes(7))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    refusing(monkeypatch, "current", 1)
    assert client.rollback("digits").version == "1.0.0"
    assert not loose.exists()


def test_where_there_is_no_way_back_nothing_is_given_up_for_it(client, part):
    client.rollback("digits")
    with pytest.raises(EnvironmentFault, match="there is no other model to go back to"):
        client.rollback("digits")
    assert part.exists()


def test_a_damaged_release_before_is_not_opened_for_one_that_cannot_be(client, line):
    (line / "b" / "onnxruntime.json").write_bytes(b"{}")
    spoil(line / "a" / "onnxruntime.onnx")
    with pytest.raises(HaversackError) as caught:
        client.open("digits", follow=False)
    assert caught.value.where.endswith("digits/b")
    assert "1.0.0, to which it would go back, is damaged" in str(caught.value.__cause__)
    assert client.update("digits").installed.version == "1.1.0"
    assert asked(client) == 2.0


def test_what_the_store_still_has_mends_the_release_in_use(client, line, told):
    client.rollback("digits", "too many sevens")
    (line / "a" / "onnxruntime.onnx").unlink()
    assert client.update("digits").action == "quarantined"
    assert "1.0.0 was damaged, and is mended from the store: onnxruntime.onnx: it is missing" in texts(told)
    assert asked(client) == 1.0
    assert Slots(line).pointer().other is None


def test_and_saves_the_newest_from_travelling_again(client, line):
    spoil(line / "b" / "onnxruntime.onnx")
    done = client.update("digits")
    assert (done.action, done.bytes) == ("current", 0)
    assert asked(client) == 2.0
    assert client.rollback("digits").version == "1.0.0"


@pytest.mark.parametrize(("slot", "words"), [("a", "a newer release is offered"), ("b", "fetches it again")])
def test_status_tells_of_files_in_the_slots(client, line, slot, words):
    spoil(line / slot / "onnxruntime.onnx")
    (line / slot / "labels.txt").unlink()
    found = client.status()
    assert found.damaged
    told = [str(fault) for fault in found.lines_held[0].damage]
    assert len(told) == 2
    assert any(text.startswith(f"{line}/{slot}/labels.txt: ") for text in told)
    assert any(text.startswith(f"{line}/{slot}/onnxruntime.onnx: ") for text in told)
    assert all("next: haversack client update digits" in text and words in text for text in told)


@pytest.mark.parametrize("content", [b"", b"x", b"[]\n"])
def test_status_tells_of_damaged_root_metadata(client, content):
    client.home.root.write_bytes(content)
    (fault,) = client.status().damage
    assert fault.where == str(client.home.root)
    assert "--root KEYS/1.root.json" in fault.cause


DENIED = [
    ("", "run digits x.npy"),
    ("", "client key"),
    ("", "client status"),
    ("lines", "client update digits"),
    ("lines", "run digits x.npy"),
    ("lines/digits", "client update digits"),
    ("store", "client update digits"),
    ("lines/digits/a", "client rollback digits"),
]


@pytest.mark.parametrize(("place", "command"), DENIED)
def test_a_folder_that_may_not_be_read_is_told(shop, client, tmp_path, environment, place, command):
    """By a process that may read no more than the folders' modes allow, as root may."""
    shop.publish("1.2.0", 3.0)
    np.save(tmp_path / "x.npy", X)
    folder = client.home.folder / place
    if folder.name == "a":  # looked at where the pointer is gone
        (folder.parent / "current").unlink()
    words = [sys.executable, "-m", "haversack.cli", *command.split(), "--home", str(client.home.folder), "--json"]
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if bound and shutil.which(bound[0]) is None:
        pytest.skip("root may read everything here")
    folder.chmod(0)
    try:
        done = subprocess.run(
            [*bound, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    finally:
        folder.chmod(0o755)
    assert done.returncode == 6, done.stderr
    error = json.loads(done.stdout)["error"]
    assert (error["cause"], error["next"]) == ("permission denied", "name another home with --home")
    assert str(folder if folder.name != "a" else folder.parent) in error["where"]


def test_status_tells_of_a_slot_that_may_not_be_read(client, line, monkeypatch):
    denied = EnvironmentFault("permission denied", where=str(line / "a"), next_step="look")

    def refuses(slots, installed):
        if installed.slot == "a":
            raise denied
        return ()

    monkeypatch.setattr(whole, "damage", refuses)
    assert [str(fault) for fault in state(client).damage] == [f"{line}/a: permission denied; next: look"]
