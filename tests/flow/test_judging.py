"""What a later look at a candidate tells stands in place of what an earlier one told of the same."""

from __future__ import annotations

import pytest

from haversack.base.candidate import Candidate
from haversack.base.finding import Finding
from haversack.base.plan import Plan
from haversack.flow.judging import judged, retold

FEW = Finding("float-rounding", "3 of 80 output values differ from the reference's", "0:conv2d#0")
MANY = Finding("float-rounding", "21 of 640 output values differ from the reference's", "0:conv2d#0")
ELSEWHERE = Finding("float-rounding", "1 of 80 output values differs from the reference's", "1:linear#0")
DETOURS = (Finding("detour", "a pad"), Finding("detour", "a transpose"))
WRONG = Finding("not-exact", "9 of 640 output values differ from the reference's")


def found(*findings):
    return Candidate(Plan("onnxruntime"), None, None, None, None, None, None, findings)


@pytest.mark.parametrize(
    ("first", "later", "left"),
    [
        ((), (), ()),
        ((FEW,), (), (FEW,)),
        ((), (MANY,), (MANY,)),
        ((FEW,), (MANY,), (MANY,)),
        ((MANY,), (MANY,), (MANY,)),
        ((FEW, *DETOURS), (MANY,), (*DETOURS, MANY)),
        ((ELSEWHERE,), (MANY,), (ELSEWHERE, MANY)),
        ((FEW,), (WRONG, WRONG), (FEW, WRONG)),
    ],
)
def test_of_one_kind_and_place_the_later_one_stays(first, later, left):
    assert retold(found(*first), later).findings == left


def test_what_is_told_later_is_judged():
    assert judged(retold(found(FEW), (MANY,)), ()).verdict != "failed"
    failed = judged(retold(found(FEW), (WRONG,)), ())
    assert (failed.verdict, failed.reason) == ("failed", f"not-exact: {WRONG.text}")
    assert judged(retold(found(FEW), (WRONG,)), ("not-exact",)).verdict != "failed"
