"""Sessions of other interfaces than one image: several inputs and outputs, fixed ones, lists of whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import UsageError
from haversack.targets.executorch import ExecuTorch
from haversack.targets.reference import Reference

TARGET = ExecuTorch()


def export_mixed(free):
    """Return the Model of x + table (fixed), some of whose inputs have a free batch."""
    import torch

    from haversack.tools.graph import canonical

    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 5)

        def forward(self, x, table):
            return self.layer(x) + table[0], table * 2

    torch.manual_seed(0)
    shapes = tuple({0: torch.export.Dim.AUTO} if one else {} for one in free)
    tensors = torch.zeros(3, 4), torch.zeros(2, 5)
    return canonical.to_model(torch.export.export(Mixed().eval(), tensors, dynamic_shapes=shapes), "mixed")


@pytest.fixture(scope="module", params=[(True, False), (False, False)])
def mixed(request, tmp_path_factory):
    """Return (model, session)."""
    folder = tmp_path_factory.mktemp("mixed")
    model = export_mixed(request.param)
    artifact = TARGET.lower(model, Encodings.none(), folder)
    return model, TARGET.open_session(folder / "model.pte"), folder / "model.pte", artifact


def arrays(rows=3):
    rng = np.random.default_rng(rows)
    return rng.normal(size=(rows, 4)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)


def given(model, sample):
    return {port.name: array for port, array in zip(model.inputs, sample, strict=True)}


def test_inputs_whose_first_axes_are_not_all_the_batch(mixed):
    model, session, path, artifact = mixed
    sample = arrays()
    found = session.run(given(model, sample))
    for port, wanted in zip(model.outputs, Reference().run(model, Encodings.none(), sample), strict=True):
        np.testing.assert_allclose(found[port.name], wanted, rtol=1e-5, atol=1e-6, err_msg=port.name)
    assert TARGET.layer_seconds(path, artifact, sample, 1)
    shown = TARGET.tensors(path, artifact, sample, ["layer:linear#0:out"])
    assert all(array.shape[-1] == 5 for array in shown.values())


def test_a_fixed_input_keeps_its_length(mixed):
    model, session, *_ = mixed
    x, table = arrays()
    with pytest.raises(UsageError, match="do not fit") as caught:
        session.run(given(model, (x, table[:1])))
    assert "[2, 5] float32" in caught.value.next_step
    assert "[1, 5]" in caught.value.cause


def test_each_input_that_is_missing_is_told(mixed):
    model, session, *_ = mixed
    whole = given(model, arrays())
    for name in whole:
        with pytest.raises(UsageError, match="do not fit"):
            session.run({key: array for key, array in whole.items() if key != name})


@pytest.mark.parametrize("rows", [1, 2, 17, 64])
def test_batches_of_any_length(lowered, rows):
    model, sample, encodings, _, path = lowered("sequence")
    x = np.concatenate([sample[0]] * rows)[:rows]
    name = model.inputs[0].name
    with_rows = TARGET.open_session(path).run({name: x})[model.outputs[0].name]
    assert len(with_rows) == rows
    np.testing.assert_array_equal(with_rows, Reference().run(model, encodings, (x,))[0])


DTYPES = ["float64", "float16", "int32", "int64", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_dtypes_are_refused_and_not_converted(lowered, dtype):
    model, sample, _, _, path = lowered("sequence")
    with pytest.raises(UsageError, match=dtype):
        TARGET.open_session(path).run({model.inputs[0].name: sample[0].astype(dtype)})


@pytest.mark.parametrize("form", ["strided", "turned", "read-only", "reversed"])
def test_arrays_of_any_memory_order(lowered, form):
    model, sample, encodings, _, path = lowered("sequence")
    x = sample[0]
    if form == "strided":
        x = np.repeat(x, 2, axis=2)[:, :, ::2]
    elif form == "turned":
        x = np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0)
    elif form == "read-only":
        x = x.copy()
        x.flags.writeable = False
    else:
        x = np.ascontiguousarray(x[::-1])[::-1]
    before = x.copy()
    found = TARGET.open_session(path).run({model.inputs[0].name: x})[model.outputs[0].name]
    np.testing.assert_array_equal(found, Reference().run(model, encodings, sample)[0])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_numbers_that_no_code_holds_do_not_crash(lowered, number):
    model, sample, encodings, _, path = lowered("sequence")
    x = sample[0][:1].copy()
    x[0, 0, 3] = number
    found = TARGET.open_session(path).run({model.inputs[0].name: x})[model.outputs[0].name]
    assert np.isfinite(found).all()
    if np.isfinite(number) or number > 0:
        large = np.nan_to_num(x, nan=0, posinf=1e30, neginf=-1e30)
        np.testing.assert_array_equal(found, Reference().run(model, encodings, (large,))[0])


def test_words_are_whole_numbers(zoo, tmp_path):
    model, sample = zoo["words"]
    TARGET.lower(model, Encodings.none(), tmp_path)
    session = TARGET.open_session(tmp_path / "model.pte")
    assert [port.spec.dtype for port in session.inputs] == ["int64"]
    with pytest.raises(UsageError, match="int32"):
        session.run({model.inputs[0].name: sample[0].astype(np.int32)})
    with pytest.raises(UsageError, match="does not run it"):
        session.run({model.inputs[0].name: np.full_like(sample[0], 20)})  # one more than the table has
    found = session.run({model.inputs[0].name: sample[0]})
    assert np.isfinite(found[model.outputs[0].name]).all(), "a refused call leaves the session as it was"


def test_closing_twice_is_no_fault(lowered):
    session = TARGET.open_session(lowered("sequence")[4])
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({})


def test_two_sessions_of_one_file_do_not_share_anything(lowered):
    model, sample, _, _, path = lowered("sequence")
    one, two = TARGET.open_session(path), TARGET.open_session(path)
    inputs = {model.inputs[0].name: sample[0]}
    before = two.run(inputs)[model.outputs[0].name]
    one.run({model.inputs[0].name: -sample[0]})
    one.close()
    np.testing.assert_array_equal(two.run(inputs)[model.outputs[0].name], before)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(lowered, threads):
    with pytest.raises(UsageError, match="at least one thread"):
        TARGET.open_session(lowered("sequence")[4], {}, threads)


def test_more_threads_change_no_number(lowered):
    model, sample, _, _, path = lowered("sequence")
    inputs = {model.inputs[0].name: sample[0]}
    found = [TARGET.open_session(path, {}, threads).run(inputs)[model.outputs[0].name] for threads in (1, 3)]
    np.testing.assert_array_equal(*found)
