"""Retries after exceptions of some classes only: what `options(retry_errors=(ConnectionError,))` does.

The engine runs a task again that has failed. An exception of another class comes back as a value, so that the task has
not failed for the engine, and is raised in the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Chosen:
    """A function that raises exceptions of these classes, and returns others."""

    def __init__(self, function: Callable[..., Any], kinds: tuple[type[BaseException], ...]) -> None:
        self.function, self.kinds = function, kinds

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.function(*args, **kwargs)
        except self.kinds:
            raise
        except BaseException as error:
            return _worker.Raised(*_worker._dump_error(error))


class Load:
    """Unpickles what a worker has sent, and raises the exception that it returned."""

    def __init__(self, load: Callable[..., Any]) -> None:
        self._load = load

    def __call__(self, data: Any, buffers: Sequence[Any] = (), private: bool = False) -> Any:
        value = self._load(data, buffers, private)
        if type(value) is _worker.Raised:
            raise _worker.load_error(value.pickle, self._load)
        return value

    def add_words(self, failure: dict[str, Any]) -> None:
        """See `_output.Load`."""
        add = getattr(self._load, "add_words", None)
        if add is not None:
            add(failure)
