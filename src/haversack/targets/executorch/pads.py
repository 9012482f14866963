"""Zero pads that the convolution behind them does itself: in codes its padding is the zero-point, the code of zero."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from haversack.targets.executorch.sheet import Sheet, inputs

_CONVOLUTIONS = ("XNNConv2d", "XNNDepthwiseConv2d")
_TO_CHANNELS_LAST = [0, 2, 3, 1]


def fold(sheet: Sheet, nodes: list[tuple[Any, str]], keep: frozenset[str]) -> list[tuple[Any, str]]:
    """Return the nodes without the pads that only convolutions read, whose paddings have grown.

    Args:
        sheet: whose values lose the borders that a changed layout had.
        nodes: (node of ExecuTorch's schema, owner); changed in place.
        keep: owners of pads that stay.
    """
    readers = defaultdict(list)
    for node, _ in nodes:
        for name in inputs(node.xnode_union):
            readers[getattr(node.xnode_union, name)].append(node.xnode_union)
    gone = set()
    for node, owner in nodes:
        union = node.xnode_union
        if type(union).__name__ != "XNNStaticConstantPad" or union.padding_value or owner in keep:
            continue
        if not sheet.is_external(union.output_id) and _folded(sheet, union, readers):
            gone.add(id(union))
    return [each for each in nodes if id(each[0].xnode_union) not in gone]


def _folded(sheet: Sheet, pad: Any, readers: Any) -> bool:  # noqa: ANN401 - nodes of the schema
    """Fold one pad if all its readers are convolutions, or changes of layout that only convolutions read."""
    plain, turned = [], []
    for reader in readers[pad.output_id]:
        kind = type(reader).__name__
        if kind in _CONVOLUTIONS:
            plain.append(reader)
        elif kind == "XNNStaticTranspose" and list(reader.perm) == _TO_CHANNELS_LAST and readers[reader.output_id]:
            turned.append(reader)
        else:
            return False
    if plain and turned:
        return False
    behind = plain or [each for one in turned for each in readers[one.output_id]]
    rows, columns = (2, 3) if turned else (1, 2)
    others = [axis for axis in range(len(pad.pre_paddings)) if axis not in (rows, columns)]
    zero = not any(pad.pre_paddings[axis] or pad.post_paddings[axis] for axis in others)
    if len(pad.pre_paddings) != 4 or not zero or any(type(each).__name__ not in _CONVOLUTIONS for each in behind):
        return False
    for one in behind:
        one.padding_top += pad.pre_paddings[rows]
        one.padding_bottom += pad.post_paddings[rows]
        one.padding_left += pad.pre_paddings[columns]
        one.padding_right += pad.post_paddings[columns]
    dims = sheet.tensor(pad.input_id).dims
    for one in turned:
        one.input_id = pad.input_id
        sheet.tensor(one.output_id).dims = [dims[axis] for axis in _TO_CHANNELS_LAST]
    for one in plain:
        one.input1_id = pad.input_id
    return True
