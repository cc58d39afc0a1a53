"""Services: functions of one program that other programs of the same user call, with arrays in shared memory.

A program that serves:

    with arenite.Executor() as ex, ex.serve("photos", {"blur": blur, "mean": numpy.mean}) as serving:
        serving.wait()

Any other program:

    photos = arenite.service.connect("photos")
    blurred = photos.call("blur", image, 2.0)      # a numpy array, mapped; read-only
    future = photos.submit("blur", image, 2.0, deadline=5)

This file is a client of the protocol in docs/service-protocol.md, and `_serving.py` is a server. Both are plain Python.
A client needs the standard library, numpy for arrays, and `_memory_files.py`, `_packets.py`, `_errors.py` and
`_broken.py` of this package.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import json
import os
import socket
import struct
import threading
import weakref
from concurrent.futures import CancelledError
from concurrent.futures import Future as BaseFuture
from typing import Any

from ._errors import ArenaFull, DeadlineExceeded, MemoryLimitExceeded, shown
from ._memory_files import OtherUser, dial, receive, socket_path
from ._packets import LIMITS, MOST_FILES, close, decode, id_of, pack, send, to_json

_PROTOCOL = 1


class ServiceError(Exception):
    """A call to a service failed. The message gives the reason; `code` is the code of the protocol, such as
    "panicked"."""

    def __init__(self, message: str, code: str = "other") -> None:
        super().__init__(shown(message))
        #: The kind of failure: "panicked" (the kernel raised an exception), "no_kernel", "bad_argument", "returned",
        #: "limit", …
        self.code = code
        #: The number of attempts.
        self.attempts = 1
        #: What the worker printed last, oldest line first.
        self.last_words: list[str] = []


class NotRunning(ServiceError, ConnectionError):
    """No service with this name runs, or it has ended: all open calls have failed. Its arrays remain usable."""


class AlreadyRunning(ServiceError):
    """A service or a store with this name runs already."""


def connect(name: str) -> Service:
    """Connect to the service with this name, or to the socket at a path."""
    return Service(name)


class Future(BaseFuture[Any]):
    """A call of a service: a `concurrent.futures.Future` whose `cancel()` also ends a running call."""

    def __init__(self, service: Service, connection: _Connection, id: int, deadline: float | None) -> None:
        super().__init__()
        self._service = service
        self._connection = connection
        self._id = id
        self._deadline = deadline

    def cancel(self) -> bool:
        """End the call. If it runs, its worker is killed. Returns False if the call was answered already."""
        if not self._connection.forget(self._id, self):
            return self.cancelled()
        super().cancel()
        # Notifies threads in `concurrent.futures.wait`.
        self.set_running_or_notify_cancel()
        with contextlib.suppress(OSError):
            self._connection.send(to_json({"op": "cancel", "id": self._id}))
        return True


class Service:
    """The kernels of a service. Threads may share it. A forked process opens a new connection; open calls belong to its
    parent.

    After a connection is lost, the next call opens it again.
    """

    def __init__(self, name: str) -> None:
        #: The service's name.
        self.name = name
        self._ids = itertools.count(1)
        self._connection: _Connection | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._lock = threading.Lock()
        _services.add(self)
        self._connected()

    @property
    def kernels(self) -> dict[str, str]:
        """The signature of each kernel by its name, such as `"(image, sigma=2.0)"`."""
        return {kernel["name"]: kernel["signature"] for kernel in self._connected().info["kernels"]}

    def submit(self, kernel: str, /, *args: Any, deadline: float | None = None, **kwargs: Any) -> Future:
        """Call a kernel, and return the call's future. Waits while the number of open calls is at the service's limit.

        Arguments and results are None, numbers, text, bytes, numpy arrays (objects with `__array__` are converted), and
        lists and dictionaries of these. Arguments may be passed by keyword, except for the name `deadline`. An array is
        copied once, into memory that the service maps. `deadline`: the seconds that the call may run. Callbacks of the
        future must not wait for other calls.

        The future fails with `arenite.WorkerDied`, `DeadlineExceeded`, `MemoryLimitExceeded`, `ArenaFull`,
        `NotRunning`, or `ServiceError`, whose `code` names the kind of failure, such as "panicked" for an exception.
        """
        id = next(self._ids)
        message = {"op": "call", "id": id, "kernel": kernel}
        if deadline is not None:
            message["deadline"] = deadline
        if kwargs:
            if not self._connected().info.get("names"):
                raise ServiceError(f"the service {self.name} takes arguments by position only")
            message["names"] = list(kwargs)
        packet, files = pack(message, "args", [*args, *kwargs.values()])
        try:
            while True:
                connection = self._connected()
                future = Future(self, connection, id, deadline)
                # Otherwise the service has ended before the packet was sent.
                if connection.call(id, future, packet, files):
                    return future
        finally:
            close(files)

    def call(self, kernel: str, /, *args: Any, deadline: float | None = None, **kwargs: Any) -> Any:
        """Call a kernel, and return its value: `submit(…).result()`."""
        self._connected().must_not_wait()
        future = self.submit(kernel, *args, deadline=deadline, **kwargs)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C, for example: no caller has the future.
            future.cancel()
            raise
        finally:
            del future

    def info(self) -> dict[str, Any]:
        """Information on the service: name, pid, version, started, max_calls and kernels."""
        return self._connected().ask({"op": "info"})

    def status(self) -> dict[str, Any]:
        """Like `info`, with workers, clients, memory, the last failures, and the numbers of calls of each kernel."""
        return self._connected().ask({"op": "status"})

    def close(self) -> None:
        """Close the connection. Open calls fail. The next call opens the connection again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            if threading.current_thread() is not connection.thread:
                connection.thread.join()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return connect, (self.name,)

    def __repr__(self) -> str:
        return f"arenite.service.connect({self.name!r})"

    def _connected(self) -> _Connection:
        with self._lock:
            if self._connection is None or self._connection.is_lost:
                if self._finalizer is not None:
                    self._finalizer.detach()
                self._connection = _Connection(self.name)
                self._finalizer = weakref.finalize(self, self._connection.close)
                self._finalizer.atexit = False
            return self._connection

    def _after_fork(self) -> None:
        """Starts without a connection in a forked process, whose parent owns the open one."""
        self._lock = threading.Lock()
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._connection is not None:
            self._connection.socket.close()
        self._connection = self._finalizer = None


