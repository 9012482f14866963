"""Deltas of files: made, applied, refused; on real model files and on any other."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load, save

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.cli import main
from haversack.deliver import publishing
from haversack.flow import deltas
from haversack.tools.codec import delta, download
from haversack.tools.formats.index import hints


def weights(seed=0):
    random = np.random.default_rng(seed)
    return {
        "a.weight": np.rint(random.normal(0, 30, (64, 96))).clip(-127, 127).astype(np.int8),
        "a.scale": random.uniform(0.01, 0.02, 64).astype(np.float32),
        "b.weight": np.rint(random.normal(0, 30, (200, 30))).clip(-127, 127).astype(np.int8),
    }


def trained(arrays, seed=1):
    random = np.random.default_rng(seed)
    return {
        name: (array + (random.random(array.shape) < 0.1)).astype(array.dtype) if name == "a.weight" else array
        for name, array in arrays.items()
    }


@pytest.fixture
def files(tmp_path):
    """Return the paths (old, new, delta, result) of a model before and after training; the last two are not there."""
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    old.write_bytes(save(weights()))
    new.write_bytes(save(trained(weights())))
    return old, new, tmp_path / "update.delta", tmp_path / "result.safetensors"


@pytest.mark.parametrize("codec", ["hvd1", "bsdiff", "auto"])
def test_a_file_comes_back(files, codec):
    old, new, patch, result = files
    made = deltas.make_file(old, new, patch, codec)
    assert made.codec == ("bsdiff" if codec == "bsdiff" else "hvd1")
    assert made.bytes == patch.stat().st_size == made.sizes[made.codec] == min(made.sizes.values())
    assert set(made.sizes) == ({"hvd1", "bsdiff"} if codec == "auto" else {codec})
    applied = deltas.apply_file(old, patch, result)
    assert result.read_bytes() == new.read_bytes()
    assert (applied.bytes, applied.codec) == (new.stat().st_size, made.codec)
    assert sorted(path.name for path in old.parent.iterdir()) == sorted(path.name for path in files)


def test_words_are_found_by_the_format(files):
    old, new = (path.read_bytes() for path in files[:2])
    found = deltas.make(old, new)
    assert list(found) == ["hvd1", "bsdiff"]
    assert len(found["hvd1"]) < 0.8 * len(found["bsdiff"])


def test_a_malformed_file_is_taken_as_bytes(tmp_path):
    old = save(weights())
    broken = struct.pack("<Q", int.from_bytes(old[:8], "little")) + b"{" * 900 + old[908:]
    found = deltas.make(old, broken, "hvd1")["hvd1"]
    assert delta.apply(old, found, limit=1 << 20) == broken
    assert tmp_path.exists()


def test_another_old_file_leaves_nothing_behind(files):
    old, new, patch, result = files
    deltas.make_file(old, new, patch)
    with pytest.raises(Refused, match="made for a file of") as told:
        deltas.apply_file(new, patch, result)
    assert told.value.where == str(new)
    assert not result.exists()
    assert len(list(old.parent.iterdir())) == 3


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-9], lambda data: b"PK" + data, lambda _: b"", lambda d: d + b"\0"]
)
@pytest.mark.parametrize("codec", ["hvd1", "bsdiff"])
def test_a_damaged_delta_leaves_nothing_behind(files, spoil, codec):
    old, new, patch, result = files
    deltas.make_file(old, new, patch, codec)
    patch.write_bytes(spoil(patch.read_bytes()))
    with pytest.raises(Refused) as told:
        deltas.apply_file(old, patch, result)
    assert str(patch) in told.value.where
    assert not result.exists()


def test_a_result_over_the_limit_is_refused(files):
    old, new, patch, result = files
    deltas.make_file(old, new, patch)
    with pytest.raises(Refused, match="are allowed"):
        deltas.apply_file(old, patch, result, limit=1000)


def test_what_is_there_is_replaced_only_where_it_is_a_delta(files):
    old, new, patch, result = files
    deltas.make_file(old, new, patch, "bsdiff")
    deltas.make_file(old, new, patch, "hvd1")
    assert delta.header(patch.read_bytes()).codec == "hvd1"
    before = new.read_bytes()
    with pytest.raises(UsageError, match="no delta that could be replaced"):
        deltas.make_file(old, new, new)
    with pytest.raises(UsageError, match="it is a folder"):
        deltas.make_file(old, new, old.parent)
    with pytest.raises(UsageError, match="is not replaced"):
        deltas.apply_file(old, patch, new)
    assert new.read_bytes() == before
    deltas.apply_file(old, patch, result)
    assert load(result.read_bytes())["a.weight"].shape == (64, 96)


def test_missing_files_and_folders(files, tmp_path):
    old, new, patch, result = files
    with pytest.raises(UsageError, match="no such file"):
        deltas.make_file(old, tmp_path / "none", patch)
    with pytest.raises(UsageError, match="no such file"):
        deltas.apply_file(old, patch, result)
    with pytest.raises(EnvironmentFault):
        deltas.make_file(old, new, tmp_path / "nowhere" / "update.delta")


def test_empty_files(tmp_path):
    old, new, patch, result = (tmp_path / name for name in "abcd")
    old.write_bytes(b"")
    new.write_bytes(b"")
    made = deltas.make_file(old, new, patch)
    assert made.ratio == 0.0
    assert "too little in common" in made.lines()[-1]
    deltas.apply_file(old, patch, result)
    assert result.read_bytes() == b""


def test_the_command_line_says_sizes_and_ratio(files, capsys):
    old, new, patch, result = map(str, files)
    assert main(["delta", "make", old, new, patch]) == 0
    said = capsys.readouterr().out
    assert "bytes (hvd1)" in said
    assert "bsdiff takes" in said
    assert main(["delta", "apply", old, patch, result, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["codec"] == "hvd1"
    assert told["bytes"] == files[1].stat().st_size
    assert main(["delta", "make", old, new, patch, "--codec", "bsdiff", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"].keys() == {"bsdiff"}


def test_the_command_line_ends_with_7_where_a_delta_is_for_another_file(files, capsys):
    old, new, patch, result = map(str, files)
    assert main(["delta", "make", old, new, patch]) == 0
    assert main(["delta", "apply", new, patch, result]) == 7
    assert "the delta was made for a file of" in capsys.readouterr().err
    assert main(["delta", "apply", old, new, result]) == 7
    assert "no delta begins like this" in capsys.readouterr().err
    assert main(["delta", "make", old, new]) == 2
    told = capsys.readouterr().err
    assert "delta make: PATCH is missing" in told
    assert "next: haversack delta make --help" in told


def test_a_model_packed_again_with_other_steps_travels_as_a_delta():
    """No delta of words alone is worth it where all codes are others: the ratio of the steps is."""
    random = np.random.default_rng(0)
    before = {name: array for name, array in weights().items() if name != "a.scale"}
    after = {
        name: np.rint((array + random.uniform(-0.5, 0.5, array.shape)) * random.uniform(0.6, 1.6, (len(array), 1)))
        for name, array in before.items()
    }
    old, new = save(before), save({name: array.clip(-127, 127).astype(np.int8) for name, array in after.items()})
    form, content = deltas.smallest(old, new)
    assert form == "hvd1"
    assert len(content) < publishing.WORTH * len(download.pack(new, hints(new)))
    assert delta.apply(old, content, limit=len(new)) == new
