"""A finished run with one planted fault each: verify tells it, by file, tensor key or golden number."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from haversack import report
from haversack.base import digest, recipe
from haversack.base.errors import UsageError, VerificationError
from haversack.cli import main
from haversack.flow.request import write_plan
from haversack.flow.shipped import Shipped
from haversack.flow.verify import Answer, verify
from haversack.measure import emulated
from haversack.report.files import to_json
from haversack.targets.contract import SHELF
from haversack.targets.onnxruntime.cpu import PRECISION
from haversack.tools.data import golden_file

arm64 = pytest.mark.skipif(bool(emulated.missing()), reason=f"{emulated.missing()}; {emulated.COMMAND}")
x86 = pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-x86_64 is not installed; make system-arm64")


def where(answer: Answer) -> str:
    return "\n".join(answer.lines())


def forged(run, path) -> None:
    """Let report.json and artifact.json name the hash of a spoiled file: other checks must find it by what it holds."""
    record = report.read(run)
    name = str(path.relative_to(run))
    size, sha = path.stat().st_size, digest.of_file(path)
    beside = path.parent / "artifact.json"

    def mend(one):
        if one.artifact is None or one.artifact.path != name:
            return one
        files = tuple(replace(file, bytes=size, sha256=sha) for file in one.artifact.files)
        return replace(one, artifact=replace(one.artifact, bytes=size, sha256=sha, files=files))

    if path.suffix == ".onnx":
        told = json.loads(beside.read_text())
        told["files"][0] |= {"bytes": size, "sha256": sha}
        beside.write_text(json.dumps(told))
    proofs = {one: digest.of_file(run / one) for one in record.proofs}
    record = replace(record, candidates=tuple(map(mend, record.candidates)), proofs=proofs)
    (run / "report.json").write_text(to_json(record))


def told_by(run, best, change):
    """Change what artifact.json tells, and let report.json name its new hash."""
    told = json.loads((best / "artifact.json").read_text())
    change(told)
    (best / "artifact.json").write_text(json.dumps(told))
    forged(run, best / "artifact.json")
    return verify(run)


def edited(path, change) -> str:
    """Change the first scale of a DequantizeLinear, or integers of a weight; return the initializer's name."""
    model = onnx.load(path)
    name = change(model)
    onnx.save(model, path)
    return name


def initializer(model, name, change):
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def test_a_plan_makes_just_that_plan(static):
    record = report.read(static)
    (only,) = record.candidates
    assert {layer.precision for layer in only.plan.layers.values()} == {"int8"}
    assert only.parity.reference_differing == 0
    assert only.parity.reference_compared > 0


def test_an_untouched_run_is_right(static):
    answer = verify(static)
    assert answer.exit_code == 0, where(answer)
    assert [check.name for check in answer.checks] == ["hashes", "read back", "golden vectors", "findings of the run"]
    assert "bit for bit" in answer.checks[2].text
    told = report.read(static).best_of("onnxruntime").artifact
    assert answer.checks[1].text.startswith(f"{told.injected:,} of {told.injected:,} "), "biases among them"
    slow = "it found no error that fails it: slower-than-float was allowed"  # by the run's command, if it was slower
    assert answer.checks[3].text in ("it found no error", slow)
    assert answer.data()["ok"] is True


