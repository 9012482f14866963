"""Two bundles compared: which files travel to a device that has the old one, and which layers changed by how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from haversack.base.bundle import BundleFile, Manifest, Variant
from haversack.base.counted import counted
from haversack.base.encodings import Affine, BlockAffine, Codebook, Encoding, Encodings
from haversack.base.errors import Refused, UsageError
from haversack.base.keys import split_tensor
from haversack.bundle import sizes
from haversack.tools.formats import encodings_file
from haversack.tools.numerics import affine, blocks, palette
from haversack.tools.trust.bundle import Bundle
from haversack.tools.trust.canonical import shown

How = Literal["same", "changed", "new", "gone"]


@dataclass(frozen=True)
class FileChange:
    """A file of either bundle.

    Attributes:
        name, role, target: as in the manifest.
        how: against the old bundle.
        bytes: in the new one; 0 if it is gone.
        travels: bytes in the download form, without a delta; 0 if nothing is fetched.
    """

    name: str
    role: str
    target: str
    how: How
    bytes: int
    travels: int


@dataclass(frozen=True)
class LayerChange:
    """A layer that is not as it was.

    Attributes:
        layer: its node key.
        how: against the old bundle.
        integers: of its weight, in the new bundle.
        changed: how many of them differ.
        step: the largest difference of one.
        weight: |new - old| / |old| of the weight's values, Euclidean; None where it is not of integers in both, or of
            another shape.
        scale: the largest relative change of a scale: of the weight, or of what the layer leaves.
        text: what else is another: encoding, bits, zero-points.
    """

    layer: str
    how: How
    integers: int = 0
    changed: int = 0
    step: int = 0
    weight: float | None = None
    scale: float = 0.0
    text: str = ""

    def told(self) -> str:
        """Return it as a line."""
        if self.how != "changed":
            return f"{shown(self.layer)}: {self.how}"
        words = []
        if self.weight is not None:
            words.append(f"weight moved by {self.weight:.2%}")
        if self.changed:
            words.append(f"{self.changed:,} of {self.integers:,} integers, by up to {self.step}")
        if self.scale:
            words.append(f"a scale by {self.scale:.2%}")
        return f"{shown(self.layer)}: {'; '.join([*words, *([self.text] if self.text else [])])}"


@dataclass(frozen=True)
class Difference:
    """What an update from one bundle to another brings.

    Attributes:
        old, new: name, version and identity (sha256 of the manifest) of both.
        files: of both, by name.
        layers: target -> the layers that changed, most changed first; an empty target where all runtimes have the same
            numbers. A target without encodings in both is left out.
        unchanged: target -> how many layers did not.
        demands: target -> what the old and the new variant ask of a device (lowest version of the runtime, processor
            features), in words; only where they differ.
    """

    old: tuple[str, str, str]
    new: tuple[str, str, str]
    files: tuple[FileChange, ...]
    layers: Mapping[str, tuple[LayerChange, ...]] = field(hash=False)
    unchanged: Mapping[str, int] = field(hash=False)
    demands: Mapping[str, tuple[str, str]] = field(default_factory=dict, hash=False)

    @property
    def same(self) -> bool:
        """Whether both are one bundle."""
        return self.old[2] == self.new[2]

    @property
    def targets(self) -> tuple[str, ...]:
        """Runtimes of the new bundle."""
        return tuple(sorted({file.target for file in self.files if file.role == "model" and file.how != "gone"}))

    def travels(self, target: str) -> int:
        """Return the bytes that a device with this runtime fetches, without deltas and the manifest."""
        return sum(file.travels for file in self.files if file.target in ("", target))

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        ends = {
            side: dict(zip(("name", "version", "sha256"), told, strict=True))
            for side, told in (("old", self.old), ("new", self.new))
        }
        return {
            **ends,
            "same": self.same,
            "files": [vars(file) for file in self.files],
            "download_bytes": {target: self.travels(target) for target in self.targets},
            "layers": {target: [vars(one) for one in layers] for target, layers in self.layers.items()},
            "unchanged_layers": dict(self.unchanged),
            "demands": {target: {"old": old, "new": new} for target, (old, new) in self.demands.items()},
        }

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        lines = [" -> ".join(f"{name} {version} ({sha256[:16]}…)" for name, version, sha256 in (self.old, self.new))]
        if self.same:
            return [*lines, "they are the same, byte for byte"]
        for file in self.files:
            if file.how != "same":
                lines.append(
                    f"    {file.how:<8} {file.name}{f', {file.travels:,} bytes to fetch' * bool(file.travels)}"
                )
        for target in self.targets:
            lines.append(f"{target}: {self.travels(target):,} bytes to fetch without deltas")
        for target, (old, new) in self.demands.items():
            lines.append(f"{target}: needs {new}, where the old one needs {old}")
        for target, layers in self.layers.items():
            lines.append(
                f"{target or 'all runtimes'}: {counted(len(layers), 'layer')} changed, {self.unchanged[target]} did not"
            )
            lines += [f"    {one.told()}" for one in layers]
        if not self.layers:
            lines.append("no layers to compare: not both have encodings for the same runtime")
        return lines


def compare(old: Bundle, new: Bundle) -> Difference:
    """Return what changed between two bundles.

    Raises:
        Refused: a file of encodings is none.
        MissingExtra: the package zstandard is not installed.
    """
    layers, unchanged = {}, {}
    for target, before, after in _encodings(old, new):
        found = [_layer(key, before, after) for key in _layers(before, after)]
        told = [one for one in found if one.how != "same"]
        layers[target] = tuple(sorted(told, key=lambda one: (-(one.weight or 0), -one.scale, one.layer)))
        unchanged[target] = len(found) - len(told)
    files = tuple(_files(old, new))
    return Difference(_identity(old), _identity(new), files, layers, unchanged, _demands(old.manifest, new.manifest))


def _identity(bundle: Bundle) -> tuple[str, str, str]:
    return bundle.manifest.name, bundle.manifest.version, bundle.sha256


def _demands(old: Manifest, new: Manifest) -> dict[str, tuple[str, str]]:
    """Return target -> what both ask of a device, where that is not the same: an update may leave devices behind."""
    before, after = ({one.target: _asked(one) for one in manifest.variants} for manifest in (old, new))
    return {target: (before[target], words) for target, words in after.items() if before.get(target, words) != words}


def _asked(variant: Variant) -> str:
    """Return what a variant asks of a device, in words."""
    version = f"{variant.target} {variant.runtime_version or 'of any version'}"
    return " with ".join([version, *([", ".join(variant.cpu_features)] if variant.cpu_features else [])])


def _files(old: Bundle, new: Bundle) -> Iterator[FileChange]:
    before = {file.name: file for file in old.manifest.files}
    after = {file.name: file for file in new.manifest.files}
    known = {file.sha256 for file in old.manifest.files}
    for name in sorted({*before, *after}):
        file = after.get(name)
        if file is None:
            gone = before[name]
            yield FileChange(name, gone.role, gone.target, "gone", 0, 0)
            continue
        there = name in before
        how: How = "new" if not there else "same" if before[name].sha256 == file.sha256 else "changed"
        travels = 0 if file.sha256 in known else sizes.travelling(new, file)
        yield FileChange(name, file.role, file.target, how, file.bytes, travels)


def _encodings(old: Bundle, new: Bundle) -> Iterator[tuple[str, Encodings, Encodings]]:
    """Yield target, old and new encodings; both once where they are every runtime's in both bundles."""
    targets = [one.target for one in new.manifest.variants if one.target in {v.target for v in old.manifest.variants}]
    pairs = {target: (_file(old.manifest, target), _file(new.manifest, target)) for target in targets}
    alike = len({*pairs.values()}) == 1 and len(pairs) > 1
    for target, (before, after) in list(pairs.items())[: 1 if alike else None]:
        if before is not None and after is not None:
            yield "" if alike else target, _read(old, before), _read(new, after)


