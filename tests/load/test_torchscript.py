"""TorchScript, from the file to the canonical graph: its paths, its ops, its rule of trust."""

import inspect
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from haversack.base.errors import ConversionError, JobError, Refused
from haversack.load import export, open_job, torchscript
from haversack.load.archive import Records
from haversack.tools.graph.execute import Executor


class Block(nn.Module):
    def __init__(self, stride: int):
        super().__init__()
        self.depth = nn.Conv2d(8, 8, 3, stride, 1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.point = nn.Conv2d(8, 8, 1)
        self.stride = stride

    def forward(self, x):
        y = self.point(self.drop(nn.functional.relu6(self.norm(self.depth(x)))))
        if self.stride == 1:
            y = y + x
        return y


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.ModuleList([Block(1), Block(2)])
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = self.stem(image)
        for block in self.blocks:
            x = block(x)
        x = nn.functional.dropout(x, 0.2, self.training)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


KEYS = [
    "image:input#0",
    "stem.0:conv2d#0",
    "stem.1:batch_norm#0",
    ":relu#0",
    "blocks.0.depth:conv2d#0",
    "blocks.0.norm:batch_norm#0",
    ":relu6#0",
    ":dropout#0",
    "blocks.0.point:conv2d#0",
    ":add#0",
    "blocks.1.depth:conv2d#0",
    "blocks.1.norm:batch_norm#0",
    ":relu6#1",
    ":dropout#1",
    "blocks.1.point:conv2d#0",
    ":dropout#2",
    ":adaptive_avg_pool2d#0",
    ":view#0",
    "head:linear#0",
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> SimpleNamespace:
    torch.manual_seed(0)
    net = Net()
    for module in net.modules():  # an untrained norm would hide one that is left out
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    net.eval()
    folder = tmp_path_factory.mktemp("scripts")
    torch.jit.trace(net, torch.randn(2, 2, 8, 8)).save(folder / "trace.pt")
    torch.jit.script(net).save(folder / "script.ts")
    x = np.random.default_rng(0).normal(size=(4, 2, 8, 8)).astype(np.float32)
    return SimpleNamespace(net=net, folder=folder, x=x)


@pytest.mark.parametrize("file", ["trace.pt", "script.ts"])
def test_layers_keep_their_paths_and_the_batch_is_free(scripts, as_job, file):
    module = torchscript.module_of(scripts.folder / file)
    model = export(as_job(module, (scripts.x,)))
    assert [node.key for node in model.graph.nodes] == KEYS
    assert model.graph.by_key["blocks.0.depth:conv2d#0"].weight == "blocks.0.depth.weight"
    assert model.graph.by_key["blocks.0.depth:conv2d#0"].attributes["groups"] == 8
    assert model.inputs[0].spec.shape == ("batch", 2, 8, 8)
    longer = np.concatenate([scripts.x, scripts.x[:3] + 1])
    with torch.no_grad():
        wanted = scripts.net(torch.from_numpy(longer)).numpy()
    np.testing.assert_allclose(Executor(model).run((longer,))[0], wanted, rtol=1e-5, atol=1e-6)


def test_lengths_that_are_equal_by_chance_stay_apart(as_job):
    """Translation must not take the batch for the channels because the example has two of each."""

    class Flat(nn.Module):
        def forward(self, x):
            return x.view(x.size(0), x.size(1) * x.size(2)) + 1

    traced = torch.jit.trace(Flat(), torch.zeros(2, 2, 2))
    model = export(as_job(traced.eval(), (np.ones((2, 2, 2), np.float32),)))
    assert model.outputs[0].spec.shape == ("batch", 4)
    assert Executor(model).run((np.ones((5, 2, 2), np.float32),))[0].shape == (5, 4)


def traced(module: nn.Module, *shape: int) -> torch.jit.ScriptModule:
    return torch.jit.trace(module.eval(), torch.zeros(shape))


@pytest.mark.parametrize(
    "module, shape, op",
    [
        (nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2), (2, 3, 9), "conv1d"),
        (nn.Conv2d(4, 4, 3, groups=2), (2, 4, 9, 7), "conv2d"),
        (nn.Conv2d(3, 4, 3, padding="same"), (2, 3, 9, 7), "conv2d"),
        (nn.ConvTranspose1d(3, 4, 3, stride=2, output_padding=1), (2, 3, 5), "conv_transpose1d"),
        (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2, dilation=2), (2, 4, 5, 4), "conv_transpose2d"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_the_one_traced_convolution_is_told_apart(as_job, module, shape, op):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    model = export(as_job(traced(nn.Sequential(module), *shape), (x,)))
    layer = model.graph.nodes[1]
    assert (layer.op, layer.key, layer.weight) == (op, f"0:{op}#0", "0.weight")
    assert Executor(model).run((x,))[0].shape == tuple(module(torch.from_numpy(x)).shape)


@st.composite
def convolutions(draw):
    """A convolution with any settings, and the length of the images it takes."""
    kind = draw(st.sampled_from([nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d]))
    groups = draw(st.sampled_from([1, 2]))
    into, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    stride = draw(st.integers(1, 3))
    chosen = {
        "stride": stride,
        "padding": draw(st.integers(0, 2)),
        "dilation": draw(st.integers(1, 2)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if kind in (nn.ConvTranspose1d, nn.ConvTranspose2d):
        chosen["output_padding"] = draw(st.integers(0, stride - 1))
    return kind(into, out, draw(st.integers(1, 3)), **chosen), draw(st.integers(7, 9))


@settings(max_examples=20, deadline=None)
@given(convolutions())
def test_any_traced_convolution_computes_the_same(drawn):
    layer, length = drawn
    shape = (2, layer.in_channels, *(length + axis for axis in range(layer.weight.ndim - 2)))
    x = torch.randn(shape)
    graph = torchscript.plain(traced(layer, *shape), (x.numpy(),))
    ops = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert not [op for op in ops if "convolution" in op], ops
    with torch.no_grad():
        torch.testing.assert_close(graph(x), layer(x), rtol=1e-5, atol=1e-5)


def test_a_module_that_is_called_twice_keeps_one_path_and_counts_its_calls(as_job):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x):
            return self.inner(torch.relu(self.inner(x)))

    x = np.ones((2, 3), np.float32)
    model = export(as_job(traced(Twice(), 2, 3), (x,)))
    assert [n.key for n in model.graph.nodes] == ["x:input#0", "inner:linear#0", ":relu#0", "inner:linear#1"]


def test_a_length_that_tracing_fixed_is_told_and_not_kept(as_job):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(2, 6) * 2

    script = traced(Fixed(), 2, 2, 3)
    with pytest.raises(ConversionError) as caught:
        export(as_job(script, (np.ones((2, 2, 3), np.float32),)))
    assert "dims" in str(caught.value)


def test_a_frozen_module_has_no_names_but_computes_the_same(scripts, as_job, tmp_path):
    torch.jit.freeze(torch.jit.load(scripts.folder / "script.ts")).save(tmp_path / "frozen.pt")
    model = export(as_job(torchscript.module_of(tmp_path / "frozen.pt"), (scripts.x,)))
    layers = [node for node in model.graph.nodes if node.op in ("conv2d", "linear")]
    assert [node.key for node in layers][:2] == [":conv2d#0", ":conv2d#1"]
    assert all(node.weight for node in layers)


def test_a_module_saved_in_training_mode_is_set_to_inference(tmp_path, as_job):
    torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()).save(tmp_path / "train.pt")
    module = torchscript.module_of(tmp_path / "train.pt")
    x = np.ones((2, 3), np.float32)
    model = export(as_job(module, (x,)))
    assert np.array_equal(Executor(model).run((x,))[0], Executor(model).run((x,))[0])
    assert not module.training


def test_what_was_traced_in_training_mode_is_refused(as_job):
    script = torch.jit.trace(nn.Dropout(0.5).train(), torch.ones(2, 3), check_trace=False).eval()
    with pytest.raises(JobError, match=r"training mode"):
        export(as_job(script, (np.ones((2, 3), np.float32),)))


def test_names_and_defaults_of_inputs_are_read_from_the_schema():
    class Two(nn.Module):
        def forward(self, ids, scale: float = 2.0):
            return ids * scale

    found = torchscript.signature(torch.jit.script(Two()))
    assert list(found.parameters) == ["ids", "scale"]
    assert found.parameters["ids"].default is inspect.Parameter.empty
    assert found.parameters["scale"].default == 2.0
    assert list(torchscript.signature(nn.Linear(1, 1)).parameters) == ["input"]


def test_a_module_of_python_is_left_as_it_is():
    module = nn.Linear(2, 2)
    assert torchscript.plain(module, (np.ones((1, 2), np.float32),)) is module


def test_what_cannot_be_translated_says_how_to_export(as_job):
    class Loop(nn.Module):
        def forward(self, x):
            words = {"a": x}
            while bool(words["a"].sum() < 3):
                words["a"] = words["a"] + 1
            return words["a"]

    with pytest.raises(ConversionError) as caught:
        export(as_job(torch.jit.script(Loop().eval()).eval(), (np.ones((2, 3), np.float32),)))
    assert caught.value.exit_code == 4
    assert "torch.export" in str(caught.value)


class TestTrust:
    """A TorchScript file runs what it holds: nothing of it is read unless the user allows it."""

    def test_it_is_known_by_its_records_whatever_its_suffix(self, scripts, saved, tmp_path):
        assert torchscript.is_script(scripts.folder / "trace.pt")
        assert not torchscript.is_script(saved.program)
        torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt")
        assert not torchscript.is_script(tmp_path / "weights.pt")
        (tmp_path / "old.pth").write_bytes(b"\x80\x02}q\x00.")
        assert not torchscript.is_script(tmp_path / "old.pth")

    @pytest.mark.parametrize("file", ["trace.pt", "script.ts"])
    def test_it_is_refused_with_the_way_to_export_it(self, scripts, job_file, file):
        with pytest.raises(Refused) as caught:
            open_job(f"{scripts.folder / file}@{job_file()}")
        assert caught.value.exit_code == 7
        assert "TorchScript is a program" in str(caught.value)
        assert "torch.export.save" in caught.value.next_step
        assert "--allow-pickle" in caught.value.next_step

    @pytest.mark.parametrize("file", ["trace.pt", "script.ts"])
    def test_it_is_read_when_the_user_allows_it(self, scripts, job_file, file):
        text = job_file(("(4, 3, 8, 8)", "(4, 2, 8, 8)"))
        job = open_job(f"{scripts.folder / file}@{text}", allow_pickle=True)
        assert [node.key for node in export(job).graph.nodes] == KEYS

    def test_a_job_file_may_name_it_relative_to_itself(self, scripts, write):
        (write("", "here/unused.txt").parent / "net.ts").write_bytes((scripts.folder / "script.ts").read_bytes())
        path = write(
            """
            import numpy as np
            model = "net.ts"
            metric = "top1"
            def calibration():
                yield (np.ones((2, 2, 8, 8), np.float32),)
            def evaluation():
                yield (np.ones((2, 2, 8, 8), np.float32),), np.zeros(2, int)
            """,
            "here/job.py",
        )
        with pytest.raises(Refused, match="TorchScript is a program"):
            open_job(str(path))
        assert len(export(open_job(str(path), allow_pickle=True)).graph.nodes) == len(KEYS)

    @pytest.mark.parametrize("end", [0, 10, 3000])
    def test_a_truncated_file_says_so(self, scripts, tmp_path, end):
        whole = (scripts.folder / "script.ts").read_bytes()
        (tmp_path / "cut.ts").write_bytes(whole[:end])
        with pytest.raises(JobError) as caught:
            torchscript.module_of(tmp_path / "cut.ts")
        assert "torch.jit.save" in str(caught.value)
        assert caught.value.where.endswith("cut.ts")

    def test_an_archive_without_code_says_that_torch_cannot_read_it(self, tmp_path):
        torch.save(torch.ones(3), tmp_path / "plain.ts")
        with pytest.raises(JobError, match="PyTorch cannot read this TorchScript"):
            torchscript.module_of(tmp_path / "plain.ts")

    def test_data_that_unpack_to_more_than_the_file_are_refused(self, tmp_path):
        path = tmp_path / "bomb.ts"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb/constants.pkl", b"\x80\x02).")
            archive.writestr("bomb/version", b"3\n")
            archive.writestr("bomb/data/0", bytes(1 << 20))
        with pytest.raises(Refused, match="its records declare"):
            torchscript.module_of(path)

    def test_only_code_may_be_compressed_and_not_without_a_bound(self, tmp_path, monkeypatch):
        from haversack.load import archive as module

        path = tmp_path / "net.ts"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("net/version", b"3\n")
            archive.writestr("net/code/a.py", b"# " * 5000)
        assert "code/a.py" in Records(path, compressed="code/").names
        with pytest.raises(Refused):
            Records(path)
        monkeypatch.setattr(module, "MAX_JSON_BYTES", 9999)
        with pytest.raises(Refused):
            Records(path, compressed="code/")
