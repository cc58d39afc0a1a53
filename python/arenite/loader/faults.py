"""Samples that fail: what is recorded of them, and what happens then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .. import ArenaFull, StartFailed

OnError = Literal["raise", "skip", "retry"]
#: How often a sample runs again with "retry", and how many replacements are tried with "skip".
ATTEMPTS = 3
_MODES = ("raise", "skip", "retry")


@dataclass(frozen=True)
class Failure:
    """A sample that has failed."""

    #: The index in the dataset; of a stream, the number of the shard.
    index: int
    epoch: int
    #: `WorkerDied`, `DeadlineExceeded`, `MemoryLimitExceeded`, or the exception of the dataset.
    cause: BaseException
    #: The stack in the worker, as text.
    stack: str


def check(mode: Any) -> OnError:
    if mode not in _MODES:
        raise ValueError(f"on_error must be one of {_MODES}, not {mode!r}")
    return mode  # type: ignore[no-any-return]


def error_of(future: Any) -> BaseException | None:
    """Waits for a task. Returns the reason why it failed. Raises errors that are not the fault of a sample."""
    error: BaseException | None = future.exception()
    if isinstance(error, ArenaFull | StartFailed):
        raise error
    return error


def failure(index: int, epoch: int, error: BaseException, what: str = "sample") -> Failure:
    """Describes a failure, and adds the index to the notes of the exception."""
    error.add_note(f"{what} {index} of epoch {epoch}")
    crash = getattr(error, "crash", None)
    lines = [*getattr(error, "last_words", ()), *([str(crash)] if crash else [])]
    remote = getattr(error.__cause__, "tb", None)
    return Failure(index, epoch, error, remote or "\n".join(lines))
