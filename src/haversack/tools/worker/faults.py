"""What a worker's end looks like from the parent: always one of three exceptions, never the end of the run.

Only where a device itself cannot be reached any more, or no process comes up on it, nothing can be said of what was
tried: ``LinkLost``, ``NeverReady``.
"""

from __future__ import annotations

from haversack.base.errors import EnvironmentFault, Fault

_LOG_LINES = 12


class WorkerFault(EnvironmentFault):
    """A call to a worker that gave no result; ``where`` is empty, for no layer is known to be at fault.

    Attributes:
        method: the method that was called.
        log: the end of what the process printed on stdout and stderr.
    """

    def __init__(self, cause: str, *, method: str, log: str = "", next_step: str = "") -> None:
        lines = [line for line in log.splitlines() if line.strip()][-_LOG_LINES:]
        first, line_end, rest = cause.partition("\n")
        super().__init__(
            f"{first} (when asked to {method}){line_end}{rest}",
            faults=tuple(Fault("log", line.strip()) for line in lines),
            next_step=next_step,
        )
        self.method = method
        self.log = log


class WorkerCrashed(WorkerFault):
    """The process died, closed its pipe or wrote what is no frame; ``returncode`` is negative for a signal."""

    def __init__(self, cause: str, *, method: str, log: str = "", returncode: int | None = None) -> None:
        super().__init__(cause, method=method, log=log)
        self.returncode = returncode


class WorkerTimeout(WorkerFault):
    """The call took longer than its limit of ``seconds`` and the process was killed."""

    def __init__(self, *, method: str, seconds: float, log: str = "") -> None:
        super().__init__(f"no answer within {seconds:g} s; the process was killed", method=method, log=log)
        self.seconds = seconds


class WorkerError(WorkerFault):
    """The method raised; the process lives on and takes further calls.

    Attributes:
        type: the exception's class, ``module.Name`` (builtins without module).
        text: its message.
        traceback: as Python prints it.
    """

    def __init__(self, *, method: str, type_: str, text: str, traceback: str) -> None:
        # Our own errors are sentences; of others the class says what the text may not.
        super().__init__(text if type_.startswith("haversack.") else f"{type_}: {text}", method=method)
        self.type = type_
        self.text = text
        self.traceback = traceback


class NeverReady(EnvironmentFault):
    """Two processes in a row died or hung before they opened anything; ``log`` is the end of what the second printed.

    Args:
        last: what became of the second.
    """

    def __init__(self, last: WorkerCrashed | WorkerTimeout) -> None:
        super().__init__(
            f"no worker process comes up: {last.cause}",
            faults=last.faults,
            tried="starting two, one after the other; nothing had been opened in them",
            next_step="free some memory, then repeat the same command: it resumes (haversack doctor tries a worker)",
        )
        self.log = last.log


class LinkLost(EnvironmentFault):
    """There is no connection to a device; ``log`` is what the program that carries it said."""

    def __init__(self, cause: str, *, log: str = "", next_step: str = "") -> None:
        lines = [line for line in log.splitlines() if line.strip()][-_LOG_LINES:]
        faults = tuple(Fault("", line.strip()) for line in lines)
        super().__init__(cause, where="--device", faults=faults, next_step=next_step)
        self.log = log
