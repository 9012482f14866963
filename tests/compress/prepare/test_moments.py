"""Moments of layers' inputs, held against the rows that PyTorch's unfold gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.compress.prepare import moments as subject

LAYERS = {
    "linear": (nn.Linear(6, 4), (6,)),
    "tokens": (nn.Linear(6, 4), (5, 6)),
    "point": (nn.Conv2d(6, 4, 1), (6, 5, 5)),
    "conv": (nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
    "strided": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2)), (3, 7, 8)),
    "groups": (nn.Conv2d(6, 4, 3, groups=2), (6, 5, 5)),
    "deep": (nn.Conv2d(6, 6, 3, groups=6, padding=1), (6, 5, 5)),
    "line": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 9)),
    "same": (nn.Conv2d(3, 4, (3, 2), padding="same", dilation=(1, 3)), (3, 6, 7)),
    "valid": (nn.Conv1d(3, 4, 3, padding="valid"), (3, 9)),
}


def layer(make_model, name):
    module, shape = LAYERS[name]
    model = make_model(nn.Sequential(module), shape)
    node = next(node for node in model.graph.nodes if node.weight)
    return module, node, shape


def batches(shape, seed):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(0.5, 1, size=(3, *shape)).astype(np.float32)) for _ in range(4)]


def rows(module, value):
    """Return [groups, rows, n] by PyTorch's own unfold."""
    if isinstance(module, nn.Linear):
        return value.reshape(1, -1, value.shape[-1]).double().numpy()
    kernel, stride, dilation = (
        (*one, *[1] * (2 - len(one))) for one in (module.kernel_size, module.stride, module.dilation)
    )
    if module.padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        value = nn.functional.pad(value, [side for s in reversed(spans) for side in (s // 2, s - s // 2)])
    elif module.padding != "valid":
        value = nn.functional.pad(value, [side for size in reversed(module.padding) for side in (size, size)])
    image = value if value.ndim == 4 else value[..., None]
    found = nn.functional.unfold(image, kernel, dilation=dilation, stride=stride)
    found = found.reshape(len(value), module.groups, -1, found.shape[-1]).permute(1, 0, 3, 2)
    return found.reshape(module.groups, -1, found.shape[-1]).double().numpy()


def centred(one, other):
    one, other = (x - x.mean(axis=1, keepdims=True) for x in (one, other))
    return one.swapaxes(1, 2) @ other / one.shape[1]


@pytest.mark.parametrize("name", list(LAYERS))
def test_moments_are_those_of_all_rows(make_model, name):
    module, node, shape = layer(make_model, name)
    seen, exact = batches(shape, 1), batches(shape, 2)
    whole, halves = subject.moments(node, tuple(module.weight.shape), seen, exact)
    x, y = (np.concatenate([rows(module, batch) for batch in each], axis=1) for each in (seen, exact))
    assert whole.rows == x.shape[1]
    np.testing.assert_allclose(whole.hessian, centred(x, x), atol=1e-5)
    np.testing.assert_allclose(whole.cross, centred(y, x), atol=1e-5)
    first, second = halves
    x = np.concatenate([rows(module, batch) for batch in seen[1::2]], axis=1)
    np.testing.assert_allclose(second.hessian, centred(x, x), atol=1e-5)
    assert first.rows + second.rows == whole.rows


def test_one_batch_has_no_other_half(make_model):
    module, node, shape = layer(make_model, "linear")
    seen = batches(shape, 1)[:1]
    _, halves = subject.moments(node, tuple(module.weight.shape), seen, seen)
    assert len(halves) == 1


def test_many_places_are_thinned_out_evenly(make_model, monkeypatch):
    module, node, shape = layer(make_model, "deep")
    monkeypatch.setattr(subject, "LEAST", 10)
    monkeypatch.setattr(subject, "PER_UNKNOWN", 4)
    seen = batches(shape, 1)
    whole, _ = subject.moments(node, tuple(module.weight.shape), seen, seen)
    total = 4 * 3 * 25
    assert 4 * 9 <= whole.rows <= total // (total // 36) + 4 * 3
    full = centred(*[np.concatenate([rows(module, batch) for batch in seen], axis=1)] * 2)
    assert np.linalg.norm(whole.hessian - full) < 0.9 * np.linalg.norm(full)


@pytest.mark.parametrize("width", [16, 32, 60])
def test_no_column_of_a_picture_is_seen_alone(make_model, monkeypatch, width):
    """A step that the width divides would meet the left border in every row: its left taps would be always 0."""
    monkeypatch.setattr(subject, "LEAST", 256)
    monkeypatch.setattr(subject, "PER_UNKNOWN", 1)
    module = nn.Conv2d(1, 2, 3, padding=1)
    model = make_model(nn.Sequential(module), (1, width, width))
    node = next(node for node in model.graph.nodes if node.weight)
    seen = batches((1, width, width), 1)
    whole, _ = subject.moments(node, tuple(module.weight.shape), seen, seen)
    found = np.diagonal(whole.hessian[0]).reshape(3, 3)
    assert found.min() > 0.6


@pytest.mark.parametrize("size, spread", [(0.0, 0.0), (5.0, 0.0), (1000.0, 0.01), (-3e4, 1.0)])
def test_inputs_that_hardly_vary_have_moments_without_noise(make_model, size, spread):
    module, node, _ = layer(make_model, "linear")
    rng = np.random.default_rng(4)
    values = [(size + spread * rng.normal(size=(3, 6))).astype(np.float32) for _ in range(4)]
    seen = [torch.from_numpy(value.copy()) for value in values]
    whole, _ = subject.moments(node, tuple(module.weight.shape), seen, seen)
    rows = np.concatenate(values).astype(np.float64)[None]
    np.testing.assert_allclose(whole.hessian, centred(rows, rows), atol=1e-5 * spread**2)
    assert [value.tobytes() for value in values] == [value.numpy().tobytes() for value in seen]


def test_batches_that_do_not_pair_are_no_moments(make_model):
    module, node, shape = layer(make_model, "linear")
    with pytest.raises(ValueError, match="shorter"):
        subject.moments(node, tuple(module.weight.shape), batches(shape, 1), batches(shape, 2)[:2])
