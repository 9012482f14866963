"""What is worth knowing of a model's layers, by the model, its runtimes and what is limited."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack import metrics
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.job import Job
from haversack.base.model import Model
from haversack.base.plan import PRECISIONS
from haversack.base.progress import silent
from haversack.flow.data import Data
from haversack.flow.profiling import Looking
from haversack.load import export
from haversack.targets.contract import SHELF

SPEC = TensorSpec(("batch", 8), "float32")
EVERYTHING = frozenset({*PRECISIONS, "palette"})


def network(op):
    """Return a model of one layer that does all its work."""
    start = Node(":input#0", "input", "x", (), SPEC)
    layer = Node(f"a:{op}#0", op, "a", (start.key,), SPEC, weight="w", parameters=("w",), macs=64)
    return Model("one", Graph((start, layer), (start.key,), (layer.key,)), None, {}, (), ())


@pytest.mark.parametrize(
    ("op", "precisions", "limited", "expected"),
    [
        ("linear", [EVERYTHING], True, True),
        ("linear", [EVERYTHING], False, False),
        ("linear", [EVERYTHING, EVERYTHING - {"palette"}], True, False),
        ("conv2d", [EVERYTHING], True, False),
    ],
    ids=["limited", "nothing is limited", "one runtime has none", "few bits under integer kernels are better"],
)
def test_what_palettes_lose_is_worth_knowing(op, precisions, limited, expected):
    looking = Looking(network(op), {}, precisions, limited=limited)
    assert looking.palettes is expected


GROUPS = {"a:linear#0": frozenset({32, 64})}


@pytest.mark.parametrize(
    ("op", "precisions", "limited", "expected"),
    [
        ("linear", [EVERYTHING], True, GROUPS),
        ("linear", [EVERYTHING], False, {}),
        ("linear", [EVERYTHING, EVERYTHING - {"w4_grouped"}], True, {}),
        ("conv2d", [EVERYTHING], True, {}),
    ],
    ids=["limited", "nothing is limited", "one runtime has none", "activations have fixed scales"],
)
def test_what_groups_lose_is_worth_knowing(op, precisions, limited, expected):
    assert Looking(network(op), {}, precisions, limited=limited, groups=GROUPS).grouped == expected


def trained(job):
    """Return two linear layers with weights, of which only the first has rows that groups divide."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 4)).eval()
    return export(replace(job, model=lambda: net))


def test_groups_are_tried_and_weighed_where_a_layer_can_have_them():
    rows = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    labels = np.zeros(8, np.int64)
    data = {"calibration": lambda: [(rows,)], "evaluation": lambda: [((rows,), labels)]}
    job = Job("net", model=lambda: None, metric="top1", **data)
    model = trained(job)
    groups = SHELF.build("onnxruntime").constraints(model.graph).groups
    looking = Looking(model, {}, [EVERYTHING], limited=True, groups=groups)
    made = looking.taken({}, {}, Data(job, None, metrics.resolve("top1")), silent)
    first, last = "0:linear#0", "2:linear#0"
    for known in (made.sensitivity, made.rates):
        assert "w4_grouped/32" in known[first]
        assert "int8_dynamic" in known[last]
        assert "w4_grouped/128" not in known[first]
        assert not any("w4_grouped" in kind for kind in known[last])
    losses, bits = made.sensitivity[first], made.rates[first]
    assert losses["int8_dynamic"] < losses["w4_grouped/32"] < 0.5
    assert 2.5 < bits["w4_grouped/32"] < 4 + 16 / 32 < bits["int8_dynamic"]


def test_what_decides_a_profile_is_in_its_key():
    first = Looking(network("linear"), {"a:linear#0": frozenset({4})}, [EVERYTHING], limited=True)
    others = [
        replace(first, narrow={}),
        replace(first, precisions=[EVERYTHING - {"w4a8"}]),
        replace(first, light=False),
        replace(first, limited=False),
        replace(first, groups=GROUPS),
        replace(first, rows=16),
    ]
    keys = [str(one.key) for one in (first, *others)]
    assert len(set(keys)) == len(keys)
    assert replace(first, precisions=[EVERYTHING, EVERYTHING]).key == first.key


def test_only_what_all_runtimes_have_is_shared():
    looking = Looking(network("linear"), {}, [frozenset({"int8", "float16"}), frozenset({"int8", "w4a8"})])
    assert looking.shared == {"int8"}
