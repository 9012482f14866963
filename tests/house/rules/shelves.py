"""Every part on every shelf has a line in the catalogue, and every shelf a contract."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from rules.source import modules, package_folder, place

OWN = frozenset({"__init__", "__pycache__", "contract"})


def check_catalogue(root: Path) -> list[str]:
    """The first public class of a part's file has a docstring whose first line says what the part does."""
    faults = []
    for folder, also in _shelves(root):
        for path in _parts(folder, also):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
            line = ((ast.get_docstring(classes[0]) if classes else ast.get_docstring(tree)) or "").partition("\n")[0]
            if len(line.split()) < 3:
                faults.append(f"{place(root, path)}: no catalogue line (the first line of the part's docstring)")
    return faults


def check_contracts(root: Path) -> list[str]:
    """Every shelf is a folder with parts and a contract.py."""
    faults = []
    for folder, also in _shelves(root):
        if not folder.is_dir() or not any(_parts(folder, also)):
            faults.append(f"{folder.relative_to(root)}: a shelf without parts")
        elif not (folder / "contract.py").exists():
            faults.append(f"{folder.relative_to(root)}: a shelf without contract.py")
    return faults


def _shelves(root: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """Yield (folder, names that are no parts) of every ``Shelf("haversack.x", …)`` in the source."""
    for module in modules(root):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Shelf" and node.args:
                package = node.args[0]
                if isinstance(package, ast.Constant) and isinstance(package.value, str):
                    words = {
                        inner.value
                        for keyword in node.keywords
                        if keyword.arg == "also"
                        for inner in ast.walk(keyword.value)
                        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
                    }
                    yield package_folder(root).joinpath(*package.value.split(".")[1:]), frozenset(words)


def _parts(folder: Path, also: frozenset[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.stem in OWN | also:
            continue
        if path.suffix == ".py":
            yield path
        elif (path / "__init__.py").exists():
            yield path / "__init__.py"
