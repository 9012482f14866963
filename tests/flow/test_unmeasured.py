"""What a run did not measure is named where it might meet another budget, and the command measures it."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace

import pytest

from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.scope import Scope
from haversack.flow import choice
from haversack.flow.resolve import resolve

LINEAR = "linear"


@pytest.fixture
def plain(packed, tmp_path):
    """A function that leaves one int8 file in a copy of the run, of linear layers, and only what is said of it."""
    shutil.copytree(packed.out, tmp_path / "run")
    found = choice.read(packed.out)
    nodes = tuple(replace(node, op=LINEAR) if node.op.startswith("conv") else node for node in found.graph.nodes)
    eight = next(
        one
        for one in found.candidates
        if one.artifact
        and len(one.plan.layers) == 3
        and {"int8"} == {two.precision for two in one.plan.layers.values()}
    )
    file = eight.artifact.files[0]
    file = replace(file, download_bytes=file.bytes)
    base = replace(
        found,
        graph=Graph(nodes, found.graph.inputs, found.graph.outputs),
        profile=replace(found.profile, rates={}),
        candidates=(replace(eight, artifact=replace(eight.artifact, files=(file,))),),
    )

    def leave(**changes):
        choice.write(replace(base, **changes), tmp_path / "run")
        return tmp_path / "run"

    leave.base = base
    leave.bytes = file.bytes
    return leave


def test_coarser_steps_are_named_for_a_smaller_download_and_the_command_asks_for_it(plain):
    known = {key: {**kinds, "palette/kmeans/6": 0.1} for key, kinds in plain.base.profile.sensitivity.items()}
    run = plain(profile=replace(plain.base.profile, sensitivity=known))
    limit = f"download={int(plain.bytes * 0.6)}B"
    answer = resolve(run, limit)
    text = "\n".join(answer.lines())
    assert "coarser steps of 8-bit weights were not measured" in text
    assert "palettes were" not in text
    assert "pack another model" not in text
    words = shlex.split(answer.data()["next"])
    assert words[words.index("--budget") + 1] == limit
    assert "--plan" not in words
    assert answer.lines()[-1] == f"next: {answer.data()['next']}    measures these as well"
    assert answer.exit_code == 3


def test_palettes_are_named_for_a_smaller_file(plain):
    answer = resolve(plain(), f"size={int(plain.bytes * 0.6)}B")
    assert "palettes were not measured" in "\n".join(answer.lines())
    assert "coarser steps" not in "\n".join(answer.lines())
    data = json.loads(json.dumps(answer.data()))
    assert data["targets"]["onnxruntime"]["unmeasured"] == ["palettes"]


def test_both_are_named_for_a_smaller_download(plain):
    text = "\n".join(resolve(plain(), f"download={int(plain.bytes * 0.6)}B").lines())
    assert "coarser steps of 8-bit weights and palettes were not measured" in text


def test_what_the_run_allowed_is_allowed_again(plain):
    told = (Finding("slower-than-float", "it is"),)
    run = plain(candidates=tuple(replace(one, findings=told) for one in plain.base.candidates))
    assert " --allow slower-than-float " in resolve(run, f"size={int(plain.bytes * 0.6)}B").data()["next"]


@pytest.mark.parametrize("more", ["size=100B", "download=100B", "size={small}B,memory=1B", "latency=0.0001x"])
def test_a_limit_that_neither_can_meet_names_nothing(plain, more):
    answer = resolve(plain(), more.format(small=int(plain.bytes * 0.6)))
    assert answer.exit_code == 3
    assert "not measured" not in "\n".join(answer.lines())


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": Scope(without=("palette", "coarse"))},
        {"scope": Scope(without=("kmeans", "coarse"))},
    ],
)
def test_what_is_forbidden_is_not_named(plain, changes):
    answer = resolve(plain(**changes), f"download={int(plain.bytes * 0.6)}B")
    assert "were not measured" not in "\n".join(answer.lines())
    assert "pack another model" in answer.lines()[-1]


def test_what_was_measured_is_not_named(plain):
    sensitivity = {key: {**kinds, "palette/kmeans/6": 0.1} for key, kinds in plain.base.profile.sensitivity.items()}
    rates = {key: {"int8": 7.9} for key in sensitivity}
    run = plain(profile=replace(plain.base.profile, sensitivity=sensitivity, rates=rates))
    assert resolve(run, f"download={int(plain.bytes * 0.3)}B").unmeasured == {"onnxruntime": ()}


def test_palettes_gain_nothing_where_most_layers_have_kernels_of_few_bits(plain, packed):
    run = plain(graph=choice.read(packed.out).graph)
    assert "palettes were" not in "\n".join(resolve(run, f"size={int(plain.bytes * 0.6)}B").lines())
