"""A last word for a process that ends without one: killed, or ended from within by a library."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SHELL = "/bin/sh"


@contextmanager
def last_word(text: str) -> Iterator[None]:
    """Have a line on standard error if this process ends inside, in whatever way; a return or an error ends it quietly.

    A small child waits for our end of a pipe: no handler of ours runs where a library calls ``_exit`` or the system
    kills. Where there is no shell, nobody says it.

    Args:
        text: the line.
    """
    try:
        child = subprocess.Popen(
            [SHELL, "-c", 'read -r _ || printf "%s\\n" "$1" >&2', SHELL, text],
            stdin=subprocess.PIPE,
            start_new_session=True,  # what is typed at the terminal ends us, and not the one who tells of it
        )
    except OSError:
        yield
        return
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # somebody ended it before
            child.communicate(b"done\n")
