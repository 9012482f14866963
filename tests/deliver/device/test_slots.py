"""Two slots and a pointer; locks; floor; marks of openings; what a home remembers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marks import free, marks
from tuf.api.metadata import Metadata, Root

from haversack.base import digest
from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.deliver import locking, root, settings
from haversack.deliver import starts as starts_module
from haversack.deliver.floor import Floor
from haversack.deliver.home import Home
from haversack.deliver.slots import Slots
from haversack.deliver.starts import LOOP, Starts
from haversack.deliver.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def slots(tmp_path):
    return Slots(tmp_path / "lines" / "digits")


def filled(slots, store, version):
    """Stage and activate a release of one file that holds its version."""
    data = version.encode()
    with store.adding(digest.of_bytes(data)) as stream:
        stream.write(data)
    folder = slots.stage({"model.onnx": digest.of_bytes(data)}, store)
    return folder, slots.activate(version, int(version.split(".")[1]) + 1, "onnxruntime", 1.0)


def held(slots):
    with slots.opening() as installed:
        return (slots.path(installed) / "model.onnx").read_text(), installed.version


def test_releases_take_turns(slots, store):
    with pytest.raises(EnvironmentFault, match="nothing is installed"):
        held(slots)
    for number in range(5):
        folder, installed = filled(slots, store, f"1.{number}.0")
        assert (folder.name, installed.slot) == ("next", "ab"[number % 2])
        assert not folder.exists()
        assert held(slots) == (f"1.{number}.0",) * 2
        pointer = slots.pointer()
        assert (pointer.other.version if pointer.other else None) == (f"1.{number - 1}.0" if number else None)


def test_what_is_staged_is_not_in_use_and_costs_no_way_back(slots, store):
    filled(slots, store, "1.0.0")
    filled(slots, store, "1.1.0")
    name = digest.of_bytes(b"1.1.0")
    slots.stage({"other.onnx": name}, store)
    assert held(slots) == ("1.1.0", "1.1.0")
    assert slots.pointer().other.version == "1.0.0"
    again = slots.stage({"model.onnx": name}, store)  # what an update left that was killed is cleared
    assert [path.name for path in again.iterdir()] == ["model.onnx"]
    assert slots.way_back("no good").version == "1.0.0"
    assert held(slots) == ("1.0.0", "1.0.0")


def test_the_release_in_use_is_mended_in_its_slot(slots, store):
    filled(slots, store, "1.0.0")
    _, installed = filled(slots, store, "1.1.0")
    slot = slots.path(installed)
    files = {path.name: digest.of_bytes(path.read_bytes()) for path in slot.iterdir()}
    for path in slot.iterdir():
        path.unlink()
        path.write_bytes(b"a defect on the disk")
    (slot / "stray").write_bytes(b"of nobody")
    before = slots.pointer()
    slots.stage(files, store)
    assert slots.activate(installed.version, installed.sequence, installed.target, 9.0) == installed
    assert slots.pointer() == before
    assert {path.name: digest.of_bytes(path.read_bytes()) for path in slot.iterdir()} == files
    assert slots.way_back("no good").version == "1.0.0"


def test_the_way_back(slots, store):
    filled(slots, store, "1.0.0")
    filled(slots, store, "1.1.0")
    assert slots.way_back("it is slow", sequence=9).version == "1.1.0"  # that one is in use no more
    assert slots.way_back("it is slow", sequence=2).version == "1.0.0"
    (bad,) = slots.quarantined()
    assert (bad.sequence, bad.version, bad.reason) == (2, "1.1.0", "it is slow")
    assert abs(bad.time - time.time()) < 60
    assert held(slots) == ("1.0.0", "1.0.0")
    filled(slots, store, "1.2.0")
    assert slots.way_back("damaged", damaged=True).version == "1.0.0"
    assert len(slots.quarantined()) == 1


def test_releases_set_aside_at_once_are_all_remembered(slots):
    """One process goes back while another's update fails: neither writes over what the other wrote."""
    together = threading.Barrier(8)

    def set_aside(first):
        together.wait()
        for number in range(first, first + 5):
            slots.quarantine(number, f"1.0.{number}", "NaN")

    threads = [threading.Thread(target=set_aside, args=(10 * index,)) for index in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {10 * index + number for index in range(1, 9) for number in range(5)}
    assert {bad.sequence for bad in slots.quarantined()} == wanted


def test_quarantine_is_bounded(slots):
    for number in range(1, 100):
        slots.quarantine(number, "1.0.0", "x" * 1000)
    slots.quarantine(99, "1.0.0", "again")
    found = slots.quarantined()
    assert len(found) == 64
    assert found[-1].reason == "again"
    assert len(found[0].reason) == 400


@pytest.mark.parametrize("content", [b"", b"a", b"{}\n", b'{"format":1}\n', b"\xff" * 10, b"x" * 100_000])
def test_a_damaged_pointer_is_told(slots, store, content):
    filled(slots, store, "1.0.0")
    (slots.folder / "current").write_bytes(content)
    with pytest.raises(Refused):
        held(slots)


def test_nobody_clears_a_slot_that_is_being_opened(slots, store):
    filled(slots, store, "1.0.0")
    filled(slots, store, "1.1.0")
    opened, done = threading.Event(), []

    def fill():
        filled(slots, store, "1.2.0")
        done.append(time.monotonic())

    with slots.opening():
        thread = threading.Thread(target=fill)
        thread.start()
        opened.wait(0.3)
        assert done == []
        assert (slots.folder / "a" / "model.onnx").read_text() == "1.0.0"
        let_go = time.monotonic()
    thread.join(10)
    assert done[0] >= let_go


def test_one_who_may_not_write_may_open(slots, store, tmp_path):
    filled(slots, store, "1.0.0")
    (slots.folder / "lock").chmod(0o444)
    assert held(slots)[0] == "1.0.0"


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path, environment):
    path = tmp_path / "lock"
    script = (
        "from pathlib import Path; import time; from haversack.deliver import locking\n"
        f"with locking.held(Path({str(path)!r})): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    with process.stdout:
        assert process.stdout.readline() == b"held\n"
        assert not free(path)
        with pytest.raises(EnvironmentFault, match="another process or thread works here"), locking.held(path):
            pass
        with pytest.raises(EnvironmentFault), locking.held(path, shared=True, wait_seconds=0.2):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locking.held(path, wait_seconds=5):
        assert not free(path)
    assert free(path)
    with locking.held(path, shared=True), locking.held(path, shared=True):
        assert free(path)


def test_marks_of_processes_that_died(tmp_path, environment):
    starts = Starts(tmp_path)
    script = (
        "import os, sys; from pathlib import Path; from haversack.deliver.starts import Starts\n"
        f"with Starts(Path({str(tmp_path)!r})).marked(7):\n    os.kill(os.getpid(), 9)"
    )
    with starts.marked(7):
        assert starts.crashed(7) == 0
        for _ in range(LOOP):
            subprocess.run([sys.executable, "-c", script], env=environment, check=False)
        assert starts.crashed(7) == LOOP
        assert starts.crashed(8) == 0
    assert starts.crashed(7) == LOOP
    starts.forget(8)
    assert starts.crashed(7) == LOOP
    starts.went_well(6)
    assert starts.crashed(7) == LOOP
    starts.went_well(7)
    assert starts.crashed(7) == 0


def test_a_folder_that_takes_no_marks_stops_nobody(tmp_path):
    (tmp_path / "starts").write_text("a file")
    with Starts(tmp_path).marked(1):
        assert Starts(tmp_path).crashed(1) == 0
    Starts(tmp_path).went_well(1)
    Starts(tmp_path).forget(1)
    assert (tmp_path / "starts").read_text() == "a file"


LEFT = """
import os, sys
from pathlib import Path
from haversack.deliver.starts import Starts
mark = Starts(Path(sys.argv[1])).marked(7)
mark.__enter__()
if sys.argv[2] == "fork" and os.fork() == 0:
    sys.exit(0)
if sys.argv[2] == "fork":
    os.wait()
    assert os.stat(Path(sys.argv[1], "starts", "7-0")).st_size == 1, "the child took its parent's mark away"
"""


@pytest.mark.parametrize("how", ["leave", "fork"])
def test_a_process_that_exits_at_it_has_not_crashed(tmp_path, environment, how):
    subprocess.run([sys.executable, "-c", LEFT, str(tmp_path), how], env=environment, check=True)
    assert marks(tmp_path) == []


def test_nobody_sees_a_mark_that_is_not_locked_yet(tmp_path):
    """Eight threads make marks, and one counts those that died: there are none."""
    starts, ended, seen = Starts(tmp_path), threading.Event(), []

    def make():
        while not ended.is_set():
            with starts.marked(3):
                pass

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    seen = [starts.crashed(3) for _ in range(2000)]
    ended.set()
    for thread in threads:
        thread.join()
    assert set(seen) == {0}
    assert marks(tmp_path) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.floats(0, 1e10)), max_size=8))
