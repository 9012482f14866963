"""The page of threats names tests that prove what it says: every one of them must exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = "docs/security.md"
_PROOF = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)(?:::(\w+))?`")
_ROW = re.compile(r"^\|(?P<cells>.+)\|$", re.MULTILINE)
_TITLE = "## Threats, and the tests that prove what is said"


def check_proofs(root: Path) -> list[str]:
    """Every test that the page names is there, and every threat of its table names one."""
    page = root / PAGE
    if not page.exists():
        return []
    text = page.read_text(encoding="utf-8")
    named = [(path, [name for name in names if name]) for path, *names in _PROOF.findall(text)]
    faults = [
        f"{PAGE}: there is no test {'::'.join(names)} in {path}"
        for path, names in named
        if not _there(root / path, names)
    ]
    _, _, threats = text.partition(_TITLE)
    rows = [match["cells"] for match in _ROW.finditer(threats.partition("\n## ")[0])]
    return faults + [
        f"{PAGE}: no test proves \u00ab{row.split('|')[0].strip()}\u00bb" for row in rows[2:] if not _PROOF.search(row)
    ]


def _there(path: Path, names: list[str]) -> bool:
    """Say whether a file has a test, in a class or not."""
    if not path.exists():
        return False
    inside: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for name in names:
        found = [one for one in inside if isinstance(one, ast.FunctionDef | ast.ClassDef) and one.name == name]
        if not found:
            return False
        inside = found[0].body
    return True
