"""A bundle: a folder with a closed set of flat-named files, and the manifest that names them (docs/spec/bundle.md)."""

from __future__ import annotations

import re
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
LINE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""The name of a model line."""
VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-[0-9a-z]+(\.[0-9a-z]+){0,4})?")
"""Major, minor, patch, and a mark of a pre-release."""
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
            ValueError: the name, the size or the digest is none.
        """
        if not NAME.fullmatch(self.name) or self.name.rpartition(".")[2] not in SUFFIXES or self.name == MANIFEST:
            raise ValueError(f"{self.name[:80]!r} is no name of a file in a bundle")
        if self.bytes < 0 or not SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.name}: no size and sha256")


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
            ValueError: names are out of order or not unique, too many, or a variant lacks its model or artifact.
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
            roles = [file.role for file in self.files if file.target == target]
            if roles.count("model") != 1 or roles.count("artifact") != 1:
                raise ValueError(f"the variant {target} has not one model and one artifact")
        stray = sorted({file.target for file in self.files if file.target} - {*targets})
        if stray:
            raise ValueError(f"files of {', '.join(stray)}, which is no variant")

    def of(self, target: str) -> tuple[BundleFile, ...]:
        """Return the files that a device with this runtime needs: its own and those for all, encodings left out."""
        return tuple(file for file in self.files if file.target in ("", target) and file.role != "encodings")

    def file(self, target: str, role: Role) -> BundleFile | None:
        """Return a variant's file of a role, or that of all variants; None where there is none."""
        return next((file for file in self.of(target) if file.role == role), None)
