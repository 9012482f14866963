"""At most 25 public names, the same in ``__all__``, in the package's docstring and in the README."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from rules.source import Function, package_folder, place

MOST = 25
HEADING = re.compile(r"^public names:?\s*$", re.IGNORECASE | re.MULTILINE)


def check_public_names(root: Path) -> list[str]:
    """``__all__`` has at most 25 names; the docstring lists the same below «Public names:», the README shows each."""
    path = package_folder(root) / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = _all(tree)
    if names is None:
        return [f"{place(root, path)}: no literal __all__"]
    faults = []
    if len(names) > MOST:
        faults.append(f"{place(root, path)}: {len(names)} public names (allowed: {MOST})")
    listed = _listed(ast.get_docstring(tree) or "")
    if listed != set(names):
        differing = ", ".join(sorted(listed ^ set(names)))
        faults.append(f"{place(root, path)}: the docstring's «Public names:» and __all__ differ in: {differing}")
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    faults += [
        f"README.md: the public name `{name}` is not shown"
        for name in names
        if not re.search(rf"`[^`\n]*\b{name}\b", text)
    ]
    return faults


def check_root_shadows(root: Path) -> list[str]:
    """No public name and no function at the root bears a folder's name: it would hide the folder."""
    path = package_folder(root) / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    folders = {folder.name for folder in package_folder(root).iterdir() if folder.is_dir()}
    names = set(_all(tree) or ()) | {node.name for node in tree.body if isinstance(node, Function)}
    return [f"{place(root, path)}: {name} bears the name of a folder" for name in sorted(names & folders)]


def _all(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            value = getattr(node, "value", None)
            if isinstance(value, ast.List | ast.Tuple):
                return [item.value for item in value.elts if isinstance(item, ast.Constant)]
    return None


def _listed(docstring: str) -> set[str]:
    """Return the names below «Public names:»: on each indented line, what stands before two spaces or the end."""
    heading = HEADING.search(docstring)
    if heading is None:
        return set()
    names = set()
    for line in docstring[heading.end() :].lstrip("\n").splitlines():
        if not line.startswith(" "):
            break
        names |= {name.strip("` ") for name in re.split(r"\s{2,}", line.strip())[0].split(",")}
    return names - {""}
