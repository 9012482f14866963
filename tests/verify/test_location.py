"""Planted faults are located: a doubled scale, a flipped weight, a runtime that computes something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack.base.encodings import Encodings, Float
from haversack.targets.reference import Reference
from haversack.tools.graph import roles
from haversack.tools.graph.canonical import to_model
from haversack.tools.numerics import affine
from haversack.verify import locate


def spoiled(coded, *, tensors=(), integers=(), without=()):
    kept = {key: value for key, value in coded.tensors.items() if key not in without}
    codes = {key: value for key, value in coded.integers.items() if key not in without}
    return Encodings({**kept, **dict(tensors)}, {**codes, **dict(integers)})


def doubled(coded, key, channel=None):
    encoding = coded.tensors[key]
    scale = encoding.scale.copy()
    scale[... if channel is None else channel] *= 2
    return {key: replace(encoding, scale=scale)}


def flipped(coded, key, where):
    codes = coded.integers[key].copy()
    codes[where] = -codes[where] or 1
    return {key: codes}


def runtime(network, encodings, *, spoil=None):
    """Shows the tensors of a runtime: the reference's, as codes, with one of them spoiled."""
    meaning = Reference(at_once=0).opened(network, encodings)

    def tensors(inputs, keys):
        seen = {}

        def look(key, value):
            if key in keys:
                encoding = encodings.affine(key)
                seen[key] = value.copy() if encoding is None else affine.quantize(value, encoding).astype(np.uint8)

        meaning.run(inputs, observe=look)
        if spoil is not None:
            spoil(seen)
        return seen

    return tensors


def test_nothing_to_find(network, coded, batch):
    assert locate(network, coded, coded, batch) is None
    assert locate(network, coded, coded, batch, tensors=runtime(network, coded)) is None


@pytest.mark.parametrize(
    "key, channel",
    [
        ("input:input#0:out", None), ("1:relu#0:out", None), ("2:conv2d#0:weight", 2), ("4:softmax#0:out", None),
        ("8:linear#0:out", None),
    ],
)  # fmt: skip
def test_one_scale_doubled(network, coded, batch, key, channel):
    found = locate(network, coded, spoiled(coded, tensors=doubled(coded, key, channel)), batch)
    assert (found.kind, found.layer) == ("scale-changed", key)
    assert "instead of" in found.text
    assert "off by" in found.text
    assert found.severity == "error"


@pytest.mark.parametrize("key, where", [("0:conv2d#0:weight", (3, 1, 0, 2)), ("8:linear#0:weight", (4, 0))])
def test_one_weight_flipped(network, coded, batch, key, where):
    found = locate(network, coded, spoiled(coded, integers=flipped(coded, key, where)), batch)
    assert (found.kind, found.layer) == ("weight-changed", key)
    assert f"1 of {coded.integers[key].size} integers differ, the first at {list(where)}" in found.text
    assert "off by" in found.text


def test_the_first_in_execution_order_is_named(network, coded, batch):
    """Execution order is not the order of names: the input comes first, and a weight before its output."""
    wrong = spoiled(
        coded,
        tensors={**doubled(coded, "0:conv2d#0:weight"), **doubled(coded, "input:input#0:out")},
        integers=flipped(coded, "0:conv2d#0:weight", (0, 0, 0, 0)),
    )
    assert locate(network, coded, wrong, batch).layer == "input:input#0:out"
    within = spoiled(
        coded, tensors=doubled(coded, "3:relu#0:out"), integers=flipped(coded, "2:conv2d#0:weight", (0, 0, 0, 0))
    )
    assert locate(network, coded, within, batch).layer == "2:conv2d#0:weight"


def test_a_change_is_told_whatever_the_tolerance(network, coded, batch):
    wrong = spoiled(coded, integers=flipped(coded, "0:conv2d#0:weight", (0, 0, 0, 0)))
    found = locate(network, coded, wrong, batch, tolerance=10.0, float_tolerance=10.0)
    assert found.kind == "weight-changed"


