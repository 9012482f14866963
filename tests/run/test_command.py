"""``haversack run``: label and score, milliseconds and version, for a bundle's folder and for a line of a device."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from haversack.cli import main
from haversack.cli import run as verb
from haversack.deliver.home import Home
from haversack.deliver.slots import Slots
from haversack.deliver.store import Store
from haversack.run.opening import open_model


@pytest.fixture
def image(tmp_path):
    """A file with one input, and the array."""
    array = np.random.default_rng(3).normal(size=(1, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "input.npy", array)
    return tmp_path / "input.npy", array


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def answers(folder, array, target="onnxruntime"):
    with open_model(folder, target=target) as model:
        return model(array)


def test_what_a_person_sees_first(bundle, image, home, capsys):
    path, array = image
    assert main(["run", str(bundle), str(path), "--target", "onnxruntime", "--home", str(home)]) == 0
    best = answers(bundle, array).top(1)[0][0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{best.label}  {best.score:.4g}"
    assert lines[1].startswith("tiny 1.0.0 on onnxruntime, 1 thread: ")
    assert " ms for the first call, opened in " in lines[1]
    assert len(lines) == 2


def test_several_rows_and_classes(bundle, image, home, capsys, tmp_path):
    _, array = image
    np.save(tmp_path / "two.npy", np.concatenate([array, -array]))
    assert main(["run", str(bundle), str(tmp_path / "two.npy"), "--top", "2", "--home", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["0", "0", "1", "1"]


def test_json_and_out(bundle, image, home, capsys, tmp_path):
    path, array = image
    out = tmp_path / "found.npz"
    words = ["run", str(bundle), str(path), "--json", "--top", "3", "--out", str(out), "--target", "litert"]
    assert main([*words, "--home", str(home)]) == 0
    told = json.loads(capsys.readouterr().out)
    wanted = answers(bundle, array, "litert")
    assert (told["line"], told["version"], told["target"], told["setting"]) == ("tiny", "1.0.0", "litert", "1 thread")
    assert [one["index"] for one in told["top"][0]] == [one.index for one in wanted.top(3)[0]]
    assert told["outputs"]["scores"] == {"shape": [1, 4], "dtype": "float32", "values": wanted["scores"].tolist()}
    assert told["ms"] > 0
    with np.load(out) as file:
        assert file["scores"].tobytes() == wanted["scores"].tobytes()


def test_an_npy_for_one_output(bundle, image, home, tmp_path):
    path, _ = image
    assert main(["run", str(bundle), str(path), "--out", str(tmp_path / "y.npy"), "--home", str(home)]) == 0
    assert np.load(tmp_path / "y.npy").shape == (1, 4)


def test_standard_input(bundle, image, home, capsys, monkeypatch):
    path, _ = image
    monkeypatch.setattr(verb.sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert main(["run", str(bundle), "-", "--home", str(home)]) == 0
    assert "tiny 1.0.0" in capsys.readouterr().out


def test_no_standard_input(bundle, home, capsys, monkeypatch):
    """As after ``<&-``."""
    monkeypatch.setattr(verb.sys, "stdin", None)
    assert main(["run", str(bundle), "-", "--home", str(home)]) == 2
    assert "there is no standard input\n  next: name a file, or pipe one in" in capsys.readouterr().err


def test_a_folder_is_no_input(bundle, home, capsys):
    assert main(["run", str(bundle), str(bundle), "--home", str(home)]) == 6
    assert "Is a directory\n  next: name a file that may be read: .npy, .npz, .png or .jpg" in capsys.readouterr().err


def test_time(bundle, image, home, capsys, monkeypatch):
    path, _ = image
    monkeypatch.setattr(verb, "TIMED_SECONDS", 0.05)
    assert main(["run", str(bundle), str(path), "--time", "--home", str(home)]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert "ms a call (95 % within" in line
    assert main(["run", str(bundle), str(path), "--time", "--json", "--home", str(home)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["median_ms"] <= told["p95_ms"]
    assert told["calls"] > 1


def test_tuned_threads_are_remembered(bundle, image, home, capsys):
    path, _ = image
    words = ["run", str(bundle), str(path), "--target", "onnxruntime", "--home", str(home), "--json"]
    assert main([*words, "--tune"]) == 0
    first = json.loads(capsys.readouterr().out)["setting"]
    assert (home / "tuning.json").is_file()
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["setting"] == first
    assert main([*words, "--threads", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["setting"] == "2 threads"


def test_outputs_that_are_no_classes(piece, write_bundle, image, home, capsys, tmp_path, monkeypatch):
    from haversack.run.answer import Answer

    path, _ = image
    folder = write_bundle(tmp_path / "plain", [piece("onnxruntime")])
    monkeypatch.setattr(Answer, "classified", property(lambda self: False))
    assert main(["run", str(folder), str(path), "--home", str(home)]) == 0
    assert capsys.readouterr().out.startswith("scores float32 [1, 4]: ")


@pytest.mark.parametrize(
    "words, code, cause",
    [
        (["{bundle}", "{folder}/none.npy"], 2, "there is no such file"),
        (["{folder}", "{input}"], 2, "it is no bundle: there is no manifest.json in it"),
        (["{folder}/none.haversack", "{input}"], 2, "it is no folder of a bundle, and no name of a line"),
        (["digits", "{input}"], 6, "nothing is installed"),
        (["{bundle}", "{input}", "--target", "ncnn"], 2, "it has no variant for ncnn (has: litert, onnxruntime)"),
        (["{bundle}", "{input}", "--out", "x.csv"], 2, "outputs are written as .npz or .npy"),
        (["{bundle}", "{input}", "--top", "0"], 2, "at least one class is shown"),
        (["{bundle}", "{wrong}"], 2, "it is float64, not float32: give x.astype('float32')"),
        (["{bundle}"], 2, "the input is missing: a .npy, .npz, .png or .jpg file, or - for standard input"),
    ],
)
def test_mistakes(bundle, image, home, capsys, tmp_path, words, code, cause):
    path, array = image
    np.save(tmp_path / "wrong.npy", array.astype(np.float64))
    places = {"bundle": bundle, "input": path, "folder": tmp_path, "wrong": tmp_path / "wrong.npy"}
    assert main(["run", *(word.format(**places) for word in words), "--home", str(home)]) == code
    told = capsys.readouterr().err
    assert cause in told
    assert "next: " in told or "has:" in told


def test_a_spoiled_bundle_is_refused(bundle, image, home, capsys, tmp_path):
    import shutil

    shutil.copytree(bundle, tmp_path / "spoiled")
    model = tmp_path / "spoiled" / "onnxruntime.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    assert main(["run", str(tmp_path / "spoiled"), str(image[0]), "--home", str(home)]) == 7
    assert "onnxruntime.onnx: its sha256 is not the manifest's" in capsys.readouterr().err


class TestLine:
    @pytest.fixture
    def installed(self, bundle, home):
        """The bundle as the current release of the line ``tiny``, for LiteRT, as an update would leave it."""
        from haversack.tools.trust.bundle import open_bundle

        place = Home(home)
        store = Store(place.store)
        files = {"manifest.json": None} | {file.name: file for file in open_bundle(bundle).manifest.of("litert")}
        slot = place.line("tiny") / "next"
        slot.mkdir(parents=True)
        for name in files:
            (slot / name).write_bytes((bundle / name).read_bytes())
        assert store is not None
        Slots(place.line("tiny")).activate("1.0.0", 1, "litert", 1.0)
        return home

    def test_its_current_release_answers(self, installed, image, bundle, capsys):
        path, array = image
        assert main(["run", "tiny", str(path), "--home", str(installed)]) == 0
        best = answers(bundle, array, "litert").top(1)[0][0]
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{best.label}  {best.score:.4g}"
        assert lines[1].startswith("tiny 1.0.0 on litert, 1 thread: ")

    def test_a_folder_of_its_name_that_is_no_bundle_hides_it_not(self, installed, image, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "tiny").mkdir()
        assert main(["run", "tiny", str(image[0]), "--home", str(installed)]) == 0
        assert "tiny 1.0.0 on" in capsys.readouterr().out
        assert main(["run", "tiny", str(image[0]), "--home", str(tmp_path / "another")]) == 2
        assert "it is no bundle" in capsys.readouterr().err

    def test_another_runtime_is_not_there(self, installed, image, capsys):
        assert main(["run", "tiny", str(image[0]), "--target", "onnxruntime", "--home", str(installed)]) == 2
        assert "what is installed is for litert" in capsys.readouterr().err

    def test_it_can_be_tuned(self, installed, image, capsys):
        assert main(["run", "tiny", str(image[0]), "--tune", "--home", str(installed)]) == 0
        assert (installed / "tuning.json").is_file()
        assert "tiny 1.0.0 on litert" in capsys.readouterr().out