def _file(manifest: Manifest, target: str) -> BundleFile | None:
    return next((one for one in manifest.files if one.role == "encodings" and one.target in ("", target)), None)


def _read(bundle: Bundle, file: BundleFile) -> Encodings:
    try:
        return encodings_file.from_bytes(bundle.read(file), where=file.name)
    except UsageError as error:
        raise Refused(error.cause, where=str(bundle.folder / file.name), faults=error.faults) from error


def _layers(before: Encodings, after: Encodings) -> list[str]:
    return sorted({split_tensor(key)[0] for key in (*before.tensors, *after.tensors)})


def _layer(key: str, before: Encodings, after: Encodings) -> LayerChange:
    """Return one layer's weight, and what goes in and comes out of it."""
    mine = {port: after.tensors.get(f"{key}:{port}") for port in ("weight", "out", "in")}
    theirs = {port: before.tensors.get(f"{key}:{port}") for port in ("weight", "out", "in")}
    if not any(theirs.values()) or not any(mine.values()):
        return LayerChange(key, "gone" if any(theirs.values()) else "new")
    words = [f"{port}: {text}" for port in mine if (text := _form(theirs[port], mine[port]))]
    scale = max(_scales(theirs[port], mine[port]) for port in mine)
    name = f"{key}:weight"
    codes, others = after.integers.get(name), before.integers.get(name)
    moved = LayerChange(key, "same")
    if codes is not None and others is not None and codes.shape == others.shape:
        steps = np.abs(codes.astype(np.int64) - others)
        weight = _moved(_values(others, theirs["weight"]), _values(codes, mine["weight"]))
        moved = LayerChange(key, "same", codes.size, int(np.count_nonzero(steps)), int(steps.max(initial=0)), weight)
    elif codes is not None or others is not None:
        words.append("weight: of another shape, or not of integers in both")
    changed = bool(words or scale or moved.changed or moved.weight)
    how: How = "changed" if changed else "same"
    return LayerChange(key, how, moved.integers, moved.changed, moved.step, moved.weight, scale, "; ".join(words))


