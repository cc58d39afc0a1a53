"""A bounded number of tasks in flight, with results in order: `in_order`. Their progress: `Bar`."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from .._core.bars import make_bar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

T = TypeVar("T")


def in_order(starts: Iterable[tuple[T, Any]], ahead: int) -> Iterator[tuple[T, Any]]:
    """Yields the pairs of `starts` after their futures have ended. A pair consists of an item and a future, or another
    object without `cancel`.

    At most `ahead` pairs are taken from `starts` before they are yielded. If the generator is closed before its end,
    the remaining futures are cancelled.
    """
    flying: deque[tuple[T, Any]] = deque()
    source = iter(starts)
    try:
        while True:
            while len(flying) < ahead and (start := next(source, None)) is not None:
                flying.append(start)
            if not flying:
                return
            what, future = flying.popleft()
            try:
                if hasattr(future, "exception"):
                    future.exception()
            except Exception:
                pass  # The future raises the error again when its result is asked for.
            except BaseException:
                flying.appendleft((what, future))
                raise
            yield what, future
            # So that dropping the pair frees its memory.
            del what, future
    finally:
        for _, future in flying:
            if hasattr(future, "cancel"):
                future.cancel()
        if hasattr(source, "close"):
            source.close()


class Bar:
    """A progress bar of the bytes that were read, if one is requested and tqdm is installed."""

    def __init__(self, progress: bool | str, total: int) -> None:
        self._total = total
        self._bar = make_bar(progress, total, unit="B", unit_scale=True, unit_divisor=1024)

    def show(self, read: int) -> None:
        if self._bar is not None:
            self._bar.update(read - self._bar.n)

    def close(self, is_whole: bool) -> None:
        if is_whole:
            # Files without parts are also done.
            self.show(self._total)
        if self._bar is not None:
            self._bar.close()


class closing:
    """Iterates, and closes the iterator at the end of the loop."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._iterator
        finally:
            self._iterator.close()  # type: ignore[attr-defined]
