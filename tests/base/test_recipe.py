"""Recipes: they come back as they were; a wrong one is refused with all its faults at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.budget import Budget
from haversack.base.errors import UsageError, grouped
from haversack.base.plan import PRECISIONS, LayerPlan, Plan, Step
from haversack.base.recipe import FORMAT, Recipe, read, structure, unstructure, write

PLAN = Plan(
    "onnxruntime",
    {
        "stem.conv:conv2d#0": LayerPlan(),
        "head:linear#0": LayerPlan("int8_weights", "tensor", Step("mse", {"steps": 40})),
        ":add#0": LayerPlan("float16"),
    },
    (Step("fold_norm"), Step("equalize", {"rounds": 2, "names": ["a", "b"]})),
    Step("percentile", {"keep": 0.999}),
    ("onnxruntime", "reference"),
    "the second of three",
)
RECIPE = Recipe(FORMAT, "job.py", "0" * 64, Budget(size=5_200_000, drop=0.01), (PLAN,))

words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
scalars = st.booleans() | st.integers(-(2**53), 2**53) | words | st.floats(allow_nan=False, allow_infinity=False)
parts = st.builds(Step, words, st.dictionaries(words, scalars | st.lists(scalars, max_size=2), max_size=2))
layers = st.builds(LayerPlan, st.sampled_from(PRECISIONS), st.sampled_from(["channel", "tensor"]), parts)
plans = st.builds(
    Plan,
    words,
    st.dictionaries(words, layers, max_size=3),
    st.lists(parts, max_size=2).map(tuple),
    parts,
    st.lists(words, max_size=2).map(tuple),
    words,
)
amounts = st.none() | st.integers(1, 10**12)
numbers = st.none() | st.floats(0, 1e6)
budgets = st.builds(Budget, amounts, amounts, amounts, numbers, numbers, numbers)
texts = st.lists(words, max_size=2).map(tuple)
operations = st.lists(st.dictionaries(words, scalars, max_size=2), max_size=2).map(tuple)
recipes = st.builds(
    Recipe,
    st.just(FORMAT),
    words,
    words,
    budgets,
    st.lists(plans, max_size=2).map(tuple),
    layers=texts,
    without=texts,
    degraded=st.none() | operations,
)


@dataclass(frozen=True)
class Inner:
    """A setting inside a setting."""

    rate: float = 1.0
    steps: int = 3


@dataclass(frozen=True)
class Outer:
    """Settings of every scalar kind."""

    name: str
    flag: bool = False
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()
    table: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "bad":
            message = "a name that is bad"
            raise ValueError(message)


def faults_of(data: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(UsageError) as caught:
        structure(data, Outer, where="outer.toml")
    assert caught.value.where == "outer.toml"
    return {fault.where: fault.cause for fault in caught.value.faults}


def test_a_recipe_comes_back_as_it_was(tmp_path):
    path = tmp_path / "recipe.toml"
    write(RECIPE, path)
    back = read(path)
    assert back == RECIPE
    assert back.plans[0].origin == RECIPE.plans[0].origin
    assert back.plans[0].digest == PLAN.digest
    assert list(back.plans[0].layers) == list(PLAN.layers)


@given(recipes)
def test_every_recipe_comes_back_as_it_was(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    write(recipe, path)
    assert read(path) == recipe


def test_writing_twice_gives_the_same_bytes(tmp_path):
    write(RECIPE, tmp_path / "a.toml")
    write(read(tmp_path / "a.toml"), tmp_path / "b.toml")
    assert (tmp_path / "a.toml").read_bytes() == (tmp_path / "b.toml").read_bytes()


def test_absent_limits_are_left_out(tmp_path):
    write(RECIPE, tmp_path / "recipe.toml")
    text = (tmp_path / "recipe.toml").read_text()
    assert "size = 5200000" in text
    assert "latency" not in text


@pytest.mark.parametrize("number", [FORMAT + 1, FORMAT - 2, "1", None, 1.5])
def test_only_this_format_and_the_last_are_read(number, tmp_path):
    path = tmp_path / "recipe.toml"
    text = "" if number is None else f"format = {number!r}\n"
    path.write_text(text.replace("'", '"'))
    with pytest.raises(UsageError, match=f"is not one this version reads \\({FORMAT - 1} or {FORMAT}\\)") as caught:
        read(path)
    assert caught.value.where == str(path)


def test_the_format_before_is_read(tmp_path):
    path = tmp_path / "recipe.toml"
    write(RECIPE, path)
    path.write_text(path.read_text().replace(f"format = {FORMAT}", f"format = {FORMAT - 1}"))
    assert read(path).format == FORMAT - 1


def test_a_file_of_the_format_before_says_nothing_of_layers_parts_and_degraded_inputs(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('format = 1\njob = "job.py"\nmodel_digest = ""\nplans = []\n\n[budget]\nsize = 3\n\n[settings]\n')
    found = read(path)
    assert (found.layers, found.without, found.degraded) == ((), (), None)
    assert found.budget == Budget(size=3)


@pytest.mark.parametrize("degraded", [None, (), ({"op": "blur", "sigma": 1.5}, {"op": "noise"})])
def test_no_list_of_degradations_is_not_an_empty_one(degraded, tmp_path):
    path = tmp_path / "recipe.toml"
    write(replace(RECIPE, layers=("head=int8",), without=("w4a8",), degraded=degraded), path)
    assert ("degraded" in path.read_text()) == (degraded is not None)
    back = read(path)
    assert (back.layers, back.without, back.degraded) == (("head=int8",), ("w4a8",), degraded)


def test_what_is_not_toml_is_told_with_its_line(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("format = 1\njob = [\n= 3\n")
    with pytest.raises(UsageError, match=r"not TOML: .*line 3"):
        read(path)


def test_what_is_not_text_is_refused(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not TOML"):
        read(path)


def test_all_faults_of_a_recipe_are_told_at_once(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'format = 1\njob = "job.py"\nmodel_digest = 7\nextra = 1\n\n[budget]\nsiez = 3\ndrop = "1pt"\n\n'
        '[[plans]]\ntarget = "onnxruntime"\n\n[plans.layers."a:conv2d#0"]\nprecision = "int7"\n'
    )
    with pytest.raises(UsageError) as caught:
        read(path)
    where = {fault.where: fault.cause for fault in caught.value.faults}
    assert "did you mean size?" in where["budget.siez"]
    assert "float" in where["budget.drop"]
    assert "'7'" in where["model_digest"] or "7 is not a value of type str" in where["model_digest"]
    assert where["extra"].startswith("unknown name")
    assert any("int7" in cause for cause in where.values())
    assert len(where) == 5


@pytest.mark.parametrize(
    "data, where, says",
    [
        ({}, "name", "is missing"),
        ({"name": 3}, "name", "3 is not a value of type str"),
        ({"name": "a", "flag": "false"}, "flag", "'false' is not true or false"),
        ({"name": "a", "flag": 1}, "flag", "1 is not true or false"),
        ({"name": "a", "inner": {"steps": 2.7}}, "inner.steps", "2.7 is not a value of type int"),
        ({"name": "a", "inner": {"steps": True}}, "inner.steps", "True is not a value of type int"),
        ({"name": "a", "inner": {"rate": "1"}}, "inner.rate", "'1' is not a value of type float"),
        ({"name": "a", "inner": {"stesp": 1}}, "inner.stesp", "unknown name; did you mean steps?"),
        ({"name": "a", "inner": {"zzz": 1}}, "inner.zzz", "unknown name (has: rate, steps)"),
        ({"name": "a", "many": [{}, {"steps": "x"}]}, "many[1].steps", "'x' is not a value of type int"),
        ({"name": "a", "table": {"k": 1.5}}, "table['k']", "1.5 is not a value of type int"),
    ],
)
def test_nothing_is_converted_silently(data, where, says):
    found = faults_of(data)
    assert says in " ".join(found.values())
    if says != "is missing":
        assert says in found[where]


def test_a_whole_number_may_stand_for_a_float():
    made = structure({"name": "a", "inner": {"rate": 2}}, Outer, where="x")
    assert made.inner.rate == 2.0
    assert type(made.inner.rate) is float


def test_a_record_s_own_words_are_told():
    assert "a name that is bad" in " ".join(faults_of({"name": "bad"}).values())


def test_unstructured_records_are_plain():
    plain = unstructure(Outer("a", many=(Inner(2.0),), table={"k": 1}))
    assert plain["many"] == [{"rate": 2.0, "steps": 3}] or plain["many"] == ({"rate": 2.0, "steps": 3},)
    assert structure(plain, Outer, where="x") == Outer("a", many=(Inner(2.0),), table={"k": 1})


def test_an_unwritable_place(tmp_path):
    with pytest.raises(OSError):
        write(RECIPE, tmp_path / "nowhere" / "recipe.toml")


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "[1.0, inf]"])
def test_settings_that_no_json_holds_are_told_with_layer_part_and_field(value, tmp_path):
    write(RECIPE, path := tmp_path / "recipe.toml")
    text = path.read_text().replace("steps = 40", f"steps = {value}").replace("rounds = 2", f"rounds = {value}")
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read(path)
    told = {fault.where: fault.cause for fault in error.value.faults}
    assert set(told) == {"plans[0].layers['head:linear#0'].weights", "plans[0].prepare[1]"}
    assert told["plans[0].prepare[1]"].startswith("equalize: rounds = ")
    assert told["plans[0].prepare[1]"].endswith(": not a finite number")
    assert error.value.exit_code == 2


def test_a_name_that_there_is_not_is_told_with_the_nearest_in_one_line(tmp_path):
    kept = {f"layer{place}:conv2d#0": LayerPlan("w7a8") for place in range(21)}
    write(replace(RECIPE, plans=(replace(PLAN, layers=kept),)), path := tmp_path / "recipe.toml")
    path.write_text(path.read_text().replace("w7a8", "int7"))
    with pytest.raises(UsageError) as error:
        read(path)
    assert len(error.value.faults) == 21
    lines = grouped(error.value.faults)
    assert len(lines) == 1
    assert "21 times (plans[0].layers['layer0:conv2d#0'].precision, " in lines[0]
    assert "there is no 'int7'; did you mean int8? (has: float32, " in lines[0]
    assert "typing" not in lines[0]


def test_what_is_near_no_name_is_told_with_all(tmp_path):
    with pytest.raises(UsageError, match=r"7 is none of them \(has: channel, tensor\)"):
        structure({"granularity": 7}, LayerPlan, where="here")


@pytest.mark.parametrize("text", ["format = 2\njob = ", "format = 9"])
def test_a_damaged_recipe_leads_to_the_file_and_not_to_flags(text, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read(path)
    assert error.value.where == str(path)
    assert error.value.next_step.startswith("mend the file there")
