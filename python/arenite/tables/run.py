"""A bounded number of tasks in flight, their results in order: `in_order`."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

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
