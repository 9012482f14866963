"""The preflight: counts, liveness, refusals, and a forecast that says it is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import Fault
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.load import Work, export, forecast, open_job, preflight
from haversack.load.forecast import LOOSEN, Preflight, Preflights, peak_bytes


def node(key, inputs, elements, dtype="float32"):
    op = "input" if not inputs else "relu"
    return Node(f"{key}:{op}#0", op, key, tuple(inputs), TensorSpec(("batch", elements), dtype))


def chain(*elements):
    nodes = []
    for index, count in enumerate(elements):
        nodes.append(node(f"n{index}", [nodes[-1].key] if nodes else [], count))
    return Graph(tuple(nodes), (nodes[0].key,), (nodes[-1].key,))


@pytest.fixture
def model(job_file):
    return export(open_job(str(job_file())))


def test_what_the_model_is(model):
    found = preflight(model, {}, Work(forwards=0))
    conv, head = 4 * 6 * 6 * 27, 5 * 4
    assert found.macs == conv + head
    assert found.parameters == 4 * 27 + 4 + 4 * 4 + 5 * 4 + 5
    assert found.weight_bytes == 4 * found.parameters + 8, "num_batches_tracked is one int64 that nobody reads"
    assert found.layers["conv2d"] == found.layers["linear"] == 1
    assert "input" not in found.layers
    assert found.activation_bytes == 4 * (3 * 8 * 8 + 4 * 6 * 6), "the image and the convolution's output"


def test_the_peak_of_a_chain_is_its_widest_pair():
    assert peak_bytes(chain(10, 20, 5, 30)) == 4 * 35
    assert peak_bytes(chain(7)) == 4 * 7


def test_a_residual_lives_until_its_last_reader():
    nodes = [node("x", [], 10), node("a", ["x:input#0"], 10), node("b", ["a:relu#0"], 10)]
    add = Node("add:add#0", "add", "add", ("x:input#0", "b:relu#0"), TensorSpec(("batch", 10), "float32"))
    graph = Graph((*nodes, add), ("x:input#0",), ("add:add#0",))
    assert peak_bytes(graph) == 4 * 30
    without = Graph(tuple(nodes), ("x:input#0",), ("b:relu#0",))
    assert peak_bytes(without) == 4 * 20


def test_outputs_stay_and_dead_ends_go():
    x, a = node("x", [], 10), node("a", ["x:input#0"], 10)
    dead, b = node("dead", ["a:relu#0"], 10), node("b", ["a:relu#0"], 10)
    keys = [n.key for n in (x, a, dead, b)]
    assert peak_bytes(Graph((x, a, dead, b), (keys[0],), (keys[3],))) == 4 * 20
    assert peak_bytes(Graph((x, a, dead, b), (keys[0],), (keys[1], keys[3]))) == 4 * 20
    assert peak_bytes(Graph((x, a, dead, b), (keys[0],), (keys[2], keys[3]))) == 4 * 30


@pytest.mark.parametrize("dtype, size", [("float32", 4), ("int64", 8), ("bool", 1), ("float16", 2)])
def test_bytes_of_a_dtype(dtype, size):
    only = node("x", [], 12, dtype)
    assert peak_bytes(Graph((only,), (only.key,), (only.key,))) == 12 * size


def test_free_lengths_count_as_asked():
    only = Node("x:input#0", "input", "x", (), TensorSpec(("batch", "length", 3), "float32"))
    graph = Graph((only,), (only.key,), (only.key,))
    assert (peak_bytes(graph), peak_bytes(graph, 50)) == (12, 600)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12))
def test_the_peak_is_between_the_widest_and_all(elements):
    peak = peak_bytes(chain(*elements))
    assert 4 * max(elements) <= peak <= 4 * sum(elements)
    assert peak == 4 * max(a + b for a, b in zip([0, *elements], [*elements, 0], strict=True))


def test_the_forecast_follows_its_formula(model):
    few = preflight(model, {}, Work(forwards=100, plans=2, batch=8), seconds_per_sample=0.5)
    assert few.forecast_seconds == forecast.START_SECONDS + 2 * forecast.PLAN_SECONDS + 50
    assert few.forecast_bytes == (
        forecast.BASE_BYTES + forecast.COPIES * few.weight_bytes + forecast.WORKING * 8 * few.activation_bytes
    )
    three = preflight(model, dict.fromkeys("abc", ()), Work(forwards=100, plans=2, batch=8), seconds_per_sample=0.5)
    assert three.forecast_bytes - few.forecast_bytes == 2 * forecast.RUNTIME_BYTES
    raced = preflight(model, {}, Work(forwards=100, plans=2, batch=8, simulated=80), seconds_per_sample=0.5)
    assert raced.forecast_seconds - few.forecast_seconds == forecast.SIMULATION * 80 * 0.5
    untimed = preflight(model, {}, Work(forwards=10**9, plans=0))
    per_sample = model.macs / forecast.MACS_PER_SECOND
    assert untimed.forecast_seconds == forecast.START_SECONDS + per_sample * 10**9
    assert (few.timed, untimed.timed) == (True, False)


def test_a_timing_is_taken_once(model):
    calls = []
    found = preflight(model, {}, Work(forwards=10), seconds_per_sample=lambda: calls.append(1) or 0.25)
    assert len(calls) == 1
    assert found.forecast_seconds == forecast.START_SECONDS + forecast.PLAN_SECONDS + 2.5


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_timing_that_is_none(model, seconds):
    with pytest.raises(ValueError, match="cannot be"):
        preflight(model, {}, Work(forwards=1), seconds_per_sample=seconds)


def test_lines_name_what_is_refused_and_what_is_forecast(model):
    refusals = {"onnxruntime": (), "litert": (Fault("conv", "no dynamic shapes"), Fault("head", "no linear"))}
    text = "\n".join(preflight(model, refusals, Work(forwards=1000), seconds_per_sample=1.0).lines())
    assert "onnxruntime: takes every layer" in text
    assert "litert cannot take:\n    - conv: no dynamic shapes\n    - head: no linear" in text
    assert "forecast: about 17 min" in text
    assert "one timed batch" in text
    assert "parameters" in text
    assert "not timed" in preflight(model, {}, Work(forwards=1)).lines()[-1]


def test_many_ops_are_shortened():
    layers = {f"op{i}": 20 - i for i in range(12)}
    lines = Preflight("m", layers, 1, 1, 10**9, 10**6, {}, 3.0, 2 * 10**9, timed=True).lines()
    assert "20 op0" in lines[1]
    assert "op9" not in lines[1]
    assert "4 other ops" in lines[1]
    assert "1.0 GB" in lines[2]
    assert "about 3 s and 2.0 GB" in lines[-1]


def looked(**known) -> Preflight:
    return Preflight("m", {"linear": 1}, 1, 1, 10**9, 10**6, {}, 3.0, 2 * 10**9, timed=True, **known)


def test_a_size_that_nothing_can_meet_ends_as_pack_would_and_says_what_to_do():
    assert looked().exit_code == 0
    assert looked(beyond=("a",)).exit_code == 3
    assert looked(beyond=("a",)).lines()[-1] == LOOSEN
    assert looked(beyond=("a",), available_bytes=1).exit_code == 6, "pack does not even begin"
    assert LOOSEN not in looked(beyond=("a",), available_bytes=1).lines()


def test_of_several_architectures_one_that_can_meet_it_is_enough():
    def of(*ones: Preflight) -> Preflights:
        return Preflights({str(place): one for place, one in enumerate(ones)})

    beyond, other = looked(beyond=("a",)), looked(beyond=("b",))
    assert [of(beyond, looked()).exit_code, of(beyond, other).exit_code, of(beyond, beyond).exit_code] == [0, 0, 3]
    assert of(beyond, beyond).lines().count(LOOSEN) == 1
    assert LOOSEN not in of(beyond, looked()).lines()
