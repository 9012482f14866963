"""A real Ray cluster of two workers: the same results as here, whatever dies, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from haversack import load, metrics
from haversack.base.errors import EnvironmentFault, JobError
from haversack.base.job import Job
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.progress import silent
from haversack.base.spread import here
from haversack.compress.perturb import perturb
from haversack.compress.rates import rates
from haversack.flow import far
from haversack.flow.ahead import apply_ahead
from haversack.flow.cluster import OUR_TRIES, spreading
from haversack.flow.crossing import Meant, outputs_of
from haversack.flow.data import Data
from haversack.flow.race import race
from haversack.flow.squeeze import Squeezer, together
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.measure.local import LocalDevice
from haversack.profile.ranges import ranges
from haversack.profile.sensitivity import sensitivity
from haversack.targets.contract import SHELF
from haversack.targets.reference import Reference

FAKES = Path(__file__).parents[1] / "fakes" / "cluster"
sys.path.append(str(FAKES))
import spread_work  # noqa: E402 - workers find it by its name


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def cluster(told):
    with pytest.MonkeyPatch.context() as patch:
        source = Path(__file__).parents[2] / "src"
        patch.setenv("PYTHONPATH", os.pathsep.join([str(source), str(FAKES), os.environ.get("PYTHONPATH", "")]))
        heard = signal.getsignal(signal.SIGTERM)
        with spreading("local:2", told.append) as spread:
            yield spread
        assert signal.getsignal(signal.SIGTERM) is heard
    until = time.monotonic() + 10
    while (left := rays()) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


def rays():
    """Return the processes of Ray below this one."""
    below = psutil.Process().children(recursive=True)
    return [one.name() for one in below if one.is_running() and "ray" in " ".join(one.cmdline())]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU6(), nn.Flatten(), nn.Linear(128, 5)
    ).eval()


IMAGES = np.random.default_rng(0).normal(0, 1, (24, 2, 6, 6)).astype(np.float32)
JOB = Job(
    name="tiny",
    model=network,
    calibration=lambda: ((IMAGES[start : start + 8],) for start in range(0, 24, 8)),
    evaluation=lambda: iter([((IMAGES,), np.zeros(24, np.int64))]),
    metric="top1",
)


@pytest.fixture(scope="module")
def model():
    return load.export(JOB)


GPTQ = (Step("gptq"),)


def plan_of(model, weights="mse", prepare=GPTQ, spread="mse"):
    layers = {node.key: LayerPlan("int8", weights=Step(weights)) for node in model.graph.nodes if node.weight}
    return Plan("onnxruntime", layers, prepare, Step(spread), ("onnxruntime",), weights)


def test_it_says_how_many_workers_there_are(cluster, told):
    assert told[-1].text == "pure work goes to 2 workers of 1 thread in a Ray cluster (local:2)"


def test_results_are_in_order_from_more_than_one_process(cluster, tmp_path):
    found = list(cluster(spread_work.squared_together, (str(tmp_path), 0.5), range(6)))
    assert found == [0.5 * task * task for task in range(6)]
    processes = {path.read_text() for path in tmp_path.iterdir()}
    assert len(processes) == 2
    assert str(os.getpid()) not in "".join(processes)


def test_a_program_that_was_told_of_ahead_is_read_before_the_first_task(cluster, model, tmp_path):
    import ray  # what it does with its logs it decides when it is loaded, within the fixture

    cluster.ahead(model.program)
    (_, reference) = cluster._programs[str(id(model.program))]
    assert {type(found) for found in ray.get(cluster.warming)} == {type(None)}
    found = set(cluster(spread_work.knows, (str(tmp_path), reference.hex()), range(6)))
    assert found == {True}
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 2


def test_here_there_is_nothing_to_read_ahead(model):
    here.ahead(model.program)
    assert list(here(lambda shared, task: shared + task, 1, [2])) == [3]


def test_sensitivity_is_the_same_to_the_bit(cluster, model):
    samples = [sample for (sample,) in JOB.calibration()]
    known = partial(perturb, ranges=dict(ranges(model, [(one,) for one in samples])))
    ways = {"int8": LayerPlan(), "int8/8": LayerPlan("int8", weights=Step("coarse", {"factor": 8.0}))}
    ask = partial(sensitivity, model, known, [(samples[0][:4],)], ways=lambda _: ways)
    near = ask(spread=here)
    assert len(near) == 3
    assert ask(spread=cluster) == near


def test_rates_are_the_same(cluster, model):
    ways = {"int8": LayerPlan(), "float32": LayerPlan("float32")}
    near = rates(model, lambda _: {"int8": ways["int8"]})
    assert rates(model, lambda _: {"int8": ways["int8"]}, spread=cluster) == near


@pytest.fixture
def steps(tmp_path):
    metric = metrics.resolve("top1")
    with Workshop(tmp_path / "out", "job", silent) as shop, LocalDevice() as device:
        targets = {"onnxruntime": SHELF.build("onnxruntime")}
        yield lambda spread: Steps(shop, JOB, Data(JOB, None, metric), metric, targets, device, spread=spread)


def test_the_race_is_the_same_and_the_ledger_knows_no_cluster(cluster, steps, monkeypatch):
    ran = steps(cluster)
    plans = [plan_of(ran.model, weights, (Step("fold_norm"), Step("gptq"))) for weights in ("mse", "minmax")]
    before = len(cluster.seconds)
    spread = race(ran, plans)
    assert len(cluster.seconds) == before + 2
    assert race(steps(here), plans) == spread
    near = steps(here)
    monkeypatch.setattr(near.shop, "remember", lambda stage, text, parts, make, **_: make())
    assert race(near, plans) == spread


def test_plans_that_are_rounded_at_once_hold_the_same_integers(cluster, model):
    constraints = together({"onnxruntime": SHELF.build("onnxruntime").demands(model)})
    data = Data(JOB, None, metrics.resolve("top1"))

    def squeezer():
        return Squeezer(model, lambda of: dict(ranges(of, data.calibration())), constraints, data.calibration)

    plans = [plan_of(model), plan_of(model, prepare=(Step("equalize"), Step("bias_correct")))]
    ours, theirs = squeezer(), squeezer()
    apply_ahead(theirs, plans, data, cluster)
    assert len(theirs.ahead) == 2
    for plan in plans:
        near, spread = ours(plan), theirs(plan)
        assert near.model.digest == spread.model.digest != model.digest
        assert near.model.notes == spread.model.notes
        assert near.findings == spread.findings
        assert near.encodings.tensors.keys() == spread.encodings.tensors.keys()
        for key, integers in near.encodings.integers.items():
            assert np.array_equal(integers, spread.encodings.integers[key])
    assert theirs.ahead == {}


def test_the_reference_is_the_same_to_the_bit(cluster, model):
    constraints = together({"onnxruntime": SHELF.build("onnxruntime").demands(model)})
    made = Squeezer(model, lambda of: dict(ranges(of, JOB.calibration())), constraints, JOB.calibration)(plan_of(model))
    meant, samples = Meant(Reference(), made.model, made.encodings), list(JOB.calibration())
    near, spread = (list(run(outputs_of, meant, samples)) for run in (here, cluster))
    assert all(np.array_equal(a, b) for (a,), (b,) in zip(near, spread, strict=True))
    assert spread[0][0].flags.writeable


def test_what_arrives_is_the_functions_own(cluster):
    array, task = np.zeros(50_000, np.float32), np.ones(50_000, np.float32)
    assert next(cluster(spread_work.writes, (array,), [task])).sum() == 100_000
    assert (array.sum(), task.sum()) == (0, 50_000)


def test_a_worker_has_as_many_threads_as_we_have(cluster):
    ours = torch.get_num_threads()
    (found,) = cluster(spread_work.threads, None, [0])
    assert found[:2] == (ours, str(ours))
    assert found[2] == os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))


def test_a_worker_that_dies_costs_its_task_alone(cluster, tmp_path):
    found = list(cluster(spread_work.dies_once, (str(tmp_path), 1), range(6)))
    assert found == [task * task for task in range(6)]
    assert (tmp_path / "died").exists()
    tries = [len((tmp_path / f"task-{task}").read_text().split()) for task in range(6)]
    assert tries == [1] * 6


def test_a_worker_that_is_killed_from_outside_costs_its_task_alone(cluster, tmp_path, capfd):
    run = cluster(spread_work.squared, (str(tmp_path), 1), range(8))
    assert next(run) == 0
    started = [int(line) for path in tmp_path.iterdir() for line in path.read_text().split()]
    busy = [pid for pid in dict.fromkeys(started) if psutil.pid_exists(pid)]
    os.kill(busy[-1], signal.SIGKILL)
    assert list(run) == [task * task for task in range(1, 8)]
    again = sum(len(path.read_text().split()) for path in tmp_path.iterdir()) - 8
    assert again in {0, 1}
    assert capfd.readouterr().out == ""  # Ray has a sentence of its own for that


def test_what_a_cluster_tells_its_driver_is_not_printed(cluster, tmp_path, capfd):
    import ray

    assert list(cluster(spread_work.squared, (str(tmp_path), 1), [3])) == [9]
    told = {"lines": ["a worker died"], "pid": "raylet", "is_err": False}  # as a thread of Ray's passes it on
    ray._private.worker.print_to_stdstream(told, ignore_prefix=False)
    assert capfd.readouterr().out == ""


def test_a_task_that_kills_every_worker_ends_the_run_in_words(cluster, tmp_path, monkeypatch):
    assert cluster.retries > 0
    monkeypatch.setattr(cluster, "retries", 0)  # a new worker needs a while
    with pytest.raises(EnvironmentFault) as caught:
        list(cluster(spread_work.always_dies, str(tmp_path), [0]))
    assert "a task was lost" in str(caught.value)
    assert len((tmp_path / "tries").read_text().split()) == OUR_TRIES
    assert "resumes" in caught.value.next_step


def test_our_errors_arrive_whole(cluster):
    with pytest.raises(JobError) as caught:
        list(cluster(spread_work.refuses, None, [3]))
    assert str(caught.value).splitlines() == ["task: it is odd", "  - 3: odd", "  tried: looking", "  next: another"]


def test_other_errors_arrive_as_they_are(cluster):
    with pytest.raises(IndexError, match="list index out of range"):
        list(cluster(spread_work.breaks, None, [3]))


def test_only_named_functions_are_spread(cluster):
    with pytest.raises(TypeError, match="only a function that a module names"):
        next(cluster(lambda shared, task: task, None, [1]))


def test_nothing_runs_on_when_the_results_are_no_longer_wanted(cluster, tmp_path):
    run = cluster(spread_work.squared, (str(tmp_path), 1), range(100))
    assert next(run) == 0
    run.close()
    made = len(list(tmp_path.iterdir()))
    time.sleep(1.0)
    assert len(list(tmp_path.iterdir())) == made < 10


def test_a_worker_of_another_version_is_refused(cluster, monkeypatch):
    other = {**far.likeness(), "haversack": "the version with the digest 000000000000", "torch": "1.0"}
    monkeypatch.setattr(cluster, "terms", far.Terms(other, cluster.terms.threads))
    with pytest.raises(EnvironmentFault) as caught:
        cluster.greet()
    assert [fault.cause.partition(" is ")[0] for fault in caught.value.faults] == ["haversack", "torch"]
    with pytest.raises(EnvironmentFault, match="bit for bit"):
        list(cluster(spread_work.threads, None, [0]))


def test_a_second_run_joins_by_address_and_leaves_the_cluster_alone(cluster, tmp_path):
    """The address of the running cluster, from another process that has its token in the environment."""
    import ray

    address = ray.get_runtime_context().gcs_address
    script = f"""
import sys
from haversack.flow.cluster import spreading
import spread_work
with spreading({address!r}, lambda event: print(event.text)) as spread:
    print(list(spread(spread_work.squared, ({str(tmp_path)!r}, 1), range(3))))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=200)
    assert done.stdout.splitlines()[1:] == [
        f"pure work goes to 2 workers of 1 thread in a Ray cluster ({address})",
        "[0, 1, 4]",
    ], done.stderr
    assert next(cluster(spread_work.squared, (str(tmp_path), 1), [3])) == 9


def test_a_run_that_is_asked_to_end_does_so_in_order(cluster):
    """Ray's handler of SIGTERM aborts the process; what waits for a task hears it as Ctrl-C."""
    import ray

    address = ray.get_runtime_context().gcs_address
    script = f"""
import os, signal, sys, threading
from haversack.cli.process import Terminated, orderly
from haversack.flow.cluster import spreading
import spread_work
try:
    with orderly(), spreading({address!r}, lambda event: None) as spread:
        threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        list(spread(spread_work.slow, 60.0, range(1)))
except Terminated as stop:
    print("in order")
    sys.exit(stop.exit_code)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stdout) == (143, "in order\n"), done.stderr
