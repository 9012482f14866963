"""One record of several architectures: nothing is lost, ids stay apart, one front over all, words for each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack import report
from haversack.base.budget import parse
from haversack.report import build, pareto
from haversack.report.several import rows, together

TARGET = "onnxruntime"
BETWEEN = {TARGET: "wide is the best (top1 88.60 %)."}


@pytest.fixture
def values_of(values, candidates):
    """A function that returns what ``build`` takes of one architecture; what ships of it or nothing."""

    def of(name, *, ships, megabytes=0.0, quality=0.0):
        own = [replace(one, architecture=name) for one in candidates]
        own = [
            one
            if one.artifact is None
            else replace(
                one,
                artifact=replace(
                    one.artifact,
                    files=tuple(replace(file, bytes=file.bytes + int(1e6 * megabytes)) for file in one.artifact.files),
                ),
            )
            for one in own
        ]
        baseline = replace(values["baseline"], value=values["baseline"].value + quality)
        model = replace(values["model"], name=f"net-{name}", parameters=len(name))
        best = {TARGET: own[0].id} if ships else {}
        forecasts = {f"{name}-{plan}": one for plan, one in (values.get("forecasts") or {}).items()}
        after = {f"{name}-{plan}": one for plan, one in (values.get("after") or {}).items()}
        told = {"candidates": own, "baseline": baseline, "model": model, "best": best}
        return {**values, **told, "forecasts": forecasts, "after": after}

    return of


@pytest.fixture
def records(values_of):
    return {
        "wide": build(**values_of("wide", ships=True)),
        "narrow": build(**values_of("narrow", ships=False, megabytes=-2.0, quality=-0.02)),
    }


@pytest.fixture
def record(records):
    order = [one.id for name in ("wide", "narrow") for one in records[name].candidates]
    return together(
        records, reference="wide", name="net", order=order, between=BETWEEN, lost={"huge": "it cannot\n be exported"}
    )


def test_every_candidate_is_there_under_its_own_id(record, records):
    ids = [one.id for one in record.candidates]
    assert len(set(ids)) == len(ids) == sum(len(one.candidates) for one in records.values())
    assert {one.plan.id for one in records["wide"].candidates} == {one.plan.id for one in records["narrow"].candidates}
    assert record.best == records["wide"].best
    assert record.best_of(TARGET).architecture == "wide"


def test_the_figures_are_the_references_and_those_of_what_ships(record, records):
    assert record.model == replace(records["wide"].model, name="net")
    assert record.baseline == records["wide"].baseline
    assert record.budget == records["wide"].budget
    assert record.floats == records["wide"].floats
    assert record.between == BETWEEN


def test_what_ships_brings_its_own_float_file_though_another_is_the_reference(records):
    order = [one.id for one in records["wide"].candidates]
    other = {
        **records,
        "wide": replace(records["wide"], floats={TARGET: replace(records["wide"].floats[TARGET], bytes=7)}),
    }
    found = together(other, reference="narrow", name="net", order=order, between={}, lost={})
    assert found.floats[TARGET].bytes == 7
    assert found.model.parameters == len("narrow")
    assert found.model_of(found.best_of(TARGET)).parameters == len("wide")


def test_each_architecture_is_told(record, records):
    assert list(record.architectures) == ["wide", "narrow", "huge"]
    assert record.architectures["narrow"].model.parameters == len("narrow")
    assert record.architectures["narrow"].baseline.value == records["narrow"].baseline.value
    assert record.architectures["narrow"].baseline.stated is None
    assert record.architectures["huge"].model is None
    assert record.architectures["huge"].lost == "it cannot\n be exported"


def test_two_that_ship_for_one_target_are_an_error(values_of):
    both = {name: build(**values_of(name, ships=True)) for name in ("a", "b")}
    with pytest.raises(ValueError, match="two architectures ship"):
        together(both, reference="a", name="net", order=[], between={}, lost={})


def test_where_nothing_ships_the_limits_of_what_was_measured_are_told(values_of, values):
    budget = parse("size=1MB")
    empty = build(**{**values_of("empty", ships=False), "candidates": (), "budget": budget})
    made = build(**{**values_of("made", ships=False), "budget": budget})
    order = [one.id for one in made.candidates]
    found = together({"empty": empty, "made": made}, reference="empty", name="net", order=order, between={}, lost={})
    (limit,) = found.budget
    assert limit.missed
    assert limit.got is not None


def test_it_is_read_back_as_it_was_written(record, tmp_path):
    report.write(record, tmp_path)
    assert report.read(tmp_path) == record


def test_one_row_for_each_architecture_and_target(record):
    assert [(name, best.id) for name, _, best in rows(record)] == [
        (name, next(one.id for one in record.candidates if one.architecture == name)) for name in ("wide", "narrow")
    ]


def test_one_front_over_the_candidates_of_all(record):
    shown = pareto.points(record)
    assert {point.architecture for point in shown} == {"wide", "narrow"}
    front = pareto.frontier(shown)
    assert {point.target for point in front} == {TARGET}
    assert [point.size for point in front] == sorted(point.size for point in front)
    losses = [point.loss for point in front]
    assert losses == sorted(losses, reverse=True), "one line for the target, and not one an architecture"
    assert {point.architecture for point in front} == {"narrow"}, "two megabytes less at the same drops"


def test_marks_say_the_architecture_and_the_time_in_shapes_of_their_own(record, values):
    note = next(point.note for point in pareto.points(record) if point.kind == "ships")
    assert note.startswith("wide ")
    assert note.endswith(" ms")
    drawn = pareto.draw(record)
    assert note in drawn
    alone = pareto.draw(build(**values))
    paths = {part.split('"')[0] for part in drawn.split(' d="') if part.startswith("M") and "A" in part.split('"')[0]}
    assert paths, "circles for one"
    assert drawn.count("Z") > alone.count("Z"), "and closed shapes for the other"


def test_labels_that_name_an_architecture_keep_their_length_apart():
    span = pareto.Span(0.0, 100.0)
    ones = [pareto.Point(size, 50.0, TARGET, "considered", "narrow 1.23 ms", "narrow") for size in (40.0, 50.0)]
    kept = pareto.labelled(ones, span, span)
    assert [bool(point.note) for point in kept] == [True, False]
    bare = [replace(point, note="×0.49", architecture="") for point in ones]
    assert all(point.note for point in pareto.labelled(bare, span, span))


def test_the_terminal_names_it(record, values):
    lines = report.lines(record)
    assert any(line.startswith(f"{TARGET}: wide  ") and "(best float " in line for line in lines)
    assert f"{TARGET}: {BETWEEN[TARGET]}" in lines
    assert "huge is left out: it cannot be exported" in lines
    alone = "\n".join(report.lines(build(**values)))
    assert "best float" not in alone
    assert "left out" not in alone


def test_the_page_tells_each_and_a_page_of_one_model_does_not(record, values):
    page = report.render(record)
    assert 'id="architectures"' in page
    for words in ("Before, wide", "Before, narrow", "narrow, before", BETWEEN[TARGET], "best float"):
        assert words in page
    assert "Before, huge" not in page
    alone = report.render(build(**values))
    assert 'id="architectures"' not in alone
    assert "best float" not in alone
    assert '<th scope="row">Before</th>' in alone
