"""What the rules read: the source files of a repository and their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "haversack"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file; ``name`` is dotted (``haversack.base.keys``), a package's is that of its folder."""

    name: str
    path: Path
    text: str
    tree: ast.Module
    is_package: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """Names below the root package: ("base", "keys")."""
        return tuple(self.name.split("."))[1:]


def package_folder(root: Path) -> Path:
    return root / "src" / PACKAGE


def modules(root: Path) -> Iterator[Module]:
    """Yield every module below src/haversack, in order of its path."""
    folder = package_folder(root)
    for path in sorted(folder.rglob("*.py")):
        inner = path.relative_to(folder).with_suffix("").parts
        is_package = inner[-1] == "__init__"
        text = path.read_text(encoding="utf-8")
        name = ".".join((PACKAGE, *(inner[:-1] if is_package else inner)))
        yield Module(name, path, text, ast.parse(text), is_package)


def files_of_tests(root: Path) -> list[Path]:
    return sorted((root / "tests").rglob("*.py"))


def place(root: Path, path: Path, node: ast.AST | None = None) -> str:
    line = getattr(node, "lineno", None)
    return f"{path.relative_to(root)}" + (f":{line}" if line else "")


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def is_type_checking(node: ast.AST) -> bool:
    """Say whether a statement is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
