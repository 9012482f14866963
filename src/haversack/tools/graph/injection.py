"""What every target does with encodings: say what it cannot hold, derive biases, and prove what a file holds.

How a file is written and read is each target's own; what it must hold is the law's, and so the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from haversack.base import digest
from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encoding, Encodings, Float
from haversack.base.errors import Fault, VerificationError
from haversack.base.graph import Node
from haversack.base.keys import split_tensor
from haversack.base.model import Model
from haversack.tools.graph.law import equal, runs_in_integers
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics import affine, blocks

Biases = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Node key -> (int32 codes [channels], float32 scale [channels], or [] for one)."""
Cause = Callable[[Node, Encoding], str]
"""Says why a node's encoding has no place in a file, or an empty string."""
_GROUPED_BITS = 4


@dataclass
class Content:
    """What a file holds.

    Attributes:
        tensors, integers: see ``Encodings``.
        biases: node key -> (int32 codes, float32 scale) of its derived bias.
        faults: what is not as we write it.
    """

    tensors: dict[str, Encoding] = field(default_factory=dict)
    integers: dict[str, np.ndarray] = field(default_factory=dict)
    biases: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def encodings(self) -> Encodings:
        """Return the encodings."""
        return Encodings(self.tensors, self.integers)

    def sound(self, path: Path) -> Content:
        """Return this content, of the file at ``path``.

        Raises:
            VerificationError: something in it is not as we write it; all faults together.
        """
        if self.faults:
            raise VerificationError(
                "the file is not as it was written",
                where=str(path),
                faults=tuple(self.faults),
                next_step="lower the model again",
            )
        return self

    def held(self, bias_digests: Mapping[str, str], path: Path) -> Encodings:
        """Return the encodings of the file at ``path``, whose biases have these digests.

        Raises:
            VerificationError: biases are not those that were written.
        """
        if faults := bias_differences(bias_digests, self.biases):
            raise VerificationError("biases are not those that were written", where=str(path), faults=faults)
        return self.encodings()


@dataclass(frozen=True)
class Proof:
    """What was injected into a file and read back equal: values in all, and the digests of its biases."""

    injected: int
    read_back: int
    bias_digests: Mapping[str, str]


def proven(asked: Encodings, biases: Biases, content: Content, path: Path) -> Proof:
    """Compare what a file holds with what was injected into it.

    Args:
        asked: the encodings.
        biases: the derived biases.
        content: the file's, read back.
        path: the file, for the error.

    Raises:
        VerificationError: a scale, zero-point, integer or bias differs; all of them together.
    """
    equal, faults = differences(asked, content.encodings())
    told = bias_digests(biases)
    wrong = bias_differences(told, content.biases)
    if faults or wrong:
        raise VerificationError(
            "the file does not hold what was injected",
            where=str(path),
            faults=(*faults, *wrong),
            next_step="report this: the file was written by this very run",
        )
    numbers = sum(codes.size for codes, _ in biases.values())
    return Proof(count(asked) + numbers, equal + numbers, told)


def differences(asked: Encodings, found: Encodings) -> tuple[int, tuple[Fault, ...]]:
    """Return (how many encodings and integers are equal, a fault for each tensor that differs)."""
    equal_count, faults = 0, []
    for key in sorted({*asked.tensors, *found.tensors}):
        cause = _difference(asked.tensors.get(key), found.tensors.get(key))
        if cause:
            faults.append(Fault(key, cause))
        else:
            equal_count += 1
    for key in sorted({*asked.integers, *found.integers}):
        mine, theirs = asked.integers.get(key), found.integers.get(key)
        if mine is None or theirs is None or mine.shape != theirs.shape:
            faults.append(Fault(key, "its integers are missing or of another shape"))
            continue
        same = int(np.count_nonzero(mine == theirs))
        equal_count += same
        if same != mine.size:
            faults.append(Fault(key, f"{mine.size - same} of {mine.size} integers differ"))
    return equal_count, tuple(faults)


def count(encodings: Encodings) -> int:
    """Return how many encodings and integers there are."""
    return len(encodings.tensors) + sum(codes.size for codes in encodings.integers.values())


def _difference(asked: Encoding | None, found: Encoding | None) -> str:
    if asked is None or found is None:
        return "the file has an encoding that nobody asked for" if asked is None else "the file does not encode it"
    if isinstance(asked, Affine) and isinstance(found, Affine) and not equal(asked, found):
        if asked.scale.tobytes() != found.scale.tobytes():
            return f"scale {found.scale.ravel()[:4]} instead of {asked.scale.ravel()[:4]}"
        return f"zero-point {found.zero_point.ravel()[:4]} or form differs from {asked.zero_point.ravel()[:4]}"
    if isinstance(asked, Codebook) and isinstance(found, Codebook):
        alike = (asked.bits, asked.group) == (found.bits, found.group)
        same = alike and asked.entries.tobytes() == found.entries.tobytes()
        return "" if same else f"palette {found.entries.ravel()[:4]} instead of {asked.entries.ravel()[:4]}"
    if isinstance(asked, BlockAffine) and isinstance(found, BlockAffine):
        return _other_blocks(asked, found)
    same = isinstance(asked, Affine) and isinstance(found, Affine)
    return "" if same or asked == found else f"{type(found).__name__} instead of {type(asked).__name__}"


