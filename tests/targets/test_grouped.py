"""4-bit weights in groups, in every runtime that has kernels: run, read back, refused by key, faults located."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.encodings import Affine, BlockAffine, Dynamic, Encodings
from haversack.base.errors import ConversionError, HaversackError, VerificationError
from haversack.base.job import Job
from haversack.base.plan import GROUPS, LayerPlan, Plan, Step
from haversack.compress.encode import encode
from haversack.compress.plans import uniform
from haversack.load import export
from haversack.targets.contract import SHELF
from haversack.targets.reference import Reference
from haversack.tools.graph.injection import differences
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics import blocks, packing
from haversack.verify.location import locate

RUNTIMES = ("onnxruntime", "litert", "executorch")
FIRST, LAST, SMALL = "first:linear#0", "last:linear#0", "small:linear#0"
X = np.random.default_rng(0).normal(size=(2, 7, 256)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.first, self.last = nn.Linear(256, 64, bias=False), nn.Linear(64, 10)
            self.small = nn.Linear(10, 4)

        def forward(self, x):
            return self.small(self.last(torch.relu(self.first(x))))

    return export(Job("net", model=lambda: Net().eval(), calibration=lambda: [(X,)], evaluation=list, metric=""))


def encodings_of(model, target, group=32):
    kernels = target.constraints(model.graph)
    weights = Step("minmax", {"group": group})
    layers = uniform(model.graph, "w4_grouped", weights=weights, groups=kernels.groups)
    return encode(model, Plan("here", layers), {}, kernels)[0]


@pytest.fixture(scope="module", params=RUNTIMES)
def lowered(request, model, tmp_path_factory):
    """Return (target, encodings, artifact, path)."""
    target = SHELF.build(request.param)
    encodings = encodings_of(model, target)
    folder = tmp_path_factory.mktemp(request.param)
    artifact = target.lower(model, encodings, folder)
    return target, encodings, artifact, folder / artifact.files[0].path


def outputs(target, artifact, path, x):
    session = target.open_session(path, artifact.session_options)
    (found,) = session.run({artifact.inputs[0].name: x}).values()
    session.close()
    return found


def relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_all_is_injected_and_read_back(lowered):
    target, encodings, artifact, path = lowered
    kinds = {key: type(one) for key, one in encodings.tensors.items()}
    assert kinds == {
        f"{FIRST}:weight": BlockAffine, f"{FIRST}:in": Dynamic,
        f"{LAST}:weight": BlockAffine, f"{LAST}:in": Dynamic,
        f"{SMALL}:weight": Affine, f"{SMALL}:in": Dynamic,
    }  # fmt: skip
    assert artifact.injected == artifact.read_back == 6 + 256 * 64 + 64 * 10 + 10 * 4
    found = target.read(path, artifact)
    assert found.digest == encodings.digest
    oldest = {"OnnxRuntime": "1.18", "LiteRT": "2.3", "ExecuTorch": "1.0"}
    assert artifact.runtime_version == oldest[type(target).__name__]


def test_it_computes_with_what_the_codes_mean(lowered, model):
    target, encodings, artifact, path = lowered

    def weight(key):
        return blocks.values(encodings.integers[f"{key}:weight"], encodings.tensors[f"{key}:weight"])

    small = encodings.tensors[f"{SMALL}:weight"]
    hidden = np.maximum(X @ weight(FIRST).T, 0) @ weight(LAST).T + model.weights["last.bias"]
    last = (encodings.integers[f"{SMALL}:weight"] * small.scale[:, None]).astype(np.float32)
    wanted = hidden @ last.T + model.weights["small.bias"]
    found = outputs(target, artifact, path, X)
    assert relative(found, wanted) < 0.02
    exact = hidden @ model.weights["small.weight"].T + model.weights["small.bias"]
    floats = np.maximum(X @ model.weights["first.weight"].T, 0) @ model.weights["last.weight"].T
    floats = (floats + model.weights["last.bias"]) @ model.weights["small.weight"].T + model.weights["small.bias"]
    assert relative(exact, floats) > 4 * relative(found, wanted)
    (meant,) = Reference().run(model, encodings, (X,))
    assert relative(meant, wanted) < 0.02


def test_a_file_is_half_as_large_as_with_int8(lowered, model, tmp_path):
    target, _, artifact, _ = lowered
    layers = uniform(model.graph, "int8_dynamic")
    wide = encode(model, Plan("here", layers), {}, target.constraints(model.graph))[0]
    saved = target.lower(model, wide, tmp_path).files[0].bytes - artifact.files[0].bytes
    codes = 256 * 64 + 64 * 10
    scales = 2 * codes // 32 - 4 * (64 + 10)
    assert saved == pytest.approx(codes / 2 - scales, abs=1500)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "precisions",
    [("w4_grouped/128", "w4_grouped/32", "int8_dynamic"), ("int8_dynamic", "w4_grouped/32", "float32")],
    ids="+".join,
)
def test_layers_of_8_and_4_bits_and_of_several_groups_stand_in_one_file(model, tmp_path, runtime, precisions):
    """A mixture, as the knapsack makes it: each layer by its own precision."""
    target = SHELF.build(runtime)
    layers = {}
    for key, kind in zip((FIRST, LAST, SMALL), precisions, strict=True):
        precision, _, group = kind.partition("/")
        step = Step("mse", {"group": int(group)} if group else {})
        layers |= {key: LayerPlan(precision, weights=step)} if precision != "float32" else {}
    encodings, findings = encode(model, Plan("here", layers), {}, target.constraints(model.graph))
    assert not findings
    artifact = target.lower(model, encodings, tmp_path)
    path = tmp_path / artifact.files[0].path
    assert target.read(path, artifact).digest == encodings.digest
    found = outputs(target, artifact, path, X)
    (meant,) = Reference().run(model, encodings, (X,))
    (floats,) = Reference().run(model, Encodings.none(), (X,))
    assert relative(found, meant) < 0.02
    assert relative(floats, meant) > 2 * relative(found, meant)
    (simulated,) = Simulator(model).run(encodings, [(X,)])[0]
    assert relative(simulated, meant) < 0.02


def stored_codes(target, codes):
    """Return the bytes that a runtime has for codes: LiteRT's are signed, the others have 8 added."""
    if type(target).__name__ == "LiteRT":
        return packing.pack(codes, 4, signed=True).tobytes()
    return packing.pack(codes + 8, 4).tobytes()


