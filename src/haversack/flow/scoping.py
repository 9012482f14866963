"""What the user says of layers and parts, read: ``--layer 'features.0.*=float32'`` and ``--without w4a8``.

A glob is held against module paths; ``*`` takes dots as well, and a module that it names is meant with all inside it.
One with a colon is held against node keys (``features.0:conv2d#0``). Rules have no order: two that give one layer
different precisions contradict each other, whichever is longer or stands later.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import cast

from haversack.base.errors import Fault, UsageError
from haversack.base.graph import Graph, Node
from haversack.base.keys import split_node
from haversack.base.plan import WEIGHT_BITS, LayerPlan, Precision
from haversack.base.scope import Scope
from haversack.base.shelf import nearest
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.compress.quantize.contract import SHELF as QUANTIZE
from haversack.flow.rules import LAYER, LAYERS, PALETTE, WITHOUT, Forms, Rules, forms, lacking, module
from haversack.flow.squeeze import together
from haversack.targets.contract import Target
from haversack.tools.graph import tied
from haversack.tools.graph.roles import Role, role

NONE = "none"
FIELDS = {LAYER: "layer_precisions", WITHOUT: "without"}
"""Flag -> the name in a job file."""
_BITS, _FLOAT = re.compile(r"(?:u?int|w|q)([1-7])"), re.compile(r"(?:fp|f)(16|32)")
ALWAYS = "fold_norm"
"""The step that is done when the model is read."""
PLACE = f"{LAYER} ({FIELDS[LAYER]} in a job file)"
NAMED, NEAR = 8, 3
"""At most so many names of modules are shown, and so many near ones."""


def names() -> tuple[str, ...]:
    """Return all that ``--without`` takes: precisions, and the parts that prepare and quantize."""
    return (*WEIGHT_BITS, *PREPARE.names(), *QUANTIZE.names())


def check(rules: Sequence[str], without: Sequence[str], *, typed: bool = True) -> None:
    """Refuse what is no rule or no name, whatever the model is.

    Args:
        rules: ``GLOB=PRECISION``.
        without: names.
        typed: whether they were typed, and do not stand in a job file.

    Raises:
        UsageError: with every fault of both, the nearest name shown.
    """
    faults = [fault for text in rules for fault in _rule_faults(text, without, typed=typed)]
    faults += [Fault(_place(WITHOUT, name, typed=typed), cause) for name in without if (cause := _forbidden(name))]
    if faults:
        raise UsageError(
            "what is said of layers and parts cannot be read",
            faults=tuple(faults),
            next_step="haversack pack JOB --layer 'head=float32' --without w4a8    (haversack parts lists parts, "
            "haversack doctor precisions)",
        )


def typed(rules: Sequence[str], without: Sequence[str]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return what was typed, checked: for each flag None where nothing was, and nothing for ``none``.

    Raises:
        UsageError: as ``check``; or ``none`` beside others.
    """
    read: list[tuple[str, ...] | None] = []
    for flag, texts in ((LAYER, rules), (WITHOUT, without)):
        if NONE in texts and len(set(texts)) > 1:
            raise UsageError("none stands beside others", where=flag, next_step=f"{flag} none alone, or the others")
        read.append(None if not texts else () if NONE in texts else tuple(dict.fromkeys(texts)))
    check(read[0] or (), read[1] or ())
    return read[0], read[1]


def flags(scope: Scope) -> list[str]:
    """Return what is typed to say the same again; nothing where nothing was said."""
    said = [word for rule in scope.rules for word in (LAYER, rule)]
    return said + [word for name in scope.without for word in (WITHOUT, name)]


