"""What kill -9, a damaged disk or a hand in the folder leave behind: what is whole is reused, the rest made again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from haversack.base.errors import EXIT_ENVIRONMENT, EnvironmentFault, UsageError
from haversack.base.progress import silent
from haversack.flow.workshop import FOLDER, MARKER, Workshop

STEPS = 6
CHILD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from haversack.base.progress import silent
from haversack.flow.workshop import Workshop

out, last = Path(sys.argv[1]), int(sys.argv[2])
with Workshop(out, "job.py", silent) as shop:
    for step in range(6):
        def make():
            print("made", step, flush=True)
            if step == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return np.full(3, step, np.int64)
        values = shop.remember("profile", "values", [step], make, save=lambda made: ({}, {"values": made}),
                               load=lambda _, arrays: arrays["values"])
        assert values.tolist() == [step] * 3
"""
WAITING = """
import sys
from pathlib import Path
from haversack.base.progress import silent
from haversack.flow.workshop import Workshop

with Workshop(Path(sys.argv[1]), "job.py", silent):
    print("inside", flush=True)
    sys.stdin.readline()
"""


def child(environment, out, last):
    words = [sys.executable, "-c", CHILD, str(out), str(last)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, [int(line.split()[1]) for line in done.stdout.splitlines()]


def numbers(shop, make):
    return shop.remember(
        "profile", "numbers", [1], make, save=lambda made: ({}, {"n": made}), load=lambda _, arrays: arrays["n"]
    )


def test_after_kill_nine_only_the_step_under_way_is_lost(environment, tmp_path):
    out = tmp_path / "out"
    assert child(environment, out, 2) == (-signal.SIGKILL, [0, 1, 2])
    assert child(environment, out, 4) == (-signal.SIGKILL, [2, 3, 4])
    assert child(environment, out, STEPS) == (0, [4, 5])
    assert child(environment, out, STEPS) == (0, [])
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events[-STEPS:]] == ["reused"] * STEPS


def test_two_processes_in_one_folder(environment, tmp_path):
    words = [sys.executable, "-c", WAITING, str(tmp_path / "out")]
    other = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "inside\n"
        with pytest.raises(EnvironmentFault) as caught:
            Workshop(tmp_path / "out", "job.py", silent)
        assert caught.value.exit_code == EXIT_ENVIRONMENT
        assert str(tmp_path / "out") in caught.value.where
        assert caught.value.next_step
    finally:
        other.communicate("go\n", timeout=30)
    with Workshop(tmp_path / "out", "job.py", silent) as shop:
        assert shop.out == tmp_path / "out"


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"\xff"])
def test_a_damaged_blob_is_told_and_made_again(tmp_path, spoil):
    told = []
    with Workshop(tmp_path / "out", "job.py", told.append) as shop:
        numbers(shop, lambda: np.arange(4))
        (blob,) = [path for path in (shop.inside / "blobs").rglob("*") if path.is_file()]
        whole = blob.read_bytes()
        blob.write_bytes(spoil(whole))
    with Workshop(tmp_path / "out", "job.py", told.append) as shop:
        assert numbers(shop, lambda: np.arange(4)).tolist() == [0, 1, 2, 3]
        assert blob.read_bytes() == whole, "putting it again repairs it"
        assert numbers(shop, lambda: np.zeros(0)).tolist() == [0, 1, 2, 3]
    assert [event.kind for event in told] == ["done", "note", "done", "reused"]
    assert str(blob) in told[1].text


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 3), np.float32), np.array(1.5), np.arange(6, dtype=np.int8).reshape(2, 3).T, np.array([True, False])],
)
def test_arrays_of_any_shape_and_dtype_come_back(tmp_path, array):
    for _ in range(2):
        with Workshop(tmp_path / "out", "job.py", silent) as shop:
            found = numbers(shop, lambda: array)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)


def test_killed_before_the_folder_was_marked_the_same_command_goes_on(tmp_path):
    (tmp_path / "out" / FOLDER).mkdir(parents=True)
    (tmp_path / "out" / FOLDER / ".job.json.123-abc.part").write_text("{")
    with Workshop(tmp_path / "out", "job.py", silent) as shop:
        assert (shop.inside / MARKER).is_file()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7"])
def test_a_mark_of_somebody_else_is_refused(tmp_path, text):
    marker = tmp_path / "out" / FOLDER / MARKER
    marker.parent.mkdir(parents=True)
    marker.write_text(text)
    with pytest.raises(UsageError, match="whose results") as caught:
        Workshop(tmp_path / "out", "job.py", silent)
    assert caught.value.where == str(marker)
    assert marker.read_text() == text


def test_every_line_of_the_events_is_json_across_runs(tmp_path):
    for run in range(3):
        with Workshop(tmp_path / "out", "job.py", silent) as shop:
            numbers(shop, lambda: np.arange(3))
        lines = (tmp_path / "out" / "events.jsonl").read_bytes().splitlines()
        assert len(lines) == run + 1
        assert all(json.loads(line)["stage"] == "profile" for line in lines)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_the_machines_fault(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(EnvironmentFault, match="permission denied"):
        Workshop(tmp_path / "locked" / "out", "job.py", silent)
