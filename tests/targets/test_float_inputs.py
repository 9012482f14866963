"""Numbers that come in as float32, in the runtimes themselves, as near to the edge of two codes as they can lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from haversack import load
from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Encodings
from haversack.base.job import Job
from haversack.base.profile import TensorStatistics
from haversack.compress import activations
from haversack.compress.quantize.contract import SHELF as QUANTIZERS
from haversack.targets.contract import SHELF
from haversack.tools.data import interface

RUNTIMES = ("onnxruntime", "litert", "executorch")
HIGHS = (0.777, 10.475, 200.9)
NEIGHBOURS = 4


class Pool(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.max_pool2d(x, 2)


def exported():
    batch = (np.zeros((1, 1, 2 * NEIGHBOURS + 1, 510), np.float32).repeat(2, axis=2).repeat(2, axis=3),)
    return load.export(Job("pool", lambda: Pool().eval(), lambda: iter([batch]), lambda: iter([]), "top1"), batch=batch)


def encoded(model, high):
    counts = np.zeros(64, np.int64)
    counts[-1] = 1
    spans = {node.out: TensorStatistics(-high, high, counts, -high, high, 1) for node in model.graph.nodes}
    ties = Constraints(ties=(frozenset(spans),))
    made, findings = activations.encode(model.graph, frozenset(spans), spans, QUANTIZERS.build("minmax"), ties)
    assert not findings
    return made


def beside_halves(encoding):
    """Return float32 values [1, 1, neighbours, 510]: each half of a step, and what lies next to it."""
    halves = ((np.arange(-255, 255) + 0.5) * float(encoding.scale)).astype(np.float32)
    rows = [halves]
    for way in (-np.inf, np.inf):
        near = halves
        for _ in range(NEIGHBOURS):
            near = np.nextafter(near, np.float32(way))
            rows.append(near)
    return np.stack(rows)[None, None]


def codes(runtime, model, tensors, values, folder):
    """Return the codes that a runtime gives values, float32 of any shape as the model's input."""
    target = SHELF.build(runtime)
    artifact = target.lower(model, Encodings(tensors), folder)
    session = target.open_session(folder / artifact.files[0].path, artifact.session_options, 1)
    fed = interface.as_file(artifact, {model.inputs[0].name: values.repeat(2, axis=2).repeat(2, axis=3)})
    (made,) = interface.as_model(artifact, session.run(fed)).values()
    session.close()
    return np.rint(made / tensors[model.graph.nodes[0].out].scale).astype(int)


@pytest.mark.parametrize("high", HIGHS)
def test_every_runtime_gives_them_the_same_codes(high, tmp_path):
    model = exported()
    tensors = encoded(model, high)
    values = beside_halves(tensors[model.graph.nodes[0].out])
    first, *others = (codes(name, model, tensors, values, tmp_path / name) for name in RUNTIMES)
    assert len(np.unique(first)) == 256
    assert [int((other != first).sum()) for other in others] == [0, 0]


def test_as_their_range_alone_would_have_it_they_differ(tmp_path):
    model = exported()
    plain = Affine(8, signed=False, axis=None, scale=np.float32(2 * 10.475 / 255), zero_point=np.int32(128))
    tensors = {node.out: plain for node in model.graph.nodes}
    values = beside_halves(plain)
    first, *others = (codes(name, model, tensors, values, tmp_path / name) for name in RUNTIMES)
    assert all((other != first).any() for other in others)
