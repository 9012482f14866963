"""haversack fits a large model into a small device and keeps it healthy there.

::

    load → profile → compress → lower → verify → measure → choose → bundle → deliver → run → monitor

Every stage is a folder, and so is ``report``, which tells what the first seven found; ``monitor`` does not exist yet.
To read the code, open ``flow/pack.py``: the workshop as a page of plain calls; ``flow/client.py`` is a device's.

Names are loaded on first use, so that importing haversack is cheap.

Public names:
    pack  what ``haversack pack`` does: ``pack("job.py", budget="size=5.2MB", out="out")``
    Request, Outcome  what goes into a run, and what comes out of it
    Budget, Plan, LayerPlan, Step, Recipe  the limits, and what is done to each layer
    Encodings, Affine, Float, Dynamic  how tensors are stored
    Candidate, Finding  a plan made real and measured, and what must be known about it
    Client  a device's models: ``Client(home, repository).update("digits")``, ``.open("digits")``
    open_model  a bundle's model, without a device: ``open_model("digits-1.3.0.haversack")(x)``
    HaversackError  the root of all errors
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haversack.base.budget import Budget
    from haversack.base.candidate import Candidate
    from haversack.base.encodings import Affine, Dynamic, Encodings, Float
    from haversack.base.errors import HaversackError
    from haversack.base.finding import Finding
    from haversack.base.plan import LayerPlan, Plan, Step
    from haversack.base.recipe import Recipe
    from haversack.flow.client import Client
    from haversack.flow.pack import Outcome, pack
    from haversack.flow.request import Request
    from haversack.run.opening import open_model

__version__ = "0.1.0"
__all__ = [
    "Affine",
    "Budget",
    "Candidate",
    "Client",
    "Dynamic",
    "Encodings",
    "Finding",
    "Float",
    "HaversackError",
    "LayerPlan",
    "Outcome",
    "Plan",
    "Recipe",
    "Request",
    "Step",
    "open_model",
    "pack",
]

_HOMES = {
    "base.budget": ("Budget",),
    "base.candidate": ("Candidate",),
    "base.encodings": ("Affine", "Dynamic", "Encodings", "Float"),
    "base.errors": ("HaversackError",),
    "base.finding": ("Finding",),
    "base.plan": ("LayerPlan", "Plan", "Step"),
    "base.recipe": ("Recipe",),
    "flow.client": ("Client",),
    "flow.pack": ("Outcome", "pack"),
    "flow.request": ("Request",),
    "run.opening": ("open_model",),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"haversack.{home}"), name)
            globals()[name] = value
            return value
    message = f"module 'haversack' has no attribute {name!r} (it has {', '.join(__all__)})"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
