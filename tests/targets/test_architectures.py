"""Architectures of the transformers library, with random weights, through every target that runs here.

Each file is compared with the reference, which says what our encodings mean, and with the model in PyTorch.
"""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.job import Job
from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.compress.prepare.contract import PrepareContext
from haversack.load.exporting import export
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file, to_model

transformers = pytest.importorskip("transformers")
IMAGES = [np.random.default_rng(index).normal(size=(4, 3, 32, 32)).astype(np.float32) for index in range(2)]


def _only(network, field, *names):
    """Return a module that gives one field of what a network of the library returns."""
    import torch

    class Only(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network

        def forward(self, *inputs):
            return getattr(self.net(**dict(zip(names, inputs, strict=True))), field)

    return Only().eval()


def _vit():
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        num_labels=5, attn_implementation="eager",
    )  # fmt: skip
    return _only(transformers.ViTForImageClassification(config), "logits", "pixel_values"), [(x,) for x in IMAGES]


def _mobilenet():
    config = transformers.MobileNetV2Config(image_size=32, num_labels=5, depth_multiplier=0.35)
    return _only(transformers.MobileNetV2ForImageClassification(config), "logits", "pixel_values"), [
        (x,) for x in IMAGES
    ]


def _whisper():
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, max_source_positions=12,
        num_mel_bins=8, attn_implementation="eager",
    )  # fmt: skip
    sounds = [np.random.default_rng(index).normal(size=(3, 8, 24)).astype(np.float32) for index in range(2)]
    return _only(WhisperEncoder(config), "last_hidden_state", "input_features"), [(x,) for x in sounds]


def _distilbert():
    config = transformers.DistilBertConfig(
        vocab_size=50, dim=32, n_layers=2, n_heads=2, hidden_dim=64, num_labels=5, max_position_embeddings=16,
        attn_implementation="eager",
    )  # fmt: skip
    network = transformers.DistilBertForSequenceClassification(config)
    mask = np.ones((3, 8), np.int64)
    mask[0, 5:] = 0
    words = [(np.random.default_rng(index).integers(0, 50, (3, 8)), mask) for index in range(2)]
    return _only(network, "logits", "input_ids", "attention_mask"), words


MAKERS = {"vit": _vit, "mobilenet": _mobilenet, "whisper": _whisper, "distilbert": _distilbert}


@pytest.fixture(scope="module")
def made():
    """Return name -> its model as exported by a job, its batches, and PyTorch's outputs; each is made once."""
    import torch

    known = {}

    def of(name):
        if name not in known:
            torch.manual_seed(7)
            module, batches = MAKERS[name]()
            job = Job(name, lambda: module, lambda: iter(batches), lambda: iter(()), "top1")
            with torch.no_grad():
                expected = [module(*map(torch.from_numpy, batch)).numpy() for batch in batches]
            folded = PREPARE.build("fold_norm").apply(export(job), PrepareContext(job.calibration))
            known[name] = folded, batches, expected
        return known[name]

    return of


@pytest.mark.parametrize("target", ["onnxruntime", "litert", "executorch"])
@pytest.mark.parametrize(
    "name, precision",
    [
        ("vit", "int8"),
        ("mobilenet", "int8"),
        ("whisper", "int8"),
        ("distilbert", "int8"),
        ("distilbert", "int8_weights"),
    ],
)
def test_every_runtime_computes_what_the_reference_says(made, tmp_path, name, precision, target):
    model, batches, expected = made(name)
    runtime = TARGETS.build(target)
    constraints = runtime.constraints(model.graph)
    layers = uniform(model.graph, precision, granularity="channel", integer_ops=constraints.integer_ops)
    plan = Plan(target, layers, (), Step("minmax"), (target,))
    encodings, _ = encode.encode(model, plan, ranges(model, batches) if precision == "int8" else {}, constraints)
    assert any(key.endswith(":weight") for key in encodings.integers), "nothing was compressed"
    artifact = runtime.lower(model, encodings, tmp_path)
    session = runtime.open_session(tmp_path / artifact.files[0].path, artifact.session_options)
    ports = [port.name for port in model.inputs]
    feeds = {
        port: to_file(array, artifact.layouts.get(port, "")) for port, array in zip(ports, batches[0], strict=True)
    }
    out = model.outputs[0].name
    found = to_model(session.run(feeds)[out], artifact.layouts.get(out, ""))
    wanted = Reference().run(model, encodings, batches[0])[0]
    scale = np.abs(expected[0]).max()
    assert np.abs(found - wanted).max() < 0.02 * scale, "the file is not what its encodings mean"
    assert np.sqrt(np.mean((found - expected[0]) ** 2)) < 0.1 * scale, "the file is not the model"
