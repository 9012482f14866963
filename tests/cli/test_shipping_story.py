"""One story as it is typed, from two bundles to a device that went back; then what else a device may be told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Told, typed
from shop import bundle, copied, outputs, tried_here

from haversack.flow.client import Client

PLACES = ("--line", "digits", "--repository", "site", "--keys", "keys")
HERE = ("--home", "home", "--repository", "site")  # the home of the story remembers the site of the story


@pytest.fixture(scope="module")
def near():
    """Releases are tried in this process: a child takes a second each time, and tests/deliver has it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(Client.__init__.__kwdefaults__, "test", tried_here)
        yield


@pytest.fixture(scope="module")
def story(tmp_path_factory, near) -> tuple[Path, dict[str, Told]]:
    """A folder in which everything below was typed, in this order, and what each command told."""
    folder = tmp_path_factory.mktemp("story")
    before = Path.cwd()
    os.chdir(folder)
    try:
        bundle(folder, "1.0.0", 1.0)
        bundle(folder, "1.1.0", 2.0)
        np.save("x.npy", np.ones((1, 4), np.float32))
        home = ("--home", "home")
        steps: dict[str, tuple[object, ...]] = {
            "keys": ("keys", "init", "keys", "--json"),
            "publish 1": ("publish", "digits-1.0.0.haversack", *PLACES, "--json"),
            "update 1": ("client", "update", "digits", "--repository", "site", "--root", "keys/1.root.json", *home),
            "run 1": ("run", "digits", "x.npy", *home, "--json", "--out", "y1.npy"),
            "update again": ("client", "update", "--line", "digits", *home, "--json"),
            "publish 2": ("publish", "digits-1.1.0.haversack", *PLACES, "--json"),
            "publish 2 again": ("publish", "digits-1.1.0.haversack", *PLACES),
            "update 2": ("client", "update", "digits", *home, "--json"),
            "status 2": ("client", "status", *home, "--json"),
            "run 2": ("run", "digits", "x.npy", *home, "--json", "--out", "y2.npz"),
            "rollback": ("client", "rollback", "digits", *home, "--json"),
            "rollback again": ("client", "rollback", "digits", *home, "--json"),
            "run 3": ("run", "digits", "x.npy", *home, "--json"),
            "update 3": ("client", "update", "digits", *home),
            "status 3": ("client", "status", *home),
        }
        return folder, {name: typed(*words) for name, words in steps.items()}
    finally:
        os.chdir(before)


@pytest.fixture
def device(story, tmp_path, monkeypatch) -> Path:
    """The folder of the story, to go on in."""
    folder = tmp_path / "story"
    copied(story[0], folder)
    for path in (folder / "keys").glob("*.pem"):
        path.chmod(0o600)
    monkeypatch.chdir(folder)
    return folder


def test_every_step_went_well_but_the_second_way_back(story):
    assert {name: told.code for name, told in story[1].items() if told.code} == {"rollback again": 6}
    assert not [name for name, told in story[1].items() if "Traceback" in told.err]


def test_the_publisher_is_told_of_sequence_key_and_deltas(story):
    one, two, again = (story[1][name] for name in ("publish 1", "publish 2", "publish 2 again"))
    assert (one.json["sequence"], one.json["new_key"], one.json["deltas"]) == (1, "keys/digits.pem", [])
    assert (two.json["sequence"], two.json["new_key"], two.json["changed"]) == (2, None, True)
    (delta,) = two.json["deltas"]
    assert (delta["file"], delta["form"]) == ("onnxruntime.onnx", "bsdiff")
    assert 0 < delta["bytes"] < two.json["full_bytes"] / 10
    assert again.out == "digits 1.1.0 (sequence 2) is in site already, with this content\n"


def test_the_device_fetches_the_delta_and_less_bytes(story):
    first, second = story[1]["update 1"], story[1]["update 2"].json
    assert first.out.startswith("digits 1.0.0 is in use, on onnxruntime\n")
    assert second["forms"]["onnxruntime.onnx"] == "bsdiff"
    assert "labels.txt" not in second["forms"], "it is there already"
    travelled = int(first.out.splitlines()[1].split()[0])
    assert second["bytes"] < travelled / 2
    assert (second["before"]["version"], second["installed"]["version"]) == ("1.0.0", "1.1.0")
    assert second["verdict"]["vectors"] == 1


