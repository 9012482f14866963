"""Files for TensorRT by ONNX's own reference evaluator: odd shapes mean what the reference means; spoiled files end.

TensorRT is not here. The standard's evaluator is an independent reading of every operator that we write, and so is the
interface to whoever spoils a file.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from haversack.base.encodings import Encodings
from haversack.base.errors import VerificationError
from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.reference import Reference
from haversack.targets.tensorrt import TensorRT
from haversack.tools.graph import canonical
from haversack.tools.graph.injection import count, differences

TARGET = TensorRT()


class Built(nn.Module):
    """Layers by name, and what is computed with them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.layers, self.computed = nn.ModuleDict(layers), forward

    def forward(self, x):
        return self.computed(self.layers, x)


def builds():
    """Return name -> (module, shape of one row): channels that fill no vector, groups, strides past the kernel."""
    torch.manual_seed(21)
    return {
        "groups": (Built(lambda m, x: torch.relu(m["a"](x)), a=nn.Conv2d(6, 9, 3, groups=3, padding=1)), (6, 5, 7)),
        "two outputs a channel": (Built(lambda m, x: m["a"](x), a=nn.Conv2d(5, 10, 3, 2, 1, groups=5)), (5, 7, 5)),
        "a line": (Built(lambda m, x: m["a"](x), a=nn.Conv1d(3, 7, 3, stride=2, dilation=2, padding=2)), (3, 11)),
        "a stride past the kernel": (Built(lambda m, x: m["a"](x), a=nn.Conv2d(3, 5, 1, stride=3)), (3, 8, 7)),
        "three joined": (
            Built(
                lambda m, x: m["c"](torch.cat([m["a"](x), x, m["b"](x)], 1)),
                a=nn.Conv2d(3, 5, 1), b=nn.Conv2d(3, 1, 1), c=nn.Conv2d(9, 2, 1),
            ),
            (3, 3, 5),
        ),
        "a sum and its mean": (
            Built(lambda m, x: m["b"]((m["a"](x) + x).mean((2, 3))), a=nn.Conv2d(7, 7, 1), b=nn.Linear(7, 3)),
            (7, 3, 5),
        ),
        "a pad of each side": (
            Built(lambda m, x: m["a"](functional.pad(x, (2, 0, 1, 3))), a=nn.Conv2d(3, 5, 3, stride=2)),
            (3, 6, 5),
        ),
        "rows of a matrix": (Built(lambda m, x: m["a"](x), a=nn.Linear(5, 11)), (3, 5)),
        "a pool that overlaps": (
            Built(lambda m, x: m["b"](functional.max_pool2d(m["a"](x), 3, 2, 1)), a=nn.Conv2d(3, 5, 1),
                  b=nn.Conv2d(5, 3, 1)),
            (3, 7, 5),
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """Name -> (Model, encodings, sample, artifact, path); each is made once."""
    made, modules = {}, builds()

    def of(name):
        if name not in made:
            module, shape = modules[name]
            x = np.random.default_rng(len(name)).normal(size=(3, *shape)).astype(np.float32)
            free = ({0: torch.export.Dim.AUTO},)
            model = canonical.to_model(
                torch.export.export(module.eval(), (torch.from_numpy(x),), dynamic_shapes=free), name
            )
            demands = TARGET.constraints(model.graph)
            layers = uniform(model.graph, "int8", integer_ops=demands.integer_ops)
            plan = Plan("tensorrt", layers, (), Step("minmax"), ("tensorrt",))
            encodings = encode.encode(model, plan, ranges(model, [(x,)]), demands)[0]
            folder = tmp_path_factory.mktemp("odd")
            made[name] = model, encodings, x, TARGET.lower(model, encodings, folder), folder / "model.onnx"
        return made[name]

    return of


def evaluated(path, x):
    """Return what ONNX's reference evaluator makes of a file."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    file = onnx.load(path)
    return ReferenceEvaluator(file).run(None, {file.graph.input[0].name: x})[0]


@pytest.mark.parametrize("name", builds())
def test_the_standards_evaluator_gives_the_references_codes(lowered, name):
    model, encodings, x, artifact, path = lowered(name)
    assert artifact.injected == artifact.read_back == count(encodings)
    (wanted,) = Reference().run(model, encodings, (x,))
    found = evaluated(path, x)
    assert found.shape == wanted.shape
    step = float(encodings.affine(f"{model.graph.outputs[0]}:out").scale)
    codes = np.rint((found - wanted) / step)
    np.testing.assert_allclose(found, wanted + codes * step, rtol=1e-5, atol=1e-5 * step, err_msg="off the grid")
    assert np.abs(codes).max() <= 1, "float sums may turn a rounding, and no more"
    assert np.mean(codes != 0) <= 0.02
    assert len(np.unique(wanted)) > 8, "many codes are used"


def test_a_free_batch_stays_free(lowered):
    _, _, x, _, path = lowered("groups")
    whole = evaluated(path, x)
    for row in range(len(x)):
        np.testing.assert_array_equal(evaluated(path, x[row : row + 1])[0], whole[row])


@pytest.mark.parametrize("name", ["groups", "a line", "rows of a matrix"])
def test_a_code_that_changes_is_told_by_its_layer_and_moves_its_channel_alone(lowered, tmp_path, name):
    import onnx
    from onnx import numpy_helper

    model, encodings, x, artifact, path = lowered(name)
    file = onnx.load(path)
    (held,) = [one for one in file.graph.initializer if one.name.endswith(":weight/codes")]
    codes = numpy_helper.to_array(held).copy()
    place = tuple(size // 2 for size in codes.shape)
    codes[place] = 127 if codes[place] < 0 else -127
    held.CopyFrom(numpy_helper.from_array(codes, held.name))
    onnx.save(file, tmp_path / "model.onnx")
    key = held.name.removesuffix("/codes")
    _, faults = differences(encodings, TARGET.read(tmp_path / "model.onnx", artifact))
    assert [(fault.where, fault.cause) for fault in faults] == [(key, f"1 of {codes.size} integers differ")]
    before, after = evaluated(path, x), evaluated(tmp_path / "model.onnx", x)
    axis = -1 if name == "rows of a matrix" else 1
    moved = {int(channel) for channel in np.argwhere(before != after)[:, axis]}
    node = model.graph.by_key[key.removesuffix(":weight")]
    turned = codes.shape != model.weights[node.weight].shape
    assert moved == {place[-1] if turned else place[0]}


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_of_a_file_may_be_anything(lowered, tmp_path_factory, data):
    _, _, _, artifact, path = lowered("three joined")
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    spoiled = tmp_path_factory.getbasetemp() / "any.onnx"
    spoiled.write_bytes(bytes(whole))
    try:
        found = TARGET.read(spoiled, artifact)
    except VerificationError as error:
        assert error.where == str(spoiled)
    else:
        assert isinstance(found, Encodings)


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_holds_less_and_is_told(lowered, tmp_path_factory, data):
    _, encodings, _, artifact, path = lowered("a sum and its mean")
    whole = path.read_bytes()
    spoiled = tmp_path_factory.getbasetemp() / "cut.onnx"
    spoiled.write_bytes(whole[: data.draw(st.integers(0, len(whole) * 9 // 10))])
    with pytest.raises(VerificationError) as caught:
        TARGET.read(spoiled, artifact)
    assert caught.value.where == str(spoiled)
    assert differences(encodings, TARGET.read(path, artifact)) == (count(encodings), ())


def test_no_scale_may_be_nothing_or_less(lowered, tmp_path):
    import onnx

    _, _, _, artifact, path = lowered("three joined")
    names = [one.name for one in onnx.load(path).graph.initializer if one.name.endswith("/scale")]
    assert len(names) >= 5
    for name in names:
        for value in (0.0, -1.0, np.nan, np.inf):
            file = onnx.load(path)
            (held,) = [one for one in file.graph.initializer if one.name == name]
            held.raw_data = np.full(len(held.raw_data) // 4, value, np.float32).tobytes()
            onnx.save(file, tmp_path / "model.onnx")
            with pytest.raises(VerificationError) as caught:
                TARGET.read(tmp_path / "model.onnx", artifact)
            assert name.removesuffix("/scale") in {fault.where for fault in caught.value.faults}
