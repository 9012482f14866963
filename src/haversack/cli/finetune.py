"""``haversack finetune``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from haversack.cli.terminal import ran


def finetune(
    job: str,
    *,
    max_delta: str,
    from_: Path = Path("out"),
    out: Path = Path("out2"),
    freeze: str = "auto",
    target: tuple[str, ...] = (),
    epochs: int = 6,
    compare_full: bool = False,
    allow: tuple[str, ...] = (),
    allow_pickle: bool = False,
    device: str = "local",
    json: bool = False,
) -> int:
    """Teach a release new data by a small delta: the layers that pay most for its bytes, on the encodings it has.

    Exit codes: 0 met, 2 usage (no update is that small among it), 4, 5, 6, 7 as pack, 130 interrupted,
    143 asked to end.

    Parameters
    ----------
    job:
        A job file whose data are the new ones (training() among them), and whose model is the one that was released.
    max_delta:
        The most bytes that the delta of a runtime's files may have: 300KB, 1MiB.
    from_:
        The folder of the finished run that is updated.
    out:
        The folder for the results; a run interrupted there goes on.
    freeze:
        auto: what does not pay for its bytes. Globs over module paths beside it or alone freeze more: auto,stem.*
    target:
        A runtime of the release that is updated; repeat for more. All of them, unless one is named.
    epochs:
        Passes over the training data, at most.
    compare_full:
        Fine-tune all layers as well, to compare quality and delta with; it is not what ships.
    allow:
        A kind of finding that may not fail the run; repeat for more. Those that the release was allowed are.
    allow_pickle:
        Unpickle model files: only those you trust, it runs code from them.
    device:
        Where artefacts are opened, run and timed: local, ssh:[user@]host[:port] or adb:[serial].
    json:
        Print the report as JSON, and nothing else, on standard output.
    """
    from haversack.flow.finetune import Wish
    from haversack.flow.finetune import finetune as run

    globs = tuple(filter(None, (piece.strip() for piece in freeze.split(","))))
    said = (compare_full, allow, allow_pickle, device, shlex.join(["haversack", *sys.argv[1:]]))
    wish = Wish(job, max_delta, from_, out, globs, target, epochs, *said)
    return ran(lambda sink: run(wish, sink), as_json=json)