def stored_scales(target, scale):
    return (blocks.to_bfloat16 if type(target).__name__ == "ExecuTorch" else blocks.to_float16)(scale).tobytes()


def spoilt(path, old, new):
    data = path.read_bytes()
    assert data.count(old) == 1
    return data.replace(old, new)


@pytest.fixture
def copied(lowered, tmp_path):
    target, encodings, artifact, path = lowered
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    return target, encodings, artifact, copy


@pytest.mark.parametrize(("row", "column"), [(0, 0), (63, 255), (17, 101)])
def test_a_changed_code_is_located(copied, model, row, column):
    target, encodings, artifact, path = copied
    key = f"{FIRST}:weight"
    codes = encodings.integers[key].copy()
    old = stored_codes(target, codes)
    codes[row, column] += 1 if codes[row, column] < 7 else -1
    path.write_bytes(spoilt(path, old, stored_codes(target, codes)))
    found = target.read(path, artifact)
    _, faults = differences(encodings, found)
    assert [(fault.where, fault.cause) for fault in faults] == [(key, "1 of 16384 integers differ")]
    finding = locate(model, encodings, found, (X,))
    assert (finding.kind, finding.layer) == ("weight-changed", key)


def test_a_changed_scale_is_located(copied):
    target, encodings, artifact, path = copied
    key = f"{LAST}:weight"
    scale = encodings.tensors[key].scale.copy()
    old = stored_scales(target, scale)
    scale[3, 1] *= 2
    path.write_bytes(spoilt(path, old, stored_scales(target, scale)))
    _, faults = differences(encodings, target.read(path, artifact))
    assert [fault.where for fault in faults] == [key]
    assert faults[0].cause == "1 scales of blocks differ, the first in row 3"


@pytest.mark.parametrize("what", ["lowest code", "scale of 0"])
def test_numbers_that_no_encoding_has_are_told(copied, what):
    target, encodings, artifact, path = copied
    key = f"{LAST}:weight"
    if what == "lowest code":
        codes = encodings.integers[key].copy()
        old = stored_codes(target, codes)
        codes[2, 5] = -8
        new = stored_codes(target, codes)
    else:
        old = stored_scales(target, encodings.tensors[key].scale)
        new = b"\0\0" + old[2:]
    path.write_bytes(spoilt(path, old, new))
    with pytest.raises(VerificationError) as caught:
        target.read(path, artifact)
    assert what == "scale of 0" or key in str(caught.value) or key in {fault.where for fault in caught.value.faults}


