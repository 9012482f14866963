"""A job file: three linear layers that tell four directions of stripes apart, as ``tiny_job`` does."""

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
    return images.reshape(count, 64).astype(np.float32), labels


def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))
    images, labels = data(1, 256)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
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
