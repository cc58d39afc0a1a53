"""Retries after exceptions of some classes only, for `options(retry_errors=(ConnectionError,))`.

The engine retries every task that fails. So an exception of another class is returned as a value, for the engine a
success, and is raised in the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import raised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Chosen:
    """A function that raises exceptions of these classes, and returns other exceptions."""

    def __init__(self, function: Callable[..., Any], kinds: tuple[type[BaseException], ...]) -> None:
        self.function, self.kinds = function, kinds

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.function(*args, **kwargs)
        except self.kinds:
            raise
        except BaseException as error:
            from .worker import dump_error

            return raised.Raised(*dump_error(error))


class Load:
    """Unpickles data of a worker, and raises an exception that was returned as a value."""

    def __init__(self, load: Callable[..., Any]) -> None:
        self._load = load

    def __call__(self, data: Any, buffers: Sequence[Any] = (), private: bool = False) -> Any:
        value = self._load(data, buffers, private)
        if type(value) is raised.Raised:
            raise raised.load_error(value.pickle, self._load)
        return value

    def add_words(self, failure: dict[str, Any]) -> None:
        """See `output.Load`."""
        add = getattr(self._load, "add_words", None)
        if add is not None:
            add(failure)
