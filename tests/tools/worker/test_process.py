from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from haversack.base.errors import EXIT_ENVIRONMENT, EnvironmentFault
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerFault, WorkerTimeout
from haversack.tools.worker.protocol import BadFrame, Bounds, encode


def gone(pid, seconds=10.0):
    """Whether a process is dead (or a zombie nobody has waited for) within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_call_takes_and_gives_data_and_arrays(shared_worker):
    data, arrays = shared_worker.call("add", {"a": 2, "b": 3}, {"a": np.arange(3), "b": np.float32(1) + np.zeros(3)})
    assert data == {"sum": 5}
    assert arrays["sum"].tolist() == [1, 2, 3]


def test_arrays_larger_than_any_pipe_pass_both_ways(shared_worker):
    big = np.random.default_rng(0).integers(0, 255, (3, 1000, 2000), np.uint8)
    _, arrays = shared_worker.call("echo", {}, {"big": big, "empty": np.zeros((0, 3))})
    assert np.array_equal(arrays["big"], big)
    assert arrays["empty"].shape == (0, 3)


def test_an_exception_is_an_answer_and_the_worker_lives_on(shared_worker):
    with pytest.raises(WorkerError) as caught:
        shared_worker.call("fail", {"text": "the shape does not fit"})
    assert caught.value.type == "ValueError"
    assert caught.value.text == "the shape does not fit"
    assert "served.py" in caught.value.traceback
    assert (caught.value.where, caught.value.method) == ("", "fail")
    assert shared_worker.call("echo", {"still": "here"})[0] == {"still": "here"}


def test_all_faults_are_faults_of_the_environment():
    for fault in (WorkerCrashed("x", method="m"), WorkerTimeout(method="m", seconds=1)):
        assert isinstance(fault, WorkerFault)
        assert isinstance(fault, EnvironmentFault)
        assert fault.exit_code == EXIT_ENVIRONMENT


def test_an_unknown_method_names_those_there_are(shared_worker):
    with pytest.raises(WorkerError, match=r"no method 'ech'.*echo"):
        shared_worker.call("ech")


def test_a_result_that_cannot_travel_is_the_method_s_error(shared_worker):
    with pytest.raises(WorkerError, match="do not travel"):
        shared_worker.call("unsendable")
    assert shared_worker.alive


def test_a_request_that_cannot_travel_is_the_caller_s_error(shared_worker):
    with pytest.raises(TypeError, match="do not travel"):
        shared_worker.call("echo", {}, {"x": np.array([None])})
    with pytest.raises(ValueError, match="JSON"):
        shared_worker.call("echo", {"x": float("nan")})
    assert shared_worker.call("echo", {"x": 1})[0] == {"x": 1}


@pytest.mark.parametrize(
    ("method", "header", "ending", "code"),
    [
        ("segfault", {}, "SIGSEGV", -signal.SIGSEGV),
        ("abort", {}, "SIGABRT", -signal.SIGABRT),
        ("leave", {"status": 3}, "status 3", 3),
    ],
)
def test_a_crash_is_an_exception_that_says_how(start_worker, method, header, ending, code):
    worker = start_worker()
    with pytest.raises(WorkerCrashed, match=ending) as caught:
        worker.call(method, header)
    assert caught.value.returncode == code
    assert caught.value.method == method
    assert not worker.alive


def test_a_crash_carries_the_end_of_the_log(start_worker):
    with pytest.raises(WorkerCrashed) as caught:
        start_worker().call("segfault")
    assert "about to fall" in caught.value.log
    assert "Segmentation fault" in caught.value.log  # the fault handler's own words
    assert "served.py" in str(caught.value)


def test_calls_after_a_crash_say_that_it_is_over(start_worker):
    worker = start_worker()
    with pytest.raises(WorkerCrashed):
        worker.call("abort")
    with pytest.raises(WorkerCrashed, match="SIGABRT"):
        worker.call("echo")


@pytest.mark.parametrize("method", ["hang", "spin"])
def test_a_hang_is_ended_at_its_limit(start_worker, method):
    worker = start_worker()
    began = time.monotonic()
    with pytest.raises(WorkerTimeout, match=r"no answer within 0\.3 s") as caught:
        worker.call(method, timeout=0.3)
    assert caught.value.seconds == 0.3
    assert time.monotonic() - began < 5
    assert not worker.alive
    assert gone(worker.pid)


def test_the_limit_of_the_worker_holds_where_a_call_states_none(start_worker):
    with pytest.raises(WorkerTimeout, match=r"within 0\.25 s"):
        start_worker(limits={"call_seconds": 0.25}).call("hang")


def test_a_worker_that_does_not_read_cannot_block_the_sender(start_worker):
    worker = start_worker()
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerTimeout):
        worker.call("echo", {}, {"x": np.zeros(4 << 20, np.uint8)}, timeout=0.3)
    assert gone(worker.pid)


@pytest.mark.parametrize("junk", ["not a frame at all", "HVW1\x10"])
def test_an_answer_that_is_no_frame_ends_the_worker(start_worker, junk):
    worker = start_worker()
    with pytest.raises(WorkerCrashed, match="its answer is none"):
        worker.call("scribble", {"junk": junk}, timeout=5)
    assert not worker.alive


def test_an_answer_to_another_call_is_none(start_worker):
    worker = start_worker()
    other = "HVW1" + chr(35) + "\0\0\0" + '{"data":{"id":99,"ok":true,"data":{'
    with pytest.raises(WorkerCrashed, match="its answer is none"):
        worker.call("scribble", {"junk": other + '}},"arrays":[]}'}, timeout=5)
    worker = start_worker()
    text = '{"data":{"id":99,"ok":true,"data":{}},"arrays":[]}'
    with pytest.raises(WorkerCrashed, match="not an answer to call 2"):
        worker.call("scribble", {"junk": "HVW1" + chr(len(text)) + "\0\0\0" + text}, timeout=5)


def test_an_error_without_its_fields_is_no_answer(start_worker):
    text = '{"data":{"id":2,"ok":false,"error":{"type":3}},"arrays":[]}'
    with pytest.raises(WorkerCrashed, match="without type, text and traceback"):
        start_worker().call("scribble", {"junk": "HVW1" + chr(len(text)) + "\0\0\0" + text}, timeout=5)


def test_a_closed_pipe_is_a_crash(start_worker):
    worker = start_worker()
    with pytest.raises(WorkerCrashed):
        worker.call("close", timeout=10)
    assert not worker.alive


def test_what_runtimes_print_goes_to_the_log_and_only_its_end_is_kept(start_worker):
    worker = start_worker(limits={"log_bytes": 2000})
    worker.call("chatter", {"bytes": 1_000_000})
    assert worker.call("echo", {"a": 1})[0] == {"a": 1}
    worker.close()
    assert len(worker.log) == 2000
    assert worker.log.endswith("x\nthe last line\nand on stderr\n")


def test_nothing_of_a_worker_reaches_our_own_output(start_worker, capfd):
    start_worker().call("chatter", {"bytes": 10})
    assert capfd.readouterr() == ("", "")


def test_memory_beyond_the_limit_is_an_error_of_the_call(start_worker):
    worker = start_worker(limits={"address_space": 2 << 30})
    assert worker.call("allocate", {"bytes": 1 << 20})[0] == {"bytes": 1 << 20}
    with pytest.raises(WorkerError) as caught:
        worker.call("allocate", {"bytes": 3 << 30})
    assert caught.value.type == "MemoryError"
    assert worker.alive


def test_processor_time_beyond_the_limit_ends_the_worker(start_worker):
    worker = start_worker(limits={"cpu_seconds": 1})
    with pytest.raises(WorkerCrashed, match=r"SIG(KILL|XCPU)"):
        worker.call("spin", timeout=30)


def test_a_factory_that_fails_is_told_with_its_error(start_worker):
    with pytest.raises(WorkerError, match=r"libmissing.so") as caught:
        start_worker("served:broken")
    assert caught.value.type == "ImportError"
    with pytest.raises(WorkerError, match="no_such_module"):
        start_worker("no_such_module:methods")
    with pytest.raises(WorkerError, match="no attribute 'none'"):
        start_worker("served:none")


def test_a_factory_that_hangs_is_ended_at_the_start_limit(start_worker):
    with pytest.raises(WorkerTimeout):
        start_worker("served:stuck", limits={"start_seconds": 2.0})


def test_another_version_of_the_protocol_is_refused_by_the_child(start_worker):
    with pytest.raises(WorkerError, match="the parent speaks version 99"):
        start_worker().call("hello", {"version": 99})


def test_another_version_of_the_protocol_is_refused_by_the_parent(start_worker, monkeypatch):
    monkeypatch.setattr("haversack.tools.worker.process.VERSION", 2)
    with pytest.raises(WorkerError, match="speaks version 2 of the protocol, this worker 1"):
        start_worker()


def test_variables_are_added_and_there_is_no_input(start_worker):
    data, _ = start_worker(env={"HAVERSACK_TEST": "yes"}).call("environment", {"name": "HAVERSACK_TEST"})
    assert data["value"] == "yes"
    assert data["stdin"] == ""
    assert data["pid"] != os.getpid()


def test_the_command_that_starts_python_is_the_caller_s(start_worker, tmp_path):
    wrapper = tmp_path / "emulator"
    wrapper.write_text('#!/bin/sh\nHAVERSACK_TEST="by $1"; shift; export HAVERSACK_TEST; exec "$@"\n')
    wrapper.chmod(0o755)
    worker = start_worker(python=[str(wrapper), "me", sys.executable])
    assert "by me" in str(worker.call("environment", {"name": "HAVERSACK_TEST"})[0])


def test_a_python_path_of_the_caller_stands_in_place_of_ours(start_worker, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/ours")
    for env, there, absent in ({}, "/ours", "/theirs"), ({"PYTHONPATH": "/theirs"}, "/theirs", "/ours"):
        told = str(start_worker(env=env).call("environment", {"name": "PYTHONPATH"})[0])
        assert there in told
        assert absent not in told


def test_grandchildren_do_not_inherit_the_protocol(shared_worker):
    data, _ = shared_worker.call("descriptors")
    assert not any(f"'{number}'" in data["child"] for number in data["protocol"] if int(number) > 3)


def test_closing_lets_the_process_end_by_itself_and_may_come_twice(start_worker):
    worker = start_worker()
    worker.close()
    worker.close()
    assert worker._process.returncode == 0
    assert not worker.alive
    with pytest.raises(WorkerCrashed):
        worker.call("echo")


def test_a_kill_takes_the_worker_s_children_along(start_worker):
    worker = start_worker()
    child = worker.call("spawn")[0]["pid"]
    with pytest.raises(WorkerTimeout):
        worker.call("hang", timeout=0.2)
    assert gone(child)


def test_a_kill_from_another_thread_cancels_the_call(start_worker):
    worker = start_worker()
    threading.Timer(0.3, worker.kill).start()
    began = time.monotonic()
    with pytest.raises(WorkerCrashed, match="SIGKILL"):
        worker.call("hang")
    assert time.monotonic() - began < 10


def test_closing_from_another_thread_cancels_the_call(start_worker):
    worker = start_worker()
    threading.Timer(0.3, worker.close).start()
    with pytest.raises(WorkerCrashed):
        worker.call("hang")
    assert gone(worker.pid)


def test_calls_of_several_threads_wait_for_each_other(shared_worker):
    results = {}

    def work(index):
        for step in range(20):
            results[index, step] = shared_worker.call("echo", {"n": [index, step]})[0]["n"]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {(i, s): [i, s] for i in range(4) for s in range(20)}


def test_an_interrupt_in_a_call_ends_the_worker(start_worker):
    worker = start_worker()
    # Jobs that a shell starts in the background inherit an ignored SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        worker.call("hang")
    signal.signal(signal.SIGINT, before)
    assert gone(worker.pid)


def test_a_block_that_fails_kills_its_worker(start_worker):
    worker = start_worker()
    with pytest.raises(ZeroDivisionError), worker:
        1 / 0  # noqa: B018
    assert gone(worker.pid)


def test_no_descriptor_is_left_open(start_worker):
    start_worker().close()
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        start_worker().close()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_worker_that_computes_dies_with_its_killed_parent(worker_folder):
    script = f"""
        import sys
        from pathlib import Path
        from haversack.tools.worker.process import Worker
        worker = Worker.start("served:methods", folders=[Path({str(worker_folder)!r})])
        print(worker.pid, flush=True)
        worker.call("spin")
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
        assert gone(pid)


def test_bounds_hold_for_what_a_child_sends():
    with pytest.raises(BadFrame):
        encode_over_bounds()


def encode_over_bounds():
    from haversack.tools.worker.protocol import Frame

    return encode(Frame({"x": "y" * 100}), Bounds(header_bytes=50))
