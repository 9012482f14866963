"""The tools are set as strictly as the house says: mypy strict, ruff ALL, warnings are errors; tests are real."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from rules.source import files_of_tests, functions, modules, place

RATIO = 1.2


def check_settings(root: Path) -> list[str]:
    """pyproject.toml says mypy strict, ruff ALL with a reason for every exception, and warnings are errors."""
    path = root / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    tool = tomllib.loads(text).get("tool", {})
    faults = []
    if tool.get("mypy", {}).get("strict") is not True:
        faults.append("pyproject.toml: mypy is not strict")
    lint = tool.get("ruff", {}).get("lint", {})
    if lint.get("select") != ["ALL"]:
        faults.append("pyproject.toml: ruff does not select ALL")
    for rule in lint.get("ignore", []):
        if not re.search(rf'"{rule}",?\s*#\s*\S+', text):
            faults.append(f"pyproject.toml: ruff leaves out {rule} without a reason")
    settings = tool.get("pytest", {}).get("ini_options", {})
    if not {"error", "error:::haversack"} <= set(settings.get("filterwarnings", [])):
        faults.append("pyproject.toml: warnings from our modules are not errors")
    if not {"--strict-markers", "--import-mode=importlib"} <= set(settings.get("addopts", [])):
        faults.append("pyproject.toml: pytest is not strict about markers, or imports by path")
    return faults


def check_test_lines(root: Path) -> list[str]:
    """The tests have at least 1.2 times the lines of the source, blank lines not counted."""
    source = sum(_lines(module.text) for module in modules(root))
    tests = sum(_lines(path.read_text(encoding="utf-8")) for path in files_of_tests(root))
    if tests < RATIO * source:
        return [f"{tests} lines of tests for {source} of source: {tests / source:.2f} (needed: {RATIO})"]
    return []


def check_tests_assert(root: Path) -> list[str]:
    """Every test function has a visible assert: the statement, pytest.raises or pytest.warns, or one of NumPy's."""
    faults = []
    for path in files_of_tests(root):
        if not path.name.startswith("test_"):
            continue
        for node in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if node.name.startswith("test_") and not any(map(_asserts, ast.walk(node))):
                faults.append(f"{place(root, path, node)}: {node.name} asserts nothing")
    return faults


def _asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return not (isinstance(node.test, ast.Constant) and node.test.value)
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    return called in {"pytest.raises", "pytest.warns", "pytest.fail"} or called.startswith("np.testing.assert_")


def _lines(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.strip())
