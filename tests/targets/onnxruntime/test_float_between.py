"""A layer left in float between integer layers keeps its float weight: ONNX Runtime would quantize it by itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from haversack.base.encodings import Encodings
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.reference import Reference
from haversack.tools.numerics import affine

TARGET = OnnxRuntime()
MIDDLE = {
    "conv": lambda nn: (nn.Conv2d(8, 8, 3, padding=1),),
    "deep": lambda nn: (nn.Conv2d(8, 8, 3, padding=1, groups=8),),
    "relu": lambda nn: (nn.Conv2d(8, 8, 1), nn.ReLU()),
    "relu6": lambda nn: (nn.Conv2d(8, 8, 1), nn.ReLU6()),
    "bare": lambda nn: (nn.Conv2d(8, 8, 1, bias=False),),
    "transposed": lambda nn: (nn.ConvTranspose2d(8, 8, 2, stride=2),),
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(4, 3, 8, 8)).astype(np.float32)


def network(exported, kind):
    """Return the Model of a layer of uneven channels between two integer convolutions."""
    import torch
    from torch import nn

    torch.manual_seed(7)
    middle = MIDDLE[kind](nn)
    with torch.no_grad():  # one scale for all channels would lose the small ones
        middle[0].weight *= torch.logspace(-2, 0, len(middle[0].weight)).reshape(-1, *[1] * (middle[0].weight.ndim - 1))
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *middle, nn.Conv2d(8, 4, 1))
    return exported(module, np.zeros((2, 3, 8, 8), np.float32))


def stored(model, encodings, key, precision, encoded, sample):
    """Return encodings in which the middle has its weight stored in another way."""
    if precision == "float32":
        return encodings
    added = encoded(model, [sample], precision, only={key})
    return Encodings({**encodings.tensors, **added.tensors}, {**encodings.integers, **added.integers})


WIDTHS = ("float32", "float16", "int8_weights")
CASES = [(kind, one) for kind in MIDDLE for one in WIDTHS if kind != "transposed" or one == "float32"]


@pytest.mark.parametrize("kind, precision", CASES)
def test_the_layer_gives_what_float_gives(exported, encoded, images, tmp_path, kind, precision):
    model = network(exported, kind)
    first, middle, last = (node for node in model.graph.nodes if node.weight)
    encodings = encoded(model, [(images,)], only={first.key, last.key})
    encodings = stored(model, encodings, middle.key, precision, encoded, (images,))
    assert encodings.affine(f"{middle.inputs[0]}:out") is not None
    artifact = TARGET.lower(model, encodings, tmp_path)
    path = tmp_path / artifact.files[0].path
    before = f"{last.inputs[0]}:out"
    seen = TARGET.tensors(path, artifact, (images,), [before])[before]
    meant = {}
    Reference().opened(model, encodings).run((images,), observe=lambda key, value: meant.setdefault(key, value.copy()))
    codes = affine.quantize(meant[before], encodings.affine(before)).astype(int)
    apart = np.abs(seen.astype(int) - codes)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.01


@pytest.mark.parametrize("precision", WIDTHS)
def test_a_linear_layer_behind_codes_opens(exported, encoded, tmp_path, precision):
    """Its stored form stands beside the exported one until the file is finished: both read the same codes."""
    import torch
    from torch import nn

    torch.manual_seed(7)
    model = exported(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Linear(5, 4)), np.zeros((2, 6), np.float32)
    )
    rows = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)
    first, middle, last = (node for node in model.graph.nodes if node.weight)
    encodings = encoded(model, [(rows,)], only={first.key, last.key})
    encodings = stored(model, encodings, middle.key, precision, encoded, (rows,))
    artifact = TARGET.lower(model, encodings, tmp_path)
    session = TARGET.open_session(tmp_path / artifact.files[0].path, artifact.session_options)
    (given,) = session.run({model.inputs[0].name: rows}).values()
    (meant,) = Reference().run(model, encodings, (rows,))
    step = float(encodings.affine(last.out).scale)
    assert np.abs(given - meant).max() <= 1.01 * step


@pytest.mark.parametrize("uneven", [False, True])
def test_what_was_told_by_channel_is_read_back_as_one_number_where_it_is_one(
    exported, encoded, images, tmp_path, uneven
):
    model = network(exported, "conv")
    encodings = encoded(model, [(images,)], only={"0:conv2d#0", "2:conv2d#0"})
    artifact = TARGET.lower(model, encodings, tmp_path)
    path = tmp_path / artifact.files[0].path
    file = onnx.load(path)
    (wide,) = (node for node in file.graph.node if node.name == "1:conv2d#0/DequantizeChannels")
    if not uneven:
        assert TARGET.read(path, artifact).digest == encodings.digest
        return
    scale = next(one for one in file.graph.initializer if one.name == wide.input[1])
    values = onnx.numpy_helper.to_array(scale).copy()
    values[3] *= 2
    scale.CopyFrom(onnx.numpy_helper.from_array(values, scale.name))
    onnx.save(file, path)
    with pytest.raises(Exception, match="constant scale"):
        TARGET.read(path, artifact)
