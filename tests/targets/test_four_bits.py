"""Weights of 4 bits under 8-bit activations: every runtime holds them in half bytes and computes what the law says."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError
from haversack.base.plan import Plan
from haversack.compress.encode import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file
from haversack.tools.graph import canonical

NAMES = [name for name in ("onnxruntime", "litert", "executorch") if name != "executorch" or find_spec(name)]
NARROW = ("expand:conv2d#0", "project:conv2d#0", "head:linear#0")
"""Products of matrices."""
ODD = "odd:conv2d#0"
"""Another, with rows of odd length."""
WIDE = ("stem:conv2d#0", "deep:conv2d#0", "strided:conv2d#0")


@pytest.fixture(scope="module")
def model():
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.expand = nn.Conv2d(8, 33, 1)
            self.deep = nn.Conv2d(33, 33, 3, padding=1, groups=33)
            self.odd = nn.Conv2d(33, 16, 1)
            self.strided = nn.Conv2d(16, 12, 1, stride=2)
            self.project = nn.Conv2d(12, 12, 1, bias=False)
            self.head = nn.Linear(12, 5)

        def forward(self, x):
            x = nn.functional.relu6(self.stem(x))
            x = nn.functional.relu6(self.deep(nn.functional.relu6(self.expand(x))))
            x = self.strided(self.odd(x))
            return self.head((x + self.project(x)).mean((2, 3)))

    torch.manual_seed(1)
    shapes = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(Network().eval(), (torch.zeros(2, 3, 12, 12),), dynamic_shapes=shapes)
    return canonical.to_model(program, "narrow", input_names=["image"], output_names=["scores"])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(8, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def encodings(model, images):
    """In 4 bits all that some runtime computes in them, the layer with rows of odd length among it."""
    return narrowed(model, images, {*NARROW, ODD})


@pytest.fixture(scope="module")
def held(model, images, encodings):
    """Target -> encodings that it holds: ExecuTorch keeps 8 bits in rows of odd length."""
    return dict.fromkeys(NAMES, encodings) | {"executorch": narrowed(model, images, NARROW)}


def narrowed(model, images, keys):
    demands = SHELF.build("onnxruntime").constraints(model.graph)
    layers = uniform(model.graph, "w4a8", widths=dict.fromkeys(keys, frozenset({4})))
    return encode(model, Plan("onnxruntime", layers), ranges(model, [(images,)]), demands)[0]


@pytest.fixture(scope="module")
def lowered(model, held, images, tmp_path_factory):
    """A function: target -> (its artifact, the file's path, what it gives)."""
    made = {}

    def lower(name):
        if name not in made:
            target, folder = SHELF.build(name), tmp_path_factory.mktemp(name)
            artifact = target.lower(model, held[name], folder)
            path = folder / artifact.files[0].path
            feed = to_file(images, artifact.layouts.get("image", ""))
            session = target.open_session(path, artifact.session_options)
            made[name] = artifact, path, session.run({"image": feed})["scores"]
        return made[name]

    return lower


def test_products_are_narrow_and_other_layers_are_not(encodings):
    bits = {key.removesuffix(":weight"): encodings.affine(key).bits for key in encodings.tensors if ":weight" in key}
    assert bits == dict.fromkeys((*NARROW, ODD), 4) | dict.fromkeys(WIDE, 8)
    assert all(np.abs(encodings.integers[f"{key}:weight"]).max() == 7 for key in NARROW)


@pytest.mark.parametrize(
    "name, more, widths", [("onnxruntime", {ODD, *WIDE}, range(1, 8)), ("litert", (), [4]), ("executorch", (), [4])]
)
def test_each_target_says_which_layers_stay_fast(model, name, more, widths):
    assert SHELF.build(name).constraints(model.graph).widths == {key: set(widths) for key in (*NARROW, *more)}


def test_of_several_targets_only_what_all_keep_fast_remains(model):
    found = Constraints.union(SHELF.build(name).constraints(model.graph) for name in NAMES)
    assert found.widths == {key: {4} for key in NARROW}


@pytest.mark.parametrize("name", NAMES)
def test_the_file_gives_the_bits_of_the_reference(lowered, model, held, images, name):
    artifact, _, given = lowered(name)
    meant = Reference().run(model, held[name], (images,))[0]
    assert np.count_nonzero(given != meant) == 0
    assert np.abs(meant).max() > 0.1
    assert artifact.injected == artifact.read_back > 1500


@pytest.mark.parametrize("name", NAMES)
def test_the_bits_are_those_of_eight_bits_with_the_same_integers(lowered, model, held, images, name):
    same = {
        key: Affine(8, signed=True, axis=one.axis, scale=one.scale, zero_point=one.zero_point)
        if isinstance(one, Affine) and one.bits == 4
        else one
        for key, one in held[name].tensors.items()
    }
    wide = Reference().run(model, Encodings(same, held[name].integers), (images,))[0]
    assert np.array_equal(lowered(name)[2], wide)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_read_back_in_four_bits(lowered, held, name):
    artifact, path, _ = lowered(name)
    found = SHELF.build(name).read(path, artifact)
    assert {found.affine(f"{key}:weight").bits for key in NARROW} == {4}
    assert {found.affine(f"{key}:weight").bits for key in WIDE} == {8}
    assert all(np.array_equal(found.integers[key], held[name].integers[key]) for key in held[name].integers)


@pytest.mark.parametrize("name", NAMES)
def test_two_codes_share_a_byte(lowered, held, name):
    _, path, _ = lowered(name)
    codes = held[name].integers["expand:conv2d#0:weight"].reshape(-1)
    low, high = (codes[0::2], codes[1::2]) if name != "executorch" else (codes[0::2] + 8, codes[1::2] + 8)
    packed = ((low & 15) | ((high & 15) << 4)).astype(np.uint8).tobytes()
    assert packed in path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_only_litert_leaves_rows_of_odd_length_to_a_slow_kernel(lowered, name):
    artifact, path, _ = lowered(name)
    assert SHELF.build(name).unfused(path, artifact) == ((ODD,) if name == "litert" else ())


@pytest.mark.parametrize("name", NAMES)
def test_what_a_layer_gives_can_be_looked_at(lowered, model, images, name):
    artifact, path, _ = lowered(name)
    shapes = {"odd:conv2d#0:out": (2, 16, 12, 12), "project:conv2d#0:out": (2, 12, 6, 6)}
    found = SHELF.build(name).tensors(path, artifact, (images[:2],), list(shapes))
    assert {key: array.shape for key, array in found.items()} == shapes


def test_rows_of_odd_length_are_refused_where_processors_disagree_on_them(model, encodings, tmp_path):
    """XNNPACK's kernels for AVX-512 VNNI give other values than those for AVX2 there."""
    with pytest.raises(ConversionError, match="odd length wrongly") as told:
        SHELF.build("executorch").lower(model, encodings, tmp_path)
    assert [fault.where for fault in told.value.faults] == [f"{ODD}:weight"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "onnxruntime"])
def test_a_layer_without_such_a_kernel_is_refused(model, encodings, tmp_path, name):
    key = "strided:conv2d#0:weight"
    narrow = Affine(4, signed=True, axis=0, scale=np.ones(12, np.float32), zero_point=np.zeros(12, np.int32))
    codes = encodings.integers[key] % 7
    asked = Encodings({**encodings.tensors, key: narrow}, {**encodings.integers, key: codes})
    with pytest.raises(ConversionError) as told:
        SHELF.build(name).lower(model, asked, tmp_path)
    assert "1x1 convolutions" in str(told.value)
