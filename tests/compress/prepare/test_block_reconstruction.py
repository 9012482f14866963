"""Block reconstruction on small networks: blocks, the guard, learned scales end to end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from few_codes import error, images, narrow
from torch import nn

from haversack.base.encodings import Encodings
from haversack.base.plan import WIDTHS, LayerPlan, Plan, Step
from haversack.compress.apply import apply
from haversack.compress.plans import uniform
from haversack.compress.prepare import block_reconstruction
from haversack.compress.prepare.bias_correct import BiasCorrect
from haversack.compress.prepare.block_reconstruction import BlockReconstruction, _blocks
from haversack.compress.prepare.block_reconstruction import _as_stored as as_stored
from haversack.compress.prepare.by_outputs import FACTORS
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.learnt import BOUND
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.targets.reference import Reference
from haversack.tools.graph.segments import Segments
from haversack.tools.numerics.affine import BIAS_LIMIT, dequantize

FEW = {"epochs": 40, "samples": 64}


@pytest.fixture(scope="module")
def made(folded):
    """Return (bits, part or parts, settings of the first, events) -> the folded model in integers, rounded so."""

    def make(bits, part, events=None, **settings):
        target = TARGETS.build("onnxruntime")
        demands = target.demands(folded)
        layers = uniform(folded.graph, WIDTHS[bits], weights=Step("mse"), widths=demands.widths)
        first, *others = (part,) if isinstance(part, str) else part
        steps = (Step(first, settings), *map(Step, others))
        return apply(
            folded,
            Plan("onnxruntime", layers, steps, Step("mse"), ("onnxruntime",)),
            ranges=lambda model: ranges(model, images(1)),
            constraints=demands,
            samples=lambda: images(1),
            sink=(events if events is not None else []).append,
        )

    return make


@pytest.mark.parametrize("bits", [2, 3])
def test_unseen_samples_come_nearer_to_float_than_by_bias_correction(folded, made, bits):
    found = {}
    for part, settings in (("bias_correct", {}), ("block_reconstruction", FEW)):
        one = made(bits, part, **settings)
        found[part] = error(one.model, one.encodings, folded, images(2))
    assert found["block_reconstruction"] < 0.8 * found["bias_correct"]


def test_scales_are_learnt_within_their_bound_and_weights_lie_on_them(folded, made):
    plain, mine = made(3, "bias_correct", samples=64), made(3, "block_reconstruction", **FEW)
    least, most = min(FACTORS) * (1 - BOUND), max(FACTORS) * (1 + BOUND)
    learnt = 0
    for node in folded.graph.nodes:
        key = f"{node.key}:weight"
        if mine.encodings.affine(key) is not None:
            ratio = mine.encodings.affine(key).scale / plain.encodings.affine(key).scale
            assert ((ratio > least - 1e-3) & (ratio < most + 1e-3)).all()
            learnt += int((np.abs(ratio[:, None] - np.array(FACTORS)).min(axis=1) > 1e-3).sum())
            values = dequantize(mine.encodings.integers[key], mine.encodings.affine(key))
            np.testing.assert_array_equal(values, mine.model.weights[node.weight])
    assert learnt > 0


def test_the_step_that_follows_sees_the_new_scales_and_integers(folded, made, monkeypatch):
    seen = []
    plain = BiasCorrect._inner
    monkeypatch.setattr(BiasCorrect, "_inner", lambda self, *both: seen.append(both) or plain(self, *both))
    one = made(3, ("block_reconstruction", "bias_correct"), **FEW)
    ((model, context),) = seen
    for key, codes in context.encodings.integers.items():
        weight = model.weights[folded.graph.by_key[key.removesuffix(":weight")].weight]
        np.testing.assert_array_equal(dequantize(codes, context.encodings.affine(key)), weight)
        np.testing.assert_array_equal(codes, one.encodings.integers[key])


@pytest.mark.parametrize("bits, part, few", [(4, "block_reconstruction", FEW), (4, "gptq", {}), (2, "adaround", {})])
def test_the_file_gives_what_the_reference_gives_bit_for_bit(folded, made, tmp_path, bits, part, few):
    one = made(bits, part, **few)
    target = TARGETS.build("onnxruntime")
    artifact = target.lower(one.model, one.encodings, tmp_path)
    session = target.open_session(tmp_path / artifact.files[0].path, artifact.session_options)
    for (batch,) in images(2, count=3):
        (wanted,) = Reference().run(one.model, one.encodings, (batch,))
        (mine,) = session.run({one.model.inputs[0].name: batch}).values()
        np.testing.assert_array_equal(mine, wanted)


def test_a_scale_is_raised_for_a_bias_that_outgrew_it_and_the_weight_is_stored_on_that_grid(folded, monkeypatch, made):
    """A learnt bias so large that its channel's scale must go up: the codes are those of the raised scale."""
    plain = block_reconstruction.Learnt.hardened

    def swollen(self):
        one = plain(self)
        return replace(one, bias=one.bias + np.float32(1e6))

    monkeypatch.setattr(block_reconstruction.Learnt, "hardened", swollen)
    monkeypatch.setattr(block_reconstruction._Reconstruction, "_error", lambda self, *_: next(falling))
    falling = iter(np.linspace(1, 0.1, 1000))
    one = made(4, "block_reconstruction", **FEW)
    raised = [finding for finding in one.findings if finding.kind == "dead-channel"]
    assert raised
    for node in folded.graph.nodes:
        weight = one.encodings.affine(f"{node.key}:weight")
        source = one.encodings.affine(f"{node.inputs[0]}:out") if weight is not None else None
        if weight is not None and source is not None:
            room = BIAS_LIMIT * (source.scale * weight.scale).astype(np.float64)
            assert (np.abs(one.model.weights[node.bias]) <= room).all()
            values = dequantize(one.encodings.integers[f"{node.key}:weight"], weight)
            assert (
                np.abs(values - one.model.weights[node.weight])
                <= 0.5001 * weight.scale.reshape(-1, *[1] * (values.ndim - 1))
            ).all()


