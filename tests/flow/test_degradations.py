"""What inputs are made worse with: read from a job file and from the command line, all faults at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from haversack import metrics
from haversack.base.errors import JobError, UsageError
from haversack.base.job import Job
from haversack.flow import robustness
from haversack.flow.data import Data
from haversack.flow.degradations import asked, of
from haversack.flow.request import Request, opened
from haversack.load import open_job

TINY = Path(__file__).with_name("tiny_job.py")


def job(*degraded, inputs=None, **more):
    arrays = inputs or (np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3),)
    data = {"calibration": lambda: [arrays], "evaluation": lambda: [(arrays, np.zeros(2, np.int64))]}
    return Job(name="j", model=lambda: None, metric="top1", degraded=tuple(degraded), **data, **more)


def data_of(made):
    data = Data(made, None, metrics.resolve("top1"))
    data.look()
    return data


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"op": "blur"}, "blur(sigma=1.0)"),
        ({"op": "blur", "sigma": 1.5}, "blur(sigma=1.5)"),
        ({"op": "blur", "axis": 1}, "blur(axis=1)"),
        ({"op": "noise", "level": 0.2, "seed": 3, "input": 1}, "noise(level=0.2,seed=3,input=1)"),
        ({"op": "to_chw"}, "to_chw"),
    ],
)
def test_words_leave_out_what_is_as_usual(entry, words):
    (found,) = of(job(entry))
    assert found.words == words
    assert found.entry["op"] == entry["op"]


def test_what_is_asked_for_twice_is_scored_once():
    found = of(job({"op": "blur"}, {"op": "noise"}, {"op": "blur", "sigma": 1.0}))
    assert [(one.words, one.index) for one in found] == [("blur(sigma=1.0)", 0), ("noise(level=0.1)", 1)]


def test_every_fault_of_a_jobs_list_is_told_at_once():
    with pytest.raises(JobError, match="degraded cannot be read") as caught:
        of(job({"op": "blurr"}, {"op": "noise", "levle": 0.2}, {"op": "brightness", "factor": -1.0}))
    assert [str(fault) for fault in caught.value.faults] == [
        "degraded[0].op: there is no operation named 'blurr'; did you mean blur?",
        "degraded[1].levle: unknown name; did you mean level?",
        "degraded[2]: factor must be finite and at least 0",
    ]


@pytest.mark.parametrize(
    "texts, entries",
    [
        ((), ()),
        (("none",), ()),
        (("blur",), ({"op": "blur"},)),
        (("noise:level=0.2,seed=1", "blur"), ({"op": "noise", "level": 0.2, "seed": 1}, {"op": "blur"})),
        (("brightness:factor=2",), ({"op": "brightness", "factor": 2},)),
        (("missing_frames:input=1",), ({"op": "missing_frames", "input": 1},)),
    ],
)
def test_what_is_typed(texts, entries):
    assert asked(texts) == entries
    assert len(of(job(*entries, inputs=None))) == len(entries)


@pytest.mark.parametrize(
    "texts, said",
    [
        (["blurr"], ["no operation named 'blurr'; did you mean blur?"]),
        (["noise:levle=0.2"], ["noise:levle: there is no such setting; did you mean level?", "--degraded noise:"]),
        (["noise:level=high"], ["noise:level: high is not a number, such as 0.1"]),
        (["blur:sigma=-1"], ["--degraded: the settings of blur cannot be read", "blur: sigma must lie between 0 and"]),
        (["noise:input=-1"], ["--degraded noise:input: it is the index of an input"]),
        (["blur:sigma=1,sigma=2"], ["blur:sigma: it is given twice", "next: --degraded blur:sigma=2"]),
        (["none", "blur"], ["others are named beside it", "--degraded none alone"]),
        (["nois", "blur:sigma=-1", "noise:level=a"], ["did you mean noise?", "sigma must lie", "a is not a number"]),
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_type(texts, said):
    with pytest.raises(UsageError) as caught:
        asked(texts)
    for words in said:
        assert words in str(caught.value)


def test_the_command_line_stands_in_place_of_the_job(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(TINY.read_text() + '\ndegraded = [{"op": "noise"}]\n')
    found = {
        texts: [one["op"] for one in opened(Request(str(path), degraded=texts))[0].degraded]
        for texts in ((), ("none",), ("brightness", "missing_frames"))
    }
    assert found == {(): ["noise"], ("none",): [], ("brightness", "missing_frames"): ["brightness", "missing_frames"]}
    assert Request(str(path), degraded="noise").degraded == ("noise",)
    path.write_text(TINY.read_text() + '\ndegraded = [{"op": "nois"}]\n')
    with pytest.raises(JobError, match="did you mean noise"):
        opened(Request(str(path)))


def test_a_job_file_with_something_else_is_refused(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(TINY.read_text() + '\ndegraded = "blur"\n')
    with pytest.raises(JobError, match="degraded: is no list of mappings"):
        open_job(str(path))
    path.write_text(TINY.read_text() + "\ndegradd = []\n")
    with pytest.raises(JobError, match="looks like a misspelt degraded"):
        open_job(str(path))


def test_raw_inputs_are_made_worse_before_they_are_preprocessed():
    made = job({"op": "brightness", "factor": 100.0}, preprocess=({"op": "scale"}, {"op": "to_chw"}))
    data, (worse,) = data_of(made), of(made)
    ((inputs, expected),) = data.degraded(worse, worse.words)
    assert inputs[0].shape == (2, 3, 4, 4)
    assert inputs[0].max() == 1
    assert len(expected) == 2
    ((clean, _),) = data.evaluation()
    assert clean[0].max() < 0.5


def test_what_cannot_be_made_worse_is_told_before_anything_is_made():
    tokens = np.ones((2, 5), np.int64)
    made = job({"op": "blur"}, {"op": "missing_frames"}, {"op": "noise"}, {"op": "pad", "length": 9}, inputs=(tokens,))
    with pytest.raises(JobError, match="the evaluation set cannot be degraded") as caught:
        robustness.checked(data_of(made), made)
    told = [str(fault) for fault in caught.value.faults]
    assert told[:2] == ["degraded[0].blur: it takes 3 or 4 dimensions, the batch included", told[1]]
    assert "degraded[2].noise: it takes uint8 or int16 or float32 or float64" in told
    assert any(one.startswith("degraded[3].pad: shape [2, 9], expected [batch, 5]") for one in told)
    assert not any("missing_frames" in one for one in told)


def test_an_input_that_there_is_not_is_told():
    made = job({"op": "noise", "input": 1})
    with pytest.raises(JobError, match=r"degraded\[0\].noise: there is no input 1: the sample has 1"):
        robustness.checked(data_of(made), made)


def test_the_raw_digest_is_of_raw_inputs_where_they_are_not_the_models():
    plain, scaled = job(), job(preprocess=({"op": "scale"},))
    assert data_of(plain).raw_digest() == ""
    first = data_of(scaled).raw_digest()
    assert first == data_of(scaled).raw_digest() != ""
    other = (np.zeros((2, 4, 4, 3), np.uint8),)
    assert data_of(replace(scaled, evaluation=lambda: [(other, np.zeros(2, np.int64))])).raw_digest() != first