def test_the_floor_never_falls(tmp_path_factory, lifts):
    path = tmp_path_factory.mktemp("floor") / "floor.json"
    highest, newest = {}, 0.0
    for line, sequence, seconds in lifts:
        Floor(path).lift(line, sequence, seconds)
        highest[line] = max(sequence, highest.get(line, 0))
        newest = max(newest, seconds)
    assert {line: Floor(path).sequence(line) for line in "abc"} == {line: highest.get(line, 0) for line in "abc"}
    assert Floor(path).time() == newest


def test_a_damaged_floor_is_no_empty_one(tmp_path):
    path = tmp_path / "floor.json"
    path.write_bytes(b"{}")
    with pytest.raises(Refused):
        Floor(path).sequence("digits")
    with pytest.raises(Refused):
        Floor(path).lift("digits", 1, 0.0)


def test_a_floor_that_does_not_rise_is_not_written(tmp_path):
    path = tmp_path / "floor.json"
    Floor(path).lift("digits", 3, 5.0)
    inode = path.stat().st_ino
    Floor(path).lift("digits", 2, 4.0)
    assert path.stat().st_ino == inode


def test_the_repository_is_remembered(tmp_path):
    path = tmp_path / "home" / "client.json"
    with pytest.raises(UsageError, match="where updates come from"):
        settings.repository(None, path)
    assert settings.repository("https://one", path) == "https://one"
    assert settings.repository(None, path) == "https://one"
    assert settings.repository("https://two", path) == "https://two"
    assert settings.read(path).repository == "https://one"  # until the other has proven good
    settings.remember("https://two", path)
    assert settings.repository(None, path) == "https://two"
    path.write_bytes(b"[]")
    with pytest.raises(Refused):
        settings.repository(None, path)


