"""Lines that native libraries write of themselves are kept away; errors and what Python writes are not."""

from __future__ import annotations

import os
import sys

from haversack.lower.chatter import hushed


def test_what_a_library_tells_of_itself_is_kept_away_and_its_errors_are_not(capfd):
    with hushed():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
        os.write(2, b"ERROR: no memory\n")
        os.write(2, b"half a line")
    os.write(2, b", whole\n")
    assert capfd.readouterr().err == "ERROR: no memory\nhalf a line, whole\n"


def test_an_error_inside_leaves_descriptor_and_stream_as_they_were(capfd):
    stream = sys.stderr
    try:
        with hushed():
            raise ValueError("inside")
    except ValueError:
        os.write(2, b"INFO: afterwards\n")
    assert sys.stderr is stream
    assert capfd.readouterr().err == "INFO: afterwards\n"


def test_what_python_writes_meanwhile_is_seen_at_once(environment):
    import subprocess

    code = (
        "import os, sys\nfrom haversack.lower.chatter import hushed\n"
        "with hushed():\n    print('progress', file=sys.stderr)\n    os.write(2, b'INFO: x\\n')\n    os._exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (3, "progress\n")
