"""A bundle: a folder with a closed set of flat-named files, and the manifest that names them (docs/spec/bundle.md)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 1 << 22
"""Bytes of a manifest that is read at all."""
MOST_FILES = 1000
Role = Literal["model", "data", "artifact", "golden", "encodings", "preprocess", "labels", "licence", "provenance"]
SUFFIXES = frozenset("onnx data tflite pte gguf safetensors npz json txt".split())
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(\.[a-z0-9_-]{1,62}){1,3}")
"""A file's name: no folder, no upper case, no leading dot, an ending of ``SUFFIXES``."""
MODELS = frozenset("onnx tflite pte gguf".split())
"""Endings of models; what a runtime needs beside one ends in ``data``."""
_ENDINGS: Mapping[Role, frozenset[str]] = {
    "model": MODELS,
    "data": frozenset({"data"}),
    "artifact": frozenset({"json"}),
    "golden": frozenset({"npz"}),
    "encodings": frozenset({"safetensors"}),
    "preprocess": frozenset({"json"}),
    "labels": frozenset({"txt"}),
    "licence": frozenset({"txt"}),
    "provenance": frozenset({"json"}),
}
LARGEST = 1 << 40
"""Bytes of a file; of some roles less (``LIMITS``), because they are read into memory."""
LIMITS: Mapping[Role, int] = {
    "artifact": 1 << 20,
    "golden": 1 << 28,
    "preprocess": 1 << 20,
    "labels": 1 << 22,
    "licence": 1 << 20,
    "provenance": 1 << 24,
}
OWN = frozenset({"model", "data", "artifact", "golden"})
"""Roles of a variant's own files; ``encodings`` may be a variant's or everybody's, the others are everybody's."""
_MANY = frozenset({"data", "licence"})
"""Roles that a variant may have several files of."""
TARGET = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""The name of a runtime."""
OPERATIONS = frozenset("blur brightness center_crop log_mel normalize pad resize scale to_chw".split())
"""Preprocessing that a device can do: a closed list, exact in docs/spec/bundle.md; none draws random numbers."""
FIGURES = frozenset("value drop ratio median_ms peak_bytes".split())
"""What ``Variant.quality`` may state."""
_LONGEST = 200
LINE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""The name of a model line."""
VERSION = re.compile(
    r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-[0-9a-z]{1,20}(\.[0-9a-z]{1,20}){0,4})?"
)
"""Major, minor, patch, and a mark of a pre-release."""
FOLDER = re.compile(rf"(?P<name>{LINE.pattern})-(?P<version>{VERSION.pattern})\.haversack")
"""How the folder of a bundle is called; nothing depends on it."""
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BundleFile:
    """One file of a bundle.

    Attributes:
        name: as ``NAME``.
        role: what it is for.
        bytes: its size.
        sha256: of its content, hexadecimal.
        target: the runtime it is of; empty where every variant needs it.
    """

    name: str
    role: Role
    bytes: int
    sha256: str
    target: str = ""

    def __post_init__(self) -> None:
        """Refuse what names no plain file.

        Raises:
            ValueError: the name, the size or the digest is none, or not of a file of this role.
        """
        ending = self.name.rpartition(".")[2]
        if not NAME.fullmatch(self.name) or ending not in SUFFIXES or self.name == MANIFEST:
            raise ValueError(f"{self.name[:80]!r} is no name of a file in a bundle")
        if self.bytes < 0 or not SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.name}: no size and sha256")
        if ending not in _ENDINGS[self.role]:
            raise ValueError(f"{self.name}: no file of the role {self.role} ends so")
        if self.bytes > (most := LIMITS.get(self.role, LARGEST)):
            raise ValueError(f"{self.name}: more than {most} bytes, which are allowed of the role {self.role}")
        if bool(self.target) != (self.role in OWN) and self.role != "encodings":
            raise ValueError(
                f"{self.name}: a file of the role {self.role} is of {'one' if not self.target else 'no'} target"
            )


