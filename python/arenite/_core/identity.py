"""What a task knows of itself: its worker, and its random numbers: `worker`, `rng`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .. import _arenite

if TYPE_CHECKING:
    from numpy.random import Generator


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
    >>> with arenite.Executor(1, settings=arenite.Settings(label="resize")) as ex:
    ...     ex.submit(arenite.worker).result()
    Worker(number=0, generation=0, label='resize')
    """
    found = _arenite.worker_identity()
    return None if found is None else Worker(*found)


def rng() -> Generator:
    """Returns a new numpy generator of random numbers that belong to the running task.

    They depend only on the executor's `seed`, and on which task this is: its number among the calls of `submit` and of
    actors, or its index in the call of `map`, which are numbered too. So they are the same for any number of workers,
    for further attempts, and with `max_workers=0`. No two tasks draw the same numbers, nor do two generators of a task.
    In threads that a task starts, and outside of tasks, the generator has a random seed.

    Raises ImportError without numpy.

    >>> import arenite
    >>> def roll(_):
    ...     return int(arenite.rng().integers(1, 7))
    >>> rolls = []
    >>> for workers in (1, 2):
    ...     with arenite.Executor(workers, seed=7) as ex:
    ...         rolls.append(list(ex.map(roll, range(100))))
    >>> rolls[0] == rolls[1]
    True
    """
    try:
        import numpy
    except ImportError as error:
        if error.name != "numpy":
            raise
        text = "arenite.rng() needs numpy, which is not installed: pip install numpy"
        raise ImportError(text, name="numpy") from error
    return numpy.random.default_rng(_arenite.random_bits())
