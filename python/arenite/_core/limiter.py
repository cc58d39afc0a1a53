"""A limit for tasks: `Limiter`."""

from __future__ import annotations

from .. import _arenite


class Limiter:
    """Limits how many tasks run at a time, how many start per second, or both: see `Executor.options(limit=…)`.

    Any number of functions and executors of this process may share one limiter. Tasks wait in the engine, and threads
    that submit take turns. Each attempt of a task needs a permit.

    >>> import arenite
    >>> polite = arenite.Limiter(at_once=2, per_second=1000)
    >>> with arenite.Executor(4) as ex:
    ...     list(ex.options(limit=polite).map(abs, [-1, 2, -3]))
    [1, 2, 3]

    :param at_once: The number of tasks that may run at a time.
    :param per_second: The number of tasks that may start per second, evenly spaced. It may be a fraction: 0.1 is one
        task in ten seconds.
    """

    def __init__(self, at_once: int | None = None, per_second: float | None = None) -> None:
        if at_once is None and per_second is None:
            raise ValueError("a limiter needs at_once=…, per_second=…, or both")
        if at_once is not None and at_once < 1:
            raise ValueError(f"at_once must be at least 1 task, not {at_once}")
        if per_second is not None and not 1e-6 <= per_second <= 1e9:
            raise ValueError(f"per_second must be a number of tasks between 0.000001 and 1e9, not {per_second}")
        self._limiter = _arenite.Limiter(at_once, None if per_second is None else 1 / per_second)
        self._text = f"at_once={at_once}, per_second={per_second}"

    @property
    def running(self) -> int:
        """The number of tasks with a permit: running, or about to run."""
        return self._limiter.running

    @property
    def waiting(self) -> int:
        """The number of tasks that wait for a permit."""
        return self._limiter.waiting

    def __repr__(self) -> str:
        return f"arenite.Limiter({self._text})"


def engine_limiter(limiter: Limiter) -> _arenite.Limiter:
    """Returns the engine's part of a limiter."""
    return limiter._limiter
