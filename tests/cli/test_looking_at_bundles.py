"""``inspect``, ``diff`` and ``verify`` of bundles as they are typed: what they tell, and what they refuse."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import typed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop import bundle, outputs

from haversack.base import digest
from haversack.tools.codec import download

VERBS = ("inspect", "verify", "diff")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """Two releases that are only read: the second has another model, and a licence."""
    folder = tmp_path_factory.mktemp("shelf")
    bundle(folder, "1.0.0", 1.0)
    bundle(folder, "1.1.0", 2.0, more={"licence.txt": b"\n  Free as in speech\nand so on\n"})
    return folder


@pytest.fixture
def one(shelf) -> Path:
    return shelf / "digits-1.0.0.haversack"


@pytest.fixture
def two(shelf) -> Path:
    return shelf / "digits-1.1.0.haversack"


@pytest.fixture
def mine(one, tmp_path) -> Path:
    """A bundle that may be spoiled."""
    return Path(shutil.copytree(one, tmp_path / "mine.haversack"))


def words(verb: str, folder: Path, other: Path) -> list[object]:
    return [verb, folder] if verb != "diff" else [verb, other, folder]


def test_inspect_as_json_is_what_lies_there(two):
    done = typed("inspect", two, "--json")
    assert (done.code, done.err) == (0, "")
    told = done.json
    assert (told["name"], told["version"], told["folder"]) == ("digits", "1.1.0", str(two))
    assert told["sha256"] == digest.of_file(two / "manifest.json")
    on_disk = {path.name: path for path in two.iterdir() if path.name != "manifest.json"}
    assert {file["name"] for file in told["files"]} == set(on_disk)
    for file in told["files"]:
        data = on_disk[file["name"]].read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), digest.of_bytes(data))
        if file["role"] != "model":
            assert file["download_bytes"] == min(len(data), len(download.pack(data)))
    variant = told["targets"]["onnxruntime"]
    assert variant["bytes"] == sum(path.stat().st_size for path in on_disk.values())
    assert variant["download_bytes"] == sum(file["download_bytes"] for file in told["files"])
    assert (variant["golden_vectors"], variant["exact"], variant["tolerance"]) == (1, False, 1e-4)
    assert told["licences"] == {"licence.txt": "Free as in speech"}
    assert told["labels"] == [f"class {number}" for number in range(400)]


def test_inspect_in_words(two, one):
    done = typed("inspect", two)
    lines = done.out.splitlines()
    assert lines[0] == f"digits 1.1.0    {digest.of_file(two / 'manifest.json')}"
    assert sum(line.endswith(("labels", "licence", "golden", "artifact", "model")) for line in lines) == 5
    assert "onnxruntime 1.18: 1 golden vector, within 0.0001" in lines
    assert "400 labels: class 0, class 1, class 2, …" in lines
    assert lines[-1] == "licence.txt: Free as in speech"
    assert typed("inspect", one).out.splitlines()[-1] == (
        "no licence: delete this folder and repeat haversack bundle with --licence FILE"
    )


def test_a_licence_cannot_write_to_the_terminal(tmp_path):
    folder = bundle(tmp_path, "1.0.0", 1.0, more={"licence.txt": b"\x1b[2Jgone\x07\n"})
    done = typed("inspect", folder)
    assert "\x1b" not in done.out
    assert "\x07" not in done.out


def test_diff_as_json_adds_up(one, two):
    told = typed("diff", one, two, "--json").json
    assert told["same"] is False
    how = {file["name"]: file["how"] for file in told["files"]}
    before, after = ({path.name: path.read_bytes() for path in side.iterdir()} for side in (one, two))
    for side in (before, after):
        side.pop("manifest.json")
    assert how == {
        name: "new" if name not in before else "gone" if name not in after else
        "same" if before[name] == after[name] else "changed"
        for name in {*before, *after}
    }  # fmt: skip
    assert told["download_bytes"]["onnxruntime"] == sum(file["travels"] for file in told["files"])
    assert all(not file["travels"] for file in told["files"] if file["how"] in ("same", "gone"))
    assert told["old"]["sha256"] == digest.of_file(one / "manifest.json")


def test_diff_the_other_way_round(one, two):
    told = {file["name"]: file["how"] for file in typed("diff", two, one, "--json").json["files"]}
    assert told["licence.txt"] == "gone"
    lines = typed("diff", two, one).out.splitlines()
    assert lines[0].startswith("digits 1.1.0 (")
    assert "    gone     licence.txt" in lines
    assert lines[-1] == "no layers to compare: not both have encodings for the same runtime"


def test_diff_of_one_bundle_in_two_places(one, mine):
    done = typed("diff", one, mine)
    assert done.out.splitlines()[1:] == ["they are the same, byte for byte"]
    assert typed("diff", one, mine, "--json").json["same"] is True


@pytest.mark.parametrize("verb", VERBS)
class TestRefused:
    """Whatever is spoiled, each of the three says the same of it."""

    def test_nothing_is_there(self, verb, one, tmp_path):
        done = typed(*words(verb, tmp_path / "none", one), "--json")
        assert done.code == done.json["exit_code"] == 2
        assert str(tmp_path / "none") in done.err

    def test_a_folder_without_a_manifest(self, verb, one, tmp_path):
        done = typed(*words(verb, tmp_path, one))
        assert done.code == 2
        if verb != "verify":
            assert "it is no bundle: there is no manifest.json in it" in done.err
            assert "next: haversack bundle OUT --out NAME-VERSION.haversack" in done.err

    def test_a_file_instead_of_a_folder(self, verb, one):
        done = typed(*words(verb, one / "labels.txt", one))
        assert done.code == 2
        assert "labels.txt" in done.err

    def test_every_spoiled_file_is_told_at_once(self, verb, one, mine):
        (mine / "labels.txt").write_bytes(b"X" + (mine / "labels.txt").read_bytes()[1:])
        (mine / "onnxruntime.onnx").write_bytes(b"short")
        (mine / "onnxruntime.json").unlink()
        (mine / "more.txt").write_text("")
        done = typed(*words(verb, mine, one), "--json")
        assert done.code == done.json["exit_code"] == 7
        faults = {fault["where"] for fault in done.json["error"]["faults"]}
        assert {"onnxruntime.json", "more.txt"} <= faults
        assert done.json["error"]["kind"] == "Refused"
        assert "Traceback" not in done.err

    def test_a_link_is_not_followed(self, verb, one, mine, tmp_path):
        (mine / "labels.txt").rename(tmp_path / "labels.txt")
        (mine / "labels.txt").symlink_to(tmp_path / "labels.txt")
        done = typed(*words(verb, mine, one))
        assert done.code == 7
        assert "labels.txt" in done.err

    def test_a_pipe_is_not_waited_for(self, verb, one, mine):
        (mine / "labels.txt").unlink()
        os.mkfifo(mine / "labels.txt")
        done = typed(*words(verb, mine, one))
        assert done.code == 7
        assert "labels.txt" in done.err

    @pytest.mark.parametrize(
        "content",
        [b"", b"{}", b"[]", b"null", b"[" * 5000, b'{"format": 2}', b"\xff\xfe", b'{"format":1,"format":1}'],
        ids=["empty", "object", "list", "null", "deep", "future", "utf16", "twice"],
    )
    def test_a_manifest_that_is_none(self, verb, one, mine, content):
        (mine / "manifest.json").write_bytes(content)
        done = typed(*words(verb, mine, one))
        assert done.code == 7
        assert "manifest.json" in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", ".hidden", "x\n", "labels.txt\u0000", "ü.txt"])
    def test_hostile_names(self, verb, one, mine, name):
        data = json.loads((mine / "manifest.json").read_bytes())
        data["files"][0]["name"] = name
        (mine / "manifest.json").write_text(json.dumps(data, sort_keys=True, separators=(",", ":")))
        done = typed(*words(verb, mine, one))
        assert done.code == 7
        assert done.out == ""

    @pytest.mark.parametrize("size", [-1, 1 << 70, 0.5, "10", True], ids=repr)
    def test_hostile_sizes(self, verb, one, mine, size):
        data = json.loads((mine / "manifest.json").read_bytes())
        data["files"][0]["bytes"] = size
        (mine / "manifest.json").write_text(json.dumps(data, sort_keys=True, separators=(",", ":")))
        assert typed(*words(verb, mine, one)).code == 7


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_any_file_counts(one, tmp_path_factory, data):
    folder = Path(shutil.copytree(one, tmp_path_factory.mktemp("flip") / "b"))
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    done = typed("inspect", folder)
    assert "Traceback" not in done.err
    if path.name != "manifest.json":  # what the manifest says may be said otherwise: who signs it answers for it
        assert done.code == 7
        assert path.name in done.err


def test_both_bundles_of_a_diff_are_held_against_their_manifests(one, mine):
    (mine / "labels.txt").write_bytes(b"zero\n")
    assert typed("diff", one, mine).code == 7
    assert typed("diff", mine, one).code == 7


def test_verify_tells_what_a_wrong_answer_is(tmp_path):
    """The vectors of another model: every file is the manifest's, and the runtime gives something else."""
    folder = bundle(tmp_path, "1.0.0", 1.0, golden=outputs(3.0))
    done = typed("verify", folder, "--json")
    assert done.code == done.json["exit_code"] == 5
    hashes, golden = done.json["checks"]
    assert hashes["ok"] is True
    assert golden["ok"] is False
    assert golden["target"] == "onnxruntime"
    assert golden["faults"]
    assert done.json["ok"] is False


