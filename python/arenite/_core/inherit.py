"""Objects of `multiprocessing` that its pools pass to workers by inheritance: locks, events, conditions, barriers,
queues, shared values and arrays, in globals, `initializer` and `initargs`.

Workers inherit nothing: they run another program, and each worker and replacement unpickles these objects. So the
program serves their parts as long as the executor exists:

- **Descriptors** of pipes and of shared memory: a worker gets a duplicate for each request.
- **Semaphores with a name** (of a `spawn` context): the worker opens them.
- **Semaphores without a name** (of a `fork` context, the default on Linux before Python 3.14) exist only in memory of
  the program. For each thread of a worker, a thread of the program acquires and releases them. If the worker ends while
  it has a lock, the lock is released.

A request is one packet: operation, number of the object, timeout in seconds. A connection that does not begin with the
key is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from .. import _arenite
from . import channel
from .channel import Address
from .process import imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .definitions import Definitions

_REQUEST = struct.Struct("<BId")
_ANSWER = struct.Struct("<bi")
_FD, _ACQUIRE, _RELEASE, _VALUE = range(4)
#: The `kind` of a semaphore that counts the acquisitions of its owner, as in `multiprocessing.synchronize`.
_RECURSIVE = 0
#: A timeout that means no limit.
_NO_LIMIT = -1.0
#: The seconds between two checks of a waiting thread whether its worker still exists.
_SLICE = 0.2


# ---- in the program


class Server(channel.Listener):
    """Serves the objects that the globals and the initializer of an executor refer to."""

    def __init__(self) -> None:
        super().__init__("arenite-inherit", socket.SOCK_SEQPACKET)
        #: By number: a descriptor, or an object with a semaphore.
        self._served: list[Any] = []
        #: The numbers of the served objects, by their identity.
        self._numbers: dict[tuple[Any, ...], int] = {}
        #: By the number of a lock: the connection whose thread has the lock.
        self._owners: dict[int, socket.socket] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stops serving new workers. Open connections remain."""
        if self._process != os.getpid():
            # This is a child made by `fork()`: the parent owns the server.
            return
        self.stop()
        for number, served in enumerate(self._served):
            if isinstance(served, int):
                self._served[number] = None
                os.close(served)

    def add(self, lock: Any) -> int:
        return self._add((id(lock),), lambda: lock)

    def add_descriptor(self, fd: int) -> int:
        """Serves a duplicate of a descriptor. Both ends of a pipe have the same file: they differ in their access."""
        info = os.fstat(fd)
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        return self._add((info.st_dev, info.st_ino, access), lambda: os.dup(fd))

    def _add(self, identity: tuple[Any, ...], make: Callable[[], Any]) -> int:
        number = self._numbers.get(identity)
        if number is None:
            self._served.append(make())
            number = self._numbers[identity] = len(self._served) - 1
        return number

    def reduce_semaphore(self, lock: Any) -> Any:
        own = lock._semlock
        if own.name is not None:
            # Kept alive: the name of the semaphore is removed with the object.
            self.add(lock)
            return _open_semaphore, (type(lock), own.kind, own.maxvalue, own.name)
        return _reach_semaphore, (type(lock), own.kind, own.maxvalue, self.address, self.add(lock))

    def receive(self, connection: socket.socket) -> None:
        try:
            while request := connection.recv(_REQUEST.size):
                self._answer(connection, *_REQUEST.unpack(request))
        except (LookupError, TypeError):
            pass  # The executor has ended.
        finally:
            with self._lock:
                held = [number for number, owner in self._owners.items() if owner is connection]
                for number in held:
                    del self._owners[number]
            for number in held:
                with contextlib.suppress(ValueError, AssertionError):
                    self._served[number].release()

    def _answer(self, connection: socket.socket, operation: int, number: int, timeout: float) -> None:
        # Kept alive during the request, also if the executor ends meanwhile.
        served = self._served[number]
        if operation == _FD:
            socket.send_fds(connection, [_ANSWER.pack(1, 0)], [served])
            return
        own = served._semlock
        is_lock = own.maxvalue == 1
        result = value = 0
        if operation == _ACQUIRE:
            result = self._acquire(connection, served, timeout)
            if result and is_lock:
                with self._lock:
                    self._owners[number] = connection
        elif operation == _RELEASE:
            if is_lock:
                with self._lock:
                    self._owners.pop(number, None)
            try:
                served.release()
                result = 1
            except ValueError:
                result = 0
        else:
            result, value = 1, own._get_value()
        try:
            connection.send(_ANSWER.pack(bool(result), value))
        except OSError:
            if operation == _ACQUIRE and result and not is_lock:
                served.release()
            raise

    @staticmethod
    def _acquire(connection: socket.socket, served: Any, timeout: float) -> bool:
        """Acquires a semaphore for a worker. Raises OSError if the worker ends meanwhile."""
        until = math.inf if timeout == _NO_LIMIT else time.monotonic() + timeout
        while not served.acquire(True, max(0.0, min(_SLICE, until - time.monotonic()))):
            if time.monotonic() >= until:
                return False
            with contextlib.suppress(BlockingIOError):
                if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise ConnectionResetError
        return True


