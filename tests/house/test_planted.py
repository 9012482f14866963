"""Each house rule is seen failing on a planted fault, and quiet on a house without one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = "src/haversack"
DOC = '"""A module."""\n'
PAGE = "docs/page.md"


class Plant(NamedTuple):
    """A fault: the rule that must see it, the files that hold it (appended), and what the rule must say."""

    rule: str
    files: dict[str, str]
    says: str


def function(body: str, signature: str = "broken() -> None") -> str:
    return f'{DOC}\n\ndef {signature}:\n    """Do it."""\n{body}\n'


LONG_FUNCTION = function("\n".join(f"    value_{n} = {n}" for n in range(60)))
SIXTY_LINES = function("\n".join(f"    value_{n} = {n}" for n in range(58)))
SLOW = "\nimport time\nend = time.process_time() + {}\nwhile time.process_time() < end:\n    pass\n"
PART = f'{DOC}\n\nclass Part:\n    """Short."""\n'

THREATS = "## Threats, and the tests that prove what is said\n\n| threat | test |\n|---|---|\n| {} | {} |\n"

PLANTS = {
    "a stage imports a stage": Plant(
        "layers.check_layers",
        {f"{SRC}/load/job.py": f"{DOC}from haversack.measure import x\n"},
        "load may not import measure",
    ),
    "base imports tools, inside a function": Plant(
        "layers.check_layers",
        {f"{SRC}/base/sly.py": function("    import haversack.tools.store")},
        "base may not import tools",
    ),
    "tools import a stage, for types only": Plant(
        "layers.check_layers",
        {f"{SRC}/tools/store/sly.py": f"{DOC}if TYPE_CHECKING:\n    from haversack.load import Job\n"},
        "tools may not import load",
    ),
    "a relative import": Plant(
        "layers.check_layers", {f"{SRC}/load/sly.py": f"{DOC}from ..measure import x\n"}, "load may not import measure"
    ),
    "import_module with a constant": Plant(
        "layers.check_layers",
        {f"{SRC}/metrics/sly.py": function("    importlib.import_module('haversack.flow.pack')")},
        "metrics may not import flow",
    ),
    "metrics import targets": Plant(
        "layers.check_layers",
        {f"{SRC}/metrics/sly.py": f"{DOC}import haversack.targets\n"},
        "metrics may not import targets",
    ),
    "a folder outside the house": Plant(
        "layers.check_layers", {f"{SRC}/magic/__init__.py": DOC}, "magic/ has no place in the layers"
    ),
    "from the root": Plant(
        "layers.check_layers", {f"{SRC}/load/sly.py": f"{DOC}from haversack import greet\n"}, "which is in no layer"
    ),
    "a rank imports a higher one": Plant(
        "layers.check_ranks",
        {f"{SRC}/tools/numerics/sly.py": f"{DOC}from haversack.tools import store\n"},
        "tools/numerics may not import tools/store",
    ),
    "a tool without a rank": Plant(
        "layers.check_ranks", {f"{SRC}/tools/magic/__init__.py": DOC}, "tools/magic has no rank"
    ),
    "a target imports a target": Plant(
        "layers.check_ranks",
        {
            f"{SRC}/targets/one/__init__.py": f"{DOC}from haversack.targets.two import x\n",
            f"{SRC}/targets/two/__init__.py": DOC,
        },
        "target one may not import haversack.targets.two",
    ),
    "a cycle of three": Plant(
        "layers.check_cycles",
        {
            f"{SRC}/base/a.py": f"{DOC}from haversack.base import b\n",
            f"{SRC}/base/b.py": function("    from haversack.base.c import x"),
            f"{SRC}/base/c.py": f"{DOC}if TYPE_CHECKING:\n    from haversack.base.a import y\n",
        },
        "haversack.base.a -> haversack.base.b -> haversack.base.c -> haversack.base.a",
    ),
    "a framework at the top": Plant(
        "frameworks.check_frameworks",
        {f"{SRC}/load/sly.py": f"{DOC}import torch.export\n"},
        "torch is imported at the top",
    ),
    "a framework inside try, at the top": Plant(
        "frameworks.check_frameworks",
        {f"{SRC}/load/sly.py": f"{DOC}try:\n    from scipy import optimize\nexcept ImportError:\n    pass\n"},
        "scipy is imported at the top",
    ),
    "torch in the field half": Plant(
        "imports_run.check_field_half",
        {f"{SRC}/tools/store/sly.py": f"{DOC}import torch\n"},
        "haversack.tools.store.sly: blocked: torch",
    ),
    "the field half crashes": Plant(
        "imports_run.check_field_half", {f"{SRC}/base/sly.py": f"{DOC}1 / 0\n"}, "ZeroDivisionError"
    ),
    "a slow import": Plant(
        "imports_run.check_import_time", {f"{SRC}/__init__.py": SLOW.format(0.12)}, "import haversack takes"
    ),
    "slow help": Plant(
        "imports_run.check_import_time", {f"{SRC}/cli/__init__.py": SLOW.format(0.36)}, "haversack --help takes"
    ),
    "a public name like a folder": Plant(
        "public_names.check_root_shadows",
        {f"{SRC}/__init__.py": '\n\ndef load() -> None:\n    """Load."""\n'},
        "load bears the name of a folder",
    ),
    "401 lines": Plant("sizes.check_file_lines", {f"{SRC}/load/long.py": DOC + "\n" * 400}, "401 lines"),
    "61 lines in a function": Plant(
        "sizes.check_function_lines", {f"{SRC}/load/long.py": LONG_FUNCTION}, "has 62 lines"
    ),
    "utils": Plant("sizes.check_file_names", {f"{SRC}/load/utils.py": DOC}, "load/utils.py: a name without an idea"),
    "tests of helpers": Plant("sizes.check_file_names", {"tests/test_helpers.py": DOC}, "a name without an idea"),
    "no docstring": Plant(
        "documented.check_documented",
        {f"{SRC}/load/mute.py": f"{DOC}\n\ndef mute() -> None:\n    pass\n"},
        "mute has no docstring",
    ),
    "a method without docstring": Plant(
        "documented.check_documented",
        {f"{SRC}/load/mute.py": f'{DOC}\n\nclass A:\n    """A."""\n\n    def mute(self) -> None:\n        pass\n'},
        "mute has no docstring",
    ),
    "a module without docstring": Plant(
        "documented.check_documented", {f"{SRC}/load/mute.py": "X = 1\n"}, "the module has no docstring"
    ),
    "no type": Plant(
        "documented.check_typed",
        {f"{SRC}/load/untyped.py": function("    return b", "loose(a, b: int)")},
        "loose has no type for a, its result",
    ),
    "an untyped keyword of __init__": Plant(
        "documented.check_typed",
        {f"{SRC}/load/untyped.py": f'{DOC}\nclass A:\n    "A."\n\n    def __init__(self, *, size=3):\n        x = 1'},
        "__init__ has no type for size, its result",
    ),
    "an array without shape or dtype": Plant(
        "documented.check_arrays_described",
        {f"{SRC}/load/vague.py": function("    return a", "double(a: np.ndarray) -> np.ndarray")},
        "double says no shape, dtype or unit",
    ),
    "a record with a vague array": Plant(
        "documented.check_arrays_described",
        {f"{SRC}/load/vague.py": f'{DOC}\n\nclass Record:\n    """Values."""\n\n    values: np.ndarray\n'},
        "Record says no shape, dtype or unit",
    ),
    "print": Plant("habits.check_print", {f"{SRC}/load/loud.py": function('    print("hello")')}, "print outside cli/"),
    "writing to stderr": Plant(
        "habits.check_print",
        {f"{SRC}/load/loud.py": function('    sys.stderr.write("hello")')},
        "sys.stderr.write outside",
    ),
    "a broad except": Plant(
        "habits.check_broad_except",
        {f"{SRC}/load/hides.py": function("    try:\n        pass\n    except (OSError, Exception):\n        pass")},
        "a broad except that does not raise again",
    ),
    "a broad except behind a name": Plant(
        "habits.check_broad_except",
        {
            f"{SRC}/load/hides.py": f"{DOC}SOME = (ValueError, TypeError, LookupError)\n"
            + function("    try:\n        pass\n    except SOME:\n        pass").removeprefix(DOC)
        },
        "a broad except that does not raise again",
    ),
    "a broad except behind a name of the function": Plant(
        "habits.check_broad_except",
        {
            f"{SRC}/load/hides.py": function(
                "    some = (OSError, TypeError, KeyError)\n    try:\n        pass\n    except some:\n        pass"
            )
        },
        "a broad except that does not raise again",
    ),
    "a bare except": Plant(
        "habits.check_broad_except",
        {f"{SRC}/load/hides.py": function("    try:\n        pass\n    except:\n        x = 1")},
        "a broad except that does not raise again",
    ),
    "a boundary that tells nobody": Plant(
        "habits.check_broad_except",
        {f"{SRC}/tools/worker/loop.py": function("    try:\n        pass\n    except Exception:\n        pass")},
        "a broad except that tells nobody",
    ),
    "suppress(Exception)": Plant(
        "habits.check_broad_except",
        {f"{SRC}/load/hides.py": function("    with contextlib.suppress(Exception):\n        pass")},
        "suppress(Exception) hides",
    ),
    "a mark of unfinished work": Plant(
        "habits.check_unfinished", {PAGE: "# " + "TO" + "DO: more\n"}, f"{PAGE}:1: " + "TO" + "DO"
    ),
    "NotImplementedError": Plant(
        "habits.check_unfinished",
        {f"{SRC}/load/half.py": function("    raise NotImplementedError")},
        "half.py:6: NotImplementedError",
    ),
    "a part without a catalogue line": Plant(
        "shelves.check_catalogue", {f"{SRC}/metrics/mute.py": PART}, "mute.py: no catalogue line"
    ),
    "a shelf without a contract": Plant(
        "shelves.check_contracts",
        {
            f"{SRC}/targets/__init__.py": f'{DOC}x = Shelf("haversack.targets", "target")\n',
            f"{SRC}/targets/one/__init__.py": DOC,
        },
        "targets: a shelf without contract.py",
    ),
    "a shelf without parts": Plant(
        "shelves.check_contracts",
        {f"{SRC}/load/s.py": f'{DOC}x = Shelf("haversack.nowhere", "ghost")\n'},
        "without parts",
    ),
    "a Python snippet that fails": Plant(
        "snippets.check_python_snippets",
        {PAGE: "```python\nimport haversack\nhaversack.no_such_name\n```\n"},
        "has no attribute 'no_such_name'",
    ),
    "a command that is not there": Plant(
        "snippets.check_command_snippets",
        {PAGE: "```bash\nhaversack fly --high\n```\n"},
        "haversack has no command fly",
    ),
    "a flag that is not there": Plant(
        "snippets.check_command_snippets",
        {PAGE: "```console\n$ haversack greet --loud\n```\n"},
        "greet has no flag --loud",
    ),
    "a block of no language": Plant("snippets.check_fences", {PAGE: "```\nwhat is this\n```\n"}, "a block of kind ''"),
    "a test without an assert": Plant(
        "strictness.check_tests_assert",
        {"tests/test_idle.py": "def test_idle():\n    len('a')\n"},
        "test_idle asserts nothing",
    ),
    "a test that asserts True": Plant(
        "strictness.check_tests_assert",
        {"tests/test_idle.py": "def test_idle():\n    assert True\n"},
        "asserts nothing",
    ),
    "a threat whose proof is not there": Plant(
        "proofs.check_proofs",
        {"docs/security.md": THREATS.format("a lie", "`tests/test_words.py::test_nothing`")},
        "there is no test test_nothing in tests/test_words.py",
    ),
    "a threat without a proof": Plant(
        "proofs.check_proofs",
        {"docs/security.md": THREATS.format("a lie", "somebody looked")},
        "no test proves \u00aba lie\u00bb",
    ),
    "too few tests": Plant(
        "strictness.check_test_lines", {f"{SRC}/load/bulk.py": DOC + "X = 1\n" * 300}, "(needed: 1.2)"
    ),
}


def run(rule: str, house: Path) -> list[str]:
    module, _, name = rule.partition(".")
    return getattr(importlib.import_module(f"rules.{module}"), name)(house)


def every_rule() -> list[str]:
    folder = Path(__file__).parent / "rules"
    return sorted(
        f"{path.stem}.{name}"
        for path in folder.glob("*.py")
        for name, value in vars(importlib.import_module(f"rules.{path.stem}")).items()
        if name.startswith("check_") and value.__module__ == f"rules.{path.stem}"
    )


@pytest.mark.parametrize("plant", [pytest.param(plant, id=name) for name, plant in PLANTS.items()])
def test_planted_fault_is_seen(plant: Plant, small_house: Path) -> None:
    for name, text in plant.files.items():
        path = small_house / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(before + text, encoding="utf-8")
    faults = run(plant.rule, small_house)
    assert any(plant.says in fault for fault in faults), faults


@pytest.mark.parametrize("rule", every_rule())
def test_a_clean_house_is_left_in_peace(rule: str, small_house: Path) -> None:
    assert run(rule, small_house) == []


def test_sixty_lines_are_allowed(small_house: Path) -> None:
    (small_house / SRC / "load" / "fits.py").write_text(SIXTY_LINES, encoding="utf-8")
    assert run("sizes.check_function_lines", small_house) == []


def test_a_broad_except_that_raises_again_is_allowed(small_house: Path) -> None:
    text = function("    try:\n        pass\n    except Exception as error:\n        raise ValueError from error")
    (small_house / SRC / "load" / "honest.py").write_text(text, encoding="utf-8")
    assert run("habits.check_broad_except", small_house) == []


def test_an_import_for_types_only_may_name_a_framework(small_house: Path) -> None:
    text = f"{DOC}from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import torch\n"
    (small_house / SRC / "load" / "typed.py").write_text(text, encoding="utf-8")
    assert run("frameworks.check_frameworks", small_house) == []


@pytest.mark.parametrize(
    "init, says",
    [
        ('"""A.\n\nPublic names:\n    greet  hello\n"""\n\n__all__ = ["greet", "more"]\n', "differ in: more"),
        ('"""A.\n\nPublic names:\n    greet, more  hello\n"""\n\n__all__ = ["greet", "more"]\n', "`more` is not shown"),
        ('"""A."""\n\n__all__ = [' + ", ".join(f'"n{n}"' for n in range(26)) + "]\n", "26 public names (allowed: 25)"),
        ('"""A."""\n', "no literal __all__"),
    ],
)
def test_public_names_are_few_and_documented(init: str, says: str, small_house: Path) -> None:
    (small_house / SRC / "__init__.py").write_text(init, encoding="utf-8")
    faults = run("public_names.check_public_names", small_house)
    assert any(says in fault for fault in faults), faults


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("strict = true", "strict = false", "mypy is not strict"),
        ('select = ["ALL"]', 'select = ["E"]', "ruff does not select ALL"),
        (" # the formatter's business", "", "leaves out COM812 without a reason"),
        ('"error", ', "", "warnings from our modules are not errors"),
        (', "error:::haversack"', "", "warnings from our modules are not errors"),
        (', "--strict-markers"', "", "pytest is not strict"),
    ],
)
def test_lax_settings_are_seen(old: str, new: str, says: str, small_house: Path) -> None:
    path = small_house / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert any(says in fault for fault in run("strictness.check_settings", small_house))


def test_a_page_names_its_files_and_runs_in_order(small_house: Path) -> None:
    page = small_house / PAGE
    page.parent.mkdir()
    page.write_text(
        "```python\n# file: one.py\nX = 1\n```\n\n```python\nimport one\nassert one.X == 1\n```\n", encoding="utf-8"
    )
    assert run("snippets.check_python_snippets", small_house) == []


def test_every_rule_has_been_seen_failing() -> None:
    tried = {plant.rule for plant in PLANTS.values()} | {"public_names.check_public_names", "strictness.check_settings"}
    assert tried == set(every_rule())
