"""Models of one layer that ONNX Runtime opens, published with real keys, and homes of devices that take them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sites import Clock, Site, opened

from haversack.base import digest
from haversack.base.bundle import BundleFile, Manifest, Variant
from haversack.base.candidate import Artifact, ArtifactFile
from haversack.base.errors import Fault, HaversackError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.base.progress import Event
from haversack.deliver import publishing
from haversack.deliver import trial as child
from haversack.deliver.metadata import first_root
from haversack.deliver.selftest import Trial, Verdict
from haversack.flow.client import Client
from haversack.tools.codec import bsdiff
from haversack.tools.data import golden_file
from haversack.tools.data.golden_file import Golden
from haversack.tools.trust import canonical, keys

WIDTH = 400
X = np.ones((1, 4), np.float32)


def model(value: float) -> bytes:
    """Return an .onnx file that multiplies [n, 4] by weights; the first of them is ``value`` and tells which it is."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32)
    weights[:, 0] = value / 4
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]) for name, width in (("x", 4), ("y", WIDTH))
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [numpy_helper.from_array(weights, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(made.SerializeToString())


def outputs(value: float) -> np.ndarray:
    """Return what the model gives for ``X``, float32 [1, WIDTH]."""
    weights = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32)
    weights[:, 0] = value / 4
    return X @ weights


def bundle(
    folder: Path,
    version: str,
    value: float,
    *,
    data: bytes | None = None,
    golden: np.ndarray | None = None,
    line: str = "digits",
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a bundle; ``value`` is what its model answers first. ``data`` may be another model, ``golden`` wrong."""
    folder = folder / f"{line}-{version}.haversack"
    folder.mkdir(parents=True)
    content = model(value) if data is None else data
    golden_file.write([Golden({"x": X}, {"y": outputs(value) if golden is None else golden})], folder / "golden.npz")
    vectors = (folder / "golden.npz").read_bytes()
    (folder / "golden.npz").unlink()
    ports = [Port(name, TensorSpec((1, width), "float32")) for name, width in (("x", 4), ("y", WIDTH))]
    told = ArtifactFile("onnxruntime.onnx", len(content), 0, digest.of_bytes(content))
    artifact = Artifact("onnxruntime", (told,), (ports[0],), (ports[1],), "1.18", opset=20)
    files = {
        ("labels.txt", "labels", ""): "".join(f"class {number}\n" for number in range(WIDTH)).encode(),
        ("onnxruntime.golden.npz", "golden", "onnxruntime"): vectors,
        ("onnxruntime.json", "artifact", "onnxruntime"): canonical.dumps(artifact),
        ("onnxruntime.onnx", "model", "onnxruntime"): content,
        **{(name, "licence", ""): text for name, text in (more or {}).items()},
    }
    entries = []
    for (name, role, target), one in sorted(files.items()):
        (folder / name).write_bytes(one)
        entries.append(BundleFile(name, role, len(one), digest.of_bytes(one), target))
    variant = Variant("onnxruntime", "1.18", tolerance=1e-4)
    manifest = Manifest(1, line, version, tuple(entries), (variant,))
    (folder / "manifest.json").write_bytes(canonical.dumps(manifest))
    return folder


def delta(old: bytes, new: bytes) -> tuple[str, bytes]:
    """Return a delta of two files."""
    return "bsdiff", bsdiff.make(old, new)


@dataclass
class Shop:
    """A publisher with keys, below one folder."""

    site: Site

    @classmethod
    def create(cls, folder: Path, now: datetime | None = None) -> Shop:
        site = Site(folder, Clock(now or datetime.now(UTC)))
        made = keys.create(site.keys)
        (site.keys / "1.root.json").write_bytes(first_root(made, site.clock()))
        return cls(site)

    @property
    def url(self) -> str:
        return self.site.root.as_uri()

    @property
    def root(self) -> Path:
        return self.site.keys / "1.root.json"

    def publish(
        self,
        version: str,
        value: float,
        *,
        deltas: Callable[[bytes, bytes], tuple[str, bytes]] | None = delta,
        devices: tuple = (),
        encrypt: bool = False,
        **more: object,
    ) -> publishing.Outcome:
        """Publish a bundle as ``bundle`` writes it."""
        folder = bundle(self.site.folder / "bundles", version, value, **more)
        manifest, read = opened(folder)
        repository = self.site.repository
        return publishing.publish(repository, manifest, read, delta=deltas, devices=devices, encrypt=encrypt)


def tried_here(trial: Trial, last: Trial | None) -> Verdict:
    """Try a model in this process: for tests of what becomes of a verdict, a second sooner than in a child."""
    try:
        told, _ = child.answer(trial.header(), {})
    except HaversackError as error:
        return Verdict((Fault(error.where, error.cause),))
    return Verdict(tuple(Fault(*fault) for fault in told["faults"]), told["vectors"], told["median_ms"])


def asked(client: Client) -> float:
    """Return what the model in use of a device answers first."""
    with client.open("digits", follow=False) as opened_:
        return round(float(opened_(X)["y"][0, 0]), 3)


def spoil(path: Path) -> None:
    """Damage a file of a slot without touching the store: its name is given to other bytes."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def texts(told: Sequence[Event]) -> str:
    """Return all that was told, a line each."""
    return "\n".join(event.text for event in told)


def copied(source: Path, target: Path) -> None:
    """Copy a home, files with several names as such."""
    known: dict[int, Path] = {}
    for path in [source, *sorted(source.rglob("*"))]:
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        elif (inode := path.stat().st_ino) in known:
            place.hardlink_to(known[inode])
        else:
            shutil.copyfile(path, place)
            known[inode] = place
