"""What ``haversack finetune`` refuses, in words, before anything slow begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from haversack.base.encodings import Affine, Codebook, Encodings
from haversack.base.errors import JobError, UsageError
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.job import Job
from haversack.base.plan import LayerPlan, Plan
from haversack.cli import main
from haversack.flow import learning
from haversack.flow.finetune import Wish, check, demanded
from haversack.flow.released import read

HERE = Path(__file__).parent


def job(**fields):
    given = {"model": list, "calibration": list, "evaluation": list, "metric": "top1", "training": list, **fields}
    return Job(name="one", **given)


def test_all_wrong_flags_are_told_at_once(tmp_path):
    wish = Wish("job.py", "300 apples", tmp_path, tmp_path, (), epochs=0, allow=("slow",), device="moon")
    with pytest.raises(UsageError) as refusal:
        check(wish)
    told = str(refusal.value)
    for word in ("--max-delta", "--freeze", "--epochs", "--out", "--allow slow", "moon"):
        assert word in told
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(("typed", "wanted"), [("300KB", 300_000), ("1MiB", 1 << 20), ("40B", 40), ("0.5 kb", 500)])
def test_bytes_are_read_with_their_unit(typed, wanted):
    assert check(Wish("job.py", typed.replace(" ", ""))) == wanted


@pytest.mark.parametrize("typed", ["300", "0KB", "-3KB", "", "KB", "3pt", "infKB"])
def test_what_is_no_number_of_bytes_is_refused(typed):
    with pytest.raises(UsageError, match="max-delta"):
        check(Wish("job.py", typed))


def test_a_job_without_data_or_loss_is_told_both():
    with pytest.raises(JobError) as refusal:
        demanded(job(training=None, metric="spearman"))
    assert [fault.where for fault in refusal.value.faults] == ["training", "loss"]


def test_a_jobs_own_loss_comes_before_the_metrics():
    with pytest.raises(JobError, match="loss raised"):
        demanded(job(loss=lambda outputs, expected: outputs[7]))((), np.zeros(1))
    assert demanded(job()) is not None


def test_several_architectures_are_refused():
    with pytest.raises(JobError, match="nothing to fine-tune"):
        demanded(job(models=dict))


def test_there_must_be_a_finished_run(tmp_path):
    with pytest.raises(UsageError):
        read(tmp_path / "nothing")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="it is a bundle"):
        read(tmp_path)


def test_a_runtime_that_the_release_has_not_is_told(static):
    with pytest.raises(UsageError, match="no file for litert"):
        read(static, ("litert",))
    assert list(read(static, ("onnxruntime",)).ships) == ["onnxruntime"]


def test_a_release_of_another_model_is_refused(static, tmp_path, capsys):
    # Under other names: what another test imported stays imported.
    text = (HERE / "tiny_job.py").read_text().replace("manual_seed(0)", "manual_seed(5)")
    (tmp_path / "other_tiny.py").write_text(text)
    text = (HERE / "moved_job.py").read_text().replace("from tiny_job", "from other_tiny")
    (tmp_path / "other_moved.py").write_text(text)
    words = ["--max-delta", "4KB", "--from", str(static), "--out", str(tmp_path / "out2")]
    assert main(["finetune", str(tmp_path / "other_moved.py"), *words]) == 2
    assert "a run of another model" in capsys.readouterr().err


SPEC = TensorSpec(("n", 4), "float32")


def graph(*layers):
    nodes = [Node("x", "input", "x", (), SPEC)]
    for name, weight in layers:
        nodes.append(Node(f"{name}:linear#0", "linear", name, (nodes[-1].key,), SPEC, weight, None, (weight,)))
    return Graph(tuple(nodes), ("x",), (nodes[-1].key,))


def affine(scale):
    return Affine(8, signed=True, axis=None, scale=np.float32(scale), zero_point=np.int32(0))


def plan(found, precision="int8"):
    return {"onnxruntime": Plan("onnxruntime", {node.key: LayerPlan(precision) for node in found.nodes[1:]})}


def stored(found, encoding):
    return Encodings({f"{node.key}:weight": encoding for node in found.nodes[1:]})


def test_layers_change_as_their_storage_lets_them():
    found = graph(("a.one", "w"), ("a.two", "v"))
    one, two = (node.key for node in found.nodes[1:])
    both = learning.ways(found, stored(found, affine(0.3)), plan(found), ("auto",))
    assert both == {one: ("channels", "weights"), two: ("channels", "weights")}
    assert learning.ways(found, stored(found, affine(0.25)), plan(found), ())[one] == ("weights",)
    assert learning.ways(found, stored(found, affine(0.3)), plan(found, "int8_weights"), ())[one] == ("weights",)
    assert learning.ways(found, Encodings({}), plan(found), ())[one] == ("weights",)
    left = learning.ways(found, stored(found, affine(0.3)), plan(found), ("auto", "a.two"))
    assert list(left) == [one]


def test_palettes_and_shared_weights_stay():
    found = graph(("a", "w"), ("b", "v"), ("c", "w"))
    assert list(learning.ways(found, stored(found, affine(0.3)), plan(found), ())) == ["b:linear#0"]
    book = Codebook(1, np.zeros(2, np.float32))
    with pytest.raises(UsageError, match="no layer of the release can change"):
        learning.ways(found, Encodings({f"{node.key}:weight": book for node in found.nodes[1:]}), plan(found), ())


def test_globs_that_name_nothing_or_all_are_told():
    found = graph(("stem", "w"), ("head", "v"))
    with pytest.raises(UsageError) as refusal:
        learning.ways(found, stored(found, affine(0.3)), plan(found), ("sten", "auto", "tail"))
    assert [fault.where for fault in refusal.value.faults] == ["sten", "tail"]
    assert "stem" in refusal.value.faults[0].cause
    with pytest.raises(UsageError, match="freeze every layer"):
        learning.ways(found, stored(found, affine(0.3)), plan(found), ("*",))
