"""Which worker this process is: `worker`."""

from __future__ import annotations

from typing import NamedTuple

from . import _arenite


class Worker(NamedTuple):
    """A worker of an executor: what `arenite.worker()` returns."""

    #: From 0. Below `max_workers`, or with spares below `max_workers + spares`; no two workers have the same at one
    #: time.
    number: int
    #: The number of processes that the worker had before this one: 0 until it was replaced.
    generation: int
    #: The `label` of its executor.
    label: str


def worker() -> Worker | None:
    """In a task: which worker runs it, to choose a GPU, a port or a folder. In the program None.

    >>> import arenite
    >>> with arenite.Executor(1, label="resize") as ex:
    ...     ex.submit(arenite.worker).result()
    Worker(number=0, generation=0, label='resize')
    """
    found = _arenite.worker_identity()
    return None if found is None else Worker(*found)
