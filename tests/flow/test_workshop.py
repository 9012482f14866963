"""A run's folder: claimed once, remembered by content, and never another's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from haversack.base.errors import EnvironmentFault, UsageError
from haversack.base.progress import Event
from haversack.flow.workshop import Workshop, unfinished


@pytest.fixture
def told():
    return []


@pytest.fixture
def shop(tmp_path, told):
    with Workshop(tmp_path / "out", "job.py", told.append) as found:
        yield found


def remembered(shop, parts, make, load=None):
    return shop.remember(
        "profile", "numbers", parts, make,
        save=lambda made: ({"name": made[0]}, {"values": made[1]}),
        load=load or (lambda data, arrays: (data["name"], arrays["values"])),
    )  # fmt: skip


def test_a_thing_is_made_once_for_the_same_content(shop, told):
    calls = []

    def make():
        calls.append(1)
        return "one", np.arange(5, dtype=np.int64)

    first = remembered(shop, ["a", 1], make)
    again = remembered(shop, ["a", 1], make)
    other = remembered(shop, ["a", 2], make)
    assert len(calls) == 2
    assert first[0] == again[0] == other[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert [event.kind for event in told] == ["done", "reused", "done"]


def test_it_outlives_the_process_that_made_it(tmp_path):
    def make():
        return "one", np.array([[1.5, -0.0], [np.inf, 3]], np.float32)

    def never():
        raise AssertionError

    with Workshop(tmp_path / "out", "job.py", lambda _: None) as shop:
        first = remembered(shop, ["a"], make)
    with Workshop(tmp_path / "out", "job.py", lambda _: None) as shop:
        again = remembered(shop, ["a"], never)
    assert again[1].tobytes() == first[1].tobytes()


def test_a_thing_whose_files_are_gone_is_made_again(shop):
    values = iter("abc")
    make = lambda: (next(values), np.zeros(1))
    assert remembered(shop, [1], make)[0] == "a"
    assert remembered(shop, [1], make, load=lambda *_: None)[0] == "b"
    for blob in (shop.inside / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    assert remembered(shop, [1], make)[0] == "c"


def test_a_thing_that_could_not_be_made_is_not_remembered(shop):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        remembered(shop, [1], fail)
    assert remembered(shop, [1], lambda: ("made", np.zeros(2)))[0] == "made"


def test_seconds_of_what_is_reused_still_count(tmp_path):
    import time

    with Workshop(tmp_path / "out", "job.py", lambda _: None) as shop:
        remembered(shop, [1], lambda: (time.sleep(0.05), ("a", np.zeros(1)))[1])
        assert shop.seconds["profile"] >= 0.05
    with Workshop(tmp_path / "out", "job.py", lambda _: None) as shop:
        remembered(shop, [1], lambda: ("a", np.zeros(1)))
        assert shop.seconds["profile"] >= 0.05
        with shop.clocked("load"):
            time.sleep(0.02)
        assert shop.seconds["load"] >= 0.02


def test_events_go_to_the_file_and_to_the_sink(shop, told):
    shop.tell(Event("load", "note", "ünïcode", data={"path": shop.out}))
    (line,) = (shop.out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["text"] == "ünïcode"
    assert [event.text for event in told] == ["ünïcode"]


def test_a_second_process_may_not_work_in_it(shop):
    with pytest.raises(EnvironmentFault, match=f"another run .process {os.getpid()}. is writing") as caught:
        Workshop(shop.out, "job.py", lambda _: None, "haversack pack job.py")
    assert caught.value.next_step.startswith(f"haversack pack job.py --out {shop.out}-2 ")
    assert caught.value.where == str(shop.out)


def test_another_jobs_folder(shop):
    remembered(shop, [1], lambda: ("a", np.zeros(1)))
    with pytest.raises(UsageError, match="another job: job.py"):
        Workshop(shop.out, "other.py", lambda _: None)


@pytest.mark.parametrize("what", ["file", "folder with a file"])
def test_what_haversack_did_not_make_is_refused_and_left_alone(tmp_path, what):
    place = tmp_path / "mine"
    if what == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "notes.txt").write_text("mine")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="not a folder that haversack made"):
        Workshop(place, "job.py", lambda _: None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    with Workshop(tmp_path / "empty", "job.py", lambda _: None) as shop:
        assert shop.inside.is_dir()


def test_a_damaged_line_of_the_ledger_is_told(tmp_path, told):
    with Workshop(tmp_path / "out", "job.py", told.append) as shop:
        remembered(shop, [1], lambda: ("a", np.zeros(1)))
        remembered(shop, [2], lambda: ("b", np.zeros(1)))
    ledger = tmp_path / "out" / ".haversack" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"a", b"b", 1)
    ledger.write_bytes(b"".join(lines))
    told.clear()
    with Workshop(tmp_path / "out", "job.py", told.append) as shop:
        assert remembered(shop, [1], lambda: ("anew", np.zeros(1)))[0] == "anew"
        assert remembered(shop, [2], lambda: ("anew", np.zeros(1)))[0] == "b"
    assert any("damaged" in event.text for event in told)


@pytest.mark.parametrize("there", ["nothing", "an empty folder"])
def test_an_error_before_anything_was_made_leaves_what_was_found(tmp_path, there):
    out = tmp_path / "deep" / "out"
    if there == "an empty folder":
        out.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ZeroDivisionError), Workshop(out, "job.py", lambda _: None) as shop:
        shop.tell(Event("load", "start", "export"))
        (shop.inside / "float" / "onnxruntime").mkdir(parents=True)
        raise ZeroDivisionError
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_after_something_was_made_keeps_it(tmp_path):
    with pytest.raises(ZeroDivisionError), Workshop(tmp_path / "out", "job.py", lambda _: None) as shop:
        remembered(shop, [1], lambda: ("a", np.zeros(1)))
        raise ZeroDivisionError
    with Workshop(tmp_path / "out", "job.py", lambda _: None) as shop:
        assert remembered(shop, [1], lambda: ("b", np.zeros(1)))[0] == "a"


def test_a_folder_in_which_a_killed_run_made_nothing_is_taken_over(tmp_path):
    shop = Workshop(tmp_path / "out", "job.py", lambda _: None)
    shop.tell(Event("load", "start", "export"))
    (shop.inside / "float").mkdir()
    shop.close()  # as kill -9 leaves it
    with Workshop(tmp_path / "out", "other.py", lambda _: None) as other:
        assert not (other.inside / "float").exists()
        assert (tmp_path / "out" / "events.jsonl").read_bytes() == b""
        remembered(other, [1], lambda: ("a", np.zeros(1)))
    with pytest.raises(UsageError, match="another job: other.py"):
        Workshop(tmp_path / "out", "job.py", lambda _: None)


def test_a_finished_runs_folder_without_its_ledger_stays_its_own(tmp_path):
    with Workshop(tmp_path / "out", "job.py", lambda _: None):
        (tmp_path / "out" / "report.json").write_text("{}")
    with pytest.raises(UsageError, match="another job: job.py"):
        Workshop(tmp_path / "out", "other.py", lambda _: None)


def test_an_unfinished_run_is_told_with_its_own_command(tmp_path, monkeypatch):
    here = Path.cwd()
    assert unfinished(tmp_path / "out") is None
    with Workshop(tmp_path / "out", "job.py", lambda _: None, "haversack pack job.py --out out") as shop:
        remembered(shop, [1], lambda: ("a", np.zeros(1)))
    told = unfinished(tmp_path / "out")
    assert "not finished" in told.cause
    assert told.next_step.startswith("haversack pack job.py --out out ")
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir(tmp_path / "else where")
    assert unfinished(tmp_path / "out").next_step.startswith(f"cd {here} && haversack pack job.py --out out ")
    (tmp_path / "out" / "report.json").write_text("{}")
    assert unfinished(tmp_path / "out") is None


def test_a_room_has_a_folder_and_a_name_of_its_own_and_shares_the_ledger(shop, told, tmp_path):
    room = shop.room("wide")
    assert room.inside == tmp_path / "out" / ".haversack" / "architectures" / "wide"
    assert room.inside.is_dir()
    first = remembered(room, ["same"], lambda: ("one", np.arange(3)))
    again = remembered(shop.room("narrow"), ["same"], lambda: pytest.fail("it was made in another room"))
    assert first[0] == again[0] == "one"
    assert [(event.kind, event.text) for event in told] == [("done", "wide: numbers"), ("reused", "narrow: numbers")]
    assert shop.seconds["profile"] > 0
    shop.tell(Event("load", "note", "of all"))
    assert told[-1].text == "of all"
    lines = [json.loads(line)["text"] for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert lines[-3:] == ["wide: numbers", "narrow: numbers", "of all"]