def test_a_flipped_byte(run, best):
    data = bytearray((best / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (best / "model.onnx").write_bytes(data)
    answer = verify(run)
    assert answer.exit_code == 5
    assert "best/onnxruntime/model.onnx: its sha256 is" in where(answer)


def test_a_doubled_scale_is_named_by_its_tensor_key(run, best):
    def double(model):
        stored = {tensor.name for tensor in model.graph.initializer}
        node = next(
            node for node in model.graph.node
            if node.op_type in ("DequantizeLinear", "Mul") and len(node.input) > 1 and node.input[1] in stored
        )  # fmt: skip
        initializer(model, node.input[1], lambda scale: (scale * 2).astype(scale.dtype))
        return node.input[1]

    name = edited(best / "model.onnx", double)
    forged(run, best / "model.onnx")
    answer = verify(run)
    assert answer.exit_code == 5
    read_back = next(check for check in answer.checks if check.name == "read back")
    assert read_back.faults, f"{name} was doubled"
    assert all("#" in fault.where or "model.onnx" in fault.where for fault in read_back.faults)
    assert any(key in where(answer) for key in (":weight", ":out"))
    assert not answer.checks[0].faults, "the hash was forged"


def test_a_changed_integer_of_a_weight_is_named(run, best):
    def flip(model):
        tensor = next(
            one for one in model.graph.initializer if numpy_helper.to_array(one).dtype == np.int8 and len(one.dims) > 1
        )

        def change(codes):
            codes.flat[0] = codes.flat[0] - 1 if codes.flat[0] > 0 else codes.flat[0] + 1
            return codes

        initializer(model, tensor.name, change)
        return tensor.name

    edited(best / "model.onnx", flip)
    forged(run, best / "model.onnx")
    answer = verify(run)
    assert answer.exit_code == 5
    assert "1 of" in where(answer)
    assert "integers differ" in where(answer)
    assert ":weight" in where(answer)


def test_golden_values_that_the_file_does_not_give_are_named_by_number(run, best):
    vectors = list(golden_file.read(best / "golden.npz"))
    wrong = {name: array + np.float32(0.5) for name, array in vectors[2].outputs.items()}
    vectors[2] = golden_file.Golden(vectors[2].inputs, wrong)
    golden_file.write(vectors, best / "golden.npz")
    forged(run, best / "golden.npz")
    answer = verify(run)
    assert answer.exit_code == 5
    assert [fault.where for fault in answer.faults] == ["golden vector 2, output scores"]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_golden_file(run, best, keep):
    data = (best / "golden.npz").read_bytes()
    (best / "golden.npz").write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    forged(run, best / "golden.npz")
    answer = verify(run)
    assert answer.exit_code == 5
    assert "golden.npz: it is no file of golden vectors" in where(answer)


@pytest.mark.parametrize("how", ["inside", "bare"])
def test_a_pickle_in_place_of_golden_vectors_is_refused(run, best, tmp_path, how):
    path = best / "golden.npz"
    if how == "inside":
        np.savez(path, **{"0|input|image": np.array([{"code": "here"}], dtype=object)})
    else:
        path.write_bytes(pickle.dumps({"code": "here"}))
    forged(run, path)
    answer = verify(run)
    assert answer.exit_code == 7
    assert "pickle" in where(answer)
    assert answer.data()["ok"] is False


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "encodings.safetensors", "artifact.json"])
def test_a_missing_file(run, best, name):
    (best / name).unlink()
    answer = verify(run)
    assert answer.exit_code == 5
    assert name in where(answer)
    assert "missing" in where(answer) or "No such file" in where(answer)


