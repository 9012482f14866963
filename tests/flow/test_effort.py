"""Levels of effort: what they plan, what they forecast, and a run of one as a user types it."""

from __future__ import annotations

import pytest

from haversack.base.errors import UsageError
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.compress.prepare.contract import SHELF
from haversack.flow.effort import DEFAULT, EFFORTS, effort
from haversack.flow.proposals import proposals
from haversack.flow.request import Request


def network():
    shape = TensorSpec(("batch", 4, 8, 8), "float32")
    image = Node("x:input#0", "input", "x", (), shape)
    conv = Node(
        "c:conv2d#0", "conv2d", "c", (image.key,), shape, weight="c.weight", parameters=("c.weight",), macs=9000,
        attributes={"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1},
    )  # fmt: skip
    return Graph((image, conv), (image.key,), (conv.key,))


@pytest.mark.parametrize("name", list(EFFORTS))
def test_static_plans_end_with_the_rounding_of_their_level(name):
    spend = effort(name)
    found = proposals(network(), "onnxruntime", ("int8", "float32"), ("onnxruntime",), spend)
    for plan in found.variants:
        assert plan.prepare[-1] == spend.rounding
        assert plan.origin.endswith(spend.words)
    SHELF.build(spend.rounding.part, spend.rounding.settings)
    assert all(spend.rounding not in plan.prepare for plan in found.fallbacks)


def test_more_effort_costs_more():
    costs = [EFFORTS[name].forwards for name in ("fast", "default", "high", "highest")]
    assert costs == sorted(set(costs))
    assert Request("job.py").effort == DEFAULT


def test_a_level_that_is_none():
    with pytest.raises(UsageError, match="did you mean fast") as caught:
        effort("fats")
    assert caught.value.next_step == "one of fast, default, high, highest"
    assert caught.value.exit_code == 2


def test_an_effort_is_a_word():
    with pytest.raises(UsageError, match="not text") as caught:
        Request("job.py", effort=3)
    assert caught.value.where == "effort"
