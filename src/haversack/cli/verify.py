"""``haversack verify``."""

from __future__ import annotations

from pathlib import Path

from haversack.cli.terminal import display, results, say, say_json


def verify(out: Path, *, device: str = "local", json: bool = False) -> int:
    """Check what a finished run left, or a bundle: hashes, what files hold, golden vectors in the runtime.

    Parameters
    ----------
    out:
        The folder of a finished run, or of a bundle.
    device:
        Where the golden vectors run: local, ssh:[user@]host[:port], adb:[serial], or qemu:CPU (cortex-a53, cortex-a76,
        haswell …), emulated.
    json:
        Print JSON.
    """
    from haversack.base.bundle import MANIFEST
    from haversack.flow import bundle as of_bundle
    from haversack.flow import verify as of_run
    from haversack.flow.workshop import unfinished

    if (stopped := unfinished(out)) is not None:
        raise stopped
    check = of_bundle.verify if (out / MANIFEST).exists() else of_run.verify
    with results(as_json=json), display() as sink:
        answer = check(out, sink, device)
    if json:
        say_json(answer.data())
    else:
        for line in answer.lines():
            say(line)
    return answer.exit_code