def test_verify_on_a_device_that_is_none(one):
    done = typed("verify", one, "--device", "toaster", "--json")
    assert done.code == done.json["exit_code"] == 2
    assert "toaster" in done.err


@pytest.mark.parametrize(
    "typed_words, said, step",
    [
        (("inspect",), "a bundle is missing", "haversack inspect digits-1.3.0.haversack"),
        (("diff",), "the old bundle is missing", "haversack diff digits-1.2.0.haversack"),
        (("diff", "a"), "the new bundle is missing", "haversack diff a digits-1.3.0.haversack"),
        (("verify",), "is missing", "haversack verify out"),
        (("inspect", "a", "b"), "the command does not take 'b'", "haversack inspect --help"),
        (("inspect", "a", "--jsn"), "did you mean --json?", "haversack inspect a --json"),
        (("diff", "a", "b", "--json=maybe"), "maybe", "haversack diff --help"),
        (("verify", "a", "--devise", "local"), "did you mean --device?", "haversack verify a --device local"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_typed_wrongly(typed_words, said, step):
    done = typed(*typed_words)
    assert done.code == 2
    assert said in done.err
    assert f"next: {step}" in done.err
    assert done.out == ""


def test_a_network_of_vectors_that_are_none(mine):
    """Golden vectors that are a file of another kind, and the manifest says so honestly."""
    data = json.loads((mine / "manifest.json").read_bytes())
    (entry,) = [file for file in data["files"] if file["role"] == "golden"]
    np.save(mine / "x.npy", np.ones(3))
    content = (mine / "x.npy").read_bytes()
    (mine / "x.npy").unlink()
    (mine / entry["name"]).write_bytes(content)
    entry |= {"bytes": len(content), "sha256": digest.of_bytes(content)}
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (mine / "manifest.json").write_bytes((mine / "manifest.json").read_bytes()[:0] + text.encode() + b"\n")
    done = typed("inspect", mine)
    assert done.code == 7
    assert "Traceback" not in done.err
