"""Bundles of the packed tiny job and of small files, and pieces that stand for nothing else than themselves."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from haversack.base import digest
from haversack.base.bundle import Variant
from haversack.base.candidate import Artifact
from haversack.base.labels import to_bytes
from haversack.bundle import make
from haversack.bundle.variant import Left, pieces
from haversack.bundle.variant import Piece as Shared
from haversack.tools.data import golden_file
from haversack.tools.data.golden_file import Golden
from haversack.tools.data.preprocess.pipeline import Pipeline
from haversack.tools.trust import canonical

LABELS = ("across", "down", "up", "aslant")


@dataclass(frozen=True)
class Piece:
    """One variant to be put into a bundle: what a run would have left of it, and what the manifest says of it."""

    left: Left
    exact: bool = True
    tolerance: float = 0.0
    quality: Mapping[str, float] = field(default_factory=dict)

    @property
    def artifact(self) -> Artifact:
        return self.left.artifact


def written(folder, found, *, version="1.0.0", preprocess=(), labels=()):
    """Write a bundle with the real writer, and return its folder."""
    files = [one for piece in found for one in pieces(piece.left)]
    if preprocess:
        files.append(Shared("preprocess.json", "preprocess", canonical.dumps(Pipeline.parse(preprocess).data())))
    if labels:
        files.append(Shared("labels.txt", "labels", to_bytes(labels)))
    variants = [
        Variant(
            piece.artifact.target,
            piece.artifact.runtime_version,
            piece.artifact.cpu_features,
            piece.exact,
            piece.tolerance,
            piece.quality,
        )
        for piece in found
    ]
    return make.write("tiny", version, files, variants, ("top1", "fraction"), folder).folder


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
    def made(target, seed=0, kind="int8", settings=()):
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
        golden_file.write(vectors, folder / "golden.npz")
        golden = ("golden.npz", digest.of_file(folder / "golden.npz"))
        exact = kind == "int8"
        return Piece(Left(artifact, folder, golden, ("", "")), exact=exact, tolerance=0.0 if exact else 1e-5)

    return made


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
