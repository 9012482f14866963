"""Reading back: every number of the files is looked at, and one that is not ours is told in its place."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.encodings import Affine, Float
from haversack.base.errors import VerificationError
from haversack.targets.ncnn.blobs import Array, Form, total
from haversack.targets.ncnn.read import beside, files
from haversack.targets.ncnn.text import Line, to_text
from haversack.tools.graph.injection import count, differences

NAMES = ("residual", "moves", "line", "clamped")


class Copy:
    """A copy of lowered files, to be changed."""

    def __init__(self, lowered, folder):
        self.lowered, self.path = lowered, folder / "model.param"
        shutil.copyfile(lowered.path, self.path)
        shutil.copyfile(beside(lowered.path), beside(self.path))
        self.files = files(self.path)

    def read(self):
        return self.lowered.target.read(self.path, self.lowered.artifact)

    def differences(self):
        return differences(self.lowered.encodings, self.read())[1]

    def array(self, layer, role, edit):
        """Change the values of one array."""
        old = self.files.arrays[layer][role]
        values = np.array(old.values)
        edit(values)
        self.files.arrays[layer][role] = Array(role, old.form, values)
        return self.save(self.files.lines)

    def line(self, layer, edit):
        """Change one line."""
        return self.save([edit(one) if one.name == layer else one for one in self.files.lines])

    def save(self, lines):
        self.path.write_text(to_text(lines))
        beside(self.path).write_bytes(b"".join(total(lines, self.files.arrays)))
        return self


@pytest.fixture
def copied(lowered, tmp_path):
    """(name, precision) -> Copy."""
    return lambda name, precision="int8": Copy(lowered(name, precision), tmp_path)


@pytest.mark.parametrize("precision", ["int8", "int8_weights", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_all_that_was_injected_is_read_back(lowered, name, precision):
    one = lowered(name, precision)
    found = one.target.read(one.path, one.artifact)
    assert differences(one.encodings, found) == (count(one.encodings), ())
    assert one.artifact.injected == one.artifact.read_back >= count(one.encodings) > 0
    assert bool(one.artifact.bias_digests) is (precision == "int8")
    assert any(isinstance(encoding, Float if precision == "float16" else Affine) for encoding in found.tensors.values())


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bit_of_an_integer_file_changes_unseen(lowered, name, tmp_path_factory, data):
    one = lowered(name)
    folder = tmp_path_factory.getbasetemp() / f"bits-{name}"
    folder.mkdir(exist_ok=True)
    copy = Copy(one, folder)
    whole = bytearray(beside(copy.path).read_bytes())
    place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    whole[place] ^= 1 << bit
    beside(copy.path).write_bytes(bytes(whole))
    try:
        faults = copy.differences()
    except VerificationError as error:
        assert error.where in (str(copy.path), str(beside(copy.path)))
    else:
        assert faults != (), f"bit {bit} of byte {place} of {len(whole)}"


def up(values):
    values[0] = np.nextafter(values[0], np.float32(np.inf))


def more(values):
    values[0] += 1 if values[0] < 100 else -1


CHANGED = [
    ("residual", "one:conv2d#0", "weight", more, "one:conv2d#0:weight", "1 of 432 integers differ"),
    ("residual", "wise:conv2d#0/sum", "weight", more, "wise:conv2d#0:weight", "1 of 400 integers differ"),
    ("residual", "one:conv2d#0", "weight scale", up, "one:conv2d#0", "the weight scale does not follow"),
    ("residual", "one:conv2d#0", "input scale", up, "one:conv2d#0", "the input scale does not follow"),
    ("residual", "one:conv2d#0", "output scale", up, "one:conv2d#0", "the output scale does not follow"),
    ("residual", "wise:conv2d#0/settle", "scale", up, "wise:conv2d#0", "the factor of the sum does not follow"),
    ("residual", ":mean#0/settle", "scale", up, ":mean#0", "the factor of the sum does not follow"),
    ("residual", "x:input#0/round", "scale", up, "x:input#0", "the factor of rounding does not follow"),
    ("residual", "head:linear#0/settle", "scale", up, "head:linear#0", "the factor of codes does not follow"),
    ("residual", "wise:conv2d#0/sum", "bias", lambda v: np.add(v, 0.5, out=v), "wise:conv2d#0", "the bias does not"),
    ("moves", "head:linear#0/codes", "scale", up, "head:linear#0", "the factor of codes does not follow"),
    ("line", "one:conv1d#0/scaled", "scale", up, "one:conv1d#0", "the factor of the sum does not follow"),
    ("line", "two:linear#0:out/factor", "data", up, "two:linear#0", "the factor of the sum does not follow"),
]


@pytest.mark.parametrize("name, layer, role, edit, where, cause", CHANGED, ids=[f"{c[1]} {c[2]}" for c in CHANGED])
def test_a_changed_number_is_told_in_its_place(copied, name, layer, role, edit, where, cause):
    copy = copied(name).array(layer, role, edit)
    try:
        faults = copy.differences()
    except VerificationError as error:
        faults = error.faults
        assert error.next_step == "lower the model again"
    assert [fault.where for fault in faults] == [where]
    assert cause in faults[0].cause


def test_a_scale_has_consequences_and_all_are_told(copied):
    copy = copied("residual").array(":relu6#0:out/scale", "data", up)
    with pytest.raises(VerificationError, match="not as it was written") as caught:
        copy.read()
    told = {fault.where for fault in caught.value.faults}
    assert {"one:conv2d#0", "wise:conv2d#0"} <= told


def test_a_bias_that_fits_another_code_is_told_by_its_digest(copied):
    copy = copied("residual").array("wise:conv2d#0/sum", "bias", lambda values: np.add(values, 1, out=values))
    with pytest.raises(VerificationError, match="biases are not those") as caught:
        copy.read()
    (fault,) = caught.value.faults
    assert (fault.where, "not the one that was written" in fault.cause) == ("wise:conv2d#0", True)


@pytest.mark.parametrize("precision", ["int8_weights", "float16"])
def test_stored_weights_are_looked_at(copied, precision):
    copy = copied("residual", precision)
    layer = next(name for name, arrays in copy.files.arrays.items() if "weight" in arrays)
    if precision == "float16":  # what is stored in half is float: how it is stored is what counts here
        copy.array(layer, "weight", lambda values: values.fill(0.5))
        assert copy.differences() == ()
        return
    assert "integers differ" in copy.array(layer, "weight", more).differences()[0].cause


def test_the_scales_of_stored_integers_are_looked_at(copied):
    copy = copied("residual", "int8_weights").array("one:conv2d#0", "scale", up)
    with pytest.raises(VerificationError) as caught:
        copy.read()
    assert [(fault.where, "the factor of the sum" in fault.cause) for fault in caught.value.faults] == [
        ("one:conv2d#0", True)
    ]


def renamed(name):
    return lambda line: Line(line.type, name, line.inputs, line.outputs, line.settings)


def test_integers_without_a_scale_are_told(copied):
    copy = copied("residual")
    gone = "one:conv2d#0:weight/scales"
    copy.save([line for line in copy.files.lines if line.name != gone])
    with pytest.raises(VerificationError) as caught:
        copy.read()
    assert ("one:conv2d#0", "integers without a scale") in [(one.where, one.cause) for one in caught.value.faults]


def test_a_scale_without_integers_is_told(copied):
    copy = copied("residual")
    extra = Line("MemoryData", "more", (), ("gone:conv2d#0:weight/scale",), {0: 1})
    copy.files.arrays["more"] = {"data": Array("data", Form.PLAIN, np.ones(1, np.float32))}
    copy.save([copy.files.lines[0], extra, *copy.files.lines[1:]])
    with pytest.raises(VerificationError) as caught:
        copy.read()
    assert [str(fault) for fault in caught.value.faults] == ["gone:conv2d#0:weight: a scale without integers"]


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("constant", [":relu6#0:out/scale", "one:conv2d#0:weight/scales"])
def test_a_scale_that_is_none_is_told(copied, constant, value):
    copy = copied("residual").array(constant, "data", lambda values: values.fill(value))
    with pytest.raises(VerificationError) as caught:
        copy.read()
    assert constant.rpartition("/")[0] in {fault.where for fault in caught.value.faults}


def test_a_wrong_number_of_channels_is_told(copied):
    def fewer(line):
        return Line(line.type, line.name, line.inputs, line.outputs, {**line.settings, 1: 7, 11: 7})

    copy = copied("residual").line("one:conv2d#0", fewer)
    with pytest.raises(VerificationError) as caught:
        copy.read()
    assert "432 integers for 16 channels" in str(caught.value)


def test_ratios_of_an_add_are_looked_at(copied):
    def other(line):
        return Line(line.type, line.name, line.inputs, line.outputs, {**line.settings, 1: (0.5, 0.25)})

    with pytest.raises(VerificationError) as caught:
        copied("residual").line(":add#0/sum", other).read()
    assert [fault.where for fault in caught.value.faults] == [":add#0"]
    assert "a ratio of the add does not follow" in caught.value.faults[0].cause


def test_files_of_two_models_do_not_go_together(lowered, tmp_path):
    shutil.copyfile(lowered("residual").path, tmp_path / "model.param")
    shutil.copyfile(beside(lowered("line").path), tmp_path / "model.bin")
    with pytest.raises(VerificationError, match="no ncnn .bin file of this .param file"):
        lowered("residual").target.read(tmp_path / "model.param", lowered("residual").artifact)


def test_a_layer_of_one_channel_over_two_axes(exported, planned, picture, lower):
    from torch import nn

    x = picture(2, 3, 4, 9)
    net = nn.Sequential(nn.Conv1d(4, 1, 3, padding=1), nn.ReLU(), nn.Linear(9, 1), nn.Hardtanh(-0.1, 0.2))
    model = exported(net, x)
    one = lower(model, planned(model, [(x,)]))
    assert one.artifact.injected == one.artifact.read_back > 20
    np.testing.assert_array_equal(one.file(x)[0], one.reference(x)[0])
