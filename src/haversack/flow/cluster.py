"""Spreading pure work over a Ray cluster (``pack --ray``): joined or started here, and gone when the run ends."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from haversack.base.counted import counted
from haversack.base.errors import EnvironmentFault, Fault, MissingExtra
from haversack.base.progress import Event, Sink
from haversack.base.spread import Result, Shared, Spread, Task, here
from haversack.flow import far, parcels
from haversack.flow.cluster_address import Address, check, parsed, unreachable
from haversack.flow.last_word import last_word

if TYPE_CHECKING:
    from torch.export import ExportedProgram

GREET_SECONDS = 120.0
RAYS_TRIES, OUR_TRIES = 2, 2
"""A task whose worker died is tried again so often by Ray, and so often we hand it to Ray, before it counts as lost."""
LONGEST, SHORT = 18, "/tmp"  # noqa: S108 - a folder of our own is made in it
"""Bytes of the name of a folder for passing files that leave room for the paths of Ray's sockets, and one that does."""

LOST = (
    "error: haversack ended without a word of its own: it was killed, or Ray ended it as the raylet of this machine is "
    "gone\n  next: the same command goes on with what was kept; without --ray it needs no cluster"
)


@contextmanager
def spreading(text: str, sink: Sink) -> Iterator[Spread]:
    """Give what spreads pure work: here without an address, else over a cluster that is joined until the end.

    Args:
        text: ``local``, ``local:WORKERS``, ``HOST:PORT``, or empty.
        sink: told of the workers.

    Raises:
        UsageError, MissingExtra: as ``check``.
        EnvironmentFault: the cluster is not reached, has no worker, or one that is not like this machine.
    """
    if not text:
        yield here
        return
    check(text)
    address = parsed(text)
    sink(Event("pack", "start", f"a Ray cluster: {address}"))
    with ExitStack() as stack:
        threads = _threads()
        stack.enter_context(last_word(LOST))
        stack.enter_context(_surroundings(local=not address.host))
        _join(stack, address, threads)
        cluster = Cluster(threads)
        cluster.greet()
        workers = f"{counted(cluster.workers, 'worker')} of {counted(threads, 'thread')}"
        sink(Event("pack", "note", f"pure work goes to {workers} in a Ray cluster ({address})"))
        yield cluster


def _threads() -> int:
    """Return in how many threads this process computes: so must a worker, for the same bits."""
    import torch

    return torch.get_num_threads()


@cache
def _token() -> str:
    """Return what lets a process into the clusters that this one starts; they listen on the network."""
    return secrets.token_hex(32)


@contextmanager
def _surroundings(*, local: bool) -> Iterator[None]:
    """Set what Ray reads from the environment: no usage statistics, no chatter; a token where we start it."""
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if local:
        wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        _read_again()


def _read_again() -> None:
    """Have Ray read the environment again, where it did already: it asks once a process whether there is a token."""
    if raylet := sys.modules.get("ray._raylet"):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def _join(stack: ExitStack, address: Address, threads: int) -> None:
    """Start or join a cluster, and leave it with the stack.

    Raises:
        MissingExtra: Ray is there, but cannot be loaded.
        EnvironmentFault: it does not take us.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", purpose="--ray") from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    blas = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": blas or str(len(os.sched_getaffinity(0))),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "runtime_env": {"env_vars": variables}}
    if address.host:
        quiet |= {"address": str(address)}
    else:
        folder = _passing()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        count = address.workers * threads
        quiet |= {"address": "local", "num_cpus": count, "num_gpus": 0, "include_dashboard": False, "_temp_dir": folder}
    hear = partial(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    ours = threading.current_thread() is threading.main_thread()
    if ours:
        stack.callback(hear)
    stack.callback(ray.shutdown)
    # What a cluster tells its driver (a worker that died) Ray prints to standard output, where a run's JSON may be;
    # we tell what follows. Variables that forbid it are read as Ray is imported, which may have been before us.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001 - `log_to_driver` stops workers' output alone
    try:
        ray.init(**quiet)
    except Exception as error:  # among others a plain one, where its processes do not come up in time
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise unreachable(address, lines[0] if lines else type(error).__name__, "ray.init") from error
    if ours:
        hear()  # Ray sets handlers of its own, one of which aborts the process


def _passing() -> str:
    """Return a new folder for what Ray writes while it runs; a socket's path may have 107 bytes, and Ray adds 65."""
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="haversack-ray-", dir=usual if len(os.fsencode(usual)) <= LONGEST else SHORT)


@dataclass
class _Sent:
    """A task on its way: where its answer will be, and what it takes to send it again."""

    reference: Any
    again: Callable[[], Any]


