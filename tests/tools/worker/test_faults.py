from __future__ import annotations

import pytest

from haversack.base.errors import EXIT_ENVIRONMENT
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerFault, WorkerTimeout

LONG = "\n".join(f"line {number}" for number in range(100)) + "\n\n   \n"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (WorkerCrashed("the process died of SIGSEGV", method="run", log=LONG, returncode=-11), "died of SIGSEGV"),
        (WorkerTimeout(method="run", seconds=2.5, log=LONG), "no answer within 2.5 s"),
        (WorkerError(method="run", type_="ValueError", text="bad shape", traceback="…"), "ValueError: bad shape"),
    ],
)
def test_every_fault_says_where_and_why_and_ends_with_the_environment_s_code(fault, words):
    assert isinstance(fault, WorkerFault)
    assert words in str(fault)
    assert str(fault).partition("\n")[0].endswith(" (when asked to run)")
    assert fault.where == "", "a method is no place"
    assert fault.method == "run"
    assert fault.exit_code == EXIT_ENVIRONMENT


def test_the_last_lines_of_the_log_are_told_and_all_of_it_is_kept():
    fault = WorkerCrashed("it died", method="run", log=LONG)
    assert fault.log == LONG
    assert "line 99" in str(fault)
    assert "line 88" in str(fault)
    assert "line 87\n" not in str(fault)
    assert len(fault.faults) == 12


def test_a_silent_worker_has_no_log_lines():
    assert WorkerCrashed("it died", method="run", log="\n \n").faults == ()


def test_a_remote_error_keeps_its_parts_apart():
    fault = WorkerError(method="load", type_="onnxruntime.Fail", text="no such op", traceback="Traceback …")
    assert (fault.type, fault.text, fault.traceback) == ("onnxruntime.Fail", "no such op", "Traceback …")


def test_our_own_errors_are_told_without_the_names_of_their_classes():
    text = "model.onnx: no kernel\n  tried: opening it"
    fault = WorkerError(method="load", type_="haversack.base.errors.ConversionError", text=text, traceback="")
    assert fault.cause == "model.onnx: no kernel (when asked to load)\n  tried: opening it"
    assert fault.type == "haversack.base.errors.ConversionError"
