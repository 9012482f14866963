"""Whose time it is: events of the profiler joined to the file's nodes."""

from __future__ import annotations

import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import VerificationError
from haversack.targets.executorch import ExecuTorch
from haversack.targets.executorch.parse import Delegate, Program, Step, Value
from haversack.targets.executorch.timing import owned, unfused

TARGET = ExecuTorch()


def program(*kinds, layers):
    values = tuple(Value(1, (1,), 0) for _ in range(9))
    steps = tuple(Step(kind, index + 1, (index,)) for index, kind in enumerate(kinds))
    return Program({"layers": layers}, (Delegate(values, steps),), ())


def test_events_belong_to_the_next_node_of_their_kind():
    found = owned(
        [
            ("Transpose (ND, X32) #1", 1.0),
            ("Convolution (NHWC, QC8) IGEMM #1", 2.0),
            ("Fully Connected (NC, QS8, QC8W) GEMM #1", 4.0),
            ("Add (ND) #1", 8.0),
            ("DELEGATE_CALL", 100.0),
            ("Method::execute", 100.0),
        ],
        program("StaticTranspose", "Conv2d", "Conv2d", "Add", layers={"0/1": "a", "0/2": "b", "0/3": "c"}),
    )
    assert found == {"": 1.0, "a": 2.0, "b": 4.0, "c": 8.0}


def test_events_that_no_node_explains_have_no_owner():
    found = owned([("Softmax (NC) #1", 1.0), ("Add (ND) #1", 2.0)], program("Conv2d", layers={"0/0": "a"}))
    assert found == {"": 3.0}


def test_portable_operators_have_no_owner():
    assert owned([("OPERATOR_CALL", 3.0)], program(layers={})) == {"": 3.0}


@pytest.mark.parametrize("name", ["resnet", "keywords", "sequence"])
def test_every_layer_has_its_time(lowered, name):
    model, sample, _, artifact, path = lowered(name)
    found = TARGET.layer_seconds(path, artifact, sample, 3)
    layers = {node.key for node in model.graph.nodes if node.op in ("conv2d", "conv1d", "linear")}
    assert layers <= found.keys()
    assert all(0 <= seconds < 1 for seconds in found.values())


def test_a_file_that_is_none_has_no_times(tmp_path):
    path = tmp_path / "model.pte"
    path.write_bytes(b"nothing")
    with pytest.raises(VerificationError, match="not a .pte file"):
        TARGET.layer_seconds(path, None, (), 1)


def test_integers_are_never_computed_in_float(lowered):
    _, _, _, artifact, path = lowered("resnet")
    assert TARGET.unfused(path, artifact) == ()


def test_a_layer_between_two_changes_of_form_is_told(zoo, encoded, tmp_path):
    model, sample = zoo["sequence"]
    whole = encoded(model, sample)
    kept = {key: value for key, value in whole.tensors.items() if key.endswith(":out")}
    artifact = TARGET.lower(model, Encodings(kept), tmp_path)
    assert set(unfused(tmp_path / "model.pte")) == {"mix:conv1d#0", "out:linear#0"}
    assert artifact.read_back == len(kept)