@pytest.mark.parametrize(
    "change, layer, kind",
    [
        ({"without": ["3:relu#0:out"]}, "3:relu#0:out", "scale-changed"),
        ({"without": ["5:conv2d#0:weight"]}, "5:conv2d#0:weight", "scale-changed"),
        ({"tensors": {"0:conv2d#0:out": affine.from_range(0, 1)}}, "0:conv2d#0:out", "scale-changed"),
        ({"tensors": {"3:relu#0:out": Float("float16")}}, "3:relu#0:out", "scale-changed"),
        ({"tensors": {"stray:conv2d#0:out": affine.from_range(0, 1)}}, "stray:conv2d#0:out", "scale-changed"),
        ({"integers": {"5:conv2d#0:weight": np.ones((3, 4, 1, 2), np.int32)}}, "5:conv2d#0:weight", "weight-changed"),
    ],
)
def test_encodings_lost_added_and_misshapen(network, coded, batch, change, layer, kind):
    found = locate(network, coded, spoiled(coded, **change), batch)
    assert (found.layer, found.kind) == (layer, kind)


@pytest.mark.parametrize("key", ["1:relu#0:out", "3:relu#0:out", "6:adaptive_avg_pool2d#0:out"])
def test_a_runtime_that_computes_something_else(network, coded, batch, key):
    def spoil(seen):
        later = False
        for unit in roles.units(network.graph):  # a wrong tensor makes all after it wrong
            later = later or unit.out == key
            if later:
                seen[unit.out] = np.bitwise_xor(seen[unit.out], 4)

    found = locate(network, coded, coded, batch, tensors=runtime(network, coded, spoil=spoil))
    assert (found.kind, found.layer) == ("large-error-at", key)


def one_code(key):
    def spoil(seen):
        flat = seen[key].reshape(-1)
        flat[0] += 1 if flat[0] < 255 else -1

    return spoil


def test_one_code_is_enough_where_all_is_integers(network, coded, batch):
    wrong = runtime(network, coded, spoil=one_code("3:relu#0:out"))
    found = locate(network, coded, coded, batch, tensors=wrong)
    assert (found.kind, found.layer) == ("large-error-at", "3:relu#0:out")
    assert locate(network, coded, coded, batch, tensors=wrong, tolerance=0.05) is None


def flowing(network, encodings, key, change):
    """Shows the tensors of a runtime that makes other codes of one tensor, and computes on with them."""
    meaning = Reference(at_once=0).opened(network, encodings)

    def tensors(inputs, keys):
        seen = {}

        def look(name, value):
            if name in keys:
                seen[name] = affine.quantize(value, encodings.affine(name)).astype(np.uint8)

        meaning.run(inputs, observe=look)
        codes = change(seen[key].copy())
        meaning.run(inputs, observe=look, given={key: affine.dequantize(codes, encodings.affine(key))})
        return {**seen, key: codes}

    return tensors


def moved(count, by=1):
    def change(codes):
        flat = codes.reshape(-1)
        flat[:count] = np.where(flat[:count] < 128, flat[:count] + by, flat[:count] - by)
        return codes

    return change


def test_behind_a_float_op_a_neighbouring_code_is_no_fault(network, coded, batch):
    wrong = flowing(network, coded, "4:softmax#0:out", moved(1))
    assert locate(network, coded, coded, batch, tensors=wrong, float_tolerance=0.0) is None
    for change in (moved(20), moved(1, by=2)):  # more than rounding does: too many, or too far
        wrong = flowing(network, coded, "4:softmax#0:out", change)
        assert locate(network, coded, coded, batch, tensors=wrong, float_tolerance=0.0).layer == "4:softmax#0:out"


@pytest.mark.parametrize("key", ["5:conv2d#0:out", "6:adaptive_avg_pool2d#0:out", "8:linear#0:out"])
def test_behind_a_float_op_bits_are_demanded_of_integer_layers(network, coded, batch, key):
    wrong = flowing(network, coded, key, moved(1))
    found = locate(network, coded, coded, batch, tensors=wrong, float_tolerance=10.0, reference_error=10.0)
    assert (found.kind, found.layer) == ("large-error-at", key)


