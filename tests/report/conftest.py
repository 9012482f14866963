"""Records as real runs leave them: an EfficientNet-Lite0-like network of 50 layers under a budget."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from haversack.base.budget import parse
from haversack.base.candidate import Artifact, ArtifactFile, Candidate, Latency, Memory, Parity
from haversack.base.finding import Finding
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.quality import Drop, Quality
from haversack.report import Environment, Forecast, LayerFacts, ModelFacts, Samples, build, render


def lite0_layers() -> tuple[LayerFacts, ...]:
    """49 convolutions and a classifier, with plausible MACs and parameters."""
    rng = np.random.default_rng(0)
    rows = [("_conv_stem", "conv2d", 10_838_016, 896)]
    for block in range(16):
        wide = 96 * (1 + block)
        rows += [
            (f"_blocks.{block}._expand_conv", "conv2d", int(rng.integers(3_000_000, 20_000_000)), 24 * wide),
            (f"_blocks.{block}._depthwise_conv", "conv2d", int(rng.integers(500_000, 4_000_000)), 9 * wide + wide),
            (f"_blocks.{block}._project_conv", "conv2d", int(rng.integers(3_000_000, 20_000_000)), 40 * wide),
        ]
    rows.append(("_fc", "linear", 1_280_000, 1_281_000))
    shares = rng.dirichlet(np.full(len(rows), 4.0))
    return tuple(
        LayerFacts(
            key=f"{name}:{op}#0",
            op=op,
            macs=macs,
            parameters=parameters,
            tensor="_conv_stem_act:hardtanh#0:out" if name == "_conv_stem" else f"{name}:{op}#0:out",
            time_share=float(share),
        )
        for (name, op, macs, parameters), share in zip(rows, shares, strict=True)
    )


def error_map(layers: tuple[LayerFacts, ...], scale: float) -> dict[str, float]:
    rng = np.random.default_rng(1)
    drawn = rng.gamma(3.0, 0.012, len(layers))
    found = {layer.tensor: float(scale * value) for layer, value in zip(layers, drawn, strict=True)}
    found["_blocks.4:add#0:out"] = scale * 0.021
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def lite0_plan(target: str, part: str, origin: str, floats: tuple[str, ...] = ()) -> Plan:
    chosen = {layer.key: LayerPlan() for layer in lite0_layers() if layer.key not in floats}
    return Plan(target, chosen, (Step("fold_norm"), Step("bias_correct")), Step(part), (target,), origin)


def made(plan: Plan, megabytes: float, drop: float, error: float, ratio: float, **changes: object) -> Candidate:
    """A measured candidate; ``changes`` replace its fields."""
    size = int(megabytes * 1e6)
    file = ArtifactFile(f"best/{plan.target}/model.onnx", size, int(0.86 * size), f"{size:064x}")
    complete = Candidate(
        plan=plan,
        artifact=Artifact(
            plan.target,
            (file,),
            (),
            (),
            "1.17",
            opset=17,
            cpu_features=("avx2",),
            session_options={"session.x64quantprecision": "1"},
            injected=151,
            read_back=151,
        ),
        quality=Quality("top1", 0.8871 - drop, "fraction", "higher", 186, 0.0232),
        drop=Drop(drop, drop - 0.0061, drop + 0.0083, 186),
        parity=Parity(0.9839 - drop, error, 0, 186_000, error_map(lite0_layers(), error / 0.05)),
        latency=Latency(
            ratio, 24.31 * ratio, 25.9 * ratio, 61.7, ratio * 1.01, ratio - 0.008, ratio + 0.011, 24.31, 200
        ),
        memory=Memory(31_408_128),
        seconds={"lower": 1.21, "measure": 9.87},
        verdict="met",
        reason="all limits met, but another candidate loses less",
    )
    return replace(complete, **changes)


@pytest.fixture
def model_facts() -> ModelFacts:
    return ModelFacts(
        name="EfficientNet-Lite0",
        parameters=4_630_232,
        macs=384_853_504,
        weight_bytes=18_520_928,
        digest="5f" * 32,
        source="examples/lite0.py",
        layers=lite0_layers(),
    )


@pytest.fixture
def machine() -> Environment:
    return Environment(
        python="3.11.2",
        os="Linux 6.1.0 x86_64",
        cpu="AMD EPYC 7B13",
        cpu_flags=("avx2", "f16c", "fma"),
        cores=2,
        threads=1,
        versions={"haversack": "0.1.0", "torch": "2.13.0", "onnx": "1.23.0", "onnxruntime": "1.32.0"},
    )


@pytest.fixture
def make():
    """The builder of candidates."""
    return made


@pytest.fixture
def plan():
    """The builder of plans."""
    return lite0_plan


@pytest.fixture
def candidates() -> tuple[Candidate, ...]:
    """Three measured candidates, and one that failed."""
    runtime = "onnxruntime"
    ships = lite0_plan(runtime, "minmax", "the knapsack's first plan, corrected once")
    tensor = lite0_plan(runtime, "percentile", "one percentile for all ranges")
    mixed = lite0_plan(runtime, "mse", "the two worst layers in float", ("_fc:linear#0", "_conv_stem:conv2d#0"))
    broken = lite0_plan(runtime, "entropy", "entropy ranges")
    return (
        made(
            ships,
            5.02,
            0.0027,
            0.0712,
            0.487,
            verdict="chosen",
            reason="all limits met with the smallest loss",
            findings=(
                Finding(
                    "not-established",
                    "the interval of the drop reaches 1.10 pt and the limit is 1.00 pt; 412 samples would tell",
                ),
                Finding(
                    "dead-channel",
                    "3 channels: their scale was raised to hold the bias",
                    "_blocks.0._depthwise_conv:conv2d#0",
                ),
                Finding("noisy", "the median drifted by 2.1 % between the first and the last pair"),
            ),
        ),
        made(tensor, 4.98, 0.0215, 0.113, 0.481, verdict="missed", reason="drop 2.15 pt is above the 1.00 pt allowed"),
        made(
            mixed,
            8.87,
            0.0011,
            0.052,
            0.611,
            verdict="missed",
            reason="size 8.87 MB is above 5.20 MB; latency x0.61 is above x0.55",
        ),
        Candidate(
            plan=broken,
            artifact=None,
            quality=None,
            drop=None,
            parity=None,
            latency=None,
            memory=None,
            findings=(Finding("worker-crashed", "the process ended with signal 11 while it opened the file"),),
            verdict="failed",
            reason="the runtime crashed while it opened the file",
        ),
    )


@pytest.fixture
def values(candidates, model_facts, machine) -> dict[str, object]:
    """Everything ``build`` takes, for the run on one target."""
    first = candidates[0]
    float_file = ArtifactFile("work/float.onnx", 18_573_012, 17_212_480, "ab" * 32)
    return {
        "candidates": candidates,
        "model": model_facts,
        "baseline": Quality("top1", 0.8871, "fraction", "higher", 186, 0.0232),
        "budget": parse("size=5.2MB,latency=0.55x,memory=40MB,drop=1pt"),
        "best": {"onnxruntime": first.id},
        "environment": machine,
        "samples": Samples(128, 186, 186),
        "seconds": {
            "load": 2.913,
            "profile": 11.402,
            "compress": 6.28,
            "lower": 4.95,
            "verify": 3.3,
            "measure": 38.2,
            "choose": 0.41,
        },
        "command": "haversack pack examples/lite0.py --budget size=5.2MB,latency=0.55x,memory=40MB,drop=1pt"
        " --target onnxruntime --out out/",
        "stated": 0.88,
        "created": "2026-11-23 18:30 UTC",
        "next_step": "haversack bundle out/",
        "floats": {"onnxruntime": Artifact("onnxruntime", (float_file,), (), (), "1.17")},
        "after": {
            first.id: replace(
                model_facts, weight_bytes=4_921_544, notes=("folded 49 normalisations", "corrected 50 biases")
            )
        },
        "forecasts": {first.id: Forecast(5_010_000, 0.0041, 0.066, 0.50)},
    }


@pytest.fixture
def record(values):
    """The record of that run."""
    return build(**values)


@pytest.fixture
def hollow(values):
    """A run of which next to nothing was measured: no layers, no latency, a target whose every candidate failed."""
    first, *_, failed = values["candidates"]
    bare = replace(first, quality=None, drop=None, latency=None, memory=None, parity=None, findings=())
    lost = replace(failed, plan=replace(failed.plan, target="litert"))
    nan = Quality("perplexity", math.nan, "nats", "lower", 0, math.nan)
    changed = {
        "candidates": (bare, lost),
        "model": replace(values["model"], layers=(), digest=""),
        "baseline": nan,
        "floats": {},
        "after": {},
        "forecasts": {},
        "seconds": {},
        "stated": None,
        "next_step": "",
        "created": "",
    }
    return build(**{**values, **changed})


@pytest.fixture
def many(values):
    """Two targets, and twelve candidates each: what a crowded page looks like."""
    found = []
    for target, shift in (("onnxruntime", 0.0), ("litert", 0.02)):
        for step in range(12):
            one = lite0_plan(target, f"part{step}", f"plan {step} of the correction loop")
            drop = 0.03 / (1 + step) - 0.002 + shift / 10
            found.append(
                made(one, 4.6 + 0.4 * step + shift * 5, drop, 0.13 / (1 + step / 4), 0.46 + 0.02 * step + shift)
            )
    best = {target: next(c for c in found[3:] if c.plan.target == target) for target in ("onnxruntime", "litert")}
    judged = tuple(replace(c, verdict="chosen") if c in best.values() else c for c in found)
    changed = {"candidates": judged, "best": {t: c.id for t, c in best.items()}, "after": {}, "forecasts": {}}
    return build(**{**values, **changed})


@pytest.fixture(scope="session")
def rendered() -> dict[str, str]:
    """Pages drawn so far, by the name of their record: drawing one takes half a second."""
    return {}


@pytest.fixture
def page_of(request, rendered):
    """Return the page of a record by the name of its fixture."""

    def apply(name: str) -> str:
        if name not in rendered:
            rendered[name] = render(request.getfixturevalue(name))
        return rendered[name]

    return apply


@pytest.fixture
def six(record):
    """The run as six runtimes would have left it, each a little larger than the last."""
    names = ("onnxruntime", "executorch", "litert", "ncnn", "coreml", "tensorrt")
    measured = [one for one in record.candidates if one.artifact is not None]
    made = [
        replace(
            one,
            id=f"{name}-{one.id}",
            target=name,
            artifact=replace(one.artifact, bytes=int(one.artifact.bytes * (1 + 0.07 * place))),
        )
        for place, name in enumerate(names)
        for one in measured
    ]
    budget = tuple(replace(limit, target=name) for name in names for limit in record.budget)
    best = {name: f"{name}-{record.best['onnxruntime']}" for name in names}
    return replace(record, candidates=tuple(made), best=best, budget=budget)
