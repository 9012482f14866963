"""A worker on a far device: the same calls over a ``link``."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from haversack.base.errors import EnvironmentFault
from haversack.tools.worker.faults import LinkLost, WorkerCrashed
from haversack.tools.worker.link import Carrier, Link, Parcel
from haversack.tools.worker.process import DEFAULT_LIMITS, Limits, Worker
from haversack.tools.worker.protocol import Frame

PATIENCE = (1.0, 5.0, 15.0)
"""Seconds to wait before each attempt to reach a device again that was lost in a call."""


class FarWorker(Worker):
    """A worker that a keeper started on a device; use it as a context manager.

    A connection that is lost within a call may be the call's doing (the device ran out of memory, or restarted). If the
    device can be reached again, the call raises ``WorkerCrashed`` and the run goes on; if it cannot, ``LinkLost``.
    """

    def __init__(self, link: Link, limits: Limits, patience: tuple[float, ...]) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._number = 0
        self._link = link
        self._pipe = link
        self._log = _Printed(link)
        self._process = link.process
        self._patience = patience
        self._pid = 0

    @classmethod
    def on(
        cls,
        carrier: Carrier,
        entry: str,
        code: Parcel,
        *,
        limits: Limits = DEFAULT_LIMITS,
        patience: tuple[float, ...] = PATIENCE,
    ) -> Self:
        """Connect, bring our code, start a worker there and shake hands.

        Args:
            carrier: how the device is reached.
            entry: ``module:factory``, imported there.
            code: the modules that the worker needs, below one folder.
            limits: what it may use.
            patience: waits before each attempt to reach a device again that was lost.

        Raises:
            LinkLost: the device cannot be reached.
            EnvironmentFault: it cannot keep our code.
            WorkerError, WorkerCrashed, WorkerTimeout: as ``Worker.start``.
        """
        worker = cls(Link(carrier, limits.start_seconds, limits.log_bytes), limits, patience)
        ready = False
        try:
            limited = {"address_space": limits.address_space, "cpu_seconds": limits.cpu_seconds}
            question = {"ask": "spawn", "entry": entry, "code": worker.place(code), "limits": limited}
            worker._pid = int(worker._ask(question)["pid"])
            worker.greet()
            ready = True
        finally:
            if not ready:
                worker.close()
        return worker

    @property
    def pid(self) -> int:
        """The worker's process id on the device."""
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether the process runs and can be reached, as far as was heard."""
        return self._link.code is None and super().alive

    def place(self, parcel: Parcel) -> str:
        """Bring files to the device, unless they are there, and return their folder.

        Raises:
            LinkLost: the connection ended.
            EnvironmentFault: they cannot be read here or kept there.
        """
        with self._lock:
            try:
                return self._link.place(parcel)
            except OSError as error:
                raise EnvironmentFault(str(error) or "the worker has ended", where="--device") from error

    def call(
        self,
        method: str,
        header: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        timeout: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Call a method and wait for its answer: see ``Worker.call``; arrays of any shape, named.

        Raises:
            LinkLost: the device was lost in the call, and cannot be reached again.
            WorkerCrashed: also when it was lost and can be reached again.
            WorkerError, WorkerTimeout: as there.
        """
        try:
            return super().call(method, header, arrays, timeout)
        except LinkLost as lost:
            if not _again(self._link.carrier, self._patience):
                raise
            cause = f"the connection was lost in this call, and the device can be reached again: {lost.cause}"
            raise WorkerCrashed(cause, method=method, log=lost.log) from lost

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._link.ask(question)
        except OSError as error:
            raise EnvironmentFault(str(error), where="--device") from error

    def _exchange(self, method: str, pieces: list[memoryview], seconds: float) -> Frame:
        answer = super()._exchange(method, pieces, seconds)
        self._link.end()
        return answer

    def _status(self) -> int:
        return super()._status() if self._link.code is None else self._link.code


class _Printed:
    """The log of a far worker."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def text(self) -> str:
        return self._link.printed()

    def finish(self) -> str:
        return self._link.printed()

    def close(self) -> None:
        """Nothing is held."""


def _again(carrier: Carrier, patience: tuple[float, ...]) -> bool:
    for seconds in patience:
        time.sleep(seconds)
        try:
            Link(carrier).close()
        except LinkLost:
            continue
        return True
    return False
