"""Silence for a converter and a runtime that tell their own affairs, also past Python's streams."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, log lines below errors and what libraries write to descriptors 1 and 2 away while it runs."""
    before = logging.root.manager.disable
    handlers = list(logging.root.handlers)
    logging.disable(max(before, logging.WARNING))
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with Path(os.devnull).open("wb") as sink, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in (1, 2):
                os.dup2(sink.fileno(), number)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        logging.root.handlers[:] = handlers  # importing the converter configures the root logger
        logging.disable(before)
