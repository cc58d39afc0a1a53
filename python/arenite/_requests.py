"""What clients ask of a service: `Kernel`, `Call` and `Client`, and the answers to calls that have failed."""

from __future__ import annotations

import collections
import contextlib
import inspect
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from ._broken import StartFailed, WorkerDied
from ._core import pickling
from ._core.process import text_of
from ._errors import ArenaFull, DeadlineExceeded, MemoryLimitExceeded, RemoteTraceback

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ._core.future import Future
    from ._core.workers import Workers


class Kernel:
    def __init__(self, name: str, function: Callable[..., Any], workers: Workers) -> None:
        self.name = name
        if any(map(_is_async, (function, getattr(function, "__call__", None)))):  # noqa: B004
            raise TypeError(f"the kernel {name} is async, and workers call ordinary functions: wrap it in asyncio.run")
        self.signature: inspect.Signature | None = None
        # Also what a `__getattr__` of the function's class raises.
        with contextlib.suppress(Exception):
            self.signature = inspect.signature(function)
        self.text = _text_of(self.signature)
        # Pickled once, not for each call: a function refers to the objects of this moment.
        self.function: Any = function
        if not workers.is_inline:
            self.function = pickling.pickle_function(function, workers.definitions, workers.private)
        self.done = self.failed = 0


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _text_of(signature: inspect.Signature | None) -> str:
    """A signature without types, such as `(image, sigma=2.0)`."""
    if signature is None:
        return "(...)"
    plain = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=signature.empty))
    return text if len(text) <= 200 else f"{text[:199]}…"


class Copier:
    """Copies the bytes and texts of a call. A packet may refer to one file 200 times: raises before the copies take
    more than the arena has."""

    def __init__(self, room: int) -> None:
        self._room = room

    def __call__(self, content: memoryview) -> bytes:
        self._room -= len(content)
        if self._room < 0:
            raise MemoryError("bytes and texts, each counted as often as it occurs, take more than the arena has")
        return bytes(content)


class Call:
    def __init__(
        self,
        client: Client,
        id: int,
        kernel: Kernel,
        args: list[Any],
        kwargs: dict[str, Any],
        deadline: float | None,
    ) -> None:
        self.client = client
        self.id = id
        self.kernel = kernel
        self.args = args
        self.kwargs = kwargs
        self.deadline = deadline
        #: The future, after the executor has the call.
        self.future: Future[Any] | None = None


class Client:
    def __init__(self, id: int, connection: socket.socket, pid: int) -> None:
        self.id = id
        self.socket = connection
        self.pid = pid
        self.program = program_of(pid)
        #: The open calls by the client's number.
        self.calls: dict[int, Call] = {}
        #: The calls that were not passed to the executor yet.
        self.queued: collections.deque[Call] = collections.deque()
        self.done = 0


def program_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().rstrip()
    except OSError:
        return ""


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def describe_error(error: BaseException) -> dict[str, Any]:
    """Returns the members of an answer for a call that has failed."""
    about: dict[str, Any] = {"message": text_of(error)[:2000]}
    cause = error.__cause__
    if isinstance(error, MemoryLimitExceeded):
        about["error"] = "memory_limit"
    elif isinstance(error, ArenaFull):
        about["error"] = "arena_full"
    elif isinstance(cause, RemoteTraceback):
        text = text_of(error, is_whole=True)
        trace = f"\n{cause.tb.strip()}" if len(cause.tb) <= 1000 else ""
        return {"error": "panicked", "message": text[:800] + trace}
    elif isinstance(error, DeadlineExceeded):
        about["error"] = "timeout"
    elif isinstance(error, StartFailed):
        about["error"] = "no_workers"
    elif isinstance(error, CancelledError):
        about["error"] = "cancelled"
    elif isinstance(error, WorkerDied):
        if error.signal is not None:
            about |= {"error": "crashed", "signal": error.signal}
        elif error.exit_code is not None:
            about |= {"error": "exited", "code": error.exit_code}
        else:
            about["error"] = "quarantined" if error.deaths else "other"
    else:
        about["error"] = "other"
    about["attempts"] = getattr(error, "attempts", 1)
    about["last_words"] = [word[:200] for word in getattr(error, "last_words", [])[-20:]]
    return about
