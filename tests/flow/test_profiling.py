"""What is worth knowing of a model's layers, by the model, its runtimes and what is limited."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.model import Model
from haversack.base.plan import PRECISIONS
from haversack.flow.profiling import Looking

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


def test_what_decides_a_profile_is_in_its_key():
    first = Looking(network("linear"), {"a:linear#0": frozenset({4})}, [EVERYTHING], limited=True)
    others = [
        replace(first, narrow={}),
        replace(first, precisions=[EVERYTHING - {"w4a8"}]),
        replace(first, light=False),
        replace(first, limited=False),
    ]
    keys = [str(one.key) for one in (first, *others)]
    assert len(set(keys)) == len(keys)
    assert replace(first, precisions=[EVERYTHING, EVERYTHING]).key == first.key


def test_only_what_all_runtimes_have_is_shared():
    looking = Looking(network("linear"), {}, [frozenset({"int8", "float16"}), frozenset({"int8", "w4a8"})])
    assert looking.shared == {"int8"}
