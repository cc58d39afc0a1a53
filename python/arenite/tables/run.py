"""A bounded number of tasks in flight, their results in order: `in_order`. How far they are: `Bar`."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from .._map import _bar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

T = TypeVar("T")


def in_order(starts: Iterable[tuple[T, Any]], ahead: int) -> Iterator[tuple[T, Any]]:
    """Yields what `starts` yields, pairs with a future or something else that has no `cancel`, when the future has
    ended.

    `ahead` pairs at most are taken from `starts` and were not yielded yet. When it is closed before its end, the
    futures that are left are cancelled.
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
                pass  # It raises that again when it is asked for its result.
            except BaseException:
                flying.appendleft((what, future))
                raise
            yield what, future
            # Its memory is free when the consumer drops it.
            del what, future
    finally:
        for _, future in flying:
            if hasattr(future, "cancel"):
                future.cancel()
        if hasattr(source, "close"):
            source.close()


class Bar:
    """A bar that shows how many bytes of all have been read, if one is asked for and tqdm is installed."""

    def __init__(self, progress: bool | str, total: int) -> None:
        self._total = total
        self._bar = _bar(progress, total, unit="B", unit_scale=True, unit_divisor=1024)

    def show(self, read: int) -> None:
        if self._bar is not None:
            self._bar.update(read - self._bar.n)

    def close(self, is_whole: bool) -> None:
        if is_whole:
            # What had no part is over, too.
            self.show(self._total)
        if self._bar is not None:
            self._bar.close()
