"""The numbers behind the guide's pictures of rounding: means, refit, soft roundings, blocks, codes of few bits.

The project's own functions on the weights and photographs that ``shown`` has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from accounting import ROOT
from shown import BINS, Numbers, lite0, minilm, short, tiles

from haversack import load, metrics
from haversack.base.encodings import Codebook, Encodings
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.base.plan import WIDTHS, Plan, Precision, Step
from haversack.compress.apply import Compressed, apply
from haversack.compress.plans import uniform
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.means import mean_output, operation
from haversack.compress.prepare.moments import Moments, moments
from haversack.compress.quantize.contract import SHELF as QUANTIZE
from haversack.flow.data import Data
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.simulate import Arrival, Simulator
from haversack.tools.numerics import palette, planes
from haversack.tools.numerics.affine import dequantize, power_up, quantize, symmetric
from haversack.tools.numerics.compensate import compensated, refitted
from haversack.tools.numerics.soft_rounding import gate, softly_rounded, undecided

if TYPE_CHECKING:
    import torch

EXPANDING = "_blocks.3._expand_conv:conv2d#0"
"""A convolution of EfficientNet-Lite0 whose outputs' means are shown, and which is refitted."""
BETAS = (20.0, 6.0, 2.0)
PATCH, ROWS, TERNARY, MOST = 4, 600, 1, 7
"""Pixels on a side of what rows of made-up weights read, how many rows; the largest code of two and of four bits."""
DIGITS = ROOT / "examples" / "digits.py"
BITS = (4, 3, 2)
PARTS = ("gptq", "adaround", "block_reconstruction")


def means() -> Numbers:
    """Return the mean error of each channel of a convolution in 4 bits, on photographs that the correction did not see.

    In units of the channel's own spread, without a correction and with one; of every other channel.
    """
    import torch

    model, batch = lite0()
    node = model.graph.by_key[EXPANDING]
    seen, judged = (_arriving(model, tuple(array[part] for array in batch), node.inputs[0]) for part in _halves())
    weight = model.weights[str(node.weight)].astype(np.float32)
    grid = symmetric(QUANTIZE.build("minmax").weight_scales(weight.reshape(len(weight), -1), 4), 4, 0)
    few = dequantize(quantize(weight, grid), grid)
    off = mean_output(node, few, [seen]) - mean_output(node, weight, [seen])
    left = mean_output(node, few, [judged]) - mean_output(node, weight, [judged])
    whole = operation(node, torch.from_numpy(weight))(judged)
    spread = whole.transpose(0, 1).reshape(len(weight), -1).std(dim=1).numpy()
    order = np.argsort(left / spread)[::2]
    return {"before": short((left / spread)[order]), "after": short(((left - off) / spread)[order])}


def refit() -> Numbers:
    """Return the squared error of a layer's outputs, refitted with more and less damping, relative to no refit.

    On the half that fits and on the half that judges; inputs arrive from the layers before it in 8 bits.
    """
    model, batch = lite0()
    node = model.graph.by_key[EXPANDING]
    batches = [tuple(array[part] for array in batch) for part in _halves()]
    encodings = _encoded(model, "int8", (Step("fold_norm"),), batches).encodings
    held: list[list[torch.Tensor]] = []

    def arrive(one: Node, arrival: Arrival) -> None:
        if one.key == EXPANDING:
            held.extend([value.clone() for value in side] for side in arrival.both())

    Simulator(model).run(encodings, batches, arrive=arrive, beside=Encodings.none())
    inputs, exact = held
    weight = model.weights[str(node.weight)]
    _, (fitted, judged) = moments(node, weight.shape, inputs, exact)
    _, alone = moments(node, weight.shape, exact, exact)
    rows = weight.reshape(1, len(weight), -1).astype(np.float64)
    dampings = np.geomspace(1e-4, 30.0, 40)
    halves = list(zip((fitted, judged), alone, strict=True))
    lost = [[_lost(rows, each, fitted, *half) for each in (*dampings, np.inf)] for half in halves]
    return {
        "damping": short(dampings),
        "fitted": short(np.array(lost[0][:-1]) / lost[0][-1]),
        "judged": short(np.array(lost[1][:-1]) / lost[1][-1]),
    }


def soft() -> Numbers:
    """Return what is paid for roundings that are undecided, and how much rows lose by them, relative to gptq.

    Made-up rows of ternary weights read pieces of photographs, four pixels by four.
    """
    import torch

    fractions = np.linspace(0.0, 1.0, 41)
    v = torch.linspace(-4.0, 4.0, 321, dtype=torch.float64)
    paid = {f"{beta:g}": np.interp(fractions, gate(v).numpy(), undecided(v, beta).numpy()) for beta in BETAS}
    grey = tiles().mean(axis=3)[:, ::2, ::2] / 255.0
    pieces = np.lib.stride_tricks.sliding_window_view(grey, (PATCH, PATCH), axis=(1, 2))[:, ::3, ::3]
    hessian = np.cov(pieces.reshape(-1, PATCH * PATCH).T)[None]
    weight = np.random.default_rng(0).uniform(-1.5, 1.5, (1, ROWS, PATCH * PATCH))
    scale = np.ones((1, ROWS), np.float32)
    gptq = compensated(weight, hessian, scale, TERNARY)
    trained = softly_rounded(weight, hessian, scale, TERNARY, gptq)
    lost = [np.einsum("rn,nm,rm->r", off, hessian[0], off) for off in (weight[0] - way[0] for way in (gptq, trained))]
    shares = np.linspace(0.0, 1.0, 21)
    return {
        "fractions": short(fractions),
        "paid": {key: short(value) for key, value in paid.items()},
        "shares": short(shares),
        "ratio": short(np.quantile(lost[1] / lost[0], shares)),
    }


