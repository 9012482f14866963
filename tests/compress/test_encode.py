from __future__ import annotations

import numpy as np
import pytest

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError, UsageError
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.compress.encode import encode
from haversack.compress.plans import uniform
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics.means import rounds_alike
from haversack.tools.numerics.ties import is_tie_free


@pytest.fixture(scope="module")
def int8(folded, folded_ranges, all_constraints):
    constraints = all_constraints(folded.graph)
    plan = Plan("onnxruntime", uniform(folded.graph, "int8"))
    return encode(folded, plan, folded_ranges, constraints)[0], constraints


def test_every_unit_of_a_uniform_plan_runs_in_integers(folded, int8):
    encodings, constraints = int8
    parts = [unit for unit in units(folded.graph) if role(unit.head) is not Role.INPUT]
    assert all(runs_in_integers(unit, encodings, constraints.integer_ops) for unit in parts)


def test_the_constraints_hold(int8):
    encodings, constraints = int8
    for tie in constraints.ties:
        assert len({encodings.tensors[key].scale.tobytes() for key in tie}) == 1
    for key, (low, high) in constraints.bounds.items():
        encoding = encodings.affine(key)
        assert low <= -float(encoding.zero_point) * float(encoding.scale)
        assert (255 - float(encoding.zero_point)) * float(encoding.scale) <= high
    assert constraints.ratios
    for ratio in constraints.ratios:
        mine, theirs = encodings.affine(ratio.input), encodings.affine(ratio.output)
        if ratio.count:
            assert rounds_alike(float(mine.scale), float(theirs.scale), int(mine.zero_point), ratio.count)
        else:
            assert is_tie_free(mine.scale, theirs.scale, ratio.denominator, ratio.multiple)
    assert any(ratio.count for ratio in constraints.ratios)


def test_weights_are_integers_within_127(folded, int8):
    encodings, _ = int8
    assert set(encodings.integers) == {f"{key}:weight" for key in uniform(folded.graph, "int8")}
    for codes in encodings.integers.values():
        assert codes.dtype == np.int32
        assert np.abs(codes).max() == 127


def test_a_float_layer_stays_out(folded, folded_ranges, all_constraints):
    layers = uniform(folded.graph, "int8")
    del layers["wide:conv2d#0"]
    encodings, _ = encode(folded, Plan("t", layers), folded_ranges, all_constraints(folded.graph))
    assert "wide:conv2d#0:weight" not in encodings.tensors
    assert encodings.affine("relu:relu#0:out") is not None  # read by an integer layer: rounded
    by_key = {unit.head.key: unit for unit in units(folded.graph)}
    assert not runs_in_integers(by_key["wide:conv2d#0"], encodings, frozenset({"conv2d"}))


@pytest.mark.parametrize("precision, activations", [("int8_weights", 0), ("float16", 0), ("float32", 0)])
def test_without_static_layers_no_ranges_are_read(folded, precision, activations, all_constraints):
    plan = Plan("t", uniform(folded.graph, precision))
    encodings, findings = encode(folded, plan, {}, all_constraints(folded.graph))
    assert sum(key.endswith(":out") for key in encodings.tensors) == activations
    assert len(encodings.tensors) == len(plan.layers)
    assert findings == ()


def test_the_ranges_part_of_the_plan_decides(folded, folded_ranges, all_constraints, int8):
    plan = Plan("t", uniform(folded.graph, "int8"), ranges=Step("percentile", {"percentile": 90.0}))
    clipped, _ = encode(folded, plan, folded_ranges, all_constraints(folded.graph))
    key = "block:add#0:out"
    assert clipped.affine(key).scale < int8[0].affine(key).scale


def test_the_same_plan_gives_the_same_bits(folded, folded_ranges, all_constraints, int8):
    plan = Plan("onnxruntime", dict(reversed(uniform(folded.graph, "int8").items())))
    again, _ = encode(folded, plan, folded_ranges, all_constraints(folded.graph))
    assert again.digest == int8[0].digest


def test_what_cannot_be_is_told(folded, folded_ranges):
    with pytest.raises(UsageError, match="does not fit"):
        encode(folded, Plan("t", {"gone:linear#0": LayerPlan()}), folded_ranges, Constraints())
    with pytest.raises(ConversionError, match="cannot run in integers"):
        encode(folded, Plan("t", {"head:linear#0": LayerPlan()}), folded_ranges, Constraints())
    with pytest.raises(UsageError, match="no quantizer named"):
        encode(folded, Plan("t", {}, ranges=Step("minmx")), folded_ranges, Constraints())


def test_an_encoding_of_nothing(folded):
    encodings, findings = encode(folded, Plan("t"), {}, Constraints())
    assert encodings.tensors == Encodings.none().tensors
    assert findings == ()


def test_the_error_is_what_eight_bits_cost(folded, int8, images):
    from haversack.tools.graph.simulate import Simulator

    simulator = Simulator(folded)
    exact = np.concatenate([y[0] for y in simulator.run(Encodings.none(), images)])
    coded = np.concatenate([y[0] for y in simulator.run(int8[0], images)])
    error = np.linalg.norm(coded - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.03


def test_the_reference_agrees_with_the_simulation(folded, int8, images):
    """The encodings mean the same to the integer interpreter, up to rare neighbouring codes."""
    from haversack.targets.reference import Reference
    from haversack.tools.graph.simulate import Simulator

    encodings, _ = int8
    out = encodings.affine("head:linear#0:out")
    assert isinstance(out, Affine)
    exact = Reference().run(folded, encodings, images[0])[0]
    coded = Simulator(folded).run(encodings, images[:1])[0][0]
    steps = np.abs(exact - coded) / float(out.scale)
    assert steps.max() < 1.5
    assert (steps > 0.5).mean() < 0.2
