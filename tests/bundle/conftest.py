"""Files of a run, written by hand: a layer of integers for two runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from haversack.base import digest
from haversack.base.bundle import Variant
from haversack.base.candidate import Artifact, ArtifactFile
from haversack.base.encodings import Affine, Encodings
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.bundle import make, variant
from haversack.bundle.variant import Left, Piece
from haversack.tools.data import golden_file
from haversack.tools.formats import encodings_file

PORTS = (Port("x", TensorSpec(("batch", 4), "float32")),), (Port("y", TensorSpec(("batch", 2), "float32")),)
CODES = np.arange(-3, 5, dtype=np.int32).reshape(2, 4)


def affine(scale: float = 0.5, *, bits: int = 8, signed: bool = True, zero: int = 0) -> Affine:
    return Affine(bits, signed, None, np.array(scale, np.float32), np.array(zero, np.int32))


def encoded(codes: np.ndarray = CODES, weight: Affine | None = None, out: Affine | None = None, **more) -> Encodings:
    tensors = {"fc:linear#0:weight": weight or affine(), "fc:linear#0:out": out or affine(0.1, signed=False, zero=3)}
    return Encodings({**tensors, **more}, {"fc:linear#0:weight": np.asarray(codes, np.int32)})


@pytest.fixture
def left(tmp_path: Path):
    """A function that writes what a run leaves of one runtime."""

    def write(target: str, content: bytes = b"\x1c\0\0\0TFL3" + bytes(40), encodings: Encodings | None = None) -> Left:
        folder = tmp_path / "best" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.tflite").write_bytes(content)
        encodings_file.write(encodings or encoded(), folder / "encodings.safetensors")
        ones = {"x": np.ones((1, 4), np.float32)}, {"y": np.ones((1, 2), np.float32)}
        golden_file.write([golden_file.Golden(*ones)], folder / "golden.npz")
        file = ArtifactFile("model.tflite", len(content), 9, digest.of_bytes(content))
        named = [(name, digest.of_file(folder / name)) for name in ("golden.npz", "encodings.safetensors")]
        keys = {"fc:linear#0:out": "fc"}
        artifact = Artifact(
            target, (file,), *PORTS, "2.0", tensor_names=keys, bias_digests=keys, injected=9, read_back=9
        )
        return Left(artifact, folder, *named)

    return write


@pytest.fixture
def made(left, tmp_path: Path):
    """A function that makes a bundle of two runtimes."""

    def write(to: str = "digits-1.0.0.haversack", *, more: tuple[Piece, ...] = (), **changed):
        lefts = [left(target, **changed) for target in ("second", "litert")]
        pieces = [piece for one in lefts for piece in variant.pieces(one)] + [*variant.encodings(lefts), *more]
        variants = [Variant(one.target, one.artifact.runtime_version, exact=True) for one in lefts]
        return make.write("digits", "1.0.0", pieces, variants, ("top1", "fraction"), tmp_path / to)

    return write
