"""``haversack verify``."""

from __future__ import annotations

from pathlib import Path

from haversack.cli.terminal import display, results, say, say_json


def verify(out: Path, *, device: str = "local", json: bool = False) -> int:
    """Check the artefacts of a finished run: hashes, what the file holds, golden vectors in the runtime.

    Parameters
    ----------
    out:
        The folder of a finished run.
    device:
        Where the golden vectors run: local, ssh:[user@]host[:port], adb:[serial], or qemu:CPU (cortex-a53, cortex-a76,
        haswell …), emulated.
    json:
        Print JSON.
    """
    from haversack.flow import verify as flow
    from haversack.flow.workshop import unfinished

    if (stopped := unfinished(out)) is not None:
        raise stopped
    with results(as_json=json), display() as sink:
        answer = flow.verify(out, sink, device)
    if json:
        say_json(answer.data())
    else:
        for line in answer.lines():
            say(line)
    return answer.exit_code
