"""What is in a bundle, as a person and a program want to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from haversack.base.bundle import BundleFile, Variant
from haversack.base.counted import counted
from haversack.bundle import sizes
from haversack.tools.trust import canonical
from haversack.tools.trust.bundle import Bundle


@dataclass(frozen=True)
class Contents:
    """A bundle, looked at.

    Attributes:
        bundle: verified against its manifest.
        travels: file name -> bytes in the download form, 0 for what devices do not fetch.
        golden: target -> how many golden vectors it has.
        licences: file name -> its first line.
    """

    bundle: Bundle
    travels: Mapping[str, int] = field(hash=False)
    golden: Mapping[str, int] = field(hash=False)
    licences: Mapping[str, str] = field(default_factory=dict, hash=False)

    def fetched(self, target: str) -> int:
        """Return the bytes that a device with this runtime fetches, the manifest left out."""
        return sum(self.travels[file.name] for file in self.bundle.manifest.of(target))

    def roles(self, target: str) -> dict[str, int]:
        """Return role -> bytes of ``fetched``, the largest first."""
        found: dict[str, int] = {}
        for file in self.bundle.manifest.of(target):
            found[file.role] = found.get(file.role, 0) + self.travels[file.name]
        return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        manifest = self.bundle.manifest
        return {
            "folder": str(self.bundle.folder),
            "name": manifest.name,
            "version": manifest.version,
            "sha256": self.bundle.sha256,
            "metric": {"name": manifest.metric[0], "unit": manifest.metric[1]},
            "files": [{**vars(file), "download_bytes": self.travels[file.name]} for file in manifest.files],
            "targets": {one.target: self._target(one) for one in manifest.variants},
            "preprocess": [dict(step) for step in self.bundle.preprocess],
            "labels": list(self.bundle.labels),
            "licences": dict(self.licences),
        }

    def _target(self, one: Variant) -> dict[str, Any]:
        return {
            "runtime_version": one.runtime_version,
            "cpu_features": list(one.cpu_features),
            "exact": one.exact,
            "tolerance": one.tolerance,
            "quality": dict(one.quality),
            "golden_vectors": self.golden.get(one.target, 0),
            "bytes": sum(file.bytes for file in self.bundle.manifest.of(one.target)),
            "download_bytes": self.fetched(one.target),
            "download_roles": self.roles(one.target),
        }

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        manifest = self.bundle.manifest
        lines = [f"{manifest.name} {manifest.version}    {self.bundle.sha256}"]
        width = max(len(file.name) for file in manifest.files)
        lines += [self._file(file, width) for file in manifest.files]
        for one in manifest.variants:
            lines.append(f"{one.target} {one.runtime_version or '(any version)'}: {self._proof(one)}")
            roles = ", ".join(f"{role} {count:,}" for role, count in self.roles(one.target).items())
            lines.append(f"    {self.fetched(one.target):,} bytes to fetch ({roles})")
            lines.append(f"    {_quality(one, manifest.metric)}")
        if self.bundle.preprocess:
            steps = ", then ".join(str(step["op"]) for step in self.bundle.preprocess)
            lines.append(f"inputs are raw: {steps}")
        if self.bundle.labels:
            first = ", ".join(canonical.shown(label) for label in self.bundle.labels[:3])
            lines.append(f"{counted(len(self.bundle.labels), 'label')}: {first}{', …' * (len(self.bundle.labels) > 3)}")
        lines += [f"{name}: {canonical.shown(line)}" for name, line in self.licences.items()]
        if not self.licences:
            lines.append("no licence: delete this folder and repeat haversack bundle with --licence FILE")
        return lines

    def _file(self, file: BundleFile, width: int) -> str:
        travels = self.travels[file.name]
        told = f"{travels:>12,} to fetch" if travels else f"{'for tools':>21}"
        return f"    {file.name:<{width}} {file.bytes:>12,} bytes {told}  {file.role}"

    def _proof(self, one: Variant) -> str:
        count = self.golden.get(one.target, 0)
        how = "bit for bit on any processor" if one.exact else f"within {one.tolerance:g}"
        return f"{counted(count, 'golden vector')}, {how}" if count else "no golden vectors"


def of(bundle: Bundle, golden: Mapping[str, int]) -> Contents:
    """Return what is in a bundle.

    Args:
        bundle: verified.
        golden: target -> how many golden vectors it has.

    Raises:
        Refused: a file changed meanwhile.
        MissingExtra: the package zstandard is not installed.
    """
    travels = {file.name: sizes.travelling(bundle, file) for file in bundle.manifest.files}
    licences = [file for file in bundle.manifest.files if file.role == "licence"]
    first = {file.name: bundle.read(file).decode().strip().partition("\n")[0].strip() for file in licences}
    return Contents(bundle, travels, golden, first)


def _quality(one: Variant, metric: tuple[str, str]) -> str:
    name, unit = metric
    words = {
        "value": f"{name} {{:.4g}}{f' {unit}' if unit and unit != 'fraction' else ''}",
        "drop": "a drop of {:.4g}",
        "ratio": "x{:.2f} of float's time",
        "median_ms": "{:.3g} ms",
        "peak_bytes": "{:,.0f} bytes of memory",
    }
    told = [text.format(one.quality[figure]) for figure, text in words.items() if figure in one.quality]
    return ", ".join(told) or "quality not measured"
