"""Findings: everything that a user must know about an artefact, from a closed list of kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from haversack.base.errors import EXIT_CONVERSION, EXIT_VERIFICATION

Severity = Literal["error", "warning", "note"]

KINDS: dict[str, tuple[Severity, int, str]] = {
    "slower-than-float": ("error", EXIT_VERIFICATION, "the artefact is slower than the same runtime's float file"),
    "float-op": ("error", EXIT_VERIFICATION, "a layer meant for integers runs in float for over 2 % of the time"),
    "scale-changed": ("error", EXIT_VERIFICATION, "a scale or zero-point read back is not the one injected"),
    "weight-changed": ("error", EXIT_VERIFICATION, "an integer of a weight read back is not the one injected"),
    "not-exact": ("error", EXIT_VERIFICATION, "the artefact's logits are not the reference's, bit for bit"),
    "large-error-at": ("error", EXIT_VERIFICATION, "the first tensor at which the artefact leaves its tolerance"),
    "unreadable": ("error", EXIT_CONVERSION, "the runtime does not open what was written"),
    "worker-crashed": ("error", EXIT_VERIFICATION, "the runtime crashed or hung on this artefact"),
    "not-finite": ("error", EXIT_VERIFICATION, "the artefact returns NaN or an infinity"),
    "runtimes-differ": ("warning", 0, "runtimes in integers do not give the same output values; the text says why"),
    "dead-channel": ("warning", 0, "weight channels too small for their bias; their scale was raised"),
    "detour": ("warning", 0, "the file pads, moves or converts values between layers that no layer asked for"),
    "fallback": ("warning", 0, "an operation runs in a slower kernel than the target's own"),
    "kept-in-float": ("warning", 0, "a layer meant for integers stays in float: a file has no place for its codes"),
    "another-model": ("warning", 0, "the recipe that was replayed was made for another model"),
    "dead-inputs": ("note", 0, "inputs of a layer never vary on the calibration samples: nothing is learnt of them"),
    "constant-inputs": ("warning", 0, "no input of a layer varies on the calibration samples: are they all alike?"),
    "calibration-mismatch": ("warning", 0, "calibration samples are on another scale than those that are scored"),
    "ranges-exceeded": ("warning", 0, "new data leave the ranges of activations that a release has"),
    "few-samples": ("warning", 0, "few calibration samples for what is learnt of them"),
    "setting-idle": ("warning", 0, "a setting of the runtime that was asked for changes nothing in this file"),
    "joined-in-float": ("note", 0, "tensors of different range are joined in float at the end of the model"),
    "range-mixing": ("warning", 0, "tensors of different range share one scale"),
    "rounding-ties": ("warning", 0, "a scale ratio that leaves rounding ties to the runtime"),
    "not-a-shift": (
        "warning",
        0,
        "scales that were to be powers of two are none: a clamp, an add or a mean demands it",
    ),
    "less-robust": ("warning", 0, "compression loses more on degraded inputs than on clean ones"),
    "not-established": ("warning", 0, "the interval of the drop crosses its limit at this number of samples"),
    "nondeterministic": ("warning", 0, "two runs of the same artefact differ"),
    "float-rounding": ("note", 0, "behind float layers, output values differ from the reference's in their last bits"),
    "not-compared": ("note", 0, "no bits to compare: scales are found at run time, or it computes in float"),
    "fixed-lengths": ("note", 0, "a length that is free in the model is fixed in the file, or bounded"),
    "saturation-risk": ("note", 0, "on other processors the file needs an option that it does not need here"),
    "export-only": ("note", 0, "written and its structure checked, but not run here"),
    "noisy": ("note", 0, "the machine was too noisy to tell the speeds apart"),
}


@dataclass(frozen=True)
class Finding:
    """One finding; ``layer`` is a module path or tensor key, empty when it concerns the whole artefact.

    Raises:
        ValueError: the kind is not on the list.
    """

    kind: str
    text: str
    layer: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            message = f"unknown kind of finding: {self.kind!r}"
            raise ValueError(message)

    @property
    def severity(self) -> Severity:
        """``error`` fails the run unless ``--allow KIND``; ``warning`` and ``note`` are told."""
        return KINDS[self.kind][0]

    @property
    def exit_code(self) -> int:
        """The exit code of a run that ends with this finding not allowed; 0 for warnings and notes."""
        return KINDS[self.kind][1]
