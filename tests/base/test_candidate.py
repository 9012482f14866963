"""Candidates: sums over files, the worst layer, and the plan's identity."""

from __future__ import annotations

import math

from haversack.base.candidate import Artifact, ArtifactFile, Candidate, Latency, Memory, Parity
from haversack.base.finding import Finding
from haversack.base.plan import Plan
from haversack.base.quality import Drop, Quality


def artifact(*sizes):
    files = tuple(ArtifactFile(f"f{n}", size, download, "0" * 64) for n, (size, download) in enumerate(sizes))
    return Artifact("onnxruntime", files, (), (), "1.17")


def test_an_artifact_sums_all_its_files():
    both = artifact((1000, 700), (24, 20))
    assert (both.bytes, both.download_bytes) == (1024, 720)
    assert (artifact().bytes, artifact().download_bytes) == (0, 0)


def test_what_was_not_compared_says_so():
    parity = Parity(math.nan, 0.1)
    assert parity.reference_differing == -1
    assert parity.worst_layer == ""


def test_the_worst_layer_is_the_first():
    parity = Parity(0.99, 0.05, layers={"b:conv2d#0:out": 0.3, "a:conv2d#0:out": 0.1})
    assert parity.worst_layer == "b:conv2d#0:out"


def test_a_candidate_has_the_identity_of_its_plan():
    plan = Plan("onnxruntime")
    empty = Candidate(plan, None, None, None, None, None, None)
    assert empty.id == plan.id
    assert (empty.verdict, empty.reason, empty.findings) == ("open", "", ())


def test_a_full_candidate_is_a_value():
    def made():
        return Candidate(
            Plan("onnxruntime"),
            artifact((10, 5)),
            Quality("top1", 0.9, "fraction", "higher", 100, 0.03),
            Drop(0.01, -0.01, 0.03, 100),
            Parity(0.98, 0.05),
            Latency(0.5, 1.0, 1.2, 9.0, 0.5, 0.49, 0.51, 2.0, 60),
            Memory(10**6),
            (Finding("noisy", "the machine was busy"),),
        )

    assert made() == made()
    assert made().latency.device == "local"
    assert made().latency.threads == 1
