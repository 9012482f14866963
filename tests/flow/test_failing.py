"""What failed a plan, as a finding whose layer is a place of the model or nothing."""

from __future__ import annotations

import pytest

from haversack.base.errors import ConversionError, Fault, VerificationError
from haversack.base.finding import KINDS
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.flow.failing import failure
from haversack.measure.quality import NotFinite
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerTimeout

SPEC = TensorSpec((1, 4), "float32")
GRAPH = Graph(
    nodes=(
        Node("x:input#0", "input", "x", (), SPEC),
        Node("a.b:linear#0", "linear", "linear", ("x:input#0",), SPEC),
        Node("a.c:relu#0", "relu", "relu", ("a.b:linear#0",), SPEC),
    ),
    inputs=("x:input#0",),
    outputs=("a.c:relu#0",),
)


@pytest.mark.parametrize(
    "error, kind, code",
    [
        (ConversionError("no such kernel", where="a.b"), "unreadable", 4),
        (WorkerError(method="load", type_="a.b.ConversionError", text="no", traceback=""), "unreadable", 4),
        (WorkerError(method="run", type_="ValueError", text="no", traceback=""), "worker-crashed", 5),
        (WorkerCrashed("it died", method="run", returncode=-11), "worker-crashed", 5),
        (WorkerTimeout(method="run", seconds=3.0), "worker-crashed", 5),
        (NotFinite("3 of its 4 values are NaN", where="logits"), "not-finite", 5),
        (VerificationError("a scale differs", where="a.b:linear#0:out"), "scale-changed", 5),
    ],
)  # fmt: skip
def test_what_failed_is_a_finding_of_its_kind(error, kind, code):
    found = failure(error, GRAPH)
    assert (found.kind, found.exit_code, found.severity) == (kind, code, "error")
    assert found.layer in ("", "a.b", "a.b:linear#0:out")
    assert error.cause in found.text
    assert found.kind in KINDS


@pytest.mark.parametrize(
    "error",
    [
        WorkerCrashed("the process died of SIGABRT", method="load", log="a line"),
        WorkerTimeout(method="load", seconds=3.0),
        WorkerError(method="load", type_="RuntimeError", text="no", traceback=""),
    ],
)
def test_a_worker_s_method_is_in_the_cause_and_no_layer(error):
    found = failure(error, GRAPH)
    assert found.layer == ""
    assert found.text == error.cause
    assert found.text.endswith("(when asked to load)")


@pytest.mark.parametrize("where", ["a", "a.b", "a.b:linear#0", "a.b:linear#0:weight", "a.c:relu#0:out"])
def test_a_place_of_the_model_is_the_layer(where):
    found = failure(ConversionError("no such kernel", where=where), GRAPH)
    assert (found.text, found.layer) == ("no such kernel", where)


@pytest.mark.parametrize("where", ["/tmp/x/model.onnx", "onnxruntime-950f318c9f15", "logits", "b"])
def test_another_place_is_told_before_the_cause(where):
    found = failure(VerificationError("it cannot be read", where=where), GRAPH)
    assert (found.text, found.layer) == (f"{where}: it cannot be read", "")


def test_one_layer_among_the_faults_is_the_layer_and_several_are_none():
    faults = (Fault("a.b", "no kernel for linear"), Fault("a.c", "no kernel for relu"))
    one, both = (
        failure(ConversionError("layers cannot run in integers", where="plan", faults=some), GRAPH)
        for some in (faults[:1], faults)
    )
    assert (one.text, one.layer) == ("plan: layers cannot run in integers: no kernel for linear", "a.b")
    assert (both.text, both.layer) == ("plan: layers cannot run in integers", "")
