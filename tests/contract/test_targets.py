"""What every target on the shelf promises, found by name and tried on one small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from haversack.base.candidate import Artifact
from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError, UsageError
from haversack.targets.contract import SHELF, Target
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file
from haversack.tools.graph import canonical
from haversack.tools.numerics import affine

NAMES = SHELF.names()


@pytest.fixture(scope="module")
def model():
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    program = torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return canonical.to_model(program, "small", input_names=["image"], output_names=["scores"])


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)


@pytest.fixture(params=NAMES)
def target(request):
    return SHELF.build(request.param)


@pytest.fixture(params=[name for name in NAMES if SHELF.type_of(name).runs_here])
def running(request):
    """A target whose files run here."""
    return SHELF.build(request.param)


@pytest.fixture
def weights_only(target, model):
    key = "4:linear#0:weight"
    weight = model.weights["4.weight"]
    scales = np.abs(weight).max(1) / 127
    half = target.constraints(model.graph).half_scales
    encoding = affine.symmetric(affine.half_up(scales) if half else scales, 8, 0)
    return Encodings({key: encoding}, {key: affine.quantize(weight, encoding)})


def test_the_shelf_has_targets_and_not_the_reference():
    assert "onnxruntime" in NAMES
    assert "reference" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_catalogue_line(name):
    assert len(SHELF.catalogue()[name]) > 20


def test_it_is_a_target(target):
    assert isinstance(target, Target)
    assert hash(target) == hash(type(target)())


def test_it_says_which_kernel_runs_each_precision(target):
    assert set(target.kernels) == set(target.precisions)
    floats = {one for one in target.precisions if target.kernels[one].startswith(("float", "half"))}
    assert floats == {"float32", "float16", "int8_weights", "palette"} & set(target.precisions)


def test_its_constraints_are_of_the_graph(target, model):
    found = target.constraints(model.graph)
    assert isinstance(found, Constraints)
    assert {"conv2d", "linear"} <= found.integer_ops
    assert found.bounds["1:relu#0:out"] == (0.0, float("inf"))


def test_it_takes_a_plain_network(target, model):
    assert target.refusals(model) == ()


def test_a_float_file_is_written_opened_and_runs(running, model, image, tmp_path):
    target = running
    artifact = target.lower(model, Encodings.none(), tmp_path / "new" / "folder")
    assert isinstance(artifact, Artifact)
    path = tmp_path / "new" / "folder" / artifact.files[0].path
    feeds = {"image": to_file(image, artifact.layouts.get("image", ""))}
    found = target.open_session(path, artifact.session_options).run(feeds)
    assert list(found) == ["scores"]
    np.testing.assert_allclose(
        found["scores"], Reference().run(model, Encodings.none(), (image,))[0], rtol=1e-4, atol=1e-6
    )
    assert [port.name for port in (*artifact.inputs, *artifact.outputs)] == ["image", "scores"]
    assert artifact.bytes == sum(file.stat().st_size for file in path.parent.iterdir())


def test_what_is_injected_is_read_back(target, model, weights_only, tmp_path):
    artifact = target.lower(model, weights_only, tmp_path)
    assert artifact.injected == artifact.read_back > 0
    found = target.read(tmp_path / artifact.files[0].path, artifact)
    assert found.digest == weights_only.digest


def test_the_same_bytes_twice(target, model, weights_only, tmp_path):
    one, two = (target.lower(model, weights_only, tmp_path / name) for name in ("one", "two"))
    assert [file.sha256 for file in one.files] == [file.sha256 for file in two.files]


def test_times_and_tensors_have_our_keys(running, model, image, tmp_path):
    target = running
    artifact = target.lower(model, Encodings.none(), tmp_path)
    path = tmp_path / artifact.files[0].path
    assert set(artifact.tensor_names) <= {node.out for node in model.graph.nodes}
    assert len(set(artifact.tensor_names)) > 3
    assert "0:conv2d#0" in target.layer_seconds(path, artifact, (image,), 2)
    shown = target.tensors(path, artifact, (image,), ["0:conv2d#0:out", "nobody:conv2d#0:out"])
    assert set(shown) <= {"0:conv2d#0:out"}
    assert target.unfused(path, artifact) == ()
    assert target.findings(path, artifact) == ()


@pytest.mark.parametrize("name", [name for name in NAMES if not SHELF.type_of(name).runs_here])
def test_what_does_not_run_here_says_where_it_does_and_is_never_opened(name, model, tmp_path):
    target = SHELF.build(name)
    artifact = target.lower(model, Encodings.none(), tmp_path)
    path = tmp_path / artifact.files[0].path
    assert len(target.runs_where.format(file="model.any")) > 20
    assert set(artifact.tensor_names) <= {node.out for node in model.graph.nodes}
    assert len(set(artifact.tensor_names)) > 3
    assert [port.name for port in (*artifact.inputs, *artifact.outputs)] == ["image", "scores"]
    assert artifact.bytes == sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert target.findings(path, artifact) == ()
    for call in (target.open_session, lambda path: target.layer_seconds(path, artifact, (), 1)):
        with pytest.raises(UsageError, match=type(target).__name__):
            call(path)


def test_encodings_of_another_model_are_refused(target, model, tmp_path):
    stray = Affine(8, False, None, np.array(1.0, np.float32), np.array(0, np.int32))
    with pytest.raises(ConversionError) as caught:
        target.lower(model, Encodings({"gone:conv2d#0:out": stray}), tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["gone:conv2d#0:out"]
    assert list(tmp_path.iterdir()) == []


def test_senseless_numbers_are_refused(target):
    with pytest.raises(UsageError, match="at least one thread"):
        target.open_session(Path("any"), {}, 0)
    with pytest.raises(UsageError, match="at least one run"):
        target.layer_seconds(Path("any"), None, (), 0)
