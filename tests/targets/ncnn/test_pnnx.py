"""Our files beside those that ncnn's own converter makes of the same network: another road to the same values."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Encodings
from haversack.targets.ncnn.read import beside
from haversack.targets.ncnn.session import extracted, feed, opened
from haversack.targets.ncnn.text import parse


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU6(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(),
        nn.Conv2d(16, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def theirs(net, tmp_path_factory):
    """Precision -> .param file of pnnx."""
    pnnx = pytest.importorskip("pnnx")
    folder = tmp_path_factory.mktemp("pnnx")
    torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3, 16, 16)), folder / "net.pt")
    found = {}
    for precision, half in (("float32", 0), ("float16", 1)):
        path = folder / f"{precision}.param"
        command = [pnnx.EXEC_PATH, "net.pt", "inputshape=[1,3,16,16]", f"fp16={half}"]
        command += [f"ncnnparam={path.name}", f"ncnnbin={beside(path).name}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        found[precision] = path
    return found


@pytest.fixture(scope="module")
def ours(net, exported, planned, picture, lowered_once):
    model = exported(net, picture(0, 2, 3, 16, 16))
    return {
        "float32": lowered_once(model, Encodings.none()),
        "float16": lowered_once(model, planned(model, [], "float16")),
    }


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("float16", 1e-3)])
def test_both_files_give_the_same(ours, theirs, picture, precision, tolerance):
    x = picture(9, 3, 3, 16, 16)
    runtime = opened(theirs[precision], 1)
    found = []
    for row in x:
        extractor = runtime.create_extractor()
        kept = feed(extractor, {"in0": row})
        found.append(extracted(extractor, "out0"))
        kept.clear()
    mine = ours[precision].file(x)[0]
    assert np.abs(mine).max() > 10 * tolerance
    np.testing.assert_allclose(mine, np.stack(found), rtol=0, atol=tolerance)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_both_files_are_of_one_size(ours, theirs, precision):
    assert beside(ours[precision].path).stat().st_size == beside(theirs[precision]).stat().st_size


def test_both_have_the_same_layers_but_for_names(ours, theirs):
    def kinds(path):
        lines = parse(path.read_bytes(), str(path))
        return [line.type for line in lines if line.type not in ("Split", "Noop", "Reshape")]

    assert kinds(ours["float32"].path) == kinds(theirs["float32"])


def test_pnnx_keeps_no_key_of_ours(ours, theirs):
    """Why its files are not read back: nothing in them says which layer of the model a number belongs to."""
    keys = {node.key for node in ours["float32"].model.graph.nodes if node.weight}
    mine = {line.name for line in parse(ours["float32"].path.read_bytes(), "ours")}
    other = {line.name for line in parse(theirs["float32"].read_bytes(), "theirs")}
    assert keys <= mine
    assert not keys & other
