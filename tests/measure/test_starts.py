from __future__ import annotations

import numpy as np
import pytest

from haversack.measure.device import Opening, Start
from haversack.measure.starts import cold_ms, memory, take
from haversack.tools.worker.faults import WorkerCrashed

PLANNED = "openers:planned"
REAL = "openers:real"
ONE = {"x": np.ones((1, 3), np.float32)}


def test_a_cold_start_is_the_median_of_load_and_first_call():
    starts = [Start(10, 1, 0), Start(30, 2, 0), Start(11, 4, 0)]
    assert cold_ms(starts) == 15


def test_starts_are_taken_as_often_as_asked_each_in_a_process_of_its_own(local_device, planned_file, tmp_path):
    log = tmp_path / "log"
    path = planned_file("s", log=str(log), load_seconds=0.02)
    starts = take(local_device, Opening(path, PLANNED), ONE, repeats=2)
    assert len(starts) == 2
    assert log.read_text() == "s" * 2 * 4  # the first call, and three more
    assert cold_ms(starts) >= 20
    with pytest.raises(ValueError, match="at least one"):
        take(local_device, Opening(path, PLANNED), ONE, repeats=0)


def test_an_artefact_that_crashes_cannot_be_started(local_device, planned_file):
    with pytest.raises(WorkerCrashed):
        take(local_device, Opening(planned_file(crash=True), PLANNED), ONE)


def test_memory_is_what_the_artefact_adds(local_device, planned_file):
    found = []
    for megabytes in (8, 40):
        opening = Opening(planned_file(f"m{megabytes}", megabytes=megabytes), PLANNED)
        found.append(memory(local_device, opening, ONE, take(local_device, opening, ONE, repeats=2)).peak_bytes)
    assert found[0] == pytest.approx(8 * 2**20, abs=3 * 2**20)
    assert found[1] - found[0] == pytest.approx(32 * 2**20, abs=2 * 2**20)


def test_the_process_without_the_artefact_is_told_before_it_starts(local_device, planned_file):
    events = []
    opening = Opening(planned_file(), PLANNED)
    starts = take(local_device, opening, ONE, repeats=1, sink=events.append)
    memory(local_device, opening, ONE, starts, sink=events.append)
    assert [(one.kind, one.text, one.done) for one in events] == [
        ("progress", "cold starts in fresh processes", 0),
        ("progress", "cold starts in fresh processes", 1),
        ("start", f"memory of {PLANNED} alone", 0),
    ]


def test_memory_of_a_real_artefact_holds_its_weights_but_not_its_runtime(local_device, onnx_file):
    path, _ = onnx_file("heavy", size=1024, layers=3, hidden=1024)  # 12.6 MB of weights
    opening = Opening(path, REAL)
    x = {"x": np.ones((1, 1024), np.float32)}
    starts = take(local_device, opening, x, repeats=1)
    peak = memory(local_device, opening, x, starts).peak_bytes
    assert 12.5e6 < peak < 80e6
    assert peak < starts[0].peak_bytes - 20e6  # importing ONNX Runtime alone takes more than that


def test_an_artefact_that_adds_nothing_measurable_takes_no_memory(local_device, planned_file):
    opening = Opening(planned_file(), PLANNED)
    less = [Start(1, 1, local_device.import_peak(PLANNED, ONE) - 4096)]
    assert memory(local_device, opening, ONE, less).peak_bytes == 0


def test_what_no_file_backs_is_told_beside_the_peak(local_device, planned_file):
    opening = Opening(planned_file("p", megabytes=24), PLANNED)
    found = memory(local_device, opening, ONE, take(local_device, opening, ONE, repeats=1))
    assert found.private_bytes == pytest.approx(24 * 2**20, abs=3 * 2**20)


@pytest.mark.parametrize("told, found", [((5, 7, 30), 7), ((5, -1, 9), 7), ((-1, -1, -1), -1)])
def test_private_bytes_are_the_median_of_what_was_told(local_device, planned_file, told, found):
    opening = Opening(planned_file(), PLANNED)
    starts = [Start(1, 1, 0, private) for private in told]
    assert memory(local_device, opening, ONE, starts).private_bytes == found


def test_a_device_that_tells_nothing_of_it_says_so():
    assert Start(1, 1, 0).private_bytes == -1


def test_every_start_is_told(local_device, planned_file):
    told = []
    take(local_device, Opening(planned_file(), PLANNED), ONE, repeats=2, sink=told.append)
    assert [(event.stage, event.done, event.total) for event in told] == [("measure", done, 2) for done in (0, 1, 2)]
