"""Writing a bundle: the same bytes every time, whole or not at all, never over something else."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from haversack.base.bundle import Variant
from haversack.base.errors import EnvironmentFault, Refused, UsageError, VerificationError
from haversack.bundle import make, variant
from haversack.bundle.variant import Piece
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

LABELS = Piece("labels.txt", "labels", b"a\nb\n")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_files_give_the_same_bytes(made, tmp_path):
    first = made("one/digits-1.0.0.haversack", more=(LABELS,))
    umask = os.umask(0o077)
    try:
        second = made("two/elsewhere", more=(LABELS,))
    finally:
        os.umask(umask)
    assert content(first.folder) == content(second.folder)
    assert first.sha256 == second.sha256
    assert sorted(content(first.folder)) == [
        "encodings.safetensors", "labels.txt", "litert.golden.npz", "litert.json", "litert.tflite", "manifest.json",
        "second.golden.npz", "second.json", "second.tflite",
    ]  # fmt: skip
    assert list((tmp_path / "one").iterdir()) == [first.folder], "nothing else is left"


def test_it_is_what_a_stranger_reads(made):
    found = made(more=(LABELS,))
    assert [one.target for one in found.manifest.variants] == ["litert", "second"]
    assert found.manifest.metric == ("top1", "fraction")
    assert found.labels == ("a", "b")
    told = found.artifacts["litert"]
    assert told.files[0].path == "litert.tflite"
    assert (told.tensor_names, told.bias_digests, told.injected) == ({}, {}, 0)


def test_the_same_bundle_again_changes_nothing(made):
    first = made()
    before = {path: path.stat().st_ino for path in first.folder.iterdir()}
    assert made().sha256 == first.sha256
    assert {path: path.stat().st_ino for path in first.folder.iterdir()} == before


def test_a_version_that_was_given_away_never_changes(made):
    first = made()
    before = content(first.folder)
    with pytest.raises(UsageError, match="already something else") as caught:
        made(content=b"\x1c\0\0\0TFL3" + bytes(41))
    assert "digits-NEXT.haversack" in caught.value.next_step
    assert content(first.folder) == before


def test_a_bundle_that_was_spoiled_is_not_taken_for_the_same(made):
    first = made()
    (first.folder / "litert.tflite").write_bytes(b"spoiled")
    with pytest.raises(Refused, match=r"litert\.tflite"):
        made()


def test_a_folder_of_somebody_else_is_left_alone(made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="already something else"):
        made("mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert made("empty").manifest.name == "digits"


def test_a_file_of_the_run_that_changes_meanwhile(left, tmp_path):
    one = left("litert")
    pieces = [*variant.pieces(one), *variant.encodings([one])]
    (one.folder / "golden.npz").write_bytes(b"another")
    with pytest.raises(VerificationError, match="a file of the run changed"):
        make.write("digits", "1.0.0", pieces, [Variant("litert", "2.0")], ("", ""), tmp_path / "to" / "x")
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    "piece, said",
    [
        (Piece("labels.txt", "labels", b"a"), "its last line does not end"),
        (Piece("preprocess.json", "preprocess", canonical.dumps([{"op": "noise", "input": 0}])), "none of blur"),
        (Piece("licence.txt", "licence", b"\x1b"), "control characters"),
    ],
)
def test_nothing_is_written_that_a_device_refuses(made, tmp_path, piece, said):
    with pytest.raises(Refused, match=said):
        made(more=(piece,))
    assert not (tmp_path / "digits-1.0.0.haversack").exists()
    assert [one.name for one in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize(
    "piece",
    [Piece("../x.txt", "licence", b""), Piece("X.txt", "licence", b""), Piece("a.txt", "licence", bytes(2 << 20))],
)
def test_names_and_sizes_that_no_bundle_has(made, piece):
    with pytest.raises(UsageError, match="it would be no bundle"):
        made(more=(piece,))


def test_two_files_of_one_role(made):
    with pytest.raises(UsageError, match="2 files of the role labels"):
        made(more=(LABELS, replace(LABELS, name="names.txt")))


def test_what_a_killed_command_left_is_removed(made, tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(gone.stdout)
    left = tmp_path / "out" / f".digits-1.0.0.haversack.{dead}-0123456789ab.part"
    other = tmp_path / "out" / f".words-1.0.0.haversack.{dead}-0123456789ab.part"
    ours = tmp_path / "out" / atomic.temporary_name("digits-1.0.0.haversack")
    for folder in (left, other, ours):
        folder.mkdir(parents=True)
        (folder / "labels.txt").write_bytes(b"a")
    made("out/digits-1.0.0.haversack")
    assert [folder.exists() for folder in (left, other, ours)] == [False, True, True]


def test_a_folder_that_cannot_be_written(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault):
        made("file/digits-1.0.0.haversack")


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("after", range(0, 24, 4))
def test_an_error_at_any_step_leaves_nothing(made, tmp_path, monkeypatch, call, after):
    """Fail one of the calls that make a bundle last: then there is none, or the whole one."""
    count = 0
    real_replace, real_fsync = Path.replace, os.fsync

    def failing(real):
        def run(*words):
            nonlocal count
            count += 1
            if count > after:
                raise OSError(28, "No space left on device")
            return real(*words)

        return run

    left_before = made("warm").sha256  # the run's own files are written before it fails
    shutil.rmtree(tmp_path / "warm")
    if call == "replace":
        monkeypatch.setattr(Path, "replace", failing(real_replace))
    else:
        monkeypatch.setattr(os, "fsync", failing(real_fsync))
    try:
        found = made("late")
    except (EnvironmentFault, OSError):
        assert not (tmp_path / "late").exists()
    else:
        assert found.sha256 == left_before
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_its_files_may_be_read_by_who_may_read_files_here(made):
    mode = stat.S_IMODE((made().folder / "litert.tflite").stat().st_mode)
    assert mode == 0o666 & ~_umask()


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
