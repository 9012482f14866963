"""Exporting: what cannot be exported is told by layer and line; what was exported computes what the module computes."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from haversack.base.errors import ConversionError, HaversackError, JobError
from haversack.load import export, open_job
from haversack.tools.graph.execute import Executor


def images(count=4, seed=0):
    return (np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32),)


class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.inner = inner

    def forward(self, image):
        return self.inner(self.first(image))


class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x


class FixedView(nn.Module):
    def forward(self, x):
        return x.view(2, -1)


class FixedBranch(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] == 2 else x


class Trains(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class Random(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class PrintsNumpy(nn.Module):
    def forward(self, x):
        return x * float(x.detach().numpy().max())


class Odd(nn.Module):
    def forward(self, x):
        return {"scores": x.mean((2, 3)), "features": x}


def eager(module, *arrays):
    with torch.no_grad():
        return module(*(torch.from_numpy(array) for array in arrays))


def test_a_job_file_becomes_a_model(job_file):
    job = open_job(str(job_file()))
    model = export(job)
    assert [port.name for port in model.inputs] == ["image"]
    assert [port.name for port in model.outputs] == ["output"]
    assert model.inputs[0].spec.shape == ("batch", 3, 8, 8)
    assert model.outputs[0].spec.shape == ("batch", 5)
    for count in (1, 2, 5):
        batch = images(count, seed=count)
        assert np.allclose(Executor(model).run(batch)[0], eager(job.model(), *batch), atol=1e-6)


def test_names_of_the_job_count(job_file):
    model = export(open_job(str(job_file(more="input_names = ['pixels']\noutput_names = ['logits']"))))
    assert (model.inputs[0].name, model.outputs[0].name) == ("pixels", "logits")


def test_a_single_sample_is_enough(as_job):
    model = export(as_job(nn.Conv2d(3, 2, 3).eval(), images(1)))
    assert model.inputs[0].spec.shape[0] == "batch"
    assert Executor(model).run(images(7))[0].shape == (7, 2, 6, 6)


def test_a_dictionary_of_outputs_names_them(as_job):
    assert [port.name for port in export(as_job(Odd().eval(), images())).outputs] == ["scores", "features"]


def test_a_preprocessed_batch_may_be_given(as_job):
    job = as_job(nn.Conv2d(3, 2, 3).eval(), (np.zeros((4, 9), np.uint8),))
    with pytest.raises(JobError):
        export(job)
    assert export(job, batch=images()).inputs[0].spec.dtype == "float32"


def test_lengths_of_batch_and_a_free_axis_stay_apart(as_job):
    ids = (np.arange(8, dtype=np.int64).reshape(4, 2),)
    model = export(as_job(nn.Embedding(10, 3).eval(), ids, dims={"input": {0: "batch", 1: "length"}}))
    assert model.inputs[0].spec.shape == ("batch", "length")
    assert Executor(model).run((np.ones((5, 7), np.int64),))[0].shape == (5, 7, 3)


def test_fixed_on_request(as_job):
    model = export(as_job(Block(FixedView()).eval(), images(2), dims={"image": {}}))
    assert model.inputs[0].spec.shape == (2, 3, 8, 8)


def test_a_saved_program_keeps_its_free_batch(saved, as_job):
    from haversack.load.exported import module_of

    job = as_job(module_of(saved.program, allow_pickle=False), (saved.x,))
    model = export(job)
    assert model.inputs[0].spec.shape == ("batch", 6)
    assert model.inputs[0].name == "x"
    assert {node.key.partition(":")[0] for node in model.graph.nodes} >= {"first", "second", "norm"}
    assert np.allclose(Executor(model).run((saved.x,))[0], eager(saved.module, saved.x), atol=1e-6)


def test_a_program_saved_with_a_fixed_batch(as_job, tmp_path):
    from haversack.load.exported import module_of

    torch.export.save(torch.export.export(Block(FixedView()).eval(), (torch.zeros(2, 3, 8, 8),)), tmp_path / "f.pt2")
    module = module_of(tmp_path / "f.pt2", allow_pickle=False)
    with pytest.raises(ConversionError) as error:
        export(as_job(module, images(4)))
    assert "dims = {'image': {}}" in error.value.next_step
    assert export(as_job(module, images(2), dims={"image": {}})).inputs[0].spec.shape[0] == 2


class TestConversion:
    def test_control_flow_on_values(self, as_job, capfd, recwarn):
        with pytest.raises(ConversionError) as error:
            export(as_job(Block(nn.Sequential(nn.ReLU(), Branches())).eval(), images()))
        assert error.value.exit_code == 4
        assert error.value.where.startswith("inner.1 (")
        assert "test_exporting.py" in error.value.where
        assert "if x.sum() > 0:" in error.value.where
        assert "depends on the values" in error.value.cause
        assert "torch.where" in error.value.next_step
        assert "image[0]=batch" in error.value.tried
        assert capfd.readouterr() == ("", ""), "nothing of the exporter reaches the terminal"
        assert not recwarn.list

    def test_a_fixed_batch_is_told_with_its_place(self, as_job):
        with pytest.raises(ConversionError) as error:
            export(as_job(Block(FixedView()).eval(), images()))
        assert error.value.where == "perhaps inner (view: return x.view(2, -1))"
        assert "axis 0 (batch) is fixed at 2" in str(error.value)
        assert "dims = {'image': {}}" in error.value.next_step

    def test_a_length_that_only_some_batches_meet_is_told_at_the_line_that_breaks(self, as_job):
        class FixedShape(nn.Module):
            def forward(self, x):
                return x.view(2, 3, 64)

        with pytest.raises(ConversionError) as error:
            export(as_job(Block(FixedShape()).eval(), images()))
        assert error.value.where.startswith("inner (/")
        assert error.value.where.endswith("return x.view(2, 3, 64))")

    def test_a_model_for_four_only(self, as_job):
        class Four(nn.Module):
            def forward(self, x):
                return x.view(4, 3, 64)

        with pytest.raises(ConversionError, match="takes a batch of 4, but none of 2") as error:
            export(as_job(Block(Four()).eval(), images(4)))
        assert error.value.where.startswith("inner (/")
        assert export(as_job(Block(Four()).eval(), images(4), dims={"image": {}})).inputs[0].spec.shape[0] == 4

    def test_a_branch_on_the_batch_length(self, as_job):
        with pytest.raises(ConversionError, match="axis 0 .batch. is fixed at 2"):
            export(as_job(Block(FixedBranch()).eval(), images()))

    def test_values_taken_out_of_torch(self, as_job):
        with pytest.raises(ConversionError) as error:
            export(as_job(Block(PrintsNumpy()).eval(), images()))
        assert error.value.where.startswith("inner (")
        assert "numpy()" in error.value.where

    def test_a_graph_that_computes_something_else(self, as_job):
        class Counts(nn.Module):
            def __init__(self):
                super().__init__()
                self.calls = 0

            def forward(self, x):
                return x * x.shape[0] if torch.compiler.is_exporting() else x

        with pytest.raises(ConversionError, match="does not compute what the module computes") as error:
            export(as_job(Counts().eval(), images()))
        assert "output: differs by" in str(error.value)

    def test_an_output_that_is_no_tensor(self, as_job):
        class Size(nn.Module):
            def forward(self, x):
                return x * 2, x.shape[1]

        with pytest.raises(ConversionError, match="not a tensor"):
            export(as_job(Size().eval(), images()))


class TestModule:
    def test_training_mode(self, as_job):
        module = Block(nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3))).eval()
        module.inner[1].train()
        with pytest.raises(JobError, match=r"training mode: inner\.1") as error:
            export(as_job(module, images()))
        assert "model.eval()" in error.value.next_step

    def test_many_modules_in_training_mode_are_shortened(self, as_job):
        with pytest.raises(JobError, match="…"):
            export(as_job(nn.Sequential(*(nn.ReLU() for _ in range(30))), images()))

    def test_functional_dropout_that_trains(self, as_job):
        with pytest.raises(JobError, match="computes in training mode") as error:
            export(as_job(Block(Trains()).eval(), images()))
        assert "inner (dropout: return F.dropout(x, 0.5)): trains" in str(error.value)

    def test_randomness(self, as_job):
        with pytest.raises(JobError, match="not deterministic"):
            export(as_job(Random().eval(), images()))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, as_job, value):
        module = Block(nn.BatchNorm2d(3)).eval()
        module.first.weight.data[0, 0] = value
        module.inner.running_var[1] = float("nan")
        with pytest.raises(JobError, match="2 weights are not finite") as error:
            export(as_job(module, images()))
        assert "first.weight: 1 of 9 values" in str(error.value)
        assert "inner.running_var: 1 of 3" in str(error.value)

    def test_a_mask_may_hold_minus_infinity(self, as_job):
        class Masked(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))

            def forward(self, x):
                return torch.softmax(x + self.mask, -1)

        assert "mask" in export(as_job(Masked().eval(), images())).weights

    def test_nan_from_finite_weights(self, as_job):
        class Roots(nn.Module):
            def forward(self, x):
                return torch.sqrt(x)

        with pytest.raises(JobError, match="returns NaN"):
            export(as_job(Roots().eval(), images()))

    def test_no_module(self, as_job):
        with pytest.raises(JobError, match="returned a dict, not an nn.Module"):
            export(as_job({}, images()))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, left, right, scale=None):
        return self.fc(left + right)


class TestData:
    x = np.ones((4, 4), np.float32)

    @pytest.mark.parametrize(
        "batch, told",
        [
            ((x,), "forward(left, right, scale) takes 2 to 3 inputs, a batch of calibration() has 1"),
            ((x, x, x, x), "has 4"),
            ((x, x.astype(object)), "input 1: has dtype object"),
            ((x, np.array(["a"] * 4)), "has dtype <U1"),
            ((x, [1, 2]), "input 1: is a list, not a NumPy array"),
            ((x, torch.ones(4, 4)), "input 1: is a Tensor, not a NumPy array"),
            ((x, np.float32(3)), "is a float32, not a NumPy array"),
            ((x, np.array(3.0)), "has shape (): no samples"),
            ((x[:0], x[:0]), "has shape (0, 4): no samples"),
            ((x, x[:3]), "the inputs hold 3 and 4 samples"),
            ((x, x * np.nan), "input 1: 16 of 16 values are NaN"),
            ((x, x * np.inf), "NaN or infinite"),
            (x, "a batch of calibration() is an array, not a tuple"),
            ((x[:, :3], x[:, :3]), "the model does not take a batch"),
            ((x.astype(np.float64), x.astype(np.float64)), "array.astype(np.float32)"),
            ((), "a batch of calibration() is empty"),
        ],
    )
    def test_batches_that_do_not_fit(self, as_job, batch, told):
        with pytest.raises(JobError) as error:
            export(as_job(Two().eval(), batch))
        assert told in str(error.value)
        assert error.value.exit_code == 2

    def test_every_bad_array_at_once(self, as_job):
        with pytest.raises(JobError) as error:
            export(as_job(Two().eval(), ([1], self.x * np.nan), input_names=("left", "right")))
        assert [fault.where for fault in error.value.faults] == ["left", "right"]

    def test_a_wrong_shape_is_told_at_the_layer(self, as_job):
        with pytest.raises(JobError) as error:
            export(as_job(nn.Sequential(nn.ReLU(), Two.__mro__[0]().fc).eval(), (self.x[:, :3],)))
        assert error.value.where.startswith("1 (") or error.value.where.startswith("1")
        assert "float32[2, 3]" in error.value.cause

    def test_no_calibration(self, as_job):
        with pytest.raises(JobError, match="gave no batch"):
            export(as_job(Two().eval()))

    @pytest.mark.parametrize(
        "fields, told",
        [
            ({"input_names": ("a",)}, "1 input_names for 2 inputs"),
            ({"dims": {"middle": {0: "batch"}}}, "is no input (has: left, right)"),
            ({"dims": {"left": {5: "length"}}}, "axis 5 of an array of shape (4, 4)"),
            ({"output_names": ("a", "b")}, "2 output names for 1 output"),
            ({"dims": {"left": {0: "batch", 1: "width"}, "right": {0: "batch", 1: "width"}}}, "fixed at 4"),
        ],
    )
    def test_names_and_dims_that_do_not_fit(self, as_job, fields, told):
        with pytest.raises(HaversackError) as error:
            export(as_job(Two().eval(), (self.x, self.x), **fields))
        assert told in str(error.value) or "none of" in str(error.value) or "width" in str(error.value)

    def test_a_free_axis_of_length_one(self, as_job):
        with pytest.raises(JobError, match=r"axis 1 \(length\) has length 1"):
            export(as_job(nn.ReLU().eval(), (self.x[:, :1],), dims={"input": {0: "batch", 1: "length"}}))


def test_writes_through_views_become_values(as_job):
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, image):
            y = self.conv(image)
            y[:, 0] = 0.5
            return y.mean((2, 3))

    module = Writes().eval()
    model = export(as_job(module, images()))
    assert model.graph.by_key["conv:conv2d#0"].weight == "conv.weight"
    assert not any(node.op in ("fill", "copy") and not model.graph.consumers[node.key] for node in model.graph.nodes)
    assert np.allclose(Executor(model).run(images(3))[0], eager(module, *images(3)), atol=1e-6)


def test_two_inputs_and_an_optional_one(as_job):
    model = export(as_job(Two().eval(), (TestData.x, TestData.x)))
    assert [port.name for port in model.inputs] == ["left", "right"]
    assert all(port.spec.shape == ("batch", 4) for port in model.inputs)


def test_any_number_of_inputs(as_job):
    class Sums(nn.Module):
        def forward(self, *parts):
            return torch.cat(parts, 1)

    model = export(as_job(Sums().eval(), (TestData.x, TestData.x)))
    assert [port.name for port in model.inputs] == ["input0", "input1"]
    assert Executor(model).run((TestData.x, TestData.x))[0].shape == (4, 8)


def test_a_transformer_with_free_batch_and_length(as_job, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=50,
        max_position_embeddings=40,
    )  # fmt: skip
    torch.manual_seed(0)
    bert = BertModel(config, add_pooling_layer=False).eval()
    free = {0: "batch", 1: "length"}
    ids = np.random.default_rng(0).integers(0, 50, (3, 9))
    names = ("input_ids", "attention_mask")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = export(as_job(bert, (ids, np.ones_like(ids)), dims=dict.fromkeys(names, free)))
    assert [(port.name, port.spec.shape) for port in model.inputs] == [(name, ("batch", "length")) for name in names]
    assert [port.name for port in model.outputs] == ["last_hidden_state"]
    assert model.outputs[0].spec.shape == ("batch", "length", 16)
    assert "encoder.layer.1.attention.self.query:linear#0" in model.graph.by_key
    mask = np.ones((2, 14), np.int64)
    mask[1, 9:] = 0
    other = np.random.default_rng(1).integers(0, 50, (2, 14))
    wanted = eager(bert, other, mask).last_hidden_state.numpy()
    assert np.abs(Executor(model).run((other, mask))[0] - wanted).max() < 1e-5