def test_what_the_delta_became_is_the_published_file(story):
    folder, _ = story
    for slot, version in (("a", "1.0.0"), ("b", "1.1.0")):
        for name in ("onnxruntime.onnx", "labels.txt", "manifest.json"):
            ours = (folder / "home" / "lines" / "digits" / slot / name).read_bytes()
            assert ours == (folder / f"digits-{version}.haversack" / name).read_bytes()


def test_each_release_answers_as_itself(story):
    folder, told = story
    np.testing.assert_allclose(np.load(folder / "y1.npy"), outputs(1.0), rtol=1e-5)
    with np.load(folder / "y2.npz") as written:
        np.testing.assert_allclose(written["y"], outputs(2.0), rtol=1e-5)
    for name, version, value in (("run 1", "1.0.0", 1.0), ("run 2", "1.1.0", 2.0), ("run 3", "1.0.0", 1.0)):
        answer = told[name].json
        assert (answer["line"], answer["version"], answer["target"]) == ("digits", version, "onnxruntime")
        values = np.array(answer["outputs"]["y"]["values"], np.float32)
        np.testing.assert_allclose(values, outputs(value), rtol=1e-5)
        best = int(outputs(value).argmax())
        assert (answer["top"][0][0]["index"], answer["top"][0][0]["label"]) == (best, f"class {best}")


def test_nothing_is_fetched_where_nothing_is_new(story):
    told = story[1]["update again"].json
    assert (told["action"], told["bytes"], told["forms"]) == ("current", 0, {})
    assert told["installed"]["version"] == "1.0.0"


def test_the_way_back_is_taken_once_and_remembered(story):
    told = story[1]
    assert told["rollback"].json == {"version": "1.0.0", "sequence": 1, "target": "onnxruntime"}
    assert told["rollback again"].json["error"]["cause"] == "there is no other model to go back to"
    first, step = told["update 3"].out.splitlines()
    assert first == "digits 1.0.0 stays in use: 1.1.0 is set aside here: rolled back by hand"
    assert step == "next: wait for a newer release, or haversack client retry digits --home home    (tries it again)"
    (before,) = told["status 2"].json["lines"]
    assert (before["pointer"]["current"]["version"], before["pointer"]["other"]["version"]) == ("1.1.0", "1.0.0")
    assert (before["floor"], before["quarantined"]) == (2, [])
    lines = told["status 3"].out.splitlines()
    assert lines[0].startswith("digits 1.0.0 (sequence 1) on onnxruntime, ")
    assert lines[1] == "  no way back"
    assert lines[3].startswith("  quarantined 1.1.0 on 20")
    assert lines[3].endswith(": rolled back by hand")


def test_the_next_release_is_taken_after_a_way_back(device):
    bundle(device, "1.2.0", 3.0)
    assert typed("publish", "digits-1.2.0.haversack", *PLACES).code == 0
    told = typed("client", "update", "digits", *HERE, "--json").json
    assert (told["action"], told["installed"]["version"], told["installed"]["sequence"]) == ("installed", "1.2.0", 3)


def test_a_release_that_answers_wrongly_is_set_aside(device):
    bundle(device, "1.2.0", 3.0, golden=outputs(9.0))
    assert typed("publish", "digits-1.2.0.haversack", *PLACES).code == 0
    done = typed("client", "update", "digits", *HERE, "--json")
    assert done.code == done.json["exit_code"] == 5
    assert typed("run", "digits", "x.npy", "--home", "home", "--json").json["version"] == "1.0.0"
    (line,) = typed("client", "status", "--home", "home", "--json").json["lines"]
    assert [bad["version"] for bad in line["quarantined"]] == ["1.1.0", "1.2.0"]


def test_the_model_answers_without_its_repository(device):
    shutil.rmtree(device / "site")
    assert typed("run", "digits", "x.npy", "--home", "home").code == 0
    done = typed("client", "update", "digits", *HERE, "--json")
    assert done.code == done.json["exit_code"] == 6
    assert typed("client", "status", "--home", "home").code == 0


