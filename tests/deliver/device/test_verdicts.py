"""What a child may say of itself, and outputs that are compared: any words end in a verdict, any numbers rightly."""

from __future__ import annotations

import contextlib
import math
from decimal import Decimal, localcontext
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, Fault, UsageError
from haversack.deliver import trial
from haversack.deliver.selftest import Demands, Trial, tried
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerTimeout

DIED, HUNG = WorkerCrashed("it died", method="answer"), WorkerTimeout(method="answer", seconds=3)
WELL = {"faults": [], "vectors": 2, "median_ms": 1.5}


@contextlib.contextmanager
def saying(told):
    """Yield a child that answers each method so; an error is raised."""

    def call(method, header):
        asked.append((method, header))
        found = told[method]
        if isinstance(found, Exception):
            raise found
        return found, {}

    asked = []
    yield SimpleNamespace(call=call, asked=asked)


@pytest.fixture
def one(tmp_path):
    """A trial of a file that nobody opens."""
    (tmp_path / "m.onnx").write_bytes(b"model")
    return Trial("onnxruntime", tmp_path / "m.onnx", tmp_path / "golden.npz", {"a": "b"}, tolerance=0.5)


def verdict(one, answer, compare=None, demands=None):
    last = None if compare is None else one
    return tried(one, last, demands or Demands(), lambda limits: saying({"answer": answer, "compare": compare}))


def test_what_a_good_child_says(one):
    found = verdict(one, WELL)
    assert (found.well, found.vectors, found.median_ms, found.ratio) == (True, 2, 1.5, 0.0)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"faults": None},
        {"faults": {}},
        {"faults": "well"},
        {"vectors": 0},
        {"vectors": -1},
        {"vectors": "2"},
        {"vectors": None},
        {"vectors": [2]},
        {"vectors": math.nan},
        {"vectors": math.inf},
        {"vectors": 10**400},
        {"median_ms": -0.1},
        {"median_ms": "1"},
        {"median_ms": math.nan},
        {"median_ms": math.inf},
        {"median_ms": -math.inf},
        {"median_ms": 10**400},
    ],
)
def test_what_is_no_answer_is_a_fault_of_the_model(one, said):
    found = verdict(one, {**WELL, **said} if said else {})
    assert found.faults == (Fault("", "the child's answer is none"),)
    assert not found.well


@pytest.mark.parametrize(
    "said, fault",
    [
        (["y", "wrong"], Fault("y", "wrong")),
        (["y"], None),
        (["y", "wrong", "more"], None),
        (["\x1b[2Jy", "a\nb\x07"], Fault("\\x1b[2Jy", "a\\nb\\x07")),  # words that would move a terminal's cursor
        (["y", 3], None),
        ({"where": "y"}, None),
        ("yw", None),  # two letters are no pair
        (None, None),
    ],
)
def test_faults_that_a_child_tells(one, said, fault):
    found = verdict(one, {**WELL, "faults": [said]})
    assert found.faults == (fault or Fault("", "the child tells a fault without place and cause"),)


@pytest.mark.parametrize(
    "ratio, more, well, told",
    [
        (1.0, 0.0, True, 1.0),
        (2.0, 50.0, True, 2.0),  # as slow as it may be
        (2.01, 50.0, False, 2.01),
        (9.0, 0.5, True, 9.0),  # by less than noise
        (9.0, 0.51, False, 9.0),
        (math.nan, 50.0, True, -1.0),
        (math.inf, 50.0, True, -1.0),
        ("9", 50.0, True, -1.0),
        (9.0, None, True, 9.0),
    ],
)
def test_a_model_may_be_so_much_slower(one, ratio, more, well, told):
    found = verdict(one, WELL, {"ratio": ratio, "more_ms": more})
    assert found.well is well
    assert found.ratio == told
    if not well:
        assert found.faults[0].where == "m.onnx"
        assert f"{ratio:.2f} times as long" in found.faults[0].cause
        assert "2 is allowed" in found.faults[0].cause


def test_nothing_is_compared_where_nobody_asks_or_the_model_fails(one):
    boom = AssertionError("it was compared")
    assert verdict(one, WELL, boom, Demands(slowest=0)).ratio == 0.0
    assert not verdict(one, {**WELL, "faults": [["y", "x"]]}, boom).well


@pytest.mark.parametrize("error", [DIED, HUNG])
def test_a_comparison_that_ends_badly_says_nothing(one, error):
    found = verdict(one, WELL, error)
    assert (found.well, found.ratio) == (True, 0.0)


def test_a_child_that_hangs_is_asked_once_and_one_that_dies_twice(one):
    for error, times in ((HUNG, 1), (DIED, 2)):
        started = []

        def child(limits, error=error, started=started):
            started.append(limits)
            return saying({"answer": error})

        found = tried(one, None, Demands(), child)
        assert found.faults[0] == Fault("m.onnx", str(error.cause))
        assert len(started) == times


def test_limits_of_a_child_grow_with_the_model():
    small, large = Demands().limits(0), Demands().limits(1 << 30)
    assert large.address_space - small.address_space == 4 << 30
    assert (small.cpu_seconds, small.call_seconds, small.start_seconds) == (300, 180.0, 60.0)


def test_a_header_travels_as_json(one):
    header = one.header()
    assert header["main"] == str(one.main)
    assert header["golden"] == str(one.golden)
    assert header["options"] == {"a": "b"}
    assert (header["exact"], header["tolerance"], header["threads"]) == (False, 0.5, 1)


