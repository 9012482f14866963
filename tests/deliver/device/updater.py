"""A warm process that forks an updater for every fault, and says what the home answers afterwards.

    LD_PRELOAD=faults.so python updater.py HOME_BEFORE WORK ROOT REPOSITORY MODE FIRST STEP [back]

With ``back`` it goes back instead of updating; the second is an update all the same. Prints one line of JSON for each
fault: what ended the updater, what the model answers then, what a second update did and what the model answers then;
the last line is of an updater that met no fault.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

IDLE, KILL, TEAR, FULL = range(4)


def main():
    before, work, root, repository = map(Path, sys.argv[1:5])
    mode, at, step = {"kill": KILL, "tear": TEAR, "full": FULL}[sys.argv[5]], int(sys.argv[6]), int(sys.argv[7])
    faults = ctypes.CDLL(None)
    faults.faults_arm.argtypes = [ctypes.c_int, ctypes.c_long]
    warm()
    work.mkdir()
    home, whole = work / "home", False
    update, ask = partial(updated, home, root, repository), partial(answer, home)
    act = partial(gone_back, home) if sys.argv[8:] == ["back"] else update
    while not whole:
        shutil.rmtree(home, ignore_errors=True)
        if before.is_dir():
            copied(before, home)
        ended = forked(act, partial(faults.faults_arm, mode, at))
        whole = isinstance(ended, dict) and ended["count"] < at
        then, again, last = forked(lambda: (ask(), update(), ask()))
        told = {"at": at, "ended": ended, "then": then, "again": again, "last": last}
        sys.stdout.write(json.dumps({**told, "whole": True} if whole else told) + "\n")
        at += step


def warm():
    """Import what an update needs, so that a fork has it."""
    import onnxruntime  # noqa: F401
    import tuf.ngclient  # noqa: F401

    from haversack.flow import client  # noqa: F401
    from haversack.targets import onnxruntime as target  # noqa: F401
    from haversack.tools.codec import bsdiff, download  # noqa: F401
    from haversack.tools.trust import bundle, stream, wrap  # noqa: F401


def updated(home, root, repository):
    """Update, with the self-test in this process: that it is tried in a child has tests of its own."""
    from haversack.base.errors import HaversackError
    from haversack.flow.client import Client

    try:
        client = Client(home, repository, root, test=tried_here, tune=None)
        return {"action": client.update("digits").action, **counted()}
    except HaversackError as error:
        return {"error": str(error), "kind": type(error).__name__, **counted()}


def gone_back(home):
    """Go back to the release before."""
    from haversack.base.errors import HaversackError
    from haversack.flow.client import Client

    try:
        return {"action": Client(home, tune=None).rollback("digits").version, **counted()}
    except HaversackError as error:
        return {"error": str(error), "kind": type(error).__name__, **counted()}


def counted():
    return {"count": ctypes.CDLL(None).faults_count()}


def answer(home):
    """Return what the model in use answers first, or what is wrong: with the way back, where one is told, as well."""
    import numpy as np

    from haversack.base.errors import HaversackError
    from haversack.deliver.selftest import trial_of
    from haversack.deliver.slots import Slots
    from haversack.flow.client import Client

    slots = Slots(home / "lines" / "digits")
    try:
        with Client(home).open("digits", follow=False) as model:
            if other := slots.pointer().other:
                trial_of(slots.path(other), other.target)
            return round(float(np.asarray(model(np.ones((1, 4), np.float32)))[0, 0]), 3)
    except HaversackError as error:
        return str(error)


def forked(work, arm=lambda: None):
    """Return what a forked process returns, or the name of the signal that ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            arm()
            told = work()
            ctypes.CDLL(None).faults_arm(IDLE, 0)
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return json.loads(data)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from shop import copied, tried_here

    main()
