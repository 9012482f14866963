"""All shelves: by noun, with a line for every part, and without importing any."""

from __future__ import annotations

import subprocess
import sys

from haversack.flow.shelves import all_shelves


def test_every_shelf_stands_under_the_noun_of_its_parts():
    found = all_shelves()
    assert set(found) == {"operation", "metric", "preparation step", "quantizer", "palette", "target"}
    assert all(noun == shelf.noun for noun, shelf in found.items())


def test_known_parts_are_on_their_shelf_with_a_line():
    found = all_shelves()
    for noun, name in [
        ("target", "onnxruntime"), ("metric", "top1"), ("preparation step", "bias_correct"), ("quantizer", "mse"),
        ("operation", "resize"), ("palette", "kmeans"),
    ]:  # fmt: skip
        assert len(found[noun].catalogue()[name]) > 20


def test_what_is_no_part_is_on_no_shelf():
    found = all_shelves()
    names = {name for shelf in found.values() for name in shelf.names()}
    assert not names & {"reference", "custom", "pipeline", "contract", "__init__"}


def test_no_part_and_no_framework_is_imported(environment):
    script = (
        "import sys\n"
        "from haversack.flow.shelves import all_shelves\n"
        "print([shelf.catalogue() for shelf in all_shelves().values()])\n"
        "bad = {'torch', 'onnx', 'onnxruntime', 'scipy', 'haversack.metrics.top1'} & set(sys.modules)\n"
        "sys.exit(', '.join(bad) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
