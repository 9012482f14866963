"""Lowering: a target's files from a model with its encodings, and the promise that they open."""

from __future__ import annotations

from pathlib import Path

from haversack.base.candidate import Artifact
from haversack.base.encodings import Encodings
from haversack.base.model import Model
from haversack.lower.chatter import hushed
from haversack.targets.contract import SHELF, Target


def emit(model: Model, encodings: Encodings, target: str | Target, folder: Path) -> Artifact:
    """Write a model for a target, open what was written, and read it back.

    Args:
        model: the canonical model, prepared.
        encodings: of its tensors; ``Encodings.none()`` for the float file.
        target: name on the shelf of targets, or the target itself.
        folder: where the files go; made if it is missing.

    Returns:
        The artifact; paths are relative to ``folder``.

    Raises:
        UsageError: no such target.
        ConversionError: a layer or an encoding has no form there, or the runtime refuses the file (names the layer).
        VerificationError: the file does not hold what was injected.
        EnvironmentFault: the folder cannot be written.
    """
    part: Target = SHELF.build(target) if isinstance(target, str) else target
    with hushed():
        return part.lower(model, encodings, folder)