class _Spawning:
    """Stands for the process that `multiprocessing` starts, while an object for workers is pickled."""

    def __init__(self, owner: Definitions) -> None:
        self._owner = owner

    @property
    def server(self) -> Server:
        """The server of the executor, which starts when an object needs it."""
        server = self._owner.server
        if server is None:
            server = Server()
            server.start()
            self._owner.server = server
        return server

    def duplicate_for_child(self, fd: int) -> int:
        return self.server.add_descriptor(fd)

    def DupFd(self, number: int) -> Descriptor:  # noqa: N802
        return Descriptor(self.server.address, number)


@contextlib.contextmanager
def passing(owner: Definitions) -> Iterator[None]:
    """A context in which objects of `multiprocessing` can be pickled, as while it starts a process."""
    from multiprocessing import context

    before = context.get_spawning_popen()
    context.set_spawning_popen(_Spawning(owner))  # type: ignore[arg-type]
    try:
        yield
    finally:
        context.set_spawning_popen(before)


#: The modules whose objects are shared with the program.
_SHARED = {f"multiprocessing.{name}" for name in ("connection", "queues", "sharedctypes", "synchronize")}


def is_shared(obj: Any) -> bool:
    """Returns true if workers do not get a copy of this object, but share it with the program."""
    kind = type(obj)
    return kind.__module__ in _SHARED or type(kind).__module__ == "_ctypes" and hasattr(obj, "_wrapper")


def reduce(obj: Any) -> Any:
    """Reduces the types that `multiprocessing` can send. Returns NotImplemented for others."""
    kind = type(obj)
    synchronize = imported("multiprocessing.synchronize")
    if synchronize is not None and isinstance(obj, synchronize.SemLock):
        spawning = sys.modules["multiprocessing.context"].get_spawning_popen()  # type: ignore[attr-defined]
        return spawning.server.reduce_semaphore(obj) if isinstance(spawning, _Spawning) else NotImplemented
    reduction = imported("multiprocessing.reduction")
    if reduction is None:
        return NotImplemented
    managers = imported("multiprocessing.managers")
    is_proxy = managers is not None and isinstance(obj, managers.BaseProxy)
    reducer: Any = kind.__reduce__ if is_proxy else reduction.ForkingPickler._extra_reducers.get(kind)
    if reducer is None or kind.__module__ in _LEFT or kind.__module__.partition(".")[0] == "torch":
        return NotImplemented
    if reducer.__module__ == "multiprocessing.sharedctypes" and not hasattr(obj, "_wrapper"):
        # Once a number is shared, `multiprocessing` takes all numbers of its type for shared.
        return NotImplemented
    from multiprocessing.process import current_process

    function, arguments = reducer(obj)[:2]
    return _authenticated, (bytes(current_process().authkey), function, arguments)


#: Modules whose reducers are not used: methods and partial objects need none. `torch` would pass files that nobody
#: deletes.
_LEFT = {"builtins", "functools"}


