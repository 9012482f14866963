"""Sessions: rows one after another, names and shapes as the model has them, mistakes told."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, UsageError
from haversack.targets.executorch import ExecuTorch
from haversack.targets.executorch.session import bindings
from haversack.targets.reference import Reference

TARGET = ExecuTorch()


@pytest.fixture(scope="module")
def session(lowered):
    return TARGET.open_session(lowered("branches")[4])


def test_the_interface_is_the_models(lowered, session):
    model = lowered("branches")[0]
    assert session.inputs == model.inputs
    assert session.outputs == model.outputs
    assert isinstance(session.inputs[0].spec.shape[0], str)


def test_rows_of_a_batch_are_those_of_single_calls(lowered, session):
    x = lowered("branches")[1][0]
    whole = session.run({"input": x} if session.inputs[0].name == "input" else {session.inputs[0].name: x})
    single = [session.run({session.inputs[0].name: x[row : row + 1]}) for row in range(len(x))]
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([one[name] for one in single]))


def test_results_stay_when_the_session_runs_again(lowered, session):
    x, name = lowered("branches")[1][0], session.inputs[0].name
    first = next(iter(session.run({name: x[:1]}).values()))
    kept = first.copy()
    session.run({name: x[1:2]})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :2],
        lambda x: x.astype(np.float64),
        lambda x: x[0],
        lambda x: x[:0],
    ],
)
def test_inputs_that_do_not_fit(lowered, session, change):
    x = lowered("branches")[1][0]
    with pytest.raises(UsageError, match="do not fit"):
        session.run({session.inputs[0].name: change(x)})


def test_missing_and_unknown_inputs(lowered, session):
    x = lowered("branches")[1][0]
    for given in ({}, {"nobody": x}, {session.inputs[0].name: x, "nobody": x}):
        with pytest.raises(UsageError, match="do not fit"):
            session.run(given)


def test_a_closed_session_says_so(lowered):
    opened = TARGET.open_session(lowered("branches")[4])
    opened.close()
    with pytest.raises(UsageError, match="closed"):
        opened.run({})


def test_a_fixed_batch_is_run_whole(exported, tmp_path):
    import torch

    model = exported(torch.nn.Linear(4, 2), np.zeros((3, 4), np.float32), free=False)
    TARGET.lower(model, Encodings.none(), tmp_path)
    opened = TARGET.open_session(tmp_path / "model.pte")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = opened.run({opened.inputs[0].name: x})["output"]
    np.testing.assert_allclose(found, Reference().run(model, Encodings.none(), (x,))[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match=r"\[3, 4\]"):
        opened.run({opened.inputs[0].name: x[:2]})


def test_one_thread_unless_asked(lowered):
    native = bindings(1)
    path = lowered("branches")[4]
    TARGET.open_session(path, {}, 2)
    assert native._threadpool_get_thread_count() == 2
    TARGET.open_session(path)
    assert native._threadpool_get_thread_count() == 1


@pytest.mark.parametrize("content", [b"", b"no file of ours", b"\0" * 100])
def test_a_file_that_is_none(tmp_path, content):
    path = tmp_path / "model.pte"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match="does not open"):
        TARGET.open_session(path)


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(ConversionError, match="does not open"):
        TARGET.open_session(tmp_path / "gone.pte")


def test_the_runtime_tells_its_affairs_to_nobody(lowered, capfd):
    TARGET.open_session(lowered("branches")[4], {}, 2)
    TARGET.open_session(lowered("branches")[4])
    assert capfd.readouterr() == ("", "")


def test_what_is_proven_tells_its_interface_without_being_read_whole(lowered, monkeypatch):
    from haversack.targets.executorch import parse, session

    path = lowered("branches")[4]
    assert parse.about(path) == parse.parse(path).about
    whole = TARGET.open_session(path)
    monkeypatch.setattr(session, "parse", lambda path: pytest.fail("it was read whole"))
    proven = TARGET.open_session(path, proven=True)
    assert (proven.inputs, proven.outputs) == (whole.inputs, whole.outputs)


def test_about_of_a_spoiled_file_is_told(lowered, tmp_path):
    from haversack.base.errors import VerificationError
    from haversack.targets.executorch import parse

    data = bytearray(lowered("branches")[4].read_bytes())
    for place, name in ((4, b"ET00"), (24, (1 << 62).to_bytes(8, "little")), (24, (40).to_bytes(8, "little"))):
        spoiled = data.copy()
        spoiled[place : place + len(name)] = name
        (tmp_path / "spoiled.pte").write_bytes(spoiled)
        try:
            assert parse.about(tmp_path / "spoiled.pte") == parse.about(lowered("branches")[4])
        except VerificationError as error:
            assert "not a .pte file that we have written" in str(error)
        else:
            assert place == 24, "another mark was read"
    (tmp_path / "empty.pte").write_bytes(b"")
    with pytest.raises(VerificationError):
        parse.about(tmp_path / "empty.pte")
