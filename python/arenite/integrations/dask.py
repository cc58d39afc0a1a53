"""The plugin of Dask workers: see `arenite.dask`."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from dask.utils import key_split
from distributed import Reschedule, Status, WorkerPlugin

from .._core.executor import Configured, Executor, options_of, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Worker

#: Options of tasks. All other options belong to the executor.
_OF_TASKS = ("deadline", "retries", "retry_errors", "backoff", "priority")


class ArenitePlugin(WorkerPlugin):  # type: ignore[misc]
    """Gives each Dask worker an `arenite.Executor`, which tasks choose with `dask.annotate(executor="arenite")`.

    :param default: Whether tasks without an annotation also run there.
    :param options: Options of `Executor`, such as `memory_limit`, and those of `Executor.options`: `deadline`,
        `retries`, `retry_errors`, `backoff` and `priority`. Not `sandbox`: Dask unpickles what tasks send. There are as
        many worker processes as the Dask worker has threads, unless `max_workers` says otherwise.
    """

    name = "arenite"
    idempotent = True

    def __init__(self, *, default: bool = False, **options: Any) -> None:
        if options.get("sandbox"):
            # A reply to Dask contains pickles that Dask reads, which may call any function there.
            raise ValueError("sandbox: Dask unpickles what tasks send, so a sandbox does not protect it")
        self.default = default
        self.of_tasks = {name: options.pop(name) for name in _OF_TASKS if name in options}
        self.options = options

    def setup(self, worker: Worker) -> None:
        """Starts the processes when the plugin is registered at a worker."""
        # The module that runs tasks is imported before a task's deadline begins.
        preload = self.options.get("preload", ())
        preload = ["distributed.worker", *([preload] if isinstance(preload, str) else preload)]
        options = {"max_workers": worker.state.nthreads, **self.options, "preload": preload}
        self.executor = TaskExecutor(worker, **options)
        self.executor.configured = self.executor.options(**self.of_tasks)
        worker.executors["arenite"] = self.executor
        if self.default:
            self.before = worker.executors["default"]
            worker.executors["default"] = self.executor

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Ends a running task whose result is not needed any more. Without this, Dask would let it run to its end."""
        if start in ("executing", "long-running") and finish == "released":
            self.executor.end(key)

    async def teardown(self, worker: Worker) -> None:
        """Ends the processes when the plugin is removed or the worker closes."""
        if worker.executors.pop("arenite", None) is None:
            return
        if self.default:
            worker.executors["default"] = self.before
        # A worker that closes does not wait for its tasks: Dask runs them elsewhere.
        is_closing = worker.status in (Status.closing, Status.closed, Status.failed)
        await asyncio.to_thread(self.executor.shutdown, cancel_futures=is_closing)


class TaskExecutor(Executor):
    """An executor whose tasks have the options of its plugin, and can be ended by their keys."""

    configured: Configured

    def __init__(self, worker: Worker, **options: Any) -> None:
        super().__init__(**options)
        self._worker = worker
        #: The running tasks by key.
        self._running: dict[Any, Future[Any]] = {}

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        # Dask's call for a task: the key names it in errors and statistics.
        key = getattr(args[0], "key", None) if args else None
        workers, options = workers_of(self), options_of(self.configured)
        if key is None:
            return workers.submit(options, fn, args, kwargs)
        outcome: Future[Any] = Future()
        if getattr(self._worker.state.tasks.get(key), "state", None) == "cancelled":
            # The task was cancelled before it began.
            outcome.set_result(_rescheduled(fn))
            return outcome
        task = workers.submit(options, fn, args, kwargs, key_split(key))
        self._running[key] = task
        task.add_done_callback(partial(self._ended, key, fn, outcome))
        return outcome

    def _ended(self, key: Any, fn: Any, outcome: Future[Any], task: Future[Any]) -> None:
        # Dask does not start a task again before it has this outcome.
        self._running.pop(key, None)
        if task.cancelled():
            outcome.set_result(_rescheduled(fn))
        elif (error := task.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    def end(self, key: Any) -> None:
        """Ends a task."""
        task = self._running.get(key)
        if task is not None:
            task.cancel()


def _rescheduled(fn: Callable[..., Any]) -> Any:
    """Returns the outcome of a task that raised `distributed.Reschedule`. Dask drops the outcome, or runs the task
    again if the result was requested meanwhile. `fn`: Dask's function that runs a task."""
    return fn(_reschedule, {}, 0.0)


def _reschedule(_: Any) -> NoReturn:
    raise Reschedule
