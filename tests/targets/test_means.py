"""Means in the runtimes themselves, on sums that come as near to a half as sums of codes can."""

from __future__ import annotations

import math

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
from haversack.tools.numerics.ties import tie_free

CHANNELS = 64
RUNTIMES = ("onnxruntime", "litert", "executorch")


class Pooled(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 1)


def exported(height, width):
    batch = (np.zeros((1, CHANNELS, height, width), np.float32),)
    job = Job("pooled", lambda: Pooled().eval(), lambda: iter([batch]), lambda: iter([]), "top1")
    return load.export(job, batch=batch)


def covering(high):
    counts = np.zeros(64, np.int64)
    counts[-1] = 1
    return TensorStatistics(0.0, high, counts, 0.0, high, 1)


def encoded(model, demands: Constraints, ratio):
    keys = [node.out for node in model.graph.nodes]
    spans = {key: covering(255.0 * (1.0 if key == keys[-1] else ratio)) for key in keys}
    return activations.encode(model.graph, frozenset(keys), spans, QUANTIZERS.build("minmax"), demands)


def nearest_to_halves(ratio, count):
    """Return the sums of codes, int64 [255], whose means lie nearest to each half of a step."""
    halves = np.arange(255) + 0.5
    return np.clip(np.rint(halves * count / ratio), 0, 255 * count).astype(np.int64)


def pictures(sums, height, width):
    """Yield codes, float32 [1, channels, height, width], that have these sums."""
    count = height * width
    for start in range(0, len(sums), CHANNELS):
        part = np.resize(sums[start : start + CHANNELS], CHANNELS)
        flat = (part // count)[:, None] + (np.arange(count) < (part % count)[:, None])
        yield part, flat.astype(np.float32).reshape(1, CHANNELS, height, width)


def differing(runtime, model, encodings, ratio, folder):
    """Count the means, near a half, that a runtime rounds otherwise than exact arithmetic does."""
    first, last = (encodings.affine(node.out) for node in (model.graph.nodes[0], model.graph.nodes[-1]))
    height, width = model.inputs[0].spec.shape[2:]
    target = SHELF.build(runtime)
    artifact = target.lower(model, encodings, folder)
    session = target.open_session(folder / artifact.files[0].path, artifact.session_options, 1)
    count = 0
    exact_ratio = float(first.scale) / float(last.scale)
    for sums, codes in pictures(nearest_to_halves(exact_ratio, height * width), height, width):
        fed = interface.as_file(artifact, {model.inputs[0].name: codes * first.scale})
        (made,) = interface.as_model(artifact, session.run(fed)).values()
        wanted = np.clip(np.rint(sums * (exact_ratio / (height * width))), 0, 255)
        count += int((np.rint(made.reshape(-1) / last.scale) != wanted).sum())
    session.close()
    return count


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("height", "width", "ratio"), [(16, 30, 10.475), (28, 28, 3.0), (32, 32, 2.1), (15, 15, 1.3), (7, 7, 9.7)]
)
def test_every_runtime_rounds_a_mean_as_exact_arithmetic_does(runtime, height, width, ratio, tmp_path):
    model = exported(height, width)
    tensors, findings = encoded(model, SHELF.build(runtime).constraints(model.graph), ratio)
    assert not findings
    assert math.isclose(float(tensors[model.graph.nodes[0].out].scale), ratio, rel_tol=0.2)
    assert differing(runtime, model, Encodings(tensors), ratio, tmp_path) == 0


@pytest.mark.parametrize("runtime", ["litert", "executorch"])
def test_ratios_without_ties_alone_do_not_do(runtime, tmp_path):
    """What was demanded before: 480 values, a multiple of 32/501, and XNNPACK rounds some sums otherwise."""
    model = exported(16, 30)
    out = Affine(8, signed=False, axis=None, scale=np.float32(0.00884972419589758), zero_point=np.int32(0))
    scale = tie_free(10.475 * float(out.scale), out.scale, 501, 32)
    source = Affine(8, signed=False, axis=None, scale=scale, zero_point=np.int32(0))
    keys = [node.out for node in model.graph.nodes]
    encodings = Encodings({**dict.fromkeys(keys[:-1], source), keys[-1]: out})
    assert differing(runtime, model, encodings, 10.475, tmp_path) > 0
