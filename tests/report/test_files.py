"""report.json and report.html: DESIGN's names, a true round trip, and every fault of a bad file at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from haversack.base.errors import EnvironmentFault, UsageError
from haversack.report import read, write
from haversack.report.files import to_json

NAMES = {
    "": {"format", "model", "baseline", "budget", "best", "candidates", "environment", "seconds"},
    "baseline": {"metric", "value", "unit", "samples", "standard_error"},
    "budget": {"limit", "allowed", "got", "met", "target"},
    "candidates": {
        "id",
        "target",
        "plan",
        "artifact",
        "quality",
        "parity",
        "latency",
        "memory",
        "findings",
        "verdict",
        "reason",
    },
    "candidates.artifact": {"path", "bytes", "download_bytes", "sha256"},
    "candidates.quality": {"value", "drop", "samples", "standard_error"},
    "candidates.parity": {"agreement", "relative_error", "worst_layer"},
    "candidates.latency": {"ratio", "median_ms", "p95_ms", "cold_ms", "cpu_ratio"},
    "candidates.memory": {"peak_bytes"},
    "candidates.findings": {"kind", "severity", "layer", "text"},
}


@pytest.fixture
def data(record):
    return json.loads(to_json(record))


@pytest.fixture
def mend(tmp_path, data):
    """Write the record's data after ``change`` and return the file."""

    def apply(change):
        change(data)
        path = tmp_path / "report.json"
        path.write_text(json.dumps(data))
        return path

    return apply


@pytest.mark.parametrize("path", NAMES)
def test_names_of_format_1(data, path):
    found = data
    for step in filter(None, path.split(".")):
        found = found[step]
        found = found[0] if isinstance(found, list) else found
    assert NAMES[path] <= set(found)


def test_format_and_best(data):
    assert data["format"] == 1
    assert data["best"] == {"onnxruntime": data["candidates"][0]["id"]}
    assert data["candidates"][0]["plan"]["target"] == "onnxruntime"


def test_a_failed_candidate_has_nulls(data):
    failed = data["candidates"][-1]
    assert [failed[name] for name in ("artifact", "quality", "parity", "latency", "memory")] == [None] * 5
    assert failed["verdict"] == "failed"


@pytest.mark.parametrize("fixture", ["record", "hollow", "many"])
def test_round_trip(request, tmp_path, fixture):
    record = request.getfixturevalue(fixture)
    paths = write(record, tmp_path / "out")
    assert [path.name for path in paths] == ["report.json", "report.html"]
    again = read(tmp_path / "out")
    assert again == record
    assert read(paths[0]) == record
    assert to_json(again) == to_json(record)
    assert list(next(iter(again.candidates)).seconds) == list(next(iter(record.candidates)).seconds)


def test_worst_first_survives_the_file(record, tmp_path):
    write(record, tmp_path)
    layers = read(tmp_path).candidates[0].parity.layers
    assert list(layers.values()) == sorted(layers.values(), reverse=True)


def test_no_nan_in_the_file(record):
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(replace(record, seconds={"load": float("nan")}))


def test_nothing_else_is_left_in_the_folder(record, tmp_path):
    write(record, tmp_path)
    write(record, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_an_old_report_stays_whole_when_the_new_one_cannot_be_made(record, tmp_path):
    write(record, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="JSON compliant"):
        write(replace(record, seconds={"load": float("inf")}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_a_file(record, tmp_path):
    place = tmp_path / "out"
    place.write_text("mine")
    with pytest.raises(EnvironmentFault) as caught:
        write(record, place)
    assert caught.value.exit_code == 6
    assert caught.value.next_step
    assert place.read_text() == "mine"


def test_a_name_taken_by_a_folder(record, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(EnvironmentFault):
        write(record, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk(record, tmp_path, monkeypatch):
    """Every temporary file is opened on /dev/full: the kernel itself refuses the bytes."""
    write(record, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("haversack.tools.store.atomic.temporary_name", lambda name: f"{name}.link")
    (tmp_path / "report.json.link").symlink_to("/dev/full")
    with pytest.raises(EnvironmentFault):
        write(record, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_read_says_where_there_is_none(tmp_path):
    with pytest.raises(UsageError, match="there is no report") as caught:
        read(tmp_path)
    assert caught.value.where == str(tmp_path / "report.json")
    assert "haversack pack" in caught.value.next_step


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[]", "the top of a report is an object"),
        ('{"format": 1,\n "model": }', "not JSON"),
        ('{"format": NaN}', "NaN is no number"),
        ("{}", "format None is not one"),
        ('{"format": 3}', "format 3 is not one this version reads"),
        ('{"format": "1"}', "format '1' is not one"),
        ('{"format": 1}', "it cannot be read"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_foreign_files(tmp_path, content, message):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read(path)
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.where


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match="not JSON"):
        read(path)


def test_the_line_of_a_syntax_error(tmp_path):
    path = tmp_path / "report.json"
    path.write_text('{"format": 1,\n "model": }')
    with pytest.raises(UsageError) as caught:
        read(path)
    assert caught.value.where.endswith(":2")


@pytest.mark.parametrize("length", [10, 1000, 5000])
def test_a_truncated_file(record, tmp_path, length):
    path = tmp_path / "report.json"
    path.write_text(to_json(record)[:length])
    with pytest.raises(UsageError, match="not JSON"):
        read(path)


def test_every_fault_at_once(mend):
    def change(data):
        data["seconds"]["load"] = "soon"
        data["candidates"][1]["latency"]["median_ms"] = "fast"
        data["candidates"][0]["verdict"] = "perfect"
        data["budget"][0]["alowed"] = 3
        del data["environment"]["python"]

    with pytest.raises(UsageError) as caught:
        read(mend(change))
    told = "\n".join(map(str, caught.value.faults))
    assert len(caught.value.faults) >= 5
    for word in ("seconds", "median_ms", "verdict", "alowed", "did you mean allowed", "python"):
        assert word in told


@pytest.mark.parametrize("older", [0])
def test_the_format_before_is_read(mend, record, older):
    again = read(mend(lambda data: data.update(format=older)))
    assert again == replace(record, format=older)


def test_contradictions_are_refused(mend):
    def change(data):
        data["best"] = {"onnxruntime": "nobody"}
        data["budget"][0].update(got=None, met=True)

    with pytest.raises(UsageError, match="contradicts") as caught:
        read(mend(change))
    assert [fault.where for fault in caught.value.faults] == ["best.onnxruntime", "budget.0"]
