"""A whole run on a tiny job, computed once more from its files alone: what the report says is what they are and do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from haversack import load, report
from haversack.base.budget import Budget
from haversack.base.plan import PRECISIONS, WEIGHT_BITS
from haversack.choose.mixing import Mixer
from haversack.choose.resolve import resolve
from haversack.choose.verdict import checks, unmade
from haversack.compress.prepare.contract import relative_error
from haversack.flow import choice
from haversack.flow.making import CHOOSE, REPORT
from haversack.tools.formats import encodings_file


@pytest.fixture(scope="module")
def record(packed):
    return report.read(packed.out)


@pytest.fixture(scope="module")
def best(record):
    return record.best_of("onnxruntime")


@pytest.fixture(scope="module")
def chosen(packed):
    return choice.read(packed.out)


@pytest.fixture(scope="module")
def job(record):
    return load.open_job(record.model.source)


@pytest.fixture(scope="module")
def module(job):
    return job.model().requires_grad_(False)


@pytest.fixture(scope="module")
def outputs(packed, best, job, module):
    """Of the shipped file and of the job's module, on the whole evaluation set, each in its own runtime; and labels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for name, value in best.artifact.session_options.items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(packed.out / best.artifact.path, options, ["CPUExecutionProvider"])
    batches = list(job.evaluation())
    images = np.concatenate([inputs[0] for inputs, _ in batches])
    floats = module(torch.from_numpy(images)).numpy()
    shipped = np.concatenate([session.run(None, {"image": inputs[0]})[0] for inputs, _ in batches])
    return shipped, floats, np.concatenate([labels for _, labels in batches])


def test_the_quality_reported_is_that_of_the_file_on_the_half_that_did_not_choose(best, record, outputs):
    shipped, floats, labels = outputs
    right, exact = (scores.argmax(axis=1) == labels for scores in (shipped, floats))
    assert best.quality.value == pytest.approx(right[REPORT].mean())
    assert best.quality.samples == len(labels[REPORT])
    assert record.baseline.value == pytest.approx(exact[REPORT].mean())
    assert best.quality.drop == pytest.approx(exact[REPORT].mean() - right[REPORT].mean())
    assert best.quality.drop_low <= best.quality.drop <= best.quality.drop_high


def test_the_drop_that_chose_is_that_of_the_other_half(best, chosen, outputs):
    shipped, floats, labels = outputs
    right, exact = ((scores.argmax(axis=1) == labels).astype(float) for scores in (shipped, floats))
    assert chosen.chosen_on[best.id] == pytest.approx(exact[CHOOSE].mean() - right[CHOOSE].mean())


def test_the_error_against_float_is_that_of_the_outputs(best, outputs):
    shipped, floats, _ = outputs
    assert best.parity.relative_error == pytest.approx(relative_error([shipped], [floats]), rel=1e-3)
    agreement = np.mean(shipped.argmax(axis=1) == floats.argmax(axis=1))
    assert best.parity.agreement == pytest.approx(agreement)


def test_bytes_and_digests_are_those_of_the_files(packed, best, record):
    file = packed.out / best.artifact.path
    assert best.artifact.bytes == file.stat().st_size
    assert best.artifact.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    for path, digest in record.proofs.items():
        assert hashlib.sha256((packed.out / path).read_bytes()).hexdigest() == digest


