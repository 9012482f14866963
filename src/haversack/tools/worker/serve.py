"""The child: reads requests, calls the functions of one factory, replies; started by ``process.Worker`` only.

    python -m haversack.tools.worker.serve module:factory READ_FD WRITE_FD LIMITS

``factory()`` returns a mapping of method name -> ``function(header, arrays) -> (header, arrays)``. An exception in a
function is a reply; the loop ends when the parent closes its end or writes what is no frame.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from haversack.tools.worker.protocol import VERSION, Frame, encode, read_frame, send

Method = Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], tuple[Mapping[str, Any], Mapping[str, np.ndarray]]]
GRACE_SECONDS = 2.0
_LIMITS = {"address_space": resource.RLIMIT_AS, "cpu_seconds": resource.RLIMIT_CPU}


def main(arguments: Sequence[str]) -> int:
    """Serve until the parent is gone; return the exit status."""
    entry, reading, writing, limits = arguments
    for descriptor in (int(reading), int(writing)):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - takes no keyword
    _limit(json.loads(limits))
    threading.Thread(target=_end_with_parent, args=(int(reading),), daemon=True).start()
    with (
        contextlib.suppress(BrokenPipeError),
        io.FileIO(int(reading), "r") as requests,
        io.FileIO(int(writing), "w") as replies,
    ):
        _serve(entry, requests, replies)
    return 0


def _serve(entry: str, requests: io.FileIO, replies: io.FileIO) -> None:
    methods: dict[str, Method] = {}
    while (request := read_frame(requests)) is not None:
        send(replies, _answer(entry, methods, request))


def _answer(entry: str, methods: dict[str, Method], request: Frame) -> list[memoryview]:
    number = request.data.get("id")
    try:
        name, data = request.data["method"], request.data["data"]
        if name == "hello":
            methods.update(_greet(entry, data))
            result: tuple[Mapping[str, Any], Mapping[str, np.ndarray]] = (
                {"version": VERSION, "methods": sorted(methods)},
                {},
            )
        elif name in methods:
            result = methods[name](data, request.arrays)
        else:
            message = f"there is no method {name!r} (has: {', '.join(sorted(methods))})"
            raise LookupError(message)
        return encode(Frame({"id": number, "ok": True, "data": result[0]}, result[1]))
    except Exception as error:  # noqa: BLE001 - the worker loop: whatever a runtime raises is the caller's to judge
        return encode(Frame({"id": number, "ok": False, "error": _words(error)}))


def _greet(entry: str, data: Mapping[str, Any]) -> Mapping[str, Method]:
    if data["version"] != VERSION:
        message = f"the parent speaks version {data['version']} of the protocol, this worker {VERSION}"
        raise ValueError(message)
    module, _, attribute = entry.partition(":")
    methods: Mapping[str, Method] = getattr(importlib.import_module(module), attribute)()
    return methods


def _words(error: Exception) -> dict[str, str]:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "text": str(error), "traceback": "".join(traceback.format_exception(error))}


def _limit(limits: Mapping[str, int | None]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, kind in _LIMITS.items():
        value = limits.get(name)
        if value is not None:
            resource.setrlimit(kind, (value, value))


def _end_with_parent(reading: int) -> None:
    """End a process whose parent was killed, even while it computes: a poll for nothing wakes up on hang-up alone."""
    poll = select.poll()
    poll.register(reading, 0)
    poll.poll()
    time.sleep(GRACE_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
