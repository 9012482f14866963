"""No print outside cli/, no broad except that hides, no marks of unfinished work."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Mapping
from pathlib import Path

from rules.source import modules, place

# Where a broad except may end without raising again: a worker's loop and a model's guard tell what went wrong.
BOUNDARIES = ("tools/worker", "run/guard")
WRITES = frozenset({"print", "sys.stdout.write", "sys.stderr.write"})
BROAD = frozenset({"Exception", "BaseException"})
# So many classes of Python's own in one except catch what nobody thought of, whatever the tuple is called.
MANY = 3
BUILTIN = frozenset(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)
)
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
        tuples = _tuples(module.tree)
        boundary = any("/".join(module.parts).startswith(name) for name in BOUNDARIES)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node.type, tuples):
                if isinstance(node.body[-1], ast.Raise):
                    continue
                if not boundary:
                    faults.append(f"{place(root, module.path, node)}: a broad except that does not raise again")
                elif not any(isinstance(inner, ast.Call) for line in node.body for inner in ast.walk(line)):
                    faults.append(f"{place(root, module.path, node)}: a broad except that tells nobody")
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
                broad = [ast.unparse(argument) for argument in node.args if _is_broad(argument, tuples)]
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


def _tuples(tree: ast.Module) -> dict[str, ast.Tuple]:
    """Return the tuples that have a name, in the module or in a function: what ``except NAME`` may mean."""
    return {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Tuple)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def _is_broad(kind: ast.expr | None, tuples: Mapping[str, ast.Tuple]) -> bool:
    if kind is None:
        return True
    named = tuples.get(kind.id) if isinstance(kind, ast.Name) else None
    found = named or kind
    kinds = found.elts if isinstance(found, ast.Tuple) else [found]
    names = {one.id for one in kinds if isinstance(one, ast.Name)}
    return bool(names & BROAD) or (named is not None and len(names & BUILTIN) >= MANY)
