"""Files that somebody changed: every number of a real .param file, and every cut of both, is read or refused by name.

A reader that raises anything but ``VerificationError`` would end the run of whoever was given the file.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.errors import VerificationError
from haversack.targets.ncnn.read import beside, files
from haversack.targets.ncnn.text import MAGIC, Line, to_text
from haversack.tools.graph.injection import differences

NAMES = ("residual", "moves", "line", "clamped")
VALUES = (0, -1, 7, (1 << 31) - 1, -(1 << 31), 1.5, (), (1, 2, 3))
"""What a parameter may be said to be: nothing, less than nothing, far too much, no whole number, several."""
WEIGHTED = ("Convolution", "ConvolutionDepthWise", "Convolution1D", "ConvolutionDepthWise1D", "InnerProduct")


@pytest.fixture
def spoiled(lowered, tmp_path):
    """Copy lowered files, and return their path, their parts, and a function that reads them: faults, or none."""

    def of(name, precision="int8"):
        one = lowered(name, precision)
        path = tmp_path / f"{name}-{precision}.param"
        shutil.copyfile(one.path, path)
        shutil.copyfile(beside(one.path), beside(path))

        def told():
            try:
                return differences(one.encodings, one.target.read(path, one.artifact))[1]
            except VerificationError as error:
                assert error.where in (str(path), str(beside(path)))
                return error.faults or (error,)

        return path, files(path), told

    return of


def rewritten(path, lines):
    path.write_text(to_text(lines))


@pytest.mark.parametrize("name, precision", [*((name, "int8") for name in NAMES), ("residual", "int8_weights")])
def test_any_parameter_of_any_layer_may_be_anything(spoiled, name, precision):
    path, parts, told = spoiled(name, precision)
    tried = 0
    for place, line in enumerate(parts.lines):
        for number in (*line.settings, 31):
            for value in VALUES:
                changed = replace(line, settings={**line.settings, number: value})
                rewritten(path, [*parts.lines[:place], changed, *parts.lines[place + 1 :]])
                assert isinstance(told(), tuple)
                tried += 1
    assert tried > 200
    rewritten(path, parts.lines)
    assert told() == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_count_of_channels_that_is_not_the_weights_is_never_passed_over(spoiled, name):
    path, parts, told = spoiled(name)
    layers = [line for line in parts.lines if line.type in WEIGHTED]
    assert layers
    for line in layers:
        for more in (1, -1):
            changed = replace(line, settings={**line.settings, 0: line.whole(0) + more})
            rewritten(path, [changed if one is line else one for one in parts.lines])
            assert told(), f"{line.name} with {more:+} channel"


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_that_is_another_is_no_crash(spoiled, name):
    path, parts, told = spoiled(name)
    kinds = sorted({line.type for line in parts.lines} | {"LayerNorm", "BatchNorm", "Pooling", "Gemm"})
    for place, line in enumerate(parts.lines):
        for kind in kinds:
            rewritten(path, [*parts.lines[:place], replace(line, type=kind), *parts.lines[place + 1 :]])
            if kind != line.type and "weight" in parts.arrays[line.name] and kind not in WEIGHTED:
                assert told(), f"{line.name} as {kind} has no weight any more"
            else:
                assert isinstance(told(), tuple)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_that_is_gone_is_told_or_held_nothing(spoiled, name):
    path, parts, told = spoiled(name)
    for line in parts.lines:
        kept = [one for one in parts.lines if one is not line]
        rewritten(path, kept)
        assert told() or line.type in ("Noop", "Split"), line.name


def test_two_layers_that_changed_places_do_not_pass(spoiled):
    path, parts, told = spoiled("residual")
    reads = {line.name: set(line.inputs) for line in parts.lines}
    for place, line in enumerate(parts.lines[:-1]):
        behind = parts.lines[place + 1]
        rewritten(path, [*parts.lines[:place], behind, line, *parts.lines[place + 2 :]])
        if reads[behind.name] & set(line.outputs):
            (fault,) = told()
            assert f"{behind.name} reads" in fault.cause
        elif {"weight", "data", "scale"}.isdisjoint(parts.arrays[line.name]):
            assert told() == (), "neither reads the other, and no array moved"


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", ["residual", "line"])
def test_files_cut_anywhere_are_refused(spoiled, name, data):
    path, _, told = spoiled(name)
    for file in (path, beside(path)):
        whole = file.read_bytes()
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2), label=file.suffix)])
        assert told()
        file.write_bytes(whole)
    assert told() == ()


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_of_the_text_may_be_anything(spoiled, data):
    path, parts, told = spoiled("clamped")
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole))
    assert isinstance(told(), tuple)
    rewritten(path, parts.lines)


def test_a_blob_that_copies_itself_ends(spoiled):
    """A Split that reads no blob, and layers that read none where one is needed."""
    path, parts, told = spoiled("residual")
    for line in parts.lines:
        if line.inputs and line.type != "Split":
            lines = [replace(one, inputs=()) if one is line else one for one in parts.lines]
            rewritten(path, lines)
            assert isinstance(told(), tuple)
    idle = Line("Split", "idle", (), ("never",))
    rewritten(path, [parts.lines[0], idle, *parts.lines[1:]])
    assert told() == ()


def test_a_name_of_another_node_is_told_in_both_places(spoiled):
    path, parts, told = spoiled("residual")
    blob = "one:conv2d#0:weight/scales"
    lines = [replace(one, outputs=("wise:conv2d#0:weight/scales",)) if one.name == blob else one for one in parts.lines]
    lines = [one for one in lines if one.name != "wise:conv2d#0:weight/scales"]
    path.write_text(to_text(lines))
    data = parts.arrays["wise:conv2d#0:weight/scales"]["data"].values
    whole = beside(path).read_bytes()
    assert whole.count(data.tobytes()) == 1
    beside(path).write_bytes(whole.replace(data.tobytes(), b""))
    assert "one:conv2d#0" in {fault.where for fault in told()}


@pytest.mark.parametrize("head", [b"", str(MAGIC).encode(), f"{MAGIC}\n".encode(), f"{MAGIC}\n1 1\n".encode()])
def test_a_file_that_ends_in_its_head(spoiled, head):
    path, _, told = spoiled("line")
    path.write_bytes(head)
    (fault,) = told()
    assert fault.where == str(path)


def test_a_text_larger_than_any_of_ours_is_not_read(spoiled, monkeypatch):
    from haversack.targets.ncnn import text

    path, _, told = spoiled("line")
    monkeypatch.setattr(text, "LARGEST", path.stat().st_size - 1)
    (fault,) = told()
    assert f"a .param file of {path.stat().st_size} bytes" in fault.cause
