"""Saved programs (.pt2): read when plain, refused when they would run code, told when truncated or foreign."""

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.errors import HaversackError, JobError, Refused
from haversack.load import open_job
from haversack.load.archive import check
from haversack.load.exported import module_of, program_of
from haversack.load.expressions import is_plain


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def rewritten(saved, tmp_path):
    """Copy the saved program with records replaced (bytes, a function of the old bytes, or None to leave one out)."""

    def rewrite(changes, name="changed.pt2", compress=zipfile.ZIP_STORED):
        target = tmp_path / name
        with zipfile.ZipFile(saved.program) as old, zipfile.ZipFile(target, "w", compress) as new:
            root = old.namelist()[0].partition("/")[0]
            names = [entry.partition("/")[2] for entry in old.namelist()]
            for entry in dict.fromkeys([*names, *changes]):
                value = changes.get(entry, ...)
                before = old.read(f"{root}/{entry}") if entry in names else b""
                after = before if value is ... else value(before) if callable(value) else value
                if after is not None:
                    new.writestr(f"{root}/{entry}", after)
        return target

    return rewrite


def in_json(change):
    """Return a function of a record's bytes that applies ``change`` to its JSON."""

    def apply(data):
        value = json.loads(data)
        change(value)
        return json.dumps(value).encode()

    return apply


def test_a_plain_program_computes_what_was_saved(saved):
    import torch

    module = module_of(saved.program, allow_pickle=False)
    x = torch.from_numpy(saved.x)
    with torch.no_grad():
        assert torch.equal(module(x), saved.module(x))
    assert not any(inner.training for inner in module.modules())


def test_a_copy_with_every_record_is_plain_too(rewritten):
    assert program_of(rewritten({}), allow_pickle=False).graph_signature.user_inputs