def test_only_behind_codes_that_nobody_shows_the_reference_s_own_error_counts(network, coded, batch):
    full = flowing(network, coded, "8:linear#0:out", moved(8, by=2))

    def few(inputs, keys):
        return {key: value for key, value in full(inputs, keys).items() if key in shown}

    shown = {"8:linear#0:out"}
    assert locate(network, coded, coded, batch, tensors=few, float_tolerance=1e-6, reference_error=0.1) is None
    assert locate(network, coded, coded, batch, tensors=few, float_tolerance=1e-6).layer == "8:linear#0:out"
    shown = {"7:flatten#0:out", "8:linear#0:out"}
    found = locate(network, coded, coded, batch, tensors=few, float_tolerance=1e-6, reference_error=0.1)
    assert found.layer == "8:linear#0:out"


def test_tensors_that_a_runtime_does_not_show_are_passed_over(network, coded, batch):
    full = runtime(network, coded, spoil=one_code("1:relu#0:out"))

    def few(inputs, keys):
        return {key: value for key, value in full(inputs, keys).items() if key != "1:relu#0:out"}

    assert locate(network, coded, coded, batch, tensors=few) is None


def test_a_tensor_of_another_shape(network, coded, batch):
    def spoil(seen):
        seen["1:relu#0:out"] = seen["1:relu#0:out"][:, :1]

    found = locate(network, coded, coded, batch, tensors=runtime(network, coded, spoil=spoil))
    assert found.layer == "1:relu#0:out"
    assert "shape" in found.text


def test_float_tensors_are_compared_as_they_are(network, coded, batch):
    """Where nothing is encoded behind the softmax, the runtime shows float32 there."""
    without = [key for key in coded.tensors if key.split(":")[0] in {"4", "5", "6", "7", "8"}]
    half = spoiled(coded, without=without)

    def spoil(seen):
        seen["6:adaptive_avg_pool2d#0:out"] *= np.float32(1.1)

    assert locate(network, half, half, batch, tensors=runtime(network, half)) is None
    found = locate(network, half, half, batch, tensors=runtime(network, half, spoil=spoil))
    assert found.layer == "6:adaptive_avg_pool2d#0:out"


def test_nan_is_located(network, coded, batch):
    def spoil(seen):
        seen["3:relu#0:out"] = np.full(seen["3:relu#0:out"].shape, np.nan, np.float32)

    found = locate(network, coded, coded, batch, tensors=runtime(network, coded, spoil=spoil))
    assert found.layer == "3:relu#0:out"


def test_bits_are_demanded_where_integers_alone_compute(network, coded):
    import torch
    from torch import nn

    from haversack.tools.graph import canonical
    from haversack.verify import is_exact

    assert not is_exact(network, coded)  # a softmax stands between
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten()).eval()
    program = torch.export.export(module, (torch.zeros(2, 2, 8, 8),))
    plain = canonical.to_model(program, "plain")
    weight = "0:conv2d#0:weight"
    tensors = {key: affine.from_range(0.0, 1.0) for key in ("input:input#0:out", "1:relu#0:out", "2:flatten#0:out")}
    tensors = {key.replace("input:input", plain.inputs[0].name + ":input"): value for key, value in tensors.items()}
    codes = np.ones(plain.weights["0.weight"].shape, np.int32)
    whole = Encodings({**tensors, weight: affine.symmetric(np.ones(4, np.float32), 8, 0)}, {weight: codes})
    assert is_exact(plain, whole)
    assert not is_exact(plain, Encodings(tensors))  # the layer's weight stays in float


def sequence():
    """A network whose steps are on axis 0, its samples on axis 1, as recurrent layers have them."""
    import torch
    from torch import nn

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(torch.relu(self.first(x.transpose(0, 1)))[-1])

    torch.manual_seed(0)
    free = ({0: torch.export.Dim.AUTO},)
    return to_model(torch.export.export(Steps().eval(), (torch.zeros(2, 5, 3),), dynamic_shapes=free), "steps")


@pytest.mark.parametrize("spoil", [False, True])
def test_a_runtime_that_joins_its_samples_on_axis_0(spoil):
    model, none = sequence(), Encodings.none()
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)

    def worse(seen):
        if spoil:
            seen[":relu#0:out"][2] += 1

    one = runtime(model, none, spoil=worse)

    def tensors(inputs, keys):
        rows = [one((inputs[0][row : row + 1],), keys) for row in range(len(inputs[0]))]
        return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}

    place = locate(model, none, none, (x,), tensors=tensors)
    found = None if place is None else (place.kind, place.layer)
    assert found == (("large-error-at", ":relu#0:out") if spoil else None)
