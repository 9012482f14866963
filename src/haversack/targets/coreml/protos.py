"""Core ML's own message classes, from the coremltools wheel.

``import coremltools`` takes 20 CPU seconds here, since it imports every framework it could convert from. Its messages
need none of that: they are loaded by themselves, under a name of our own, and not one of its converters is.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from haversack.base.errors import EnvironmentFault

PACKAGE = "coremltools"
_OURS = "haversack_coreml_messages"


def messages() -> ModuleType:
    """Return the package of message modules (``MIL_pb2``, ``Model_pb2``, ``FeatureTypes_pb2``).

    Raises:
        EnvironmentFault: coremltools is not installed, or has no such package.
    """
    if _OURS in sys.modules:
        return sys.modules[_OURS]
    found = importlib.util.find_spec(PACKAGE)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    folder = Path(places[0]) / "proto" if places else Path()
    spec = importlib.util.spec_from_file_location(
        _OURS, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if not places or spec is None or spec.loader is None or not (folder / "MIL_pb2.py").is_file():
        raise EnvironmentFault(
            "Core ML's message classes are missing", where=PACKAGE, next_step='pip install "haversack[coreml]"'
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[_OURS] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_OURS]
        raise
    return module