def blocks() -> Numbers:
    """Return the relative error of the digits' network on unseen ones, by bits of a weight and part."""
    job = load.open_job(str(DIGITS))
    data = Data(job, None, metrics.resolve(job.metric))
    model = load.export(data.prepared_job(), batch=data.look())
    data.expect(model.inputs)
    seen = list(data.whole())
    folded = PREPARE.build("fold_norm").apply(model, PrepareContext(lambda: seen))
    judged = [inputs for inputs, _ in data.evaluation()]
    wanted = np.concatenate([Executor(folded).run(batch)[0] for batch in judged])
    found = {}
    for part in PARTS:
        made = [_encoded(folded, WIDTHS[bits], (Step("fold_norm"), Step(part)), seen) for bits in BITS]
        outputs = [np.concatenate([out for (out,) in Simulator(one.model).run(one.encodings, judged)]) for one in made]
        found[part] = short([float(np.linalg.norm(one - wanted) / np.linalg.norm(wanted)) for one in outputs])
    return {"bits": list(BITS), "errors": found}


def shifts() -> Numbers:
    """Return a weight's histogram, and values of 4 bits: even steps, such of a power of two, and powers of two."""
    weight = minilm()
    flat = weight.reshape(1, -1)
    even, power = (
        float(QUANTIZE.build(part, more).weight_scales(flat, 4)[0])
        for part, more in (("mse", {"weight_least": 0.4}), ("power_of_two", {"halvings": 3}))
    )
    assert power == power_up(np.float32(power)), "a power of two"
    book, indices = palette.logarithmic(weight, 4)
    assert isinstance(book, Codebook), "the law of palettes"
    lost = [_missed(flat, one) for one in (even, power)]
    lost.append(float(np.linalg.norm(palette.values(indices, book) - weight) / np.linalg.norm(weight)))
    return {
        **_histogram(weight),
        "even": short(np.arange(-MOST, MOST + 1) * even),
        "power": short(np.arange(-MOST, MOST + 1) * power),
        "log": short(np.unique(book.entries)),
        "errors": short(lost),
    }


def few() -> Numbers:
    """Return a weight's histogram, and the values of three bits, of three codes and of signs."""
    weight = minilm()
    flat = weight.reshape(1, -1)
    scales = {bits: QUANTIZE.build("mse", {"weight_least": 0.2}).weight_scales(flat, bits) for bits in (3, 2, 1)}
    levels = {3: np.arange(-3, 4), 2: np.array([-1, 0, 1]), 1: np.array([-1, 1])}
    return {
        **_histogram(weight),
        **{f"of {bits}": short(levels[bits] * float(scales[bits][0])) for bits in levels},
        "stored": short([planes.stored_bits(bits) for bits in levels]),
        "errors": short([_missed(flat, float(scale[0]), bits) for bits, scale in scales.items()]),
    }


def _halves() -> tuple[slice, slice]:
    """Return every other piece of the photographs, and those between."""
    return slice(0, None, 2), slice(1, None, 2)


def _arriving(model: Model, batch: Sample, key: str) -> torch.Tensor:
    """Return what a node gives in float."""
    found: list[torch.Tensor] = []
    Executor(model).run(batch, observe=lambda node, value: found.append(value.clone()) if node.key == key else None)
    return found[0]


def _encoded(model: Model, precision: Precision, steps: tuple[Step, ...], batches: list[Sample]) -> Compressed:
    """Return a model with all layers in one precision, for ONNX Runtime."""
    demands = TARGETS.build("onnxruntime").demands(model)
    layers = uniform(model.graph, precision, weights=Step("mse"), widths=demands.widths)
    plan = Plan("onnxruntime", layers, steps, Step("mse"), ("onnxruntime",))
    return apply(
        model, plan, ranges=lambda one: ranges(one, batches), constraints=demands, samples=lambda: iter(batches)
    )


def _lost(rows: np.ndarray, damping: float, fitted: Moments, seen: Moments, own: Moments) -> float:
    """Return the squared error of outputs on some rows, by weights refitted on others.

    Args:
        rows: exact weights, float64 [1, channels, n].
        damping: of the refit.
        fitted: moments that it learns from.
        seen: of the rows that are scored, as they arrive.
        own: of the same rows as they are in float.
    """
    made = refitted(rows, fitted.hessian, fitted.cross, damping=damping)
    error = (made @ seen.hessian - 2.0 * (rows @ seen.cross)) * made + (rows @ own.hessian) * rows
    return float(error.sum())


def _histogram(weight: np.ndarray) -> Numbers:
    """Return shares of a weight's values, all but the outermost."""
    edge = float(np.quantile(np.abs(weight), 0.9995))
    counts, edges = np.histogram(weight, BINS, (-edge, edge))
    return {"middles": short((edges[:-1] + edges[1:]) / 2), "share": short(counts / weight.size)}


def _missed(flat: np.ndarray, scale: float, bits: int = 4) -> float:
    """Return the relative error of a weight [1, n] in integers of one scale."""
    grid = symmetric(np.array([scale], np.float32), bits, 0)
    return float(np.linalg.norm(dequantize(quantize(flat, grid), grid) - flat) / np.linalg.norm(flat))
