"""Who may import whom: base <- tools <- targets, metrics <- stages <- flow <- cli, without cycles.

Every import of our own modules counts: at the top, inside a function, under TYPE_CHECKING, and by
``importlib.import_module`` with a constant name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from rules.source import PACKAGE, Module, modules, place

STAGES = (
    "load", "profile", "compress", "lower", "verify", "measure", "choose", "bundle", "deliver", "run", "monitor",
    "report",
)  # fmt: skip
LEVEL = {"base": 0, "tools": 1, "targets": 2, "metrics": 2, **dict.fromkeys(STAGES, 3), "flow": 4, "cli": 5}
RANK = {"numerics": 1, "worker": 1, "codec": 2, "formats": 2, "store": 2, "data": 3, "trust": 3, "graph": 4}


def check_layers(root: Path) -> list[str]:
    """A folder imports only what is below it; a stage, a target, a metrics folder never its neighbour."""
    faults = []
    for module in modules(root):
        if not module.parts:
            continue
        mine = module.parts[0]
        if mine not in LEVEL:
            faults.append(f"{place(root, module.path)}: {mine}/ has no place in the layers")
            continue
        for name, node in _imports(module, set(LEVEL)):
            theirs = _folder(name)
            if theirs == mine or theirs.startswith("__"):  # haversack.__version__ is everybody's
                continue
            if theirs not in LEVEL:
                faults.append(f"{place(root, module.path, node)}: {mine} imports {name}, which is in no layer")
            elif LEVEL[theirs] >= LEVEL[mine]:
                faults.append(f"{place(root, module.path, node)}: {mine} may not import {theirs} ({name})")
    return faults


def check_ranks(root: Path) -> list[str]:
    """Inside tools/ a folder imports itself and lower ranks only; inside targets/ itself and the shelf's contract."""
    faults = []
    known = {module.name for module in modules(root)}
    for module in modules(root):
        if len(module.parts) < 2 or module.parts[0] not in {"tools", "targets"}:
            continue
        shelf, mine = module.parts[:2]
        if shelf == "tools" and mine not in RANK:
            faults.append(f"{place(root, module.path)}: tools/{mine} has no rank")
            continue
        for name, node in _imports(module, known):
            theirs = name.split(".")[1:]
            if len(theirs) < 2 or theirs[0] != shelf or theirs[1] == mine:
                continue
            if shelf == "tools" and RANK.get(theirs[1], 9) >= RANK[mine]:
                faults.append(f"{place(root, module.path, node)}: tools/{mine} may not import tools/{theirs[1]}")
            if shelf == "targets" and mine != "contract" and theirs[1] != "contract":
                faults.append(f"{place(root, module.path, node)}: target {mine} may not import {name}")
    return faults


def check_cycles(root: Path) -> list[str]:
    """No module imports itself by way of others."""
    everything = {module.name: module for module in modules(root)}
    edges = {
        name: {target for target, _ in _imports(module, set(everything)) if target in everything and target != name}
        for name, module in everything.items()
    }
    found: set[tuple[str, ...]] = set()
    for start in edges:
        path = _way_back(start, edges)
        if path:
            turn = path.index(min(path))
            found.add((*path[turn:], *path[:turn]))
    return [f"a cycle of imports: {' -> '.join((*cycle, cycle[0]))}" for cycle in sorted(found)]


def _way_back(start: str, edges: dict[str, set[str]]) -> list[str]:
    """Return the modules of a shortest way from ``start`` to itself, or nothing."""
    previous: dict[str, str] = {}
    queue = [start]
    for name in queue:
        for target in sorted(edges[name]):
            if target == start:
                path = [name]
                while path[-1] != start:
                    path.append(previous[path[-1]])
                return path[::-1]
            if target not in previous:
                previous[target] = name
                queue.append(target)
    return []


def _folder(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def _imports(module: Module, known: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """Yield (dotted name, statement) of our own modules; ``from package import module`` names the module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names if _ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            if _ours(base):
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield (inner if inner in known or base == PACKAGE else base), node
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and _ours(name.value):
                yield name.value, node


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    keep = len(parts) - node.level + (1 if module.is_package else 0)
    return ".".join((*parts[:keep], *((node.module,) if node.module else ())))


def _ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE
