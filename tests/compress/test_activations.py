from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.constraints import Constraints, Ratio
from haversack.base.errors import ConversionError
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.profile import TensorStatistics
from haversack.compress.activations import encode
from haversack.compress.quantize.minmax import MinMax
from haversack.tools.numerics.means import rounds_alike
from haversack.tools.numerics.reciprocals import EXACT, TRIED, error
from haversack.tools.numerics.ties import is_tie_free

SPEC = TensorSpec(("batch", 4, 3, 3), "float32")


def node(name, op, *inputs):
    return Node(f"{name}:{op}#0", op, name, inputs, SPEC)


def chain(*nodes):
    return Graph(nodes, (nodes[0].key,), (nodes[-1].key,))


def out(name, op):
    return f"{name}:{op}#0:out"


def seen(low, high):
    return TensorStatistics(low, high, np.array([1, 1]), low, high, 1)


GRAPH = chain(
    node("x", "input"),
    node("a", "conv2d", "x:input#0"),
    node("b", "conv2d", "a:conv2d#0"),
    node("s", "add", "a:conv2d#0", "b:conv2d#0"),
    node("c", "conv2d", "s:add#0"),
    node("t", "add", "s:add#0", "c:conv2d#0"),
    node("j", "cat", "t:add#0", "c:conv2d#0"),
    node("p", "dropout", "j:cat#0"),
)
A, B, S, C, T, J, P = (
    out(*pair) for pair in (("a", "conv2d"), ("b", "conv2d"), ("s", "add"), ("c", "conv2d"), ("t", "add"),
                            ("j", "cat"), ("p", "dropout"))
)  # fmt: skip


def made(ranges, constraints, graph=GRAPH):
    taken = {key: seen(*bounds) for key, bounds in ranges.items()}
    return encode(graph, frozenset(ranges), taken, MinMax(), constraints)


def interval(encoding):
    scale, zero = float(encoding.scale), int(encoding.zero_point)
    return -zero * scale, (255 - zero) * scale


def test_a_range_is_covered_and_holds_zero():
    found, findings = made({A: (-1.0, 3.0), B: (2.0, 5.0), S: (-4.0, -1.0)}, Constraints())
    assert findings == []
    for key, (low, high) in {A: (-1.0, 3.0), B: (0.0, 5.0), S: (-4.0, 0.0)}.items():
        least, most = interval(found[key])
        step = float(found[key].scale)
        assert least == pytest.approx(low, abs=step / 2 + 1e-6)
        assert most == pytest.approx(high, abs=step / 2 + 1e-6)
        assert (found[key].bits, found[key].signed, found[key].axis) == (8, False, None)


def test_tied_tensors_share_the_union():
    found, findings = made({A: (-1.0, 3.0), B: (-2.0, 1.0), S: (0.0, 1.0)}, Constraints(ties=(frozenset({A, B}),)))
    assert found[A] is found[B]
    assert interval(found[A]) == pytest.approx((-2.0, 3.0), abs=0.02)
    assert found[S] is not found[A]
    assert findings == []


def test_ties_chain_through_a_common_tensor_whatever_their_order():
    ties = (frozenset({A, B}), frozenset({S, C}), frozenset({B, S}))
    for order in itertools.permutations(ties):
        found, _ = made({A: (0, 1), B: (0, 2), S: (-3, 0), C: (0, 4)}, Constraints(ties=order))
        assert len({id(found[key]) for key in (A, B, S, C)}) == 1
        assert interval(found[A]) == pytest.approx((-3, 4), abs=0.03)


def test_a_tie_with_a_tensor_that_is_not_encoded_does_not_count():
    found, _ = made({A: (0, 1)}, Constraints(ties=(frozenset({A, B}),), ratios=(Ratio(B, A),)))
    assert set(found) == {A}


def test_a_moved_tensor_without_statistics_has_its_sources():
    keys = frozenset({J, P})
    found, _ = encode(GRAPH, keys, {J: seen(-1, 1)}, MinMax(), Constraints(ties=(keys,)))
    assert found[P] is found[J]


def test_every_tensor_without_a_range_is_told():
    with pytest.raises(ConversionError) as caught:
        encode(GRAPH, frozenset({A, B, S}), {A: seen(0, 1)}, MinMax(), Constraints())
    assert [fault.where for fault in caught.value.faults] == [B, S]