def ruled(
    graph: Graph,
    rules: Sequence[str],
    without: Sequence[str],
    targets: Mapping[str, Target],
    folded: Collection[str] = (),
) -> Rules:
    """Return what the user's words mean for a model.

    Args:
        graph: the folded model's.
        rules: ``GLOB=PRECISION``.
        without: names.
        targets: by name; a layer that is fixed is so in all of them.
        folded: module paths of norms that are no nodes any more.

    Raises:
        UsageError: a glob that names no layer (the nearest modules are shown), or two that give one layer, or one
            weight, different precisions; all of them at once, and what layers cannot be beside them.
        ConversionError: as ``Target.constraints``.
    """
    if not (rules or without):
        return Rules()
    own = {name: target.constraints(graph) for name, target in targets.items()}
    shared = together(own)
    able, alone = (
        {name: forms(graph, target, demands[name], without) for name, target in targets.items()}
        for demands in (shared, own)
    )
    asked: dict[str, dict[Precision, str]] = {}
    faults = []
    for text in rules:
        glob, _, kind = text.rpartition("=")
        keys, cause = _named(graph, glob, kind, folded)
        faults += [Fault(text, cause)] if cause else []
        for key in keys:
            asked.setdefault(key, {}).setdefault(cast("Precision", kind), text)
    for key, found in asked.items():
        if len(found) > 1:
            faults.append(Fault(module(key), f"{' and '.join(found.values())} contradict each other"))
    fixed = {key: _fixed(key, next(iter(found)), alone) for key, found in asked.items() if len(found) == 1}
    faults += _quarrels(graph, fixed, {key: next(iter(found.values())) for key, found in asked.items()})
    fixed = _joined(graph, fixed)
    made = Rules(Scope(tuple(rules), tuple(without), fixed), able, alone, graph)
    if faults:
        raise UsageError(
            "layers cannot be fixed as asked",
            where=PLACE,
            faults=(*faults, *(fault for several in lacking(made).values() for fault in several)),
            tried="holding every glob against the module paths of the model",
            next_step="let each glob name a layer, and give each layer one precision that it can have, and layers that "
            "read one weight the same",
        )
    return made


def _quarrels(graph: Graph, fixed: Mapping[str, LayerPlan], said: Mapping[str, str]) -> list[Fault]:
    """Return a fault for each weight that is fixed to two forms, of which a file can store only one."""
    faults = []
    for nodes in tied.shared(graph):
        first, *others = [node for node in nodes if node.key in fixed] or nodes[:1]
        for node in others:
            if fixed[node.key].form != fixed[first.key].form:
                names = module(first.key), module(node.key)
                one, other = (first.key, node.key) if names[0] == names[1] else names
                rules = f"{said[first.key]} and {said[node.key]}"
                cause = f"{one} and {other} read one weight ({node.weight}), which a file stores once"
                faults.append(Fault(other, f"{rules} contradict each other: {cause}"))
                break
    return faults


def _joined(graph: Graph, fixed: Mapping[str, LayerPlan]) -> dict[str, LayerPlan]:
    """Return what is fixed, with the layers that read the same weight fixed to the same form of it.

    A table that is stored in integers leaves open how a layer computes with them.
    """
    found = dict(fixed)
    for nodes in tied.shared(graph):
        told = next((node for node in nodes if node.key in fixed), None)
        if told is None or (role(told) is Role.EMBEDDING and fixed[told.key].precision == "int8_weights"):
            continue
        for node in nodes:
            layer = tied.beside(node, fixed[told.key])
            if layer is not None:
                found.setdefault(node.key, layer)
    return found


