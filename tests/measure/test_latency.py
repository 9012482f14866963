from __future__ import annotations

import numpy as np
import pytest

from haversack.measure.device import Handle, Opening, Times
from haversack.measure.latency import Patience, alike, compare, confirmed, summarise

PLANNED = "openers:planned"
REAL = "openers:real"
ONE = {"x": np.ones((1, 3), np.float32)}


class Timetable:
    """A device in name only: it reads prepared times off a list, so that stopping rules can be checked exactly."""

    name = "timetable"

    def __init__(self, wall):
        self.wall = np.asarray(wall, np.int64)
        self.asked = []

    def time(self, handles, inputs, *, rounds, warmup=0, seconds=60.0):
        self.asked.append((rounds, warmup, seconds))
        part, self.wall = self.wall[:rounds], self.wall[rounds:]
        part = part[:, ::-1] if handles[0].opening.path.name == "float" else part
        return Times(part, part // 2)

    def load(self, opening):
        self.asked.append(opening.path.name)
        return Handle(9, opening)

    def unload(self, handle):
        self.asked.append(f"not {handle.opening.path.name}")


def handles(tmp_path):
    return [Handle(number, Opening(tmp_path / str(number), "any", threads=2)) for number in (1, 2)]


def noisy_times(pairs, sigma, seed=0, milliseconds=1):
    draw = np.random.default_rng(seed)
    return (np.exp(draw.normal(0, sigma, (pairs, 2))) * [0.5e6, 1e6] * milliseconds).astype(np.int64)


def test_real_calls_give_a_true_ratio(local_device, planned_file):
    half, whole = (
        local_device.load(Opening(planned_file(name, seconds=seconds), PLANNED))
        for name, seconds in (("half", 0.001), ("whole", 0.002))
    )
    timed = compare(local_device, half, whole, ONE, cold_ms=12.5, patience=Patience(pairs=20, seconds=3))
    latency = timed.latency
    assert latency.ratio == pytest.approx(0.5, abs=0.2)  # other tests may be running
    assert latency.cpu_ratio == pytest.approx(0.5, abs=0.05)
    assert 1 <= latency.median_ms <= latency.p95_ms
    assert latency.float_median_ms >= 2
    assert latency.ratio_low <= latency.ratio <= latency.ratio_high
    assert latency.cold_ms == 12.5
    assert (latency.device, latency.threads) == ("local", 1)
    assert timed.difference.different
    assert latency.pairs == len(timed.times.wall) >= 20


def test_a_larger_real_model_is_slower_than_a_smaller_one(local_device, onnx_file):
    large = local_device.load(Opening(onnx_file("large", layers=4, hidden=256)[0], REAL))
    small = local_device.load(Opening(onnx_file("small", layers=1, hidden=256)[0], REAL))
    x = {"x": np.ones((64, 16), np.float32)}
    timed = compare(local_device, large, small, x, cold_ms=1.0, patience=Patience(pairs=20, seconds=3))
    assert timed.difference.different
    assert timed.latency.ratio > 1.5


def test_the_same_file_twice_is_about_as_fast(local_device, onnx_file):
    path, _ = onnx_file("same", layers=4, hidden=256)
    one, other = (local_device.load(Opening(path, REAL)) for _ in range(2))
    x = {"x": np.ones((64, 16), np.float32)}
    timed = compare(local_device, one, other, x, cold_ms=1.0, patience=Patience(pairs=40, seconds=3))
    assert timed.latency.ratio == pytest.approx(1, abs=0.15)


def test_a_settled_ratio_ends_at_the_fewest_pairs(tmp_path):
    device = Timetable(noisy_times(400, 0.0001))
    timed = compare(device, *handles(tmp_path), ONE, cold_ms=1, patience=Patience(pairs=40))
    assert timed.latency.pairs == 40
    assert timed.latency.threads == 2
    assert timed.latency.device == "timetable"


def test_a_restless_ratio_is_measured_until_it_is_settled(tmp_path):
    device = Timetable(noisy_times(400, 0.03))
    timed = compare(device, *handles(tmp_path), ONE, cold_ms=1, patience=Patience(pairs=40, settled=0.01))
    assert 40 < timed.latency.pairs < 400
    assert timed.difference.spread <= 0.01


def test_a_ratio_that_never_settles_ends_at_the_most_pairs(tmp_path):
    device = Timetable(noisy_times(400, 0.8))
    timed = compare(device, *handles(tmp_path), ONE, cold_ms=1, patience=Patience(pairs=40, most_pairs=110))
    assert timed.latency.pairs == 110
    assert [rounds for rounds, _, _ in device.asked] == [20, 20, 20, 20, 20, 10]


def test_time_that_is_up_ends_it(tmp_path):
    device = Timetable(noisy_times(400, 0.8, milliseconds=10))  # a pair takes about 20 ms
    timed = compare(device, *handles(tmp_path), ONE, cold_ms=1, patience=Patience(pairs=40, seconds=0.7))
    assert timed.latency.pairs == 40
    assert device.asked[0][2] == 0.7
    assert 0 < device.asked[1][2] < 0.4  # what is left of it


def test_only_the_first_part_warms_up(tmp_path):
    device = Timetable(noisy_times(400, 0.8))
    compare(device, *handles(tmp_path), ONE, cold_ms=1, patience=Patience(pairs=40, warmup=7))
    assert [warmup for _, warmup, _ in device.asked][:3] == [7, 0, 0]


@pytest.mark.parametrize(("ratio", "different"), [(0.9, True), (1.015, False), (1 / 1.015, False), (1.05, True)])
def test_what_two_openings_of_one_file_may_differ_by_is_no_difference(tmp_path, ratio, different):
    wall = noisy_times(40, 0.0001) * [2, 1] * [ratio, 1]
    timed = compare(Timetable(wall), *handles(tmp_path), ONE, cold_ms=1, patience=Patience(pairs=40))
    assert timed.difference.different is different
    assert timed.latency.ratio == pytest.approx(ratio, rel=1e-3)


def test_the_summary_is_the_textbook_s():
    wall = np.array([[1, 2], [2, 2], [3, 4], [9, 3], [2, 4]]) * 1_000_000
    latency = summarise(Times(wall, wall * [3, 2]), 7.0, "board", 4)
    ratios = [0.5, 0.5, 0.75, 1.0, 3.0]
    assert latency.ratio == 0.75
    assert (latency.ratio_low, latency.ratio_high) == (ratios[1], ratios[3])
    assert latency.median_ms == 2
    assert latency.p95_ms == pytest.approx(np.percentile([1, 2, 3, 9, 2], 95))
    assert latency.float_median_ms == 3
    assert latency.cpu_ratio == pytest.approx(0.75 * 1.5)
    assert latency.pairs == 5
    assert (latency.device, latency.threads, latency.cold_ms) == ("board", 4, 7.0)


def test_calls_shorter_than_the_cpu_clock_s_step_still_give_a_number():
    latency = summarise(Times(np.ones((3, 2), np.int64), np.zeros((3, 2), np.int64)), 1.0, "local", 1)
    assert latency.cpu_ratio == 1


def opened_twice(tmp_path, first, second):
    """Time a file with one ratio in its first opening and another in its second."""
    wall = np.concatenate(
        [noisy_times(40, 0.0001, seed) * [2, 1] * [ratio, 1] for seed, ratio in ((0, first), (1, second))]
    )
    device = Timetable(wall)
    openings = [Opening(tmp_path / name, "any", threads=2) for name in ("mine", "float")]
    ours = [Handle(number, opening) for number, opening in enumerate(openings)]
    patience = Patience(pairs=40)
    timed = compare(device, *ours, ONE, cold_ms=3, patience=patience)
    device.asked.clear()
    return device, confirmed(device, timed, *openings, ONE, patience=patience)


@pytest.mark.parametrize(
    ("first", "second", "different"),
    [(1.05, 1.0, False), (1.05, 0.9, False), (1.05, 1.06, True), (2.0, 1.7, True), (1.5, 1.05, False)],
)
def test_what_is_slower_in_one_opening_alone_is_not_slower(tmp_path, first, second, different):
    _, timed = opened_twice(tmp_path, first, second)
    assert timed.difference.different is different
    assert timed.difference.ratio == pytest.approx(second if abs(second - 1) < abs(first - 1) else first, rel=1e-3)
    assert timed.difference.low <= min(first, second) * 1.001
    assert timed.difference.high >= max(first, second) * 0.999
    assert "opened again in the other order" in timed.difference.why


def test_the_second_opening_is_in_the_other_order_and_counts_as_much(tmp_path):
    device, timed = opened_twice(tmp_path, 1.05, 1.15)
    assert [asked for asked in device.asked if isinstance(asked, str)] == ["float", "mine", "not mine", "not float"]
    assert timed.latency.pairs == len(timed.times.wall) == 80
    assert timed.latency.ratio == pytest.approx(1.10, abs=0.01)
    assert (timed.latency.cold_ms, timed.latency.threads) == (3, 2)


def test_the_float_file_itself_has_the_ratio_one(tmp_path):
    wall = noisy_times(40, 0.0001) * [2, 1] * [1.049, 1]
    timed = compare(Timetable(wall), *handles(tmp_path), ONE, cold_ms=1, patience=Patience(pairs=40))
    found = alike(timed.latency)
    assert (found.ratio, found.ratio_low, found.ratio_high, found.cpu_ratio) == (1, 1, 1, 1)
    assert found.float_median_ms == found.median_ms == timed.latency.median_ms


def test_pairs_are_told_while_they_are_timed_and_their_number_at_the_end(tmp_path):
    told = []
    device = Timetable(noisy_times(400, 0.0001))
    compare(device, *handles(tmp_path), ONE, cold_ms=1, patience=Patience(pairs=40), sink=told.append)
    assert [(event.done, event.total) for event in told] == [(20, 0), (40, 0), (40, 40)]
