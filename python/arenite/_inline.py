"""Tasks that run in this process: what `Executor(max_workers=0)` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ._future import Future, failed, succeeded
from ._worker import stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

T = TypeVar("T")


def call(fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[T]:
    """Calls the function now. Returns a future that has ended."""
    try:
        value = fn(*map(_unwrap, args), **{name: _unwrap(value) for name, value in kwargs.items()})
    except (KeyboardInterrupt, SystemExit):
        raise
    except StopIteration as error:
        return failed(stopped(error))
    except BaseException as error:
        return failed(error)
    return succeeded(value)


def map_calls(fn: Callable[..., T], iterables: tuple[Iterable[Any], ...]) -> Iterator[T]:
    """Calls the function with the items, when its results are asked for."""

    def call(*args: Any) -> T:
        try:
            return fn(*args)
        except StopIteration as error:
            # It would be taken for the end of the items.
            raise stopped(error) from error

    return map(call, *iterables)


def _unwrap(value: Any) -> Any:
    """The array of a `mut()`."""
    kind = type(value)
    return value.array if kind.__module__ == "arenite._arrays" and kind.__name__ == "Mut" else value


def share(value: T) -> T:
    """Returns a read-only copy of an array; other values as they are."""
    import numpy

    if isinstance(value, numpy.ndarray):
        value = value.copy()
        value.flags.writeable = False
    return value


def make(shape: Any, dtype: Any, order: Any, zeroed: bool) -> NDArray[Any]:
    """Makes an array in private memory."""
    import numpy

    made: NDArray[Any] = (numpy.zeros if zeroed else numpy.empty)(shape, dtype, order)
    return made
