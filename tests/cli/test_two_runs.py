"""Two runs on one folder at once, each a process of its own: the second is refused and disturbs nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.cli import main
from haversack.flow.workshop import elsewhere

HELD = ".haversack/ledger.jsonl.lock"


@pytest.fixture
def running(packed, environment, tmp_path):
    """A run that has just claimed its folder: the process, the folder and the command."""
    out = tmp_path / "out"
    command = packed.command(out)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as run:
        until = time.monotonic() + 200
        while not ((out / HELD).exists() and (out / HELD).read_text()) and run.poll() is None:
            assert time.monotonic() < until, "it never claimed its folder"
            time.sleep(0.02)
        yield run, out, command
        run.kill()


def test_the_second_is_refused_by_the_first_one_s_number_with_the_command_for_another_folder(
    running, packed, environment
):
    first, out, command = running
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    second = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert first.poll() is None, "the first one ended before the second began"
    assert second.returncode == 6
    assert f"{out}: another run (process {first.pid}) is writing to this folder" in second.stderr
    assert f"--out {out}-2" in second.stderr.partition("next: haversack pack")[2]
    assert "Traceback" not in second.stderr
    assert json.loads((out / ".haversack" / "job.json").read_text())["command"], "the mark is the first one's"
    assert all((out / name).read_bytes().startswith(content) for name, content in before.items())


def test_another_job_is_refused_too_though_nothing_was_made_yet(running, tmp_path, capfd):
    first, out, _ = running
    job = tmp_path / "other.py"
    job.write_text(Path(__file__).parents[1].joinpath("flow", "tiny_job.py").read_text())
    assert main(["pack", str(job), "--out", str(out)]) == 6
    assert f"process {first.pid}" in capfd.readouterr().err
    assert "tiny_job.py" in json.loads((out / ".haversack" / "job.json").read_text())["source"]


def test_a_killed_run_holds_nothing(running, environment):
    first, out, command = running
    first.send_signal(signal.SIGKILL)
    first.wait(20)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "report.json").is_file()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("haversack pack job.py --out a/b --json", "haversack pack job.py --out a/b-2 --json"),
        ("haversack pack job.py --out=a/b", "haversack pack job.py --out=a/b-2"),
        ("haversack pack 'my job.py'", "haversack pack 'my job.py' --out a/b-2"),
        ("", "haversack pack JOB --out a/b-2"),
    ],
)
def test_the_command_for_another_folder(command, said):
    assert elsewhere(command, Path("a/b")) == said


@given(st.lists(st.text(min_size=1).filter(lambda word: not word.startswith("--out")), min_size=1))
def test_whatever_was_typed_stays(words):
    import shlex

    found = shlex.split(elsewhere(shlex.join([*words, "--out", "x"]), Path("x")))
    assert found == [*words, "--out", "x-2"]
