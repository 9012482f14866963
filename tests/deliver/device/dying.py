"""Children that end in every way that a model's runtime can: for the tests of the self-test."""

from __future__ import annotations

import ctypes
import os
import signal
import time


def crashing():
    return {"answer": lambda header, arrays: os.kill(os.getpid(), signal.SIGSEGV)}


def ended_by_sigterm():
    return {"answer": lambda header, arrays: os.kill(os.getpid(), signal.SIGTERM)}


def ended_by_sighup():
    return {"answer": lambda header, arrays: os.kill(os.getpid(), signal.SIGHUP)}


def hanging():
    return {"answer": lambda header, arrays: time.sleep(60)}


def hungry():
    def answer(header, arrays):
        held = bytearray(1 << 33)
        return {"faults": [], "vectors": len(held), "median_ms": 1.0}, {}

    return {"answer": answer}


def spinning():
    def answer(header, arrays):
        while True:
            pass

    return {"answer": answer}


def scribbling():
    def answer(header, arrays):
        for descriptor in range(3, 20):
            ctypes.CDLL(None).write(descriptor, b"HTTP/1.1 200 OK", 15)
        return {}, {}

    return {"answer": answer}


def lying():
    return {"answer": lambda header, arrays: ({"faults": 0, "vectors": "many", "median_ms": None}, {})}


def babbling():
    return {"answer": lambda header, arrays: ({"faults": [1, ["a"], [2, 3]], "vectors": 1, "median_ms": 1.0}, {})}


def poor():
    from haversack.base.errors import MissingExtra

    def answer(header, arrays):
        raise MissingExtra("onnxruntime", "pack", purpose="running an ONNX file")

    return {"answer": answer}


def bare():
    message = "nothing comes up"
    raise ImportError(message)
