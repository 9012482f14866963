"""What a far device must have for a runtime, as distributions of Python, and the command that adds it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

LEAST_PYTHON = (3, 11)
ALWAYS = ("numpy",)
RUNS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "litert": ("ai-edge-litert",),
    "executorch": ("executorch", "torch"),
}
"""Target -> what opens and runs its files: all that verifying needs."""
LOOKS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("cattrs", "onnx", "onnx-ir"),
    "litert": ("cattrs", "flatbuffers"),
    "executorch": ("cattrs", "flatbuffers"),
}
"""Target -> what also looks into its files there (fused layers, their times, their tensors): packing needs it."""


def of(target: str, *, looking: bool = False) -> tuple[str, ...]:
    """Return the distributions that a target needs on a device; for one that we do not know, NumPy alone."""
    return (*ALWAYS, *RUNS.get(target, ()), *(LOOKS.get(target, ()) if looking else ()))


def every() -> tuple[str, ...]:
    """Return all distributions that some target may need."""
    return tuple(sorted({name for target in RUNS for name in of(target, looking=True)}))


def pinned(names: tuple[str, ...]) -> str:
    """Return distributions as pip takes them, in the versions that are installed here: they are what was tested."""
    return " ".join(f"{name}=={found}" if (found := here(name)) else name for name in names)


def here(name: str) -> str:
    """Return the version of a distribution on this machine, without a local part, or nothing."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return ""
