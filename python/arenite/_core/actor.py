"""Objects that live in one worker: `Actor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from . import inline, pickling, values
from .future import Future, NoValue, Unfinished, failed, of_pickling
from .workers import name_of

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import TypeVar as DefaultTypeVar

    from .. import _arenite
    from .workers import Workers

    #: The class of the object.
    Object = DefaultTypeVar("Object", covariant=True, default=Any)
else:
    Object = TypeVar("Object", covariant=True)


class Calls(Generic[Object]):
    """The calls of an actor."""

    def __getattr__(self, name: str) -> Callable[..., Future[Any]]:
        return self._method(name)

    def __getitem__(self, method: Callable[Concatenate[Object, P], T]) -> Callable[P, Future[T]]:
        """Returns the method of the object for a method of its class: `counter[Counter.total]` is `counter.total`, with
        argument and result types for type checkers."""
        name = _name_in(self._of()._class, method)
        if name is None:
            raise TypeError(f"a method of the class is needed between the brackets, not {method!r}")
        return self._method(name)

    def __call__(self: Calls[Callable[P, T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Calls the object."""
        return self._method("__call__")(*args, **kwargs)

    def _method(self, name: str) -> Callable[..., Future[Any]]:
        return self._of()._call_of(name, None)

    def _of(self) -> Actor[Object]:
        raise NotImplementedError


class Actor(Calls[Object]):
    """An object that stays in one worker: see `Executor.actor`.

    Each attribute whose name does not begin with an underscore is a method of the object, and returns a `Future`.
    Calling the actor calls the object, and also returns a `Future`. `options` is a method of the actor.
    """

    def __init__(self, workers: Workers, cls: Callable[..., Object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._workers = workers
        self._name = name_of(cls)
        self._class = cls if isinstance(cls, type) else None
        #: The handle of the actor; with `max_workers=0`, or if a future among the arguments has failed, a future of
        #: the object.
        self._actor: _arenite.Actor | Future[Any] | None
        if workers.is_inline:
            self._actor = inline.call(workers.inline, cls, args, kwargs)
            return
        try:
            args, kwargs = values.replaced((args, kwargs))
        except NoValue as error:
            self._actor = failed(error.error)
            return
        engine, private = workers.engine, workers.private
        made = pickling.pickle_function(cls, workers.definitions, private)
        head, data, kind, buffers, copied = made.call((args, kwargs), 0, private)
        engine.count_copied(made.copied + copied)
        head, kind = workers.sent.before(head, kind)
        self._actor = engine.actor(head, data, kind, buffers or None)

    def options(self, *, deadline: float | None = None) -> Limited[Object]:
        """Returns this actor with options for its calls.

        >>> import arenite, collections
        >>> with arenite.Executor(1) as ex:
        ...     counter = ex.actor(collections.Counter, "abc")
        ...     counter.options(deadline=5).total().result()
        3

        :param deadline: The seconds that a call may run. After them the worker is killed, and the object is lost.
        """
        return Limited(self, deadline)

    def _of(self) -> Actor[Object]:
        return self

    def _call_of(self, name: str, deadline: float | None) -> Callable[..., Future[Any]]:
        if name.startswith("_") and name != "__call__":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._class is not None and not _may_have(self._class, name):
            raise AttributeError(f"{self._name!r} object has no attribute {name!r}")

        def call(*args: Any, **kwargs: Any) -> Future[Any]:
            return self._call(name, args, kwargs, deadline)

        call.__name__ = name
        call.__qualname__ = f"{self._name}.{name}"
        return call

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], deadline: float | None) -> Future[Any]:
        workers, actor = self._workers, self._actor
        workers.check_open()
        if actor is None:
            raise RuntimeError(f"cannot call {self._name}.{name}: the actor has ended")
        if isinstance(actor, Future):
            try:
                made = values.value_of(actor)
            except NoValue as error:
                return failed(error.error)
            return inline.call(workers.inline, getattr(made, name), args, kwargs)
        engine, private = workers.engine, workers.private
        is_pickled = False
        try:
            # The function of the call is the name of the method.
            method = pickling.Function(name.encode(), 0, [], 0, frozenset(), workers.definitions)
            head, kind, buffers = method.head, 0 if kwargs else pickling.POSITIONAL, method.buffers
            plain = None if kwargs else pickling.dump_plain(args)
            if plain is None:
                head, plain, kind, buffers, copied = method.call((args, kwargs) if kwargs else args, kind, private)
                engine.count_copied(copied)
            head, kind = workers.sent.before(head, kind)
            is_pickled = True
            task = actor.call(head, plain, kind, buffers or None, deadline)
        except Unfinished as unfinished:
            # In this thread, so that calls stay in their order.
            values.wait(unfinished)
            return self._call(name, args, kwargs, deadline)
        except (Exception, SystemExit) as error:
            workers.check_open()
            if engine.is_foreign or is_pickled and isinstance(error, ValueError):
                raise  # Memory that the call lends is lent already, or overlaps.
            return failed(of_pickling(error))
        return Future(task, workers.private_results, workers.cancel_running, workers.load)

    def __enter__(self) -> Actor[Object]:
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


class Limited(Calls[Object]):
    """An actor with options for its calls: what `Actor.options` returns."""

    def __init__(self, actor: Actor[Object], deadline: float | None) -> None:
        self._actor, self._deadline = actor, deadline

    def _of(self) -> Actor[Object]:
        return self._actor

    def _method(self, name: str) -> Callable[..., Future[Any]]:
        return self._actor._call_of(name, self._deadline)


def _name_in(cls: type | None, method: Any) -> str | None:
    """Returns the name by which a class has a method; the method's own name if the class does not have it."""
    for base in cls.__mro__ if cls is not None else ():
        for name, value in vars(base).items():
            if value is method:
                return name
    return getattr(method, "__name__", None)


def _may_have(cls: type, name: str) -> bool:
    """Whether objects of a class may have an attribute: the class has it, or a method of the class names it and so may
    set it."""
    if name == "__call__":
        # The `__call__` of a class itself creates objects.
        return any("__call__" in vars(base) or "__getattr__" in vars(base) for base in cls.__mro__)
    if hasattr(cls, name) or hasattr(cls, "__getattr__"):
        return True
    for base in cls.__mro__:
        if name in vars(base).get("__annotations__", ()):
            return True
        for method in vars(base).values():
            code = getattr(getattr(method, "__wrapped__", method), "__code__", None)
            if code is not None and _names(code, name):
                return True
    return False


def _names(code: Any, name: str) -> bool:
    """Whether code sets or reads an attribute with this name, or computes names of attributes."""
    if name in code.co_names or name in code.co_consts or {"setattr", "__dict__", "vars"} & {*code.co_names}:
        return True
    return any(_names(inner, name) for inner in code.co_consts if hasattr(inner, "co_names"))
