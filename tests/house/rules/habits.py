"""No print outside cli/, no broad except that hides, no marks of unfinished work."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from rules.source import modules, place

# Where a broad except may end without raising again: the loop of a worker tells its caller what went wrong.
BOUNDARIES = ("tools/worker",)
WRITES = frozenset({"print", "sys.stdout.write", "sys.stderr.write"})
BROAD = frozenset({"Exception", "BaseException"})
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
TEXTS = ("src", "tests", "docs", "examples", "bench")


def check_print(root: Path) -> list[str]:
    """Only cli/ writes to the terminal."""
    faults = []
    for module in modules(root):
        if module.parts[:1] == ("cli",):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in WRITES:
                faults.append(f"{place(root, module.path, node)}: {ast.unparse(node.func)} outside cli/")
    return faults


def check_broad_except(root: Path) -> list[str]:
    """A broad except raises again, or stands at a named boundary and does something with what it caught."""
    faults = []
    for module in modules(root):
        boundary = any("/".join(module.parts).startswith(name) for name in BOUNDARIES)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
                if isinstance(node.body[-1], ast.Raise):
                    continue
                if not boundary:
                    faults.append(f"{place(root, module.path, node)}: a broad except that does not raise again")
                elif not any(isinstance(inner, ast.Call) for line in node.body for inner in ast.walk(line)):
                    faults.append(f"{place(root, module.path, node)}: a broad except that tells nobody")
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
                broad = [ast.unparse(argument) for argument in node.args if _is_broad(argument)]
                faults += [f"{place(root, module.path, node)}: suppress({name}) hides" for name in broad]
    return faults


def check_unfinished(root: Path) -> list[str]:
    """No marks of unfinished work in any text, and no NotImplementedError in the source."""
    faults = []
    paths = [path for folder in TEXTS for path in sorted((root / folder).rglob("*")) if path.suffix in {".py", ".md"}]
    for path in [*paths, *sorted(root.glob("*.md")), root / "Makefile"]:
        if path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if found := UNFINISHED.search(line):
                    faults.append(f"{place(root, path)}:{number}: {found.group()}")
    faults += [
        f"{place(root, module.path, node)}: NotImplementedError"
        for module in modules(root)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    ]
    return faults


def _is_broad(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(isinstance(one, ast.Name) and one.id in BROAD for one in kinds)
