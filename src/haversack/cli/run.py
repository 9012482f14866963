"""``haversack run``."""

from __future__ import annotations

import sys
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack.cli.homes import HOME, leading_on
from haversack.cli.terminal import display, results, say, say_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from haversack.run.answer import Answer
    from haversack.run.model import Model

STDIN = "/dev/stdin"
"""What a lone hyphen is read as."""
TIMED_SECONDS, TIMED_MOST = 2.0, 200
_SHOWN = 6


def run(
    model: str,
    given: str,
    *,
    top: int = 1,
    json: bool = False,
    time: bool = False,
    out: Path | None = None,
    target: str = "",
    threads: int = 0,
    tune: bool = False,
    home: Path = HOME,
) -> int:
    """Run a model on one input: the current release of a line, or a bundle's folder.

    Parameters
    ----------
    model:
        The name of a model line of this device, or the folder of a bundle.
    given:
        A file: .npy, .npz with the inputs by name, .png or .jpg where the bundle preprocesses pictures; - for standard
        input.
    top:
        So many classes of each row, best first.
    json:
        Print JSON.
    time:
        Call it for two seconds, and tell the median and the slowest twentieth.
    out:
        Write the outputs there: .npz by name, or .npy where there is one.
    target:
        The runtime; by default the one that is installed here and measured quickest.
    threads:
        Of one call; by default as measured on this device, else one.
    tune:
        Measure now which threads and delegate are quickest here, and remember it in the home.
    home:
        The folder of this device.
    """
    from haversack.run import given as reading

    data, suffix = _read(given), _checked(out, top)
    with results(as_json=json), leading_on(home):
        opens = opener(model, home, target, threads, tune=tune)
        began = clock.perf_counter()
        with opens() as opened:
            opening = (clock.perf_counter() - began) * 1000
            inputs = reading.arrays(data, opened.inputs, raw=opened.raw, where=given)
            answer = opened(inputs)
            spent = _timed(opened, inputs) if time else {}
            told: dict[str, Any] = {"line": opened.name, "version": answer.version, "target": opened.target}
            told |= {"setting": str(opened.setting), "open_ms": round(opening, 3), "ms": round(answer.milliseconds, 3)}
    told |= spent
    if out is not None:
        _write(out, suffix, answer)
    if json:
        say_json(told | _data(answer, top) | ({"out": str(out)} if out is not None else {}))
    else:
        _show(answer, top, told, out)
    return 0


def _read(given: str) -> bytes:
    from haversack.base.errors import UsageError
    from haversack.run import given as reading

    if given != STDIN:
        return reading.read(Path(given))
    if sys.stdin is None:  # as it is after <&-, or in a service without one
        raise UsageError("there is no standard input", where=given, next_step="name a file, or pipe one in")
    return sys.stdin.buffer.read(reading.LARGEST + 1)


def opener(model: str, home: Path, target: str, threads: int, *, tune: bool = False) -> Callable[[], Model]:
    """Return what opens a model: of a bundle's folder, or the current release of a line of a device.

    Args:
        model: the folder, or the line.
        home: of the device.
        target: the runtime, or empty.
        threads: of one call, or 0 for those that are remembered.
        tune: measure before which are quickest.

    Raises:
        UsageError: it is neither, or not for that runtime.
        HaversackError: as ``run.source.found``, and as ``flow.tuned.tuned``.
    """
    from haversack.base.bundle import LINE, MANIFEST
    from haversack.base.errors import UsageError
    from haversack.deliver.home import Home
    from haversack.deliver.slots import Slots
    from haversack.flow import tuned
    from haversack.run.model import Model
    from haversack.run.opening import load, setting_of
    from haversack.run.source import found
    from haversack.tools.store import atomic

    home = Home.at(home).folder
    with display() as sink:
        with atomic.told(Path(model), "look for a bundle", "look at it from an account that may read it"):
            folder, bundle = Path(model).is_dir(), Path(model, MANIFEST).exists()
        line = not bundle and LINE.fullmatch(model) and Slots(Home(home).line(model)).is_there()
        if folder and not line:  # a line's name may be that of a folder, which is no bundle
            source = found(Path(model), target)
            if tune:
                tuned.tuned(source, home, again=True, sink=sink)
            return lambda: Model(load(source, setting=setting_of(source, threads, home)))
        if not LINE.fullmatch(model):
            step = "haversack bundle OUT --out NAME-VERSION.haversack    makes a bundle of a finished run"
            raise UsageError("it is no folder of a bundle, and no name of a line", where=model, next_step=step)
        if tune:
            tuned.tuned_line(model, home, again=True, sink=sink)
    return lambda: _of_line(model, home, target, threads)


