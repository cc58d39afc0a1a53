"""The exceptions of this package."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any, NamedTuple

Cancelled = CancelledError

#: Characters that control a terminal, as in `needs_escape` of the crate, and their escapes.
_ACTING = [*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), 0xFEFF]
_SHOWN = {code: f"\\u{{{code:x}}}" for code in [*_ACTING, *range(0x2066, 0x206A)]} | {13: r"\r"}


def shown(text: str) -> str:
    """Escapes the characters of a text that control a terminal."""
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

    It stands for exceptions that cannot be pickled or unpickled.
    """

    def __init__(self, message: str, type_name: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.traceback = traceback


class CrashFrame(NamedTuple):
    """A function in the stack of a crash. Unknown fields are None."""

    #: Its name, in the notation of C or Rust.
    function: str | None
    #: The source file and the line, if the module has debug information.
    file: str | None
    line: int | None
    #: The program or library.
    module: str | None
    #: The address of the instruction, in the worker.
    address: int

    def __str__(self) -> str:
        text = self.function or f"{self.module or '?'} at {self.address:#x}"
        return text if self.line is None else f"{text} ({self.file}:{self.line})"


class Crash(NamedTuple):
    """How a worker crashed, as recorded by the worker: the signal, the address, its memory, and the native stack.

    The Python functions are in `last_words`.
    """

    #: The kind of crash: "null", "input" (a write to an array among the task's arguments), "arguments", "published" (a
    #: write to another array), "unused" (memory of the arena without an array), "records", "stack-overflow",
    #: "unmapped", "protected", "impossible" (an address that no program can have), "beyond-file" (of a file that was
    #: truncated), "hardware", "instruction", "division", "arithmetic", "abort", "raised" or "unknown".
    kind: str
    #: The signal and the event, as a sentence.
    text: str
    signal: int
    #: The address whose access failed, or None.
    address: int | None
    #: "read", "write", "execute" or None.
    access: str | None
    #: For "input": the number of the array in the arguments, from 1.
    array: int | None
    #: For "input": the byte in the array. For "published" and "unused": the byte in the region of the arena.
    offset: int | None
    #: The frames of the stack, innermost first.
    frames: list[CrashFrame]
    #: The number of frames that are left out in the middle of a deep stack.
    omitted: int

    def __str__(self) -> str:
        return "\n  ".join([self.text, *map(str, self.frames)])


class Failure:
    """The base of all failures of the engine."""

    #: The label that the task was given, or None.
    label: str | None = None
    #: The number of the worker that ran the task, or None.
    worker: int | None = None
    #: The number of attempts.
    attempts: int = 1
    #: What the worker printed last before it died, oldest line first.
    last_words: list[str]
    #: How the attempts before the last one ended.
    deaths: list[str]


def describe(error: Failure, failure: dict[str, Any]) -> None:
    """Adds what is known of a failure to its exception. `failure`: the dictionary of the extension."""
    error.label = failure["label"]
    error.worker = failure["worker"]
    error.attempts = failure["attempts"]
    error.last_words = failure["last_words"]
    error.deaths = failure["deaths"]


class DeadlineExceeded(Failure, TimeoutError):
    """The task ran longer than its deadline. Its worker was killed and replaced."""

    def __init__(self, message: str = "the deadline is over", *, deadline: float | None = None) -> None:
        super().__init__(message)
        #: Seconds that the task was allowed to run.
        self.deadline = deadline
        self.last_words = []
        self.deaths = []


class MemoryLimitExceeded(Failure, MemoryError):
    """The task asked for more memory than `memory_limit` leaves a worker, or the machine was out of memory."""

    def __init__(self, message: str = "the memory limit is reached", *, limit: int | None = None) -> None:
        super().__init__(message)
        #: The limit in bytes; None if the machine or its container was out of memory.
        self.limit = limit
        self.last_words = []
        self.deaths = []


class ArenaFull(Failure, MemoryError):
    """The arena has no room for an array. Drop arrays, or make the executor with a larger `capacity`.

    With `worker_share`, the arena has room, but this worker has reached its limit: raise `max_arena_per_worker`.
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
        #: The limit of bytes in the arena for one worker, if the task has reached it.
        self.worker_share = worker_share
        self.last_words = []
        self.deaths = []


#: Advice for errors at the limit of descriptors.
MANY_FILES = "raise the limit on open files (RLIMIT_NOFILE, `ulimit -n`)"

#: Advice for errors at the limit of processes and threads.
MANY_PROCESSES = (
    "no more processes or threads can be started: raise the limit of this user (ulimit -u), or that on addresses, if "
    "there is one (ulimit -v)"
)


class TableError(Exception):
    """A table could not be read or changed. The error names the file and part, the row and column, and the reason.

    The text contains all of these: `data/b.csv, row 1048, column "price": "n/a" is not double; …`. The exception of a
    function, or `WorkerDied`, is its `__cause__`.
    """

    #: The file, or None.
    file: str | None = None
    #: The bytes of the file that contain the part, or None. For a compressed file, the bytes of its content.
    bytes: range | None = None
    #: The row group of a Parquet file, or None.
    row_group: int | None = None
    #: The row of the file, from 1, without the header. None if no row is to blame, or if the number of rows before the
    #: part is unknown because the file cannot be read twice: then the text names the row in the part.
    row: int | None = None
    #: The name of the column, or None.
    column: str | None = None
    #: Whether the part could be read with another schema.
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
        """Returns the error for a place in a table. `origin`: an `Origin` of tables."""
        # The row identifies the place.
        where = [file or (origin.file if row is not None else str(origin))] if file or origin else []
        if row is not None:
            where.append(f"row {row}")
        elif row_of_part is not None:
            where.append(f"row {row_of_part} of these")
        if column is not None:
            where.append(f'column "{column}"')
        # Names and values may contain any characters, also from a sandboxed worker.
        error = cls(shown(f"{', '.join(where)}: {text}" if where else text))
        error.file = file or (origin.file if origin else None)
        if origin:
            error.bytes, error.row_group = origin.bytes, origin.row_group
        error.row, error.column = row, column
        return error
