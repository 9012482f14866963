"""All names change or none does."""

from __future__ import annotations

import pytest

from haversack.base.errors import EnvironmentFault
from haversack.tools.store.whole import put

NAMES = ("best/one", "recipe.toml", "report.json")


def made(folder, text):
    (folder / "best" / "one").mkdir(parents=True)
    (folder / "best" / "one" / "file").write_text(text)
    for name in NAMES[1:]:
        (folder / name).write_text(text)
    return folder


def held(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def stage(tmp_path):
    return made(tmp_path / "stage", "new")


def test_all_of_it_takes_its_place(stage, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    put(stage, out, NAMES)
    assert held(out) == {"best/one/file": "new", "recipe.toml": "new", "report.json": "new"}
    assert held(stage) == {}


def test_what_stood_there_goes_and_what_is_not_named_stays(stage, tmp_path):
    out = made(tmp_path / "out", "old")
    (out / "best" / "one" / "stale").write_text("old")
    (out / "best" / "two").mkdir()
    (out / "best" / "two" / "file").write_text("other")
    put(stage, out, NAMES)
    assert held(out) == {"best/one/file": "new", "best/two/file": "other", "recipe.toml": "new", "report.json": "new"}


@pytest.mark.parametrize("lacks", NAMES)
@pytest.mark.parametrize("before", ["old", ""])
def test_where_one_cannot_move_all_is_as_it_was(stage, tmp_path, lacks, before):
    out = tmp_path / "out"
    out.mkdir()
    if before:
        out.rmdir()
        made(out, before)
    was, folders = held(out), sorted(path for path in out.rglob("*") if path.is_dir())
    (stage / lacks).rename(tmp_path / "gone")
    if lacks == NAMES[0]:
        (stage / lacks).symlink_to(tmp_path)  # a link to a folder moves; the next name does not
        (stage / NAMES[1]).unlink()
    with pytest.raises(EnvironmentFault, match="one of the path is gone"):
        put(stage, out, NAMES)
    assert held(out) == was
    assert sorted(path for path in out.rglob("*") if path.is_dir()) == folders


def test_a_folder_where_a_file_is_to_go_is_left_alone(stage, tmp_path):
    out = made(tmp_path / "out", "old")
    (out / "recipe.toml").unlink()
    (out / "recipe.toml").mkdir()
    (out / "recipe.toml" / "mine").write_text("mine")
    was = held(out)
    with pytest.raises(EnvironmentFault, match="it is a folder, not a file") as caught:
        put(stage, out, NAMES)
    assert caught.value.where == str(out / "recipe.toml")
    assert held(out) == was
