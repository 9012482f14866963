"""A variant of a bundle answers by the model's own names and layouts, whatever its file has."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from haversack.base.errors import ConversionError, EnvironmentFault, Refused, UsageError
from haversack.run import source as sources
from haversack.run.session import MOST_THREADS, Session, Setting, words
from haversack.run.source import choose, found
from haversack.targets.contract import SHELF
from haversack.tools.data import interface
from haversack.tools.trust import canonical

TARGETS = [name for name in ("onnxruntime", "litert", "executorch") if name != "executorch" or find_spec(name)]


@pytest.fixture(scope="module")
def everywhere(piece, write_bundle, tmp_path_factory):
    """One network in integers for every runtime, in one bundle."""
    return write_bundle(tmp_path_factory.mktemp("all") / "tiny", [piece(name) for name in TARGETS])


def opened(folder, target, **setting):
    return Session(found(folder, target), Setting(**setting))


@pytest.mark.parametrize("target", TARGETS)
def test_the_interface_is_the_models(everywhere, target):
    session = opened(everywhere, target)
    (image,), (scores,) = session.inputs, session.outputs
    assert (image.name, image.spec.shape[1:], image.spec.dtype) == ("image", (1, 8, 8), "float32")
    assert (scores.name, scores.spec.shape[1:], scores.spec.dtype) == ("scores", (4,), "float32")
    session.close()


@pytest.mark.parametrize("target", TARGETS)
def test_it_gives_what_the_file_gives(everywhere, piece, images, target):
    session = opened(everywhere, target)
    part, artifact = SHELF.build(target), found(everywhere, target).artifact
    plain = part.open_session(everywhere / artifact.files[0].path, artifact.session_options)
    for rows in (images[:1], images[:3]):
        wanted = plain.run(interface.as_file(artifact, {"image": rows}))["scores"]
        assert session.run({"image": rows})["scores"].tobytes() == wanted.tobytes()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({"image": images[:1]})


def test_all_runtimes_give_the_same_bits(everywhere, images):
    answers = {target: opened(everywhere, target).run({"image": images})["scores"] for target in TARGETS}
    first = answers.pop("onnxruntime")
    assert {target: int((first != found).sum()) for target, found in answers.items()} == dict.fromkeys(answers, 0)
    assert len({row.tobytes() for row in first}) > 8


def test_codes_in_the_files_interface_are_values_outside(piece, write_bundle, images, tmp_path):
    codes = piece("litert", 0, "int8", (("integer_io", True),))
    assert set(codes.artifact.grids) == {"image", "scores"}
    session = opened(write_bundle(tmp_path / "codes", [codes]), "litert")
    plain = opened(write_bundle(tmp_path / "plain", [piece("litert")]), "litert")
    assert session.inputs[0].spec.dtype == "float32"
    wanted = plain.run({"image": images})["scores"]
    assert session.run({"image": images})["scores"].tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "inputs, cause",
    [
        ({}, "image: it is missing"),
        ({"picture": np.zeros((1, 1, 8, 8), np.float32)}, "picture: the model has no such input"),
        ({"image": np.zeros((1, 1, 8, 8))}, "it is float64, not float32: give x.astype('float32')"),
        ({"image": np.zeros((1, 8, 8), np.float32)}, "it has 3 axes, not 4: add the batch, x[None]"),
        ({"image": np.zeros((8, 8), np.float32)}, "it has 2 axes, not 4"),
        ({"image": np.zeros((1, 8, 8, 1), np.float32)}, "axis 1 has 8, not 1, axis 3 has 1, not 8"),
        ({"image": np.zeros((0, 1, 8, 8), np.float32)}, "it is empty"),
    ],
)
@pytest.mark.parametrize("target", ["onnxruntime", "litert"])
def test_inputs_that_do_not_fit(everywhere, target, inputs, cause):
    with pytest.raises(UsageError) as caught:
        opened(everywhere, target).run(inputs)
    assert cause in str(caught.value)
    assert "give image [n, 1, 8, 8] float32" in str(caught.value)


def test_threads_are_the_runtimes(everywhere, monkeypatch):
    given = []
    kind = SHELF.type_of("onnxruntime")
    original = kind._open
    monkeypatch.setattr(
        kind,
        "_open",
        lambda self, path, options, threads: given.append(threads) or original(self, path, options, threads),
    )
    opened(everywhere, "onnxruntime", threads=2)
    assert given == [2]


def test_another_delegate_is_asked_for_by_name(everywhere, images):
    session = opened(everywhere, "litert", delegate="builtin")
    assert np.isfinite(session.run({"image": images})["scores"]).all()
    with pytest.raises(UsageError, match="LiteRT has no delegate 'gpu'"):
        opened(everywhere, "litert", delegate="gpu")


def test_the_quickest_that_is_installed_is_chosen(piece, write_bundle, tmp_path, monkeypatch):
    slow = replace(piece("onnxruntime"), quality={"median_ms": 2.0})
    quick = replace(piece("litert"), quality={"median_ms": 1.0})
    folder = write_bundle(tmp_path / "two", [slow, quick])
    assert found(folder).target == "litert"
    assert found(folder, "onnxruntime").target == "onnxruntime"
    monkeypatch.setattr(sources, "find_spec", lambda name: None if name == "ai_edge_litert" else object())
    assert found(folder).target == "onnxruntime"
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault) as caught:
        found(folder)
    assert "litert: ai_edge_litert is not installed" in str(caught.value)
    assert "next: pip install ai-edge-litert; or pip install onnxruntime" in str(caught.value)


def test_what_was_not_measured_comes_last(piece, write_bundle, tmp_path):
    folder = write_bundle(
        tmp_path / "two", [piece("litert"), replace(piece("onnxruntime"), quality={"median_ms": 9.0})]
    )
    assert found(folder).target == "onnxruntime"
    assert choose(found(folder).manifest, ["litert"]) == "litert"


def test_a_variant_that_is_not_there(everywhere):
    with pytest.raises(UsageError, match="no variant for ncnn"):
        found(everywhere, "ncnn")


def test_executorch_says_that_it_needs_torch(everywhere, monkeypatch):
    source = found(everywhere, "executorch") if "executorch" in TARGETS else pytest.skip("executorch is not installed")
    monkeypatch.setattr(sources, "find_spec", lambda name: None if name == "torch" else object())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentFault) as caught:
        Session(source)
    assert "the variant for executorch cannot be opened: torch is not installed" in str(caught.value)
    assert "its Python session takes and gives torch tensors" in str(caught.value)
    assert caught.value.next_step == "pip install executorch torch"


def test_a_runtime_that_is_none_of_ours(everywhere):
    source = found(everywhere, "litert")
    foreign = replace(source, artifact=replace(source.artifact, target="nowhere"))
    with pytest.raises(EnvironmentFault, match="this version knows no such runtime"):
        Session(foreign)


def test_the_bindings_say_that_torch_is_missing(monkeypatch):
    from haversack.targets.executorch.session import bindings

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentFault, match=r"running a .pte file in Python .* needs the package torch"):
        bindings(1)


def test_a_file_that_the_runtime_refuses(everywhere, tmp_path):
    source = found(everywhere, "onnxruntime")
    (tmp_path / source.path.name).write_bytes(b"no model")
    spoiled = replace(source, bundle=replace(source.bundle, folder=tmp_path))
    with pytest.raises(ConversionError) as caught:
        Session(spoiled)
    assert "ONNX Runtime does not open it" in str(caught.value)
    assert f"the file asks for {source.artifact.runtime_version} or later" in str(caught.value)


def test_options_that_no_run_gives_are_refused(piece, write_bundle, tmp_path):
    evil = piece("onnxruntime")
    left = replace(evil.left, artifact=replace(evil.artifact, session_options={"session.load_model_format": "ORT"}))
    evil = replace(evil, left=left)
    folder = write_bundle(tmp_path / "evil", [evil])
    for verified in (False, True):
        with pytest.raises(Refused, match="session_options.session.load_model_format: onnxruntime never sets it"):
            found(folder, "onnxruntime", verified=verified)


class TestVerified:
    """A slot whose bytes were compared when they were written."""

    def test_it_is_the_same_source(self, everywhere):
        for target in TARGETS:
            known, looked = found(everywhere, target, verified=True), found(everywhere, target)
            assert known.artifact == looked.artifact
            assert known.manifest == looked.manifest
            assert known.bundle.sha256 == looked.bundle.sha256
            assert known.bundle.labels == looked.bundle.labels

    def test_no_model_is_read(self, everywhere, tmp_path):
        for path in everywhere.iterdir():
            if path.suffix == ".json":
                (tmp_path / path.name).write_bytes(path.read_bytes())
        assert found(tmp_path, "litert", verified=True).path == tmp_path / "litert.tflite"
        with pytest.raises(Refused, match="it is missing"):
            found(tmp_path, "litert")

    def test_what_it_reads_is_still_bounded(self, everywhere, tmp_path):
        for path in everywhere.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        artifact = json.loads((tmp_path / "litert.json").read_text())
        (tmp_path / "litert.json").write_bytes(canonical.dumps({**artifact, "more": 1}))
        with pytest.raises(Refused):
            found(tmp_path, "litert", verified=True)
        (tmp_path / "litert.json").unlink()
        with pytest.raises(EnvironmentFault):
            found(tmp_path, "litert", verified=True)

    def test_what_it_reads_is_compared_again(self, everywhere, tmp_path):
        """Files as they are written, of the same length, with other content."""
        for path in everywhere.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        text = (tmp_path / "litert.json").read_bytes()
        other = text.replace(b'"opset":0', b'"opset":1')
        assert len(other) == len(text)
        assert other != text
        (tmp_path / "litert.json").write_bytes(other)
        with pytest.raises(Refused, match="it is not what was installed") as caught:
            found(tmp_path, "litert", verified=True)
        assert [fault.where for fault in caught.value.faults] == ["litert.json"]


def test_ports_in_words(everywhere):
    session = opened(everywhere, "litert")
    assert words(session.inputs) == "image [n, 1, 8, 8] float32"
    assert words(session.outputs) == "scores [n, 4] float32"


@pytest.mark.parametrize("threads", [0, -1, MOST_THREADS + 1, 3000])
def test_threads_that_no_device_has(threads):
    with pytest.raises(UsageError, match=f"{threads} threads of one call") as caught:
        Setting(threads)
    assert caught.value.next_step == f"give 1 to {MOST_THREADS}, or none for what was measured on this device"
    assert Setting(MOST_THREADS).threads == MOST_THREADS