def test_nothing_is_kept_that_does_worse_on_the_batches_held_back(made, monkeypatch):
    """Training that ruins every layer: what comes out is what there is without training."""
    monkeypatch.setattr(block_reconstruction._Reconstruction, "_train", lambda *_: False)
    plain = made(4, "block_reconstruction", **FEW)
    monkeypatch.undo()

    def ruined(self, block, learnt, *_):
        with torch.no_grad():
            for layer in learnt:
                for number in layer.numbers():
                    number.mul_(-1).sub_(30.0)
        return True

    monkeypatch.setattr(block_reconstruction._Reconstruction, "_train", ruined)
    assert made(4, "block_reconstruction", **FEW).encodings.digest == plain.encodings.digest


def test_what_is_held_back_is_not_trained_on(folded, made, monkeypatch):
    seen = []
    plain = block_reconstruction._Reconstruction._train

    def train(self, block, learnt, pairs, error, seed):
        seen.append([id(alive) for alive, _ in pairs])
        return plain(self, block, learnt, pairs, error, seed)

    judged = []
    error_of = block_reconstruction._Reconstruction._error

    def judge(self, block, pairs, hooks):
        judged.append([id(alive) for alive, _ in pairs])
        return error_of(self, block, pairs, hooks)

    monkeypatch.setattr(block_reconstruction._Reconstruction, "_train", train)
    monkeypatch.setattr(block_reconstruction._Reconstruction, "_error", judge)
    made(4, "block_reconstruction", **FEW)  # 64 rows are four batches
    assert seen
    assert all(len(one) == 3 for one in seen)
    assert all(len(one) == 1 for one in judged)
    assert all(not set(one) & set(held) for one, held in zip(seen, judged[::2], strict=True))


def test_it_tells_of_blocks_and_of_how_many_kept_what_they_learnt(made):
    events = []
    one = made(4, "block_reconstruction", events, **FEW)
    told = [(event.done, event.total) for event in events if event.text == "blocks brought near to float"]
    assert told == [(done, told[-1][1]) for done in range(told[-1][1] + 1)]
    notes = [event.text for event in events if event.kind == "note"]
    assert len(notes) == 1
    assert notes[0].partition(" blocks")[0] in one.model.notes[-1]


@pytest.mark.parametrize("most, blocks", [(1, 5), (2, 3), (3, 2), (99, 1)])
def test_blocks_have_so_many_layers_at_most_and_a_residual_block_is_whole(folded, most, blocks):
    """The small net: stem, a residual block of one, two more and a head."""
    nodes = [node for node in folded.graph.nodes if node.op in ("conv2d", "linear")]
    segments = Segments(folded)
    found = _blocks(segments, nodes, most)
    assert len(found) == blocks
    assert [step for block in found for step in block.span] == list(range(len(segments)))
    assert [node.key for block in found for node in block.nodes] == [node.key for node in nodes]


