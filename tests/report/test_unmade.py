"""The page's list of plans that were not made real."""

from __future__ import annotations

from dataclasses import replace

from haversack.report import render

NOTHING = {
    **dict.fromkeys(("artifact", "quality", "parity", "latency", "memory", "after", "forecast")),
    **dict.fromkeys(("layers", "findings"), ()),
}


def unmade(record, count):
    """The record with so many plans that were given up on a forecast."""
    first = record.candidates[0]
    reasons = ["not made: forecast output error 0.0975 does not lead 0.1000 of 0", "not made: forecast size 9.3 MB is"]
    more = [
        replace(first, id=f"more-{place}", verdict="not made", reason=reasons[place % 2], **NOTHING)
        for place in range(count)
    ]
    return replace(record, candidates=(*record.candidates, *more))


def test_many_plans_that_were_not_made_are_folded_with_their_number_and_reasons(record):
    page = render(unmade(record, 15))
    assert "<summary>15 plans were not made real: forecast output error (8), forecast size (7)</summary>" in page
    folded = page.partition('<details class="unmade">')[2].partition("</details>")[0]
    assert folded.count("more-") == 15
    assert page.count("more-") == 15
    assert record.candidates[0].id not in folded
    assert "<td>forecast size 9.3 MB is</td>" in folded
    assert "not made: " not in folded, "the verdict beside it says so"


def test_a_few_stand_among_the_others(record):
    assert '<details class="unmade">' not in render(unmade(record, 3))
