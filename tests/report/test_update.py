"""What a report tells of an update: lines, a section of the page, and a record that is read back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.report import files, page, text
from haversack.report.record import Limit
from haversack.report.update import OfferRecord, PointRecord, UpdateRecord

UPDATE = UpdateRecord(
    "out",
    "abc",
    12_000,
    {"onnxruntime": 11_400},
    (
        PointRecord("released", 0, 0.61, 0.01, 1.2),
        PointRecord("7 layers, round 1", 13_000, 0.72, 0.01, 0.7, {"a:conv2d#0": "weights"}),
        PointRecord("5 layers, round 2", 11_400, 0.70, 0.01, 0.8, {"<b>:conv2d#0": "channels"}, ships=True),
        PointRecord("all layers", 50_000, None, None, 0.6),
    ),
    (OfferRecord("<b>:conv2d#0", "channels", 0.2, 140, chosen=True), OfferRecord("a:conv2d#0", "weights", 0.1, 900)),
    (448, 64),
)


@pytest.fixture
def updated(record):
    limit = Limit("delta", 12_000, 11_400, met=True, target="onnxruntime", unit="bytes", over=-600)
    return replace(record, update=UPDATE, budget=(limit,))


def test_points_and_what_ships():
    assert UPDATE.first.name == "released"
    assert UPDATE.shipped.bytes == 11_400


def test_the_terminal_tells_each_point(updated):
    told = text.lines(updated)
    start = told.index("of out, on the new data:")
    rows = told[start + 1 : start + 5]
    assert "released" in rows[0]
    assert "+" not in rows[0]
    assert "->" in rows[2]
    assert "11.4 kB" in rows[2]
    assert "1 layer changed" in rows[2]
    assert "—" in rows[3]
    assert [row for row in rows if "->" in row] == [rows[2]]


def test_a_run_that_is_no_update_tells_nothing(record):
    assert not any("on the new data" in line for line in text.lines(record))
    assert "What each layer brings" not in page.render(record)


def test_the_page_tells_points_and_layers_escaped(updated):
    found = page.render(updated)
    for word in (
        "What each layer brings",
        "5 layers, round 2",
        "11.4 kB",
        "integers and biases",
        "Delta from the release",
    ):
        assert word in found
    assert "<b>:conv2d" not in found
    assert "&lt;b&gt;" in found


def test_it_is_read_back_as_it_was_written(updated, tmp_path):
    files.write(updated, tmp_path)
    assert files.read(tmp_path).update == UPDATE