class _Connection:
    """A connection, its open calls, and the thread that receives the answers."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.socket = dial(socket_path(name))
        except (FileNotFoundError, ConnectionRefusedError):
            raise self._gone() from None
        except OtherUser as error:
            raise ServiceError(str(error)) from None
        try:
            self.info = self._greet()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
        except BaseException:
            self.socket.close()
            raise
        self.is_lost = False
        #: Guards the calls. A cancelled call has no future, but remains open until it is answered.
        self._changed = threading.Condition()
        self._calls: dict[int, Future | None] = {}
        #: Guards sending on the socket, and the order of the questions.
        self._sending = threading.Lock()
        self._questions: collections.deque[BaseFuture[dict[str, Any]]] = collections.deque()
        self.thread = threading.Thread(target=self._run, name=f"arenite-service-{name}", daemon=True)
        self.thread.start()

    def _gone(self) -> NotRunning:
        return NotRunning(f"no service {self.name} runs, or it has ended; start it with `executor.serve`")

    def _greet(self) -> dict[str, Any]:
        data = b""
        try:
            # A service that refuses this client has sent its reason before it closed the connection.
            with contextlib.suppress(BrokenPipeError):
                send(self.socket, to_json({"op": "info"}), [])
            data, files, _ = receive(self.socket, MOST_FILES)
            close(files)
        except BlockingIOError:
            raise ServiceError(f"the service {self.name} does not answer; is it stopped?") from None
        except ConnectionError:
            pass
        if not data:
            raise self._gone()
        info: dict[str, Any] = json.loads(data)
        if "error" in info:
            raise ServiceError(info["message"], info["error"])
        if info.get("service") is not True:
            raise ServiceError(f"{self.name} is a store and no service: use arenite.connect({self.name!r})")
        if info["protocol"] != _PROTOCOL:
            raise ServiceError(
                f"the service speaks version {info['protocol']} of the protocol, and this client {_PROTOCOL}"
            )
        return info

    def must_not_wait(self) -> None:
        if threading.current_thread() is self.thread:
            raise RuntimeError("a callback of a service's future must not wait for an answer")

    def call(self, id: int, future: Future, packet: bytes, files: list[int]) -> bool:
        """Sends a call. Returns False if the service has ended before the call was sent."""
        with self._changed:
            while len(self._calls) >= self.info["max_calls"] and not self.is_lost:
                if threading.current_thread() is self.thread:
                    raise ServiceError("a callback must not wait: all calls that the service admits are open", "busy")
                self._changed.wait()
            if self.is_lost:
                return False
            self._calls[id] = future
        try:
            self.send(packet, files)
        except BaseException as error:
            with self._changed:
                self._calls.pop(id, None)
                self._changed.notify()
            if isinstance(error, BlockingIOError):
                raise ServiceError(f"the service {self.name} does not read; is it stopped?") from None
            if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ECONNRESET, errno.EBADF):
                if threading.current_thread() is self.thread:
                    raise self._gone() from None
                self.close()
                self.thread.join()
                return False
            if isinstance(error, OSError) and error.errno in LIMITS:
                raise ServiceError(f"the call cannot be sent: {error.strerror} (see ulimit -n)", "limit") from error
            raise
        return True

    def send(self, packet: bytes, files: list[int] | None = None) -> None:
        with self._sending:
            send(self.socket, packet, files or [])

    def forget(self, id: int, future: Future) -> bool:
        """Removes the future of an open call. The answer of the call will be dropped."""
        with self._changed:
            if self._calls.get(id) is not future:
                return False
            self._calls[id] = None
            return True

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.must_not_wait()
        answer: BaseFuture[dict[str, Any]] = BaseFuture()
        with self._sending:
            if self.is_lost:
                raise self._gone()
            self._questions.append(answer)
            try:
                # If the service has closed the connection, all questions fail.
                with contextlib.suppress(BrokenPipeError):
                    send(self.socket, to_json(question), [])
            except BaseException:
                self._questions.remove(answer)
                raise
        return answer.result()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            while self._receive():
                pass
        finally:
            with self._sending:
                self.is_lost = True
                self.socket.close()
            with self._changed:
                self.is_lost = True
                lost = [call for call in self._calls.values() if call is not None]
                self._calls.clear()
                self._changed.notify_all()
            for future in [*lost, *self._questions]:
                future.set_exception(self._gone())

    def _receive(self) -> bool:
        """Receives an answer. A separate function, so that no variable keeps the answer alive."""
        try:
            data, files, flags = receive(self.socket, MOST_FILES)
        except OSError:
            return False
        try:
            if data:
                try:
                    answer = json.loads(data)
                except (ValueError, RecursionError) as error:
                    # Fails its call only.
                    text = f"the value of the call cannot be read: {error}"
                    answer = {"id": id_of(data), "error": "other", "message": text}
                self._answered(answer, files, flags)
        finally:
            close(files)
        return bool(data)

    def _answered(self, answer: dict[str, Any], files: list[int], flags: int) -> None:
        if (id := answer.get("id")) is None:
            if self._questions:
                question = self._questions.popleft()
                if "error" in answer:
                    question.set_exception(ServiceError(answer["message"], answer["error"]))
                else:
                    question.set_result(answer)
            return
        with self._changed:
            call = self._calls.pop(id, None)
            self._changed.notify()
        if call is None:
            return
        try:
            if "error" in answer:
                call.set_exception(_failure(answer, call._deadline))
            elif flags & socket.MSG_CTRUNC:
                text = "the files of the value did not arrive; raise the limit on open files (ulimit -n)"
                call.set_exception(ServiceError(text, "limit"))
            else:
                call.set_result(decode(answer["value"], iter(files), lambda content: content))
        except Exception as error:
            call.set_exception(ServiceError(f"the value of the call cannot be read: {error}"))


def _failure(answer: dict[str, Any], deadline: float | None) -> BaseException:
    """Returns the exception for an answer."""
    code, message = answer["error"], shown(answer["message"])
    error: Any
    if code in ("crashed", "exited", "quarantined"):
        from ._broken import WorkerDied

        error = WorkerDied(message, signal=answer.get("signal"), exit_code=answer.get("code"))
    elif code == "timeout":
        error = DeadlineExceeded(message, deadline=deadline)
    elif code == "memory_limit":
        error = MemoryLimitExceeded(message)
    elif code == "arena_full":
        error = ArenaFull(message)
    elif code == "cancelled":
        return CancelledError(message)
    else:
        error = ServiceError(message, code)
    error.attempts = answer.get("attempts", 1)
    error.last_words = answer.get("last_words", [])
    return error  # type: ignore[no-any-return]


#: For `os.register_at_fork`.
_services: weakref.WeakSet[Service] = weakref.WeakSet()


def _after_fork() -> None:
    for service in list(_services):
        service._after_fork()


os.register_at_fork(after_in_child=_after_fork)
