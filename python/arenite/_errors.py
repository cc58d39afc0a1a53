"""Why a task gave no value: the exceptions of this package."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any, NamedTuple

Cancelled = CancelledError

#: Characters on which a terminal acts, as `needs_escape` of the crate has them, and what is shown.
_ACTING = [*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), 0xFEFF]
_SHOWN = {code: f"\\u{{{code:x}}}" for code in [*_ACTING, *range(0x2066, 0x206A)]}


def shown(text: str) -> str:
    """A text of which nothing makes a terminal do anything."""
    return text.translate(_SHOWN)


class RemoteTraceback(Exception):
    """The traceback of an exception in its worker: the `__cause__` of the exception that `result()` raises."""

    def __init__(self, traceback: str) -> None:
        super().__init__(traceback)
        #: The text, under the name that it has in `concurrent.futures`.
        self.tb = traceback

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'


class RemoteError(Exception):
    """An exception of a task that could not be sent as it is: its type's name, its message and its traceback.

    It stands for exceptions that cannot be pickled, or not be made again from their pickle.
    """

    def __init__(self, message: str, type_name: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.traceback = traceback


class CrashFrame(NamedTuple):
    """A function in the stack of a crash. What is not known is None."""

    #: Its name, as the compiler of C or Rust has it.
    function: str | None
    #: The source file and the line, if the module has debug information.
    file: str | None
    line: int | None
    #: The program or library.
    module: str | None
    #: Of the instruction, in the worker.
    address: int

    def __str__(self) -> str:
        text = self.function or f"{self.module or '?'} at {self.address:#x}"
        return text if self.line is None else f"{text} ({self.file}:{self.line})"


class Crash(NamedTuple):
    """How a worker crashed, as it recorded it: the signal, the address, what was there, and the stack of native code.

    The Python functions are in `last_words`.
    """

    #: What it was: "null", "input" (a write to an array that the task was given to read), "arguments", "published"
    #: (a write to another array), "unused" (memory of the arena without an array), "records", "stack-overflow",
    #: "unmapped", "protected", "impossible" (an address that no program can have), "beyond-file" (of a file that was
    #: truncated), "hardware", "instruction", "division", "arithmetic", "abort", "raised" or "unknown".
    kind: str
    #: The signal and what happened, as a sentence.
    text: str
    signal: int
    #: The address that could not be accessed, if it is about one.
    address: int | None
    #: "read", "write", "execute" or None.
    access: str | None
    #: Of "input": which of the arrays in the arguments, from 1.
    array: int | None
    #: The byte in that array, or of "published" and "unused" in the region of the arena.
    offset: int | None
    #: The innermost first.
    frames: list[CrashFrame]
    #: How many frames are left out in the middle of a deep stack.
    omitted: int

    def __str__(self) -> str:
        return "\n  ".join([self.text, *map(str, self.frames)])


class _Failure:
    """What all failures of the engine have in common."""

    #: The label that the task was given, or None.
    label: str | None = None
    #: The number of the worker that ran the task, or None.
    worker: int | None = None
    #: How often the task was tried.
    attempts: int = 1
    #: What the worker printed last before it died, oldest line first.
    last_words: list[str]
    #: How the attempts before the last one ended.
    deaths: list[str]

    def _describe(self, failure: dict[str, Any]) -> None:
        self.label = failure["label"]
        self.worker = failure["worker"]
        self.attempts = failure["attempts"]
        self.last_words = failure["last_words"]
        self.deaths = failure["deaths"]


class DeadlineExceeded(_Failure, TimeoutError):
    """The task ran longer than its deadline. Its worker was killed and replaced."""

    def __init__(self, message: str = "the deadline is over", *, deadline: float | None = None) -> None:
        super().__init__(message)
        #: Seconds that the task was allowed to run.
        self.deadline = deadline
        self.last_words = []
        self.deaths = []


class MemoryLimitExceeded(_Failure, MemoryError):
    """The task asked for more memory than `memory_limit` leaves a worker, or the machine was out of memory."""

    def __init__(self, message: str = "the memory limit is reached", *, limit: int | None = None) -> None:
        super().__init__(message)
        #: The limit in bytes; None if the machine or its container was out of memory.
        self.limit = limit
        self.last_words = []
        self.deaths = []


class ArenaFull(_Failure, MemoryError):
    """The arena has no room for an array. Drop arrays, or make the executor with a larger `capacity`.

    With `worker_share` there is room, but not for this worker: raise `max_arena_per_worker`.
    """

    def __init__(
        self,
        message: str = "the arena is full",
        *,
        requested: int = 0,
        free: int = 0,
        capacity: int = 0,
        largest_free: int = 0,
        worker_share: int | None = None,
    ) -> None:
        super().__init__(message)
        self.requested = requested
        self.free = free
        self.capacity = capacity
        self.largest_free = largest_free
        #: The bytes that one worker may hold of the arena, if that was the limit.
        self.worker_share = worker_share
        self.last_words = []
        self.deaths = []


#: What to do where nothing can be started any more.
MANY_PROCESSES = "no more processes or threads can be started: raise the limit of this user (ulimit -u)"


def from_failure(failure: dict[str, Any]) -> BaseException:
    """Returns the exception for a failure of the engine, as the extension describes it."""
    kind, text = failure["kind"], failure["text"]
    error: Any
    if kind == "deadline":
        error = DeadlineExceeded(text, deadline=failure["limit"])
    elif kind == "memory":
        error = MemoryLimitExceeded(text, limit=failure["limit"])
    elif kind == "arena":
        numbers = ("requested", "free", "capacity", "largest_free", "worker_share")
        error = ArenaFull(text, **{name: failure[name] for name in numbers})
    elif kind in ("cancelled", "shutdown"):
        return Cancelled(text)
    elif kind in ("start", "oom", "died", "quarantined"):
        from . import _broken

        error = _broken.from_failure(failure)
    else:
        return RuntimeError(text)
    error._describe(failure)
    return error  # type: ignore[no-any-return]


class TableError(Exception):
    """A table could not be read or changed: which file and part, which row and column, and why.

    The text names all of it: `data/b.csv, row 1048, column "price": "n/a" is not double; …`. The exception of a
    function, or `WorkerDied`, is its `__cause__`.
    """

    #: The file, or None.
    file: str | None = None
    #: The bytes of the file that the part is read from, or None; of a compressed file, those of its content.
    bytes: range | None = None
    #: The row group of a Parquet file, or None.
    row_group: int | None = None
    #: The row of the file, from 1 on, without the header. None if no row is to blame, or if the rows before its part
    #: are not known because the file cannot be read twice: the text then has the row of the part.
    row: int | None = None
    #: The name of the column, or None.
    column: str | None = None
    #: Whether another schema could read the part.
    _is_of_type = False

    @classmethod
    def at(
        cls,
        text: str,
        *,
        origin: Any = None,
        file: str | None = None,
        row: int | None = None,
        row_of_part: int | None = None,
        column: str | None = None,
    ) -> TableError:
        """The error of a place. `origin` is an `Origin` of tables."""
        # The row says where.
        where = [file or (origin.file if row is not None else str(origin))] if file or origin else []
        if row is not None:
            where.append(f"row {row}")
        elif row_of_part is not None:
            where.append(f"row {row_of_part} of these")
        if column is not None:
            where.append(f'column "{column}"')
        # Names and values may have any characters, also those that a worker in a sandbox has sent.
        error = cls(shown(f"{', '.join(where)}: {text}" if where else text))
        error.file = file or (origin.file if origin else None)
        if origin:
            error.bytes, error.row_group = origin.bytes, origin.row_group
        error.row, error.column = row, column
        return error
