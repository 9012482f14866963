"""Files up to 400 lines, functions up to 60, and no file without an idea in its name."""

from __future__ import annotations

from pathlib import Path

from rules.source import functions, modules, package_folder, place

FILE_LINES = 400
FUNCTION_LINES = 60
BANNED = frozenset({"util", "utils", "helper", "helpers", "common", "misc"})


def check_file_lines(root: Path) -> list[str]:
    """A source file has at most 400 lines."""
    return [
        f"{place(root, module.path)}: {count} lines (allowed: {FILE_LINES}); it is asking to be two"
        for module in modules(root)
        if (count := len(module.text.splitlines())) > FILE_LINES
    ]


def check_function_lines(root: Path) -> list[str]:
    """A function has at most 60 lines, its docstring included."""
    return [
        f"{place(root, module.path, node)}: {node.name} has {count} lines (allowed: {FUNCTION_LINES})"
        for module in modules(root)
        for node in functions(module.tree)
        if (count := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]


def check_file_names(root: Path) -> list[str]:
    """No file or folder is called utils, helpers, common or misc."""
    folders = (package_folder(root), root / "tests")
    return [
        f"{place(root, path)}: a name without an idea"
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.stem.removeprefix("test_") in BANNED
    ]
