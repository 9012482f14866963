"""Real pairs of files for deltas: EfficientNet-Lite0 before and after training, packed with one plan, in four formats.

``python bench/delta_pairs.py FOLDER`` writes FOLDER/NAME/model.{onnx,tflite,pte} and encodings.safetensors, and
weights.safetensors in float32 where weights differ, for the packed model (``old``) and each way to update it.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from accounting import ROOT

from haversack import load
from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Encodings
from haversack.base.job import Job
from haversack.base.model import Model, Sample
from haversack.base.plan import Plan
from haversack.compress.apply import Compressed, apply
from haversack.compress.encode import store_weights
from haversack.compress.plans import uniform
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.selection import holdable
from haversack.flow.data import Data
from haversack.flow.squeeze import together
from haversack.lower.emit import emit
from haversack.metrics import resolve
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.formats import encodings_file

JOB = "examples/efficientnet_lite0.py"
FILES = {"onnxruntime": "model.onnx", "litert": "model.tflite", "executorch": "model.pte"}
NAMES = tuple(FILES)
UPDATES = ("all-layers", "all-layers-anew", "fixed-norms", "fixed-norms-anew", "head", "recalibrated", "moved")
"""All layers trained, normalisation among them or left as it is, each with the scales that they had or packed anew; the
last layer trained; ranges of other pictures; the last layer trained and a softmax behind it, so that every tensor has
another name and lies elsewhere."""
STEPS, MOMENTUM, ROWS = 12, 0.9, 16
"""Of the training by stochastic gradient descent, in batches of calibration."""
RATES = {"all-layers": 3e-3, "fixed-norms": 1e-3, "head": 1e-2}
RANGED = 64
"""Pictures that set the ranges of activations."""


def main(folder: Path) -> None:
    """Write every file that is not there yet."""
    from safetensors.numpy import load_file

    if all(done(folder / name) for name in ("old", *UPDATES)):
        return
    job = load.open_job(str(ROOT / JOB))
    data = Data(job, None, resolve("top1"))
    batch = data.look()
    exported = load.export(data.prepared_job(), batch=batch)
    data.expect(exported.inputs)
    batches = list(data.whole())
    few, others = batches[: RANGED // ROWS], [inputs for inputs, _ in data.evaluation()][: RANGED // ROWS]
    old = _folded(exported, few)

    def packed(model: Model, samples: list[Sample]) -> Compressed:
        plan, constraints = _planned(model)
        return apply(
            model, plan, ranges=lambda one: ranges(one, samples), constraints=constraints, samples=lambda: samples
        )

    if not done(folder / "old"):
        write(folder / "old", old, packed(old, few))
    first = Compressed(old, encodings_file.read(folder / "old" / "encodings.safetensors"))
    holding = holdable(old.graph, *_planned(old))[0]
    for name in RATES:
        anew = folder / f"{name}-anew"
        if done(folder / name) and (done(anew) or anew.name not in UPDATES):
            continue
        if done(folder / name):
            trained = old.with_weights(load_file(folder / name / "weights.safetensors"))
        else:
            trained = _folded(exported.with_weights(_trained(job, exported, batches, name)), few)
            write(folder / name, trained, _kept(trained, first, holding))
        if anew.name in UPDATES:
            write(anew, trained, packed(trained, few))
    if not done(folder / "recalibrated"):
        write(folder / "recalibrated", old, packed(old, others))
    if not done(folder / "moved"):
        ended = _ended(data.prepared_job(), load_file(folder / "head" / "weights.safetensors"))
        moved = _folded(load.export(ended, batch=batch), few)
        write(folder / "moved", moved, packed(moved, few))


def done(folder: Path) -> bool:
    """Say whether a packed model is whole."""
    return (folder / FILES[NAMES[-1]]).exists()


def _folded(model: Model, samples: list[Sample]) -> Model:
    return PREPARE.build("fold_norm").apply(model, PrepareContext(lambda: samples))


def _planned(model: Model) -> tuple[Plan, Constraints]:
    """Return the one plan of all runtimes, and what they demand."""
    constraints = together({name: TARGETS.build(name).demands(model) for name in NAMES})[NAMES[0]]
    layers = uniform(model.graph, "int8", integer_ops=constraints.integer_ops, widths=constraints.widths)
    return Plan(NAMES[0], layers, constrained_by=NAMES), constraints


def _ended(job: Job, trained: Mapping[str, np.ndarray]) -> Job:
    """Return a job whose network has a trained last layer, and a softmax behind it."""
    import torch

    def model() -> torch.nn.Module:
        network = job.model()
        last = {name: torch.from_numpy(trained[name]) for name in ("_fc.weight", "_fc.bias")}
        network.load_state_dict(network.state_dict() | last)
        return torch.nn.Sequential(network, torch.nn.Softmax(-1)).eval()

    return replace(job, model=model)


def _kept(model: Model, made: Compressed, holding: Plan) -> Compressed:
    """Return another model's weights in the encodings that a first one has; scales are raised where they do not fit."""
    affine = {key: value for key, value in made.encodings.tensors.items() if isinstance(value, Affine)}
    for key, value in affine.items():
        if key.endswith(":weight") and value.axis is not None:
            node = model.graph.by_key[key.removesuffix(":weight")]
            weight = np.moveaxis(model.weights[str(node.weight)], value.axis, 0).reshape(len(value.scale), -1)
            least = (np.abs(weight).max(axis=1) / (value.high + 0.5)).astype(np.float32)
            affine[key] = replace(value, scale=np.maximum(value.scale, least))
    tensors, integers, _ = store_weights(model, holding, affine, keep_scales=True)
    return Compressed(model, Encodings({**made.encodings.tensors, **tensors}, integers))


