"""What came from another framework's file takes int8 like any model: the runtime's logits are the reference's."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from haversack.base.plan import LayerPlan, Plan, Step
from haversack.lower.emit import emit
from haversack.measure.local import LocalDevice


@pytest.fixture(scope="module")
def device():
    with LocalDevice() as opened:
        yield opened


def differing(steps_on, device, network, layers):
    """Make ``layers`` int8 and return how many logits differ from the reference, and how many were compared."""
    maker = steps_on(network, device).makers["onnxruntime"]
    int8 = {key: LayerPlan("int8") for key in layers}
    plan = Plan("onnxruntime", int8, (Step("fold_norm"),), Step("minmax"), ("onnxruntime",))
    compressed = maker.squeeze(plan)
    assert "batch_norm" not in {node.op for node in compressed.model.graph.nodes}
    artifact = emit(compressed.model, compressed.encodings, "onnxruntime", maker.folder_of(plan))
    handle = device.load(maker._opening(plan, artifact))
    parity, _ = maker._parity(compressed, maker._predict(handle, artifact), exact=True)
    device.unload(handle)
    return parity.reference_differing, parity.reference_compared


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depth = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = self.stem(image)
        x = x + nn.functional.relu(self.norm(self.depth(x)))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("compiled", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(2, 3, 16, 16))])
def test_torchscript_in_int8_computes_the_references_bits(steps_on, device, tmp_path, compiled):
    from haversack.load import torchscript

    torch.manual_seed(0)
    compiled(Net().eval()).save(tmp_path / "net.pt")
    network = torchscript.module_of(tmp_path / "net.pt")
    found, compared = differing(steps_on, device, network, ["stem.0:conv2d#0", "depth:conv2d#0", "head:linear#0"])
    assert compared > 0
    assert found == 0


@pytest.mark.skipif(find_spec("keras") is None, reason="the extra keras")
@pytest.mark.filterwarnings("ignore")  # Keras tells of itself
def test_a_keras_file_in_int8_computes_the_references_bits(steps_on, device, tmp_path):
    from haversack.load import keras_file

    keras = keras_file._keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((3, 16, 16))
    x = layers.Reshape((16, 16, 3), name="turned")(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", name="depth")(x))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, layers.ReLU()(y)]))
    keras.Model(image, layers.Dense(5, name="head")(x)).save(tmp_path / "net.keras")
    network = keras_file.module_of(tmp_path / "net.keras")
    found, compared = differing(steps_on, device, network, ["stem.layer:conv2d#0", "depth:conv2d#0", "head:linear#0"])
    assert compared > 0
    assert found == 0
