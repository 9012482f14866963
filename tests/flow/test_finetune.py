"""``haversack finetune`` on the tiny job, under other light: a whole run, an update of it, one that was killed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from haversack import report
from haversack.cli import main
from haversack.flow import deltas
from haversack.flow.released import read
from haversack.flow.verify import verify

JOB = str(Path(__file__).parent / "moved_job.py")
LIMIT = 1200


def command(released, out, *more):
    words = ["--max-delta", f"{LIMIT}B", "--from", str(released), "--out", str(out), "--epochs", "4"]
    return ["finetune", JOB, *words, *more]


@pytest.fixture(scope="session")
def updated(static, tmp_path_factory):
    """The folder of an update of the tiny job's release, with all layers beside it."""
    out = tmp_path_factory.mktemp("updated") / "out2"
    assert main(command(static, out, "--compare-full")) == 0
    return out


@pytest.fixture(scope="session")
def update(updated):
    return report.read(updated).update


def test_it_is_better_on_the_new_data_within_the_limit(update):
    ships, first, full = update.shipped, update.first, update.points[-1]
    assert first.bytes == 0
    assert ships.value > first.value + 0.05
    assert max(update.deltas.values()) == ships.bytes <= update.limit == LIMIT
    assert full.name == "all layers"
    assert full.bytes > ships.bytes
    assert not full.ships
    assert set(ships.layers.values()) <= {"channels", "weights"}
    assert {(one.layer, one.way) for one in update.offers if one.chosen} == set(ships.layers.items())


def test_its_bytes_are_those_of_the_real_delta(static, updated, update):
    for target, size in update.deltas.items():
        old, new = ((folder / "best" / target / "model.onnx").read_bytes() for folder in (static, updated))
        assert len(deltas.smallest(old, new)[1]) == size


def test_the_grids_of_the_release_are_kept_or_told(static, updated):
    old, new = read(static).encodings, read(updated).encodings
    record = report.read(updated)
    found = [f for f in record.best_of("onnxruntime").findings if f.kind == "ranges-exceeded"]
    keys = [key for key in old.tensors if key.endswith(":out")]
    changed = [key for key in keys if not _same(old.tensors[key], new.tensors[key])]
    anew = re.findall(r"(\d+) were calibrated anew", "".join(one.text for one in found))
    # A grid set anew may be the one that was there: other grids are never untold.
    assert len(changed) <= int(anew[0] if anew else 0) <= len(keys)
    assert changed or "all were kept" in found[0].text or anew


def _same(one, other):
    return (one.scale == other.scale).all() and (one.zero_point == other.zero_point).all()


def test_layers_that_were_not_chosen_have_the_same_integers(static, updated, update):
    old, new = read(static).encodings, read(updated).encodings
    for key, codes in old.integers.items():
        if key.removesuffix(":weight") not in update.shipped.layers:
            assert (new.integers[key] == codes).all()


def test_what_it_leaves_is_a_run_like_any_other(updated, tmp_path, capsys):
    assert verify(updated).exit_code == 0
    bundle = tmp_path / "tiny-1.1.0.haversack"
    assert main(["bundle", str(updated), "--out", str(bundle)]) == 0
    assert main(["verify", str(bundle)]) == 0
    assert main(["report", str(updated)]) == 0
    told = capsys.readouterr().out
    assert "on the new data" in told
    assert "haversack bundle" in told
    page = (updated / "report.html").read_text()
    assert "What each layer brings" in page
    assert "Delta from the release" in page


def test_an_update_can_be_updated_and_is_told_as_json(updated, tmp_path, capsys):
    assert main(command(updated, tmp_path / "out3", "--freeze", "auto,7", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    found = report.read(tmp_path / "out3").update
    assert told["update"]["limit"] == found.limit == LIMIT
    assert [one["limit"] for one in told["budget"]] == ["delta"]
    assert found.base == report.read(updated).update.base
    assert not any(one.layer.startswith("7:") for one in found.offers)
    assert found.first.value == report.read(updated).update.shipped.value


def test_killed_it_goes_on_and_leaves_the_same(static, updated, update, tmp_path, environment):
    out = tmp_path / "out2"
    words = [sys.executable, "-m", "haversack.cli", *command(static, out, "--compare-full")]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    events, until = out / "events.jsonl", time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if events.exists() and "all of channels" in events.read_text():
            break
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "report.json").exists()
    assert main(words[3:]) == 0
    found = report.read(out).update
    assert [(one.name, one.bytes, one.loss) for one in found.points] == [
        (one.name, one.bytes, one.loss) for one in update.points
    ]
    for name in ("model.onnx", "encodings.safetensors"):
        place = f"best/onnxruntime/{name}"
        assert (out / place).read_bytes() == (updated / place).read_bytes()


@pytest.fixture
def release(static, tmp_path):
    """A copy of the release that a test may spoil."""
    shutil.copytree(static, tmp_path / "release")
    return tmp_path / "release"


def test_a_spoiled_release_is_not_updated(release, tmp_path, capsys):
    path = release / "best" / "onnxruntime" / "encodings.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert main(command(release, tmp_path / "out2")) == 5
    assert "not what was measured" in capsys.readouterr().err


def test_a_limit_that_nothing_meets_says_the_smallest(static, tmp_path, capsys):
    words = command(static, tmp_path / "out2")
    words[words.index(f"{LIMIT}B")] = "40B"
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "no update that was tried is as small as 40.0 B: they take" in told
    assert "next: --max-delta" in told
    assert not (tmp_path / "out2" / "best").exists()
