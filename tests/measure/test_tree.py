from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from haversack.measure import tree
from haversack.measure.tree import PeakOfTree, tree_bytes

CHILD = """
import subprocess, sys, time
ballast = b"x" * (int(sys.argv[1]) << 20)
if len(sys.argv) > 2:
    subprocess.Popen([sys.executable, "-c", open("/proc/self/cmdline").read().split("\\0")[2], *sys.argv[2:]]).wait()
print("ready", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def start_child():
    started = []

    def start(*megabytes):
        process = subprocess.Popen([sys.executable, "-c", CHILD, *map(str, megabytes)], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_our_own_memory_is_counted_once_it_is_used():
    before = tree_bytes(os.getpid())
    # Not through the allocator, which may have freed memory to give; large beside what a kernel reclaims meanwhile.
    with mmap.mmap(-1, 256 << 20) as ballast:
        ballast[:: mmap.PAGESIZE] = b"\1" * (len(ballast) // mmap.PAGESIZE)
        held = tree_bytes(os.getpid()) - before
    assert held == pytest.approx(256 << 20, rel=0.25)


def test_children_count_and_stop_counting(start_child):
    before = tree_bytes(os.getpid())
    child = start_child(30)
    held = tree_bytes(os.getpid()) - before
    assert held > 30 << 20
    assert tree_bytes(child.pid) > 30 << 20
    child.kill()
    child.wait()
    assert tree_bytes(os.getpid()) - before < 5 << 20


def test_grandchildren_count(start_child):
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}, '30'])"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout.readline() == b"ready\n"
        assert tree_bytes(parent.pid) > 30 << 20
        os.killpg(parent.pid, 9)


def test_a_process_that_is_gone_takes_nothing(start_child):
    child = start_child(1)
    child.kill()
    child.wait()
    assert tree_bytes(child.pid) == 0


def test_a_system_without_proc_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(tree, "_PROC", tmp_path / "proc")
    assert tree_bytes(os.getpid()) == 0
    with PeakOfTree() as peak:
        pass
    assert peak.peak_bytes == 0


def test_a_name_with_parentheses_does_not_confuse_the_family(tmp_path, monkeypatch):
    for pid, parent, name, size in ((5, 1, "a", 10), (6, 5, "b) R 1 (", 20), (7, 6, "c d", 30), (8, 1, "e", 40)):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} 0 0 0")
        (folder / "smaps_rollup").write_text(f"0-f r-- 0 0 [rollup]\nRss: 999 kB\nPss:  {size} kB\nPss_Dirty: 9 kB\n")
    (tmp_path / "9").mkdir()  # has just ended
    (tmp_path / "uptime").write_text("1 1")
    monkeypatch.setattr(tree, "_PROC", tmp_path)
    assert tree_bytes(5) == 60 * 1024
    assert tree_bytes(8) == 40 * 1024


def test_the_peak_is_of_the_block_and_not_of_its_end():
    with PeakOfTree(every_seconds=0.01) as peak:
        before = peak.peak_bytes
        with mmap.mmap(-1, 256 << 20) as ballast:
            ballast[:: mmap.PAGESIZE] = b"\1" * (len(ballast) // mmap.PAGESIZE)
            time.sleep(0.5)
    assert before > 0
    assert peak.peak_bytes - before > 200 << 20
    assert tree_bytes(os.getpid()) < peak.peak_bytes


def test_the_thread_ends_with_the_block_and_also_with_an_error():
    with pytest.raises(ZeroDivisionError), PeakOfTree() as peak:
        1 / 0  # noqa: B018
    assert peak.peak_bytes > 0
    assert "peak-of-tree" not in {thread.name for thread in threading.enumerate()}


def test_looking_is_cheap():
    began = time.process_time()
    for _ in range(5):
        tree_bytes(os.getpid())
    assert (time.process_time() - began) / 5 < 0.1
    assert Path("/proc/self/smaps_rollup").exists()
