from __future__ import annotations

import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.worker.log import TailLog


def opened(limit):
    reading, writing = os.pipe()
    return TailLog(os.fdopen(reading, "rb"), limit), writing


def write_all(writing, data):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(writing, rest) :]


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=10), st.integers(1, 400))
@settings(deadline=None, max_examples=50)
def test_it_holds_exactly_the_end_of_what_was_written(pieces, limit):
    log, writing = opened(limit)
    for piece in pieces:
        write_all(writing, piece)
    os.close(writing)
    text = log.finish()
    log.close()
    assert text == b"".join(pieces)[-limit:].decode("utf-8", "replace")


def test_memory_stays_bounded_however_much_is_written():
    log, writing = opened(1000)
    write_all(writing, b"x" * 3_000_000 + b"the end")
    os.close(writing)
    assert log.finish() == "x" * 993 + "the end"
    assert sum(len(piece) for piece in log._pieces) < 1000 + 4096
    log.close()


def test_a_writer_is_never_blocked_by_a_full_pipe():
    log, writing = opened(10)
    done = threading.Event()

    def write():
        write_all(writing, b"y" * 1_000_000)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(10)
    os.close(writing)
    log.close()


def test_what_was_written_so_far_can_be_read_while_the_writer_lives():
    log, writing = opened(100)
    os.write(writing, b"banner\n")
    until = time.monotonic() + 5
    while not log.text() and time.monotonic() < until:
        time.sleep(0.01)
    assert log.text() == "banner\n"
    os.close(writing)
    log.close()


def test_a_writer_that_outlives_its_parent_does_not_hold_us_up():
    log, writing = opened(100)
    os.write(writing, b"still here")
    began = time.monotonic()
    assert log.finish() == "still here"
    log.close()
    assert time.monotonic() - began < 5
    os.close(writing)  # now the thread ends by itself


def test_a_child_without_a_pipe_is_refused():
    with pytest.raises(ValueError, match="not a pipe"):
        TailLog(None, 100)
