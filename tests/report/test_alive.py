"""Where memory peaks, on the page, in the data and on the terminal."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from haversack.base.candidate import Memory
from haversack.report import Activations, Bytes, build, files, lines, memory, render
from haversack.report.alive import HEIGHT, SHOWN, WIDTH, bars

LIVE = (Bytes("a:conv2d#0", 500_000), Bytes("b.<i>:conv2d#0", 2_000_000), Bytes("c:linear#0", 1_000))
FOUND = Activations(
    2_000_000, "b.<i>:conv2d#0", 6_000_000, 8_000_000, alive=(Bytes("a:conv2d#0", 1_900_000), LIVE[2]), live=LIVE
)


@pytest.fixture
def told(record):
    """The record with activations, and the float file's memory."""
    target = record.targets[0]
    floats = {target: replace(one, memory=memory(Memory(70_000_000, 9))) for target, one in record.floats.items()}
    return replace(record, activations={target: FOUND}, floats=floats)


def test_bars_are_as_high_as_what_is_alive():
    found = bars(FOUND)
    assert [bar.peak for bar in found] == [False, True, False]
    assert [bar.height for bar in found] == [pytest.approx(HEIGHT / 4), HEIGHT, pytest.approx(HEIGHT / 2000, abs=0.01)]
    assert all(bar.y + bar.height == pytest.approx(HEIGHT) for bar in found)
    assert found[-1].x + found[-1].width <= WIDTH
    assert found[0].x + found[0].width <= found[1].x


@pytest.mark.parametrize("found", [replace(FOUND, live=()), replace(FOUND, peak_bytes=0)])
def test_nothing_alive_is_no_drawing(found):
    assert bars(found) == ()


def test_a_thousand_steps_do_not_overlap():
    found = bars(replace(FOUND, live=tuple(Bytes(f"n{n}", n) for n in range(1000)), peak_bytes=999))
    assert all(one.width > 0 and one.x + one.width <= two.x for one, two in pairwise(found))
    assert [bar.peak for bar in found].index(True) == 999


def test_the_page_names_the_peak_and_what_is_alive(told):
    page = render(told)
    assert page.count('class="peak"') == 1
    assert "b.&lt;i&gt;" in page
    assert "b.<i>" not in page
    for words in ("in the order as exported", "6.00 MB", "8.00 MB", "Peak of the float file", "70.0 MB", "1.90 MB"):
        assert words in page
    assert "in an order of its own" not in page


def test_a_runtime_with_an_order_of_its_own_says_so(told):
    target = told.targets[0]
    other = replace(told, activations={target: replace(FOUND, keeps_order=False)})
    assert "onnxruntime runs it in an order of its own" in render(other)
    assert not any("as exported" in line for line in lines(other))


def test_many_tensors_are_summed_up(told):
    many = replace(FOUND, alive=tuple(Bytes(f"t{n}:add#0", 1_000) for n in range(SHOWN + 4)))
    page = render(replace(told, activations={told.targets[0]: many}))
    assert "4 more" in page
    assert "4.00 kB" in page


def test_a_record_without_it_has_no_section(record):
    assert "Activations at their peak" not in render(record)
    assert not any("activations peak" in line for line in lines(record))


def test_the_terminal_says_it_in_a_line(told):
    (line,) = [line for line in lines(told) if "activations peak" in line]
    assert line == (
        "onnxruntime: memory 31.4 MB at the peak (float 70.0 MB); activations peak at b.<i> "
        "(2.00 MB counted, 6.00 MB as exported)"
    )


def test_it_is_read_back_from_the_file(told, tmp_path):
    files.write(told, tmp_path)
    assert files.read(tmp_path / "report.json").activations == told.activations
    assert files.read(tmp_path / "report.json").floats == told.floats


@pytest.mark.parametrize("private, shown", [(1_234_567, "1.23 MB"), (-1, None)])
def test_private_memory_is_shown_where_it_was_told(values, private, shown):
    first = replace(values["candidates"][0], memory=Memory(9_000_000, private))
    made = build(**{**values, "candidates": (first,)})
    found = made.candidates[0].memory
    assert found.private_bytes == (private if shown else None)
    page = render(made)
    assert ("backed by no file" in page) is bool(shown)
    assert shown is None or shown in page
