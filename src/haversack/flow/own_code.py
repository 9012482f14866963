"""What haversack itself is made of, as a digest: what another version of a part made is made again."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from haversack.base import digest


@cache
def own_code() -> str:
    """Return the digest of haversack's own source, all of it."""
    root = Path(__file__).parents[1]
    return digest.of_data({str(path.relative_to(root)): digest.of_file(path) for path in sorted(root.rglob("*.py"))})
