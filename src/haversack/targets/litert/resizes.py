"""Images made larger or smaller: the nearest value, or a mixture of the four around."""

from __future__ import annotations

from typing import Any

import numpy as np

from haversack.targets.litert.order import NHWC
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site


def write_nearest(site: Site) -> Value:
    """Write an upsampling that takes the value at the place rounded down, as PyTorch's ``nearest`` does."""
    return _write(site, "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", alignCorners=False)


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


def _write(site: Site, op: str, options: str, **settings: Any) -> Value:  # noqa: ANN401 - the schema's fields
    x = site.ordered(next(site.value(name) for name in ("input", "self") if name in site.arguments), NHWC)
    sizes = site.shape[2:]
    factors = site.arguments.get("scale_factors") or ()
    for size, wanted, factor in zip(x.shape[2:], sizes, factors, strict=bool(factors)):
        if float(factor) * size != wanted:  # PyTorch steps by the factor it was given, LiteRT by the lengths
            raise site.refused(f"a factor of {float(factor):g} for a length of {size}, which is no whole number")
    places = site.constant("size", np.array(sizes, np.int32))
    return site.emit(op, [x.tensor, places], site.shape, NHWC, options, **settings)
