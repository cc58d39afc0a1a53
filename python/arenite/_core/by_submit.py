"""A map whose calls are made by `submit`, for executors whose `submit` was overridden or replaced."""

from __future__ import annotations

import itertools
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from .bars import make_bar
from .inputs import Chunks, check_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


def call_each(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    """Calls a function with each of these arguments: a task of `map_by`."""
    return [function(*call) for call in calls]


def map_by(
    submit: Callable[..., Any], fn: Callable[..., T], iterables: tuple[Iterable[Any], ...], timeout: float | None,
    chunksize: int | None, buffersize: int | None, progress: Any,
) -> Iterator[T]:  # fmt: skip
    """Makes the calls of a map by `submit`, in the way of `ProcessPoolExecutor`."""
    check_sizes(chunksize, buffersize)
    until = None if timeout is None else monotonic() + timeout
    size = chunksize or 1
    calls = zip(*iterables) if size == 1 else ((fn, chunk) for chunk in Chunks(zip(*iterables), size))
    bar = make_bar(progress, None)

    def submit_next(count: int | None) -> None:
        futures.extend(submit(fn if size == 1 else call_each, *call) for call in itertools.islice(calls, count))

    def results() -> Iterator[T]:
        try:
            while futures:
                value = futures[0].result(None if until is None else until - monotonic())
                del futures[0]
                submit_next(0 if buffersize is None else 1)
                if bar is not None:
                    bar.update(1 if size == 1 else len(value))
                yield from [value] if size == 1 else value
        except BaseException as error:
            ends_running = isinstance(error, KeyboardInterrupt) or until is not None and monotonic() >= until
            for future in futures:
                if ends_running or not future.running():
                    future.cancel()
            raise

    futures: deque[Any] = deque()
    submit_next(buffersize)
    return results()
