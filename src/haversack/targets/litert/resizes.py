"""Images made larger or smaller: the nearest value, or a mixture of the four around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from haversack.targets.litert.order import NHWC, NWC
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site

_NEAREST = "ResizeNearestNeighborOptions"


def write_nearest(site: Site) -> Value:
    """Write an upsampling that takes the value at the place rounded down, as PyTorch's ``nearest`` does."""
    return _write(site, "RESIZE_NEAREST_NEIGHBOR", _NEAREST, alignCorners=False)


def write_bilinear(site: Site) -> Value:
    """Write a bilinear upsampling: corners on corners, or centres of pixels on centres."""
    corners = bool(site.arguments.get("align_corners"))
    return _write(
        site,
        "RESIZE_BILINEAR",
        "ResizeBilinearOptions",
        alignCorners=corners,
        halfPixelCenters=not corners,
    )


def write_nearest_line(site: Site) -> Value:
    """Write the same of one axis, as of an image of height 1."""
    x = site.ordered(next(site.value(name) for name in ("input", "self") if name in site.arguments), NWC)
    n, channels, length = x.shape
    factor = next(iter(site.arguments.get("scale_factors") or ()), None)
    image = site.reshape(x, (n, channels, 1, length), NHWC)
    n, channels, length = site.shape
    made = _resized(
        site, image, (n, channels, 1, length), [1, factor], "RESIZE_NEAREST_NEIGHBOR", _NEAREST, alignCorners=False
    )
    return site.reshape(made, site.shape, NWC)


def _write(site: Site, op: str, options: str, **settings: Any) -> Value:  # noqa: ANN401 - the schema's fields
    x = site.ordered(next(site.value(name) for name in ("input", "self") if name in site.arguments), NHWC)
    factors = site.arguments.get("scale_factors") or (None, None)
    return _resized(site, x, site.shape, factors, op, options, **settings)


def _resized(
    site: Site,
    x: Value,
    shape: Sequence[int],
    factors: Sequence[float | None],
    op: str,
    options: str,
    **settings: Any,  # noqa: ANN401 - the schema's fields
) -> Value:
    for size, wanted, factor in zip(x.shape[2:], shape[2:], factors, strict=True):
        if factor is not None and float(factor) * size != wanted:  # PyTorch steps by it, LiteRT by the lengths
            raise site.refused(f"a factor of {float(factor):g} for a length of {size}, which is no whole number")
    places = site.constant("size", np.array(shape[2:], np.int32))
    return site.emit(op, [x.tensor, places], shape, NHWC, options, **settings)
