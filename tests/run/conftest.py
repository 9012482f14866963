"""Bundles of the packed tiny job and of small files, and pieces that stand for nothing else than themselves."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from haversack.base import digest
from haversack.base.bundle import BundleFile, Manifest, Variant
from haversack.base.candidate import Artifact, ArtifactFile
from haversack.tools.data import golden_file
from haversack.tools.data.golden_file import Golden
from haversack.tools.trust import canonical

LABELS = ("across", "down", "up", "aslant")


@dataclass(frozen=True)
class Piece:
    """One variant to be put into a bundle: the artefact, its main file's bytes, and golden vectors."""

    artifact: Artifact
    data: bytes
    golden: Sequence[Golden]
    exact: bool = True
    tolerance: float = 0.0
    quality: Mapping[str, float] = field(default_factory=dict)


def written(
    folder: Path,
    pieces: Sequence[Piece],
    *,
    version: str = "1.0.0",
    preprocess: Sequence[Mapping[str, object]] = (),
    labels: Sequence[str] = (),
) -> Path:
    """Write a bundle as docs/spec says it, from pieces."""
    folder.mkdir(parents=True)
    files, variants = [], []

    def put(name, role, data, target=""):
        (folder / name).write_bytes(data)
        files.append(BundleFile(name, role, len(data), digest.of_bytes(data), target))

    for piece in pieces:
        target = piece.artifact.target
        main = f"{target}{Path(piece.artifact.files[0].path).suffix}"
        put(main, "model", piece.data, target)
        told = ArtifactFile(main, len(piece.data), 0, digest.of_bytes(piece.data))
        reduced = replace(
            piece.artifact, files=(told,), tensor_names={}, absorbed={}, bias_digests={}, injected=0, read_back=0
        )
        ports = {port.name for port in (*reduced.inputs, *reduced.outputs)}
        reduced = replace(reduced, layouts={name: one for name, one in reduced.layouts.items() if name in ports})
        put(f"{target}.json", "artifact", canonical.dumps(reduced), target)
        golden_file.write(piece.golden, folder / f"{target}.golden.npz")
        put(f"{target}.golden.npz", "golden", (folder / f"{target}.golden.npz").read_bytes(), target)
        variants.append(
            Variant(target, reduced.runtime_version, reduced.cpu_features, piece.exact, piece.tolerance, piece.quality)
        )
    if preprocess:
        put("preprocess.json", "preprocess", canonical.dumps(list(preprocess)))
    if labels:
        put("labels.txt", "labels", "".join(f"{label}\n" for label in labels).encode())
    files.sort(key=lambda file: file.name)
    variants.sort(key=lambda variant: variant.target)
    manifest = Manifest(1, "tiny", version, tuple(files), tuple(variants))
    (folder / "manifest.json").write_bytes(canonical.dumps(manifest))
    return folder


@pytest.fixture(scope="session")
def write_bundle():
    """A function that writes a bundle from pieces."""
    return written


@pytest.fixture(scope="session")
def piece(tmp_path_factory):
    """A function that makes a small network of a seed a file of a runtime, in integers or floats; each once."""
    import torch
    from torch import nn

    from haversack.base.constraints import Constraints
    from haversack.base.encodings import Encodings
    from haversack.base.plan import Plan, Step
    from haversack.compress.encode import encode
    from haversack.compress.plans import uniform
    from haversack.profile.ranges import ranges
    from haversack.targets.contract import SHELF
    from haversack.tools.data import interface
    from haversack.tools.graph import canonical as graphs

    def network(seed):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU6()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()

    @functools.cache
    def make(target, seed=0, kind="int8", settings=()):
        sample = np.random.default_rng(1).normal(size=(8, 1, 8, 8)).astype(np.float32)
        free = ({0: torch.export.Dim.AUTO},)
        program = torch.export.export(network(seed), (torch.from_numpy(sample),), dynamic_shapes=free)
        model = graphs.to_model(program, "small", input_names=["image"], output_names=["scores"])
        part = SHELF.build(target, dict(settings))
        demands = Constraints.union([part.constraints(model.graph)])
        plan = Plan("any", uniform(model.graph, "int8", integer_ops=demands.integer_ops), (), Step("minmax"), (target,))
        encodings = encode(model, plan, ranges(model, [(sample,)]), demands)[0] if kind == "int8" else Encodings.none()
        folder = tmp_path_factory.mktemp(target)
        artifact = part.lower(model, encodings, folder)
        path = folder / artifact.files[0].path
        session = part.open_session(path, artifact.session_options)
        vectors = []
        for row in range(3):
            fed = interface.as_file(artifact, {"image": sample[row : row + 1]})
            vectors.append(Golden(fed, session.run(fed)))
        session.close()
        exact = kind == "int8"
        return Piece(artifact, path.read_bytes(), vectors, exact=exact, tolerance=0.0 if exact else 1e-5)

    return make


@pytest.fixture(scope="session")
def bundle(piece, tmp_path_factory):
    """The folder of a bundle with the small network in integers for ONNX Runtime and LiteRT, and labels."""
    pieces = [piece("onnxruntime"), piece("litert")]
    return written(tmp_path_factory.mktemp("bundles") / "tiny-1.0.0.haversack", pieces, labels=LABELS)


@pytest.fixture(scope="session")
def newer(piece, tmp_path_factory):
    """The next release: another network."""
    pieces = [piece("onnxruntime", 1), piece("litert", 1)]
    folder = tmp_path_factory.mktemp("bundles") / "tiny-1.1.0.haversack"
    return written(folder, pieces, version="1.1.0", labels=LABELS)


@pytest.fixture(scope="session")
def images():
    """Inputs as the model takes them, float32 [16, 1, 8, 8]."""
    return np.random.default_rng(7).normal(size=(16, 1, 8, 8)).astype(np.float32)
