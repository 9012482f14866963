"""Targets of a third party: one whose runtime is not installed, and one whose files run elsewhere only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from haversack.targets.onnxruntime import OnnxRuntime


@dataclass(frozen=True)
class Homeless(OnnxRuntime):
    """Needs a package that nobody has."""

    packages: ClassVar[tuple[str, ...]] = ("onnx", "haversack-no-such-runtime", "haversack-nor-this")
    platforms: ClassVar[Mapping[str, str]] = {"ios": "nobody brings it"}


@dataclass(frozen=True)
class Exporting(OnnxRuntime):
    """Writes files for another machine."""

    runs_here: ClassVar[bool] = False
    platforms: ClassVar[Mapping[str, str]] = {"android": "the phone has it"}
