"""``haversack pack``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack.cli.terminal import display, ran, results, say, say_json

if TYPE_CHECKING:
    from haversack.flow.request import Request


def pack(
    job: str,
    *,
    budget: str | None = None,
    target: tuple[str, ...] = (),
    platform: str = "",
    out: Path = Path("out"),
    allow: tuple[str, ...] = (),
    plan: Path | None = None,
    dry_run: bool = False,
    allow_pickle: bool = False,
    device: str = "local",
    effort: str = "default",
    degraded: tuple[str, ...] = (),
    layer: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    ray: str = "",
    json: bool = False,
) -> int:
    """Fit a model into its budgets, verified and measured on the artefact itself.

    Exit: 0 met, 2 usage, 3 missed, 4 not converted, 5 not verified, 6 environment, 7 refused, 130 or 143 interrupted.

    Parameters
    ----------
    job:
        A job file (job.py), module:callable, or a recipe.toml of an earlier run.
    budget:
        Joint limits: size=5.2MB,download=4MB,latency=0.55x (or 8ms),memory=40MB,drop=1pt.
    target:
        A runtime, settings behind a colon (litert:integer_io=true); repeat for more. any: all are tried, and one ships.
    platform:
        Where it will run: android, ios, linux-arm or browser. Runtimes that do not run there are left out.
    out:
        The folder for the results; a run interrupted there goes on.
    allow:
        A kind of finding that may not fail the run; repeat for more.
    plan:
        A plan printed by resolve --write: make just this one.
    dry_run:
        Export, look and forecast; make nothing.
    allow_pickle:
        Unpickle model files: only those you trust, it runs code from them.
    device:
        Where artefacts are opened, run and timed: local, ssh:[user@]host[:port] or adb:[serial].
    effort:
        Rounding may cost: fast (means only), default (by layers' outputs), high (on more samples), highest (trained).
    degraded:
        Also score what ships on inputs made worse: blur, noise:level=0.2; repeat for more. none: not the job's either.
    layer:
        Fix layers to a precision, by globs over module paths: 'features.0.*=float32'; repeat for more. none: fix none.
    without:
        A precision or a part that nothing may use: w4a8, gptq; repeat for more. none: forbid none.
    ray:
        Spread pure work over a Ray cluster that you trust: local:2 starts two workers here, HOST:PORT joins one.
    json:
        Print the report as JSON, and nothing else, on standard output.
    """
    said = (_typed(), device, effort, degraded, layer, without, ray)
    return _done(_request(job, budget, target, platform, out, allow, plan, allow_pickle, *said), dry_run, json=json)


def _done(request: Request, dry_run: bool, *, json: bool) -> int:
    return _looked(request, json=json) if dry_run else _packed(request, json=json)


def _typed() -> str:
    """Return the command as it was typed."""
    return shlex.join(["haversack", *sys.argv[1:]])


def _request(*fields: Any) -> Request:  # noqa: ANN401 - of the request, in its order
    from haversack.flow.request import Request

    return Request(*fields)


def _looked(request: Request, *, json: bool) -> int:
    from haversack.base.recipe import unstructure
    from haversack.flow.pack import preflight

    with results(as_json=json), display() as sink:
        forecast = preflight(request, sink)
    say_json(unstructure(forecast)) if json else say("\n".join(forecast.lines()))
    return forecast.exit_code


def _packed(request: Request, *, json: bool) -> int:
    from haversack.flow.pack import pack as run

    return ran(lambda sink: run(request, sink), as_json=json)
