"""What was typed: one fault is told as it is, several all at once, and before any of the user's code runs."""

from __future__ import annotations

import pytest

from haversack.base.errors import UsageError
from haversack.flow.pack import pack, preflight
from haversack.flow.request import Request
from haversack.flow.typed import check

WRONG = {
    "effort": ("silly", "--effort"),
    "targets": (("tflite",), "tflite"),
    "without": (("zork",), "--without zork"),
    "layers": (("b=w9a8",), "--layer b=w9a8"),
    "allow": (("blah",), "--allow blah"),
    "budget": ("size=5", "size"),
    "degraded": ("foo", "foo"),
    "ray": ("nowhere", "--ray"),
    "device": ("moon", "--device"),
}


def test_all_is_well():
    assert check(Request("job.py", "size=1MB", targets=("onnxruntime",), allow=("slower-than-float",))) is None


@pytest.mark.parametrize("run", [pack, preflight])
def test_every_wrong_flag_is_told_at_once_and_the_job_is_not_opened(tmp_path, run):
    job = tmp_path / "job.py"
    job.write_text("raise AssertionError('the job was run')\n")
    values = {name: value for name, (value, _) in WRONG.items()}
    with pytest.raises(UsageError, match=f"{len(WRONG)} of what was typed") as caught:
        run(Request(str(job), out=tmp_path / "out", **values))
    for _, place in WRONG.values():
        assert place in str(caught.value), place
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_flag_keeps_its_own_next_step(name):
    value, place = WRONG[name]
    with pytest.raises(UsageError) as caught:
        check(Request("job.py", **{name: value}))
    assert place in str(caught.value)
    assert "haversack pack --help" not in caught.value.next_step


def test_a_misspelt_finding_is_told_with_the_nearest_one():
    with pytest.raises(UsageError, match="cannot be allowed") as caught:
        check(Request("job.py", allow=("flaot-op",)))
    assert "did you mean float-op" in str(caught.value)


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("int4", "w4a8"),
        ("int3", "w3a8"),
        ("q4", "w4_grouped"),
        ("fp16", "float16"),
        ("in8", "int8"),
        ("zork", "one of"),
    ],
)
def test_what_other_tools_call_a_precision_is_understood(typed, meant):
    for request in (Request("job.py", without=(typed,)), Request("job.py", layers=(f"a={typed}",))):
        with pytest.raises(UsageError) as caught:
            check(request)
        assert meant in str(caught.value.faults[0])


def test_a_damaged_recipe_is_told_once(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("format = 2\njob = ")
    with pytest.raises(UsageError, match="not TOML") as caught:
        check(Request(str(path)))
    assert "of what was typed" not in str(caught.value)
    assert caught.value.next_step.startswith("mend the file there")
    with pytest.raises(UsageError, match="2 of what was typed") as caught:
        check(Request(str(path), effort="silly"))
    assert str(caught.value).count("not TOML") == 1
