"""The network of ``digits.py``, trained a little further on pictures with noise: the update in ``ship_digits.py``.

This file is a job file: ``haversack pack examples/digits_tuned.py --budget size=140KB,drop=1pt``. What it does not say
anew is that of ``digits.py``, whose weights it begins with. Training takes a few seconds.
"""

from __future__ import annotations

import digits
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from training import fit

WEIGHTS = digits.WEIGHTS.with_name("tuned.safetensors")
NOISE = 0.1

metric, baseline = digits.metric, digits.baseline
input_names, output_names, labels = digits.input_names, digits.output_names, digits.labels
preprocess, degraded = digits.preprocess, digits.degraded
calibration, evaluation = digits.calibration, digits.evaluation


def model() -> nn.Module:
    """Return the network with the weights of the second training, in eval mode; it is trained where it has not been."""
    if not WEIGHTS.exists():
        train()
    network = digits.Digits()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def train() -> None:
    """Train the last layers for one more epoch on noisy pictures, and keep the weights."""
    from haversack.tools.data.preprocess.pipeline import Pipeline

    network = digits.model()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(("block2", "classify")))
    (raw, classes), _ = digits.split()
    images = torch.from_numpy(np.asarray(Pipeline.parse(preprocess)((raw,))[0]))
    targets = torch.from_numpy(classes)
    fit(network, images, targets, WEIGHTS, epochs=1, rate=5e-4, change=lambda x: x + NOISE * torch.randn_like(x))