@pytest.mark.parametrize("name", ["model.onnx", "encodings.safetensors", "artifact.json"])
def test_a_file_cut_in_half(run, best, name):
    data = (best / name).read_bytes()
    (best / name).write_bytes(data[: len(data) // 2])
    answer = verify(run)
    assert answer.exit_code == 5
    assert name in where(answer)


def test_a_run_with_float_layers_is_compared_within_a_tolerance(static, packed, tmp_path):
    whole = recipe.read(static / "recipe.toml").plans[0]
    first, *rest = whole.layers
    write_plan(replace(whole, layers={key: whole.layers[key] for key in rest}), tmp_path / "plan.toml")
    command = packed.command(tmp_path / "out", "--plan", str(tmp_path / "plan.toml"))
    assert main(command[3:]) in {0, 3}, f"{first} in float"
    answer = verify(tmp_path / "out")
    assert answer.exit_code == 0, where(answer)
    assert "it has float layers" in answer.checks[2].text


def test_everything_wrong_is_told_at_once(run, best):
    (best / "golden.npz").unlink()
    (best / "encodings.safetensors").write_bytes(b"nothing")
    with (best / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    answer = verify(run)
    assert [fault.where.rpartition("/")[2] for fault in answer.faults] == [
        "model.onnx",
        "encodings.safetensors",
        "golden.npz",
    ]
    assert "3 faults" in where(answer)


def test_no_flipped_byte_is_ever_more_than_a_fault(run, best):
    data = (best / "model.onnx").read_bytes()
    random = np.random.default_rng(5)
    part = SHELF.build("onnxruntime")
    record = report.read(run)
    artifact = Shipped.of(run, record, part, record.best_of("onnxruntime")).artifact()
    told = 0
    for place in random.integers(0, len(data), 150):
        spoiled = bytearray(data)
        spoiled[place] ^= 1 << int(random.integers(0, 8))
        (best / "model.onnx").write_bytes(spoiled)
        try:
            part.read(best / "model.onnx", artifact)
        except VerificationError:
            told += 1
    assert told > 0


@pytest.mark.parametrize("name", ["encodings.safetensors", "golden.npz", "artifact.json"])
def test_what_lies_beside_the_file_has_its_hash_too(run, best, name):
    with (best / name).open("ab") as stream:
        stream.write(b" ")
    answer = verify(run)
    assert answer.exit_code == 5
    assert f"best/onnxruntime/{name}: its sha256 is" in where(answer)
    assert [fault.where for fault in answer.checks[0].faults] == [f"best/onnxruntime/{name}"]


def test_a_file_that_the_runtime_refuses_is_told_without_advice_to_a_maker(run, best):
    (best / "model.onnx").write_bytes(b"no file of any kind")
    forged(run, best / "model.onnx")
    answer = verify(run)
    assert answer.exit_code == 5
    golden = [line for line in answer.lines() if "ONNX Runtime does not open it" in line]
    assert len(golden) == 1, where(answer)
    assert golden[0].startswith("wrong  onnxruntime: golden vectors: best/onnxruntime/model.onnx: ONNX Runtime")
    assert "worker" not in where(answer)
    assert "haversack.base" not in where(answer)
    assert "just written" not in where(answer)
    assert "float32" not in where(answer)


def test_a_report_that_proves_nothing_beside_the_file(run):
    record = report.read(run)
    assert len(record.proofs) == 3
    (run / "report.json").write_text(to_json(replace(record, proofs={})))
    answer = verify(run)
    assert answer.exit_code == 5
    assert [fault.where for fault in answer.checks[0].faults] == ["report.json"] * 3


@pytest.mark.parametrize("path", ["../../../x.onnx", "/tmp/x.onnx", "sub/../../x.onnx", "link/x.onnx", "x\0.onnx"])
@pytest.mark.parametrize("place", ["artifact.json", "report.json"])
def test_a_path_that_leaves_the_folder_is_refused(run, best, tmp_path, path, place):
    (best / "link").symlink_to(tmp_path)
    for folder in (tmp_path, best.parents[1]):
        (folder / "x.onnx").write_bytes((best / "model.onnx").read_bytes())
    if place == "artifact.json":
        answer = told_by(run, best, lambda told: told["files"][0].update(path=path))
    else:
        data = json.loads((run / "report.json").read_text())
        for one in data["candidates"]:
            if one["id"] == data["best"]["onnxruntime"]:
                one["artifact"]["files"][0]["path"] = path if path[0] == "/" else f"best/onnxruntime/{path}"
        (run / "report.json").write_text(json.dumps(data))
        answer = verify(run)
    assert answer.exit_code == 7, where(answer)
    assert "outside the folder of its target" in where(answer)


def test_a_session_option_that_no_run_sets_is_refused(run, best):
    option = "session.use_env_allocators"
    answer = told_by(run, best, lambda told: told["session_options"].update({option: "1"}))
    assert answer.exit_code == 7
    assert [check.refused for check in answer.checks] == [False, True, False, False]
    assert f"session_options.{option}: onnxruntime never sets it" in where(answer)


@pytest.mark.parametrize(
    "field, change",
    [
        ("files", lambda told: told["files"].append({**told["files"][0], "path": "other.onnx"})),
        ("files", lambda told: told["files"].clear()),
        ("files", lambda told: told["files"][0].update(bytes=1)),
        ("files", lambda told: told["files"][0].update(sha256="0" * 64)),
        ("target", lambda told: told.update(target="reference")),
        ("session_options", lambda told: told["session_options"].update({PRECISION: "other"})),
    ],
)
def test_an_artifact_that_says_otherwise_than_the_report(run, best, field, change):
    answer = told_by(run, best, change)
    assert answer.exit_code == 5
    assert [bool(check.faults) for check in answer.checks] == [False, True, False, False]
    assert [check.skipped for check in answer.checks] == [False, False, True, False]
    assert field in {fault.where for fault in answer.faults}
    assert "it contradicts report.json" in where(answer)
    told = " ".join(fault.cause for fault in answer.faults)
    assert "; report.json says " in told
    assert not [mark for mark in ("[", "{", "('", "'") if mark in told], f"no Python: {told}"


def test_a_run_that_is_not_finished(run):
    (run / "report.json").unlink()
    with pytest.raises(UsageError, match="there is no report"):
        verify(run)


def test_a_file_that_is_not_the_one_measured_is_not_opened(run, best, monkeypatch):
    with (best / "model.onnx").open("ab") as stream:
        stream.write(b" ")
    monkeypatch.setattr("haversack.flow.verify.golden_file.read", lambda _: pytest.fail("the golden vectors were read"))
    monkeypatch.setattr("haversack.flow.verify.encodings_file.read", lambda _: pytest.fail("the encodings were read"))
    answer = verify(run)
    assert answer.exit_code == 5
    assert [check.skipped for check in answer.checks] == [False, True, True, False]
    assert answer.checks[1].text == "not run: model.onnx is not the file that was measured"
    assert [one["ok"] for one in answer.data()["checks"]] == [False, False, False, True]
    assert sum("model.onnx" in line for line in answer.lines()) == 3


def test_only_what_needs_a_wrong_file_is_left_out(run, best):
    with (best / "golden.npz").open("ab") as stream:
        stream.write(b" ")
    assert [check.skipped for check in verify(run).checks] == [False, False, True, False]


@pytest.mark.parametrize("forge", [False, True])
def test_a_file_of_encodings_of_eight_gigabytes_is_never_read(run, best, monkeypatch, forge):
    path = best / "encodings.safetensors"
    with path.open("r+b") as stream:
        stream.truncate(8 << 30)  # a hole: it takes no room
    real = digest.of_file
    monkeypatch.setattr("haversack.base.digest.of_file", lambda one: "0" * 64 if one == path else real(one))
    if forge:
        forged(run, path)
    answer = verify(run)
    assert answer.exit_code == (7 if forge else 5)
    assert f"it has {8 << 30} bytes" in where(answer) if forge else "its sha256 is 0000000000000000" in where(answer)


@arm64
@pytest.mark.timeout(300)
def test_wrong_golden_values_are_told_there_too(run, best):
    vectors = list(golden_file.read(best / "golden.npz"))
    wrong = {name: array + np.float32(0.5) for name, array in vectors[0].outputs.items()}
    golden_file.write([golden_file.Golden(vectors[0].inputs, wrong)], best / "golden.npz")
    forged(run, best / "golden.npz")
    answer = verify(run, device="qemu:cortex-a53")
    assert answer.exit_code == 5
    assert [fault.where for fault in answer.faults] == ["golden vector 0, output scores"]
