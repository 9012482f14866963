"""A recipe that is replayed on another model than the one it was made for: a finding, and packing goes on."""

from __future__ import annotations

from pathlib import Path

from haversack.base import recipe
from haversack.base.finding import Finding
from haversack.flow.request import Request

KIND = "another-model"
_SHOWN = 12


def foreign(request: Request, digest: str, target: str = "") -> Finding | None:
    """Return the finding ``another-model`` if the recipe that is replayed names the digest of another model.

    Args:
        request: what the user typed; without a recipe, or with a plan of its own, nothing is found.
        digest: of the model that is packed.
        target: whose plan is replayed, where the recipe was made for several architectures.

    Raises:
        UsageError: the recipe cannot be read.
    """
    if not request.source.endswith(".toml") or request.plan is not None:
        return None
    found = recipe.read(Path(request.source))
    made_for = found.architectures[target].model_digest if target in found.architectures else found.model_digest
    if made_for in ("", digest):
        return None
    return Finding(
        KIND,
        f"the recipe was made for another model (digest {made_for[:_SHOWN]}, this one has {digest[:_SHOWN]}): "
        "the layers it plans for have the same names here; retrained?",
    )
