"""Memory that is left, by the machine and by control groups of both layouts; a run is refused for want of it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack import load
from haversack.base.errors import EnvironmentFault
from haversack.base.job import Job
from haversack.base.plan import Step
from haversack.cli import main
from haversack.flow import room
from haversack.flow.data import Data
from haversack.load import Work, forecast, preflight
from haversack.load.forecast import ACTIVATIONS, DATA, PROGRAMS, ROUNDING, WEIGHTS
from haversack.metrics import resolve

TINY_JOB = Path(__file__).with_name("tiny_job.py")
GB, MB = 10**9, 10**6


class System:
    """A tree of files as Linux shows memory and control groups in proc and sys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cgroups: list[str] = []

    def write(self, path: str, text: str) -> System:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return self

    def machine(self, free: int) -> System:
        return self.write("proc/meminfo", f"MemTotal: 9 kB\nMemAvailable: {free // 1024} kB\n")

    def second(self, path: str, most: int | str, used: int, idle: int = 0) -> System:
        """Make a group of the second layout; the process belongs to the one that was made last."""
        self.write(f"sys/fs/cgroup{path}/memory.max", f"{most}\n")
        self.write(f"sys/fs/cgroup{path}/memory.current", f"{used}\n")
        self.write(f"sys/fs/cgroup{path}/memory.stat", f"anon 5\ninactive_file {idle}\n")
        return self.write("proc/self/cgroup", f"0::{path}\n")

    def first(self, path: str, most: int, used: int, idle: int = 0) -> System:
        """Make a group of the first layout."""
        folder = f"sys/fs/cgroup/memory{path}"
        self.write(f"{folder}/memory.limit_in_bytes", f"{most}\n")
        self.write(f"{folder}/memory.usage_in_bytes", f"{used}\n")
        self.write(f"{folder}/memory.stat", f"cache 7\ntotal_inactive_file {idle}\n")
        return self.write("proc/self/cgroup", f"5:devices:/\n4:memory:{path}\n0::/\n")

    @property
    def left(self) -> room.Room | None:
        return room.left(self.root)


@pytest.fixture
def system(tmp_path):
    return System(tmp_path)


def test_where_nothing_is_told_nothing_is_known(system):
    assert system.left is None


def test_without_groups_the_machine_decides(system):
    assert system.machine(8 * GB).left == room.Room(8 * GB // 1024 * 1024, "what the machine has available")


@pytest.mark.parametrize("layout", ["first", "second"])
def test_a_group_s_limit_decides_where_it_is_tighter(system, layout):
    getattr(system.machine(8 * GB), layout)("/job", 2 * GB, 500 * MB)
    assert system.left == room.Room(1_500 * MB, "a limit of 2.0 GB for its control group")
    assert system.machine(1 * GB).left.limit == "what the machine has available"


@pytest.mark.parametrize("layout", ["first", "second"])
def test_files_that_a_group_has_read_are_given_back(system, layout):
    getattr(system.machine(8 * GB), layout)("/job", 2 * GB, 1_900 * MB, idle=1_200 * MB)
    assert system.left.bytes == 1_300 * MB


@pytest.mark.parametrize("layout", ["first", "second"])
def test_a_group_above_counts_as_well(system, layout):
    make = getattr(system.machine(8 * GB), layout)
    make("/pod", 1 * GB, 400 * MB)
    make("/pod/job", 4 * GB, 100 * MB)
    assert system.left.bytes == 600 * MB


def test_in_a_container_the_group_s_own_path_may_not_be_there(system):
    """The group is mounted as the root: the path that the process is told is that outside."""
    system.machine(8 * GB).second("", 1 * GB, 100 * MB)
    assert system.write("proc/self/cgroup", "0::/docker/abc\n").left.bytes == 900 * MB


@pytest.mark.parametrize(("layout", "most"), [("second", "max"), ("first", 9_223_372_036_854_771_712)])
def test_no_limit_is_none(system, layout, most):
    getattr(system.machine(8 * GB), layout)("/job", most, 500 * MB)
    assert system.left.limit == "what the machine has available"


def test_a_group_that_is_full_leaves_nothing(system):
    assert system.machine(8 * GB).second("/job", 1 * GB, 2 * GB).left.bytes == 0


def test_a_limit_on_the_process_s_addresses_counts(system, monkeypatch):
    """What is mapped already is taken off: pages of /proc/self/statm."""
    page = resource.getpagesize()
    system.machine(8 * GB).write("proc/self/statm", f"{100_000_000 // page} 5 4 3 0 2 0\n")
    limit = {resource.RLIMIT_AS: (1 * GB, resource.RLIM_INFINITY)}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limit[kind])
    assert system.left.bytes == 1 * GB - 100_000_000 // page * page
    assert "ulimit -v" in system.left.limit
    limit[resource.RLIMIT_AS] = (50 * MB, 50 * MB)
    assert system.left.bytes == 0
    limit[resource.RLIMIT_AS] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert system.left.limit == "what the machine has available"


def test_a_real_limit_is_seen_by_a_process_that_has_it(capfd):
    """In a child, so that this process keeps its own."""
    code = "from haversack.flow import room; print(room.left().limit)"
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (3 * GB, 3 * GB))
    done = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "a limit of 3.0 GB of addresses for each process (ulimit -v)"


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_stands_in_these_files_is_read_without_an_error(tmp_path_factory, groups, number):
    system = System(tmp_path_factory.mktemp("system")).machine(1 * GB).second("/job", 5, 3)
    (system.root / "proc/self/cgroup").write_text(f"0::/job\n{groups}", encoding="utf-8")
    (system.root / "sys/fs/cgroup/job/memory.max").write_text(number, encoding="utf-8")
    assert 0 <= system.left.bytes <= 1 * GB


