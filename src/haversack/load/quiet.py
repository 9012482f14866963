"""Quiet: the exporter's warnings and log lines stay off the user's terminal."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, log lines and prints while a framework works; what matters comes back as an error.

    (On control flow that depends on data, torch.export prints the graph so far.) Not for code that runs beside other
    threads: these settings belong to the whole process.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
