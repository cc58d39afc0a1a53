"""Runs tasks in this process, for `Executor(max_workers=0)`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from . import values
from .future import Future, NoValue, failed, succeeded
from .raised import stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from .._arenite import Inline

T = TypeVar("T")


def call(jobs: Inline, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[T]:
    """Calls the function now. Returns a future with the outcome."""
    try:
        args, kwargs = values.replaced((args, kwargs))
        value = jobs.call(fn, tuple(map(_unwrap, args)), {name: _unwrap(value) for name, value in kwargs.items()})
    except NoValue as error:
        return failed(error.error)
    except KeyboardInterrupt:
        raise
    except StopIteration as error:
        return failed(stopped(error))
    except BaseException as error:
        return failed(error)
    return succeeded(value)


def map_calls(jobs: Inline, fn: Callable[..., T], iterables: tuple[Iterable[Any], ...]) -> Iterator[T]:
    """Calls the function with each item when its result is asked for."""
    from .inputs import present

    series, index = jobs.series(), itertools.count()

    def call(*args: Any) -> T:
        try:
            return jobs.call(fn, values.replaced(args), None, (series, next(index)))
        except NoValue as error:
            raise error.error from None
        except StopIteration as error:
            # A StopIteration would end the iterator.
            raise stopped(error) from error

    return map(call, *map(present, iterables))


def _unwrap(value: Any) -> Any:
    """Returns the array of a `mut()`; other values as they are."""
    kind = type(value)
    return value.array if kind.__module__ == "arenite._core.arrays" and kind.__name__ == "Mut" else value


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
