"""What the benchmarks rest on: rows of tables are artefacts, and their recipes differ in what the rows say."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from haversack.base.plan import Plan, Step
from haversack.load import open_job

ROOT = Path(__file__).resolve().parent.parent
TINY = "tests/flow/tiny_job.py"

with pytest.MonkeyPatch.context() as patched:
    patched.syspath_prepend(ROOT / "bench")
    import ablation
    import accounting
    import artefacts
    import delta_pairs
    import run
    import table


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny network's artefacts, made in a folder of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "WORK", tmp_path_factory.mktemp("bench"))
        with artefacts.opened(TINY) as made:
            yield made


def test_the_float_row_loses_nothing(tiny):
    found = tiny.of_float()
    assert (found.drop, found.relative_error, found.agreement) == (0.0, 0.0, 1.0)
    assert found.value > 0.8
    assert found.bytes > found.download_bytes > 0


def test_a_row_is_a_file_that_was_run(tiny):
    plain, exact = tiny.made(table.plain(tiny)), tiny.of_float()
    assert 0 < plain.relative_error < 0.2
    assert plain.bytes < exact.bytes / 2
    assert plain.value == pytest.approx(exact.value - plain.drop)
    assert 0.9 <= plain.agreement <= 1.0


def test_a_row_is_measured_once_a_commit(tiny, monkeypatch):
    plan = table.plain(tiny)
    monkeypatch.setattr(artefacts, "commit", lambda: "0123abc-dirty")
    first = tiny.made(plan)
    monkeypatch.setattr(artefacts, "commit", lambda: "0123abc")
    again = tiny.made(plan)
    assert again.cpu_seconds != first.cpu_seconds
    assert tiny.made(plan) == again
    monkeypatch.setattr(artefacts, "commit", lambda: "4567def")
    assert tiny.made(plan).cpu_seconds != again.cpu_seconds


def test_the_files_of_rows_hold_what_their_plans_say(tiny):
    rows = {words: plan for words, plan in ablation.static(tiny) if "steps" not in words}
    made = [plan.digest for plan in rows.values()]
    assert len(made) == len(set(made)), "two rows are one recipe"
    first, *_, last = rows.values()
    assert [step.part for step in first.prepare] == ["fold_norm"]
    assert first.ranges == Step("minmax")
    assert {"w4a8"} <= {layer.precision for layer in last.layers.values()}
    narrow = [plan for words, plan in rows.items() if ablation.POINTWISE in words]
    pointwise = ablation._pointwise(tiny)
    assert bool(narrow) is bool(pointwise)
    for plan in narrow:
        assert {key for key, layer in plan.layers.items() if layer.precision == "w4a8"} == pointwise


def test_a_network_of_4_bits_that_loses_too_much_is_missed(tiny, monkeypatch):
    worse = replace(tiny.of_float(), drop=0.01)
    monkeypatch.setattr(type(tiny), "made", lambda self, plan: worse)
    words = f"A, {ablation.POINTWISE}: clipped scales, {ablation.HELD}"
    (told,) = ablation._table("title", tiny, [(words, None), ("A, another", None)]).missed
    assert told == "1x1 convolutions and head of 4 bits: 1.00 pt are lost, not 0.3"
    assert not ablation._table("title", tiny, [("A, another", None)]).missed
    monkeypatch.setattr(type(tiny), "made", lambda self, plan: replace(worse, cpu_seconds=61.0))
    (told,) = ablation._table("title", tiny, [(ablation.OURS, None), ("A, another", None)]).missed
    assert told == "A, `gptq` (`--effort default`): 61 CPU s, not 60"


def test_water_fills_as_many_bytes_as_one_factor(tiny):
    base = Plan("onnxruntime", ablation._layers(tiny, "int8", ablation.MSE), (Step("fold_norm"),), Step("mse"))
    (_, even), (_, filled) = ablation._coarser(tiny, base, 5.04)
    assert {layer.weights.settings["factor"] for layer in even.layers.values()} == {5.04}
    assert {layer.precision for layer in filled.layers.values()} == {"int8"}
    mine, theirs = tiny.made(filled), tiny.made(even)
    assert mine.download_bytes <= theirs.download_bytes * 1.05
    assert mine.relative_error <= theirs.relative_error * 1.1


def test_ours_is_what_pack_makes_first(tiny):
    plan = table.default(tiny)
    assert plan.prepare[-1].part == "gptq"
    assert {layer.precision for layer in plan.layers.values()} == {"int8"}
    assert tiny.made(plan).relative_error < tiny.made(table.plain(tiny)).relative_error


def test_the_runtimes_own_quantizer_is_scored_as_we_are(tiny):
    stock = table.peer(tiny)
    assert 0 < stock.relative_error < 0.2
    assert 0 < stock.bytes < tiny.of_float().bytes


def test_a_recipe_that_loses_too_much_is_told(tiny, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def opened(_job):
        yield tiny

    monkeypatch.setattr(table, "opened", opened)
    monkeypatch.setattr(table, "NETWORKS", {"tiny": "tiny"})
    (held,) = table.tables()
    assert held.missed == ()
    assert len(held.rows) == 1
    assert len(held.rows[0]) == len(held.head)
    monkeypatch.setattr(table, "MOST", -1.0)
    (missed,) = table.tables()
    assert missed.missed[0].startswith("tiny: the default recipe loses")
    assert "**Missed:** tiny" in str(missed)
    monkeypatch.setitem(run.TABLES, "table", lambda: [missed])
    text, holds = run.told("table", peers=False)
    assert not holds
    assert text.startswith("Measured ")
    assert "| network |" in text


def test_columns_that_say_nothing_are_left_out(tiny):
    real = artefacts.Artefacts(tiny.steps)
    found = ablation._table("title", real, [])
    assert found.head == ablation.HEAD
    assert len(found.rows) == 1
    blind = ablation._row("words", replace(tiny.of_float(), agreement=math.nan))
    assert blind[2] == ""


def test_a_table_is_written_as_markdown_reads_it():
    lines = str(accounting.Table("title", "Words.", ("a", "b"), (("1", "2"),))).splitlines()
    assert lines == ["## title", "", "Words.", "", "| a | b |", "| --- | --- |", "| 1 | 2 |"]


@pytest.mark.parametrize("before", [None, "7"])
def test_a_variable_has_another_value_meanwhile(monkeypatch, before):
    monkeypatch.delenv("HAVERSACK_TRIED", raising=False)
    if before is not None:
        monkeypatch.setenv("HAVERSACK_TRIED", before)
    with pytest.raises(RuntimeError, match="inside"), accounting.meanwhile("HAVERSACK_TRIED", "3"):
        assert os.environ["HAVERSACK_TRIED"] == "3"
        raise RuntimeError("inside")
    assert os.environ.get("HAVERSACK_TRIED") == before


def test_every_part_of_the_page_is_kept_when_one_is_measured_anew():
    page = run.written({name: f"text of {name}" for name in run.PARTS})
    assert list(run.known(page)) == list(run.PARTS)
    assert {"ablation", "table"} <= set(run.PARTS)


def test_labels_are_those_of_what_calibrates(monkeypatch):
    """The job keeps them to itself: a batch of pictures and one of labels have the same rows."""
    pictures = Path(os.environ.get("HAVERSACK_DATA", ROOT / ".." / "shared" / "data")) / "imagenet-sample"
    if not pictures.is_dir():
        (pytest.fail if os.environ.get("CI", "").lower() in {"1", "true"} else pytest.skip)(f"{pictures} is missing")
    monkeypatch.setenv("HAVERSACK_IMAGES", "80")
    job = open_job(str(ROOT / "examples" / "efficientnet_lite0.py"))
    labels = list(delta_pairs.labels_of(job))
    assert [len(each) for each in labels] == [len(pixels) for (pixels,) in job.calibration()]
    assert (labels[0][::2] == labels[0][1::2]).all(), "two views of a picture show the same"
    assert len(set(labels[0].tolist())) > 2
