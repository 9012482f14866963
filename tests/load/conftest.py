import io
import json
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

JOB = """
import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, image):
        return self.head(torch.relu(self.norm(self.conv(image))).mean((2, 3)))


def model():
    torch.manual_seed(0)
    return Net().eval()


def calibration():
    for seed in range(2):
        yield (np.random.default_rng(seed).normal(size=(4, 3, 8, 8)).astype(np.float32),)


def evaluation():
    yield next(iter(calibration())), np.arange(4)


metric = "top1"
"""


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write a text file, dedented, and return its path."""

    def write_file(text: str, name: str = "job.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def job_file(write) -> Callable[..., Path]:
    """Write a good job file with pieces of its text replaced."""

    def write_job(*replaced: tuple[str, str], name: str = "job.py", more: str = "") -> Path:
        text = JOB
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        return write(text + textwrap.dedent(more), name)

    return write_job


@pytest.fixture
def as_job() -> Callable[..., object]:
    """Build a Job from a module and its batches, without a file."""
    from haversack.base.job import Job

    def build(module, *batches, **fields):
        return Job(
            name="net",
            model=lambda: module,
            calibration=lambda: iter(batches),
            evaluation=lambda: iter(()),
            metric="top1",
            source="job.py",
            **fields,
        )

    return build


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> SimpleNamespace:
    """A module, its .pt2 file (free batch, BatchNorm, tied weights) and its safetensors file."""
    import torch
    from safetensors.torch import save_model
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.second.weight = self.first.weight
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x):
            return self.second(torch.relu(self.norm(self.first(x))))

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("saved")
    module = Tied().eval()
    x = torch.randn(2, 6)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, folder / "net.pt2")
    save_model(module, str(folder / "net.safetensors"))
    return SimpleNamespace(
        module=module,
        kind=Tied,
        program=folder / "net.pt2",
        weights=folder / "net.safetensors",
        x=np.linspace(-1, 1, 18, dtype=np.float32).reshape(3, 6),
    )


@pytest.fixture(scope="module")
def keras():
    from haversack.load import keras_file

    found = keras_file._keras()
    found.utils.set_random_seed(0)
    return found


def _shaken(model):
    """Give every weight a value of its own: Keras' zeros and ones would hide one that is left out."""
    draw = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(draw.uniform(0.2, 1.0, weight.shape).astype(np.float32))
    return model


def _cnn(keras):
    layers = keras.layers
    image = keras.Input((16, 12, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(6.0)(x)
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(x)
    y = layers.BatchNormalization(name="depth_norm")(y)
    x = layers.Add()([x, layers.ReLU()(y)])
    x = layers.GlobalAveragePooling2D()(x)
    return _shaken(keras.Model(image, layers.Dense(5, name="head")(x)))


@pytest.fixture(scope="module")
def files(keras, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    model = _cnn(keras)
    model.save(folder / "net.keras")
    model.save(folder / "net.h5")
    return folder, model


@pytest.fixture(scope="module")
def changed():
    """A function that writes a .keras file again with its configuration changed, and records added or replaced."""
    return _changed


def _changed(source, target, change, more=(), *, packed=False):
    """Write a .keras file again with its configuration changed, and records added or replaced."""
    with zipfile.ZipFile(source) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(records["config.json"])
    change(config)
    records["config.json"] = json.dumps(config).encode()
    records |= dict(more)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    target.write_bytes(stream.getvalue())
    return target
