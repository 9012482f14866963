"""A job file: a thin network of 1x1 convolutions that tells four directions of stripes apart, as ``tiny_job`` does."""

import numpy as np
import torch
from torch import nn

metric = "top1"
input_names = ("image",)
output_names = ("scores",)


def data(seed, count):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    y, x = np.mgrid[0:8, 0:8] / 8.0
    waves = np.stack([np.sin(6 * x), np.sin(6 * y), np.sin(6 * (x + y)), np.sin(6 * (x - y))])
    images = waves[labels] + random.normal(0, 0.4, (count, 8, 8))
    return images[:, None].astype(np.float32), labels


def model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 64, 1), nn.ReLU6(),
        nn.Conv2d(64, 64, 3, stride=2, groups=64), nn.ReLU6(),
        nn.Conv2d(64, 64, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    images, labels = data(1, 256)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(30):
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
    images, labels = data(3, 64)
    yield (images,), labels
