from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from haversack.base.errors import EXIT_ENVIRONMENT, EnvironmentFault
from haversack.tools.store import atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "report.json"
    atomic.write_text(path, "eins\n")
    atomic.write_text(path, "zwei: ä\r\n")
    assert path.read_bytes() == "zwei: ä\r\n".encode()
    atomic.write_bytes(path, memoryview(b"\x00\x01"))
    assert path.read_bytes() == b"\x00\x01"
    assert names(tmp_path) == ["report.json"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.json"
    atomic.write_text(path, "old")
    with pytest.raises(RuntimeError, match="half-way"), atomic.replacing(path) as stream:
        stream.write(b"new and half")
        raise RuntimeError("half-way")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_a_reader_during_the_block_sees_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    atomic.write_text(path, "old")
    with atomic.replacing(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_full_disk_is_told_and_leaves_the_old_file(small_disk):
    path = small_disk / "report.json"
    atomic.write_text(path, "old")
    with pytest.raises(EnvironmentFault) as caught:
        atomic.write_bytes(path, b"x" * 1_000_000)
    assert caught.value.cause == "the disk is full"
    assert caught.value.where == str(path)
    assert "free some space" in caught.value.next_step
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert path.read_text() == "old"
    assert names(small_disk) == ["report.json"]


def test_a_limit_on_file_sizes_is_told(tmp_path, file_size_limit):
    path = tmp_path / "report.json"
    file_size_limit(1000)
    with pytest.raises(EnvironmentFault, match="limit on file sizes"):
        atomic.write_bytes(path, b"x" * 1001)
    assert names(tmp_path) == []
    atomic.write_bytes(path, b"x" * 1000)
    assert path.stat().st_size == 1000


def test_a_read_only_folder_is_told(read_only_disk):
    with pytest.raises(EnvironmentFault, match="the file system is read-only") as caught:
        atomic.write_text(read_only_disk / "report.json", "x")
    assert "--out" in caught.value.next_step
    with pytest.raises(EnvironmentFault, match="the file system is read-only"):
        atomic.make_folder(read_only_disk / "out")


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(EnvironmentFault, match="it is a folder"):
        atomic.write_text(tmp_path / "report.json", "x")
    assert names(tmp_path) == ["report.json"]


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "out").write_text("I was here first")
    for path in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(EnvironmentFault, match="is a file, not a folder"):
            atomic.make_folder(path)
    with pytest.raises(EnvironmentFault, match="is a file, not a folder"):
        atomic.write_text(tmp_path / "out" / "x", "x")
    assert (tmp_path / "out").read_text() == "I was here first"


def test_a_folder_is_made_with_its_parents_and_may_exist(tmp_path):
    folder = tmp_path / "a" / "b"
    assert atomic.make_folder(folder) == folder
    assert atomic.make_folder(folder).is_dir()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "not permitted"),
        (errno.EIO, "the disk reports an error"),
        (errno.ENAMETOOLONG, "File name too long"),
    ],
)
def test_every_refusal_has_cause_place_attempt_and_next_step(number, words):
    error = OSError(number, os.strerror(number))
    with pytest.raises(EnvironmentFault) as caught, atomic.told(Path("/out/x"), "write the report"):
        raise error
    assert caught.value.cause == words
    assert caught.value.where == "/out/x"
    assert caught.value.tried == "write the report"
    assert caught.value.next_step
    assert caught.value.__cause__ is error


def test_an_error_without_a_number_keeps_its_words(tmp_path):
    assert "odd" in atomic.fault(OSError("odd"), tmp_path, "write").cause


def test_why_something_could_not_be_read_is_told_without_numbers_and_paths(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "gone").read_bytes()
    assert atomic.why(caught.value) == "no such file or directory"
    assert atomic.why(OSError("Odd")) == "odd"
    assert atomic.why(ValueError("Expecting value: line 1")) == "expecting value: line 1"


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(KeyError), atomic.told(tmp_path, "write"):
        raise KeyError("x")


def test_what_a_killed_writer_leaves_is_removed_and_a_living_one_s_is_not(tmp_path):
    script = f"""
        import os, signal
        from pathlib import Path
        from haversack.tools.store import atomic
        with atomic.replacing(Path({str(tmp_path)!r}) / "model.onnx") as stream:
            stream.write(b"half")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    mine = tmp_path / atomic.temporary_name("mine")
    mine.touch()
    other = tmp_path / ".notes.part"
    other.touch()
    dead = next(path for path in tmp_path.iterdir() if path not in (mine, other)).name
    folder = tmp_path / dead.replace("model.onnx", "bundle")
    (folder / "more").mkdir(parents=True)
    assert atomic.remove_leftovers(tmp_path, ".bundle.*.part") == 1
    assert not folder.exists()
    assert atomic.remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == sorted([mine.name, other.name])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_place_where_no_folder_can_be_made_is_told_as_that():
    with pytest.raises(EnvironmentFault) as caught:
        atomic.make_folder(Path("/proc/no-such-folder"))
    assert caught.value.cause == "no folder can be made there, or one of the path is gone"
    assert "--out" in caught.value.next_step


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.EIO])
def test_what_to_do_instead_is_the_commands_own(number):
    error = OSError(number, os.strerror(number))
    assert "--out" in atomic.fault(error, Path("p"), "write it").next_step
    own = atomic.fault(error, Path("p"), "write it", "choose another file with --write").next_step
    assert own.endswith("choose another file with --write")
    assert "--out" not in own


@pytest.mark.parametrize(
    "size, most, read", [(0, 5, 0), (5, 5, 5), (6, 5, 6), (100, 5, 6), (1 << 17, 1 << 19, 1 << 17)]
)
def test_a_file_is_read_whole_or_one_byte_too_far(tmp_path, size, most, read):
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(data[:size])
    assert atomic.read(tmp_path / "a", most) == data[:read]


def test_what_is_no_file_is_not_read(tmp_path):
    before = len([*Path("/proc/self/fd").iterdir()])
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(OSError, match=str(path) if path != tmp_path else "directory"):
            atomic.read(path, 5)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
