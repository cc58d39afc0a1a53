"""Statistics of an executor: `Stats`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._arenite import numpy_memory


@dataclass(frozen=True)
class WorkerStats:
    """One worker: its current process, and totals of all its processes."""

    pid: int
    ready: bool
    #: Whether it is a spare, which gets tasks only after another worker has ended: see `Settings.spares`.
    spare: bool
    tasks: int
    restarts: int
    recycled: int
    #: The bytes of the arena that its tasks have stored, in caches for example.
    kept_bytes: int
    #: Bytes of memory that are its process's own: what it has loaded, what tasks allocate, and the pages that they
    #: write of their arguments. 0 without a process.
    private_bytes: int = 0


@dataclass(frozen=True)
class FunctionStats:
    """One function: totals of all calls that have ended."""

    name: str
    calls: int
    failures: int
    seconds: float
    result_bytes: int


@dataclass(frozen=True)
class Stats:
    """The state of an executor at one moment: see `Executor.stats`."""

    #: The limit of the bytes in all arrays and results together.
    capacity: int = 0
    #: Bytes of the arena that are backed by memory.
    committed_bytes: int = 0
    #: Bytes of the arena in arrays and results.
    used_bytes: int = 0
    #: Bytes of the arena that tasks have stored in their workers.
    kept_bytes: int = 0
    #: Bytes that were copied into the arena: by `share`, for arguments outside of the arena, and for results that tasks
    #: did not make with `arenite.empty`.
    bytes_copied: int = 0
    #: Bytes of all arrays that numpy has made in shared memory after `install`, and of the copies of those that were
    #: passed and written. They are not in the arena, and the same for all executors of the program.
    numpy_bytes: int = 0
    submitted: int = 0
    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    #: The number of times that a worker died and was replaced.
    restarts: int = 0
    #: The number of times that a worker was replaced because of `max_tasks_per_child` or `Settings.recycle_above`.
    recycled: int = 0
    #: Why the last start of a worker failed, while that worker is missing and is started again: a limit on open files
    #: or processes, for example. None if no start has failed since the last success.
    start_failure: str | None = None
    #: Why workers are started one by one, as with `start="spawn"`, although a template was to be used.
    no_template: str | None = None
    workers: tuple[WorkerStats, ...] = ()
    functions: tuple[FunctionStats, ...] = field(default=(), repr=False)


def from_dict(stats: dict[str, Any]) -> Stats:
    """Makes statistics of what the extension returns."""
    workers = tuple(
        WorkerStats(**worker, private_bytes=_private_bytes(worker["pid"])) for worker in stats.pop("workers")
    )
    functions = tuple(FunctionStats(**function) for function in stats.pop("functions"))
    return Stats(**stats, numpy_bytes=numpy_memory()[0], workers=workers, functions=functions)


def _private_bytes(pid: int) -> int:
    try:
        # As bytes: a codec is a module, which may not be loaded yet.
        with open(f"/proc/{pid}/status", "rb") as status:
            line = next((line for line in status if line.startswith(b"RssAnon:")), b"0 0")
    except OSError:
        return 0
    return int(line.split()[1]) << 10
