"""Reading a bundle that a stranger wrote: the good one is read, and every other is refused, all faults at once."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.bundle import MANIFEST, MODELS, BundleFile
from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.tools.trust import bundle
from haversack.tools.trust.bundle import open_bundle
from haversack.tools.trust.canonical import dumps
from haversack.tools.trust.content import MARKS, ends

AGAIN = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def told(folder, target=""):
    """Return every fault of a bundle that is refused."""
    with pytest.raises(Refused) as caught:
        open_bundle(folder, target)
    assert caught.value.exit_code == 7
    return [str(fault) for fault in caught.value.faults] or [str(caught.value)]


def test_a_good_bundle_is_read(written):
    folder = written()
    found = open_bundle(folder)
    assert found.manifest.name == "digits"
    assert set(found.artifacts) == {"litert", "onnxruntime"}
    assert found.artifacts["onnxruntime"].files[0].path == "onnxruntime.onnx"
    assert found.artifacts["onnxruntime"].files[1].path == "onnxruntime.onnx.data"
    assert found.labels == ("cat", "dog")
    assert found.preprocess[0]["op"] == "scale"
    assert found.provenance.job == "job.py"
    assert found.read(found.manifest.file("litert", "model"))[4:8] == b"TFL3"


def test_its_identity_is_its_manifests_digest(written):
    import hashlib

    folder = written()
    assert open_bundle(folder).sha256 == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def test_a_slot_holds_the_files_of_one_runtime(written):
    folder = written()
    manifest = open_bundle(folder).manifest
    for file in manifest.files:
        if file not in manifest.of("litert"):
            (folder / file.name).unlink()
    found = open_bundle(folder, "litert")
    assert set(found.artifacts) == {"litert"}
    assert found.labels == ("cat", "dog")
    missing = told(folder)
    assert [one.partition(":")[0] for one in missing] == [
        "encodings.safetensors",
        "onnxruntime.golden.npz",
        "onnxruntime.json",
        "onnxruntime.onnx",
        "onnxruntime.onnx.data",
    ]
    assert told(folder, "onnxruntime") == missing[1:]
    with pytest.raises(UsageError, match=r"no variant for tflite \(has: litert, onnxruntime\)"):
        open_bundle(folder, "tflite")


def test_what_is_too_much_in_a_slot_is_looked_at_as_well(written):
    folder = written(lambda files: files.update({"onnxruntime.onnx.data": b"PK\x03\x04" + bytes(60)}))
    assert any("onnxruntime.onnx.data: it looks like a pickle" in one for one in told(folder, "litert"))


def test_a_folder_may_be_a_link_and_what_is_in_it_may_not(written, tmp_path):
    folder = written()
    (tmp_path / "latest").symlink_to(folder)
    assert open_bundle(tmp_path / "latest").manifest.version == "1.3.0"
    (folder / "litert.tflite").rename(tmp_path / "elsewhere")
    (folder / "litert.tflite").symlink_to(tmp_path / "elsewhere")
    assert told(folder) == ["litert.tflite: it is a link, not a plain file", "litert.tflite: it is missing"]


def test_hard_links_are_plain_files(written, tmp_path):
    folder = written()
    (folder / "litert.tflite").rename(tmp_path / "store")
    os.link(tmp_path / "store", folder / "litert.tflite")
    assert open_bundle(folder, "litert").manifest.name == "digits"


def test_nothing_is_opened_that_is_no_plain_file(written, monkeypatch):
    folder = written()
    for name in ("litert.tflite", "labels.txt", MANIFEST, "provenance.json"):
        (folder / name).unlink()
    os.mkfifo(folder / "litert.tflite")
    (folder / "labels.txt").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "provenance.json"))
    os.mkfifo(folder / MANIFEST)
    faults = told(folder)
    assert f"{MANIFEST}: it is a pipe, not a plain file" in faults
    assert "labels.txt: it is a folder, not a plain file" in faults
    assert "provenance.json: it is a socket, not a plain file" in faults
    server.close()


def test_a_device_is_not_opened(written):
    folder = written()
    (folder / "labels.txt").unlink()
    try:
        os.mknod(folder / "labels.txt", 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero never ends
    except PermissionError:
        pytest.skip("this machine lets nobody make a device file")
    assert told(folder)[0] == "labels.txt: it is a device, not a plain file"


def test_a_pipe_that_takes_a_files_place_while_it_is_read_does_not_hang(written, monkeypatch):
    folder = written()
    listed = bundle.folders.listed

    def late(inside, most):
        found = listed(inside, most)
        (folder / "labels.txt").unlink()
        os.mkfifo(folder / "labels.txt")
        (folder / "litert.tflite").rename(folder.parent / "away")
        (folder / "litert.tflite").symlink_to(folder.parent / "away")
        return found

    monkeypatch.setattr(bundle.folders, "listed", late)
    assert told(folder) == ["labels.txt: it is not a plain file", "litert.tflite: it is not a plain file"]


def test_what_the_manifest_does_not_name(written):
    folder = written()
    (folder / "extra.json").write_text("{}")
    (folder / ".hidden").write_text("")
    (folder / "bad\x1bname").write_text("")
    (folder / "sub").mkdir()
    faults = told(folder)
    assert "extra.json: the manifest does not name it" in faults
    assert ".hidden: the manifest does not name it" in faults
    assert "bad\\x1bname: the manifest does not name it" in faults
    assert "sub: it is a folder, not a plain file" in faults


def test_more_files_than_there_may_be(written, monkeypatch):
    folder = written()
    monkeypatch.setattr(bundle, "MOST_FILES", 5)
    assert "there are more than 6 files in it" in told(folder)


@pytest.mark.parametrize("name", ["labels.txt", "litert.tflite", "onnxruntime.onnx", "encodings.safetensors"])
def test_sizes_are_compared_before_a_byte_is_read(written, name, monkeypatch):
    folder = written()
    with (folder / name).open("ab") as stream:
        stream.truncate(1 << 40)  # a hole: reading it would take an hour
    (fault,) = told(folder)
    assert fault.startswith(f"{name}: it has {1 << 40} bytes, the manifest says")


def test_all_files_together_have_a_bound(written):
    folder = written()
    with pytest.raises(Refused, match="bytes together, and 100 are allowed"):
        open_bundle(folder, limit=100)


@pytest.mark.parametrize("length", [0, 1, 100])
def test_a_manifest_that_is_too_large_is_not_read(written, length, monkeypatch):
    folder = written()
    monkeypatch.setattr(bundle, "LARGEST_MANIFEST", length)
    with pytest.raises(Refused, match="are allowed"):
        open_bundle(folder)


def test_all_faults_are_told_at_once(written):
    folder = written()
    (folder / "labels.txt").write_text("cat\ndog")
    (folder / "licence.txt").unlink()
    data = bytearray((folder / "litert.tflite").read_bytes())
    data[20] ^= 1
    (folder / "litert.tflite").write_bytes(data)
    (folder / "more.txt").write_text("")
    faults = told(folder)
    assert [one.partition(":")[0] for one in faults] == ["more.txt", "licence.txt", "labels.txt", "litert.tflite"]


@given(st.data())
@AGAIN
def test_any_flipped_byte_of_any_file_is_refused(written, data):
    folder = written(name=f"flip{os.urandom(8).hex()}")
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    if path.name != MANIFEST:
        told(folder)
        return
    try:
        open_bundle(folder)
    except (Refused, UsageError):
        return
    assert dumps(open_bundle(folder).manifest) == bytes(content), "another name or figure, in canonical form"


@given(st.data())
@AGAIN
def test_any_cut_file_is_refused(written, data):
    folder = written(name=f"cut{os.urandom(8).hex()}")
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert told(folder)


HOSTILE = [
    "../evil.json",
    "/etc/passwd",
    "..",
    ".",
    "a/../b.json",
    "labels.txt/../x.json",
    "C:\\x.json",
    "a\0.json",
    "nul",
    "ä.json",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_in_a_manifest(written, name):
    folder = written()
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"labels.txt"', json.dumps(name)))
    assert "no name of a file" in "".join(told(folder))


@given(st.text(min_size=1, max_size=20))
@AGAIN
def test_any_other_name_in_a_manifest_is_refused(written, name):
    folder = written(name=f"name{os.urandom(8).hex()}")
    if name == "labels.txt":
        return
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"labels.txt"', json.dumps(name)))
    assert told(folder)


def test_a_file_of_another_digest_or_of_two_is_refused(written):
    folder = written(told=lambda one: replace(one, files=(*one.files[:-1], replace(one.files[-1], sha256="0" * 64))))
    assert any("its sha256 is not the manifest's" in one for one in told(folder))


OWNED = Path(tempfile.gettempdir()) / f"owned-by-a-bundle-{os.getpid()}"


class Evil:
    def __reduce__(self):
        return (os.system, (f"touch {OWNED}",))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "name",
    ["labels.txt", "licence.txt", "preprocess.json", "provenance.json", "litert.json", "litert.tflite",
     "onnxruntime.onnx", "onnxruntime.onnx.data", "litert.golden.npz", "encodings.safetensors"],
)  # fmt: skip
def test_a_pickle_under_any_ending_is_refused(written, retold, name, protocol):
    if name == "onnxruntime.onnx.data" and protocol < 2:
        pytest.skip("bytes of a tensor may be any text; nobody reads them as a pickle")
    folder = written(retold(name, pickle.dumps(Evil(), protocol)))
    assert any(one.startswith(name) for one in told(folder))
    assert not OWNED.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("ending", sorted(MODELS - {"onnx"}))
def test_a_pickle_in_the_place_of_any_model_is_refused(ending, protocol):
    """Also one that was put behind the mark of the format: then it is no pickle any more."""
    data = pickle.dumps(Evil(), protocol)
    file = BundleFile(f"model.{ending}", "model", len(data), "0" * 64, "some")
    assert [str(one) for one in ends(file, data[:16], data[-16:])] == [
        f"model.{ending}: it does not begin as a .{ending} does"
    ]
    at, mark = MARKS[ending]
    marked = data[:at] + mark + data[at + len(mark) :]
    assert ends(file, marked[:16], marked[-16:]) == []
    with pytest.raises(Exception, match=r"."):
        pickle.loads(marked)
    assert not OWNED.exists()


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def test_a_pickle_in_golden_vectors_is_refused(written, retold):
    folder = written(retold("litert.golden.npz", npz(**{"0|input|x": np.array([Evil()], dtype=object)})))
    assert any("holds a pickle" in one for one in told(folder))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_golden_outputs_that_are_no_numbers_are_refused(written, retold, value, kind):
    """Against them any answer would do; inputs may be infinite, as masks are."""
    x = np.full((1, 4), value, kind)
    folder = written(retold("litert.golden.npz", npz(**{"0|input|x": x, "0|output|y": np.ones((1, 2), kind)})))
    assert open_bundle(folder).manifest.name == "digits"
    y = np.array([[1, value]], kind)
    folder = written(retold("litert.golden.npz", npz(**{"0|input|x": x, "0|output|y": y})), name="spoiled")
    assert told(folder) == ["litert.golden.npz: 0|output|y: 1 of its 2 values are NaN or infinite, and prove nothing"]


@pytest.mark.parametrize(
    "where", ["onnxruntime.onnx.data2", "/etc/passwd", "../x.data", "labels.txt", "litert.tflite", ""]
)
def test_weights_outside_of_the_set_are_refused(written, retold, onnx, where):
    folder = written(retold("onnxruntime.onnx", onnx("onnxruntime.onnx.data", where)))
    assert any("which is no file of this variant" in one for one in told(folder))


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("labels.txt", b"cat\ndog", "its last line does not end"),
        ("labels.txt", b"cat\n\x1b[2J\n", "label 2"),
        ("licence.txt", b"\x1b]0;owned\x07\n", "control characters"),
        ("licence.txt", b"\xff\n", "utf-8"),
        ("litert.tflite", b"\x1c\0\0\0TFL4" + bytes(40), "does not begin as a .tflite does"),
        ("litert.tflite", b"", "does not begin as a .tflite does"),
        ("onnxruntime.onnx", b"ORTM" + bytes(40), "onnxruntime.onnx"),
        ("onnxruntime.onnx", b"", "there is no graph in it"),
        ("encodings.safetensors", (99).to_bytes(8, "little") + b"{}", "does not begin as a .safetensors does"),
        ("encodings.safetensors", b"", "does not begin as a .safetensors does"),
        ("litert.golden.npz", b"", "no zip archive"),
        ("preprocess.json", b"[]\n", "no list of 1 to 100 operations"),
        ("preprocess.json", b"{}\n", "no list of 1 to 100 operations"),
        ("preprocess.json", dumps([{"op": "noise", "input": 0}]), "none of blur, brightness"),
        ("preprocess.json", dumps([{"op": "os.system", "input": 0}]), "none of blur, brightness"),
        ("preprocess.json", dumps([{"op": "scale", "input": -1}]), "the index of an input"),
        ("preprocess.json", dumps([{"op": "scale", "input": True}]), "the index of an input"),
        ("preprocess.json", dumps([{"op": "scale", "input": 0, "factor": {}}]), "no number, word or list"),
        ("preprocess.json", dumps([{"op": "scale", "input": 0, "factor": [[1]]}]), "no number, word or list"),
        ("preprocess.json", dumps([{"op": "scale", "input": 3}]), "litert has 1 inputs"),
        ("preprocess.json", b'[{"input":0, "op":"scale"}]\n', "canonical"),
        ("preprocess.json", b"[" * 5000, "nested deeper"),
        ("provenance.json", b"{}\n", "format None"),
        ("provenance.json", b"x", "no JSON"),
        ("litert.json", b"{}\n", "is missing"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_hold(written, retold, name, data, said):
    assert any(said in one for one in told(written(retold(name, data)))), said


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"target": "onnxruntime"}, "target: it is onnxruntime"),
        ({"files": ()}, "not those of the manifest"),
        ({"runtime_version": "9"}, "not those of the manifest"),
        ({"cpu_features": ("avx2",)}, "not those of the manifest"),
        ({"inputs": ()}, "not 1 to 200 names"),
        ({"outputs": (Port("", TensorSpec((1,), "float32")),)}, "not 1 to 200 names"),
        ({"outputs": (Port("\x1b", TensorSpec((1,), "float32")),)}, "not 1 to 200 names"),
        ({"inputs": (Port("x", TensorSpec((-1,), "float32")),)}, "a length is below 0"),
        ({"layouts": {"x": "NHWC"}}, "no order of its axes"),
        ({"layouts": {"x": "NCHW"}}, "no order of its axes"),
        ({"layouts": {"z": "NWC"}}, "no order of its axes"),
        ({"grids": {"z": (1.0, 0)}}, "no scale and zero-point of int8"),
        ({"grids": {"x": (0.0, 0)}}, "no scale and zero-point of int8"),
        ({"grids": {"x": (1.0, 200)}}, "no scale and zero-point of int8"),
        ({"tensor_names": {"a:b#0:out": "x"}}, "only the workshop needs"),
        ({"injected": 1}, "only the workshop needs"),
    ],
)  # fmt: skip
def test_an_artifact_that_contradicts_the_manifest_or_itself(written, artifacts, changed, said):
    assert any(said in one for one in told(written(artifacts("litert", **changed)))), said


def test_a_good_interface_of_codes_and_other_axes_is_read(written, artifacts):
    image = (Port("x", TensorSpec((1, 8, 8, 3), "int8")),)
    folder = written(artifacts("litert", inputs=image, layouts={"x": "NHWC"}, grids={"x": (0.5, -128)}))
    assert open_bundle(folder).artifacts["litert"].grids == {"x": (0.5, -128)}


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        open_bundle(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="there is no such folder"):
        open_bundle(tmp_path / "file")
    (tmp_path / "run" / "best").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"there is no manifest\.json in it"):
        open_bundle(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_no_fault_of_the_bundle(written):
    folder = written()
    (folder / "labels.txt").chmod(0)
    with pytest.raises(EnvironmentFault, match="permission denied"):
        open_bundle(folder)


def test_a_file_that_changes_later_is_not_given_out(written):
    folder = written()
    found = open_bundle(folder)
    file = found.manifest.file("litert", "golden")
    assert len(found.read(file)) == file.bytes
    (folder / file.name).write_bytes(bytes(file.bytes))
    with pytest.raises(Refused, match="its sha256 is not the manifest's"):
        found.read(file)
    with pytest.raises(Refused, match="bytes are allowed|and 1 are allowed"):
        found.read(BundleFile(file.name, "golden", 1, file.sha256, "litert"))


def test_reading_leaves_no_descriptor_open(written):
    folder = written()
    before = len(list(Path("/proc/self/fd").iterdir()))
    open_bundle(folder)
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to("/dev/zero")
    told(folder)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_it_needs_no_torch_and_no_onnx(written):
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'tensorflow'])); from pathlib import Path; "
        "from haversack.tools.trust.bundle import open_bundle; "
        f"print(open_bundle(Path({str(written())!r})).manifest.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stdout.strip() == "digits", done.stderr


def test_many_read_at_once(written):
    folder = written()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(open_bundle(folder).sha256)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
