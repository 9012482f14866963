"""A far worker takes and gives the same as one behind a pipe, and its end is told the same way."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from haversack.base.errors import EnvironmentFault
from haversack.tools.worker import keeper
from haversack.tools.worker.far import FarWorker
from haversack.tools.worker.faults import LinkLost, WorkerCrashed, WorkerError, WorkerTimeout
from haversack.tools.worker.link import Carrier, Parcel
from haversack.tools.worker.process import Limits

SOURCE = Path(keeper.__file__).parents[3]


def gone(pid, seconds=10.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="module")
def carrier(tmp_path_factory):
    """Python on this machine, with a cache of its own and no path to our source."""
    cache = tmp_path_factory.mktemp("cache")
    setting = ["env", "-u", "PYTHONPATH", f"XDG_CACHE_HOME={cache}", sys.executable, "-u", "-c"]
    return Carrier("ssh:board", lambda size: [*setting, f"import sys;exec(sys.stdin.buffer.read({size}))"], {})


@pytest.fixture(scope="module")
def code(worker_folder):
    names = ["__init__", "base/__init__", "base/errors", "tools/__init__"]
    names += [f"tools/worker/{path.stem}" for path in (SOURCE / "haversack/tools/worker").glob("*.py")]
    files = {f"haversack/{name}.py": SOURCE / "haversack" / f"{name}.py" for name in names}
    return Parcel({**files, "served.py": worker_folder / "served.py"})


@pytest.fixture(scope="module")
def shared(carrier, code):
    with FarWorker.on(carrier, "served:methods", code) as worker:
        yield worker


@pytest.fixture
def start(carrier, code):
    started = []

    def begin(entry="served:methods", patience=(0.0,), at=None, **limits):
        limits = Limits(**{"call_seconds": 30.0, "start_seconds": 30.0, **limits})
        started.append(FarWorker.on(at or carrier, entry, code, limits=limits, patience=patience))
        return started[-1]

    yield begin
    for worker in started:
        worker.close()


def test_a_call_takes_and_gives_data_and_arrays(shared):
    data, arrays = shared.call("add", {"a": 2, "b": 3}, {"a": np.arange(3), "b": np.ones(3, np.float32)})
    assert data == {"sum": 5}
    assert arrays["sum"].tolist() == [1, 2, 3]


def test_arrays_larger_than_any_buffer_pass_both_ways(shared):
    big = np.random.default_rng(0).integers(0, 255, (3, 1000, 2000), np.uint8)
    _, arrays = shared.call("echo", {}, {"big": big, "empty": np.zeros((0, 3))})
    assert np.array_equal(arrays["big"], big)
    assert arrays["empty"].shape == (0, 3)


def test_an_exception_is_an_answer_and_the_worker_lives_on(shared):
    with pytest.raises(WorkerError) as caught:
        shared.call("fail", {"text": "the shape does not fit"})
    assert caught.value.text == "the shape does not fit"
    assert shared.call("echo", {"still": "here"})[0] == {"still": "here"}


def test_our_code_comes_from_what_was_sent(shared):
    found = shared.call("environment", {"name": "PYTHONPATH"})[0]
    assert "/haversack/device/" in found["value"]
    assert found["pid"] == shared.pid
    assert found["stdin"] == ""


def test_files_are_placed_between_calls(shared, tmp_path):
    (tmp_path / "model").write_bytes(b"weights")
    folder = shared.place(Parcel({"model": tmp_path / "model"}))
    assert (Path(folder) / "model").read_bytes() == b"weights"
    assert shared.call("echo", {"x": 1})[0] == {"x": 1}


def test_files_that_cannot_be_placed_are_a_fault_of_the_environment(shared, tmp_path):
    with pytest.raises(EnvironmentFault, match="No such file"):
        shared.place(Parcel({"model": tmp_path / "none"}))
    (tmp_path / "model").write_bytes(b"weights")
    with pytest.raises(EnvironmentFault, match=r"not a file to keep: '\.\./up'"):
        shared.place(Parcel({"../up": tmp_path / "model"}))
    assert shared.call("echo", {"x": 1})[0] == {"x": 1}


@pytest.mark.parametrize(
    ("method", "header", "ending", "status"),
    [
        ("segfault", {}, "SIGSEGV", -signal.SIGSEGV),
        ("leave", {"status": 3}, "status 3", 3),
    ],
)
def test_a_crash_there_says_how(start, method, header, ending, status):
    worker = start()
    with pytest.raises(WorkerCrashed, match=ending) as caught:
        worker.call(method, header)
    assert caught.value.returncode == status
    assert not worker.alive
    if method == "segfault":
        assert "about to fall" in caught.value.log
        assert "Segmentation fault" in caught.value.log
    with pytest.raises(WorkerCrashed, match=ending):
        worker.call("echo")


def test_one_that_the_system_killed_may_have_taken_all_memory(start):
    worker = start()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match="SIGKILL: memory may have run out"):
        worker.call("echo")


@pytest.mark.parametrize("method", ["hang", "spin"])
def test_a_hang_is_ended_at_its_limit_there_too(start, method):
    worker = start()
    began = time.monotonic()
    with pytest.raises(WorkerTimeout, match=r"no answer within 0\.3 s"):
        worker.call(method, timeout=0.3)
    assert time.monotonic() - began < 5
    assert gone(worker.pid)


def test_a_worker_that_hangs_behind_a_dead_connection_ends_by_itself(start, monkeypatch, tmp_path):
    # The near end is stopped, so that nothing tells the far one but its own clock.
    source = Path(keeper.__file__).read_text().replace("GRACE_SECONDS = 5.0", "GRACE_SECONDS = 0.1")
    (tmp_path / "keeper.py").write_text(source.replace("BEAT_SECONDS = 2.0", "BEAT_SECONDS = 0.1"))
    monkeypatch.setattr(keeper, "__file__", str(tmp_path / "keeper.py"))
    worker = start()
    worker._link.begin(0.2)
    assert gone(worker.pid)
    with pytest.raises(WorkerCrashed, match="SIGKILL"):
        worker.call("echo")


@pytest.mark.parametrize("junk", ["not a frame at all", "HVW1\x10"])
def test_an_answer_that_is_no_frame_ends_the_worker(start, junk):
    worker = start()
    with pytest.raises(WorkerCrashed, match="its answer is none"):
        worker.call("scribble", {"junk": junk}, timeout=5)
    assert gone(worker.pid)


def test_a_factory_that_cannot_be_imported_is_told_with_its_words(start):
    with pytest.raises(WorkerError, match="libmissing.so"):
        start("served:broken")


def test_a_factory_that_hangs_is_ended(start):
    with pytest.raises(WorkerTimeout, match="when asked to hello"):
        start("served:stuck", start_seconds=1.5)


def test_a_limit_on_memory_holds_there(start):
    worker = start(address_space=2 << 30)
    with pytest.raises(WorkerError, match="MemoryError"):
        worker.call("allocate", {"bytes": 4 << 30})
    assert worker.call("allocate", {"bytes": 1 << 20})[0] == {"bytes": 1 << 20}


def test_closing_ends_it_and_its_children(start):
    worker = start()
    child = worker.call("spawn")[0]["pid"]
    worker.close()
    worker.close()
    assert gone(worker.pid)
    assert gone(child)


def test_a_connection_lost_in_a_call_is_a_crash_where_the_device_can_be_reached_again(start):
    worker = start()
    worker._link.kill()
    with pytest.raises(
        WorkerCrashed, match="the connection was lost in this call, and the device can be reached again"
    ):
        worker.call("echo")
    assert gone(worker.pid), "a keeper without a near end leaves nothing behind"


def test_a_connection_lost_for_good_is_no_crash(start, carrier, tmp_path):
    flag = tmp_path / "off"

    def program(size):
        return ["false"] if flag.exists() else carrier.program(size)

    worker = start(at=Carrier("ssh:board", program, {}), patience=(0.0, 0.1))
    flag.write_text("")
    worker._link.kill()
    with pytest.raises(LinkLost, match="ssh:board: the connection ended"):
        worker.call("echo")


def test_chatter_is_kept_to_its_end_and_blocks_nobody(start):
    worker = start(log_bytes=1000)
    worker.call("chatter", {"bytes": 3 << 20})
    worker.call("echo")
    assert "the last line" in worker.log or worker.call("echo")
    assert len(worker.log) <= 1000