def _of_line(line: str, home: Path, target: str, threads: int) -> Model:
    from haversack.base.errors import UsageError
    from haversack.flow.client import Client

    opened = Client(home).open(line, threads=threads, follow=False)
    if target and opened.target != target:
        installed = opened.target
        opened.close()
        raise UsageError(f"what is installed is for {installed}", where=f"--target {target}", next_step="leave it out")
    return opened


def _timed(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return median and 95th percentile of calls, milliseconds, the first one not among them."""
    import numpy as np

    spent: list[float] = []
    until = clock.perf_counter() + TIMED_SECONDS
    while len(spent) < TIMED_MOST and (not spent or clock.perf_counter() < until):
        spent.append(model(inputs).milliseconds)
    low, high = np.percentile(spent, [50, 95])
    return {"median_ms": round(float(low), 3), "p95_ms": round(float(high), 3), "calls": len(spent)}


def _checked(out: Path | None, top: int) -> str:
    """Return the ending of the file for the outputs.

    Raises:
        UsageError: it is none that can be written, or fewer than one class is to be shown.
    """
    from haversack.base.errors import UsageError

    if top < 1:
        raise UsageError("at least one class is shown", where=f"--top {top}", next_step="--top 5")
    suffix = "" if out is None else out.suffix
    if out is not None and suffix not in {".npy", ".npz"}:
        raise UsageError("outputs are written as .npz or .npy", where=f"--out {out}", next_step="--out outputs.npz")
    return suffix


def _write(out: Path, suffix: str, answer: Answer) -> None:
    import numpy as np

    from haversack.tools.store import atomic

    with atomic.replacing(out) as stream:
        if suffix == ".npy":
            np.save(stream, answer.array, allow_pickle=False)
        else:
            np.savez(stream, allow_pickle=False, **answer.outputs)


def _best(answer: Answer, top: int) -> list[list[dict[str, Any]]]:
    """Return the best classes of each row; none where no output has scores of classes."""
    if not answer.classified:
        return []
    return [[{"label": one.label, "index": one.index, "score": one.score} for one in row] for row in answer.top(top)]


def _data(answer: Answer, top: int) -> dict[str, Any]:
    outputs = {
        name: {"shape": list(array.shape), "dtype": str(array.dtype), "values": array.tolist()}
        for name, array in answer.items()
    }
    return {"top": _best(answer, top), "outputs": outputs}


def _show(answer: Answer, top: int, told: dict[str, Any], out: Path | None) -> None:
    rows = _best(answer, top)
    for number, row in enumerate(rows):
        for one in row:
            before = f"{number:>4}  " if len(rows) > 1 else ""
            say(f"{before}{one['label']}  {one['score']:.4g}")
    for name, array in () if rows else answer.items():
        flat = array.reshape(-1)
        values = ", ".join(f"{value:.4g}" for value in flat[:_SHOWN])
        say(f"{name} {array.dtype} {list(array.shape)}: {values}{', …' * (flat.size > _SHOWN)}")
    if "median_ms" in told:
        say(f"{told['median_ms']:.3g} ms a call (95 % within {told['p95_ms']:.3g}), {told['calls']} calls")
    where = f"{told['target']}, {told['setting']}"
    spent = f"{_time(told['ms'])} for the first call, opened in {_time(told['open_ms'])}"
    say(f"{told['line']} {told['version']} on {where}: {spent}")
    if out is not None:
        say(f"outputs in {out}")


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"
