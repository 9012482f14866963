"""Tensor keys: they read back, and nothing else reads as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base import keys

MODULES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*", fullmatch=True) | st.just("")
OPS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)


@given(MODULES, OPS, st.integers(0, 10**6))
def test_a_node_key_reads_back(module, op, call):
    assert keys.split_node(keys.node_key(module, op, call)) == (module, op, call)


@given(MODULES, OPS, st.integers(0, 99), st.sampled_from(keys.PORTS))
def test_a_tensor_key_reads_back(module, op, call, port):
    node = keys.node_key(module, op, call)
    assert keys.split_tensor(keys.tensor_key(node, port)) == (node, port)


@given(MODULES, OPS, st.integers(0, 99), MODULES, OPS, st.integers(0, 99))
def test_different_parts_give_different_keys(module, op, call, other_module, other_op, other_call):
    same = (module, op, call) == (other_module, other_op, other_call)
    assert (keys.node_key(module, op, call) == keys.node_key(other_module, other_op, other_call)) == same


@pytest.mark.parametrize(
    "module, op, call",
    [
        ("a:b", "conv2d", 0),
        ("a#b", "conv2d", 0),
        ("a b", "conv2d", 0),
        ("a", "", 0),
        ("a", "conv2d.default", 0),
        ("a", "2d", 0),
        ("a", "conv2d", -1),
    ],
)
def test_parts_that_would_not_read_back_are_refused(module, op, call):
    with pytest.raises(ValueError, match="not a node key"):
        keys.node_key(module, op, call)


@pytest.mark.parametrize(
    "text", ["", "a", "a:b", "a:b#", "a:b#x", "a:b#00", "a:b#0:in", "a:b#0\n", "a:b:c#0", ":#0", "a:b#-1"]
)
def test_what_is_no_node_key(text):
    with pytest.raises(ValueError, match="expected module.path:op#call"):
        keys.split_node(text)


@pytest.mark.parametrize(
    "text", ["", "a:b#0", "a:b#0:", "a:b#0:bias", "a:b:in", "in", ":in", "a:b#0:in:out", "a:b#0:in "]
)
def test_what_is_no_tensor_key(text):
    with pytest.raises(ValueError, match="not a"):
        keys.split_tensor(text)


def test_a_port_that_is_none():
    with pytest.raises(ValueError, match="not a port: 'bias' \\(one of in, out, weight\\)"):
        keys.tensor_key("a:add#0", "bias")


def test_a_port_of_no_node():
    with pytest.raises(ValueError, match="not a node key"):
        keys.tensor_key("a", "in")
