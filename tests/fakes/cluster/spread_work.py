"""Functions that a module names, for workers: they log that they ran, fail as our own do, and die."""

import os
import signal
import time
from pathlib import Path

from haversack.base.errors import Fault, JobError
from haversack.flow import far


def squared(shared, task):
    """Write down which process ran the task, and return its square in the shared unit."""
    folder, unit = shared
    with (Path(folder) / f"task-{task}").open("a") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(0.3)
    return unit * task * task


def squared_together(shared, task):
    """Do as ``squared`` once two processes have begun: the second may still be loading when the first is ready."""
    folder, _ = shared
    found = squared(shared, task)
    until = time.monotonic() + 60
    while len({path.read_text() for path in Path(folder).iterdir()} - {""}) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    return found


def knows(shared, task):
    """Say whether this process has read a program, by the reference that it came from."""
    folder, reference = shared
    squared_together((folder, 1), task)
    return reference in far._programs


def dies_once(shared, task):
    """Kill its own process at the first try of task 2."""
    folder, _ = shared
    died = Path(folder) / "died"
    if task == 2 and not died.exists():
        died.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return squared(shared, task)


def always_dies(shared, task):
    """Kill its own process at every try."""
    with (Path(shared) / "tries").open("a") as log:
        log.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def refuses(shared, task):
    """Raise an error of ours, with all its parts."""
    raise JobError("it is odd", where="task", tried="looking", next_step="another", faults=(Fault(str(task), "odd"),))


def breaks(shared, task):
    """Raise what is no error of ours."""
    return [][task]


def writes(shared, task):
    """Change what it was given in place: arrays that arrive are its own."""
    (array,) = shared
    task += 1
    made = array + task
    array *= 1
    return made


def threads(shared, task):
    """Return how many threads a task has, in torch and for BLAS."""
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]


def slow(shared, task):
    """Take so many seconds."""
    time.sleep(shared)
    return task
