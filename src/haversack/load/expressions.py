"""Shape expressions of a saved program: checked before SymPy evaluates them as Python.

A .pt2 file writes sizes as text such as ``Add(Symbol('s0', positive=True, integer=True), Integer(1))``, which the
loader hands to ``sympy.sympify``, and that is ``eval``. Only arithmetic on symbols passes here.
"""

from __future__ import annotations

import ast

MAX_LENGTH = 4096
MAX_POWERS = 4
_CALLS = frozenset({
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Eq", "Equality", "Ne",
    "Unequality", "Lt", "Le", "Gt", "Ge", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "And", "Or",
    "Not", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "IntTrueDiv", "FloatTrueDiv", "TruncToFloat", "TruncToInt", "RoundToInt", "ToFloat", "Identity",
})  # fmt: skip
_TEXT_CALLS = frozenset({"Symbol", "Float"})
_NODES = (
    ast.Name, ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Load, ast.operator, ast.unaryop,
    ast.cmpop, ast.boolop, ast.keyword,
)  # fmt: skip


def is_plain(text: str) -> bool:
    """Say whether an expression is arithmetic on symbols and numbers, short, and cheap to evaluate."""
    if len(text) > MAX_LENGTH or not text.isascii() or "#" in text or "\n" in text:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    powers = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Pow) or (isinstance(node, ast.Name) and node.id == "Pow"):
            powers += 1
        if not _is_plain_node(node):
            return False
    return powers <= MAX_POWERS


def _is_plain_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _CALLS:
            return False
        texts = [value for value in node.args if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        power = node.func.id != "Pow" or (len(node.args) == 2 and _is_small(node.args[1]))
        return power and (not texts or (node.func.id in _TEXT_CALLS and all(_is_word(text.value) for text in texts)))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _is_small(node.right)
    if isinstance(node, ast.keyword):
        return node.arg is not None and isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | float | str) or (type(node.value) is int and abs(node.value) < 1 << 63)
    return isinstance(node, _NODES)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.replace(".", "").replace("-", "").replace("_", "").isalnum()


def _is_small(node: ast.expr) -> bool:
    """Whether an exponent is a constant from -8 to 8."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    if isinstance(node, ast.Call) and len(node.args) == 1:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value <= 8
