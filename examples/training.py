"""What the examples train with: AdamW under a one-cycle rate; a run that was killed goes on at its last epoch.

Weights that this writes are all that the job files read.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


def classify(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross entropy of scores [n, classes] under labels int64 [n], and which of them are right."""
    return nn.functional.cross_entropy(scores, labels, label_smoothing=0.05), scores.argmax(1) == labels


def fit(
    network: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    weights: Path,
    *,
    epochs: int,
    rate: float,
    decay: float = 1e-2,
    batch: int = 64,
    change: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    judge: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = classify,
) -> None:
    """Train a network and keep its weights.

    Every epoch draws from its own seed, so that a run that was killed and goes on ends with the same weights.

    Args:
        network: gives what ``judge`` takes, scores [n, classes] where nothing else is said.
        inputs: what it takes, samples on axis 0.
        targets: what ``judge`` takes, labels int64 [n] where nothing else is said.
        weights: a safetensors file, written at the end.
        epochs: passes over the data.
        rate: the highest learning rate.
        decay: weight decay.
        batch: samples of a step.
        change: augments a batch.
        judge: (outputs, targets) -> the loss, and for each sample whether it is right, bool [n].
    """
    weights.parent.mkdir(parents=True, exist_ok=True)
    kept = weights.with_suffix(".unfinished")
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    steps = math.ceil(len(inputs) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    begun = 0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        begun = state["epochs"]
    for epoch in range(begun, epochs):
        started = time.monotonic()
        torch.manual_seed(epoch)
        right = 0
        for step, chosen in enumerate(torch.randperm(len(inputs)).split(batch)):
            loss, good = judge(network(change(inputs[chosen])), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            right += int(good.sum())
            if step % 20 == 0 and sys.stderr.isatty():
                sys.stderr.write(f"\rtraining: epoch {epoch + 1} of {epochs}, {step / steps:.0%} ")
        left = (time.monotonic() - started) * (epochs - epoch - 1)
        words = f"accuracy {right / len(inputs):.3f}, about {left:.0f} s left"
        sys.stderr.write(f"\rtraining: epoch {epoch + 1} of {epochs}, {words}\n")
        _keep({"network": network, "optimizer": optimizer, "schedule": schedule}, epoch + 1, kept)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, weights)
    kept.unlink(missing_ok=True)


def _keep(parts: dict[str, object], epochs: int, path: Path) -> None:
    """Write down where training stands, all or nothing."""
    fresh = path.with_suffix(".fresh")
    torch.save({name: part.state_dict() for name, part in parts.items()} | {"epochs": epochs}, fresh)
    fresh.replace(path)
