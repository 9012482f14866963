"""From names in a file, ours and the runtime's, to node keys."""

from __future__ import annotations

import pytest

from haversack.tools.graph.onnx.naming import key_of, key_within

KEY = "features.3.conv:conv2d#0"
KNOWN = frozenset({KEY, ":add#0", "a/b:linear#12", "fused:relu#0"})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (KEY, KEY),
        (f"{KEY}/QuantizeLinear", KEY),
        (f"{KEY}:weight/Cast", ""),
        (":add#0", ":add#0"),
        ("a/b:linear#12/Mul.1", "a/b:linear#12"),
        ("/Shape", ""),
        ("", ""),
        ("Transpose", ""),
        ("x:input#0x", ""),
    ],
)
def test_our_names(name, key):
    assert key_of(name) == key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (KEY, KEY),
        (f"{KEY}_nchwc", KEY),
        (f"fused {KEY}_nchwc", KEY),
        (f"fused fused {KEY}", KEY),
        (f"{KEY}_token_17", KEY),
        (f"{KEY}/MatMulAddFusion", KEY),
        (":add#0/QuantizeLinear_token_3", ":add#0"),
        ("fused:relu#0", "fused:relu#0"),
        ("ReorderOutput_token_4", ""),
        ("nobody:conv2d#0", ""),
        ("fused nobody:conv2d#0", ""),
        ("", ""),
    ],
)
def test_names_of_the_runtime(name, key):
    assert key_within(name, KNOWN) == key