def blocky(model, block, bits=4, key=FIRST, scale=None, **more):
    rows, length = model.weights["first.weight"].shape if key == FIRST else model.weights["small.weight"].shape
    scale = np.ones((rows, length // block), np.float32) if scale is None else scale
    one = BlockAffine(block, bits, scale, **more)
    return {f"{key}:weight": one}, {f"{key}:weight": np.ones((rows, length), np.int32)}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"block": 16}, "those that have: 32, 64, 128, 256"),
        ({"block": 2, "key": SMALL}, "those that have: none"),
        ({"block": 32, "bits": 8}, "symmetric int4"),
        ({"block": 32, "scale": np.full((64, 8), 1.001, np.float32)}, "both bfloat16 and float16"),
        ({"block": 32, "minimum": np.zeros((64, 8), np.float32)}, "symmetric int4"),
    ],
)
def test_what_has_no_kernel_is_refused_beforehand_by_key(model, tmp_path, runtime, change, cause):
    tensors, integers = blocky(model, **change)
    (key,) = tensors
    meant = Encodings({**tensors, key.replace(":weight", ":in"): Dynamic(8)}, integers)
    with pytest.raises(ConversionError) as caught:
        SHELF.build(runtime).lower(model, meant, tmp_path)
    faults = [fault for fault in caught.value.faults if fault.where == key]
    assert cause in faults[0].cause
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_blocks_without_an_input_quantized_at_run_time_are_refused(model, tmp_path, runtime):
    meant = Encodings(*blocky(model, 32))
    with pytest.raises(ConversionError) as caught:
        SHELF.build(runtime).lower(model, meant, tmp_path)
    assert [fault.where for fault in caught.value.faults] == [f"{FIRST}:weight"]


@pytest.mark.parametrize("runtime", ["ncnn", "coreml", "tensorrt"])
def test_runtimes_without_such_kernels_say_so(model, runtime):
    target = SHELF.build(runtime)
    assert "w4_grouped" not in target.precisions
    assert target.constraints(model.graph).groups == {}


@pytest.mark.parametrize("runtime", RUNTIMES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(GROUPS), st.integers(0, 2**32 - 1))
def test_whatever_stands_in_a_file_is_read_back(model, tmp_path_factory, runtime, group, seed):
    random = np.random.default_rng(seed)
    scale = blocks.rounded(10.0 ** random.uniform(-4, 2, (64, 256 // group)).astype(np.float32))
    codes = random.integers(-7, 8, (64, 256), dtype=np.int32)
    key = f"{FIRST}:weight"
    meant = Encodings({key: BlockAffine(group, 4, scale), f"{FIRST}:in": Dynamic(8)}, {key: codes})
    target, folder = SHELF.build(runtime), tmp_path_factory.mktemp("any")
    artifact = target.lower(model, meant, folder)
    assert artifact.read_back == artifact.injected == 2 + codes.size
    assert target.read(folder / artifact.files[0].path, artifact).digest == meant.digest


def test_layers_are_timed_and_none_leaves_its_kernel(lowered):
    target, _, artifact, path = lowered
    seconds = target.layer_seconds(path, artifact, (X,), runs=3)
    assert min(seconds.values()) >= 0  # ExecuTorch's profiler counts whole microseconds, and these take less
    assert {FIRST, LAST, SMALL} <= set(seconds)
    assert target.unfused(path, artifact) == ()
    assert not [one for one in target.findings(path, artifact) if one.kind in ("fallback", "detour")]


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_layer_of_some_microseconds_is_timed(name, tmp_path):
    from torch import nn

    wide = np.ones((1, 2048), np.float32)
    net = nn.Linear(2048, 1024).eval()
    model = export(Job("wide", model=lambda: net, calibration=lambda: [(wide,)], evaluation=list, metric=""))
    target = SHELF.build(name)
    artifact = target.lower(model, encodings_of(model, target), tmp_path)
    seconds = target.layer_seconds(tmp_path / artifact.files[0].path, artifact, (wide,), runs=5)
    (key,) = [node.key for node in model.graph.nodes if node.op == "linear"]
    assert seconds[key] > 1e-6


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9), st.integers(1, 255))
def test_a_spoilt_byte_is_told_or_read_and_never_crashes(lowered, tmp_path_factory, place, change):
    target, _, artifact, path = lowered
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= change
    copy = tmp_path_factory.mktemp("spoilt") / path.name
    copy.write_bytes(data)
    try:
        found = target.read(copy, artifact)
    except HaversackError as error:
        assert str(error)
    else:
        assert found.digest
    assert replace(artifact).injected == artifact.injected
