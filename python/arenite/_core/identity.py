"""The identity of the worker in this process: `worker`."""

from __future__ import annotations

from typing import NamedTuple

from .. import _arenite


class Worker(NamedTuple):
    """A worker of an executor: what `arenite.worker()` returns."""

    #: From 0; below `max_workers` or, with spares, below `max_workers + spares`. Unique among the workers at any time.
    number: int
    #: The number of earlier processes of this worker: 0 until it was replaced.
    generation: int
    #: The `label` of its executor.
    label: str


def worker() -> Worker | None:
    """Returns the worker that runs the calling task, to choose a GPU, a port or a folder. Returns None in the program.

    >>> import arenite
    >>> with arenite.Executor(1, label="resize") as ex:
    ...     ex.submit(arenite.worker).result()
    Worker(number=0, generation=0, label='resize')
    """
    found = _arenite.worker_identity()
    return None if found is None else Worker(*found)
