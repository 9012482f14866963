"""Several runtimes that share encodings get one mixture: the tightest of them binds, and all hold the same integers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import PRECISIONS, Plan
from haversack.base.profile import Profile
from haversack.choose.best import Ask, best
from haversack.choose.mixing import MIXED, Mixer, alike
from haversack.choose.resolve import resolve
from haversack.choose.same_integers import same_integers
from haversack.choose.verdict import judged

FIRST, SECOND = "onnxruntime", "elsewhere"


@dataclass
class Pair:
    """Two runtimes on the little world's laws; the second's files and times are larger by factors of its own."""

    world: object
    heavier: int = 0
    slower: float = 1.0
    surprise: float = 0.0

    def mixer(self) -> Mixer:
        known = self.world.profile
        times = known.seconds[FIRST]
        both = Profile({FIRST: times, SECOND: times}, known.sensitivity)
        elements = dict(zip(self.world.layers, self.world.elements, strict=True))
        return Mixer(self.world.graph, both, elements, {FIRST: PRECISIONS, SECOND: PRECISIONS})

    def plan(self, target: str, *precisions: str) -> Plan:
        return replace(self.world.plan(*precisions), target=target)

    def evaluate(self, plan: Plan) -> Candidate:
        found = self.world.evaluate(plan)
        if plan.target == FIRST:
            return found
        mixed = plan.origin == MIXED
        (file,) = found.artifact.files
        size = round((file.bytes + self.heavier) * (1 + self.surprise * mixed))
        ratio = found.latency.ratio * (self.slower if plan.layers else 1.0)
        latency = replace(found.latency, ratio=ratio, median_ms=ratio * found.latency.float_median_ms)
        return replace(found, artifact=replace(found.artifact, files=(replace(file, bytes=size),)), latency=latency)

    def search(self, budget: Budget, **settings) -> dict[str, list[Candidate]]:
        asked = {target: Ask([self.plan(target, "int8")], budget) for target in (FIRST, SECOND)}
        return best(asked, self.evaluate, mixer=self.mixer(), **settings)


def mixtures(found):
    return {target: [one for one in each if one.plan.origin == MIXED] for target, each in found.items()}


def test_both_get_the_same_layers(world):
    found = Pair(world).search(Budget(size=300_000))
    first, second = (found[target][0] for target in (FIRST, SECOND))
    assert first.plan.origin == second.plan.origin == MIXED
    assert first.plan.layers == second.plan.layers
    assert (first.plan.target, second.plan.target) == (FIRST, SECOND)


@pytest.mark.parametrize("heavier", [0, 20_000, 60_000])
def test_the_heavier_file_binds(world, heavier):
    found = Pair(world, heavier=heavier).search(Budget(size=300_000))
    first, second = (found[target][0] for target in (FIRST, SECOND))
    assert second.artifact.bytes <= 300_000
    assert first.artifact.bytes == second.artifact.bytes - heavier
    assert first.plan.layers == second.plan.layers


def test_the_slower_runtime_binds(world):
    pair, budget = Pair(world, slower=1.5), Budget(size=900_000, latency_ratio=0.8)
    found = pair.search(budget)
    first, second = (found[target][0] for target in (FIRST, SECOND))
    assert second.latency.ratio <= 0.8
    assert first.plan.layers == second.plan.layers
    alone = best({FIRST: Ask([pair.plan(FIRST, "int8")], budget)}, pair.evaluate, mixer=pair.mixer())
    assert alone[FIRST][0].parity.relative_error < first.parity.relative_error


def test_what_one_of_them_misses_both_make_up_for(world):
    found = mixtures(Pair(world, surprise=0.06).search(Budget(size=280_000), rounds=5))
    assert len(found[FIRST]) == len(found[SECOND]) > 1
    assert found[FIRST][0].plan.layers == found[SECOND][0].plan.layers
    assert found[SECOND][0].artifact.bytes <= 280_000
    assert found[FIRST][0].verdict == found[SECOND][0].verdict == "chosen"
    better = found[FIRST][1]
    assert better.parity.relative_error < found[FIRST][0].parity.relative_error
    assert better.verdict == "met"
    assert "holds the same integers in all" in better.reason


def test_where_no_mixture_meets_the_limits_of_all_each_gets_its_own(world):
    told = []
    found = Pair(world, heavier=500_000).search(Budget(size=300_000), sink=told.append)
    assert found[FIRST][0].plan.origin == MIXED
    assert found[FIRST][0].verdict == "chosen"
    assert found[SECOND][0].verdict == "missed"
    notes = [event.text for event in told if event.kind == "note"]
    assert notes == [f"no one mixture is forecast to meet the limits in {FIRST}, {SECOND}: each gets its own"]


def test_targets_whose_encodings_differ_are_not_mixed_together(world):
    pair = Pair(world)
    measured = {target: pair.evaluate(pair.plan(target, "int8")) for target in (FIRST, SECOND)}
    assert [list(group) for group in alike(measured)] == [[FIRST, SECOND]]
    other = replace(measured[SECOND], plan=replace(measured[SECOND].plan, constrained_by=("elsewhere",)))
    assert [list(group) for group in alike({**measured, SECOND: other})] == [[FIRST], [SECOND]]


def test_a_target_that_does_not_mix_is_left_alone(world):
    pair = Pair(world)
    asked = {
        FIRST: Ask([pair.plan(FIRST, "int8")], Budget(size=300_000)),
        SECOND: Ask([pair.plan(SECOND, "int8")], Budget(size=300_000), mixes=False),
    }
    found = mixtures(best(asked, pair.evaluate, mixer=pair.mixer()))
    assert (len(found[FIRST]), len(found[SECOND])) == (1, 0)


def test_what_one_target_refutes_is_not_asked_of_the_other_again(world):
    pair, asked = Pair(world), []

    def confirm(one):
        asked.append((one.plan.target, one.plan.origin))
        refused = one.plan.target == SECOND and one.plan.origin == MIXED
        return replace(one, verdict="failed", reason="crashed") if refused else one

    found = pair.search(Budget(size=300_000), confirm=confirm)
    assert found[FIRST][0].plan.origin == found[SECOND][0].plan.origin == "int8"
    assert sorted(asked) == [(SECOND, "int8"), (SECOND, MIXED), (FIRST, "int8"), (FIRST, MIXED)]


@pytest.mark.parametrize("heavier", [0, 40_000])
def test_another_budget_is_forecast_for_both_at_once(world, heavier):
    pair = Pair(world, heavier=heavier)
    run = [pair.evaluate(pair.plan(target, kind)) for target in (FIRST, SECOND) for kind in ("int8", "float32")]
    budget = Budget(size=300_000, drop=0.005, latency_ratio=0.9)
    found = resolve(run, budget, pair.mixer())
    assert found[FIRST].plan.layers == found[SECOND].plan.layers
    assert found[SECOND].forecast.bytes <= 300_000
    assert found[FIRST].forecast.bytes == pytest.approx(found[SECOND].forecast.bytes - heavier)


def test_where_one_has_no_answer_the_other_has_its_own(world):
    pair = Pair(world, heavier=500_000)
    run = [pair.evaluate(pair.plan(target, kind)) for target in (FIRST, SECOND) for kind in ("int8", "float32")]
    found = resolve(run, Budget(size=300_000, drop=0.005, latency_ratio=0.9), pair.mixer())
    assert found[FIRST].plan is not None
    assert found[SECOND].plan is None


def test_a_target_that_has_a_measured_answer_keeps_it(world):
    pair = Pair(world, heavier=100_000)
    run = [pair.evaluate(pair.plan(target, "int8")) for target in (FIRST, SECOND)]
    found = resolve(run, Budget(size=250_000), pair.mixer())
    assert found[FIRST].met
    assert found[FIRST].plan is None
    assert not found[SECOND].met


def test_an_alternate_of_another_kind_displaces_nothing(world):
    pair, budget = Pair(world), Budget(size=900_000)
    integer, half = (pair.plan(FIRST, kind) for kind in ("int8", "float16"))
    first = judged([pair.evaluate(integer), pair.evaluate(half)], budget)
    second = judged([pair.evaluate(replace(half, target=SECOND))], budget)
    found = same_integers({FIRST: first, SECOND: second})
    assert found == {FIRST: first, SECOND: second}


def test_a_mixture_that_was_measured_and_missed_is_not_forecast_again(world):
    pair, budget = Pair(world), Budget(size=300_000, drop=0.005, latency_ratio=0.9)
    run = [pair.evaluate(pair.plan(target, "int8")) for target in (FIRST, SECOND)]
    asked = resolve(run, budget, pair.mixer())
    lost = [replace(pair.evaluate(one.plan), verdict="failed", reason="crashed") for one in asked.values()]
    again = resolve([*run, *lost], budget, pair.mixer())
    assert {one.plan for one in again.values()} == {None}