class Argmax(nn.Module):
    """Its output has no derivative."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 4)

    def forward(self, x):
        return torch.relu(self.one(x)).argmax(dim=1)


def test_where_there_is_no_derivative_nothing_is_trained(make_model):
    torch.manual_seed(0)
    model = make_model(Argmax(), (6,))
    rng = np.random.default_rng(0)
    samples = [(rng.normal(size=(16, 6)).astype(np.float32),) for _ in range(4)]
    demands = TARGETS.build("onnxruntime").demands(model)
    plan = Plan("onnxruntime", uniform(model.graph, "int8"), (Step("block_reconstruction", FEW),), Step("minmax"))
    one = apply(model, plan, ranges=lambda m: ranges(m, samples), constraints=demands, samples=lambda: samples)
    assert one.model.notes[-1].startswith("block_reconstruction: 0 of ")


def test_layers_without_integers_around_them_are_rounded_and_not_trained(folded):
    after = BlockReconstruction(**FEW).apply(folded, PrepareContext(lambda: images(1), narrow(folded)))
    assert after.notes[-1].startswith("block_reconstruction: 0 of 0 blocks")
    assert any((value != folded.weights[name]).any() for name, value in after.weights.items())


def test_less_memory_takes_fewer_samples(folded):
    after = BlockReconstruction(megabytes=0.2, epochs=1).apply(
        folded, PrepareContext(lambda: images(1), narrow(folded))
    )
    assert 16 <= int(after.notes[-1].split()[-2]) < 64


def test_a_model_without_integers_comes_back_as_it_is(folded):
    assert BlockReconstruction().apply(folded, PrepareContext(lambda: images(1), Encodings.none())) is folded


@pytest.mark.parametrize("setting", ["samples", "epochs", "rate", "megabytes", "layers"])
def test_settings_that_make_no_sense(setting):
    with pytest.raises(ValueError, match="positive"):
        BlockReconstruction(**{setting: 0})


def test_the_same_again_gives_the_same_bits(made):
    one, again = (made(3, "block_reconstruction", epochs=5, samples=64) for _ in range(2))
    assert one.encodings.digest == again.encodings.digest
    assert one.model.digest == again.model.digest


@pytest.mark.parametrize("part", ["adaround", "block_reconstruction"])
def test_few_samples_are_told(made, part):
    found = made(4, part, samples=16)
    assert "few-samples" in {finding.kind for finding in found.findings}


def test_outputs_of_every_float_tensor_that_a_block_makes_count():
    made = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0]), "rows": 2, "index": torch.tensor([1])}
    exact = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0]), "rows": 2, "index": torch.tensor([7])}
    found = block_reconstruction._squares(made, exact, {"rows": 2})
    assert {name: (off.item(), size) for name, (off, size) in found.items()} == {"a": (4.0, 1.0), "b": (9.0, 0.0)}
    assert set(block_reconstruction._squares(made, exact, {"b": torch.tensor([0.0])})) == {"a"}


def test_layers_of_other_precisions_run_as_they_are_stored(folded, monkeypatch):
    """In a mixture with float16 and a palette, what is trained sees their stored values."""
    seen = []
    monkeypatch.setattr(
        block_reconstruction, "_as_stored", lambda *both: seen.append(as_stored(*both)) or dict(seen[-1])
    )
    target = TARGETS.build("onnxruntime")
    demands = target.demands(folded)
    layers = dict(uniform(folded.graph, "int8", weights=Step("mse")))
    half, book = list(layers)[1:3]
    layers |= {half: LayerPlan("float16"), book: LayerPlan("palette", weights=Step("kmeans", {"bits": 4}))}
    one = apply(
        folded,
        Plan("onnxruntime", layers, (Step("block_reconstruction", FEW),), Step("mse"), ("onnxruntime",)),
        ranges=lambda model: ranges(model, images(1)),
        constraints=demands,
        samples=lambda: images(1),
    )
    weights = {key: folded.graph.by_key[key].weight for key in (half, book)}
    assert len(np.unique(seen[0][weights[book]].numpy())) <= 16
    exact = folded.weights[weights[half]]
    np.testing.assert_array_equal(seen[0][weights[half]].numpy(), exact.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(one.model.weights[weights[half]], exact)


@pytest.mark.parametrize(
    "squares, expected",
    [
        ([(2.0, 8.0)], 0.25),
        ([(2.0, 8.0), (3e4, 4e4)], 0.5),  # not 3e4 / 4e4: the small tensor counts as much
        ([(2.0, 8.0), (4.0, 0.0)], (2 / 8 + 4 / 8) / 2),
        ([(0.0, 0.0)], 0.0),
        ([], 0.0),
    ],
)
def test_tensors_alive_beside_each_other_count_by_their_own_size(squares, expected):
    assert block_reconstruction._fraction(squares) == pytest.approx(expected)
