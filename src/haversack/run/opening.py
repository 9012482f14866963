"""From a folder to a model that can be called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path

from haversack.base.bundle import BundleFile, Manifest, Variant
from haversack.base.candidate import Artifact, ArtifactFile
from haversack.base.errors import JobError, Refused
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.base.progress import Sink, silent
from haversack.run import tuning
from haversack.run.loaded import Loaded, Serving
from haversack.run.model import Model
from haversack.run.session import Setting
from haversack.run.source import Source, found, kind_of
from haversack.targets.contract import SHELF
from haversack.tools.data.preprocess import pipeline
from haversack.tools.trust import canonical


def open_model(
    folder: str | Path,
    *,
    target: str = "",
    threads: int = 0,
    home: Path | None = None,
    serving: Serving | None = None,
    sink: Sink = silent,
) -> Model:
    """Return a bundle's model, every byte compared with its manifest before.

    Args:
        folder: of the bundle.
        target: the runtime; empty for the quickest that is installed here.
        threads: of one call; 0 for what was measured on this device and is remembered in ``home``, else one.
        home: of the device.
        serving: sessions, caches and guard.
        sink: told what the guard finds.

    Raises:
        UsageError: it is no bundle, or has no such variant.
        Refused: a file is not what the manifest says.
        EnvironmentFault: its runtime is not installed.
        ConversionError: the runtime does not open it.
    """
    source = found(Path(folder), target)
    return Model(load(source, serving, setting_of(source, threads, home), sink=sink))


def load(
    source: Source,
    serving: Serving | None = None,
    setting: Setting | None = None,
    *,
    previous: Callable[[], Loaded] | None = None,
    sink: Sink = silent,
    first: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Loaded:
    """Return a variant in memory: what a model begins with, or is exchanged for.

    All of it is read now: the folder may hold another release afterwards.

    Args:
        source: the variant.
        serving: sessions, caches and guard.
        setting: threads and delegate.
        previous: opens the release before, when the guard needs it; None where there is none.
        sink: told what the guard finds.
        first: makes what a call is computed in, until one has answered.

    Raises:
        Refused: its preprocessing cannot be read.
        EnvironmentFault: its runtime is not installed.
        ConversionError: the runtime does not open it.
    """
    try:
        steps = pipeline.Pipeline.parse(source.bundle.preprocess)
    except JobError as error:
        raise Refused(error.cause, where=str(source.folder), faults=error.faults) from error
    return Loaded(source, steps, source.bundle.labels, serving, setting, previous=previous, sink=sink, first=first)


def ready(*records: object, targets: Sequence[str] = ()) -> None:
    """Do what a process does once before it opens a model, so that the first opening takes what later ones take.

    Records are read by code that is made when the first of a kind is read: one of each is, in memory. Operations of
    preprocessing are imported, and runtimes are not.

    Args:
        records: of other kinds that are read whenever a model is opened.
        targets: whose files will be opened.
    """
    port, sha256 = Port("x", TensorSpec((1, "n"), "float32")), "0" * 64
    files = (BundleFile("a.json", "artifact", 0, sha256, "a"), BundleFile("a.onnx", "model", 0, sha256, "a"))
    manifest = Manifest(1, "a", "1.0.0", files, (Variant("a", quality={"drop": 0.5}),))
    held = (ArtifactFile("a.onnx", 0, 0, sha256),)
    artifact = Artifact("a", held, (port,), (port,), "1", 0, ("a",), {"a": "b"}, layouts={"x": "NHWC"})
    data = canonical.dumps([{"op": "a", "input": 0}])
    canonical.parse(data, where="ready", limit=len(data))
    for record in (manifest, artifact, *records) * 2:  # a new kind of tuple makes cattrs forget what it made before
        data = canonical.dumps(record)
        canonical.loads(data, type(record), where="ready", limit=len(data), formats=None)
    for name in pipeline.SHELF.files():
        pipeline.SHELF.type_of(name)
    for target in targets:
        if kind_of(target) is not None:
            import_module(f"{SHELF.package}.{target}.session")


def setting_of(source: Source, threads: int = 0, home: Path | None = None) -> Setting:
    """Return threads and delegate: as asked for, else as remembered in a home, else one thread."""
    if threads:
        return Setting(threads)
    tuned = tuning.remembered(home, source) if home is not None else None
    return tuned.setting if tuned is not None else Setting()
