"""A Core ML program run by PyTorch: an independent reading of what we write, since Core ML itself does not run here.

It reads the weights file by MILBlob's own library (Apple's C++, from the wheel) and computes in float32 whatever the
program's floats are, so that only the meaning of each operation is compared, not the rounding of float16.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from haversack.targets.coreml.protos import messages

TYPES = {1: bool, 10: np.float16, 11: np.float32, 21: np.int8, 23: np.int32, 31: np.uint8, 33: np.uint32}


def blob_reader(path):
    """Return Apple's reader of a weights file."""
    folder = Path(importlib.util.find_spec("coremltools").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("libmilstoragepython", folder / "libmilstoragepython.so")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module._BlobStorageReader(str(path))


class Interpreter:
    """One package, ready to run."""

    def __init__(self, package):
        folder = Path(package) / "Data" / "com.apple.CoreML"
        self.model = messages().Model_pb2.Model.FromString((folder / "model.mlmodel").read_bytes())
        self.blobs = blob_reader(folder / "weights" / "weight.bin")
        (function,) = self.model.mlProgram.functions.values()
        (self.block,) = function.block_specializations.values()

    def array(self, value):
        kind = value.type.tensorType
        shape = [dim.constant.size for dim in kind.dimensions]
        if value.HasField("blobFileValue"):
            read = {10: "fp16", 11: "float", 21: "int8", 31: "uint8"}[kind.dataType]
            data = np.array(getattr(self.blobs, f"read_{read}_data")(value.blobFileValue.offset))
            data = data.view(np.float16) if kind.dataType == 10 else data
            return data.reshape(shape)
        tensor = value.immediateValue.tensor
        if kind.dataType == 2:
            return tensor.strings.values[0]
        for field in ("floats", "ints", "bools"):
            if tensor.HasField(field):
                return np.array(getattr(tensor, field).values, TYPES[kind.dataType]).reshape(shape)
        return np.frombuffer(tensor.bytes.values, TYPES[kind.dataType]).reshape(shape)

    def run(self, *inputs):
        """Return the outputs for arrays in the order of the inputs."""
        names = [feature.name for feature in self.model.description.input]
        held = dict(zip(names, map(torch.from_numpy, inputs), strict=True))
        for operation in self.block.operations:
            (output,) = operation.outputs
            attributes = {name: self.array(value) for name, value in operation.attributes.items() if name != "name"}
            arguments = {name: [held[b.name] for b in a.arguments] for name, a in operation.inputs.items()}
            single = {name: found[0] for name, found in arguments.items()}
            made = self.compute(operation.type, single, arguments, attributes)
            if not isinstance(made, str):
                made = made.float() if made.is_floating_point() else made
                wanted = [dim.constant.size for dim in output.type.tensorType.dimensions]
                assert list(made.shape) == wanted, (operation.type, output.name, made.shape, wanted)
                said = output.type.tensorType.dataType
                assert (said in (10, 11)) == made.is_floating_point(), (operation.type, output.name)
                assert (said == 1) == (made.dtype == torch.bool), (operation.type, output.name)
            held[output.name] = made
        return [held[name].numpy() for name in self.block.outputs]

    def compute(self, op, single, several, attributes):
        if op == "const":
            found = attributes["val"]
            return found if isinstance(found, str) else torch.from_numpy(np.array(found))
        if op == "constexpr_affine_dequantize":
            codes, scale = attributes["quantized_data"].astype(np.float32), attributes["scale"].astype(np.float32)
            wide = scale.reshape(-1, *[1] * (codes.ndim - 1)) if scale.ndim else scale
            return torch.from_numpy(wide * (codes - attributes["zero_point"].astype(np.float32)))
        if op == "constexpr_lut_to_dense":
            lut, shape = attributes["lut"].astype(np.float32), attributes["shape"]
            bits, count = int(np.log2(lut.size)), int(np.prod(shape))
            stream = np.unpackbits(attributes["indices"], bitorder="little")[: bits * count].reshape(count, bits)
            return torch.from_numpy(lut[stream @ (1 << np.arange(bits))].reshape(shape))
        return _OPS[op](several if op in ("concat", "stack") else single)


def ints(tensor):
    return [int(one) for one in tensor]


def conv(a):
    rank = a["weight"].ndim - 2
    pads = ints(a["pad"])
    sides = [side for axis in reversed(range(rank)) for side in pads[2 * axis : 2 * axis + 2]]
    call = {1: F.conv1d, 2: F.conv2d}[rank]
    x = F.pad(a["x"], sides)
    strides, holes = ints(a["strides"]), ints(a["dilations"])
    return call(x, a["weight"].float(), a.get("bias"), strides, 0, holes, int(a["groups"]))


def pool(a, largest):
    rank = a["x"].ndim - 2
    pads = ints(a["pad"])[::2]
    kernel, stride = ints(a["kernel_sizes"]), ints(a["strides"])
    if largest:
        return {1: F.max_pool1d, 2: F.max_pool2d}[rank](a["x"], kernel, stride, pads)
    own = not bool(a["exclude_padding_from_average"])
    return {1: F.avg_pool1d, 2: F.avg_pool2d}[rank](a["x"], kernel, stride, pads, count_include_pad=own)


def cast(a):
    kinds = {"fp16": torch.float32, "fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}
    return a["x"].to(kinds[a["dtype"]])


def part(a):
    places = tuple(slice(*ends) for ends in zip(ints(a["begin"]), ints(a["end"]), ints(a["stride"]), strict=True))
    return a["x"][places]


def reduced(call):
    return lambda a: call(a["x"], ints(a["axes"]), bool(a["keep_dims"]))


def padded(a):
    sides = ints(a["pad"])
    flat = [n for at in reversed(range(0, len(sides), 2)) for n in sides[at : at + 2]]
    return F.pad(a["x"], flat, value=float(a["constant_val"]))


def normed(a):
    axes = ints(a["axes"])
    shape = [a["x"].shape[axis] for axis in axes]
    return F.layer_norm(a["x"], shape, a.get("gamma"), a.get("beta"), float(a["epsilon"]))


def gelu(a):
    return F.gelu(a["x"], approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[a["mode"]])


def matmul(a):
    assert not bool(a["transpose_x"])
    return a["x"] @ (a["y"].transpose(-1, -2) if bool(a["transpose_y"]) else a["y"])


def gather(a):
    assert int(a["batch_dims"]) == 0
    axis = int(a["axis"])
    flat = a["x"].index_select(axis, a["indices"].reshape(-1))
    return flat.reshape(*a["x"].shape[:axis], *a["indices"].shape, *a["x"].shape[axis + 1 :])


def binary(call):
    def run(a):
        assert a["x"].dtype == a["y"].dtype
        return call(a["x"], a["y"])

    return run


def unary(call):
    return lambda a: call(a["x"])


_OPS = {
    "conv": conv,
    "linear": lambda a: F.linear(a["x"], a["weight"].float(), a.get("bias")),
    "matmul": matmul,
    "gather": gather,
    "max_pool": lambda a: pool(a, largest=True),
    "avg_pool": lambda a: pool(a, largest=False),
    "cast": cast,
    "identity": unary(lambda x: x),
    "reshape": lambda a: a["x"].reshape(ints(a["shape"])),
    "transpose": lambda a: a["x"].permute(ints(a["perm"])),
    "slice_by_index": part,
    "tile": lambda a: a["x"].repeat(ints(a["reps"])),
    "pad": padded,
    "concat": lambda a: torch.cat(a["values"], int(a["axis"][0])),
    "stack": lambda a: torch.stack(a["values"], int(a["axis"][0])),
    "select": lambda a: torch.where(a["cond"], a["a"], a["b"]),
    "softmax": lambda a: a["x"].softmax(int(a["axis"])),
    "layer_norm": normed,
    "batch_norm": lambda a: F.batch_norm(
        a["x"], a["mean"], a["variance"], a.get("gamma"), a.get("beta"), eps=float(a["epsilon"])
    ),
    "gelu": gelu,
    "reduce_mean": reduced(torch.mean),
    "reduce_sum": reduced(torch.sum),
    "reduce_max": reduced(torch.amax),
    "reduce_min": reduced(torch.amin),
    "reduce_log_sum_exp": reduced(torch.logsumexp),
    "reduce_l2_norm": lambda a: torch.linalg.vector_norm(a["x"], 2, ints(a["axes"]), bool(a["keep_dims"])),
    "add": binary(torch.add),
    "sub": binary(torch.sub),
    "mul": binary(torch.mul),
    "real_div": binary(torch.div),
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "pow": binary(torch.pow),
    "equal": binary(torch.eq),
    "not_equal": binary(torch.ne),
    "greater": binary(torch.gt),
    "greater_equal": binary(torch.ge),
    "less": binary(torch.lt),
    "less_equal": binary(torch.le),
    "logical_and": binary(torch.logical_and),
    "logical_or": binary(torch.logical_or),
    "logical_not": unary(torch.logical_not),
    "relu": unary(torch.relu),
    "relu6": unary(F.relu6),
    "sigmoid": unary(torch.sigmoid),
    "silu": unary(F.silu),
    "tanh": unary(torch.tanh),
    "abs": unary(torch.abs),
    "exp": unary(torch.exp),
    "sqrt": unary(torch.sqrt),
    "square": unary(torch.square),
    "sin": unary(torch.sin),
    "cos": unary(torch.cos),
    "erf": unary(torch.erf),
    "floor": unary(torch.floor),
    "ceil": unary(torch.ceil),
    "round": unary(torch.round),
    "log": lambda a: torch.log(a["x"] + a["epsilon"]),
    "rsqrt": lambda a: torch.rsqrt(a["x"] + a["epsilon"]),
    "inverse": lambda a: torch.reciprocal(a["x"] + a["epsilon"]),
    "leaky_relu": lambda a: F.leaky_relu(a["x"], float(a["alpha"])),
    "elu": lambda a: F.elu(a["x"], float(a["alpha"])),
    "sigmoid_hard": lambda a: (a["x"] * a["alpha"] + a["beta"]).clamp(0, 1),
}
