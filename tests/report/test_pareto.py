"""The plot: the right points, a true frontier, and an SVG that is inert."""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, MissingExtra
from haversack.report import page, pareto
from haversack.report.pareto import Point

POINTS = st.lists(
    st.builds(
        Point,
        size=st.floats(0.1, 100),
        loss=st.floats(-5, 50),
        target=st.sampled_from(["a", "b"]),
        kind=st.just("considered"),
        note=st.just(""),
    ),
    max_size=12,
)


def beats(one: Point, other: Point) -> bool:
    """The definition, spelled out: no worse in both, better in one, on the same target."""
    return (
        one.target == other.target
        and one.size <= other.size
        and one.loss <= other.loss
        and (one.size < other.size or one.loss < other.loss)
    )


@given(POINTS)
def test_the_frontier_is_what_nothing_beats(points):
    kept = pareto.frontier(points)
    unbeaten = {(p.target, p.size, p.loss) for p in points if not any(beats(q, p) for q in points)}
    assert {(p.target, p.size, p.loss) for p in kept} == unbeaten
    assert len(kept) == len(unbeaten)


def test_points_of_a_run(record):
    shown = pareto.points(record)
    assert [(point.size, round(point.loss, 6)) for point in shown] == [(4.98, 2.15), (8.87, 0.11), (5.02, 0.27)]
    assert [point.kind for point in shown] == ["considered", "considered", "ships"]
    assert [point.note for point in shown] == ["×0.48", "×0.61", "×0.49"]


def test_the_axis_is_the_drop_where_there_is_one(record):
    assert pareto.axis(record) == pareto.Axis("Drop in top1 (pt)", "drop", 100.0)
    nats = replace(record, baseline=replace(record.baseline, metric="perplexity", unit="nats"))
    assert pareto.axis(nats) == pareto.Axis("Drop in perplexity (nats)", "drop", 1.0)


def test_without_drops_the_axis_is_the_error(record):
    bare = replace(record, candidates=tuple(replace(one, quality=None) for one in record.candidates))
    assert pareto.axis(bare).quantity == "relative_error"
    assert [point.loss for point in pareto.points(bare)] == [0.113, 0.052, 0.0712]
    assert "Relative error against float" in pareto.draw(bare)


def test_without_latency_no_note(record):
    bare = replace(record, candidates=tuple(replace(one, latency=None) for one in record.candidates))
    assert {point.note for point in pareto.points(bare)} == {""}


def test_nothing_to_draw(hollow):
    assert pareto.points(hollow) == ()
    assert pareto.draw(hollow) == ""


def test_the_svg_has_one_mark_a_candidate(record):
    drawn = pareto.draw(record)
    assert drawn.startswith("<svg ")
    assert drawn.endswith("</svg>")
    assert 'viewBox="' in drawn
    assert "Size (MB)" in drawn
    assert "size allowed" in drawn
    assert "drop allowed" in drawn
    symbols = re.findall(r'<g class="mark-symbol[^"]*"[^>]*>(.*?)</g>', drawn)
    assert [group.count("<path") for group in symbols] == [2, 1]


def test_no_limits_no_lines(record):
    drawn = pareto.draw(replace(record, budget=()))
    assert "allowed" not in drawn


def test_the_svg_takes_its_colours_from_the_page(record):
    drawn = pareto.draw(record)
    colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', drawn)) - {"none", "transparent"}
    assert {"var(--series-0)", "var(--soft)", "var(--line)"} <= colours
    assert all(colour.startswith("var(--") for colour in colours), colours


def test_the_svg_refers_to_nothing_outside(many):
    drawn = pareto.draw(many)
    assert not re.search(r"https?:|xmlns|href|<script|<image|<style|@import", drawn)
    assert "var(--series-1)" in drawn


def test_a_crowd_labels_only_what_ships(many):
    drawn = pareto.draw(many)
    assert len(pareto.points(many)) == 24
    assert re.findall(r">(×[0-9.]+)<", drawn) == ["×0.52", "×0.48"]


def test_a_hostile_target_is_text(record):
    evil = 'ort</text><script>alert(1)</script><text onload="x">'
    named = tuple(replace(one, target=evil if count else "other") for count, one in enumerate(record.candidates))
    drawn = pareto.draw(replace(record, candidates=named))
    assert "<script" not in drawn
    assert 'onload="' not in drawn
    assert "&lt;script&gt;" in drawn


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_a_missing_package_names_its_extra(record, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=package) as caught:
        pareto.draw(record)
    assert "haversack[pack]" in caught.value.next_step


def small(record, *sizes):
    """The record with candidates of these sizes in bytes, all with the same loss."""
    first = record.candidates[0]
    made = [replace(first, id=f"{first.id}-{size}", artifact=replace(first.artifact, bytes=size)) for size in sizes]
    return replace(record, candidates=tuple(made), budget=())


