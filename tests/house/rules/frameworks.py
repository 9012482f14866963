"""Third-party frameworks stand inside the function that uses them; NumPy alone may stand at the top."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from rules.source import PACKAGE, is_type_checking, modules, place

ALLOWED = frozenset({PACKAGE, "numpy", "__future__"}) | sys.stdlib_module_names


def check_frameworks(root: Path) -> list[str]:
    """No import at module or class level of anything but the standard library, NumPy and ourselves."""
    return [
        f"{place(root, module.path, node)}: {name} is imported at the top; import it where it is used"
        for module in modules(root)
        for name, node in _at_import_time(module.tree)
        if name not in ALLOWED
    ]


def _at_import_time(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name.split(".")[0], child) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            if not child.level:
                yield (child.module or "").split(".")[0], child
        elif is_type_checking(child):
            for other in child.orelse:
                yield from _at_import_time(other)
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _at_import_time(child)
