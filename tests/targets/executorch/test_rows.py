"""Ops that XNNPACK takes of images alone, on lines and rows; and what ExecuTorch itself raises, told as a refusal."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError
from haversack.targets.executorch import ExecuTorch
from haversack.targets.executorch import skeleton as skeletons
from haversack.targets.reference import Reference

TARGET = ExecuTorch()


def sloped(shape):
    import torch
    from torch import nn

    class Sloped(nn.Module):
        """A layer, a rectifier with a slope for each channel, and another layer."""

        def __init__(self):
            super().__init__()
            line = len(shape) == 3
            self.first = nn.Conv1d(shape[1], 4, 3) if line else nn.Linear(shape[1], 4)
            self.slope = nn.PReLU(4)
            self.last = nn.Conv1d(4, 2, 1) if line else nn.Linear(4, 2)
            with torch.no_grad():
                self.slope.weight.copy_(torch.tensor([0.1, -0.5, 2.0, 0.0]))

        def forward(self, x):
            return self.last(self.slope(self.first(x)))

    torch.manual_seed(0)
    return Sloped()


@pytest.mark.parametrize("shape", [(1, 3, 12), (1, 5)], ids=["line", "rows"])
@pytest.mark.parametrize("form", ["float", "channel"])
def test_a_slope_for_each_channel(exported, encoded, shape, form, tmp_path):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = exported(sloped(shape), x)
    encodings = Encodings.none() if form == "float" else encoded(model, (x,), granularity=form)
    TARGET.lower(model, encodings, tmp_path)
    found = TARGET.open_session(tmp_path / "model.pte").run({model.inputs[0].name: x})[model.outputs[0].name]
    wanted = Reference().run(model, encodings, (x,))[0]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_whatever_executorch_raises_is_a_refusal(exported, monkeypatch, tmp_path):
    """Its pass manager raises an Exception and nothing more; a traceback would say nothing of the model."""
    x = np.zeros((1, 5), np.float32)
    model = exported(sloped(x.shape), x)

    def broken(*_):
        raise Exception("An error occurred when running the 'Some' pass\nand more")

    monkeypatch.setattr(skeletons, "_alone", broken)
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, Encodings.none(), tmp_path)
    assert "ExecuTorch does not lower it: Exception: An error occurred when running the 'Some' pass" in str(
        caught.value
    )
    assert "and more" not in str(caught.value)
    (fault,) = TARGET.refusals(model)
    assert "ExecuTorch does not lower it" in fault.cause