@given(
    low=st.floats(-50, 0, width=32),
    high=st.floats(0, 50, width=32),
    least=st.sampled_from([-np.inf, -1.0, 0.0, -0.37]),
    most=st.sampled_from([np.inf, 6.0, 1.0, 0.1]),
)
def test_no_code_leaves_the_interval_of_its_clamp(low, high, least, most):
    found, _ = made({A: (low, high)}, Constraints(bounds={A: (least, most)}))
    got = interval(found[A])
    assert least <= got[0] <= 0 <= got[1] <= most
    want = max(low, least), min(high, most)
    step = float(found[A].scale)
    if want[1] - want[0] > 1e-30:
        assert got[0] <= want[0] + 2 * step
        assert got[1] >= want[1] - 2 * step


@pytest.mark.parametrize(
    "bounds, ranges, zero, top", [((0.0, 6.0), (0.0, 6.0), 0, 6.0), ((0.0, 6.0), (0.0, 2.5), 0, 2.5),
                                  ((0.0, np.inf), (0.0, 11.0), 0, 11.0), ((-1.0, 1.0), (-1.0, 1.0), 128, 127 / 128)],
)  # fmt: skip
def test_a_clamp_is_the_grid(bounds, ranges, zero, top):
    found, _ = made({A: ranges}, Constraints(bounds={A: bounds}))
    assert int(found[A].zero_point) == zero
    assert interval(found[A])[1] == pytest.approx(top, rel=1e-6)


def test_a_fixed_scale_stays():
    found, _ = made({A: (0, 1), B: (0, 7)}, Constraints(ties=(frozenset({A, B}),), fixed={A: (1 / 256, 0)}))
    assert float(found[B].scale) == 1 / 256


def test_a_tie_that_would_break_a_clamp_is_left_out_and_told():
    found, findings = made({A: (-3, 3), B: (0, 6)}, Constraints(ties=(frozenset({A, B}),), bounds={B: (0.0, 6.0)}))
    assert int(found[B].zero_point) == 0
    assert interval(found[A])[0] == pytest.approx(-3, abs=0.03)
    assert [(f.kind, f.layer) for f in findings] == [("range-mixing", "b")]


def test_two_fixed_scales_are_not_joined():
    fixed = {A: (1 / 256, 0), B: (1 / 128, 128)}
    found, findings = made({A: (0, 1), B: (-1, 1)}, Constraints(ties=(frozenset({A, B}),), fixed=fixed))
    assert (float(found[A].scale), float(found[B].scale)) == (1 / 256, 1 / 128)
    assert len(findings) == 1


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=5), st.sampled_from([1, 4, 64]))
def test_ratios_hold_along_a_chain_of_adds(sizes, multiple):
    ranges = {key: (-size, size / 2) for key, size in zip((A, B, S, C, T), sizes, strict=True)}
    ratios = (Ratio(A, S, multiple=multiple), Ratio(B, S, multiple=multiple), Ratio(S, T), Ratio(C, T))
    found, findings = made(ranges, Constraints(ratios=ratios))
    assert findings == []
    for ratio in ratios:
        assert is_tie_free(found[ratio.input].scale, found[ratio.output].scale, 501, ratio.multiple)
    for key, (low, high) in ranges.items():
        least, most = interval(found[key])
        step = float(found[key].scale)
        assert least <= low + step
        assert most >= high - step


def test_the_last_output_keeps_its_scale_and_inputs_cover_their_ranges():
    free, _ = made({A: (-1, 1), B: (-2, 2), S: (-3, 3)}, Constraints())
    kept, _ = made({A: (-1, 1), B: (-2, 2), S: (-3, 3)}, Constraints(ratios=(Ratio(A, S), Ratio(B, S))))
    assert kept[S].scale == free[S].scale
    for key in (A, B):
        assert float(free[key].scale) <= float(kept[key].scale) <= float(free[key].scale) * (1 + 2 / 501 * 3)


def test_a_clamped_input_goes_down_to_its_ratio():
    found, findings = made(
        {A: (0, 6), B: (-2, 2), S: (-3, 8)}, Constraints(bounds={A: (0.0, 6.0)}, ratios=(Ratio(A, S),))
    )
    assert findings == []
    assert is_tie_free(found[A].scale, found[S].scale)
    assert 5.9 < interval(found[A])[1] <= 6.0


def test_a_mean_gets_the_nearest_scale_that_all_runtimes_round_alike():
    mean = Ratio(A, S, multiple=32, count=480)
    free, _ = made({A: (0, 6), S: (0, 0.573)}, Constraints())
    found, findings = made({A: (0, 6), S: (0, 0.573)}, Constraints(ratios=(mean,)))
    assert findings == []
    assert not rounds_alike(float(free[A].scale), float(found[S].scale), 0, 480)
    assert rounds_alike(float(found[A].scale), float(found[S].scale), 0, 480)
    assert 1 < float(found[A].scale) / float(free[A].scale) < 1.01


