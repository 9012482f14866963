"""Another budget for a run of runtimes that share their integers: without the others, one might meet it."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace

import pytest

from haversack.base.budget import parse
from haversack.flow import choice
from haversack.flow.resolve import resolve
from haversack.flow.unmeasured import sharing

BOTH = ("onnxruntime", "litert")


@pytest.fixture
def together(packed, tmp_path):
    """A run whose plans obey two runtimes, and which measured one candidate."""
    run = tmp_path / "run"
    shutil.copytree(packed.out, run)
    found = choice.read(run)
    one = next(one for one in found.candidates if one.artifact)
    choice.write(replace(found, candidates=(replace(one, plan=replace(one.plan, constrained_by=BOTH)),)), run)
    return run


def test_a_target_that_shares_its_integers_is_offered_alone(together):
    (one,), least = choice.read(together).candidates, sum(choice.read(together).weight_elements.values())
    budget = f"size={least // 3}B"
    assert one.artifact.bytes > least // 3
    answer = resolve(together, budget)
    assert answer.exit_code == 3
    lines = answer.lines()
    told = "one set of integers serves onnxruntime and litert, and --target onnxruntime alone might"
    assert f"  no plan for all of them is forecast to meet it either; {told}" in lines
    assert not any("loosen the limit" in line for line in lines)
    command = lines[-1].removeprefix("next: ").removesuffix("    alone: a run of its own")
    words = shlex.split(command)
    assert words[:2] == ["haversack", "pack"]
    assert [words[words.index(flag) + 1] for flag in ("--budget", "--target")] == [budget, "onnxruntime"]
    assert answer.data()["targets"]["onnxruntime"]["sharing"] == ["litert"]
    assert answer.data()["next"] == command


@pytest.mark.parametrize("budget", ["size=10B", "latency=0.0001x", "size=3KB,latency=0.0001x"])
def test_what_no_width_of_its_weights_could_meet_is_not_offered(together, budget):
    text = "\n".join(resolve(together, budget).lines())
    assert "alone" not in text
    assert "next: loosen the limit" in text


def test_a_target_by_itself_shares_with_nobody(packed):
    found = [one for one in choice.read(packed.out).candidates if one.artifact]
    alone = [replace(one, plan=replace(one.plan, constrained_by=("onnxruntime",))) for one in found]
    both = [replace(one, plan=replace(one.plan, constrained_by=BOTH)) for one in found]
    assert sharing(alone, 8_000, parse("size=3KB")) == ()
    assert sharing(both, 8_000, parse("size=3KB")) == ("litert",)
    assert sharing(both, 8_000, parse("size=900B")) == (), "its weights take 1000 bytes in one bit each"
    assert sharing((), 8_000, parse("size=3KB")) == ()
