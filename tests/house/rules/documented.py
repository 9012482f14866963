"""Every public function is typed and documented; where arrays flow, the docstring says what they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from rules.source import Function, modules, place

# A Sample says itself what it is, where it is defined.
ARRAYS = re.compile(r"\b(ndarray|NDArray|ArrayLike|Tensor)\b")
# A shape in brackets, a dtype, or a word that tells what an array's values or axes are.
TELLS = re.compile(
    r"\[[A-Za-z_0-9][A-Za-z_0-9, .*^+/-]*\]|\[\]|\b(u?int(4|8|16|32|64)|float(16|32|64)?|bool|shapes?|dtypes?|"
    r"integers?|codes|elements?|scalar|rows|axis|axes|batch|batches|samples?|seconds|per channel|per tensor|"
    r"bytes|logits|bits)\b",
    re.IGNORECASE,
)


def check_documented(root: Path) -> list[str]:
    """Every public module, class, function and method has a docstring."""
    faults = []
    for module in modules(root):
        if not ast.get_docstring(module.tree):
            faults.append(f"{place(root, module.path)}: the module has no docstring")
        faults += [
            f"{place(root, module.path, node)}: {node.name} has no docstring"
            for node, _ in _public(module.tree)
            if not ast.get_docstring(node) and not _is_overload_or_setter(node)
        ]
    return faults


def check_typed(root: Path) -> list[str]:
    """Every argument and result of a public function or method has a type."""
    faults = []
    for module in modules(root):
        for node, owner in _public(module.tree, magic=True):
            if isinstance(node, ast.ClassDef):
                continue
            missing = [argument.arg for argument in _arguments(node, owner) if argument.annotation is None]
            if node.returns is None:
                missing.append("its result")
            if missing:
                faults.append(f"{place(root, module.path, node)}: {node.name} has no type for {', '.join(missing)}")
    return faults


def check_arrays_described(root: Path) -> list[str]:
    """Where an array goes in or out, the docstring of the function or its class tells shape, dtype or unit."""
    faults = []
    for module in modules(root):
        for node, owner in _public(module.tree):
            texts = [ast.get_docstring(node) or "", (ast.get_docstring(owner) or "") if owner else ""]
            if ARRAYS.search(_annotations(node, owner)) and not any(TELLS.search(text) for text in texts):
                where = place(root, module.path, node)
                faults.append(f"{where}: {node.name} says no shape, dtype or unit of its arrays")
    return faults


def _public(tree: ast.Module, *, magic: bool = False) -> Iterator[tuple[Function | ast.ClassDef, ast.ClassDef | None]]:
    """Yield public functions and classes of a module and public methods of its public classes, with their class."""
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node, None
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, Function):
                    hidden = inner.name.startswith("_") and not (magic and inner.name.startswith("__"))
                    yield from () if hidden else ((inner, node),)


def _arguments(node: Function, owner: ast.ClassDef | None) -> list[ast.arg]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    named = [argument for argument in every if argument is not None]
    static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
    return named[1:] if owner is not None and not static else named


def _annotations(node: Function | ast.ClassDef, owner: ast.ClassDef | None) -> str:
    if isinstance(node, ast.ClassDef):
        fields = [item.annotation for item in node.body if isinstance(item, ast.AnnAssign)]
    else:
        fields = [argument.annotation for argument in _arguments(node, owner) if argument.annotation]
        fields += [node.returns] if node.returns else []
    return " ".join(ast.unparse(field) for field in fields)


def _is_overload_or_setter(node: Function | ast.ClassDef) -> bool:
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(text in {"overload", "override"} or text.endswith(".setter") for text in decorators)
