"""Checkpoints: safetensors with an architecture, and pickles that the user trusts."""

import logging
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from haversack.base.errors import JobError, Refused
from haversack.load import open_job
from haversack.load.checkpoint import filled, header, module_of


class Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        from pathlib import Path

        return Path.touch, (self.mark,)


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_tied_weights_stand_under_one_name(saved):
    module = module_of(saved.weights, saved.kind)
    assert not module.training
    assert torch.equal(module.second.weight, saved.module.first.weight)
    x = torch.from_numpy(saved.x)
    with torch.no_grad():
        assert torch.equal(module(x), saved.module(x))


def test_every_mismatch_at_once_with_the_nearest_name():
    state = net().state_dict()
    given_state = {
        "0.wieght": state["0.weight"],
        "0.bias": torch.zeros(5),
        "2.weight": state["2.weight"].half(),
        "2.bias": state["2.bias"],
        "head.bias": torch.zeros(1),
    }
    with pytest.raises(JobError, match="do not fit the architecture in 5 places") as error:
        filled(net(), given_state, "w.safetensors")
    faults = {fault.where: fault.cause for fault in error.value.faults}
    assert faults["0.weight"] == "is not in the file; it has 0.wieght"
    assert faults["0.wieght"].endswith("that has 0.weight")
    assert faults["0.bias"] == "has shape [5], the architecture [4]"
    assert faults["2.weight"] == "is float16, the architecture float32"
    assert "head.bias" in faults


def test_many_mismatches_are_counted_and_the_first_shown():
    big = nn.Sequential(*(nn.Linear(1, 1) for _ in range(20)))
    with pytest.raises(JobError, match=r"in 40 places \(the first 20\)") as error:
        filled(big, {}, "w.safetensors")
    assert len(error.value.faults) == 20


def test_an_architecture_that_is_no_module():
    with pytest.raises(JobError, match="the architecture is a dict"):
        filled({}, {}, "w.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_truncated_anywhere(saved, tmp_path, share):
    data = saved.weights.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(JobError, match="no whole safetensors file") as error:
        header(path)
    assert "bytes" in error.value.tried


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 400), flip=st.integers(1, 255))
def test_a_damaged_header_is_told_or_harmless(saved, tmp_path, place, flip):
    data = bytearray(saved.weights.read_bytes())
    data[place % len(data)] ^= flip
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(data)
    try:
        module = module_of(path, saved.kind)
    except JobError as error:
        assert error.next_step
    else:
        assert isinstance(module, nn.Module)


@pytest.mark.parametrize(
    "content",
    [b"{}", b"PK\x03\x04" + b"\0" * 50, (1 << 40).to_bytes(8, "little") + b"{}", pickle.dumps({"a": 1}) * 9],
)
def test_foreign_files(tmp_path, content):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(JobError, match="no whole safetensors file"):
        header(path)


class TestAsASource:
    @pytest.fixture
    def weights(self, tmp_path, job_file):
        job = open_job(str(job_file()))
        path = tmp_path / "net.safetensors"
        save_file({name: value + 1 for name, value in job.model().state_dict().items()}, path)
        return path

    def test_the_architecture_comes_from_the_job_file(self, weights, job_file):
        plain = open_job(str(job_file())).model()
        for source in (f"{weights}@{job_file()}:Net", str(job_file(more='model = "net.safetensors@:Net"'))):
            job = open_job(source)
            assert job.name == "net"
            loaded = job.model()
            assert not loaded.training
            assert np.allclose(loaded.head.bias.detach(), plain.head.bias.detach() + 1)

    def test_the_architecture_comes_from_another_module(self, weights, job_file, write, tmp_path, monkeypatch):
        job_file(name="arch_of_net.py")
        monkeypatch.chdir(tmp_path)
        job = open_job(str(job_file(more='model = "net.safetensors@arch_of_net:Net"')))
        assert type(job.model()).__name__ == "Net"

    def test_without_an_architecture(self, weights, job_file):
        with pytest.raises(JobError, match="weights but no architecture") as error:
            open_job(f"{weights}@{job_file()}")
        assert "@package.module:Net" in error.value.next_step

    def test_an_unknown_architecture(self, weights, job_file):
        with pytest.raises(JobError, match="did you mean Net"):
            open_job(f"{weights}@{job_file()}:Nte")
        with pytest.raises(JobError, match="metric is a str, not a callable"):
            open_job(f"{weights}@{job_file()}:metric")

    def test_an_architecture_that_raises(self, weights, job_file):
        path = job_file(("nn.Linear(4, 5)", "nn.Linear(4, five)"))
        with pytest.raises(JobError, match="NameError") as error:
            open_job(f"{weights}@{path}:Net").model()
        assert "nn.Linear(4, five)" in error.value.where

    def test_a_truncated_file_is_told_when_the_job_is_opened(self, weights, job_file):
        weights.write_bytes(weights.read_bytes()[:-5])
        with pytest.raises(JobError, match="no whole safetensors file"):
            open_job(f"{weights}@{job_file()}:Net")


class TestPickles:
    @pytest.fixture
    def source(self, tmp_path, job_file):
        return lambda value, name="w.pth": (torch.save(value, tmp_path / name), f"{tmp_path / name}@{job_file()}:Net")[
            1
        ]

    def test_a_malicious_pickle_does_not_run(self, source, tmp_path):
        mark = tmp_path / "ran"
        with pytest.raises(Refused) as error:
            open_job(source({"w": Touches(mark)}))
        assert error.value.exit_code == 7
        assert not mark.exists()

    def test_with_the_flag_it_runs_and_that_is_told(self, source, tmp_path, caplog):
        mark = tmp_path / "ran"
        with caplog.at_level(logging.WARNING):
            job = open_job(source({"w": Touches(mark)}), allow_pickle=True)
        assert "code that it holds may run" in caplog.text
        with pytest.raises(JobError, match="neither a module nor a state dict"):
            job.model()
        assert mark.exists(), "the bait works"

    def test_a_state_dict(self, source, job_file):
        state = open_job(str(job_file())).model().state_dict()
        job = open_job(source({name: value * 2 for name, value in state.items()}), allow_pickle=True)
        assert torch.equal(job.model().head.bias, state["head.bias"] * 2)

    def test_a_state_dict_without_architecture(self, source):
        job = open_job(source({"w": torch.zeros(2)}).removesuffix(":Net"), allow_pickle=True)
        with pytest.raises(JobError, match="no architecture"):
            job.model()

    def test_a_whole_module(self, source):
        job = open_job(source(net().eval()).removesuffix(":Net"), allow_pickle=True)
        assert isinstance(job.model(), nn.Sequential)

    def test_a_broken_pickle(self, source, tmp_path):
        text = source({})
        (tmp_path / "w.pth").write_bytes(b"broken")
        with pytest.raises(JobError, match="cannot be unpickled"):
            open_job(text, allow_pickle=True).model()