def test_other_root_metadata_are_not_taken(device):
    assert typed("keys", "init", "others").code == 0
    done = typed("client", "update", "digits", *HERE, "--root", "others/1.root.json", "--json")
    assert done.code == done.json["exit_code"] == 7
    assert done.json["error"]["where"] == "others/1.root.json"
    assert "leave --root out" in done.json["error"]["next"]


def test_a_version_is_never_published_with_other_content(device):
    shutil.rmtree("digits-1.1.0.haversack")
    bundle(device, "1.1.0", 7.0)
    done = typed("publish", "digits-1.1.0.haversack", *PLACES, "--json")
    assert done.code == done.json["exit_code"] == 7
    assert "this version is published with other content" in done.json["error"]["cause"]
    assert "give the bundle a new version" in done.json["error"]["next"]


def test_a_damaged_pointer_is_told_and_found_out_by_whoever_runs_the_model(device):
    place = device / "home" / "lines" / "digits" / "current"
    version = json.loads(place.read_text())["current"]["version"]
    place.write_text('{"format": 1')
    done = typed("client", "rollback", "digits", "--home", "home", "--json")
    assert done.code == done.json["exit_code"] == 7
    assert place.name in done.err
    assert "haversack client update digits" in done.json["error"]["next"]
    state = typed("client", "status", "--home", "home", "--json")
    assert state.code == 7
    assert place.name in state.json["lines"][0]["damage"][0]["where"]
    assert place.read_text() == '{"format": 1'
    ran = typed("run", "digits", "x.npy", "--home", "home", "--json")
    assert (ran.code, ran.json["version"]) == (0, version)
    assert json.loads(place.read_text())["current"]["version"] == version
    assert typed("client", "status", "--home", "home").code == 0
    aside = typed("client", "update", "digits", *HERE)
    assert "haversack client retry digits" in aside.out  # the newest was rolled back in this story
    assert typed("client", "retry", "digits", "--home", "home").code == 0
    assert typed("client", "update", "digits", *HERE).code == 0
    assert typed("run", "digits", "x.npy", "--home", "home").code == 0


def test_a_device_key_is_made_once(device):
    made = typed("client", "enrol", "kitchen", "--home", "home", "--json")
    assert made.code == 0
    assert (device / "home" / "device.pub").read_text() == made.json["public"] + "\n"
    assert (device / made.json["file"]).stem == "device"
    before = (device / "home" / "device").read_bytes()
    assert typed("client", "enrol", "other", "--home", "home").code == 2
    assert (device / "home" / "device").read_bytes() == before
    (device / "home" / "device.pub").unlink()
    again = typed("client", "key", "hall", "--home", "home", "--json").json
    assert (again["id"], again["name"]) == (made.json["id"], "hall")
    assert typed("client", "status", "--home", "home", "--json").json["enrolled"] is True


def test_an_encrypted_release_opens_for_the_device_that_was_enrolled(device):
    bundle(device, "2.0.0", 4.0)
    typed("client", "enrol", "kitchen", "--home", "home")
    assert typed("publish", "digits-2.0.0.haversack", *PLACES, "--encrypt").code == 0
    shut = typed("client", "update", "digits", *HERE, "--json")
    assert shut.code == shut.json["exit_code"] != 0
    assert typed("run", "digits", "x.npy", "--home", "home", "--json").json["version"] == "1.0.0"
    (device / "devices").mkdir()
    shutil.copy(device / "home" / "device.pub", device / "devices" / "kitchen.pub")
    more = typed("publish", "digits-2.0.0.haversack", *PLACES, "--encrypt", "--devices", "devices")
    assert "1 device may open it that could not before" in more.out
    done = typed("client", "update", "digits", *HERE, "--json")
    assert done.json["installed"]["version"] == "2.0.0"
    secret = (device / "digits-2.0.0.haversack" / "onnxruntime.onnx").read_bytes()[200:400]
    assert not [path for path in (device / "site").rglob("*") if path.is_file() and secret in path.read_bytes()]