# ---- in a worker, and in the program for what tasks return


def _authenticated(key: bytes, function: Any, arguments: Any) -> Any:
    """Restores an object by asking a process that has this key."""
    from multiprocessing.process import current_process

    process = current_process()
    before = bytes(process.authkey)
    if key == before:
        return function(*arguments)
    process.authkey = key
    if _arenite.is_worker():
        # From now on other processes accept data of this process.
        return function(*arguments)
    try:
        return function(*arguments)
    finally:
        process.authkey = before


class Descriptor:
    """A descriptor of the program."""

    def __init__(self, address: Address, number: int) -> None:
        self._address, self._number = address, number

    def __reduce__(self) -> Any:
        return Descriptor, (self._address, self._number)

    def detach(self) -> int:
        """Returns a duplicate of the descriptor in this process."""
        connection = _connection(self._address)
        connection.send(_REQUEST.pack(_FD, self._number, 0))
        _, fds, _, _ = socket.recv_fds(connection, _ANSWER.size, 1, socket.MSG_CMSG_CLOEXEC)
        if not fds:
            raise RuntimeError("the program has ended its executor, and with it the objects that it shares")
        return fds[0]


_local = threading.local()


def _connection(address: Address) -> socket.socket:
    """Returns the connection of this thread. A process that a task has forked needs another connection."""
    known: dict[Any, socket.socket] = _local.__dict__
    # The process is part of the key, because a forked process has a copy of the table.
    name = f"{os.getpid()} {address[0]}"
    found = known.get(name)
    if found is None:
        try:
            found = known[name] = channel.connect(address, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise RuntimeError(
                "the program has ended its executor, and with it the objects that it shares"
            ) from error
    return found


def _open_semaphore(kind: Any, of: int, maxvalue: int, name: str) -> Any:
    lock = kind.__new__(kind)
    lock.__setstate__((0, of, maxvalue, name))
    return lock


def _reach_semaphore(kind: Any, of: int, maxvalue: int, address: Address, number: int) -> Any:
    lock = kind.__new__(kind)
    made = lock._semlock = Semaphore(of, maxvalue, address, number)
    lock.acquire, lock.release = made.acquire, made.release
    return lock


class Semaphore:
    """A semaphore of the program, with the interface of `_multiprocessing.SemLock`."""

    name = None
    handle = 0

    def __init__(self, kind: int, maxvalue: int, address: Address, number: int) -> None:
        self.kind, self.maxvalue = kind, maxvalue
        self._address, self._number = address, number
        #: The number of acquisitions by this process, and the thread of the last one.
        self._held, self._owner = 0, 0

    def _ask(self, operation: int, timeout: float = 0.0) -> tuple[int, int]:
        connection = _connection(self._address)
        connection.send(_REQUEST.pack(operation, self._number, timeout))
        answer = connection.recv(_ANSWER.size)
        if not answer:
            raise RuntimeError("the program has ended its executor, and with it this lock")
        result, value = _ANSWER.unpack(answer)
        return result, value

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        if self.kind == _RECURSIVE and self._is_mine():
            self._held += 1
            return True
        if not block:
            limit = 0.0
        else:
            limit = _NO_LIMIT if timeout is None else max(0.0, float(timeout))
        if not self._ask(_ACQUIRE, limit)[0]:
            return False
        self._held += 1
        self._owner = threading.get_ident()
        return True

    def release(self) -> None:
        if self.kind == _RECURSIVE:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._held > 1:
                self._held -= 1
                return
        # Before the release: another thread of this process may acquire the semaphore as soon as it is free.
        self._held -= 1
        if not self._ask(_RELEASE)[0]:
            self._held += 1
            raise ValueError("semaphore or lock released too many times")

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._held

    def _is_mine(self) -> bool:
        return self._held > 0 and self._owner == threading.get_ident()

    def _get_value(self) -> int:
        return self._ask(_VALUE)[1]

    def _is_zero(self) -> bool:
        return self._get_value() == 0

    def _after_fork(self) -> None:
        self._held = 0
