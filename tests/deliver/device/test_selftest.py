"""A release is tried in a child: whatever becomes of it, this process goes on and has a verdict."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import bundle, outputs

from haversack.base.errors import EnvironmentFault, Refused
from haversack.deliver import selftest, trial
from haversack.deliver.selftest import Demands, trial_of, tried
from haversack.tools.worker.process import Worker

HERE = Path(__file__).parent
SHORT = Demands(call_seconds=3.0, cpu_seconds=30)


@pytest.fixture
def good(tmp_path):
    return trial_of(bundle(tmp_path, "1.0.0", 1.0), "onnxruntime")


def child(name):
    return lambda limits: Worker.start(f"dying:{name}", limits=limits, folders=(HERE,))


def test_a_good_model_and_the_one_before(good, tmp_path):
    verdict = tried(good)
    assert verdict.well
    assert verdict.vectors == 1
    assert verdict.median_ms > 0
    assert verdict.ratio == 0
    last = trial_of(bundle(tmp_path, "0.9.0", 2.0), "onnxruntime")
    both = tried(good, last, Demands(noise_ms=1e9))
    assert both.well
    assert both.ratio > 0


@pytest.mark.parametrize(
    "name, cause",
    [
        ("crashing", "SIGSEGV"),
        ("hanging", "no answer within 3 s"),
        ("hungry", "MemoryError"),
        ("scribbling", ""),
        ("lying", "the child's answer is none"),
        ("babbling", "without place and cause"),
    ],
)
def test_a_child_that_ends_badly_fails_the_model(good, name, cause):
    verdict = tried(good, None, SHORT, child(name))
    assert not verdict.well
    assert cause in str(verdict.faults[0])


def test_a_child_that_spins_is_ended_by_the_kernel(good):
    began = time.monotonic()
    verdict = tried(good, None, Demands(call_seconds=60, cpu_seconds=2), child("spinning"))
    assert not verdict.well
    assert "SIGKILL" in str(verdict.faults[0]) or "SIGXCPU" in str(verdict.faults[0])
    assert time.monotonic() - began < 120


@pytest.mark.parametrize("name", ["poor", "bare"])
def test_what_the_machine_lacks_says_nothing_of_the_model(good, name):
    with pytest.raises(EnvironmentFault):
        tried(good, None, SHORT, child(name))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_child_that_is_asked_to_end_says_nothing_of_the_model(good, number):
    """As systemd asks all processes of a service, and its own may go on for a while."""
    with pytest.raises(EnvironmentFault, match=f"the self-test was stopped: .*{number.name}") as caught:
        tried(good, None, SHORT, child(f"ended_by_{number.name.lower()}"))
    assert caught.value.next_step == "repeat the same command"


def test_one_death_may_come_from_outside(good):
    """The first child is killed by a stranger; the second answers."""
    started = []

    def start(limits):
        started.append(child("crashing")(limits) if not started else selftest.start(limits))
        return started[-1]

    assert tried(good, child=start).well
    assert len(started) == 2


def test_the_last_model_may_die_while_they_are_compared(good, tmp_path):
    last = trial_of(bundle(tmp_path, "0.9.0", 2.0), "onnxruntime")
    last.main.write_bytes(b"no model")
    verdict = tried(good, last)
    assert verdict.well
    assert verdict.ratio == 0


def test_no_golden_vectors_no_proof(tmp_path):
    folder = bundle(tmp_path, "1.0.0", 1.0)
    (folder / "onnxruntime.golden.npz").unlink()
    with pytest.raises(Refused):
        trial_of(folder, "onnxruntime")


def test_a_device_takes_the_files_of_no_other_runtime(good):
    verdict = tried(replace(good, target="reference"))
    assert "a device takes no files for 'reference'" in str(verdict.faults[0])


def differing(wanted, found, **how):
    return list(trial.differing(wanted, found, **{"exact": False, "tolerance": 0.0, **how}))


def test_outputs_are_compared():
    one = {"y": np.float32([1, 2, 2])}
    assert differing(one, {"y": np.float32([1, 2, 2])}) == []
    assert differing(one, {}) == [("y", "the model does not give it")]
    assert differing({}, one) == [("y", "nothing is expected of it")]
    assert differing(one, {"y": np.float64([1, 2, 2])}) == [("y", "float64 [3] instead of float32 [3]")]
    assert differing(one, {"y": np.float32([1, 2, 2.3])}, tolerance=0.11) == []
    assert "relative error is 0.1" in differing(one, {"y": np.float32([1, 2, 2.3])}, tolerance=0.09)[0][1]
    assert differing(one, {"y": np.float32([1, 2, 2.3])}, exact=True, tolerance=9.0) == [("y", "1 of 3 values differ")]
    assert differing(one, {"y": np.float32([1, np.nan, np.inf])}, tolerance=9.0) == [
        ("y", "2 of 3 values are NaN or infinite")
    ]
    zero = {"y": np.zeros(2, np.float32)}
    assert differing(zero, {"y": np.float32([0, 1])}, tolerance=9.0) != []
    assert differing(zero, {"y": np.float32([0, -0.0])}) == []  # the same number in other bits
    assert differing({"y": np.int64([3])}, {"y": np.int64([4])}, tolerance=0.5) == []


arrays = st.lists(st.floats(width=32), min_size=1, max_size=6).map(np.float32)


@given(wanted=arrays, found=arrays, tolerance=st.floats(0, 2))
def test_the_comparison_is_what_it_says(wanted, found, tolerance):
    """Against the formula, written out once more with plain numbers."""
    size = min(len(wanted), len(found))
    mine, theirs = wanted[:size], found[:size]
    told = differing({"y": mine}, {"y": theirs}, tolerance=tolerance)
    pairs = [(float(a), float(b)) for a, b in zip(mine, theirs, strict=True)]
    if not all(math.isfinite(one) for pair in pairs for one in pair):
        assert told != []
        return
    error, norm = (math.sqrt(sum(x * x for x in v)) for v in ([b - a for a, b in pairs], [a for a, _ in pairs]))
    if error == 0:
        assert told == []
    elif norm and abs(error / norm - tolerance) > 1e-9 * tolerance + 1e-300:
        assert (told != []) == (error / norm > tolerance)


def test_golden_vectors_of_any_kind_of_damage(tmp_path):
    """A child that reads them says so; it does not die of them."""
    path = tmp_path / "golden.npz"
    folder = bundle(tmp_path, "1.0.0", 1.0)
    header = replace(trial_of(folder, "onnxruntime"), golden=path).header()
    whole = (folder / "onnxruntime.golden.npz").read_bytes()
    asked = partial(trial.answer, header, {})
    for data in (b"", b"PK", whole[:-30], b"\x80\x04." + whole):
        path.write_bytes(data)
        with pytest.raises(Exception, match="golden vectors|pickle"):
            asked()
    path.write_bytes(whole)
    assert asked()[0]["faults"] == []
    assert outputs(1.0)[0, 0] == 1.0
