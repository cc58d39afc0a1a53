"""Options of an executor that few programs need: `Settings`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

#: Former keywords of `Executor`, and what does the same.
_GONE = {"arrays": ": call arenite.install() instead", "recycle_after": ": the keyword is max_tasks_per_child"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of an executor or a pool that few programs need.

    >>> import arenite
    >>> with arenite.Executor(2, settings=arenite.Settings(label="photos")) as ex:
    ...     ex.submit(arenite.worker).result().label
    'photos'

    :param main: Whether workers run a main file that tests `__name__` at its top level. With False they never do.
    :param spares: The number of idle processes that are ready, with `initializer` and `preload` done. When a worker
        ends, by a crash, a deadline, a cancellation or to be recycled, a spare replaces it at once, and a new spare is
        started. Tasks never run in more than `max_workers` processes. Each spare takes the memory of an idle worker: 6
        MB, or 13 MB with numpy, and the memory that `initializer` takes.
    :param max_arena_per_worker: The limit of arena memory that one worker may use for results of its tasks, in bytes,
        as "1GiB", or as a fraction of `capacity` such as 0.5. A task that needs more fails with `ArenaFull`. By
        default, the limit of one worker leaves a share for the others.
    :param recycle_above: Replaces a worker that has more private memory than this after a task.
    :param cancel_running: Whether `Future.cancel()` and `shutdown(cancel_futures=True)` end tasks that run.
    :param logging: "forward" sends records that tasks make with the module `logging` to the handlers of this process,
        at the levels that loggers have in this process now. "auto" does so if this process has handlers, and
        `initializer` adds none in the worker. With None, workers use their own `logging`. Sandboxed workers send no
        records.
    :param label: The name of workers in process lists and of their lines.
    :param env: Variables that workers have in addition to those of this process.
    :param python: The interpreter that workers run, by default `sys.executable`.
    :param trace: A file for events of all tasks, which https://ui.perfetto.dev shows.
    :param report: A file for a page about all tasks.
    :param start_timeout: The seconds that a worker may take to start, with `preload` and `initializer`. By default
        these may take any time.
    """

    main: bool = True
    spares: int = 0
    max_arena_per_worker: int | float | str | None = None
    recycle_above: int | str | None = None
    cancel_running: bool = True
    logging: Literal["auto", "forward"] | None = "auto"
    label: str = "arenite"
    env: Mapping[str, str] | None = None
    python: str | None = None
    trace: str | PathLike[str] | None = None
    report: str | PathLike[str] | None = None
    start_timeout: float | None = None


def check(settings: Any, others: dict[str, Any]) -> None:
    """Checks the argument `settings` of an executor. Raises TypeError for keywords that an executor does not have."""
    if not isinstance(settings, Settings):
        raise TypeError(f"settings must be an arenite.Settings, not {settings!r}")
    for name in others:
        known = {field.name: f": pass settings=arenite.Settings({field.name}=…)" for field in fields(Settings)} | _GONE
        raise TypeError(f"Executor() got an unexpected keyword argument {name!r}{known.get(name, '')}")