@pytest.mark.parametrize("limit, drawn", [(4 << 30, False), (40 << 30, False), (-1, True)])
def test_under_a_limit_on_addresses_nothing_is_drawn_and_the_page_says_why(record, monkeypatch, limit, drawn):
    """The engine that draws ends the process there, after all the work."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, -1) if kind == resource.RLIMIT_AS else None)
    assert bool(pareto.draw(record)) == drawn
    assert ("ulimit -v" in pareto.undrawn(record)) != drawn
    assert ("There is no plot" in page.render(record)) != drawn


def test_a_package_that_cannot_be_loaded_is_not_said_to_be_missing(record, monkeypatch):
    broken = ImportError("libvl.so: cannot allocate memory", name="vl_convert")

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "vl_convert":
                raise broken

    monkeypatch.delitem(sys.modules, "vl_convert", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(EnvironmentFault, match="cannot allocate memory"):
        pareto.draw(record)


def test_the_axis_has_the_unit_in_which_the_page_spells_such_sizes(record):
    assert "Size (kB)" in pareto.draw(small(record, 12_000, 60_000))
    assert "Size (MB)" in pareto.draw(small(record, 12_000, 2_000_000))
    assert pareto.unit(()) == ("kB", 1e3)


def test_labels_that_would_be_printed_over_another_are_left_out(record):
    points = [Point(size, 1.0, "a", "considered", f"×0.{place}") for place, size in enumerate((1.0, 1.01, 3.0))]
    ships = Point(3.01, 1.0, "a", "ships", "×0.9")
    across, along = pareto.Span(1.0, 3.01), pareto.Span(1.0, 1.0)
    assert [point.note for point in pareto.labelled([*points, ships], across, along)] == ["×0.0", "", "", "×0.9"]
    far = [replace(point, loss=float(place)) for place, point in enumerate(points)]
    assert [point.note for point in pareto.labelled(far, across, pareto.Span(0.0, 2.0))] == ["×0.0", "×0.1", "×0.2"]
    crowded = pareto.Span(0.0, 100.0)
    assert [point.note for point in pareto.labelled(far, across, crowded)] == ["×0.0", "", "×0.2"], "a limit is far off"


def test_the_axes_span_the_limits_too(record):
    across, along = pareto.spans(record)
    assert (across.low, across.high) == (4.98, 8.87)
    assert (round(along.low, 6), round(along.high, 6)) == (0.11, 2.15)
    wide = replace(record, budget=tuple(replace(one, allowed=one.allowed * 10) for one in record.budget))
    assert pareto.spans(wide)[0].high == pytest.approx(52.0)
    assert pareto.spans(wide)[1].high == pytest.approx(10.0)


PLACED = re.compile(r'transform="translate\(([-0-9.]+),\s*([-0-9.]+)\)"[^>]*>(×[0-9.]+)<')


@pytest.mark.parametrize("width", [pareto.WIDTH, pareto.SLIM])
@pytest.mark.parametrize("name", ["record", "many"])
@pytest.mark.parametrize("factor", [1, 10])
def test_no_two_labels_are_drawn_over_each_other(request, name, width, factor):
    record = request.getfixturevalue(name)
    budget = tuple(replace(limit, allowed=limit.allowed * factor) for limit in record.budget)
    drawn = PLACED.findall(pareto.draw(replace(record, budget=budget), width))
    assert drawn
    places = [(float(x), float(y)) for x, y, _ in drawn]
    pairs = [(one, other) for count, one in enumerate(places) for other in places[:count]]
    apart = [abs(one[0] - other[0]) > 43 or abs(one[1] - other[1]) > 17 for one, other in pairs]
    assert all(apart), drawn


@pytest.mark.parametrize(
    ("names", "width", "columns"),
    [
        (("onnxruntime", "executorch", "litert"), pareto.SLIM, 3),
        (("onnxruntime", "executorch", "litert", "ncnn"), pareto.SLIM, 2),
        (("onnxruntime", "executorch", "litert", "ncnn", "coreml", "tensorrt"), pareto.SLIM, 2),
        (("onnxruntime", "executorch", "litert", "ncnn", "coreml", "tensorrt"), pareto.WIDTH, 6),
        (("a" * 300, "b"), pareto.SLIM, 2),
        (("a" * 300, "b" * 300), pareto.SLIM, 1),
    ],
)
def test_a_legend_has_as_many_columns_as_there_is_room_for(names, width, columns):
    assert pareto.columns(names, width) == columns


def test_a_plot_is_no_wider_for_its_legend(six):
    def width(drawn):
        return float(re.search(r'viewBox="0 0 ([0-9.]+) ', drawn)[1])

    assert len(six.targets) == 6
    for wide in (pareto.WIDTH, pareto.SLIM):
        assert width(pareto.draw(six, wide)) <= wide + 80, "the axis alone"


@pytest.mark.parametrize(("allowed", "side"), [(5_000_000, "start"), (8_800_000, "end")])
def test_the_words_of_the_allowed_size_lie_inside_the_plot(record, allowed, side):
    budget = tuple(replace(one, allowed=allowed) if one.limit == "size" else one for one in record.budget)
    drawn = pareto.draw(replace(record, budget=budget), pareto.SLIM)
    (anchor,) = re.findall(r'<text text-anchor="(\w+)"[^>]*>size allowed<', drawn)
    assert anchor == side
