"""One death is looked at a second time, two are believed; before anything was opened they say nothing of it."""

from __future__ import annotations

import pytest

from haversack.base.errors import EXIT_ENVIRONMENT
from haversack.tools.worker.again import ready, twice
from haversack.tools.worker.faults import NeverReady, WorkerCrashed, WorkerError, WorkerFault, WorkerTimeout

DEATH = WorkerCrashed("the process died of SIGKILL", method="hello", log="a line\n", returncode=-9)
HANG = WorkerTimeout(method="hello", seconds=2)
REFUSAL = WorkerError(method="hello", type_="ImportError", text="no module", traceback="")


def playing(*acts):
    """A function that does one act after the other: raises an exception, or returns a value."""
    left = list(acts)

    def act():
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    return act


@pytest.mark.parametrize("first", [DEATH, HANG])
def test_one_that_dies_or_hangs_before_it_opens_anything_is_started_again(first):
    assert ready(playing(first, 7)) == 7


@pytest.mark.parametrize("last", [DEATH, HANG])
def test_two_that_do_are_the_machines_fault(last):
    with pytest.raises(NeverReady) as caught:
        ready(playing(DEATH, last, 7))
    assert not isinstance(caught.value, WorkerFault), "that would be a finding on a candidate"
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert last.cause in str(caught.value)
    assert "repeat the same command" in caught.value.next_step
    assert caught.value.log == last.log


@pytest.mark.parametrize("look", [ready, twice])
def test_what_a_process_answers_is_believed_at_once(look):
    with pytest.raises(WorkerError):
        look(playing(REFUSAL, 7))


def test_a_death_is_told_and_looked_at_once_more():
    told = []
    assert twice(playing(DEATH, 7), told.append) == 7
    assert told == [DEATH]
    assert twice(playing(DEATH, 8)) == 8


def test_a_second_death_is_believed_and_a_hang_at_once():
    told = []
    with pytest.raises(WorkerCrashed):
        twice(playing(DEATH, DEATH, 7), told.append)
    with pytest.raises(WorkerTimeout):
        twice(playing(HANG, 7), told.append)
    assert told == [DEATH]
