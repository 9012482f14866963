"""Reading a bundle that a stranger wrote: nothing is followed, run or unpacked, and every byte is the manifest's.

Names are flat and in the manifest, or the folder is refused; links, pipes and devices are never opened; sizes are
compared before a byte is read, digests before a byte is believed. docs/spec/bundle.md is the format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack.base import digest
from haversack.base.bundle import LARGEST_MANIFEST, LIMITS, MANIFEST, MOST_FILES, BundleFile, Manifest
from haversack.base.candidate import Artifact
from haversack.base.errors import Fault, Refused, UsageError
from haversack.base.provenance import Provenance
from haversack.tools.trust import canonical, content
from haversack.tools.trust import folder as folders

LARGEST_BUNDLE = 64 << 30
"""Bytes of all files together, unless the caller says otherwise."""
_MAKE = "haversack bundle OUT --out NAME-VERSION.haversack    makes one of a finished run"
_ENDS = 16


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are those that its manifest names, as they were read.

    Attributes:
        folder: where it lies.
        manifest: what it holds.
        sha256: of the manifest, hexadecimal: the bundle's identity.
        artifacts: target -> what a device must know of its files, paths below ``folder``.
        preprocess: operations as data (``tools/data/preprocess``), of a closed list; empty where inputs are not raw.
        labels: of the classes, in order; empty where there are none.
        provenance: where it comes from, or None.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    artifacts: Mapping[str, Artifact] = field(hash=False)
    preprocess: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    labels: tuple[str, ...] = ()
    provenance: Provenance | None = None

    def read(self, file: BundleFile) -> bytes:
        """Return a file's bytes, size and digest compared again.

        Raises:
            Refused: it is not the file that the manifest names.
            EnvironmentFault: it cannot be read.
        """
        with folders.opened(self.folder, _MAKE) as inside:
            data, faults = _read(inside, file)
        if faults:
            raise _refused(self.folder, faults)
        return data


def open_bundle(folder: Path, target: str = "", *, limit: int = LARGEST_BUNDLE) -> Bundle:
    """Read a bundle, or a device's slot, and return it if every file is as the manifest says.

    Args:
        folder: where it lies; it may be a link, what is in it may not.
        target: a runtime: then only its files and those of all must be there; else all of them. What is there must be
            named by the manifest either way.
        limit: bytes of all files together that are read at most.

    Raises:
        UsageError: there is no such folder, it is no bundle, or it has no variant for the runtime.
        Refused: something in it is not as it must be; all faults together.
        EnvironmentFault: it cannot be read.
    """
    with folders.opened(folder, _MAKE) as inside:
        sizes, faults = folders.listed(inside, MOST_FILES + 1)
        manifest, sha256 = _manifest(inside, sizes, folder, faults)
        if target and target not in {one.target for one in manifest.variants}:
            has = ", ".join(one.target for one in manifest.variants)
            raise UsageError(f"it has no variant for {canonical.shown(target)} (has: {has})", where=str(folder))
        there, wrong = _compared(manifest, sizes, target)
        faults += wrong
        if (total := sum(file.bytes for file in there)) > limit:
            raise Refused(f"its files have {total} bytes together, and {limit} are allowed", where=str(folder))
        held: dict[BundleFile, Any] = {}
        for file in there:
            held[file], wrong = _looked(inside, manifest, file)
            faults += wrong
    artifacts = {file.target: one for file, one in held.items() if file.role == "artifact" and one is not None}
    shared = {file.role: one for file, one in held.items() if not file.target and one is not None}
    preprocess = shared.get("preprocess", ())
    faults += content.agree(artifacts, preprocess, manifest)
    if faults:
        raise _refused(folder, faults)
    return Bundle(folder, manifest, sha256, artifacts, preprocess, shared.get("labels", ()), shared.get("provenance"))


def no_bundle(folder: Path) -> UsageError:
    """Return what to say of a folder without a manifest, such as that of a run."""
    return UsageError(f"it is no bundle: there is no {MANIFEST} in it", where=str(folder), next_step=_MAKE)


def _manifest(inside: int, sizes: Mapping[str, int], folder: Path, faults: list[Fault]) -> tuple[Manifest, str]:
    where = str(folder / MANIFEST)
    if MANIFEST not in sizes:
        if any(fault.where == MANIFEST for fault in faults):
            raise _refused(folder, faults)
        raise no_bundle(folder)
    try:
        data = folders.whole(inside, MANIFEST, LARGEST_MANIFEST)
    except ValueError as error:
        raise Refused(str(error), where=where) from error
    return canonical.loads(data, Manifest, where=where, limit=LARGEST_MANIFEST), digest.of_bytes(data)


def _compared(manifest: Manifest, sizes: Mapping[str, int], target: str) -> tuple[list[BundleFile], list[Fault]]:
    """Return the files that are there with their sizes, and what is missing, too much or of another size."""
    named = {file.name: file for file in manifest.files}
    faults = [
        Fault(canonical.shown(name), "the manifest does not name it") for name in sorted({*sizes} - {*named, MANIFEST})
    ]
    needed = {file.name for file in (manifest.of(target) if target else manifest.files)}
    faults += [Fault(name, "it is missing") for name in sorted(needed - {*sizes})]
    there = []
    for file in manifest.files:
        if file.name in sizes and sizes[file.name] != file.bytes:
            faults.append(Fault(file.name, f"it has {sizes[file.name]} bytes, the manifest says {file.bytes}"))
        elif file.name in sizes:
            there.append(file)
    return there, faults


def _looked(inside: int, manifest: Manifest, file: BundleFile) -> tuple[Any, list[Fault]]:
    """Return what a file holds, where that is read at all, and what is wrong with it."""
    if file.role not in LIMITS and not file.name.endswith(".onnx"):
        return None, _hashed(inside, file)
    if file.bytes > content.LARGEST_ONNX:
        return None, [Fault(file.name, f"it has {file.bytes} bytes, and {content.LARGEST_ONNX} are allowed")]
    data, faults = _read(inside, file)
    return (None, faults) if faults else content.whole(file, data, manifest)


def _read(inside: int, file: BundleFile) -> tuple[bytes, list[Fault]]:
    try:
        data = folders.whole(inside, file.name, file.bytes)
    except ValueError as error:
        return b"", [Fault(file.name, str(error))]
    return (data, []) if digest.of_bytes(data) == file.sha256 else (b"", [_other(file)])


def _hashed(inside: int, file: BundleFile) -> list[Fault]:
    try:
        with folders.plain(inside, file.name) as (descriptor, size):
            if folders.digest_of(descriptor, size) != file.sha256:
                return [_other(file)]
            head, tail = os.pread(descriptor, _ENDS, 0), os.pread(descriptor, _ENDS, max(0, size - _ENDS))
    except ValueError as error:
        return [Fault(file.name, str(error))]
    return content.ends(file, head, tail)


def _other(file: BundleFile) -> Fault:
    return Fault(file.name, content.OTHER)


def _refused(folder: Path, faults: Sequence[Fault]) -> Refused:
    return Refused(
        "it is not the bundle that its manifest says",
        where=str(folder),
        faults=tuple(faults[: canonical.MOST_FAULTS]),
        next_step="fetch it again from where it was published; do not use what is in it",
    )
