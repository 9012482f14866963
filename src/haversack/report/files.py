"""The two files a report is: ``report.json`` and ``report.html``, written together and read back with every fault."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from haversack.base.errors import Fault, UsageError
from haversack.base.recipe import structure, unstructure
from haversack.report.page import render
from haversack.report.record import FORMAT, Record
from haversack.tools.store.atomic import make_folder, replacing

JSON_NAME = "report.json"
HTML_NAME = "report.html"
_ELSEWHERE = "copy the folder to where it can be written, and repeat the command with the copy"
_AGAIN = "haversack pack JOB --out FOLDER    writes a new one"


def to_json(record: Record) -> str:
    """Return a record as the text of report.json.

    Raises:
        ValueError: a number is NaN or an infinity.
    """
    return json.dumps(unstructure(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write(record: Record, folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.html into ``folder`` and return their paths; an old report is whole until then.

    Both are complete on the disk before either takes its name.

    Raises:
        EnvironmentFault: the folder cannot be written, or the disk is full; nothing half-written is left.
        MissingExtra: a package that draws the page is not installed; report.json is not written either.
    """
    data, page = to_json(record).encode(), render(record).encode()
    paths = make_folder(folder) / JSON_NAME, folder / HTML_NAME
    with replacing(paths[0]) as first, replacing(paths[1]) as second:
        for stream, content in ((first, data), (second, page)):
            stream.write(content)
            stream.flush()
    return paths


def write_page(record: Record, folder: Path) -> Path:
    """Write report.html anew into the folder that a record was read from, and return its path.

    Raises:
        EnvironmentFault: it cannot be written; the old page is whole.
        MissingExtra: a package that draws the page is not installed.
    """
    path = folder / HTML_NAME
    page = render(record).encode()
    with replacing(path, _ELSEWHERE) as stream:
        stream.write(page)
    return path


def read(path: Path) -> Record:
    """Read a report.json, or the one in a folder.

    Raises:
        UsageError: there is none, it is not JSON (with its line), of a format not read, or holds wrong fields or
            contradictions, all told at once.
    """
    file = path / JSON_NAME if path.is_dir() else path
    data = _load(file)
    if data.get("format") not in (FORMAT, FORMAT - 1):
        raise UsageError(
            f"format {data.get('format')!r} is not one this version reads ({FORMAT - 1} or {FORMAT})",
            where=str(file),
            next_step=_AGAIN,
        )
    record = structure(data, Record, where=str(file))
    if faults := _contradictions(record):
        raise UsageError("it contradicts itself", where=str(file), faults=faults, next_step=_AGAIN)
    return record


def _load(file: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise UsageError(f"there is no report to read: {error.strerror}", where=str(file), next_step=_AGAIN) from error
    except json.JSONDecodeError as error:
        raise UsageError(f"not JSON: {error.msg}", where=f"{file}:{error.lineno}", next_step=_AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}", where=str(file), next_step=_AGAIN) from error
    if not isinstance(data, dict):
        raise UsageError("the top of a report is an object", where=str(file), next_step=_AGAIN)
    return data


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _contradictions(record: Record) -> tuple[Fault, ...]:
    known = {candidate.id: candidate.target for candidate in record.candidates}
    faults = [
        Fault(f"best.{target}", f"{chosen!r} is no candidate of {target}")
        for target, chosen in record.best.items()
        if known.get(chosen) != target
    ]
    faults += [
        Fault(f"budget.{count}", "met, but not measured")
        for count, limit in enumerate(record.budget)
        if limit.met and limit.got is None
    ]
    return tuple(faults)
