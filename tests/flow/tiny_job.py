"""A job file: five thousand weights that tell four directions of stripes apart, trained in about a second."""

import os

import numpy as np
import torch
from torch import nn

metric = "top1"
input_names = ("image",)
output_names = ("scores",)
labels = ("across", "down", "rising", "falling")
preprocess = [{"op": "scale", "factor": 1.0}]


def data(seed, count):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    y, x = np.mgrid[0:8, 0:8] / 8.0
    waves = np.stack([np.sin(6 * x), np.sin(6 * y), np.sin(6 * (x + y)), np.sin(6 * (x - y))])
    images = waves[labels] + random.normal(0, 0.4, (count, 8, 8))
    return images[:, None].astype(np.float32), labels


def model():
    os.write(1, b"noise of a native library\n")  # it may not end up in --json
    print("noise of a job")  # noqa: T201
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    images, labels = data(1, 512)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(torch.from_numpy(images)), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def calibration():
    images, _ = data(2, 32)
    for start in range(0, 32, 16):
        yield (images[start : start + 16],)


def evaluation():
    images, labels = data(3, 128)
    for start in range(0, 128, 64):
        yield (images[start : start + 64],), labels[start : start + 64]
