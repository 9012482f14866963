"""Profile: what a model's layers cost and bear: activation ranges, seconds of each layer, sensitivity of each layer."""

from haversack.profile.layers import layers
from haversack.profile.ranges import ranges
from haversack.profile.sensitivity import sensitivity

__all__ = ["layers", "ranges", "sensitivity"]
