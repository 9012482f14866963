"""Compress: a plan becomes a prepared model and the encodings of its tensors, under the targets' constraints."""

from haversack.compress.apply import Compressed, apply
from haversack.compress.perturb import perturb
from haversack.compress.plans import uniform

__all__ = ["Compressed", "apply", "perturb", "uniform"]