def test_a_mean_that_no_scale_fits_is_told():
    constraints = Constraints(fixed={A: (1.0, 0), S: (1.0, 0)}, ratios=(Ratio(A, S, multiple=2, count=2),))
    _, findings = made({A: (0, 255), S: (0, 255)}, constraints)
    assert [(f.kind, f.layer) for f in findings] == [("rounding-ties", "s")]
    assert "mean of 2 values" in findings[0].text


def test_scales_settled_twice_are_told():
    constraints = Constraints(fixed={A: (0.0123, 0), S: (0.0377, 0)}, ratios=(Ratio(A, S),))
    found, findings = made({A: (0, 1), S: (0, 1)}, constraints)
    assert float(found[A].scale) == np.float32(0.0123)
    assert [(f.kind, f.layer) for f in findings] == [("rounding-ties", "s")]
    assert A in findings[0].text


def test_one_tensor_in_two_adds_of_unrelated_scales():
    """``s`` and ``t`` both read ``a``: whoever comes first backwards wins, the other is told."""
    graph = chain(
        node("x", "input"),
        node("a", "conv2d", "x:input#0"),
        node("s", "add", "a:conv2d#0", "x:input#0"),
        node("t", "add", "a:conv2d#0", "x:input#0"),
    )
    ranges = {A: (-1, 1), S: (-3, 3.1), T: (-2, 7.7)}
    found, findings = made(ranges, Constraints(ratios=(Ratio(A, S), Ratio(A, T))), graph)
    assert is_tie_free(found[A].scale, found[T].scale)
    assert [f.layer for f in findings] == ["s"]


@pytest.mark.parametrize("span, told", [(1.0, []), (0.13, []), (0.12, ["j"]), (0.0, ["j"])])
def test_a_concatenation_of_unlike_ranges_is_named(span, told):
    constraints = Constraints(ties=(frozenset({T, C, J}),))
    _, findings = made({T: (0.0, span), C: (-0.5, 0.5), J: (-0.5, 0.5)}, constraints)
    assert [f.layer for f in findings if f.kind == "range-mixing"] == told


def test_the_same_again():
    ranges = {A: (-1, 1), B: (-2, 2), S: (-3, 3)}
    constraints = Constraints(ties=(frozenset({A, B}),), ratios=(Ratio(A, S),))
    first, second = made(ranges, constraints)[0], made(dict(reversed(ranges.items())), constraints)[0]
    assert list(first) == list(second)
    assert all(first[key].scale == second[key].scale for key in first)


def test_the_models_outputs_are_never_clipped():
    from haversack.compress.quantize.percentile import Percentile

    counts = np.array([1, 98, 1])
    taken = {key: TensorStatistics(-3.0, 3.0, counts, -3.0, 3.0, 1) for key in (A, P)}
    found, _ = encode(GRAPH, frozenset({A, P}), taken, Percentile(90.0), Constraints())
    assert interval(found[P]) == pytest.approx((-3.0, 3.0), abs=0.03)
    assert interval(found[A]) == pytest.approx((-1.0, 1.0), abs=0.03)


X = out("x", "input")


@pytest.mark.parametrize("span", [(-1.0, 3.0), (0.0, 0.777), (-123.4, 61.7)])
def test_what_comes_in_as_float_may_be_divided_or_multiplied(span):
    found, findings = made({X: span, A: span}, Constraints(ties=(frozenset({A}),)))
    assert error(found[X].scale) <= EXACT < error(found[A].scale)
    assert found[A].scale <= found[X].scale <= found[A].scale * (1 + TRIED * 2.0**-23)
    assert found[X].zero_point == found[A].zero_point
    assert findings == []


@pytest.mark.parametrize(
    "constraints",
    [Constraints(bounds={X: (0.0, 3.0)}), Constraints(fixed={X: (3.0 / 255, 0)})],
    ids=["bounded", "fixed"],
)
def test_a_bound_or_a_fixed_scale_comes_before_it(constraints):
    found, _ = made({X: (0.0, 3.0)}, constraints)
    assert float(found[X].scale) == pytest.approx(3.0 / 255, rel=2.0**-22)
    assert error(found[X].scale) > EXACT


def test_what_an_add_demands_of_an_input_comes_before_it():
    graph = chain(node("x", "input"), node("s", "add", "x:input#0", "x:input#0"))
    total = out("s", "add")
    found, findings = made({X: (-1.0, 1.0), total: (-2.0, 2.1)}, Constraints(ratios=(Ratio(X, total),)), graph)
    assert is_tie_free(found[X].scale, found[total].scale)
    assert findings == []
