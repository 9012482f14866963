"""Versions of runtimes: the pinned ones are verified; with others encodings are refused before anything is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, UsageError
from haversack.base.versions import fits
from haversack.flow import doctor
from haversack.flow.request import Request, runtimes
from haversack.targets.contract import SHELF
from haversack.tools.graph import canonical
from haversack.tools.numerics import affine

PINNED = dict(
    re.findall(
        r"^([A-Za-z0-9._-]+)==([^\s;]+)", (Path(__file__).parents[2] / "constraints.txt").read_text(), re.MULTILINE
    )
)
RUNNING = ("onnxruntime", "litert", "executorch", "ncnn")
OTHERS = {
    "onnxruntime": ("onnxruntime", "1.99.0"),
    "litert": ("ai-edge-litert", "9.0"),
    "executorch": ("executorch", "2.0"),
    "ncnn": ("ncnn", "2.0"),
}


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Let another version of a distribution be installed: its metadata are found first."""

    def install(name, version):
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return install


@pytest.fixture(scope="module")
def model():
    import torch

    torch.manual_seed(0)
    program = torch.export.export(torch.nn.Linear(4, 3).eval(), (torch.zeros(1, 4),))
    return canonical.to_model(program, "one")


@pytest.fixture(scope="module")
def encodings(model):
    node = next(node for node in model.graph.nodes if node.op == "linear")
    weight = model.weights[node.weight]
    key = f"{node.key}:weight"
    encoding = affine.symmetric(np.asarray(np.abs(weight).max(1) / 127, np.float32), 8, 0)
    return Encodings({key: encoding}, {key: affine.quantize(weight, encoding)})


@pytest.mark.parametrize("name", SHELF.names())
def test_the_pinned_versions_are_verified(name):
    target = SHELF.build(name)
    assert set(target.verified) <= set(target.packages)
    assert all(fits(PINNED[package], limits) for package, limits in target.verified.items())
    assert all("<" in limits for limits in target.verified.values()), "a range without an end verifies what nobody saw"


@pytest.mark.parametrize("name", RUNNING)
def test_what_is_installed_here_is_verified(name):
    assert SHELF.build(name).verified
    assert SHELF.build(name).unverified() == ()


@pytest.mark.parametrize("name", RUNNING)
def test_another_version_is_refused_before_anything_is_written(name, pretend, model, encodings, tmp_path):
    package, version = OTHERS[name]
    pretend(package, version)
    folder = tmp_path / "out"
    with pytest.raises(ConversionError) as caught:
        SHELF.build(name).lower(model, encodings, folder)
    limits = SHELF.build(name).verified[package]
    assert f"{package}: version {version} is installed, {limits} is verified" in str(caught.value)
    assert caught.value.next_step == f"pip install '{package}{limits}'"
    assert not folder.exists()


def test_with_a_verified_version_the_same_file_is_written(model, encodings, tmp_path):
    artifact = SHELF.build("litert").lower(model, encodings, tmp_path)
    assert artifact.injected == artifact.read_back == 13


def test_a_float_file_holds_no_parameters_and_is_written(pretend, model, tmp_path):
    pretend(*OTHERS["litert"])
    artifact = SHELF.build("litert").lower(model, Encodings.none(), tmp_path)
    assert (tmp_path / artifact.files[0].path).is_file()


def test_the_doctor_warns_and_does_not_fail(pretend):
    pretend(*OTHERS["litert"])
    found = doctor.opened("litert")
    assert found.works
    assert found.unverified == ("ai-edge-litert: version 9.0 is installed, >=2.3,<2.4 is verified",)
    told = doctor.Examination(doctor.facts.of_machine(), "", doctor.packages(), (found,), "", 1 << 40, None)
    warnings = [line for line in told.lines() if "warning" in line]
    assert warnings == [f"  warning: {found.unverified[0]}; only float files are written with it"]
    assert not any("9.0" in fault for fault in told.faults())
    assert told.data()["targets"][0]["unverified"] == found.unverified


def test_any_leaves_it_out_and_says_why(pretend):
    pretend(*OTHERS["executorch"])
    found = runtimes(Request("job.py", targets=("any",)))
    assert "executorch" not in found.targets
    assert "version 2.0 is installed" in found.left_out["executorch"]
    with pytest.raises(UsageError):
        runtimes(Request("job.py", targets=("any",), platform="nowhere"))
