"""Run by a test, in a process of its own: Apple's own reader builds each package's program again.

coremltools checks every operation's arguments and infers every type and shape while it does so. Frameworks that it
could convert from are kept out, since importing them takes 20 seconds.
"""

import sys

for name in ("torch", "torchao", "sklearn", "tensorflow", "scipy", "pandas", "xgboost"):
    sys.modules[name] = None

from pathlib import Path  # noqa: E402

from coremltools.converters.mil.frontend.milproto.load import load  # noqa: E402
from coremltools.models.utils import load_spec  # noqa: E402

for package in sys.argv[1:]:
    spec = load_spec(package)
    weights = str(Path(package) / "Data" / "com.apple.CoreML" / "weights")
    program = load(spec, spec.specificationVersion, weights)
    said = {
        output.name: tuple(dim.constant.size for dim in output.type.tensorType.dimensions)
        for block in spec.mlProgram.functions["main"].block_specializations.values()
        for operation in block.operations
        for output in operation.outputs
    }
    inferred = {one.name: tuple(one.shape) for op in program.functions["main"].operations for one in op.outputs}
    wrong = {name: (said[name], shape) for name, shape in inferred.items() if said.get(name, shape) != shape}
    print(Path(package).parent.name, len(inferred), wrong)  # noqa: T201 - its answer