def test_guards_of_the_file_are_never_compiled(rewritten, tmp_path):
    mark = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    path = rewritten({"models/model.json": in_json(lambda m: m.__setitem__("guards_code", [code]))})
    program = program_of(path, allow_pickle=False)
    program.module()
    assert not mark.exists()
    assert program._guards_code == []


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.99, 0.999])
def test_truncated_anywhere(saved, tmp_path, share):
    data = saved.program.read_bytes()
    path = tmp_path / "cut.pt2"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(JobError, match="no whole archive") as error:
        check(path, allow_pickle=False)
    assert "bytes" in error.value.tried
    assert error.value.next_step


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_anywhere_it_loads_or_is_told(saved, tmp_path, data):
    whole = bytearray(saved.program.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged.pt2"
    path.write_bytes(whole)
    try:
        module = module_of(path, allow_pickle=False)
    except HaversackError as error:
        assert error.exit_code in (2, 7)
    else:
        assert sum(1 for _ in module.parameters())


@pytest.mark.parametrize(
    "content",
    [b"", b"not a zip", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, pickle.dumps({"a": 1}), b"PK\x05\x06" + b"\0" * 18],
)
def test_foreign_files(tmp_path, content):
    path = tmp_path / "foreign.pt2"
    path.write_bytes(content)
    with pytest.raises(JobError):
        check(path, allow_pickle=False)


def test_other_zip_archives(tmp_path, rewritten):
    import torch

    path = tmp_path / "docs.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("docs/readme.txt", "hello")
    with pytest.raises(JobError, match="no whole archive of torch.export.save"):
        check(path, allow_pickle=False)
    torch.save({"w": torch.zeros(2)}, tmp_path / "pickle.pt2")
    with pytest.raises(JobError, match="none that torch.export.save wrote"):
        check(tmp_path / "pickle.pt2", allow_pickle=False)
    with pytest.raises(JobError, match="it lacks models/model.json"):
        check(rewritten({"models/model.json": None}), allow_pickle=False)
    with pytest.raises(JobError, match="points to data/weights/weight_0, which is not there"):
        check(rewritten({"data/weights/weight_0": None}), allow_pickle=False)
    with pytest.raises(JobError, match="is no JSON"):
        check(rewritten({"models/model.json": b"{"}), allow_pickle=False)


def test_a_program_that_the_loader_cannot_read_is_told(rewritten):
    path = rewritten({"models/model.json": in_json(lambda m: m.pop("graph_module"))})
    with pytest.raises(JobError, match="PyTorch cannot read this program") as error:
        program_of(path, allow_pickle=False)
    assert error.value.tried == "torch.export.load"


class TestBombs:
    def test_compressed_records(self, rewritten):
        path = rewritten({"data/weights/weight_0": b"\0" * (50 << 20)}, compress=zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 1 << 20
        with pytest.raises(Refused, match="declare"):
            check(path, allow_pickle=False)

    def test_sizes_in_the_directory(self, saved, tmp_path):
        data = bytearray(saved.program.read_bytes())
        at = data.find(b"PK\x01\x02")
        data[at + 24 : at + 28] = (0x7FFFFFFF).to_bytes(4, "little")
        path = tmp_path / "declares.pt2"
        path.write_bytes(data)
        with pytest.raises((Refused, JobError)):
            check(path, allow_pickle=False)

    def test_a_tensor_without_bytes(self, rewritten):
        with pytest.raises(Refused, match="its record is empty"):
            check(rewritten({"data/weights/weight_0": b""}), allow_pickle=False)

    def test_deep_json(self, rewritten):
        with pytest.raises(Refused, match="nested too deeply"):
            check(rewritten({"models/model.json": b"[" * 200_000 + b"]" * 200_000}), allow_pickle=False)


class TestCode:
    """Everything in an archive that runs when it is read; none of it may run."""

    @pytest.fixture
    def mark(self, tmp_path):
        return tmp_path / "ran"

    def refused(self, path, mark, told):
        with pytest.raises(Refused) as error:
            module_of(path, allow_pickle=False)
        return error.value.exit_code == 7 and told in str(error.value) and not mark.exists()

    def pickled(self, mark):
        import torch

        stream = io.BytesIO()
        torch.save({"weight": Planted(mark)}, stream)
        return stream.getvalue()

    def test_the_planted_pickle_does_run_where_it_is_read(self, mark):
        pickle.loads(pickle.dumps(Planted(mark)))
        assert mark.exists(), "the test's own bait works"

    def test_a_pickled_weight(self, rewritten, mark):
        flag = in_json(lambda table: table["config"]["first.bias"].__setitem__("use_pickle", True))
        path = rewritten(
            {
                "data/weights/model_weights_config.json": flag,
                **{f"data/weights/weight_{i}": self.pickled(mark) for i in range(2)},
            }
        )
        assert self.refused(path, mark, "first.bias: is a pickle")

    @pytest.mark.parametrize(
        "record, told",
        [
            ("data/weights/model.pt", "is a pickle"),
            ("data/constants/model.pt", "is a pickle"),
            ("data/constants/opaque_obj_0", "is a pickle"),
            ("data/constants/custom_obj_0", "is a pickle"),
            ("data/aotinductor/model/lib.so", "is compiled code"),
            ("models/other.json", "is no part of a plain exported program"),
            ("serialized_state_dict.pt", "is a pickle"),
        ],
    )
    def test_records_that_are_code(self, rewritten, mark, record, told):
        assert self.refused(rewritten({record: self.pickled(mark)}), mark, f"{record}: {told}")

    def test_example_inputs(self, rewritten, mark):
        assert self.refused(
            rewritten({"data/sample_inputs/model.pt": self.pickled(mark)}), mark, "are no plain tensors"
        )

    def test_example_inputs_without_zip(self, rewritten, mark):
        path = rewritten({"data/sample_inputs/model.pt": pickle.dumps(Planted(mark))})
        assert self.refused(path, mark, "are no plain tensors")

    def test_a_shape_expression(self, rewritten, mark):
        code = f"__import__('pathlib').Path({str(mark)!r}).touch()"

        def plant(model):
            sizes = model["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
            sizes[0]["as_expr"]["expr_str"] = code

        assert self.refused(rewritten({"models/model.json": in_json(plant)}), mark, "no plain arithmetic")

    @pytest.mark.parametrize(
        "target", ["torch.os.system", "torch.hub.load", "torch.ops.aten.from_file.default", "_operator.call", "#x:y"]
    )
    def test_an_operator(self, rewritten, mark, target):
        def plant(model):
            model["graph_module"]["graph"]["nodes"][0]["target"] = target

        assert self.refused(rewritten({"models/model.json": in_json(plant)}), mark, f"calls {target}")

    def test_a_container_that_imports(self, rewritten, mark):
        spec = json.dumps([1, {"type": "collections.defaultdict", "context": {}, "children_spec": []}])

        def plant(model):
            model["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

        assert self.refused(rewritten({"models/model.json": in_json(plant)}), mark, "imports a module")

    def test_all_of_it_is_told_at_once(self, rewritten, mark):
        changes = {"data/weights/model.pt": b"x", "data/aotinductor/model/lib.so": b"x"}
        with pytest.raises(Refused) as error:
            check(rewritten(changes), allow_pickle=False)
        assert len(error.value.faults) == 2

    def test_the_flag_lets_it_through(self, rewritten, mark):
        path = rewritten({"data/sample_inputs/model.pt": self.pickled(mark)})
        module_of(path, allow_pickle=True)
        assert mark.exists()


class TestExpressions:
    @pytest.mark.parametrize(
        "text",
        [
            "Symbol('s77', positive=True, integer=True)",
            "Add(Symbol('s0', integer=True), Integer(-1))",
            "Mul(Integer(2), Pow(Symbol('s0', integer=True), Integer(2)))",
            "FloorDiv(s0 + 1, 2) * s1**2 - Max(1, s2)",
            "Eq(Mod(s0, 4), 0)",
            "Float('0.5', precision=53)",
        ],
    )
    def test_arithmetic_passes(self, text):
        assert is_plain(text)

    @pytest.mark.parametrize(
        "text",
        [
            "__import__('os').system('x')",
            "exec('x')",
            "(exec)(s0)",
            "s0.__class__",
            "[s0 for s0 in s1]",
            "(lambda: 1)()",
            "f'{s0}'",
            "Symbol('a b; import os')",
            "Add('exec(1)')",
            "9**9**9",
            "Pow(9, Pow(9, 9))",
            "Pow(9, 999)",
            "s0**s1",
            "99999999999999999999",
            "Symbol(*s0)",
            "Symbol('s0', **s1)",
            "s0 if s1 else s2",
            "s0 # comment",
            "s0\n+s1",
            "ｅxec",
            "(" * 500 + "s0" + ")" * 500,
            "s0+" * 3000 + "s0",
            "",
        ],
    )
    def test_all_else_does_not(self, text):
        assert not is_plain(text)

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=40))
    def test_whatever_passes_has_no_attributes_and_no_brackets(self, text):
        if is_plain(text):
            assert not set(text) & set("[]{};:!@`$\\")


class TestAsASource:
    def test_with_a_job_file(self, saved, job_file):
        job = open_job(f"{saved.program}@{job_file()}")
        assert job.name == "net"
        assert list(job.model().parameters())

    def test_without_data(self, saved):
        with pytest.raises(JobError, match="no data and no metric") as error:
            open_job(str(saved.program))
        assert "@job.py" in error.value.next_step

    def test_in_a_job_file(self, saved, job_file, tmp_path):
        shutil.copy(saved.program, tmp_path / "net.pt2")
        job = open_job(str(job_file(("def model():", 'model = "net.pt2"\n\n\ndef unused():'))))
        assert np.isfinite(next(job.model().parameters()).detach().numpy()).all()

    def test_a_path_that_is_not_there(self, job_file):
        with pytest.raises(JobError, match="there is no file"):
            open_job(str(job_file(("def model():", 'model = "none.pt2"\n\n\ndef unused():'))))
        with pytest.raises(JobError, match="names no file of weights"):
            open_job(str(job_file(("def model():", 'model = "package.module:Net"\n\n\ndef unused():'))))

    def test_a_bad_file_is_told_when_the_job_is_opened(self, tmp_path, job_file):
        (tmp_path / "net.pt2").write_bytes(b"PK\x03\x04")
        with pytest.raises(JobError, match="no whole archive"):
            open_job(f"{tmp_path / 'net.pt2'}@{job_file()}")