def test_what_is_stored_has_the_width_that_the_plan_says_and_lies_near_the_folded_weights(packed, best, chosen, module):
    (candidate,) = [one for one in chosen.candidates if one.id == best.id]
    encodings = encodings_file.read((packed.out / best.artifact.path).parent / "encodings.safetensors")
    first, norm = module[0], module[1]
    factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).numpy()
    exact = {
        "0:conv2d#0": first.weight.numpy() * factor[:, None, None, None],
        "3:conv2d#0": module[3].weight.numpy(),
        "7:linear#0": module[7].weight.numpy(),
    }
    assert set(candidate.plan.layers) <= set(exact)
    integers = 0
    for key, layer in candidate.plan.layers.items():
        if f"{key}:weight" not in encodings.integers:
            continue
        integers += 1
        encoding, codes = encodings.tensors[f"{key}:weight"], encodings.integers[f"{key}:weight"]
        assert encoding.bits == WEIGHT_BITS[layer.precision]
        assert np.abs(codes).max() <= 2 ** (encoding.bits - 1) - 1
        scale = encoding.scale.reshape(-1, *[1] * (codes.ndim - 1))
        off = np.linalg.norm(codes * scale - exact[key]) / np.linalg.norm(exact[key])
        assert 0 < off < (0.03 if encoding.bits == 8 else 0.3), f"{key}: refitted and rounded, not made anew"
    assert integers


def test_every_measured_candidate_answers_a_budget_of_just_what_it_is(chosen):
    """Whatever was measured is met by itself: the record, the ledger and the verdicts speak of the same numbers."""
    measured = [one for one in chosen.severe() if one.latency is not None and one.verdict != "failed"]
    assert measured
    mixer = Mixer(chosen.graph, chosen.profile, chosen.weight_elements, {measured[0].plan.target: PRECISIONS})
    for one in measured:
        own = Budget(
            size=one.artifact.bytes,
            download=one.artifact.download_bytes,
            memory=one.memory.peak_bytes,
            latency_ratio=one.latency.ratio,
            latency_ms=one.latency.median_ms,
            drop=one.drop.value,
        )
        found = resolve(chosen.severe(), own, mixer)[one.plan.target]
        assert found.met
        assert all(check.met for check in checks(found.candidates[0], own))
        tight = replace(own, size=min(other.artifact.bytes for other in measured) - 1)
        assert not resolve(chosen.severe(), tight, mixer)[one.plan.target].met


def test_record_and_what_resolve_reads_agree_candidate_by_candidate(record, chosen):
    told = {one.id: one for one in record.candidates}
    assert set(told) == {one.id for one in chosen.candidates}
    for one in chosen.candidates:
        theirs = told[one.id]
        assert theirs.verdict == ("not made" if unmade(one) else one.verdict)
        assert theirs.reason == one.reason
        assert (theirs.artifact is None) == (one.artifact is None)
        if one.artifact is not None:
            assert theirs.artifact.bytes == one.artifact.bytes
        if one.latency is not None:
            assert theirs.latency.ratio == one.latency.ratio
            assert one.latency.ratio_low <= one.latency.ratio <= one.latency.ratio_high


SLOW = {
    "calibration and evaluation data": "export",
    "what onnxruntime takes of the model": "writing the float file for onnxruntime",
    "writing the float file for onnxruntime": "opening the float file in onnxruntime and running it once",
    "opening the float file in onnxruntime and running it once": "float file for onnxruntime",
    "time of each layer in the float file for onnxruntime": "time and sensitivity of layers",
    "layers rounded by their outputs": "quality on the artefact",
    "memory of onnxruntime alone": "pairs of calls, by turns with the float file",
    "golden vectors and time of each layer of what ships for onnxruntime": "memory of the float file for onnxruntime",
}


def test_what_takes_seconds_is_told_before_it_is_done(packed):
    lines = (packed.out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    texts = [one["text"] for one in told]
    for begins, after in SLOW.items():
        assert begins in texts
        assert texts.index(begins) < texts.index(after)
    assert texts[-1] == "writing the report"
    first = next(line for line in packed.stderr.splitlines() if " s  " in line)
    assert "load     reading " in first


def test_the_events_tell_of_every_candidate_that_was_made(packed, chosen):
    lines = (packed.out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    texts = " ".join(json.loads(line).get("text", "") for line in lines)
    for one in chosen.candidates:
        if one.artifact is not None:
            assert one.plan.origin in texts