def _form(before: Encoding | None, after: Encoding | None) -> str:
    """Say what is another but for scales, integers and the entries of palettes."""
    if type(before) is not type(after):
        return f"{_name(after)} instead of {_name(before)}"
    for name in ("bits", "signed", "axis", "block", "group", "dtype"):
        if getattr(before, name, None) != getattr(after, name, None):
            return f"{name} {getattr(after, name)} instead of {getattr(before, name)}"
    if isinstance(before, Affine) and isinstance(after, Affine):
        return "" if np.array_equal(before.zero_point, after.zero_point) else "another zero-point"
    return ""


def _name(encoding: Encoding | None) -> str:
    return "none" if encoding is None else type(encoding).__name__


def _scales(before: Encoding | None, after: Encoding | None) -> float:
    """Return the largest relative change of a scale that both have; 0 where they have none or not the same shape."""
    mine, theirs = getattr(after, "scale", None), getattr(before, "scale", None)
    if mine is None or theirs is None or mine.shape != theirs.shape or not theirs.size:
        return 0.0
    ratio = mine.astype(np.float64) / np.where(theirs == 0, 1, theirs)
    return float(np.abs(ratio - 1).max())


def _values(codes: np.ndarray, encoding: Encoding | None) -> np.ndarray | None:
    if isinstance(encoding, Affine):
        return affine.dequantize(codes, encoding)
    if isinstance(encoding, BlockAffine) and encoding.symmetric:
        return blocks.values(codes, encoding)
    return palette.values(codes, encoding) if isinstance(encoding, Codebook) else None


def _moved(before: np.ndarray | None, after: np.ndarray | None) -> float | None:
    if before is None or after is None:
        return None
    size = float(np.linalg.norm(before.astype(np.float64)))
    moved = float(np.linalg.norm(after.astype(np.float64) - before))
    return moved / size if size else moved
