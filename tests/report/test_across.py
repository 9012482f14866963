"""What the page, the terminal and the verdict tell of several runtimes, and of the one that ships."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest

from haversack import report
from haversack.base.candidate import Pair
from haversack.base.finding import Finding
from haversack.report import build, headline, lines, render
from haversack.report.record import FindingRecord, PairRecord

ONNX, LITERT, MOBILE, REFERENCE, FLOAT = "onnxruntime", "litert", "executorch", "reference", "float"
WHY = "onnxruntime ships (11.8 ms a call): it meets every limit; nothing else is as fast."
ROW = re.compile(r'<tr><th scope="row">(\w+)</th><td>(\w+)</td><td class="n">(.*?)</td><td class="n">(.*?)</td></tr>')


def pairs(*told, compared=12_345):
    return tuple(PairRecord(first, second, differing, compared, error) for first, second, differing, error in told)


EQUAL = pairs((ONNX, LITERT, 0, 0.0), (ONNX, REFERENCE, 0, 0.0), (LITERT, REFERENCE, 0, 0.0))
FLOATS = pairs((ONNX, FLOAT, 12_000, 0.0712), (LITERT, FLOAT, 12_000, 0.0712), (REFERENCE, FLOAT, 12_000, 0.0712))


@pytest.fixture
def one(values, make, plan):
    """A run on two runtimes of which the first ships; the other missed a limit, and has an error of its own."""
    error = Finding("not-exact", "3 of 512 output values differ")
    other = make(plan(LITERT, "minmax", "int8"), 9.0, 0.001, 0.05, 0.4, verdict="missed", findings=(error,))
    built = build(**{**values, "candidates": (*values["candidates"], other)})
    assert built.best_of(LITERT) is None
    return replace(built, why=WHY, across=(*EQUAL, *FLOATS))


def test_a_pair_becomes_a_row_of_the_record():
    assert report.pair(Pair(ONNX, FLOAT, 3, 8, 0.25)) == PairRecord(ONNX, FLOAT, 3, 8, 0.25)


@pytest.mark.parametrize("error", [float("inf"), float("nan")])
def test_an_error_that_is_no_number_is_none(error):
    assert report.pair(Pair(ONNX, FLOAT, 8, 8, error)).relative_error is None


def test_the_page_shows_every_pair(many):
    page = render(replace(many, across=(*EQUAL, *FLOATS)))
    _, _, section = page.partition('<h2 id="across">Across runtimes</h2>')
    rows = ROW.findall(section.partition("</section>")[0])
    assert len(rows) == 6
    assert (ONNX, LITERT, "0 of 12,345") in [row[:3] for row in rows]
    assert (ONNX, FLOAT, "12,000 of 12,345", "0.0712") in rows


def test_an_error_that_was_not_found_is_a_dash(many):
    page = render(replace(many, across=pairs((ONNX, LITERT, 5, None))))
    assert [row[3] for row in ROW.findall(page) if row[0] == ONNX] == ["—"]


@pytest.mark.parametrize("name", ["record", "many"])
def test_no_pairs_no_section(page_of, name):
    assert "Across runtimes" not in page_of(name)
    assert 'class="why"' not in page_of(name)


def test_the_page_says_why_this_one_ships(one):
    page = render(one)
    assert f'<p class="why">{WHY}</p>' in page
    assert page.count('class="why"') == 1


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", 'a "b" & <b>c</b>', "{{ 7 * 7 }} &amp;"])
def test_the_paragraph_is_text_and_no_markup(one, text):
    page = render(replace(one, why=f"{text} ships."))
    found = re.search(r'<p class="why">(.*?)</p>', page)
    assert html.unescape(found.group(1)) == f"{text} ships."
    assert "<" not in found.group(1)


def test_names_of_pairs_are_text_and_no_markup(many):
    page = render(replace(many, across=pairs(("<i>a</i>", "b&c", 0, 0.0))))
    assert '<th scope="row">&lt;i&gt;a&lt;/i&gt;</th><td>b&amp;c</td>' in page


def test_a_record_keeps_pairs_and_paragraph(one, tmp_path):
    report.write(one, tmp_path)
    found = report.read(tmp_path)
    assert (found.across, found.why) == (one.across, WHY)


def test_the_same_bits_from_all(many):
    told = lines(replace(many, across=(*EQUAL, *FLOATS)))
    assert f"the same bits from {ONNX}, {LITERT}, {REFERENCE}: all 12,345 values" in told
    assert sum("same bits" in line for line in told) == 1
    assert not any(FLOAT in line for line in told if "same bits" in line)


def test_two_of_three_are_told_as_two(many):
    across = pairs((ONNX, LITERT, 0, 0.0), (ONNX, MOBILE, 4, 0.1), (LITERT, MOBILE, 4, 0.1))
    told = [line for line in lines(replace(many, across=across)) if "same bits" in line]
    assert told == [f"the same bits from {ONNX}, {LITERT}: all 12,345 values"]


def test_two_groups_are_told_apart(many):
    names = (ONNX, LITERT, MOBILE, REFERENCE)
    groups = {frozenset(names[:2]), frozenset(names[2:])}
    across = pairs(
        *((a, b, 0 if {a, b} in groups else 9, 0.0) for place, a in enumerate(names) for b in names[place + 1 :])
    )
    told = [line for line in lines(replace(many, across=across)) if "same bits" in line]
    assert told == [
        f"{ONNX} and {LITERT} give the same bits, all 12,345 values",
        f"{MOBILE} and {REFERENCE} give the same bits, all 12,345 values",
    ]


@pytest.mark.parametrize(
    "across",
    [(), FLOATS, pairs((ONNX, LITERT, 1, 0.0)), pairs((ONNX, LITERT, 0, 0.0), compared=0)],
    ids=["no pairs", "float alone", "one value off", "nothing compared"],
)
def test_what_is_not_the_same_is_not_told_as_the_same(many, across):
    assert not any("same bits" in line for line in lines(replace(many, across=across)))


def test_the_terminal_speaks_of_what_ships_and_says_why(one):
    told = lines(one)
    assert told[0] == "Every budget is met on onnxruntime."
    assert told[1].startswith("onnxruntime: 5.02 MB")
    assert told[2] == WHY
    assert not any(line.startswith("litert:") for line in told)
    assert not any("not-exact" in line for line in told if line.startswith("error"))


def test_the_headline_speaks_of_what_ships_alone(one):
    assert headline.of(one) == headline.Headline("met", "Every budget is met on onnxruntime.")
    asked_for = headline.of(replace(one, why=""))
    assert asked_for.state == "failed"
    assert asked_for.sentence.startswith("No artefact for litert")


def test_the_headline_counts_the_misses_of_what_ships_alone(many):
    shipped = replace(many, best={LITERT: many.best[LITERT]}, why="litert ships.")
    assert headline.of(many).sentence.startswith("The budget is missed on onnxruntime")
    verdict = headline.of(shipped)
    assert verdict.state == "missed"
    assert verdict.sentence == "The budget is missed on litert: drop in quality 3.00 pt, allowed 1.00 pt."


def test_a_finding_on_what_does_not_ship_fails_nothing(many):
    grave = FindingRecord("not-exact", "error", "", "planted")
    marked = tuple(replace(c, findings=(grave,)) if c.id == many.best[ONNX] else c for c in many.candidates)
    both = replace(many, candidates=marked, budget=())
    assert headline.of(both).sentence == "The finding not-exact fails the run on onnxruntime."
    alone = replace(both, best={LITERT: many.best[LITERT]}, why="litert ships.")
    assert headline.of(alone) == headline.Headline("met", "No budget was set; measured on litert.")