class Cluster:
    """Spreads tasks over the cluster that this process is in.

    Args:
        threads: in which a worker computes; it takes as many of the cluster's CPUs.

    Attributes:
        terms: what a worker must be like.
        nodes: the machines that offer a CPU, as Ray tells of them.
        share: CPUs that a worker takes.
        workers: how many tasks run at once.
        warming: what its workers do first.
        retries: how often Ray tries a task again whose worker died.
        seconds: of every task answered, in order.
    """

    def __init__(self, threads: int) -> None:
        import ray

        self.terms = far.Terms(far.likeness(), threads)
        found = ray.nodes()  # type: ignore[no-untyped-call]
        self.nodes = [node for node in found if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        largest = max((int(node["Resources"]["CPU"]) for node in self.nodes), default=0)
        self.share = min(threads, largest)
        self.workers = sum(int(node["Resources"]["CPU"]) // self.share for node in self.nodes)
        self.retries = RAYS_TRIES
        self.warming: list[Any] = []
        self.seconds: list[float] = []
        self._programs: dict[str, tuple[ExportedProgram, Any]] = {}
        self._answer = ray.remote(far.answer)

    def greet(self) -> None:
        """Ask every machine of the cluster whether it is like this one.

        Raises:
            EnvironmentFault: there is none, one is not, or has no haversack at all.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        hello = ray.remote(far.greet)
        on = [On(node["NodeID"], soft=False) for node in self.nodes]
        asked = [hello.options(scheduling_strategy=place, num_cpus=0).remote(self.terms) for place in on]
        faults = []
        for node, reference in zip(self.nodes, asked, strict=True):
            try:
                found = ray.get(reference, timeout=GREET_SECONDS)
            except ray.exceptions.RayError as error:
                lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
                faults.append(Fault(node["NodeManagerAddress"], lines[-1].strip()))
                continue
            if found.kind == "unlike":
                faults += [Fault(node["NodeManagerAddress"], line) for line in found.value]
        if faults or not self.nodes:
            raise _unlike(faults or [Fault("", "no machine of it offers a CPU")])
        # Nobody waits: workers begin while the model is exported here.
        warm = ray.remote(far.warm).options(num_cpus=self.share)
        self.warming = [warm.remote() for _ in range(self.workers)]

    def ahead(self, program: ExportedProgram) -> None:
        """Have every worker read a program; nobody waits for it."""
        import ray

        reference = [self._programs[self._apart(program)][1]]
        read = ray.remote(far.read).options(num_cpus=self.share)
        self.warming += [read.remote(reference) for _ in range(self.workers)]

    def __call__(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task], /
    ) -> Iterator[Result]:
        """Yield the results in the order of the tasks; see ``base.spread``. Nothing runs on when it has ended.

        Raises:
            EnvironmentFault: a task was lost again and again, or a worker is not like this machine.
            HaversackError: what the function raises.
        """
        import ray

        name = far.name_of(function)
        value = [ray.put(parcels.packed(shared, self._apart))]
        programs = {key: [reference] for key, (_, reference) in self._programs.items()}
        ahead = 2 * self.workers + 2
        waiting: deque[_Sent] = deque()
        left = iter(tasks)

        def send(task: Task) -> _Sent:
            parcel = parcels.packed(task, self._apart)

            def again() -> Any:  # noqa: ANN401 - Ray's reference
                answer = self._answer.options(num_cpus=self.share, max_retries=self.retries)
                return answer.remote(self.terms, name, value, programs, parcel)

            return _Sent(again(), again)

        try:
            while True:
                waiting += [send(task) for task in islice(left, ahead - len(waiting))]
                if not waiting:
                    return
                yield self._result(waiting[0])
                waiting.popleft()
        except (KeyboardInterrupt, SystemExit):
            waiting.clear()  # the cluster ends, or lets us go
            raise
        finally:
            # Waited for, not cancelled: a task that is cancelled as it completes makes Ray (2.60) abort this process.
            if waiting and ray.is_initialized():
                ray.wait([sent.reference for sent in waiting], num_returns=len(waiting))

    def _result(self, sent: _Sent) -> Any:  # noqa: ANN401 - the function's
        import ray

        lost = ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError
        for left in reversed(range(OUR_TRIES)):
            try:
                found: far.Answer = parcels.unpacked(ray.get(sent.reference), _no_program)
                break
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except (*lost, ray.exceptions.ObjectLostError) as error:
                if not left:
                    raise _lost(type(error).__name__) from error
                sent.reference = sent.again()
        if found.kind == "unlike":
            raise _unlike([Fault("", line) for line in found.value])
        if found.kind == "error":
            raise far.raised(*found.value)
        self.seconds.append(found.seconds)
        return found.value

    def _apart(self, program: ExportedProgram) -> str:
        """Put a program where workers find it, once, and return what it is called."""
        import ray

        name = str(id(program))
        if name not in self._programs:  # holding it keeps its identity
            self._programs[name] = program, ray.put(parcels.program_bytes(program))
        return name


def _no_program(name: str) -> ExportedProgram:
    raise TypeError(f"no result holds a program: {name}")


def _lost(kind: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"a task was lost: each of its {OUR_TRIES * (RAYS_TRIES + 1)} workers died ({kind})",
        where="--ray",
        tried="giving it to other workers",
        next_step="look at the workers' memory, then repeat the same command: it resumes (without --ray it runs here)",
    )


def _unlike(faults: Iterable[Fault]) -> EnvironmentFault:
    return EnvironmentFault(
        "workers of the Ray cluster would not compute what this machine does, bit for bit",
        where="--ray",
        tried="comparing code, packages and processor before any task",
        faults=tuple(faults),
        next_step="install the same haversack[pack,ray] on every machine, of one kind of processor; or leave --ray out",
    )