def test_the_root_is_kept(tmp_path):
    place, given_ = tmp_path / "home" / "root.json", tmp_path / "1.root.json"
    with pytest.raises(UsageError, match="whom to believe"):
        root.kept(None, place)
    with pytest.raises(UsageError, match="cannot be read"):
        root.kept(given_, place)
    given_.write_bytes(b"")
    with pytest.raises(UsageError, match="no root metadata"):
        root.kept(given_, place)
    one, two = (Metadata(Root(version=number)).to_bytes() for number in (1, 2))
    given_.write_bytes(one)
    assert root.kept(given_, place) == one
    assert root.kept(None, place) == one
    given_.write_bytes(two)
    with pytest.raises(Refused, match="other root metadata"):
        root.kept(given_, place)


@pytest.mark.parametrize("name", ["..", "", "a/b", "A", "-a", "a" * 70, "a\n"])
def test_names_of_lines(tmp_path, name):
    with pytest.raises(UsageError):
        Home(tmp_path).line(name)
    assert Home(tmp_path).line("digits-2") == tmp_path / "lines" / "digits-2"
    assert Home(tmp_path).line("a").parent == tmp_path / "lines"


def test_a_mark_is_made_of_the_file_that_the_one_before_left(tmp_path):
    starts = Starts(tmp_path)
    with starts.marked(3):
        made = (tmp_path / "starts" / "3-0").stat().st_ino
    for _ in range(3):
        with starts.marked(3):
            assert marks(tmp_path) == ["3-0"]
    assert [path.name for path in (tmp_path / "starts").iterdir()] == ["3-0"]
    assert (tmp_path / "starts" / "3-0").stat().st_ino == made


def test_a_file_of_one_who_died_or_of_somebody_else_is_left(tmp_path, monkeypatch):
    starts, opens = Starts(tmp_path), os.open
    with starts.marked(3):
        pass
    (tmp_path / "starts" / "3-1").write_bytes(b"\0")

    def guarded(path, *rest):
        if Path(path).name == "3-0":
            raise PermissionError
        return opens(path, *rest)

    monkeypatch.setattr(os, "open", guarded)
    with starts.marked(3):
        assert marks(tmp_path) == ["3-1", "3-2"]
        assert starts.crashed(3) == 1
    assert marks(tmp_path) == ["3-1"]


def test_a_file_that_is_removed_as_it_is_opened_is_no_mark(tmp_path, monkeypatch):
    starts, opens = Starts(tmp_path), os.open

    def late(path, *rest):
        descriptor = opens(path, *rest)
        if Path(path).name == "3-0":
            Path(path).unlink()
        return descriptor

    monkeypatch.setattr(os, "open", late)
    with starts.marked(3):
        assert marks(tmp_path) == ["3-1"]


def test_so_many_that_died_are_enough(tmp_path):
    starts = Starts(tmp_path)
    (tmp_path / "starts").mkdir()
    for number in range(starts_module._MOST):
        (tmp_path / "starts" / f"3-{number}").write_bytes(b"\0")
    with starts.marked(3):
        assert starts.crashed(3) == starts_module._MOST
        starts.went_well(3)
    assert list((tmp_path / "starts").iterdir()) == []
    with starts.marked(3):
        assert marks(tmp_path) == ["3-0"]


def test_an_answer_of_a_later_release_removes_the_files_of_those_before(tmp_path):
    starts = Starts(tmp_path)
    for number in (2, 3, 4):
        with starts.marked(number):
            pass
    starts.went_well(3)
    assert sorted(path.name for path in (tmp_path / "starts").iterdir()) == ["3-0", "4-0"]