def test_this_machine_tells():
    found = room.left()
    assert found is not None
    assert found.bytes > 10 * MB


# ---- what a run needs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job():
    import torch
    from torch import nn

    images = np.zeros((8, 3, 16, 16), np.float32)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(576, 3)
    )
    return Job("small", network.eval, lambda: [(images,)], lambda: [((images,), np.zeros(8, int))], "top1")


@pytest.fixture(scope="module")
def model(job):
    return load.export(job)


def test_samples_that_are_kept_count_and_outputs_of_two(job, model):
    data = Data(job, model.inputs, resolve("top1"))
    assert room.kept(model, data, (8, 8)) == 2 * 8 * 3 * 4, "nothing was read yet"
    data.look()
    assert data.kept_bytes() == 2 * 8 * 3 * 16 * 16 * 4
    assert room.kept(model, data, (8, 8)) == data.kept_bytes() + 2 * 8 * 3 * 4
    assert room.kept(model, data, (8, 10**9)) == data.kept_bytes() + 2 * room.KEPT_BYTES


def test_rounding_takes_the_moments_of_the_widest_layer(model):
    rows = room.rounding(model, Step("bias_correct"), 8)
    squares = 10 * 8 * 576**2  # the linear layer; 27 and 2 groups of 18 in the convolutions
    assert room.rounding(model, Step("gptq"), 8) == squares + rows
    assert rows == pytest.approx(8 * 1.25 * forecast.peak_bytes(model.graph), abs=1)
    assert (
        room.rounding(model, Step("adaround"), 8)
        == room.rounding(model, Step("block_reconstruction"), 8)
        == squares + rows
    )
    assert room.rounding(model, Step("gptq"), 10**6) == room.rounding(model, Step("gptq"), 128), "it takes 128 at most"
    few = room.rounding(model, Step("gptq", {"megabytes": 0.001}), 8)
    assert few == squares + 1000
    assert room.rounding(model, None, 8) == 0


def test_the_forecast_is_the_sum_of_its_parts(model):
    found = preflight(model, {}, Work(10, batch=7, data_bytes=11, rounding_bytes=13))
    assert found.forecast_bytes == sum(found.memory.values())
    assert found.memory[PROGRAMS] == forecast.BASE_BYTES
    assert found.memory[WEIGHTS] == forecast.COPIES * found.weight_bytes
    assert found.memory[ACTIVATIONS] == forecast.WORKING * 7 * found.activation_bytes
    assert (found.memory[DATA], found.memory[ROUNDING]) == (11, 13)


@given(st.integers(0, 4 * GB), st.integers(0, 4 * GB))
def test_a_run_is_refused_where_more_is_forecast_than_is_left(model, data_bytes, free):
    found = room.beside(preflight(model, {}, Work(10, data_bytes=data_bytes)), room.Room(free, "a limit"))
    assert found.short == (found.forecast_bytes > max(1, free))
    assert found.exit_code == (6 if found.short else 0)
    assert any("pack refuses to begin" in line for line in found.lines()) == found.short
    if not found.short:
        room.refuse(found)
        return
    with pytest.raises(EnvironmentFault, match="the run is forecast to need .*B of memory, and .*B are left"):
        room.refuse(found)


def test_where_nobody_knows_what_is_left_nothing_is_refused(model):
    found = room.beside(preflight(model, {}, Work(10, data_bytes=10**15)), None)
    assert not found.short
    room.refuse(found)


@pytest.mark.parametrize(
    ("work", "step"),
    [
        ({"data_bytes": 50 * GB}, "give fewer samples; "),
        ({"batch": 10**6}, "let calibration() and evaluation() yield smaller batches; "),
        ({"rounding_bytes": 50 * GB}, "--effort fast; "),
        ({"batch": 10**6, "rounding_bytes": 50 * GB}, "smaller batches; --effort fast; or run it where"),
    ],
)
def test_the_refusal_names_what_takes_most_and_what_makes_it_less(model, work, step):
    found = room.beside(preflight(model, {}, Work(10, **work)), room.Room(2 * GB, "a limit of 2.0 GB"))
    with pytest.raises(EnvironmentFault) as caught:
        room.refuse(found)
    assert step in caught.value.next_step
    sizes = [found.memory[fault.where] for fault in caught.value.faults]
    assert sizes == sorted(sizes, reverse=True)
    assert caught.value.exit_code == 6


# ---- a real command -------------------------------------------------------------------------------------------------


@pytest.fixture
def little(monkeypatch):
    """A machine with 100 MB left: what is outside of us, and cannot be made so here."""
    monkeypatch.setattr(room, "left", lambda: room.Room(100 * MB, "a limit of 100.0 MB for its control group"))


def test_pack_refuses_before_anything_is_made(little, tmp_path, capfd):
    out = tmp_path / "out"
    assert main(["pack", str(TINY_JOB), "--budget", "size=20KB", "--out", str(out)]) == 6
    told = capfd.readouterr().err
    assert "100.0 MB are left (a limit of 100.0 MB for its control group)" in told
    assert f"- {PROGRAMS}: about 600.0 MB" in told
    assert "or run it where there is more memory" in told
    assert not out.exists()
    assert "baseline of the float model" not in told, "nothing was run"


def test_a_dry_run_ends_as_pack_would_and_tells_the_figures(little, capfd):
    assert main(["pack", str(TINY_JOB), "--dry-run"]) == 6
    told = capfd.readouterr().out
    assert "memory: 100.0 MB are left (a limit of 100.0 MB for its control group): pack refuses to begin" in told
    assert main(["pack", str(TINY_JOB), "--dry-run", "--json"]) == 6
    found = json.loads(capfd.readouterr().out)
    assert found["available_bytes"] == 100 * MB < found["forecast_bytes"] == sum(found["memory"].values())
