"""What is taken from a model and from the machine."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.model import Model, Port
from haversack.report import facts

OUT = TensorSpec(("batch", 4), "float32")
X86 = """processor\t: 0
model name\t: AMD EPYC 7B13
flags\t\t: fpu fma avx2 f16c avx512f avx512_vnni

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd0b\n"


@pytest.fixture
def small() -> Model:
    """input -> linear -> relu -> linear (read twice) -> relu, add -> output."""
    nodes = (
        Node("x:input#0", "input", "x", (), OUT),
        Node("a:linear#0", "linear", "l0", ("x:input#0",), OUT, "a.weight", "a.bias", ("a.weight", "a.bias"), macs=16),
        Node("r:relu#0", "relu", "r0", ("a:linear#0",), OUT),
        Node("b:linear#0", "linear", "l1", ("r:relu#0",), OUT, "b.weight", None, ("b.weight",), macs=16),
        Node("r:relu#1", "relu", "r1", ("b:linear#0",), OUT),
        Node(":add#0", "add", "add", ("b:linear#0", "r:relu#1"), OUT),
    )
    weights = {
        "a.weight": np.ones((4, 4), np.float32),
        "a.bias": np.ones(4, np.float32),
        "b.weight": np.ones((4, 4), np.float16),
        "unused": np.ones(1000, np.float32),
    }
    graph = Graph(nodes, ("x:input#0",), (":add#0",))
    return Model("small", graph, None, weights, (Port("x", OUT),), (Port("y", OUT),), ("folded nothing",))


def test_a_model_in_numbers(small):
    told = facts.of_model(small, source="job.py", time_share={"a:linear#0": 0.75})
    assert (told.name, told.source, told.notes) == ("small", "job.py", ("folded nothing",))
    assert (told.parameters, told.macs) == (36, 32)
    assert told.weight_bytes == 16 * 4 + 4 * 4 + 16 * 2
    assert told.digest == small.digest
    assert [layer.key for layer in told.layers] == ["a:linear#0", "b:linear#0"]
    assert [layer.parameters for layer in told.layers] == [20, 16]
    assert [layer.time_share for layer in told.layers] == [0.75, None]


def test_a_layer_leaves_the_tensor_behind_its_own_clamp(small):
    fused, shared = facts.of_model(small).layers
    assert fused.tensor == "r:relu#0:out"
    assert shared.tensor == "b:linear#0:out"


def test_an_output_is_not_hidden_by_a_clamp(small):
    nodes = small.graph.nodes[:3]
    graph = Graph(nodes, small.graph.inputs, ("a:linear#0", "r:relu#0"))
    shown = Model("cut", graph, None, small.weights, small.inputs, small.outputs)
    assert facts.of_model(shown).layers[0].tensor == "a:linear#0:out"


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [
        (X86, "AMD EPYC 7B13", {"fpu", "fma", "avx2", "f16c", "avx512f", "avx512_vnni"}),
        (ARM, "", {"fp", "asimd", "asimddp", "i8mm"}),
        ("", "", set()),
    ],
)
def test_the_first_processor_counts(text, name, flags):
    assert facts._processor(text) == (name, flags)


def test_only_flags_that_matter_are_told(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text(X86)
    monkeypatch.setattr(facts, "CPUINFO", info)
    told = facts.of_machine(threads=3)
    assert told.cpu == "AMD EPYC 7B13"
    assert told.cpu_flags == ("avx2", "avx512f", "avx512_vnni", "f16c", "fma")
    assert told.threads == 3


def test_without_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "CPUINFO", tmp_path / "none")
    told = facts.of_machine()
    assert told.cpu
    assert told.cpu_flags == ()


def test_versions_of_what_is_installed():
    told = facts.of_machine(packages=("numpy", "no-such-package-of-ours"))
    assert told.versions == {"numpy": np.__version__}
    assert told.python == ".".join(map(str, sys.version_info[:3]))
    assert told.cores >= 1


@pytest.mark.parametrize(
    ("names", "shown"),
    [("a", "a"), ("a, b, c, d", "a, b, c, d"), ("a, b, c, d, e", "a, b, c and 2 more"), ("", "")],
)
def test_a_note_lists_the_first_of_many_names(names, shown):
    assert facts.brief(f"fold_norm: norms folded: {names}") == f"fold_norm: norms folded: {shown}"
