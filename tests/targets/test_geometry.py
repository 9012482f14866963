"""Windows of every kind in float: kernels, strides, holes, groups and pads that are not alike on both axes.

One network of many outputs holds all of them; each target writes it once, and PyTorch says what each must give. The
image is 7 by 10 with 6 channels, so that an exchanged axis, a lost column or a pad on the wrong side changes a value.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from haversack.base.encodings import Encodings
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.data.layouts import to_file, to_model
from haversack.tools.graph import canonical

RUNTIMES = ("onnxruntime", "litert", "ncnn")
CONVOLUTIONS = {
    "plain": {},
    "one by one": {"kernel_size": 1},
    "high": {"kernel_size": (3, 1), "padding": (1, 0)},
    "wide": {"kernel_size": (1, 4), "padding": (0, 2)},
    "even": {"kernel_size": 2, "padding": 1},
    "far steps down": {"stride": (3, 1)},
    "far steps across": {"stride": (1, 4)},
    "steps past the kernel": {"kernel_size": 1, "stride": (2, 3)},
    "holes down": {"dilation": (2, 1), "padding": (2, 1)},
    "holes across": {"dilation": (1, 3), "padding": (0, 3)},
    "holes and steps": {"dilation": 2, "stride": 2, "padding": 2},
    "two groups": {"groups": 2, "padding": 1},
    "three groups, more outputs": {"out_channels": 9, "groups": 3},
    "a group a channel": {"out_channels": 6, "groups": 6, "padding": 1, "stride": 2},
    "two outputs a channel": {"out_channels": 12, "groups": 6, "kernel_size": (2, 3)},
    "no bias": {"bias": False, "padding": (2, 0)},
    "one output": {"out_channels": 1},
    "as large as the image": {"kernel_size": (7, 10)},
    "the same size, even": {"kernel_size": 4, "padding": "same"},
    "the same size, holes": {"dilation": (2, 3), "padding": "same"},
    "valid": {"padding": "valid", "stride": 2},
}
LINES = {
    "a line": {},
    "a line of steps": {"stride": 3, "padding": 2},
    "a line with holes": {"dilation": 3, "padding": 3},
    "a line of groups": {"groups": 3, "out_channels": 6},
    "a line a channel": {"groups": 6, "out_channels": 6, "kernel_size": 2},
    "a line the same length": {"kernel_size": 4, "padding": "same"},
}
POOLS = {
    "pairs": {"kernel_size": 2},
    "high": {"kernel_size": (3, 1)},
    "wide": {"kernel_size": (1, 3), "stride": (1, 2)},
    "overlapping": {"kernel_size": 3, "stride": 1},
    "apart": {"kernel_size": 2, "stride": 3},
    "padded": {"kernel_size": 3, "stride": 2, "padding": 1},
    "padded down": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    "padded across": {"kernel_size": (2, 4), "stride": (1, 3), "padding": (0, 2)},
    "steps of each axis": {"kernel_size": 2, "stride": (1, 3)},
}
PADS = {
    "before": (1, 0, 2, 0),
    "behind": (0, 2, 0, 1),
    "all unlike": (1, 2, 3, 0),
    "across alone": (2, 1),
}


def functions():
    """Return name -> function of the image; the layers among them are modules."""
    torch.manual_seed(17)
    found = {}
    for name, how in CONVOLUTIONS.items():
        found[f"conv, {name}"] = nn.Conv2d(**{"in_channels": 6, "out_channels": 4, "kernel_size": 3, **how})
    for name, how in LINES.items():
        layer = nn.Conv1d(**{"in_channels": 6, "out_channels": 4, "kernel_size": 3, **how})
        found[f"conv, {name}"] = nn.Sequential(nn.Flatten(2), layer)
    for name, how in POOLS.items():
        found[f"most of, {name}"] = lambda x, how=how: functional.max_pool2d(x, **how)
        for own in (True, False) if "padding" in how else (True,):
            word = "" if own else ", pads not counted"
            found[f"mean of, {name}{word}"] = lambda x, how=how, own=own: functional.avg_pool2d(
                x, **how, count_include_pad=own
            )
    for (name, sides), value in itertools.product(PADS.items(), (0.0, -1.5)):
        found[f"pad {name} with {value}"] = lambda x, sides=sides, value=value: functional.pad(x, sides, value=value)
    for name, sides in PADS.items():  # what a convolution may do itself
        layer = nn.Conv2d(6, 3, 3, stride=2)
        found[f"pad {name}, conv"] = nn.Sequential(nn.ConstantPad2d((*sides, 0, 0)[:4], 0.0), layer)
    return found


class Windows(nn.Module):
    """All of them, an output each."""

    def __init__(self, found):
        super().__init__()
        self.layers = nn.ModuleDict({str(n): one for n, one in enumerate(found) if isinstance(one, nn.Module)})
        self.found = [None if isinstance(one, nn.Module) else one for one in found]

    def forward(self, x):
        return tuple(self.layers[str(n)](x) if one is None else one(x) for n, one in enumerate(self.found))


X = np.random.default_rng(5).normal(size=(2, 6, 7, 10)).astype(np.float32)
CAUSES = {"with -1.5": "a pad with a number that is not 0"}
LEFT_OUT = {
    "litert": {name: cause for name in functions() for end, cause in CAUSES.items() if name.endswith(end)},
}
"""Runtime -> what it has no form for, and what it says."""


def exported(names):
    """Return (Model, name -> what PyTorch gives) of some windows."""
    found = functions()
    net = Windows([found[name] for name in names]).eval()
    program = torch.export.export(net, (torch.from_numpy(X),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    outputs = [f"y{index}" for index in range(len(names))]
    with torch.no_grad():
        wanted = [value.numpy() for value in net(torch.from_numpy(X))]
    model = canonical.to_model(program, "windows", input_names=("x",), output_names=outputs)
    return model, dict(zip(names, wanted, strict=True))


@pytest.fixture(scope="module")
def windows():
    """The model of all, and what PyTorch gives by name."""
    return exported(list(functions()))


@pytest.fixture(scope="module", params=RUNTIMES)
def given_by(request, windows, tmp_path_factory):
    """A runtime's outputs by name."""
    kept = [name for name in functions() if name not in LEFT_OUT.get(request.param, ())]
    model = windows[0] if len(kept) == len(functions()) else exported(kept)[0]
    target, folder = TARGETS.build(request.param), tmp_path_factory.mktemp(request.param)
    assert target.refusals(model) == ()
    artifact = target.lower(model, Encodings.none(), folder)
    session = target.open_session(folder / artifact.files[0].path, artifact.session_options)
    found = session.run({"x": to_file(X, artifact.layouts.get("x", ""))})
    ports = [port.name for port in model.outputs]
    arrays = [to_model(found[name], artifact.layouts.get(name, "")) for name in ports]
    return request.param, dict(zip(kept, arrays, strict=True))


@pytest.mark.parametrize("name", functions())
def test_a_window_gives_what_pytorch_gives(windows, given_by, name):
    target, outputs = given_by
    if name in LEFT_OUT.get(target, ()):
        (fault,) = TARGETS.build(target).refusals(exported([name])[0])
        assert fault.where == ":pad#0"
        assert LEFT_OUT[target][name] in fault.cause
        return
    found, exact = outputs[name], windows[1][name]
    assert found.shape == exact.shape
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_no_two_windows_give_the_same(windows):
    """A row that another row repeats would test nothing."""
    wanted = windows[1]
    rows = {(value.shape, value.tobytes()) for value in wanted.values()}
    assert len(rows) == len(wanted)
