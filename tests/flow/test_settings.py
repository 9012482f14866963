"""Settings behind a target's name: read, refused with the nearest name, kept in the recipe, used again from there."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base import recipe
from haversack.base.budget import Budget
from haversack.base.errors import UsageError
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.flow import choice
from haversack.flow.request import Request, opened, runtimes
from haversack.flow.settings import built, parsed, spelled
from haversack.tools.data import golden_file
from haversack.tools.data.codes import to_codes, to_values

JOB = Path(__file__).with_name("four_bits_job.py")
LAYERS = dict.fromkeys(("0:conv2d#0", "3:conv2d#0", "5:conv2d#0", "7:conv2d#0", "11:linear#0"), LayerPlan())
PLAN = Plan("litert", LAYERS, (Step("fold_norm"),), Step("mse"), ("litert",))


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("litert", "litert", {}),
        ("litert:", "litert", {}),
        ("litert:integer_io=true", "litert", {"integer_io": True}),
        ("litert:lengths=[8, 16],integer_io=false", "litert", {"lengths": [8, 16], "integer_io": False}),
        ('executorch:longest=64,file="small.pte"', "executorch", {"longest": 64, "file": "small.pte"}),
    ],
)
def test_what_is_typed(text, name, settings):
    assert parsed(text) == (name, settings)
    target = built(name, settings)
    for key, value in settings.items():
        assert getattr(target, key) == (tuple(value) if isinstance(value, list) else value)


@given(st.integers(1, 10**6), st.text(st.characters(codec="ascii", exclude_characters="\x7f"), max_size=12))
def test_values_are_read_as_toml_has_them(longest, file):
    text = f"executorch:longest={longest},file={json.dumps(file)}"
    assert parsed(text) == ("executorch", {"longest": longest, "file": file})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("litert:integer_oi=true", "litert:integer_oi: there is no such setting; did you mean integer_io?"),
        ("litert:integer_io=1", "integer_io: 1 is not true or false"),
        ("litert:integer_io", "cannot be read"),
        ("litert:file=small", "cannot be read"),
        ("litert:lengths=8", "lengths: 8 is not a list, such as [16, 32, 64, 128]; did you mean [8]?"),
        ("litert:integer_io=perhaps", "integer_io: perhaps is not true or false\n"),
        ("litert:integer_io=yes", "integer_io: yes is not true or false; did you mean true?"),
        ("litert:integer_io=tru", "integer_io: tru is not true or false; did you mean true?"),
        ("litert:integer_io", "integer_io: it has no value: true or false"),
        ("litert:intgr_io=yes", "intgr_io: there is no such setting; did you mean integer_io?"),
        ("litert:intgr_io=yes", "integer_io: yes is not true or false; did you mean true?"),
        (
            "litert:file=small",
            'file: small is not text in quotation marks, such as "model.tflite"; did you mean "small"?',
        ),
        ("litert:lengths=[8,x]", "lengths: [8,x] is not a list"),
        ("litert:integer_io=true,integer_io=false", "integer_io: it is given twice"),
        ("executorch:longest=long", "longest: long is not a whole number, such as"),
        ("litret:integer_io=true", "did you mean litert?"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(UsageError) as caught:
        runtimes(Request("job.py", targets=(text,)))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("litert:integer_io=perhaps", "litert:integer_io=true"),
        ("litert:integer_io=off", "litert:integer_io=false"),
        ("litert:intgr_io=yes", "litert:integer_io=true"),
        ("litert:lengths=[8, 16],intgr_io=true", "'litert:lengths=[8, 16],integer_io=true'"),
        ("litert:lengths=8,integer_io=yes", "'litert:lengths=[8],integer_io=true'"),
        ("litert:file=small", "'litert:file=\"small\"'"),
        ("litert:nothing=1", "litert"),
    ],
)
def test_what_to_type_instead_is_told_and_is_taken(text, typed):
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert caught.value.where == "--target"
    assert caught.value.next_step == f"--target {typed}    (litert has: file, lengths, integer_io)"
    (word,) = shlex.split(typed)
    assert parsed(word)[0] == "litert"


VALUES = st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), VALUES | st.lists(VALUES, max_size=3)))
def test_settings_are_spelled_as_toml_reads_them(settings):
    name, _, words = spelled("litert", settings).partition(":")
    assert name == "litert"
    assert tomllib.loads(f"found = {{{words}}}")["found"] == settings


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(UsageError) as caught:
        parsed("litert:one=1,two=2")
    assert [fault.where for fault in caught.value.faults] == ["litert:one", "litert:two"]


def test_a_recipe_gives_settings_and_what_is_typed_goes_before(tmp_path):
    path = tmp_path / "recipe.toml"
    recipe.write(recipe.Recipe(recipe.FORMAT, "job.py", "", Budget(), (PLAN,), {"litert": {"integer_io": True}}), path)
    assert recipe.read(path).settings == {"litert": {"integer_io": True}}
    found = runtimes(Request(str(path), targets=("litert", "onnxruntime")))
    assert found.settings == {"litert": {"integer_io": True}}
    assert runtimes(Request(str(path), targets=("onnxruntime",))).settings == {}
    own = runtimes(Request(str(path), targets=("litert:integer_io=false",)))
    assert own.settings == {"litert": {"integer_io": False}}
    assert own.targets == ("litert",)


def test_a_recipe_names_the_runtimes_where_nobody_does(tmp_path):
    path = tmp_path / "recipe.toml"
    plans = (PLAN, replace(PLAN, target="executorch"))
    recipe.write(recipe.Recipe(recipe.FORMAT, "job.py", "", Budget(), plans, {PLAN.target: {}}), path)
    assert runtimes(Request(str(path))).targets == (PLAN.target, "executorch")
    assert runtimes(Request(str(path), targets=("executorch",))).targets == ("executorch",)


def test_a_runtime_that_a_recipe_has_no_plan_for_is_no_silent_search(tmp_path):
    path = tmp_path / "recipe.toml"
    recipe.write(recipe.Recipe(recipe.FORMAT, "job.py", "", Budget(), (replace(PLAN, target="litert"),)), path)
    with pytest.raises(UsageError, match="the recipe has no plan for onnxruntime") as caught:
        opened(Request(str(path), targets=("litert", "onnxruntime")))
    assert caught.value.where == str(path)
    assert "leave --target out for litert" in caught.value.next_step


@given(st.floats(2.0**-60, 2.0**60, width=32), st.integers(-128, 127), st.integers(0, 2**32 - 1))
def test_codes_of_an_interface_come_back(scale, zero_point, seed):
    codes = np.random.default_rng(seed).integers(-128, 128, (3, 5)).astype(np.int8)
    values = to_values(codes, (scale, zero_point))
    assert values.dtype == np.float32
    wanted = np.float32(scale) * (codes.astype(np.float32) - np.float32(zero_point))
    assert (values == wanted).all()
    assert (to_codes(values, (scale, zero_point)) == codes).all()
    assert (to_codes(values * np.float32(1e6), (scale, zero_point))[values > scale] == 127).all()


def pack(environment, source, out, *words):
    line = [sys.executable, "-m", "haversack.cli", "pack", source, "--allow", "slower-than-float", "--out", out, *words]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, env=environment, check=False)
    assert (out / "report.json").exists(), done.stderr
    return done.returncode, json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def both(environment, tmp_path_factory):
    """The same plan with float and with int8 interfaces."""
    folder = tmp_path_factory.mktemp("interfaces")
    recipe.write(recipe.Recipe(recipe.FORMAT, str(JOB), "", Budget(drop=0.05), (PLAN,)), folder / "asked.toml")
    made = {}
    for name, target in (("float", "litert"), ("integer", "litert:integer_io=true")):
        code, report = pack(environment, folder / "asked.toml", folder / name, "--target", target)
        assert code == 0
        made[name] = folder / name, report
    return made


def candidate(report):
    return next(one for one in report["candidates"] if one["id"] == report["best"]["litert"])


def artifact(out):
    return json.loads((out / "best" / "litert" / "artifact.json").read_text())


def test_integers_go_in_and_out(both):
    out, report = both["integer"]
    assert report["settings"] == {"litert": {"integer_io": True}}
    assert "litert:integer_io=true" in report["command"]
    assert choice.read(out).settings == report["settings"]
    described = artifact(out)
    ports = [*described["inputs"], *described["outputs"]]
    assert [port["spec"]["dtype"] for port in ports] == ["int8", "int8"]
    assert set(described["grids"]) == {"image", "scores"}
    (first, *_) = golden_file.read(out / "best" / "litert" / "golden.npz")
    assert first.inputs["image"].dtype == np.int8
    floats, _ = both["float"]
    assert artifact(floats)["grids"] == {}
    assert [port["spec"]["dtype"] for port in artifact(floats)["inputs"]] == ["float32"]


def test_both_compute_the_same_and_both_are_measured(both):
    one, other = (candidate(both[name][1]) for name in ("float", "integer"))
    assert one["quality"]["value"] == other["quality"]["value"]
    assert one["parity"]["relative_error"] == other["parity"]["relative_error"]
    assert other["parity"]["reference_differing"] == 0
    assert other["parity"]["reference_compared"] > 0
    assert other["latency"]["median_ms"] > 0
    assert other["latency"]["float_median_ms"] > 0


def test_the_recipe_makes_the_same_file_again(both, environment, tmp_path):
    out, _ = both["integer"]
    code, report = pack(environment, out / "recipe.toml", tmp_path / "again", "--target", "litert")
    assert code == 0
    names = ("best/litert/model.tflite", "best/litert/encodings.safetensors")
    assert all((out / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    assert report["settings"] == {"litert": {"integer_io": True}}


def test_the_shipped_file_verifies(both, environment):
    out, _ = both["integer"]
    line = [sys.executable, "-m", "haversack.cli", "verify", str(out)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