@pytest.mark.parametrize("target", ["reference", "torch", "", "../x", "gguf"])
def test_files_of_no_other_runtime_are_opened(one, target):
    with pytest.raises(UsageError, match="a device takes no files for") as caught:
        trial.opened({**one.header(), "target": target})
    assert "onnxruntime, litert, executorch" in caught.value.cause


def test_errors_of_a_runtime_that_is_not_there_are_the_machines(one):
    for kind, text in (("haversack.base.errors.MissingExtra", "no onnxruntime"), ("x.EnvironmentFault", "no disk")):
        error = WorkerError(method="answer", type_=kind, text=text, traceback="")
        with pytest.raises(EnvironmentFault, match=text) as caught:
            verdict(one, error)
        assert caught.value.where == "onnxruntime"
    found = verdict(one, WorkerError(method="answer", type_="builtins.ValueError", text="bad file", traceback=""))
    assert found.faults == (Fault("m.onnx", "bad file"),)


def differing(wanted, found, **how):
    settings_ = {"exact": False, "tolerance": 0.0, **how}
    return list(trial.differing({"y": np.asarray(wanted)}, {"y": np.asarray(found)}, **settings_))


@pytest.mark.parametrize(
    "wanted, found, error",
    [
        ([1e200], [-1e200], 2.0),  # squares overflow
        ([1e-200], [3e-200], 2.0),  # squares vanish
        ([5e-324], [1e-323], 1.0),
        ([1.7e308, 0.0], [-1.7e308, 0.0], 2.0),  # their difference alone overflows
        ([1 + 0j], [1 + 5j], 5.0),
        ([3 + 4j], [3 - 4j], 1.6),
        ([True, False], [True, True], 1.0),
    ],
)
def test_far_numbers_are_compared_as_near_ones(wanted, found, error):
    assert differing(wanted, found, tolerance=error * 1.001) == []
    [(name, cause)] = differing(wanted, found, tolerance=error * 0.999)
    assert name == "y"
    assert cause.startswith(f"the relative error is {error:.3g}")


@pytest.mark.parametrize(
    "wanted, found",
    [
        (np.int64([2**53]), np.int64([2**53 + 1])),
        (np.int64([2**62, 1]), np.int64([2**62 + 1, 1])),
        (np.uint64([2**64 - 1]), np.uint64([2**64 - 2])),
    ],
)
def test_integers_that_float_does_not_tell_apart_are_not_equal(wanted, found):
    assert differing(wanted, found) != []
    assert differing(wanted, found, tolerance=1e-9) == []
    assert differing(wanted, wanted.copy()) == []


@pytest.mark.parametrize(
    "wanted, found, cause",
    [
        ([[1.0]], [1.0], "float64 [1] instead of float64 [1, 1]"),
        ([1.0], [], "float64 [0] instead of float64 [1]"),
        (np.float32([1]), np.float16([1]), "float16 [1] instead of float32 [1]"),
        (np.int8([1]), np.uint8([1]), "uint8 [1] instead of int8 [1]"),
        ([1.0, 2.0], [np.nan, 2.0], "1 of 2 values are NaN or infinite"),
        ([1.0, 2.0], [np.nan, -np.inf], "2 of 2 values are NaN or infinite"),
        # A golden output that is no number would let any finite one pass; not even the same bits prove anything.
        ([1.0, np.inf], [1.0, 7.0], "1 of 2 golden values are NaN or infinite, and prove nothing"),
        ([1.0, np.inf], [1.0, np.inf], "1 of 2 golden values are NaN or infinite, and prove nothing"),
        ([np.nan], [np.nan], "1 of 1 golden values are NaN or infinite, and prove nothing"),
        ([complex(0, np.nan)], [1j], "1 of 1 golden values are NaN or infinite, and prove nothing"),
    ],
)
def test_what_differs_in_form_or_is_no_number(wanted, found, cause):
    assert differing(wanted, found, tolerance=1e9) == [("y", cause)]
    assert differing(wanted, found, exact=True) == [("y", cause)]


def test_outputs_are_told_in_order_of_their_names():
    wanted = {name: np.float32([1]) for name in "zab"}
    found = {name: np.float32([2]) for name in "azc"}
    told = list(trial.differing(wanted, found, exact=True, tolerance=0))
    assert [name for name, _ in told] == ["a", "b", "c", "z"]
    assert told[1][1] == "the model does not give it"
    assert told[2][1] == "nothing is expected of it"


values = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=4), st.floats(0, 4))
def test_the_distance_is_that_of_exact_arithmetic(pairs, tolerance):
    """Over the whole range of float64, against decimals of 60 digits and as many exponents as needed."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 60, -9999, 9999
        error = sum((Decimal(b) - Decimal(a)) ** 2 for a, b in pairs).sqrt()
        size = sum(Decimal(a) ** 2 for a, _ in pairs).sqrt()
        bound = Decimal(tolerance) * size
        near = abs(error - bound) <= Decimal("1e-9") * bound
    told = differing(*(list(one) for one in zip(*pairs, strict=True)), tolerance=tolerance)
    if not near:
        assert bool(told) == (error > bound)


@pytest.mark.parametrize("count", [1, 3])
def test_models_are_called_by_turns(count, monkeypatch):
    """However slow the machine is, one does not get all the quiet moments."""
    calls = []
    monkeypatch.setattr(trial, "TIMING_SECONDS", 0.0)
    sessions = [SimpleNamespace(run=lambda feed, n=n: calls.append((n, feed))) for n in range(count)]
    times = trial._times(sessions, [f"feed {n}" for n in range(count)])
    assert [len(one) for one in times] == [2] * count  # two rounds, however late it is
    assert calls == [(n, f"feed {n}") for n in range(count)] * 3
    assert all(taken >= 0 for one in times for taken in one)