def parted(
    graphs: Mapping[str, Graph], rules: Sequence[str], folded: Mapping[str, Collection[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return architecture -> the rules that say something of it.

    Args:
        graphs: architecture -> graph of its folded model.
        rules: ``GLOB=PRECISION``.
        folded: architecture -> module paths of norms that are no nodes any more.

    Raises:
        UsageError: a glob names no layer of any architecture (the nearest modules of each are shown); all at once.
    """
    own: dict[str, tuple[str, ...]] = dict.fromkeys(graphs, ())
    faults = []
    for text in rules:
        glob, _, kind = text.rpartition("=")
        gone = folded or {}
        causes = {name: _named(graph, glob, kind, gone.get(name, ()))[1] for name, graph in graphs.items()}
        if all(causes.values()):
            faults.append(Fault(text, "; ".join(f"{name}: {cause}" for name, cause in causes.items())))
        own.update({name: (*own[name], text) for name, cause in causes.items() if not cause})
    if faults:
        raise UsageError(
            "layers cannot be fixed as asked",
            where=PLACE,
            faults=tuple(faults),
            tried="holding every glob against the module paths of every architecture",
            next_step="let each glob name a layer of one architecture at least",
        )
    return own


def _fixed(key: str, kind: Precision, alone: Mapping[str, Forms]) -> LayerPlan:
    """Return the form of a layer, one for all targets that can have it."""
    return next((one[key][kind] for one in alone.values() if kind in one[key]), LayerPlan(kind))


def _named(graph: Graph, glob: str, kind: str, folded: Collection[str] = ()) -> tuple[list[str], str]:
    """Return the keys of the layers that a glob names, and what is wrong with it."""
    nodes = [node for node in graph.nodes if matches(glob, node)]
    layers = [node.key for node in nodes if role(node) in LAYERS]
    others = [node for node in nodes if node.weight]
    if layers or (others and kind == "float32"):  # whatever else has weights is float32 in every plan
        return layers, ""
    if others:
        return [], f"{', '.join(dict.fromkeys(node.op for node in others))} is float32 in every plan"
    known = [module(node.key) for node in graph.nodes if role(node) in LAYERS]
    if nodes:
        return [], f"what it names has no weights; layers are {_list(known)}"
    if gone := [path for path in folded if fnmatchcase(path, glob)]:
        return [], f"{_list(gone)} is a norm, folded into the layer before it; layers are {_list(known)}"
    near = difflib.get_close_matches(glob, _modules(known), n=NEAR, cutoff=0.4)
    return [], f"it names no layer; {'the nearest are' if near else 'layers are'} {_list(near or known)}"


def _modules(paths: Sequence[str]) -> list[str]:
    """Return module paths and those of the modules around them."""
    around = (path.split(".")[:count] for path in paths for count in range(1, path.count(".") + 2))
    return list(dict.fromkeys(".".join(parts) for parts in around))


def matches(glob: str, node: Node) -> bool:
    """Say whether a glob names a node: its key where it has a colon, else its module or one around it."""
    if ":" in glob:
        return fnmatchcase(node.key, glob)
    parts = split_node(node.key)[0].split(".")
    return any(fnmatchcase(".".join(parts[:count]), glob) for count in range(1, len(parts) + 1))


def _list(known: Sequence[str]) -> str:
    each = list(dict.fromkeys(known))
    return ", ".join(each[:NAMED]) + (", …" if len(each) > NAMED else "")


def _rule_faults(text: str, without: Sequence[str], *, typed: bool) -> list[Fault]:
    glob, equals, kind = text.rpartition("=")
    place = _place(LAYER, text, typed=typed)
    if not equals or not glob or not kind:
        return [Fault(place, "it is not GLOB=PRECISION, as in features.0.*=float32")]
    if kind not in WEIGHT_BITS:
        if kind.startswith("palette"):
            bits = PALETTE.settings["bits"]
            return [Fault(place, f"palette alone names one, of {bits} bits; other bits are set in a plan (--plan)")]
        return [Fault(place, f"there is no precision {kind!r}{_meant(kind, WEIGHT_BITS)}")]
    return [Fault(place, f"{WITHOUT} forbids {kind}")] if kind in without else []


def _forbidden(name: str) -> str:
    if name == ALWAYS:
        return "it is done when the model is read, and cannot be left out"
    return "" if name in names() else f"there is no precision and no part of this name{_meant(name, names())}"


def _meant(name: str, known: Collection[str]) -> str:
    """Return what a name may have meant: other tools call 4-bit weights int4, and 16-bit floats fp16."""
    if match := _BITS.fullmatch(name):
        return f"; weights of {match[1]} bits beside activations of 8 are w{match[1]}a8" + (
            ", in groups w4_grouped" if match[1] == "4" else ""
        )
    if match := _FLOAT.fullmatch(name):
        return f"; did you mean float{match[1]}?"
    return nearest(name, known) or f" (one of {', '.join(known)})"


def _place(flag: str, text: str, *, typed: bool) -> str:
    return f"{flag} {shlex.quote(text)}" if typed else f"{FIELDS[flag]}: {text}"
