"""Strangers' bytes, drawn by a fuzzer that sees which lines they reach: every reader refuses what it does not take.

Each target has 20 seconds here, in a process of its own; ``make fuzz SECONDS=600`` gives them more. What was found is
kept in ``FOUND``.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import fuzz  # noqa: E402
from targets import TARGETS, Target  # noqa: E402

from haversack.base.errors import Refused, VerificationError  # noqa: E402

SECONDS = int(os.environ.get("HAVERSACK_FUZZ_SECONDS", "20"))
CORPUS = os.environ.get("HAVERSACK_FUZZ_CORPUS", "")
FOUND: dict[str, tuple[str, ...]] = {
    "golden": (  # a member of the archive lies at byte 2^63
        (
            "UEsDBBQAAAAAAAAAIQDCQSQ1AwAAAAMAAAANAAAAMHxpbnB1dHx4Lm5weWFiY1BLAQIUAxQAAAAAAAAAIQDCQSQ1AwAAAAMA"
            "AAANAAwAAAAAAAAAAACAAf////8wfGlucHV0fHgubnB5AQAIAAAAAAAAAACAUEsFBgAAAAABAAEARwAAAC4AAAAAAA=="
        ),
    ),
    "state": (  # a floor, and a release set aside, in a year that no calendar has
        "AHsiZm9ybWF0IjoxLCJzZXF1ZW5jZXMiOnt9LCJ0aW1lIjoxZSszMDB9Cg==",
        (
            "AnsiZm9ybWF0IjoxLCJyZWxlYXNlcyI6W3sicmVhc29uIjoieCIsInNlcXVlbmNlIjoxLCJ0aW1lIjoxZSszMDAsInZlcnNp"
            "b24iOiIxLjAuMCJ9XX0K"
        ),
    ),
}
"""Target -> bytes that broke its reader once, in base64."""


@pytest.fixture(scope="module")
def target():
    """A function that returns a target, made once."""
    return functools.cache(lambda name: TARGETS[name]())


@pytest.mark.parametrize("name", TARGETS)
def test_good_bytes_are_read_and_cut_ones_refused(target, name):
    """A target whose seeds stop at the door would find nothing."""
    one = target(name)
    assert one.seeds
    for seed in one.seeds:
        one.read(seed)
        for end in (0, 1, len(seed) // 2, len(seed) - 1):
            one.check(seed[:end])


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(target, name):
    assert not any(target(name).check(base64.b64decode(found)) for found in FOUND[name])


@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_do_more_than_be_refused(name, environment):
    command = [sys.executable, str(HERE / "fuzz.py"), name, str(SECONDS)]
    command += [str(Path(CORPUS) / name)] if CORPUS else []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    runs = int(done.stdout.partition("stat::number_of_executed_units:")[2].split()[0])
    assert runs > 10, done.stdout[-2000:]


@pytest.mark.parametrize(
    "planted",
    [
        KeyError("x"),
        RecursionError(),
        MemoryError(),
        VerificationError("another kind", where="here"),
        Refused(""),
        Refused("a cause without a place"),
    ],
    ids=repr,
)
def test_a_reader_that_fails_in_another_way_is_found(planted):
    def read(data):
        raise planted

    with pytest.raises((AssertionError, type(planted))):
        Target([b""], read).check(b"")


def test_a_refusal_as_it_should_be_is_none():
    def read(data):
        raise Refused("a cause", where="a place")

    assert not Target([b""], read).check(b"")
    assert Target([b""], len).check(b"")


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_the_fuzzer_finds_a_planted_defect(tmp_path, environment):
    """Three steps behind each other, as no blind draw finds them; and the bytes are told."""
    copy = tmp_path / "fuzz.py"
    copy.write_text(Path(fuzz.__file__).read_text())
    (tmp_path / "haversack_planted.py").write_text(
        "def read(data):\n"
        "    if data[:1] == b'\\x50':\n"
        "        if data[1:2] == b'\\x4b':\n"
        "            if data[2:3] == b'\\x7f':\n"
        "                raise KeyError('planted')\n"
    )
    (tmp_path / "targets.py").write_text(
        "from types import SimpleNamespace\n"
        "from haversack_planted import read\n"
        "TARGETS = {'planted': lambda: SimpleNamespace(seeds=[b'abcd'], check=read, read=read)}\n"
    )
    copy.write_text(copy.read_text().replace('include=["haversack", "tuf"]', 'include=["haversack_planted"]'))
    command = [sys.executable, str(copy), "planted", "60"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "KeyError: 'planted'" in done.stdout
    assert "--replay UEt/" in done.stdout