def _trained(job: Job, model: Model, batches: list[Sample], name: str) -> Mapping[str, np.ndarray]:
    """Return the parameters and statistics that training changed, by name: a few steps on the calibration pictures."""
    import torch

    network = job.model().train(name == "all-layers")
    picked = [one for own, one in network.named_parameters() if name != "head" or own.startswith("_fc.")]
    network.requires_grad_(requires_grad=False)
    for one in picked:
        one.requires_grad_()
    optimizer = torch.optim.SGD(picked, RATES[name], momentum=MOMENTUM)
    torch.manual_seed(0)
    labels = list(labels_of(job))
    for step in range(STEPS):
        pixels, wanted = batches[step % len(batches)][0], labels[step % len(batches)]
        loss = torch.nn.functional.cross_entropy(network(torch.from_numpy(pixels)), torch.from_numpy(wanted).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sys.stdout.write(f"{name}, step {step}: loss {loss.item():.4f}\n")
        sys.stdout.flush()
    found = {own: value.detach().numpy() for own, value in network.state_dict().items()}
    return {own: np.asarray(value, model.weights[own].dtype) for own, value in found.items() if own in model.weights}


def labels_of(job: Job) -> Iterator[np.ndarray]:
    """Yield the labels of each calibration batch, int [rows], which the job knows and does not give."""
    source = runpy.run_path(job.source)
    wanted = np.repeat([label for _, label in source["_pictures"](calibrating=True)], source["VIEWS"])
    for start in range(0, len(wanted), ROWS):
        yield wanted[start : start + ROWS]


def write(folder: Path, model: Model, made: Compressed) -> None:
    """Write the files of one packed model."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encodings.safetensors").write_bytes(encodings_file.to_bytes(made.encodings))
    save_file(
        {name: np.ascontiguousarray(value) for name, value in model.weights.items()}, folder / "weights.safetensors"
    )
    for target in NAMES:
        if not (folder / FILES[target]).exists():
            emit(made.model, made.encodings, target, folder)
            sys.stdout.write(f"{folder / FILES[target]}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("HAVERSACK_DATA", str(ROOT.parent / "shared" / "data"))
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "pairs"))