@pytest.mark.parametrize(
    "words, code, said, step",
    [
        (("update",), 2, "client update: no model line is named", "haversack client update --line digits"),
        (("rollback",), 2, "client rollback: no model line is named", "haversack client rollback --line digits"),
        (("retry",), 2, "client retry: no model line is named", "haversack client retry --line digits"),
        (("update", "digits", "--repository", ""), 2, "--repository: it names nothing", "name the address"),
        (("rollback", "a", "--line", "b"), 2, "two model lines are named, b and a", "--line digits"),
        (("rollback", "words"), 6, "words: nothing is installed", ""),
        (("rollback", "../digits"), 2, "'../digits' is no name of a model line", ""),
        (("update", "Digits"), 2, "'Digits' is no name of a model line", ""),
        (("update", "words"), 7, "the repository has no line words", "ask its publisher"),
        (("update", "digits", "--when", "sunday,idle"), 2, "there is no condition sunday", "unmetered, charging, idle"),
        (("update", "digits", "--within", "-1"), 2, "--within -1.0: it is no number of seconds", "--within 60"),
        (("update", "digits", "--within", "nan"), 2, "it is no number of seconds", "--within 60"),
        (("update", "digits", "--within", "soon"), 2, "soon", "haversack client --help"),
        (("update", "digits", "--most", "a lot"), 2, "--most: 'a lot' is no number of bytes", "--most 20MB"),
        (("update", "digits", "--most", "1KB,drop=1pt"), 2, "is no number of bytes", "--most 20MB"),
        (("update", "digits", "--quota=-5MB"), 2, "--quota: '-5MB' is no number of bytes", "--quota 20MB"),
        (("update", "digits", "--quota", "0KB"), 2, "--quota: '0KB' is no number of bytes", "--quota 20MB"),
        (("update", "digits", "--repository", "ftp://x/y"), 2, "ftp://x/y", ""),
        (("enrol", "Two words"), 2, "is no name of a device", ""),
        (("key",), 2, "this device has no key", "haversack client enrol"),
        (("dance",), 2, '"update", "status", "rollback", "retry", "enrol", "key"', "haversack client --help"),
        (("status", "--hom", "x"), 2, "did you mean --home?", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_device_is_told_wrongly(device, words, code, said, step):
    before = typed("client", "status", "--home", "home", "--json").json["lines"]
    home = () if "--hom" in words else ("--home", "home")
    done = typed("client", *words, *home)
    assert done.code == code
    assert said in done.err
    assert step in done.err
    assert done.out == ""
    assert typed("client", "status", "--home", "home", "--json").json["lines"] == before


def test_what_is_typed_wrongly_is_json_too(device):
    done = typed("client", "update", "digits", *HERE, "--most", "much", "--json")
    assert done.json["error"]["where"] == "--most"
    assert done.json["exit_code"] == done.code == 2


@pytest.mark.parametrize("flag, value", [("--within", "0"), ("--most", "1KB")])
def test_what_an_update_may_not_cost_waits(device, flag, value):
    bundle(device, "1.2.0", 3.0)
    assert typed("publish", "digits-1.2.0.haversack", *PLACES).code == 0
    done = typed("client", "update", "digits", *HERE, flag, value, "--json")
    assert done.code == 0
    assert done.json["action"] != "installed"
    assert done.json["installed"]["version"] == "1.0.0"
    assert "than is allowed" in done.json["reason"]


@pytest.mark.parametrize(
    "words, code, said, step",
    [
        (("words", "x.npy"), 6, "words: nothing is installed", "haversack client update --line words"),
        (("Digits", "x.npy"), 2, "no folder of a bundle, and no name of a line", "haversack bundle OUT"),
        (("digits", "none.npy"), 2, "none.npy", ""),
        (("digits", "x.npy", "--target", "litert"), 2, "what is installed is for onnxruntime", "leave it out"),
        (("digits", "x.npy", "--out", "y.txt"), 2, "outputs are written as .npz or .npy", "--out outputs.npz"),
        (("digits", "x.npy", "--top", "0"), 2, "at least one class is shown", "--top 5"),
        (("digits", "short.npy"), 2, "x: axis 1 has 3, not 4", "give x [n, 4] float32"),
        (("digits", "text.npy"), 2, "text.npy", ""),
        (("digits",), 2, "the input is missing", "haversack run digits input.npy"),
        ((), 2, "what is to be run is missing", "haversack run digits"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_run_is_told_wrongly(device, words, code, said, step):
    np.save("short.npy", np.ones((1, 3), np.float32))
    Path("text.npy").write_text("not an array")
    done = typed("run", *words, "--home", "home")
    assert done.code == code
    assert said in done.err
    assert step in done.err
    assert done.out == ""
