"""The future of a task: `Future`."""

from __future__ import annotations

import threading
from _pickle import PicklingError
from concurrent.futures import CancelledError
from concurrent.futures import Future as BaseFuture
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from .._broken import from_failure
from . import dispatch, native, pickling
from .retry import Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._arenite import Task

T = TypeVar("T")

#: The reply of a task that was cancelled.
_CANCELLED = {"kind": "cancelled"}
#: The states of a future that has its outcome.
_ENDED = (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)


class Future(BaseFuture[T]):
    """A `concurrent.futures.Future` whose `cancel()` ends running work.

    A future is cheap: `result()` and `exception()` wait for the task in the calling thread. A future with callbacks, or
    one that is passed to `wait()`, `as_completed()` or `asyncio.wrap_future()`, is *armed*: it gets a condition, and
    the dispatcher thread finishes it when its task has ended. The first thread that asks for the value unpickles it.
    """

    _task: Task | None
    _reply: Any
    _private: bool
    _cancel_running: bool
    #: Unpickles data of the worker.
    _load: Callable[..., Any]
    #: Whether the threads that wait for the outcome were notified.
    _is_notified = False

    def __init__(
        self,
        task: Task | None,
        private: bool = False,
        cancel_running: bool = True,
        load: Callable[..., Any] = pickling.load,
    ) -> None:
        # Does not call `super().__init__()`, which makes a condition that few futures need. See `__getattr__`.
        self._state = PENDING
        self._task = task
        self._reply = None
        self._result = None
        self._exception = None
        self._private = private
        self._cancel_running = cancel_running
        self._load = load

    def __getattr__(self, name: str) -> Any:
        """Makes the attributes of an armed future when code other than `result()` uses them."""
        own = self.__dict__
        if name == "_condition":
            # Arms the future first: Ctrl-C in between leaves an armed future without a condition, not a condition that
            # nobody notifies.
            self._arm()
            return own.setdefault("_condition", threading.Condition())
        if name in ("_waiters", "_done_callbacks"):
            return own.setdefault(name, [])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        # Not `__repr__` of the base class, which makes a condition.
        try:
            is_done, is_running = self.done(), self.running()
        except RuntimeError:
            # This is a child made by `fork()`.
            is_done = is_running = False
        if not is_done:
            state = "running" if is_running else "pending"
        elif self._state != FINISHED:
            state = "cancelled"
        elif type(self._reply) is dict:
            state = "finished with an exception"
        elif self._reply is not None:
            state = "finished"
        elif self._exception is not None:
            state = f"finished raised {type(self._exception).__name__}"
        else:
            state = f"finished returned {type(self._result).__name__}"
        return f"<{type(self).__name__} at {id(self):#x} state={state}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a future cannot be sent to a task in a function, a global or an initializer: pass it as an argument of "
            "the task, or pass its result()"
        )

    def add_done_callback(self, fn: Callable[[BaseFuture[T]], object]) -> None:
        """Lets the dispatcher call `fn(future)` when the future has its outcome. Calls it at once if the program has
        noticed the outcome already.

        Callbacks that submit the next task and add a callback to it do not nest, however soon tasks end.
        """
        own = self.__dict__
        if self._state not in _ENDED and "_condition" not in own and dispatch.is_current():
            self._arm(True)
            own.setdefault("_condition", threading.Condition())
        super().add_done_callback(fn)  # type: ignore[arg-type]

    def _arm(self, later: bool = False) -> None:
        """Lets the dispatcher finish the future. `later`: also if the task has ended already."""
        task = self._task
        if task is None or self._state in _ENDED:
            return
        # Always the same token: if two threads arm the future, or after Ctrl-C, no entry remains in the dispatcher.
        token = self.__dict__.setdefault("_token", dispatch.token())
        if dispatch.arm(self._finish, task, token):
            if later:
                dispatch.soon(self._finish)
            else:
                self._finish()

    def _finish(self) -> None:
        """Takes the outcome of the task, which has ended, without unpickling it."""
        task = self._task
        reply = None if task is None else task.take()
        if reply is None:
            return  # Another thread has the reply.
        self._settle(reply)

    def _settle(self, reply: Any) -> None:
        """Sets the outcome and notifies everyone who waits for it, once. May be called again with the same reply: if
        Ctrl-C has interrupted the first call, the second call completes it."""
        if type(reply) is dict and reply["kind"] in ("cancelled", "shutdown"):
            state = CANCELLED_AND_NOTIFIED
        else:
            state = FINISHED
        if "_condition" not in self.__dict__:
            if self._state not in _ENDED:
                self._reply = reply
                self._state = state
            if "_condition" not in self.__dict__:
                self._task = None
                return
            # Another thread has made the condition meanwhile, and may have read the old state.
        with self._condition:
            if self._is_notified:
                return
            if self._state not in _ENDED:
                self._reply = reply
                self._state = state
            for waiter in self._waiters:
                if state == FINISHED:
                    # `wait(return_when=FIRST_EXCEPTION)` distinguishes results and exceptions.
                    if self._decodes_to_failure():
                        waiter.add_exception(self)
                    else:
                        waiter.add_result(self)
                else:
                    waiter.add_cancelled(self)
            self._condition.notify_all()
            self._is_notified = True
        self._task = None
        self._invoke_callbacks()  # type: ignore[attr-defined]

    def follow(self, other: Future[T]) -> None:
        """Lets this future, which has a condition and no task, have the outcome of another one, which nothing else
        knows."""
        self._task = task = other._task
        if task is not None:
            self._arm()
            if self._state in _ENDED:
                task.kill()
        elif other._state == CANCELLED_AND_NOTIFIED:
            self._settle(_CANCELLED)
        else:
            self._result, self._exception = other._result, other._exception
            self._settle(other._reply)

    def _decodes_to_failure(self) -> bool:
        """Whether the outcome is an exception. Unpickles the outcome only if that is needed to know."""
        if type(self._load) is Load:
            # The pickle may contain an exception.
            self._decode()
        return type(self._reply) is dict or self._exception is not None

    def _decode(self) -> None:
        """Unpickles the outcome when it is first needed."""
        reply = self._reply
        if reply is None:
            return
        value = error = None
        if type(reply) is dict:
            error = error_of(reply, self._load)
        else:
            try:
                value = self._load(reply[0], reply[1], self._private)
            except KeyboardInterrupt:
                raise  # Ctrl-C is not the outcome, which can still be asked for.
            except BaseException as failed:
                error = failed
        # Two threads may unpickle at the same time: the objects of the first one are used.
        value, error = self.__dict__.setdefault("_outcome", (value, error))
        self._result, self._exception = value, error
        self._reply = None

    def _wait(self, timeout: float | None) -> None:
        """Waits until the future has its outcome."""
        if self._state in _ENDED:
            return
        task = self._task
        if task is not None:
            begin = monotonic() if timeout is not None else 0.0
            if not native.wait(task, timeout):
                raise TimeoutError
            # The dispatcher runs callbacks: this thread may have a lock that they need.
            if "_condition" not in self.__dict__ or dispatch.is_current():
                self._finish()
            if self._state in _ENDED:
                return
            if timeout is not None:
                timeout = max(0.0, timeout - (monotonic() - begin))
        # The dispatcher, or another thread, sets the outcome.
        with self._condition:
            if not self._condition.wait_for(lambda: self._state in _ENDED, timeout):
                raise TimeoutError

    def result(self, timeout: float | None = None) -> T:
        """Returns the value of the task, or raises its exception. Waits at most `timeout` seconds for it, then raises
        `TimeoutError`; the task goes on.

        Raises `CancelledError` if the future was cancelled.
        """
        try:
            self._wait(timeout)
            if self._state != FINISHED:
                raise CancelledError
            if self._reply is not None:
                self._decode()
            if self._exception is not None:
                raise self._exception
            return self._result  # type: ignore[return-value]
        finally:
            # Breaks the reference cycle of the exception, its traceback and this frame.
            self = None  # type: ignore[assignment]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Returns the exception of the task, or None if it returned a value. Waits like `result`."""
        self._wait(timeout)
        if self._state != FINISHED:
            raise CancelledError
        if self._reply is not None:
            self._decode()
        return self._exception

    def _get_snapshot(self) -> Any:
        """Returns the outcome to asyncio, which reads it by this method from Python 3.15 on."""
        if self.done() and not self.cancelled():
            self._decode()
        return super()._get_snapshot()  # type: ignore[misc]

    def done(self) -> bool:
        """Whether the task has ended, was cancelled or has failed."""
        if self._state in _ENDED:
            return True
        task = self._task
        if task is None or not task.done():
            return False
        if "_condition" not in self.__dict__:
            self._finish()
        return self._state in _ENDED

    def cancelled(self) -> bool:
        """Whether the future was cancelled."""
        return self.done() and self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Whether a worker runs the task."""
        task = self._task
        return self._state == RUNNING or (not self.done() and task is not None and task.running())

    def cancel(self) -> bool:
        """Ends the task. Returns False if it has ended already.

        A running task is ended by killing its worker, which is replaced; memory that the task was writing stays as it
        is. With the setting `cancel_running=False` the task goes on, and this returns False, as in the standard
        library.
        """
        if self._state in _ENDED:
            return self._state != FINISHED
        task = self._task
        if task is None:
            # Another thread sets the outcome, or the future was not made by an executor.
            is_cancelled = self._reply is None and super().cancel()
            if is_cancelled and self._task is not None:
                self._task.kill()  # Submitted meanwhile: see `follow`.
            return is_cancelled
        task.cancel()
        if task.done():
            # The task had ended already, or never began.
            self._finish()
            if self._state in _ENDED:
                return self._state != FINISHED
        elif not self._cancel_running:
            return False
        task.kill()
        if task.discard(_CANCELLED):
            self._settle(_CANCELLED)
            return True
        # Another thread has the reply.
        self._wait(None)
        return self._state != FINISHED


def error_of(failure: dict[str, Any], load: Callable[..., Any]) -> BaseException:
    """Returns the exception of a task that has failed. `load`: unpickles data of the worker."""
    add_words = getattr(load, "add_words", None)
    if add_words is not None and failure["kind"] not in ("raised", "cancelled", "shutdown"):
        add_words(failure)
    if failure["kind"] == "raised":
        from .raised import load_error

        error = load_error(failure["pickle"], load)
        if failure["of_input"]:
            with suppress(Exception):  # Its class refuses attributes.
                error.add_note(failure["text"])
        return error
    return from_failure(failure)


def when_ended(future: BaseFuture[T], call: Callable[[BaseFuture[T]], object]) -> None:
    """Lets the dispatcher call `call(future)` when the future has its outcome. Unlike `add_done_callback`, never calls
    it before this returns: `call` may submit the next task in the same way, any number of times."""
    caller = threading.get_ident()
    is_inside = True

    def ended(future: BaseFuture[T]) -> None:
        if is_inside and threading.get_ident() == caller:
            dispatch.soon(partial(call, future))
        else:
            call(future)

    future.add_done_callback(ended)
    is_inside = False


def pending_task(future: Any, engine: Any) -> Task | None:
    """Returns the task of a future that has no outcome in this process, if it is a task of this engine."""
    if type(future) is not Future or future._state in _ENDED:
        return None
    task = future._task
    return task if task is not None and task.is_of(engine) else None


def wait_for(future: Future[Any]) -> None:
    """Waits until a future has its outcome, without unpickling it."""
    future._wait(None)


def decodes_to_failure(future: Future[Any]) -> bool:
    """Whether the outcome of a future that has ended is an exception, and not a cancellation. Unpickles it only if that
    is needed to know."""
    return future._state == FINISHED and future._decodes_to_failure()


def end(future: Future[Any]) -> None:
    """Cancels a future, and ends its task also with `cancel_running=False`."""
    future._cancel_running = True
    future.cancel()


def unsubmitted(*how: Any) -> Future[Any]:
    """Returns a future that will `follow` another one. Those who wait for it use a condition from the beginning."""
    future: Future[Any] = Future(None, *how)
    vars(future)["_condition"] = threading.Condition()
    return future


def succeeded(value: T) -> Future[T]:
    """Returns a future that has this value."""
    future: Future[T] = Future(None)
    future._result = value
    future._state = FINISHED
    return future


def cancelled() -> Future[Any]:
    """Returns a future that was cancelled."""
    future: Future[Any] = Future(None)
    future._state = CANCELLED_AND_NOTIFIED
    return future


class NoValue(Exception):
    """A future among the arguments of a call has no value, for this reason."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class Unfinished(Exception):
    """Futures among the arguments of a call have not ended, and the engine does not know them: see `values`."""

    def __init__(self, futures: list[Any]) -> None:
        super().__init__()
        self.futures = futures


def of_pickling(error: Exception | SystemExit) -> BaseException:
    """Returns the outcome of a call whose arguments cannot be pickled for this reason. The program goes on if a
    `__reduce__` calls `exit()`, but not if a signal handler does so meanwhile: raises the exit of a handler."""
    if isinstance(error, NoValue):
        return error.error
    if not isinstance(error, SystemExit):
        return error
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        interrupted, trace = trace.tb_frame, trace.tb_next
        for value in trace.tb_frame.f_locals.values():
            # An argument of handlers, also of `lambda *_: sys.exit()`.
            if value is interrupted or type(value) is tuple and any(one is interrupted for one in value):
                raise error
    made = PicklingError(f"the arguments cannot be pickled: this called exit({error.code!r})")
    made.__cause__ = error
    return made


def failed(error: BaseException) -> Future[Any]:
    """Returns a future that has failed; that was cancelled, if the error says so."""
    future: Future[Any] = Future(None)
    future._exception = error
    future._state = CANCELLED_AND_NOTIFIED if type(error) is CancelledError else FINISHED
    return future
