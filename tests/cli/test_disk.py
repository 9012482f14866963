"""Folders that cannot be written: exit code 6 with cause, place and next step; room made, the same command goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from haversack.base.errors import EnvironmentFault
from haversack.cli import main
from haversack.flow.pack import pack
from haversack.flow.request import Request

JOB = """
import numpy as np
import torch
metric = "top1"
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(64, 64).eval()
def calibration():
    yield (np.ones((4, 64), np.float32),)
def evaluation():
    yield (np.ones((4, 64), np.float32),), np.zeros(4, np.int64)
"""


@contextmanager
def mounted(folder, size: str, *, read_only: bool = False):
    """A small file system of its own; skipped where we may not mount."""
    folder.mkdir()
    options = f"size={size}" + (",ro" if read_only else "")
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    return str(tmp_path / "job.py")


def test_a_read_only_folder(tmp_path, job, capfd):
    with mounted(tmp_path / "disk", "1M", read_only=True) as disk:
        code = main(["pack", job, "--out", str(disk / "out")])
        told = capfd.readouterr().err
    assert code == 6, told
    assert "read-only" in told
    assert str(disk / "out") in told
    assert "--out" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("place", ["proc", "new", "there", "file"])
def test_a_dry_run_refuses_the_folder_that_the_run_would(tmp_path, job, capfd, place):
    with contextlib.ExitStack() as stack:
        out = Path("/proc/haversack-out")
        if place in ("new", "there"):
            disk = stack.enter_context(mounted(tmp_path / "disk", "1M"))
            out = disk / "out"
            if place == "there":
                out.mkdir()
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        elif place == "file":
            (tmp_path / "file").write_text("")
            out = tmp_path / "file" / "out"
        told = []
        for words in ([], ["--dry-run"]):
            assert main(["pack", job, "--out", str(out), *words]) == 6
            told.append(re.sub(r"^ +[\d.]+ s ", "", capfd.readouterr().err, flags=re.MULTILINE))
    assert told[0] == told[1]
    assert str(out) in told[0]
    assert "--out" in told[0]


def test_a_dry_run_leaves_no_folder_behind(tmp_path, job):
    assert main(["pack", job, "--out", str(tmp_path / "one" / "two"), "--dry-run"]) == 0
    (tmp_path / "empty").mkdir()
    assert main(["pack", job, "--out", str(tmp_path / "empty"), "--dry-run"]) == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "job.py"]


@pytest.mark.parametrize("typed", ["out", ""], ids=["given", "default"])
@pytest.mark.parametrize("of", ["another job", "somebody else"])
def test_a_dry_run_needs_no_folder_of_its_own(tmp_path, job, capfd, monkeypatch, typed, of):
    monkeypatch.chdir(tmp_path)
    holds, said = tmp_path / "out" / "theirs.txt", "it exists and is not a folder that haversack made"
    if of == "another job":
        holds, said = tmp_path / "out" / "report.json", "the folder holds the results of another job: /their/job.py"
        (tmp_path / "out" / ".haversack").mkdir(parents=True)
        (tmp_path / "out" / ".haversack" / "job.json").write_text('{"source": "/their/job.py"}')
    holds.parent.mkdir(exist_ok=True)
    holds.write_text("theirs")
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    words = ["pack", job, *(["--out", typed] if typed else [])]
    assert main([*words, "--dry-run"]) == 0
    told = capfd.readouterr().out
    assert "forecast: about" in told
    assert f"  note: out: {said}; the run itself needs another --out\n" in told
    assert main([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["notes"] == [f"out: {said}; the run itself needs another --out"]
    assert main(words) == 2
    assert f"out: {said}" in capfd.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.parametrize("size", ["4k", "12k", "40k"])
def test_a_full_disk(tmp_path, job, capfd, size):
    with mounted(tmp_path / "disk", size) as disk:
        code = main(["pack", job, "--budget", "size=1MB", "--out", str(disk / "out")])
        told = capfd.readouterr().err
        left = sorted(path.name for path in disk.rglob("*") if path.name.endswith(".part"))
        whole = (disk / "out" / "report.json").exists()
    assert code == 6, told
    assert "the disk is full" in told or "No space left" in told
    assert "next:" in told
    assert "Traceback" not in told
    assert left == []
    assert not whole


LEFT = ("best", "recipe.toml", "report.json", "report.html")


def filling(disk, words):
    """A sink that fills the disk when it hears these words."""

    def hear(event):
        if event.text.startswith(words):
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as stream:
                while stream.write(bytes(4096)):
                    pass

    return hear


@pytest.mark.parametrize("words", ["golden vectors", "writing the report"])
def test_a_disk_that_is_full_at_the_end_leaves_nothing_and_the_same_command_goes_on(tmp_path, job, words):
    with mounted(tmp_path / "disk", "8M") as disk:
        out = disk / "out"
        request = Request(job, "size=1MB", out=out, allow=("slower-than-float",))
        with pytest.raises(EnvironmentFault, match="the disk is full"):
            pack(request, filling(disk, words))
        assert [name for name in LEFT if (out / name).exists()] == []
        (disk / "filler").unlink()
        told = []
        assert pack(request, told.append).exit_code == 0
        assert [event.text for event in told if event.kind == "reused"]
        assert not [event.text for event in told if event.text.startswith("the onnxruntime file")], "made before"
        assert [name for name in LEFT if (out / name).exists()] == list(LEFT)
        assert main(["verify", str(out)]) == 0


def test_a_disk_that_is_full_at_the_end_leaves_what_an_earlier_run_left(tmp_path, job):
    with mounted(tmp_path / "disk", "8M") as disk:
        out = disk / "out"
        assert pack(Request(job, "size=1MB", out=out, allow=("slower-than-float",))).exit_code == 0
        before = {
            path: path.read_bytes()
            for name in LEFT
            for path in (out / name, *(out / name).rglob("*"))
            if path.is_file()
        }
        with pytest.raises(EnvironmentFault, match="the disk is full"):
            pack(Request(job, "size=10KB", out=out, allow=("slower-than-float",)), filling(disk, "writing the report"))
        assert {path: path.read_bytes() for path in before} == before
        assert not (out / ".haversack" / "leaving").exists()
        assert main(["verify", str(out)]) == 0


def test_a_folder_that_may_not_be_written(tmp_path, job, capfd):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; the read-only file system above is its case")
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["pack", job, "--out", str(tmp_path / "locked" / "out")]) == 6
    assert "permission denied" in capfd.readouterr().err


def test_a_report_into_a_read_only_folder(packed, tmp_path, capfd):
    with mounted(tmp_path / "disk", "8M") as disk:
        subprocess.run(["cp", "-r", str(packed.out), str(disk / "out")], check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        code = main(["report", str(disk / "out"), "--page"])
        told = capfd.readouterr().err
    assert code == 6, told
    assert "read-only" in told
    assert str(disk / "out" / "report.html") in told, "the file that is to be written"
    assert "--out" not in told, "this command has no such flag"
    assert "next: copy the folder to where it can be written" in told


def test_a_plan_into_a_read_only_folder(packed, tmp_path, capfd):
    with mounted(tmp_path / "disk", "1M", read_only=True) as disk:
        code = main(["resolve", str(packed.out), "--budget", "size=1MB", "--write", str(disk / "p.toml")])
        told = capfd.readouterr().err
    assert code == 6, told
    assert f"{disk / 'p.toml'}: the file system is read-only" in told
    assert "--out" not in told
    assert "next: choose a file that can be written with --write" in told
