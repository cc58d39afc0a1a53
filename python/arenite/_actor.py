"""Objects that stay in a worker: `Actor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _inline, _pickle
from ._future import Future, failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from . import _arenite
    from ._executor import Executor


class Actor:
    """An object that stays in one worker: see `Executor.actor`.

    Each attribute whose name does not begin with an underscore is a method of the object, which returns a `Future`.
    """

    def __init__(self, executor: Executor, cls: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._executor = executor
        self._name = getattr(cls, "__qualname__", type(cls).__qualname__)
        #: The actor; with `max_workers=0` a future of the object.
        self._actor: _arenite.Actor | Future[Any] | None
        if executor._inline:
            self._actor = _inline.call(cls, args, kwargs)
            return
        engine, private = executor._engine, executor._private
        made = _pickle.pickle_function(cls, executor._definitions, private)
        head, data, kind, buffers, copied = made.call((args, kwargs), 0, private)
        engine.count_copied(made.copied + copied)
        self._actor = engine.actor(head, data, kind, buffers or None)

    def __getattr__(self, name: str) -> Callable[..., Future[Any]]:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def call(*args: Any, **kwargs: Any) -> Future[Any]:
            return self._call(name, args, kwargs)

        call.__name__ = name
        call.__qualname__ = f"{self._name}.{name}"
        return call

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        executor, actor = self._executor, self._actor
        executor._check_open()
        if actor is None:
            raise RuntimeError(f"cannot call {self._name}.{name}: the actor has ended")
        if isinstance(actor, Future):
            error = actor.exception()
            return failed(error) if error is not None else _inline.call(getattr(actor.result(), name), args, kwargs)
        engine, private = executor._engine, executor._private
        is_pickled = False
        try:
            # In the place of a function is the name of the method.
            method = _pickle.Function(name.encode(), 0, [], 0, frozenset(), executor._definitions)
            head, kind, buffers = method.head, 0 if kwargs else _pickle.POSITIONAL, method.buffers
            plain = None if kwargs else _pickle.dump_plain(args)
            if plain is None:
                head, plain, kind, buffers, copied = method.call((args, kwargs) if kwargs else args, kind, private)
                engine.count_copied(copied)
            is_pickled = True
            task = actor.call(head, plain, kind, buffers or None)
        except Exception as error:
            executor._check_open()
            if engine.is_foreign or is_pickled and isinstance(error, ValueError):
                raise  # What is lent to it is not free.
            return failed(error)
        return Future(task, executor._private_results, executor._cancel_running, executor._load)

    def __enter__(self) -> Actor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        actor, self._actor = self._actor, None
        if actor is not None and not isinstance(actor, Future):
            actor.stop()

    def __repr__(self) -> str:
        return f"<arenite.Actor: {self._name}{' (ended)' if self._actor is None else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError("an actor is called by the program that made it and cannot be an argument: pass results of its calls")
