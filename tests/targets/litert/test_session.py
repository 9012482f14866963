"""Sessions: what they take, what they refuse, batches, lengths and the order of ports."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.errors import ConversionError, MissingExtra, UsageError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.session import LiteRTSession, interpreter

TARGET = LiteRT()


@pytest.fixture(scope="module")
def opened(zoo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("open")
    TARGET.lower(zoo["residual"][0], nothing(), folder)
    return folder / "model.tflite"


def nothing():
    from haversack.base.encodings import Encodings

    return Encodings.none()


def image(*shape):
    return np.zeros(shape, np.float32)


def test_ports_are_the_files(opened):
    session = LiteRTSession(opened, 1)
    assert [(port.name, port.spec.shape, port.spec.dtype) for port in session.inputs] == [
        ("x", (1, 8, 8, 3), "float32")
    ]
    assert [port.spec.shape for port in session.outputs] == [(1, 5)]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"y": image(1, 8, 8, 3)},
        {"x": image(1, 8, 8, 3), "y": image(1, 8, 8, 3)},
        {"x": image(1, 3, 8, 8)},
        {"x": image(1, 7, 8, 3)},
        {"x": image(1, 9, 8, 3)},
        {"x": image(0, 8, 8, 3)},
        {"x": image(8, 8, 3)},
        {"x": image(1, 8, 8, 3).astype(np.float64)},
    ],
)
def test_inputs_that_do_not_fit_are_refused(opened, inputs):
    with pytest.raises(UsageError, match="do not fit") as caught:
        LiteRTSession(opened, 1).run(inputs)
    assert "x [1, 8, 8, 3] float32" in caught.value.next_step


def test_a_closed_session_says_so(opened):
    session = LiteRTSession(opened, 1)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({"x": image(1, 8, 8, 3)})


def test_threads_give_the_same(opened):
    x = {"x": np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)}
    one, two = (LiteRTSession(opened, threads).run(x)["output"] for threads in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-6)
    assert one.shape == (3, 5)


def test_arrays_need_not_be_contiguous(opened):
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32).transpose(0, 2, 3, 1)
    session = LiteRTSession(opened, 1)
    np.testing.assert_array_equal(session.run({"x": x})["output"], session.run({"x": x.copy()})["output"])


def test_results_are_the_callers_own(opened):
    session = LiteRTSession(opened, 1)
    first = session.run({"x": image(1, 8, 8, 3)})["output"]
    kept = first.copy()
    session.run({"x": image(1, 8, 8, 3) + 3})
    np.testing.assert_array_equal(first, kept)


def test_bytes_are_opened_as_well(opened):
    assert LiteRTSession(opened.read_bytes(), 1).inputs == LiteRTSession(opened, 1).inputs


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "no.tflite").write_bytes(b"no file at all")
    with pytest.raises(ConversionError, match="does not open"):
        TARGET.open_session(tmp_path / "no.tflite")
    with pytest.raises(ConversionError, match="does not open"):
        interpreter(b"no file at all either", 1, "here")


def test_a_missing_package_is_named(opened, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtra, match="ai-edge-litert"):
        LiteRTSession(opened, 1)


def test_ports_keep_the_models_order(exported, both):
    """The runtime lists signatures by the alphabet."""
    from torch import nn

    class Two(nn.Module):
        def forward(self, zebra, ant):
            return zebra - ant, ant * 2, zebra + 1

    arrays = [np.full((2, 3), value, np.float32) for value in (5, 3)]
    made = both(exported(Two(), *arrays, names=("zebra", "ant"), outputs=("z", "a", "m")))
    assert [port.name for port in made.session.inputs] == ["zebra", "ant"]
    assert [port.name for port in made.session.outputs] == ["z", "a", "m"]
    found = made.file(*arrays)
    assert [float(one[0, 0]) for one in found] == [2.0, 6.0, 6.0]
