"""The server of a service: `Serving`, which `Executor.serve` returns.

One thread answers all clients, and never waits for a client. A client that does not read is disconnected when its
answers no longer fit into the socket's buffer. When Linux reports the end of a client, the client's calls are ended.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import itertools
import json
import os
import queue
import resource
import selectors
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._arenite import __version__
from ._broken import StartFailed
from ._claim import Claim
from ._core import room
from ._core.future import Future, failed
from ._core.process import text_of
from ._core.workers import TaskOptions
from ._errors import ArenaFull
from ._memory_files import MAX_PACKET, peer, receive
from ._packets import (
    LIMITS,
    MAX_FILES,
    MOST_FILES,
    DoesNotFit,
    close,
    decode,
    id_of,
    pack,
    send,
    to_json,
)
from ._requests import (
    Call,
    Client,
    Copier,
    Kernel,
    describe_error,
    no_constant,
    program_of,
)

if TYPE_CHECKING:
    from ._core.workers import Workers

_PROTOCOL = 1
#: The number of failures that `status` lists.
_MOST_FAILURES = 16
#: The seconds for which a call waits for room in the arena while no call runs, and between two attempts.
_PATIENCE, _PAUSE = 2.0, 0.005
#: The number of descriptors that must be free after a client was accepted: values need some for a moment.
_FREE = 24
#: The longest deadline in seconds.
_LONGEST = 1e9


class _Terminated(BaseException):
    """Raised by SIGTERM in `wait`."""


def _terminate(*_: object) -> None:
    raise _Terminated


class Serving:
    """Functions that are served under a name, by a separate thread: the type that `Executor.serve` returns."""

    def __init__(
        self, workers: Workers, name: str, kernels: Mapping[str, Callable[..., Any]], max_calls: int
    ) -> None:
        #: The name under which the kernels are served.
        self.name = name
        self._workers = workers
        self._max_calls = max_calls
        #: The limit of bytes in arrays of a value: results are in the arena.
        self._most = None if workers.is_inline else workers.engine.capacity
        self._started = time.time()
        self._kernels = {kernel: Kernel(kernel, function, workers) for kernel, function in kernels.items()}
        if not self._kernels or not all(isinstance(kernel, str) and kernel for kernel in self._kernels):
            raise ValueError("a service has kernels, which have names")
        self._info = self._describe()
        if len(to_json(self._info, "replace")) > MAX_PACKET:
            raise ValueError(f"the names and signatures of the kernels do not fit a packet of {MAX_PACKET} bytes")
        self._clients: dict[int, Client] = {}
        self._ids = itertools.count(1)
        #: Clients with waiting calls, in the order of their turns.
        self._turns: collections.deque[Client] = collections.deque()
        #: The calls that the executor has.
        self._running: set[Call] = set()
        self._failures: collections.deque[dict[str, Any]] = collections.deque(maxlen=_MOST_FAILURES)
        #: Calls that have ended in the executor.
        self._ended: collections.deque[Call] = collections.deque()
        #: The time since which the arena has no room for the next call although no call runs: other threads may still
        #: hold memory of calls that have ended.
        self._full_since: float | None = None
        self._is_stopping = False
        #: Set when the thread has nothing left to do.
        self._over = threading.Event()
        #: Descriptors that another thread closes: closing those in a client's packets may take as long as the client
        #: likes.
        self._closing: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._wake_lock = threading.Lock()
        self._claim = Claim(name)
        #: The path of the socket.
        self.address = self._claim.path
        try:
            self._listener = self._claim.listen()
            #: A descriptor that is closed to accept, and refuse, a client when no other descriptor is free.
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            self._wake_file = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._selector.register(self._wake_file, selectors.EVENT_READ, self._woken)
        except BaseException:
            self._claim.release()
            raise
        _servings.add(self)
        self._thread = threading.Thread(target=self._run, name=f"arenite-serving-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the service: frees its name and cancels running calls. The executor goes on."""
        self._is_stopping = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._over.wait()
            self._thread.join()

    def wait(self) -> None:
        """Wait until the service is closed. Ctrl-C and SIGTERM close it. SIGTERM then ends the program, unless the
        program handles the signal."""
        is_main = threading.current_thread() is threading.main_thread()
        handles = is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if handles:
            signal.signal(signal.SIGTERM, _terminate)
        try:
            # Not `join`: if a signal interrupts `join`, Python regards the thread as ended.
            self._over.wait()
        except KeyboardInterrupt:
            self.close()
        except _Terminated:
            self.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            handles = False
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            if handles:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<arenite.service.Serving: {', '.join(self._kernels)} at {self.address}>"

    def _wake(self) -> None:
        with self._wake_lock:
            if self._wake_file >= 0:
                os.eventfd_write(self._wake_file, 1)

    # The following methods run on the service's thread.

    def _run(self) -> None:
        closer = threading.Thread(target=self._close_files, name="arenite-closer", daemon=True)
        closer.start()
        try:
            while not self._is_stopping:
                for key, _ in self._selector.select(None if self._full_since is None else _PAUSE):
                    key.data()
                if self._full_since is not None:
                    self._take_turns()
        finally:
            self._listener.close()
            self._claim.release()
            for client in list(self._clients.values()):
                self._disconnect(client)
            self._closing.put(None)
            self._selector.close()
            self._drop_spare()
            with self._wake_lock:
                os.close(self._wake_file)
                self._wake_file = -1
            closer.join(1)
            self._over.set()

    def _close_files(self) -> None:
        while (file := self._closing.get()) is not None:
            os.close(file)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # Otherwise the client would wait, and this loop would spin.
                self._refuse()
            return
        # Linux gives a new descriptor the lowest free number, so the number of this one approximates that of open ones.
        if connection.fileno() + _FREE > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            with connection, contextlib.suppress(OSError):
                connection.send(self._refusal(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return
        connection.setblocking(False)
        # The folder admits no other user. This check is for a folder whose mode was changed.
        pid, user = peer(connection)
        if user != os.geteuid():
            connection.close()
            return
        client = Client(next(self._ids), connection, pid)
        self._clients[client.id] = client
        self._selector.register(connection, selectors.EVENT_READ, functools.partial(self._read, client))

    def _refuse(self) -> None:
        self._drop_spare()
        with contextlib.suppress(OSError):
            with self._listener.accept()[0] as connection:
                connection.send(self._refusal(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        with contextlib.suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    @staticmethod
    def _refusal() -> bytes:
        text = "the service has no descriptor left for another client; raise its limit on open files (ulimit -n)"
        return to_json({"error": "limit", "message": text})

    def _drop_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_file)
        while self._ended:
            self._finish(self._ended.popleft())
        self._take_turns()

    def _read(self, client: Client) -> None:
        if client.id not in self._clients:
            return
        try:
            data, files, flags = receive(client.socket, MOST_FILES)
        except BlockingIOError:
            return
        except OSError:
            data, files, flags = b"", [], 0
        try:
            if data:
                self._request(client, data, files, flags)
            else:
                self._disconnect(client)
        finally:
            for file in files:
                self._closing.put(file)

    def _request(self, client: Client, data: bytes, files: list[int], flags: int) -> None:
        problem = "a request is an object"
        try:
            request = json.loads(data.decode(), parse_constant=no_constant)
        except (ValueError, RecursionError) as error:
            request, problem = None, str(error)
        if flags & socket.MSG_TRUNC:
            self._refuse_unread(client, data, f"a packet has at most {MAX_PACKET} bytes")
        elif not isinstance(request, dict):
            self._refuse_unread(client, data, f"no request: {problem}")
        elif request.get("op") == "call":
            self._call(client, request, files, flags)
        elif files:
            self._answer_error(client, None, "bad_request", "descriptors come with calls only")
        elif request.get("op") == "cancel":
            self._cancel(client, request.get("id"))
        elif request.get("op") == "info":
            self._answer(client, to_json(self._info, "replace"))
        elif request.get("op") == "status":
            self._answer(client, self._status())
        else:
            self._answer_error(client, None, "bad_request", f"no request: {str(request.get('op')):.100}")

    def _refuse_unread(self, client: Client, data: bytes, problem: str) -> None:
        """Answers a packet that cannot be read. Without the number of its call, the client would wait."""
        id = id_of(data)
        if id is None or id in client.calls:
            self._answer_error(client, None, "bad_request", problem)
        else:
            self._answer_error(client, id, "bad_argument", problem)

    def _call(self, client: Client, request: dict[str, Any], files: list[int], flags: int) -> None:
        id, name, args, deadline = (request.get(member) for member in ("id", "kernel", "args", "deadline"))
        if type(id) is not int:
            return self._answer_error(client, None, "bad_request", "a call has a number as its id")
        if id in client.calls:
            # Without the id: otherwise the client would take it for the answer of the open call.
            return self._answer_error(client, None, "bad_request", f"the call {id} is open")
        refuse = functools.partial(self._answer_error, client, id)
        if not isinstance(name, str) or not isinstance(args, list):
            return refuse("bad_request", "a call has the name of a kernel and a list of arguments")
        names = request.get("names", [])
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            return refuse("bad_request", "the names of arguments are a list of text")
        if len(set(names)) < len(names) or len(names) > len(args):
            return refuse("bad_request", "the names of arguments are those of the last ones, each once")
        if deadline is not None and type(deadline) not in (int, float):
            return refuse("bad_request", "a deadline is a number of seconds")
        if len(files) > MAX_FILES:
            return refuse("bad_request", f"{len(files)} descriptors; a packet has at most {MAX_FILES}")
        if flags & socket.MSG_CTRUNC:
            text = "the service could not receive the descriptors; raise its limit on open files (ulimit -n)"
            return refuse("limit", text)
        if (kernel := self._kernels.get(name)) is None:
            return refuse("no_kernel", f"there is no kernel {name:.100}, but {', '.join(self._kernels)}")
        if len(client.calls) >= self._max_calls:
            return refuse("busy", f"{self._max_calls} calls of this client are open; wait for answers")
        if deadline is not None and not 0 < deadline < _LONGEST:
            return refuse("bad_argument", f"the deadline {deadline}: it is above 0, and at most {_LONGEST:.0f} seconds")
        left = iter(files)
        copier = Copier(sys.maxsize if self._most is None else self._most)
        try:
            args = decode(args, left, copier)
            if next(left, None) is not None:
                raise ValueError("there are more files than values that need one")
            first = len(args) - len(names)
            args, kwargs = args[:first], dict(zip(names, args[first:], strict=True))
            if kernel.signature is not None:
                kernel.signature.bind(*args, **kwargs)
        except (ValueError, TypeError, RecursionError) as error:
            return refuse("bad_argument", f"{name}{kernel.text}: {error}")
        except (OSError, MemoryError) as error:
            return refuse("limit", f"in the service: {error}")
        # The files are memory files, which close quickly.
        close(files)
        files.clear()
        call = client.calls[id] = Call(client, id, kernel, args, kwargs, deadline)
        client.queued.append(call)
        if len(client.queued) == 1:
            self._turns.append(client)
        self._take_turns()

    def _cancel(self, client: Client, id: Any) -> None:
        call = client.calls.get(id) if type(id) is int else None
        if call is None:
            # The call was answered meanwhile.
            return
        if call.future is not None:
            # The call is answered when it has ended.
            call.future.cancel()
            return
        client.queued.remove(call)
        if not client.queued:
            self._turns.remove(client)
        del client.calls[call.id]
        self._answer_error(client, call.id, "cancelled", "the client cancelled the call")

    def _take_turns(self) -> None:
        """Passes the next calls to the executor, one of each client in turn. Passes a few more calls than run at a
        time, so that no worker waits for this thread."""
        while self._turns and len(self._running) < 2 * self._workers.slots:
            client = self._turns[0]
            if not self._start(client.queued[0]):
                # Tried again when a call has ended.
                return
            self._turns.popleft()
            client.queued.popleft()
            if client.queued:
                self._turns.append(client)

    def _start(self, call: Call) -> bool:
        """Passes a call to the executor. Returns False if the arena has no room for it until other calls have
        ended."""
        workers = self._workers
        future: Future[Any]
        try:
            options = workers.plain if call.deadline is None else TaskOptions({"deadline": call.deadline})
            args, label = tuple(call.args), self._label(call.kernel)
            # Not `submit`, which waits for room: this thread answers all clients.
            made = workers.try_submit(options, call.kernel.function, args, call.kwargs, label)
            if isinstance(made, ArenaFull):
                # The frames of the traceback refer to data that was copied before the arena was full.
                made = made.with_traceback(None)
                if made.worker_share is None and made.requested <= made.capacity and self._may_get_room():
                    return False
                future = failed(room.advise(made))
            else:
                future = made
        except Exception as error:
            # The executor was shut down.
            future = failed(StartFailed(str(error)))
        self._full_since = None
        call.args, call.kwargs = [], {}
        call.future = future
        self._running.add(call)
        future.add_done_callback(functools.partial(self._notify, call))
        return True

    def _may_get_room(self) -> bool:
        """Whether calls that run, or have just ended, may make room in the arena."""
        if self._running:
            self._full_since = None
            return True
        now = time.monotonic()
        self._full_since = self._full_since or now
        return now - self._full_since < _PATIENCE

    def _notify(self, call: Call, _: Future[Any]) -> None:
        """Called on any thread when a call has ended in the executor."""
        self._ended.append(call)
        self._wake()

    def _finish(self, call: Call) -> None:
        """Answers a call that has ended."""
        client, kernel, future = call.client, call.kernel, call.future
        # The future's callback refers to the call: this cycle would keep the value until the next collection.
        call.future = None
        self._running.discard(call)
        is_gone = client.id not in self._clients
        client.calls.pop(call.id, None)
        if future is None or future.cancelled():
            if not is_gone:
                self._answer_error(client, call.id, "cancelled", "the call was cancelled")
            return
        packet = b""
        files: list[int] = []
        failure: dict[str, Any] | None = None
        if (error := future.exception()) is not None:
            failure = describe_error(error)
        elif not is_gone:
            try:
                packet, files = pack({"id": call.id}, "value", future.result(), self._most)
            except (DoesNotFit, OSError, MemoryError) as problem:
                failure = {"error": "limit", "message": f"the value of {kernel.name}: {problem}"}
            except Exception as problem:
                # Encoding calls methods of the value, which may raise any exception.
                failure = {"error": "returned", "message": f"{kernel.name} returned a bad value: {text_of(problem)}"}
        client.done += 1
        if failure is None:
            kernel.done += 1
        else:
            kernel.failed += 1
            about = {"at": time.time(), "kernel": kernel.name, "client": client.id, "cause": failure["error"]}
            words = "\n".join(failure.get("last_words", []))
            self._failures.append({**about, "message": failure["message"][:300], "last_words": words[-500:]})
            packet = to_json({"id": call.id, **failure}, "replace")
        if not is_gone:
            self._answer(client, packet, files, call.id)
        close(files)

    def _answer_error(self, client: Client, id: int | None, code: str, message: str) -> None:
        about = {} if id is None else {"id": id}
        self._answer(client, to_json({**about, "error": code, "message": message[:2000]}, "replace"))

    def _answer(self, client: Client, packet: bytes, files: list[int] | None = None, id: int | None = None) -> None:
        try:
            send(client.socket, packet, files or [])
        except OSError as error:
            if files and error.errno in LIMITS:
                self._answer_error(client, id, "limit", f"the files of the value cannot be sent: {error.strerror}")
            else:
                # Includes a full buffer: the client does not read.
                self._disconnect(client)

    def _disconnect(self, client: Client) -> None:
        """Ends a connection, with the client's waiting and running calls."""
        if self._clients.pop(client.id, None) is None:
            return
        self._selector.unregister(client.socket)
        # Another thread closes the socket, which contains the descriptors of unread packets.
        self._closing.put(client.socket.detach())
        if client.queued:
            client.queued.clear()
            self._turns.remove(client)
        calls, client.calls = client.calls, {}
        for call in calls.values():
            if call.future is not None:
                call.future.cancel()

    def _label(self, kernel: Kernel) -> str:
        """Returns the name of a kernel's calls in statistics, traces and reports."""
        return f"{os.path.basename(self.name).removesuffix('.sock')}.{kernel.name}"

    def _describe(self) -> dict[str, Any]:
        return {
            "service": True,
            "protocol": _PROTOCOL,
            "version": __version__,
            "name": self.name,
            "pid": os.getpid(),
            "started": self._started,
            "max_calls": self._max_calls,
            "names": True,
            "kernels": [{"name": kernel.name, "signature": kernel.text} for kernel in self._kernels.values()],
        }

    def _status(self) -> bytes:
        stats = self._workers.stats()
        seconds = {function.name: function.seconds for function in stats.functions}
        queued = collections.Counter(call.kernel.name for client in self._clients.values() for call in client.queued)
        # The executor has calls that no worker has begun.
        begun = [call for call in self._running if call.future is not None and call.future.running()]
        queued.update(call.kernel.name for call in self._running if call not in begun)
        running = collections.Counter(call.kernel.name for call in begun)
        by_client = collections.Counter(call.client.id for call in begun)
        # The worker of a call is known if all workers are idle, or all are busy with calls of one kernel.
        active = "idle" if not stats.running else "busy" if stats.running >= self._workers.slots else None
        same = next(iter(running)) if active == "busy" and len(running) == 1 and len(begun) == stats.running else None
        status: dict[str, Any] = {
            **self._info,
            "program": program_of(os.getpid()),
            "memory": {"capacity": stats.capacity, "in_use": stats.used_bytes},
            "workers": [
                {
                    "pid": worker.pid,
                    "state": active if worker.ready else "starting",
                    "kernel": same,
                    "jobs": worker.tasks,
                    "restarts": worker.restarts,
                }
                for worker in stats.workers
                if not worker.spare
            ],
            "kernels": [
                {
                    "name": kernel.name,
                    "signature": kernel.text,
                    "queued": queued[kernel.name],
                    "running": running[kernel.name],
                    "done": kernel.done,
                    "failed": kernel.failed,
                    "seconds": seconds.get(self._label(kernel), 0.0),
                }
                for kernel in self._kernels.values()
            ],
            "clients": [
                {
                    "id": client.id,
                    "pid": client.pid,
                    "program": client.program,
                    "queued": len(client.calls) - by_client[client.id],
                    "running": by_client[client.id],
                    "done": client.done,
                }
                for client in self._clients.values()
            ],
            "failures": list(self._failures),
        }
        while len(packet := to_json(status, "replace")) > MAX_PACKET:
            # Removes the older half of the longest list.
            longest = max(("failures", "clients", "workers", "kernels"), key=lambda part: len(str(status[part])))
            status[longest] = status[longest][len(status[longest]) // 2 + 1 :]
        return packet

    def _after_fork(self) -> None:
        """Called in a forked child: the parent owns the service and ends it."""
        if self._wake_file < 0:
            return
        self._wake_lock = threading.Lock()
        self._is_stopping = True
        self._over = threading.Event()
        self._over.set()
        self._wake_file, wake_file = -1, self._wake_file
        self._selector.close()
        self._listener.close()
        for client in self._clients.values():
            client.socket.close()
        self._claim.forget()
        os.close(wake_file)
        self._drop_spare()


#: For `os.register_at_fork`.
_servings: weakref.WeakSet[Serving] = weakref.WeakSet()


def _after_fork() -> None:
    for serving in list(_servings):
        serving._after_fork()


os.register_at_fork(after_in_child=_after_fork)
