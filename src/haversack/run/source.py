"""A variant as it lies in a bundle's folder or a device's slot, and which one suits this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from haversack.base import digest
from haversack.base.bundle import LARGEST_MANIFEST, MANIFEST, Manifest, Variant
from haversack.base.candidate import Artifact
from haversack.base.errors import EnvironmentFault, Fault, Refused, UsageError
from haversack.targets.contract import SHELF, Target
from haversack.tools.trust import canonical, content
from haversack.tools.trust import folder as folders
from haversack.tools.trust.bundle import Bundle, open_bundle


@dataclass(frozen=True)
class Source:
    """A variant as it lies in a folder whose files are known to be those of its manifest.

    Attributes:
        bundle: as it was read; its folder may be a device's slot, which has the files of one runtime.
        artifact: of the variant, paths below the folder.
        proven: whether it was tried in a child before it was put there, as every release in a slot was.
    """

    bundle: Bundle
    artifact: Artifact
    proven: bool = False

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.bundle.folder

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""
        return self.bundle.manifest

    @property
    def target(self) -> str:
        """The runtime."""
        return self.artifact.target

    @property
    def variant(self) -> Variant:
        """What the manifest says of it."""
        return next(one for one in self.manifest.variants if one.target == self.target)

    @property
    def path(self) -> Path:
        """The main file."""
        return self.folder / self.artifact.files[0].path

    @property
    def digest(self) -> str:
        """Content digest of the model's files."""
        return digest.of_data([file.sha256 for file in self.artifact.files])

    @property
    def rows(self) -> int:
        """How many rows one call takes; 0 for any number, or where its inputs differ in it."""
        first = [port.spec.shape[0] for port in self.artifact.inputs if port.spec.shape]
        fixed = {size for size in first if isinstance(size, int)}
        return fixed.pop() if len(fixed) == 1 else 0


def found(folder: Path, target: str = "", *, verified: bool = False) -> Source:
    """Return the variant of a bundle that suits this machine.

    Args:
        folder: the bundle, or a slot.
        target: the runtime; empty for the quickest that is installed here. A slot has the files of one only.
        verified: whether its bytes were compared with its manifest since they were written; else they are now.

    Raises:
        UsageError: it is no bundle, or has no such variant.
        Refused: a file is not what the manifest says, or asks for what no file may ask for.
        EnvironmentFault: no runtime of it is installed here, or it cannot be read.
    """
    bundle = trusted(folder, target) if verified else open_bundle(folder, target)
    name = choose(bundle.manifest, sorted(bundle.artifacts), target)
    artifact = bundle.artifacts[name]
    kind = kind_of(name)
    if kind is not None and (strange := {*artifact.session_options} - kind.session_settings):
        faults = tuple(Fault(f"session_options.{option}", f"{name} never sets it") for option in sorted(strange))
        raise Refused("it asks for session options that no run gives", where=str(folder), faults=faults)
    return Source(bundle, artifact, proven=verified)


def trusted(folder: Path, target: str) -> Bundle:
    """Return what a folder holds for a runtime, whose files were compared with its manifest when they were written.

    Only the small ones that tell how the model is used are read, and compared again: no model is read twice because it
    is opened.

    Raises:
        UsageError: there is no such folder.
        Refused: one of them is not as it must be.
        EnvironmentFault: it cannot be read.
    """
    again = f"haversack client update {folder.parent.name}    (fetches it again)"
    try:
        with folders.opened(folder, again) as inside:
            data = folders.whole(inside, MANIFEST, LARGEST_MANIFEST)
            where = str(folder / MANIFEST)
            manifest = canonical.loads(data, Manifest, where=where, limit=LARGEST_MANIFEST, compared=True)
            small = [file for file in manifest.of(target) if file.role in content.SMALL]
            looked = [content.again(file, folders.whole(inside, file.name, file.bytes)) for file in small]
    except ValueError as error:
        raise Refused(str(error), where=str(folder), next_step=again) from error
    if faults := tuple(fault for _, wrong in looked for fault in wrong):
        raise Refused("it is not what was installed", where=str(folder), faults=faults, next_step=again)
    held = {file.role: one for file, (one, _) in zip(small, looked, strict=True)}
    artifacts = {target: held["artifact"]} if "artifact" in held else {}
    return Bundle(
        folder, manifest, digest.of_bytes(data), artifacts, held.get("preprocess", ()), held.get("labels", ())
    )


def choose(manifest: Manifest, present: Sequence[str], wanted: str = "") -> str:
    """Return the runtime to open a bundle in: the one that is wanted, else the quickest of those installed here.

    Quickest by what the workshop measured; what was not measured comes last.

    Args:
        manifest: of the bundle.
        present: targets whose files are there.
        wanted: a target, or empty.

    Raises:
        UsageError: the bundle has no such variant.
        EnvironmentFault: no runtime of it is installed.
    """
    if wanted:
        if wanted not in present:
            step = f"say one of {', '.join(present) or 'none'}"
            raise UsageError(f"the bundle has no variant for {wanted} here", where=manifest.name, next_step=step)
        return wanted
    unmeasured = float("inf")
    speed = {one.target: one.quality.get("median_ms", unmeasured) for one in manifest.variants}
    order = sorted(present, key=lambda target: (speed[target], target))
    missing = {target: lacks(target) for target in order}
    for target in order:
        if not missing[target]:
            return target
    faults = tuple(Fault(target, why) for target, why in missing.items())
    step = "; or ".join(f"pip install {package(target)}" for target in order if kind_of(target) is not None)
    raise EnvironmentFault(
        "no runtime of this bundle is installed here", where=manifest.name, faults=faults, next_step=step
    )


@cache
def kind_of(target: str) -> type[Target] | None:
    """Return a target's class; None where it is none of ours: what a device accepts is a closed list."""
    found: type[Target] | None = SHELF.type_of(target) if target in SHELF.files() else None
    return found


def package(target: str) -> str:
    """Return the distribution that brings a target's runtime."""
    kind = kind_of(target)
    return target if kind is None or target in kind.packages else kind.packages[0]


def lacks(target: str) -> str:
    """Say what is missing to open files of a target here, or nothing."""
    kind = kind_of(target)
    if kind is None:
        return "this version knows no such runtime"
    if not kind.runs_here:
        return "its files do not run from Python here"
    needed = [getattr(kind, "runtime", target).partition(".")[0]]
    needed += [target] if target == "executorch" else []
    gone = [name for name in needed if find_spec(name) is None]
    why = "; its Python session takes and gives torch tensors" if "torch" in gone else ""
    return f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} not installed{why}" if gone else ""