def _other_blocks(asked: BlockAffine, found: BlockAffine) -> str:
    forms = [(one.block, one.bits, one.symmetric, one.scale.shape) for one in (asked, found)]
    if forms[0] != forms[1]:
        return f"blocks of another form: {forms[1]} instead of {forms[0]}"
    wrong = np.argwhere(asked.scale != found.scale)
    return f"{len(wrong)} scales of blocks differ, the first in row {wrong[0][0]}" if len(wrong) else ""


def derived(
    model: Model, encodings: Encodings, integer_ops: Collection[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the bias that each layer must have that runs in integers and has one.

    Args:
        model: its current weights count.
        encodings: of its tensors.
        integer_ops: ops with an integer kernel (``Constraints.integer_ops``).

    Raises:
        ValueError: a code does not fit int32.
    """
    ops = frozenset(integer_ops)
    found = {}
    for unit in units(model.graph):
        node = unit.head
        if role(node) is not Role.LAYER or node.bias is None or not runs_in_integers(unit, encodings, ops):
            continue
        source, weight = (encodings.affine(key) for key in (f"{node.inputs[0]}:out", f"{node.key}:weight"))
        assert source is not None, "the law demands an Affine input"
        assert weight is not None, "the law demands an Affine weight"
        codes = affine.bias_codes(model.weights[node.bias], source.scale, weight.scale)
        found[node.key] = codes, affine.bias_scale(source.scale, weight.scale)
    return found


def bias_digests(biases: Biases) -> dict[str, str]:
    """Return node key -> digest of codes and scale: dtypes, shapes and bytes."""
    return {key: digest.of_arrays({"codes": codes, "scale": scale}) for key, (codes, scale) in biases.items()}


def bias_differences(wanted: Mapping[str, str], found: Biases) -> tuple[Fault, ...]:
    """Return a fault for each layer whose bias is missing, was not asked for, or is not the one with that digest."""
    read = bias_digests(found)
    causes = {}
    for key in wanted.keys() | read.keys():
        if key not in read:
            causes[key] = "its bias is not stored as int32 codes with a constant scale"
        elif key not in wanted:
            causes[key] = "it has a bias in integers that nobody asked for"
        elif read[key] != wanted[key]:
            causes[key] = "a code or the scale of its bias is not the one that was written"
    return tuple(Fault(key, cause) for key, cause in sorted(causes.items()))


def unheld(
    model: Model, encodings: Encodings, inside: Collection[str], weight: Cause, arriving: Cause
) -> Iterator[Fault]:
    """Yield every encoding that has no place in a target's file.

    Args:
        model: the canonical model.
        encodings: of its tensors.
        inside: node keys whose output a fused clamp hides.
        weight: says what is wrong with a weight's encoding in this target.
        arriving: says what is wrong with the encoding of what a node reads.
    """
    for key, encoding in sorted(encodings.tensors.items()):
        node_key, port = split_tensor(key)
        node = model.graph.by_key[node_key]
        cause = {"out": _activation, "weight": weight, "in": arriving}[port](node, encoding)
        if not cause and port == "out" and node_key in inside and isinstance(encoding, Affine):
            cause = "it is inside a fused unit: only what leaves the clamp behind it can be encoded"
        stored = encodings.tensors.get(f"{node_key}:weight")
        if not cause and port == "in" and not isinstance(stored, Affine | BlockAffine):
            cause = "an input quantized at run time needs an integer weight"
        if cause:
            yield Fault(key, cause)


def by_groups(weight: Cause, encodings: Encodings, groups: Mapping[str, Collection[int]]) -> Cause:
    """Return what says why a weight has no place in a file where a runtime has kernels for groups of 4-bit weights.

    Args:
        weight: says it of a weight whose encoding is no BlockAffine.
        encodings: of all tensors.
        groups: ``Constraints.groups`` of the runtime.
    """

    def cause(node: Node, encoding: Encoding) -> str:
        if not isinstance(encoding, BlockAffine):
            return weight(node, encoding)
        if not encoding.symmetric or encoding.bits != _GROUPED_BITS:
            return "a weight in blocks is held as symmetric int4"
        if encoding.block not in groups.get(node.key, ()):
            known = ", ".join(map(str, sorted(groups.get(node.key, ())))) or "none"
            return f"blocks of {encoding.block} have no kernel here; those that have: {known}"
        if encodings.tensors.get(f"{node.key}:in") != Dynamic(8):
            return "a weight in blocks needs an input quantized at run time, to 8 bits"
        if not np.array_equal(blocks.rounded(encoding.scale), encoding.scale):
            return "the scales of blocks are numbers that both bfloat16 and float16 have"
        return ""

    return cause


def _activation(node: Node, encoding: Encoding) -> str:
    if isinstance(encoding, Float) and encoding.dtype == "float32":
        return "float32 is what a tensor without an encoding has: leave it out"
    if not isinstance(encoding, Affine):
        return f"an activation is held as Affine, not as {type(encoding).__name__}"
    if (encoding.bits, encoding.signed, encoding.axis) != (8, False, None):
        return "an activation is held in 8 bits with one scale"
    return "" if node.output.dtype == "float32" else f"a tensor of {node.output.dtype} has no codes"
