"""A worker to talk to: real child processes that serve the functions of one module written for the tests."""

from __future__ import annotations

import textwrap

import pytest

from haversack.tools.worker.process import Limits, Worker

MODULE = """
import ctypes, os, signal, subprocess, sys, threading, time
import numpy as np

def echo(header, arrays):
    return header, arrays

def add(header, arrays):
    return {"sum": header["a"] + header["b"]}, {"sum": arrays["a"] + arrays["b"]}

def fail(header, arrays):
    raise ValueError(header["text"])

def unsendable(header, arrays):
    return {}, {"x": np.array([object()])}

def segfault(header, arrays):
    print("about to fall", flush=True)
    ctypes.string_at(0)

def abort(header, arrays):
    os.abort()

def leave(header, arrays):
    sys.stderr.write("goodbye\\n")
    sys.exit(header["status"])

def hang(header, arrays):
    time.sleep(1000)

def spin(header, arrays):
    while True:
        pass

def chatter(header, arrays):
    os.write(1, b"x" * header["bytes"] + b"\\nthe last line\\n")
    os.write(2, b"and on stderr\\n")
    return {}, {}

def scribble(header, arrays):
    os.write(int(sys.argv[3]), header["junk"].encode())
    return {}, {}

def close(header, arrays):
    os.close(int(sys.argv[3]))
    return {}, {}

def allocate(header, arrays):
    return {"bytes": len(bytearray(header["bytes"]))}, {}

def spawn(header, arrays):
    return {"pid": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid}, {}

def environment(header, arrays):
    return {"value": os.environ.get(header["name"]), "pid": os.getpid(), "stdin": sys.stdin.read()}, {}

def descriptors(header, arrays):
    got = subprocess.run([sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"],
                         capture_output=True, text=True, close_fds=False, check=True)
    return {"child": got.stdout, "protocol": sys.argv[2:4]}, {}

def methods():
    return {k: v for k, v in globals().items() if callable(v) and k not in ("methods", "broken")}

def broken():
    print("a runtime's banner", flush=True)
    raise ImportError("libmissing.so: cannot open shared object file")

def stuck():
    time.sleep(1000)
"""


@pytest.fixture(scope="session")
def worker_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker")
    (folder / "served.py").write_text(textwrap.dedent(MODULE))
    return folder


@pytest.fixture
def start_worker(worker_folder):
    started = []

    def start(entry="served:methods", **settings):
        limits = Limits(**{"call_seconds": 30.0, "start_seconds": 30.0, **settings.pop("limits", {})})
        worker = Worker.start(entry, folders=[worker_folder], limits=limits, **settings)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


@pytest.fixture(scope="module")
def shared_worker(worker_folder):
    with Worker.start("served:methods", folders=[worker_folder]) as worker:
        yield worker
