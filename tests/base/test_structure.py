"""Records from data: strict types, nested faults, a record's own words, all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from haversack.base.errors import UsageError
from haversack.base.recipe import structure, unstructure


@dataclass(frozen=True)
class Inner:
    size: int = 1
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("size is negative")


@dataclass(frozen=True)
class Outer:
    flag: bool = False
    ratio: float = 1.0
    name: str = ""
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    maybe: int | None = None


def faults(data):
    with pytest.raises(UsageError) as caught:
        structure(data, Outer, where="file")
    return [str(fault) for fault in caught.value.faults]


def test_what_fits_is_read_and_written_back():
    record = Outer(flag=True, ratio=2.0, name="x", inner=Inner(3, "b"), many=(Inner(4),), maybe=5)
    assert structure(unstructure(record), Outer, where="file") == record
    assert structure({"ratio": 2}, Outer, where="file").ratio == 2.0
    assert structure({"maybe": None}, Outer, where="file").maybe is None


@pytest.mark.parametrize(
    "data, fault",
    [
        ({"flag": "false"}, "flag: 'false' is not true or false"),
        ({"flag": 1}, "flag: 1 is not true or false"),
        ({"inner": {"size": 2.7}}, "inner.size: 2.7 is not a value of type int"),
        ({"inner": {"size": True}}, "inner.size: True is not a value of type int"),
        ({"ratio": "2"}, "ratio: '2' is not a value of type float"),
        ({"name": 5}, "name: 5 is not a value of type str"),
        ({"maybe": "1"}, "maybe: '1' is not a value of type int"),
        ({"inner": {"sise": 2}}, "inner.sise: unknown name; did you mean size?"),
        ({"many": [{}, {"size": -1}]}, "many[1]: size is negative"),
        ({"many": [{"qqq": 1}]}, "many[0].qqq: unknown name (has: size, kind)"),
        ({"nam": "x"}, "nam: unknown name; did you mean name?"),
    ],
)
def test_a_planted_fault_is_told_with_its_path(data, fault):
    assert faults(data) == [fault]


def test_a_choice_names_what_may_be_chosen():
    (fault,) = faults({"inner": {"kind": "c"}})
    assert fault == "inner.kind: 'c' is none of them (has: a, b)"


def test_every_fault_is_told_at_once():
    assert len(faults({"flag": 3, "inner": {"size": "x", "q": 1}, "many": [{"size": -1}], "zzz": 0})) == 5