@dataclass(frozen=True)
class Variant:
    """The model for one runtime.

    Attributes:
        target: the runtime.
        runtime_version: the lowest that opens it.
        cpu_features: of the processor that it was measured on, which decided its session options.
        exact: whether golden outputs must be met bit for bit on any processor; else within ``tolerance``.
        tolerance: |y - golden| / |golden|, Euclidean, that is allowed otherwise.
        quality: what was measured: ``value``, ``drop``, ``ratio`` (of its latency to float), ``median_ms``,
            ``peak_bytes``; what was not measured is absent.
    """

    target: str
    runtime_version: str = ""
    cpu_features: tuple[str, ...] = ()
    exact: bool = False
    tolerance: float = 0.0
    quality: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse what describes no variant.

        Raises:
            ValueError: no name of a runtime, words that nobody can print, a tolerance or figures that are none.
        """
        if not TARGET.fullmatch(self.target):
            raise ValueError(f"{self.target[:80]!r} is no name of a runtime")
        if not all(map(_plain, (self.runtime_version, *self.cpu_features))):
            raise ValueError(f"{self.target}: a version or feature is no word")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"{self.target}: a tolerance is finite and at least 0")
        if strange := sorted({*self.quality} - FIGURES):
            raise ValueError(f"{self.target}: {strange[0][:80]!r} is no figure (has: {', '.join(sorted(FIGURES))})")
        if not all(map(math.isfinite, self.quality.values())):
            raise ValueError(f"{self.target}: a figure is not finite")


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says; its canonical form (tools/trust/canonical.py) is the file, byte for byte.

    Attributes:
        format: 1.
        name: of the model line, as ``LINE``.
        version: as ``VERSION``.
        files: all but the manifest, ordered by name.
        variants: ordered by target.
        metric: name of the metric that ``Variant.quality`` states the value of, and its unit.
    """

    format: int
    name: str
    version: str
    files: tuple[BundleFile, ...]
    variants: tuple[Variant, ...]
    metric: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        """Refuse a set that is not closed.

        Raises:
            ValueError: names are out of order or not unique, too many, or a variant lacks its model or artifact, or
                has two files of a role that is one file.
        """
        names = [file.name for file in self.files]
        if not LINE.fullmatch(self.name) or not VERSION.fullmatch(self.version):
            raise ValueError(f"{self.name[:80]!r} {self.version[:80]!r} is no name and version of a release")
        if names != sorted(set(names)) or len(names) > MOST_FILES:
            raise ValueError("its files are not ordered by name, each once")
        targets = [variant.target for variant in self.variants]
        if not targets or targets != sorted(set(targets)):
            raise ValueError("its variants are not ordered by target, each once")
        for target in targets:
            roles = Counter(file.role for file in self.files if file.target in ("", target))
            if roles["model"] != 1 or roles["artifact"] != 1:
                raise ValueError(f"the variant {target} has not one model and one artifact")
            if twice := sorted(role for role, count in roles.items() if count > 1 and role not in _MANY):
                raise ValueError(f"the variant {target} has {roles[twice[0]]} files of the role {twice[0]}")
        stray = sorted({file.target for file in self.files if file.target} - {*targets})
        if stray:
            raise ValueError(f"files of {stray[0][:80]!r}, which is no variant")
        if not all(map(_plain, self.metric)):
            raise ValueError("the metric's name or unit is no word")

    def of(self, target: str) -> tuple[BundleFile, ...]:
        """Return the files that a device with this runtime needs: its own and those for all, encodings left out."""
        return tuple(file for file in self.files if file.target in ("", target) and file.role != "encodings")

    def file(self, target: str, role: Role) -> BundleFile | None:
        """Return a variant's file of a role, or that of all variants; None where there is none."""
        return next((file for file in self.of(target) if file.role == role), None)


def _plain(text: str) -> bool:
    """Say whether a terminal prints it as it stands."""
    return text.isprintable() and len(text) <= _LONGEST
