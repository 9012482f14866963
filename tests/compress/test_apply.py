from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from haversack.base.constraints import Constraints
from haversack.base.encodings import Encodings
from haversack.base.errors import JobError, UsageError
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.compress import apply, uniform
from haversack.compress.prepare.contract import relative_error
from haversack.profile import ranges
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics.affine import bias_codes

ALL = (Step("bias_correct"), Step("fold_norm"), Step("equalize"))


@pytest.fixture(scope="module")
def run(small_model, folded, images, all_constraints):
    """Return plan settings -> what applying it gives, with a count of how often ranges were taken."""
    calls = []

    def take(model):
        calls.append(model)
        return ranges(model, images)

    def made(precision="int8", prepare=ALL, model=small_model, sink=lambda event: None, **layers):
        plan = Plan("onnxruntime", uniform(folded.graph, precision, **layers), prepare)
        constraints = all_constraints(folded.graph)
        return apply(model, plan, ranges=take, constraints=constraints, samples=lambda: images, sink=sink)

    made.calls = calls
    return made


def error(compressed, model, images):
    exact = np.concatenate([y[0] for y in Simulator(model).run(Encodings.none(), images)])
    coded = np.concatenate([y[0] for y in Simulator(compressed.model).run(compressed.encodings, images)])
    return np.linalg.norm(coded - exact) / np.linalg.norm(exact)


def test_steps_that_need_encodings_come_last_wherever_they_stand(run, small_model, images):
    made = run()
    assert [note.partition(":")[0] for note in made.model.notes] == ["fold_norm", "equalize", "bias_correct"]
    assert error(made, small_model, images) < 0.03


def test_the_encodings_are_of_the_prepared_model(run):
    made = run()
    assert all(node.op != "batch_norm" for node in made.model.graph.nodes)
    for key in made.encodings.tensors:
        assert key.rpartition(":")[0] in made.model.graph.by_key


def test_tensors_are_told_in_the_scale_of_their_channels_and_outputs_as_they_were(run, small_model, images):
    made = run()
    assert [note.partition(":")[0] for note in made.exact.notes] == ["fold_norm", "equalize"]
    assert relative_error(Executor(made.exact).run(images[0]), Executor(small_model).run(images[0])) < 1e-5
    seen, scaled = {}, {}
    Executor(made.exact).run(images[0], observe=lambda node, value: seen.update({node.key: value.numpy()}))
    Executor(made.model).run(images[0], observe=lambda node, value: scaled.update({node.key: value.numpy()}))
    assert all(relative_error([scaled[key]], [value]) < 0.02 for key, value in seen.items())  # biases alone differ
    plain = {}
    Executor(run(prepare=ALL[1:2]).exact).run(
        images[0], observe=lambda node, value: plain.update({node.key: value.numpy()})
    )
    assert relative_error([plain["wide:conv2d#0"]], [seen["wide:conv2d#0"]]) > 0.5


def test_ranges_are_taken_once_of_the_prepared_model_and_only_if_needed(run):
    run.calls.clear()
    run("int8_weights")
    run("float32")
    assert run.calls == []
    run("int8")
    assert [model.notes[0] for model in run.calls] == ["fold_norm: 2 norms folded: stem_norm, block.norm"]


@pytest.mark.parametrize("precision, worst", [("int8", 0.03), ("int8_dynamic", 0.03), ("int8_weights", 0.02),
                                               ("float16", 1e-3), ("float32", 1e-6)])  # fmt: skip
def test_every_precision(run, small_model, images, precision, worst):
    assert error(run(precision), small_model, images) < worst


def test_a_bias_that_outgrew_its_room_is_given_more(small_model, folded, images, all_constraints, run):
    """Bias correction may lift the bias of a dead channel: its weight is stored anew."""
    dead = folded.weights["wide.weight"].copy()
    dead[0] = 1e-12
    bias = folded.weights["wide.bias"].copy()
    bias[0] = 2.0
    model = folded.with_weights({"wide.weight": dead, "wide.bias": bias})
    made = run(model=model)
    source = made.encodings.affine("block:add#0:out")
    weight = made.encodings.affine("wide:conv2d#0:weight")
    codes = bias_codes(made.model.weights["wide.bias"], source.scale, weight.scale)
    assert np.abs(codes).max() <= 1 << 22
    assert [finding.layer for finding in made.findings if finding.kind == "dead-channel"] == ["wide"]


def test_the_same_plan_gives_the_same_bits(run):
    first, second = run(), run()
    assert first.model.digest == second.model.digest
    assert first.encodings.digest == second.encodings.digest


def test_the_model_given_stays(run, small_model):
    digest = small_model.digest
    run()
    assert small_model.digest == digest
    assert small_model.notes == ()


def test_each_step_is_told(run):
    events = []
    run(sink=events.append)
    told = [event.text for event in events if event.kind == "start"]
    assert told == ["fold_norm", "equalize", "bias_correct"]
    assert events[-1].kind == "done"


@pytest.mark.parametrize(("layers", "said"), [(0, "0 layers encoded"), (1, "1 layer encoded"), (2, "2 layers encoded")])
def test_the_layers_are_counted_in_words(folded, layers, said):
    chosen = dict(list(uniform(folded.graph, "float16").items())[:layers])
    events = []
    apply(
        folded,
        Plan("t", chosen),
        ranges=lambda model: {},
        constraints=Constraints(),
        samples=lambda: iter(()),
        sink=events.append,
    )
    assert events[-1].text == said


def test_what_is_returned_is_frozen(run):
    with pytest.raises(FrozenInstanceError):
        run("float32").model = None


def test_a_plan_made_for_another_model_is_refused(small_model, images):
    plan = Plan("t", {"stem:conv3d#0": LayerPlan()}, (Step("fold_norm"),))
    with pytest.raises(UsageError, match="does not fit"):
        apply(small_model, plan, ranges=lambda model: {}, constraints=Constraints(), samples=lambda: images)


def test_an_unknown_step_is_told_before_anything_runs(small_model):
    def never():
        raise AssertionError("nothing may run")

    with pytest.raises(UsageError, match="did you mean fold_norm"):
        apply(
            small_model,
            Plan("t", {}, (Step("fold_norms"),)),
            ranges=lambda m: never(),
            constraints=Constraints(),
            samples=never,
        )


def test_bad_calibration_is_the_jobs_fault(small_model, folded, all_constraints):
    bad = [(np.full((2, 3, 9, 9), np.nan, np.float32),)]
    plan = Plan("t", uniform(folded.graph, "int8"))
    with pytest.raises(JobError, match="NaN"):
        apply(
            folded,
            plan,
            ranges=lambda model: ranges(model, bad),
            constraints=all_constraints(folded.graph),
            samples=lambda: bad,
        )
