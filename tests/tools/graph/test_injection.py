"""What every target proves of a file: nothing that was changed, dropped or added goes unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from haversack.base.encodings import Affine, Codebook, Dynamic, Encodings, Float
from haversack.base.errors import VerificationError
from haversack.tools.graph import injection
from haversack.tools.graph.injection import Content, bias_differences, bias_digests, count, derived, differences, proven
from haversack.tools.numerics import affine

FILE = Path("net.file")
OUT, WEIGHT, TABLE, IN = "stem:conv2d#0:out", "stem:conv2d#0:weight", "book:embedding#0:weight", "head:linear#0:in"
CODES = np.arange(12, dtype=np.int32).reshape(3, 4) - 5
INDICES = np.array([[0, 1], [3, 2]], np.int32)


def grid(scale=0.5, zero=3, bits=8, *, signed=False, axis=None):
    count = () if axis is None else (3,)
    return Affine(bits, signed, axis, np.full(count, scale, np.float32), np.full(count, zero, np.int32))


def book(*values, bits=2):
    return Codebook(bits, np.array(values or (-1.0, 0.0, 0.5, 2.0), np.float32))


def meant():
    return Encodings(
        {OUT: grid(), WEIGHT: grid(0.1, 0, signed=True, axis=0), TABLE: book(), IN: Dynamic()},
        {WEIGHT: CODES, TABLE: INDICES},
    )


def changed(tensors=None, integers=None, *, without=()):
    """Return the encodings with some replaced, and some left out."""
    base = meant()
    tensors = {**base.tensors, **(tensors or {})}
    integers = {**base.integers, **(integers or {})}
    return Content(
        {key: one for key, one in tensors.items() if key not in without},
        {key: one for key, one in integers.items() if key not in without},
    ).encodings()


def one_more(codes):
    found = codes.copy()
    found[1, 1] += 1
    return found


def nearest(value):
    return float(np.nextafter(np.float32(value), np.float32(9)))


CHANGES = {
    "a scale by one step of float32": (changed({OUT: grid(nearest(0.5))}), OUT, "scale [0.50000006] instead of [0.5]"),
    "a scale doubled": (changed({OUT: grid(1.0)}), OUT, "scale [1.] instead of [0.5]"),
    "a zero-point": (changed({OUT: grid(zero=4)}), OUT, "zero-point [4] or form differs from [3]"),
    "the sign of codes": (changed({OUT: grid(zero=0, signed=True)}), OUT, "or form differs"),
    "the bits of codes": (changed({OUT: grid(bits=4)}), OUT, "or form differs"),
    "one scale for three": (changed({WEIGHT: grid(0.1, 0, signed=True)}), WEIGHT, "scale [0.1] instead of [0.1 0.1"),
    "one entry of a palette": (changed({TABLE: book(-1.0, 0.0, 0.5, 2.5)}), TABLE, "palette [-1.   0.   0.5  2.5]"),
    "the bits of a palette": (changed({TABLE: book(*range(8), bits=3)}), TABLE, "instead of [-1.   0.   0.5  2. ]"),
    "another kind": (changed({TABLE: grid()}), TABLE, "Affine instead of Codebook"),
    "a float for integers": (changed({OUT: Float("float16")}), OUT, "Float instead of Affine"),
    "an input that is not dynamic": (changed({IN: Float("float16")}), IN, "Float instead of Dynamic"),
    "an encoding that is gone": (changed(without=[OUT]), OUT, "the file does not encode it"),
    "one that nobody asked for": (changed({"a:add#0:out": grid()}), "a:add#0:out", "that nobody asked for"),
    "one integer": (changed(integers={WEIGHT: one_more(CODES)}), WEIGHT, "1 of 12 integers differ"),
    "all integers": (changed(integers={WEIGHT: CODES + 1}), WEIGHT, "12 of 12 integers differ"),
    "an index": (changed(integers={TABLE: INDICES[::-1].copy()}), TABLE, "4 of 4 integers differ"),
    "a shape": (changed(integers={WEIGHT: CODES[:, 1:].copy()}), WEIGHT, "missing or of another shape"),
}


def test_the_same_is_equal_and_counted():
    equal, faults = differences(meant(), changed())
    assert faults == ()
    assert equal == count(meant()) == 4 + 12 + 4


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_told_by_its_tensor(name):
    found, key, cause = CHANGES[name]
    equal, faults = differences(meant(), found)
    assert [fault.where for fault in faults] == [key]
    assert cause in faults[0].cause
    assert equal < count(meant()) or name == "one that nobody asked for"


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_no_proof(name):
    found, key, _ = CHANGES[name]
    with pytest.raises(VerificationError, match="does not hold what was injected") as caught:
        proven(meant(), {}, Content(dict(found.tensors), dict(found.integers)), FILE)
    assert caught.value.where == "net.file"
    assert [fault.where for fault in caught.value.faults] == [key]
    assert "report this" in caught.value.next_step


def test_all_changes_are_told_at_once_in_the_order_of_keys():
    found = changed({OUT: grid(1.0), TABLE: book(0, 1, 2, 3)}, {WEIGHT: CODES + 1}, without=[IN])
    _, faults = differences(meant(), found)
    assert [fault.where for fault in faults] == [*sorted([OUT, TABLE, IN]), WEIGHT]


@given(st.data())
def test_any_single_integer_that_changes_is_seen(data):
    row, column = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
    codes = CODES.copy()
    codes[row, column] ^= 1 << data.draw(st.integers(0, 6))
    equal, faults = differences(meant(), changed(integers={WEIGHT: codes}))
    assert [(fault.where, fault.cause) for fault in faults] == [(WEIGHT, "1 of 12 integers differ")]
    assert equal == count(meant()) - 1


@given(st.floats(2**-20, 2**20, width=32), st.integers(0, 255), st.floats(2**-20, 2**20, width=32), st.integers(0, 255))
def test_grids_are_equal_when_every_bit_is(scale, zero, other, second):
    equal, faults = differences(Encodings({OUT: grid(scale, zero)}), Encodings({OUT: grid(other, second)}))
    same = np.float32(scale) == np.float32(other) and zero == second
    assert (equal, len(faults)) == ((1, 0) if same else (0, 1))


BIASES = {"a:conv2d#0": (np.array([4, -7], np.int32), np.array([0.1, 0.2], np.float32))}
WRONG = {
    "a code": ({"a:conv2d#0": (np.array([4, -6], np.int32), BIASES["a:conv2d#0"][1])}, "not the one that was written"),
    "a scale": ({"a:conv2d#0": (BIASES["a:conv2d#0"][0], np.array([0.1, 0.3], np.float32))}, "not the one"),
    "a dtype": ({"a:conv2d#0": (np.array([4, -7], np.int64), BIASES["a:conv2d#0"][1])}, "not the one"),
    "one that is gone": ({}, "not stored as int32 codes"),
    "one too many": ({**BIASES, "b:linear#0": BIASES["a:conv2d#0"]}, "that nobody asked for"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_bias_that_differs_is_told(name):
    found, cause = WRONG[name]
    faults = bias_differences(bias_digests(BIASES), found)
    assert len(faults) == 1
    assert cause in faults[0].cause
    content = Content(biases=dict(found))
    with pytest.raises(VerificationError, match="biases are not those that were written") as caught:
        content.held(bias_digests(BIASES), FILE)
    assert caught.value.faults == faults
    with pytest.raises(VerificationError, match="does not hold what was injected"):
        proven(Encodings.none(), BIASES, content, FILE)


def test_biases_that_are_equal_count_by_their_codes():
    proof = proven(meant(), BIASES, Content(dict(meant().tensors), dict(meant().integers), dict(BIASES)), FILE)
    assert proof.injected == proof.read_back == count(meant()) + 2
    assert proof.bias_digests == bias_digests(BIASES)
    tensors = dict(meant().tensors)
    assert Content(tensors, biases=dict(BIASES)).held(proof.bias_digests, FILE).tensors == tensors


def test_faults_of_reading_are_told_together():
    content = Content(faults=[injection.Fault("a", "odd"), injection.Fault("b", "odder")])
    with pytest.raises(VerificationError, match="not as it was written") as caught:
        content.sound(FILE)
    assert [fault.where for fault in caught.value.faults] == ["a", "b"]
    assert Content().sound(FILE).faults == []


@pytest.fixture(scope="module")
def network():
    """Return a small network: two layers, of which the first has a clamp behind it."""
    from haversack.tools.graph.canonical import to_model

    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    program = torch.export.export(module, (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return to_model(program, "net", input_names=("x",))


ACTIVATIONS = ["x:input#0:out", "1:relu#0:out", "2:linear#0:out"]
WEIGHTS = ["0:linear#0:weight", "2:linear#0:weight"]


def whole(network, without=()):
    tensors = {key: grid(0.25, 10) for key in ACTIVATIONS}
    sizes = {key: len(network.weights[f"{key[0]}.weight"]) for key in WEIGHTS}
    tensors |= {
        key: Affine(8, True, 0, np.full(n, 0.125, np.float32), np.zeros(n, np.int32)) for key, n in sizes.items()
    }
    return Encodings({key: one for key, one in tensors.items() if key not in without})


def test_biases_follow_from_the_scales_of_input_and_weight(network):
    found = derived(network, whole(network), ["linear"])
    assert list(found) == ["0:linear#0", "2:linear#0"]
    for key, (codes, scale) in found.items():
        bias = network.weights[f"{key[0]}.bias"]
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(scale, np.full(len(bias), 0.25 * 0.125, np.float32))
        np.testing.assert_allclose(codes * scale, bias, atol=0.25 * 0.125 / 2)
        np.testing.assert_array_equal(codes, affine.bias_codes(bias, np.float32(0.25), scale / np.float32(0.25)))


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ("x:input#0:out", ["2:linear#0"]),
        ("1:relu#0:out", []),
        ("2:linear#0:out", ["0:linear#0"]),
        ("0:linear#0:weight", ["2:linear#0"]),
    ],
)
def test_a_layer_that_runs_in_float_has_no_bias_in_integers(network, gone, left):
    assert list(derived(network, whole(network, [gone]), ["linear"])) == left
    assert derived(network, whole(network), ["conv2d"]) == {}


def test_a_bias_beyond_int32_is_refused(network):
    tiny = whole(network)
    small = Affine(8, True, 0, np.full(3, 1e-12, np.float32), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="int32"):
        derived(network, Encodings({**tiny.tensors, "0:linear#0:weight": small}), ["linear"])


REFUSED = {
    "float32 said aloud": ("x:input#0:out", Float("float32"), "leave it out"),
    "float16": ("x:input#0:out", Float("float16"), "not as Float"),
    "a palette": ("x:input#0:out", book(), "not as Codebook"),
    "signed codes": ("x:input#0:out", grid(zero=0, signed=True), "in 8 bits with one scale"),
    "four bits": ("x:input#0:out", grid(bits=4), "in 8 bits with one scale"),
    "a scale for each channel": ("x:input#0:out", grid(axis=0), "in 8 bits with one scale"),
    "inside a unit": ("0:linear#0:out", grid(), "inside a fused unit"),
    "an input without a weight": ("2:linear#0:in", Dynamic(), "needs an integer weight"),
    "a weight that the target does not take": ("0:linear#0:weight", Float("float16"), "no such weight"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_place_is_told_by_its_key(network, name):
    key, encoding, cause = REFUSED[name]
    encodings = Encodings({key: encoding})
    found = list(injection.unheld(network, encodings, {"0:linear#0"}, lambda *_: "no such weight", lambda *_: ""))
    assert [fault.where for fault in found] == [key]
    assert cause in found[0].cause


def test_what_has_a_place_is_not_told(network):
    assert list(injection.unheld(network, whole(network), {"0:linear#0"}, lambda *_: "", lambda *_: "")) == []
