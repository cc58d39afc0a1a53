"""The engine: the extension module of this package."""

from collections.abc import Callable
from os import PathLike
from typing import Any, final

from typing_extensions import Buffer as BufferProtocol

__all__ = [
    "Actor",
    "Buffer",
    "Closing",
    "Engine",
    "Limiter",
    "Options",
    "Snapshot",
    "Task",
    "TaskArena",
    "Watch",
    "__version__",
    "after_fork",
    "begin_timed",
    "escape",
    "is_cancelled",
    "is_worker",
    "join_all",
    "load_plain",
    "map_file",
    "next_events",
    "report",
    "run_worker",
    "worker_identity",
]

__version__: str

def after_fork() -> None: ...
def begin_timed() -> None: ...
def escape(text: str) -> str: ...
def is_cancelled() -> bool: ...
def is_worker() -> bool: ...
def join_all() -> None: ...
def load_plain(
    pickle: bytes | Buffer,
    buffers: list[Any],
    buffered: int,
    makers: dict[tuple[str, str], tuple[Callable[..., Any], str | None]],
) -> Any: ...
def map_file(fd: int) -> Buffer: ...
def next_events(timeout: float) -> tuple[list[int], list[tuple[int, str, int, str]]]: ...
def report(token: int) -> None: ...
def run_worker(identity: bytes) -> None: ...
def worker_identity() -> tuple[int, int, str] | None: ...
@final
class Snapshot:
    @staticmethod
    def of(object: Any) -> Snapshot | None: ...
    def is_current(self) -> bool: ...

@final
class Watch:
    def __new__(
        cls,
        items: list[tuple[dict[str, Any], str, Any]],
        absent: list[tuple[dict[str, Any], str]],
        attributes: list[tuple[Any, str, Any]],
        mappings: list[tuple[Any, list[Any]]],
    ) -> Watch: ...
    def is_current(self) -> bool: ...

@final
class Buffer:
    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def readonly(self) -> bool: ...
    def lend(self) -> Buffer: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Options:
    def __new__(
        cls,
        *,
        name: str | None = None,
        deadline: float | None = None,
        retries: int = 0,
        retry_errors: bool = False,
        backoff: tuple[float, float] | None = None,
        priority: int = 0,
        label: str | None = None,
        limit: Limiter | None = None,
    ) -> Options: ...

@final
class Limiter:
    def __new__(cls, at_once: int | None = None, between: float | None = None) -> Limiter: ...
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...

@final
class Task:
    def wait(self, timeout: float | None = None) -> bool: ...
    def done(self) -> bool: ...
    def running(self) -> bool: ...
    def arm(self, token: int) -> bool: ...
    def take(self) -> Any: ...
    def discard(self, reply: Any) -> bool: ...
    def cancel(self) -> None: ...
    def kill(self) -> None: ...

@final
class Actor:
    def call(
        self,
        method: bytes,
        arguments: bytes,
        kind: int,
        buffers: list[Buffer] | None = None,
        deadline: float | None = None,
    ) -> Task: ...
    def stop(self) -> None: ...

@final
class Closing:
    def wait(self, timeout: float | None = None) -> bool: ...

@final
class Engine:
    def __new__(
        cls,
        *,
        workers: int,
        spares: int,
        lanes: int,
        capacity: int | None,
        memory_limit: int,
        max_arena: int | None,
        max_arena_fraction: float | None,
        recycle_after: int,
        recycle_above: int,
        sandbox: str | None,
        label: str,
        program: str,
        arguments: list[str],
        environment: list[tuple[str, str]],
        identity: bytes,
        setup: bytes,
        output: int,
        trace: str | PathLike[str] | None,
        report: str | PathLike[str] | None,
        seed: int | None,
        start_timeout: float | None,
    ) -> Engine: ...
    @property
    def capacity(self) -> int: ...
    @property
    def loans(self) -> int: ...
    @property
    def is_foreign(self) -> bool: ...
    def submit(
        self,
        function: bytes,
        arguments: bytes,
        kind: int,
        buffers: list[Buffer] | None = None,
        options: Options | None = None,
    ) -> Task: ...
    def actor(
        self, function: bytes, arguments: bytes, kind: int, buffers: list[Buffer] | None = None
    ) -> Actor: ...
    def alloc(self, nbytes: int, zeroed: bool = False) -> Buffer: ...
    def copy(self, bytes: bytes) -> Buffer: ...
    def read_only(self, buffer: Buffer) -> Buffer: ...
    def find(self, address: int, nbytes: int, writable: bool = False) -> Buffer | None: ...
    def find_object(self, object: BufferProtocol) -> Buffer | None: ...
    def count_copied(self, bytes: int) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def cancel_all(self, kill: bool) -> None: ...
    def trim(self) -> int: ...
    def close(self, grace: float | None = None) -> Closing | None: ...

@final
class TaskArena:
    def __new__(cls) -> TaskArena: ...
    def alloc(self, nbytes: int, zeroed: bool = False) -> Buffer: ...
    def find(self, address: int, nbytes: int, writable: bool = False) -> Buffer | None: ...
    def find_object(self, object: BufferProtocol) -> Buffer | None: ...
