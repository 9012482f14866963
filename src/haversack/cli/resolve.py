"""``haversack resolve``."""

from __future__ import annotations

from pathlib import Path

from haversack.cli.terminal import say, say_json


def resolve(
    out: Path,
    *,
    budget: str,
    write: Path | None = None,
    json: bool = False,
) -> int:
    """Answer another budget from a finished run: measured where it can, else a forecast.

    Exit codes: 0 a measured artefact meets it, 3 none does (a forecast plan is printed if the knapsack finds one).

    Parameters
    ----------
    out:
        The folder of a finished run.
    budget:
        The other limits.
    write:
        Write the plan there, of the measured file that meets it or else the forecast one, for pack --plan.
    json:
        Print JSON.
    """
    from haversack.flow import resolve as flow

    answer = flow.resolve(out, budget)
    written = write if write is not None and answer.writable is not None else None
    if written is not None:
        answer.write(written)
    if json:
        say_json(answer.data())
    else:
        for line in answer.lines(written):
            say(line)
        if write is not None and written is None:
            say(f"{write} was not written: nothing meets the budget, nor is forecast to")
    return answer.exit_code
