"""A Keras file: what is translated computes what Keras computes, and nothing that a file holds is run."""

import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import ConversionError, EnvironmentFault, JobError, MissingExtra
from haversack.load import export, keras_file, keras_layers, open_job
from haversack.tools.graph.execute import Executor

pytestmark = [
    pytest.mark.skipif(find_spec("keras") is None or find_spec("h5py") is None, reason="the extra keras"),
    pytest.mark.filterwarnings("ignore"),  # Keras and h5py tell of themselves
]


def shaken(model):
    """Give every weight a value of its own: Keras' zeros and ones would hide one that is left out."""
    draw = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(draw.uniform(0.2, 1.0, weight.shape).astype(np.float32))
    return model


def outputs(model, *arrays):
    """What Keras computes."""
    with torch.no_grad():
        found = model([torch.from_numpy(a) for a in arrays] if len(arrays) > 1 else torch.from_numpy(arrays[0]))
    return found.detach().cpu().numpy()


def images(*shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_layers_keep_their_names_and_images_their_order(files, as_job, suffix):
    folder, model = files
    module = keras_file.module_of(folder / f"net.{suffix}")
    x = images(4, 16, 12, 3)
    exported = export(as_job(module, (x,)))
    layers = {node.key: node.weight for node in exported.graph.nodes if node.weight}
    assert layers == {
        "stem.layer:conv2d#0": "stem.layer.weight",
        "stem_norm:batch_norm#0": "stem_norm.weight",
        "depth:conv2d#0": "depth.weight",
        "depth_norm:batch_norm#0": "depth_norm.weight",
        "head:linear#0": "head.weight",
    }
    assert exported.inputs[0].name == "image"
    assert exported.inputs[0].spec.shape == ("batch", 16, 12, 3)
    assert [node.op for node in exported.graph.nodes].count("permute") == 1
    np.testing.assert_allclose(Executor(exported).run((x,))[0], outputs(model, x), rtol=1e-4, atol=1e-5)


def chain(keras, *layers, shape=(9, 8, 4)):
    return shaken(keras.Sequential([keras.Input(shape), *layers]))


CHAINS = {
    "grouped": lambda L: [L.Conv2D(6, (3, 2), groups=2, dilation_rate=2)],
    "multiplier": lambda L: [L.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same")],
    "separable": lambda L: [L.SeparableConv2D(6, 3, padding="same", activation="relu")],
    "activations": lambda L: [
        L.Conv2D(4, 1, activation=name)
        for name in "relu relu6 sigmoid tanh silu hard_sigmoid hard_silu gelu elu softplus softmax".split()
    ],
    "relus": lambda L: [L.ReLU(2.0), L.ReLU(negative_slope=0.1), L.LeakyReLU(0.3), L.Activation("tanh"), L.Softmax()],
    "flat": lambda L: [L.Conv2D(3, 2), L.Flatten(), L.Dense(7, activation="relu"), L.BatchNormalization(), L.Dense(2)],
    "norms": lambda L: [L.BatchNormalization(scale=False), L.BatchNormalization(center=False, epsilon=0.1)],
    "pools": lambda L: [L.MaxPooling2D(3, 1, padding="same"), L.AveragePooling2D(3, 1, "same"), L.MaxPooling2D(2)],
    "shapes": lambda L: [L.Reshape((8, 9, 4)), L.Rescaling(0.5, -1.0), L.ZeroPadding2D(((1, 2), (3, 0)))],
    "one pixel": lambda L: [L.GlobalMaxPooling2D(), L.Reshape((1, 1, 4)), L.Conv2D(3, 1), L.UpSampling2D(3)],
    "dropped": lambda L: [L.Dropout(0.5), L.SpatialDropout2D(0.5), L.GlobalAveragePooling2D(keepdims=True)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_computes_what_keras_computes(keras, tmp_path, name):
    model = chain(keras, *CHAINS[name](keras.layers))
    model.save(tmp_path / "net.keras")
    x = images(3, 9, 8, 4)
    with torch.no_grad():
        got = keras_file.module_of(tmp_path / "net.keras")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, outputs(model, x), rtol=1e-4, atol=1e-5)


SIZES = st.integers(1, 3)
PADS = st.sampled_from(["same", "valid"])


@st.composite
def stacks(draw):
    """One to four layers over images, as (class, settings)."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(
            st.sampled_from("Conv2D DepthwiseConv2D BatchNormalization ReLU MaxPooling2D ZeroPadding2D".split())
        )
        given = {
            "Conv2D": {"filters": draw(SIZES), "kernel_size": (draw(SIZES), draw(SIZES)), "strides": draw(SIZES),
                       "padding": draw(PADS), "activation": draw(st.sampled_from(["relu", None]))},
            "DepthwiseConv2D": {"kernel_size": draw(SIZES), "depth_multiplier": draw(SIZES), "padding": draw(PADS)},
            "MaxPooling2D": {"pool_size": draw(st.integers(1, 2)), "strides": 1},
            "ZeroPadding2D": {"padding": ((draw(SIZES), 1), (0, draw(SIZES)))},
        }.get(kind, {})  # fmt: skip
        found.append((kind, given))
    return found


@settings(max_examples=20, deadline=None)
@given(stacks(), st.integers(7, 11), st.integers(7, 11))
def test_any_stack_of_layers_computes_what_keras_computes(stack, height, width):
    keras = keras_file._keras()
    try:
        model = chain(keras, *(getattr(keras.layers, kind)(**given) for kind, given in stack), shape=(height, width, 2))
    except ValueError:
        return  # the image is used up
    faults = []
    module = keras_file._network(model, faults, outermost=True)
    assert not faults
    x = images(2, height, width, 2)
    with torch.no_grad():
        got, wanted = module(torch.from_numpy(x)).numpy(), outputs(model, x)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * max(1e-6, float(np.abs(wanted).max(initial=0))))


def test_a_graph_of_models_with_a_shared_layer_and_two_inputs(keras, tmp_path):
    layers = keras.layers
    inner = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(4, 3), layers.ReLU()], name="back-bone")
    a, b = keras.Input((6, 6, 2), name="a"), keras.Input((6, 6, 2), name="b")
    both = layers.Concatenate()([inner(a), inner(b)])
    scale = layers.Conv2D(8, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(both))
    model = shaken(keras.Model([a, b], layers.Multiply()([both, scale])))
    model.save(tmp_path / "net.keras")
    module = keras_file.module_of(tmp_path / "net.keras")
    x, y = images(2, 6, 6, 2), images(2, 6, 6, 2) + 0.5
    with torch.no_grad():
        got = module(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    np.testing.assert_allclose(got, outputs(model, x, y), rtol=1e-4, atol=1e-5)
    assert "back_bone.conv2d" in re.sub(r"_\d+\b", "", " ".join(name for name, _ in module.named_modules()))


def test_a_model_inside_with_several_outputs_is_told(keras, tmp_path):
    end = keras.Input((4,), name="end")
    inner = keras.Model(end, [keras.layers.Dense(2)(end), keras.layers.Dense(3)(end)], name="heads")
    image = keras.Input((4,))
    keras.Model(image, inner(image)).save(tmp_path / "net.keras")
    with pytest.raises(ConversionError) as caught:
        keras_file.module_of(tmp_path / "net.keras")
    assert [fault.where for fault in caught.value.faults] == ["heads"]


def test_several_outputs_come_as_a_tuple_in_order(keras, tmp_path):
    image = keras.Input((5, 4, 2))
    x = keras.layers.Conv2D(3, 2)(image)
    model = shaken(keras.Model(image, [keras.layers.Flatten()(x), x]))
    model.save(tmp_path / "net.keras")
    given = torch.from_numpy(images(2, 5, 4, 2))
    with torch.no_grad():
        got, wanted = keras_file.module_of(tmp_path / "net.keras")(given), model(given)
    assert [tuple(value.shape) for value in got] == [(2, 36), (2, 4, 3, 3)]
    for mine, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_names_that_pytorch_has_itself_or_that_become_equal_stay_apart(keras, tmp_path):
    names = ["forward", "training", "class", "a-b", "a_b"]
    chain(keras, *(keras.layers.Conv2D(4, 1, name=name) for name in names)).save(tmp_path / "net.keras")
    module = keras_file.module_of(tmp_path / "net.keras")
    assert [name for name, _ in module.named_children()] == ["forward_", "training_", "class_", "a_b", "a_b_"]


def test_a_setting_that_is_overlooked_is_found_by_comparing(files, monkeypatch):
    def forgets(layer):
        parts = keras_layers._norm(layer)
        parts["layer"].eps = 0.5
        return parts

    monkeypatch.setattr(keras_layers, "BUILDERS", {**keras_layers.BUILDERS, "BatchNormalization": forgets})
    with pytest.raises(ConversionError, match="leaves Keras' own by"):
        keras_file.module_of(files[0] / "net.keras")


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda L: L.Conv2D(2, 3, strides=2, padding="same"), "free size"),
        (lambda L: L.MaxPooling2D(2, 1, padding="same"), "wider on one side"),
        (lambda L: L.ReLU(threshold=0.5), "threshold"),
        (lambda L: L.Activation("selu"), "activation selu"),
        (lambda L: L.UpSampling2D(2, interpolation="bilinear"), "bilinear"),
        (lambda L: L.BatchNormalization(axis=1), "axis 1"),
        (lambda L: L.Dense(3), "over images"),
        (lambda L: L.Conv2D(2, 1, dtype="float16"), "float16"),
    ],
)
def test_settings_outside_of_the_list_are_told_by_layer(keras, tmp_path, make, text):
    shape = (None, None, 4) if text == "free size" else (9, 8, 4)
    layer = make(keras.layers)
    chain(keras, layer, shape=shape).save(tmp_path / "net.keras")
    with pytest.raises(ConversionError) as caught:
        keras_file.module_of(tmp_path / "net.keras")
    assert [fault.where for fault in caught.value.faults] == [layer.name]
    assert text in caught.value.faults[0].cause
    assert "build these layers in PyTorch" in caught.value.next_step


def test_a_job_opens_one_as_it_opens_other_files(files, job_file):
    size = ("(4, 3, 8, 8)", "(4, 16, 12, 3)")
    job = open_job(f"{files[0] / 'net.keras'}@{job_file(size)}")
    assert "head:linear#0" in export(job).graph.by_key
    with pytest.raises(JobError, match="hold a model but no data"):
        open_job(str(files[0] / "net.h5"))


def test_a_missing_package_and_another_backend_say_what_to_do(keras, monkeypatch, files):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(EnvironmentFault, match="runs on jax already") as caught:
        keras_file.module_of(files[0] / "net.keras")
    assert "KERAS_BACKEND=torch" in caught.value.next_step
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtra) as missing:
        keras_file.check(files[0] / "net.keras")
    assert missing.value.next_step == "pip install 'haversack[keras]'"


def test_an_older_file_names_initializers_without_a_module(files, changed, tmp_path):
    """Keras 2 wrote them so; they are only numbers, and the weights of the file replace what they would make."""

    def older(config):
        config["config"]["layers"][1]["config"]["kernel_initializer"] = {
            "class_name": "GlorotUniform",
            "config": {"seed": None},
        }

    keras_file.check(changed(files[0] / "net.keras", tmp_path / "net.keras", older))
    found = list(keras_file._strangers({"x": {"class_name": "GlorotUniform", "config": {"seed": None}}}, "", 0))
    assert [fault.cause for fault in found] == ["is a GlorotUniform, not translated"], "anywhere else it is a stranger"


def test_how_a_model_was_compiled_is_left_out(keras, changed, tmp_path):
    """Losses and optimisers may be the user's own code, which nobody needs here."""
    model = chain(keras, keras.layers.Dense(2), shape=(3,))
    model.compile(optimizer="adam", loss="mse")
    model.save(tmp_path / "net.keras")
    path = changed(tmp_path / "net.keras", tmp_path / "own.keras", lambda c: c["compile_config"].update(
        loss={"module": "mine", "class_name": "function", "config": "loss", "registered_name": "loss"}))  # fmt: skip
    x = images(2, 3)
    with torch.no_grad():
        got = keras_file.module_of(path)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, outputs(model, x), rtol=1e-5)


def mobile(keras):
    """MobileNetV2's parts: uneven padding, inverted residuals, relu6, a head with softmax."""
    layers = keras.layers

    def block(x, out, stride):
        into = x.shape[-1]
        y = layers.Conv2D(2 * into, 1, use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization(epsilon=1e-3)(y))
        if stride == 2:
            y = layers.ZeroPadding2D(((0, 1), (0, 1)))(y)
        y = layers.DepthwiseConv2D(3, stride, "same" if stride == 1 else "valid", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization(epsilon=1e-3)(y))
        y = layers.BatchNormalization()(layers.Conv2D(out, 1, use_bias=False)(y))
        return layers.Add()([x, y]) if stride == 1 and into == out else y

    image = keras.Input((12, 12, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(image)
    for out, stride in ((4, 1), (4, 1), (6, 2), (6, 1)):
        x = block(x, out, stride)
    return shaken(keras.Model(image, layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(x))))


def test_a_mobile_network_keeps_every_layer_with_weights_under_its_name(keras, tmp_path, as_job):
    model = mobile(keras)
    model.save(tmp_path / "net.keras")
    x = images(3, 12, 12, 3)
    exported = export(as_job(keras_file.module_of(tmp_path / "net.keras"), (x,)))
    got = {node.key.partition(":")[0].removesuffix(".layer") for node in exported.graph.nodes if node.weight}
    assert got == {layer.name for layer in model.layers if layer.weights}
    assert {"contiguous", "to", "subtract"}.isdisjoint({node.op for node in exported.graph.nodes})
    np.testing.assert_allclose(Executor(exported).run((x,))[0], outputs(model, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "source, names, wanted",
    [
        ("dense", (), "dense"),
        ("a-b", (), "a_b"),
        ("a-b", ("a_b",), "a_b_"),
        ("3x3", (), "_3x3"),
        ("größe", (), "gr__e"),
        ("import", (), "import_"),
        ("graph", (), "graph_"),
        ("", (), "_"),
    ],
)
def test_names_of_layers_are_identifiers(source, names, wanted):
    from haversack.load.keras_modules import identifier

    assert identifier(source, names) == wanted
