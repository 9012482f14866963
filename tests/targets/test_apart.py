"""What is joined at a model's end keeps scales of its own where ranges differ: boxes beside scores, in all runtimes."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from haversack import load
from haversack.base.constraints import Constraints
from haversack.base.job import Job
from haversack.base.plan import Plan, Step
from haversack.compress.apply import apply
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file, to_model
from haversack.tools.graph.roles import Role, role

THREE = ("onnxruntime", "litert", "executorch")
WIDE = 640.0


class Head(nn.Module):
    """Boxes in pixels and scores up to 1; ``ends`` joins them, and does what follows."""

    def __init__(self, ends, wide=WIDE, *, clamps=True):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.box, self.score = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)
        self.after = nn.Conv2d(10, 4, 1)
        self.ends, self.clamps = ends, clamps
        with torch.no_grad():
            self.box.weight *= wide
            self.box.bias *= wide

    def forward(self, x):
        x = torch.relu(self.body(x))
        score = self.score(x)
        return self.ends(self, self.box(x), torch.clamp(score, 0, 1) if self.clamps else score)


def joined(_, box, score):
    return torch.cat([box, score], 1)


ENDS = {
    "joined": joined,
    "joined and flattened": lambda net, box, score: joined(net, box, score).flatten(2),
    "flattened and joined": lambda _, box, score: torch.cat([box.flatten(2), score.flatten(2)], 1),
    "turned": lambda net, box, score: joined(net, box, score).flatten(2).transpose(1, 2),
    "joined, then computed on": lambda net, box, score: torch.sigmoid(joined(net, box, score)),
    "joined twice": lambda net, box, score: torch.cat([joined(net, box, score), joined(net, box, score)], 2),
}
READ_ON = {
    "read by a layer": lambda net, box, score: net.after(joined(net, box, score)),
    "read by a layer, and given": lambda net, box, score: (net.after(joined(net, box, score)), joined(net, box, score)),
}


def made(ends, wide=WIDE, names=THREE, *, clamps=True):
    torch.manual_seed(0)
    net = Head(ends, wide, clamps=clamps).eval()
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    model = load.export(Job("net", lambda: net, lambda: [(x,)], list, ""))
    demands = Constraints.union(SHELF.build(name).demands(model) for name in names)
    plan = Plan(names[0], uniform(model.graph, "int8", integer_ops=demands.integer_ops), (), Step("minmax"), names)
    found = apply(model, plan, ranges=lambda one: ranges(one, [(x,)]), constraints=demands, samples=lambda: [(x,)])
    return found, model, x


def kinds(found):
    return [one.kind for one in found.findings if one.kind in {"joined-in-float", "range-mixing"}]


@pytest.mark.parametrize("name", ENDS)
def test_scores_keep_their_codes_and_it_is_told_where(name):
    found, model, x = made(ENDS[name])
    assert set(kinds(found)) == {"joined-in-float"}
    told = next(one for one in found.findings if one.kind == "joined-in-float")
    first, second = re.findall(r"(?:spans|out) ([0-9.e+]+)", told.text)
    assert float(first) < 1.0
    assert float(second) > 100.0
    torch.manual_seed(0)
    with torch.no_grad():
        exact = Head(ENDS[name]).eval()(torch.from_numpy(x)).numpy()
    meant = Reference().run(found.model, found.encodings, (x,))[0]
    narrow = np.abs(exact) <= 1.0
    assert len(np.unique(meant[narrow])) > 30
    joins = [node for node in model.graph.nodes if role(node) is Role.CONCAT]
    assert all(found.encodings.affine(node.out) is None for node in joins)


@pytest.mark.parametrize("name, target", list(product(ENDS, THREE)))
def test_every_runtime_gives_the_references_bits(name, target, tmp_path):
    found, _, x = made(ENDS[name])
    part = SHELF.build(target)
    artifact = part.lower(found.model, found.encodings, tmp_path)
    assert artifact.injected == artifact.read_back > 0
    session = part.open_session(tmp_path / artifact.files[0].path, artifact.session_options)
    port = artifact.inputs[0].name
    out = artifact.outputs[0].name
    given = session.run({port: to_file(x, artifact.layouts.get(port, ""))})[out]
    given = to_model(given, artifact.layouts.get(out, ""))
    meant = Reference().run(found.model, found.encodings, (x,))[0]
    if name == "joined, then computed on":  # a float operation: its last bit is the runtime's own
        np.testing.assert_allclose(given, meant, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(given, meant)


@pytest.mark.parametrize("name", READ_ON)
def test_what_layers_read_is_told_and_left_as_it_is(name):
    found, model, _ = made(READ_ON[name])
    assert set(kinds(found)) == {"range-mixing"} | ({"joined-in-float"} if name.endswith("given") else set())
    joins = [node for node in model.graph.nodes if role(node) is Role.CONCAT]
    assert all(found.encodings.affine(node.out) is not None for node in joins[:1])


@pytest.mark.parametrize("wide, apart", [(1.0, False), (1.5, False), (8.0, True), (64.0, True)])
def test_ranges_alike_are_joined_in_integers(wide, apart):
    found, _, _ = made(joined, wide, clamps=False)
    assert ("joined-in-float" in kinds(found)) == apart
    assert "range-mixing" not in kinds(found)
