"""``haversack report``."""

from __future__ import annotations

from pathlib import Path

from haversack.cli.terminal import say, say_json


def report(
    out: Path,
    *,
    page: bool = False,
    json: bool = False,
) -> None:
    """Tell what a finished run found, or write its page anew.

    Parameters
    ----------
    out:
        The folder of a finished run.
    page:
        Write report.html anew from report.json.
    json:
        Print report.json.
    """
    from haversack import report as files
    from haversack.base.recipe import unstructure
    from haversack.flow.workshop import unfinished
    from haversack.report import text

    if (stopped := unfinished(out)) is not None:
        raise stopped
    record = files.read(out / "report.json")
    if page:
        say(str(files.write_page(record, out)))
    elif json:
        say_json(unstructure(record))
    else:
        for line in text.lines(record):
            say(line)
