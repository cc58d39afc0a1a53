"""Pickles the variables of the program: globals, and attributes of its functions and classes.

What the program has made of an object is sent, without the methods of the program that made it. Functions, classes and
other objects of which a worker has one are references to their definitions.
"""

from __future__ import annotations

import contextvars
import copyreg
import operator
import pickle
import struct
import sys
import threading
import weakref
from functools import partial
from io import BytesIO
from queue import SimpleQueue
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from . import by_value, codes, context, elsewhere, making, mirror, out_of_band, reach
from .by_name import Pickler as ByName

if TYPE_CHECKING:
    from collections.abc import Callable

    from .definitions import Definitions
    from .grouping import Copy, Definition
    from .sharing import Shared


class Raced(BaseException):
    """Another thread has changed a container while it was pickled. Not an `Exception`: the container can be sent, at
    the next attempt."""


# ---- objects that each worker makes for itself

def _reduce_context_variable(_: Any, variable: contextvars.ContextVar[Any]) -> Any:
    try:
        options = {"default": contextvars.Context().run(variable.get)}
    except LookupError:
        options = {}
    return partial(contextvars.ContextVar, variable.name, **options), ()


#: Objects that each worker creates for itself, as if it had run the program's main file.
_RECREATED: dict[type, Callable[[Any, Any], Any]] = {
    type(threading.Lock()): lambda *_: (threading.Lock, ()),
    type(threading.RLock()): lambda *_: (threading.RLock, ()),
    SimpleQueue: lambda _, obj: (SimpleQueue, ()) if obj.empty() else NotImplemented,
    contextvars.ContextVar: _reduce_context_variable,
    struct.Struct: lambda _, obj: (struct.Struct, (obj.format,)),
    # A sentinel: the worker has one object for all references to it.
    object: lambda pickler, obj: (making.sentinel, (pickler.owner.sentinel(obj),)),
}
#: Those of which a worker has one object, in whatever globals and tasks it gets them.
_LOCKS = {type(threading.Lock()), type(threading.RLock()), SimpleQueue}
#: What cannot change, or is compared by identity.
BY_IDENTITY = {ModuleType, threading.local, *_RECREATED}


#: Attributes of `sys` that refer to the streams of each process.
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


# ---- objects of the program's classes


def _has_state(kind: type) -> bool:
    """Whether pickle makes an instance with `__new__` and gives it its state."""
    reducers: tuple[Any, Any] = kind.__reduce_ex__, kind.__reduce__
    return reducers == (object.__reduce_ex__, object.__reduce__) and not issubclass(kind, type)


def _is_plain(kind: type) -> bool:
    """Whether an instance is restored from its state alone, because all its classes are written in Python."""
    makers = (vars(base).get("__new__") for base in kind.__mro__[:-1])
    return _has_state(kind) and all(type(make) in (staticmethod, type(None)) for make in makers)


def _has_no_state(value: Any) -> bool:
    """Whether an object has nothing but its identity and its class, which a module defines that workers import."""
    kind = type(value)
    reduced = value.__reduce_ex__(4) if _is_plain(kind) and not _is_registered(kind) else None
    return type(reduced) is tuple and (len(reduced) < 3 or reduced[2] is None)


def _is_restored(kind: Any) -> bool:
    """Whether an instance of a class of the program is restored from its attributes alone."""
    has_own = kind.__getstate__ is not object.__getstate__ or any("__setstate__" in vars(one) for one in kind.__mro__)
    return _is_plain(kind) and not has_own and not reach.is_of_library(kind) and not _is_registered(kind)


def _is_registered(kind: type) -> bool:
    """Whether `copyreg` has a reducer for a class. The metaclass of a class may have no hash."""
    return type(kind).__hash__ is not None and kind in copyreg.dispatch_table


def is_dict(value: Any) -> bool:
    """Whether the attributes in the `__dict__` of an object are all that is pickled of it."""
    kind: Any = type(value)
    if not kind.__dictoffset__ or kind.__getattribute__ is not object.__getattribute__ or not _is_restored(kind):
        return False
    own = any("__class__" in vars(base) for base in kind.__mro__[:-1])
    return not own and not any("__slots__" in vars(base) for base in kind.__mro__)


def _state_of(obj: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the attributes of an object, and those in its slots."""
    state = object.__getstate__(obj)  # type: ignore[attr-defined]
    attributes, slots = state if type(state) is tuple else (state, None)
    return attributes or {}, slots or {}


def _find_or_make(place: elsewhere.Place, kind: type) -> tuple[Any, ...]:
    return making.find_or_make, (*place, kind.__name__, making.make_new, (kind,))


class _Filled:
    """Gives a plain object its attributes when it is unpickled."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return making.fill_plain, (self.made, _state_of(self.made))


class Imported:
    """An object of a module that workers import: they get its contents in the object of their own module."""

    def __init__(self, value: Any, place: elsewhere.Place, is_sent: bool = True) -> None:
        self.value, self.place, self.is_sent = value, place, is_sent

    def __reduce__(self) -> tuple[Any, ...]:
        make = _find_or_make(self.place, type(self.value))
        contents: Any
        if not self.is_sent:
            return make
        if type(self.value) not in elsewhere.CONTAINERS:
            contents = self.value.__reduce_ex__(4)[2]
        else:
            contents = dict(self.value) if isinstance(self.value, dict) else list(self.value)
        # Otherwise the worker's own object has to do.
        return (*make, contents, None, None, making.refill) if ByName.can_pickle(contents) else make


def imported_in(values: list[Any]) -> dict[int, elsewhere.Place]:
    """Returns the places of those objects whose contents are sent, by identity."""
    found = {}
    for value in values:
        place, kind = elsewhere.place_of(value), type(value)
        # The contents of objects of Python belong to a process, and objects of libraries are pickled as they want.
        has_contents = kind in elsewhere.CONTAINERS or (_is_plain(kind) and not reach.is_of_library(kind))
        if place is not None and has_contents:
            found[id(value)] = place
    return found


# ---- the pickler


class _NoArena:
    """Stands for an arena: small arrays are part of the pickle."""

    @staticmethod
    def find(*_: Any) -> None:
        return None


class _InBand(out_of_band.Arguments):
    """Keeps all buffers in the pickle."""

    def __init__(self) -> None:
        super().__init__(_NoArena(), True)  # type: ignore[arg-type]

    def take(self, view: pickle.PickleBuffer) -> bool:
        return True


class Pickler(ByName):
    """Pickles the values of variables."""

    #: The plain objects whose attributes are pickled after the value: so the pickler does not recurse from object to
    #: object. None if it does, which is faster.
    left: list[Any] | None = None

    def __init__(self, owner: Definitions, shared: Shared | None = None, run: Any = None) -> None:
        """`run`: makes the definitions to which the pickle refers; None if it is made to be compared."""
        self.file = BytesIO()
        super().__init__(self.file, _InBand())
        self.owner, self._shared, self._run = owner, shared, run
        self.copies_globals = owner.copies_globals
        #: The definitions to which the pickle refers, by number.
        self.found: dict[int, Definition] = {}
        #: The copies of large arrays, by number.
        self.copies: dict[int, Copy] = {}
        #: The modules to which it refers that the program has reloaded, with the times: their objects are others now.
        self.reloads: dict[str, float] = {}
        #: The number of pickles.
        self.count = 0
        self._restored: dict[Any, bool] = {}

    def dump_all(self, values: list[Any], is_deep: bool) -> bytes:
        """Returns the pickle of values. `is_deep`: whether they are linked in chains that are too long for
        recursion."""
        self.left = [] if is_deep else None
        self.dump(values)
        return self.file.getvalue()

    def dump(self, value: Any) -> None:
        try:
            super().dump(value)
            self.count += 1
            while self.left:
                left, self.left = self.left, []
                super().dump([_Filled(one) for one in left])
                self.count += 1
        except RuntimeError as error:
            if "during iteration" not in str(error):
                raise
            raise Raced from error

    def refer_to(self, obj: Any) -> Any:
        """Reduces an object to a reference to its definition."""
        definition = self.owner.definition(obj)
        if self._run is not None:
            self._run.refer(definition, obj)
        self.found[definition.number] = definition
        return mirror.find, (definition.number,)

    def reducer_override(self, obj: Any) -> Any:
        kind: Any = type(obj)
        if kind is FunctionType:
            return self.reduce_function(obj)
        if kind is CellType:
            return self.refer_to(obj)
        if kind is _Space:
            return self.refer_to(obj.space)
        if kind is MethodType and elsewhere.place_of(obj) is None:
            # A class under construction has no attributes, so its methods cannot be found by name.
            return MethodType, (obj.__func__, obj.__self__)
        if out_of_band.is_array(obj):
            return self._array(obj)
        reduced = self._reduce_here(obj, kind)
        if reduced is NotImplemented:
            reduced = super().reducer_override(obj)
        return self._reduce_restored(obj, kind) if reduced is NotImplemented else reduced

    def _reduce_here(self, obj: Any, kind: Any) -> Any:
        """Reduces an object of which each worker has its own. Returns NotImplemented for others."""
        place = None if self.copies_globals else elsewhere.place_of(obj)
        if kind in _RECREATED:
            reduced = _RECREATED[kind](self, obj)
            if reduced is NotImplemented:
                return reduced
            if place is not None:
                return making.find_or_make, (*place, kind.__name__, *reduced)
            if kind is contextvars.ContextVar:
                return making.sentinel, (self.owner.sentinel(obj), *reduced)
            return (making.only_one, (making.track(obj), *reduced)) if kind in _LOCKS else reduced
        if issubclass(kind, threading.local):
            # The worker's thread begins with what the thread that submits the task has.
            state = {name: value for name, value in vars(obj).items() if ByName.can_pickle(value)}
            how = (kind, ()) if place is None else (making.find_or_make, (*place, kind.__name__, kind, ()))
            return *how, state or None, None, None, making.fill_new
        if kind in weakref.ProxyTypes:
            # Pickle would take it for the object that it stands for.
            raise TypeError(f"cannot pickle {kind.__name__!r} object")
        if hasattr(kind, "write") and (name := next((one for one in _STREAMS if getattr(sys, one) is obj), None)):
            return getattr, (sys, name.strip("_"))
        if place is not None and (reach.is_standard(place[0]) or kind in elsewhere.METHODS):
            return making.find_in, place
        if place is not None and _has_no_state(obj):
            return _find_or_make(place, kind)
        return NotImplemented

    def _reduce_restored(self, obj: Any, kind: Any) -> Any:
        """Reduces an object of a class of the program. No `__new__`, `__getattr__` or `__setattr__` runs when it is
        made: the program has run them. Attributes that lead to no other object are set first, because the hash may need
        them before those that lead back to the object."""
        is_restored = self._restored.get(kind)
        if is_restored is None:
            is_restored = self._restored[kind] = _is_restored(kind)
        if not is_restored:
            if type(kind.__new__) is not FunctionType or not _has_state(kind):
                return NotImplemented
            first: Any = next(one for one in kind.__mro__ if type(vars(one).get("__new__")) is BuiltinFunctionType)
            value = first.__getnewargs__(obj) if hasattr(first, "__getnewargs__") else ()
            return first.__new__, (kind, *value), *obj.__reduce_ex__(4)[2:]
        state = _state_of(obj)
        atoms = [{name: one for name, one in part.items() if codes.is_atom(one)} for part in state]
        made = making.make_plain, (kind, *atoms)
        if all(map(operator.eq, map(len, atoms), map(len, state))):
            return made
        if self.left is not None:
            self.left.append(obj)
            return made
        return *made, state, None, None, making.fill_plain

    def _array(self, array: Any) -> Any:
        made = self._shared and self._shared.view_of(array)
        if made is None:
            copy = self.owner.copy_of(array)
            if copy is None:
                made = super().reducer_override(array)
                # Unlike an argument, a global is what the program has made.
                if type(made) is tuple and len(made) == 2:
                    made = out_of_band.AS_IT_IS.get(made[0], made[0]), made[1]
            else:
                self.copies[copy.number] = copy
                made = mirror.array, (copy.number,)
        is_writable = array.flags.writeable or type(made) is not tuple or len(made) != 2
        return made if is_writable else (out_of_band.restore_read_only, made)

    def space_of(self, space: dict[str, Any]) -> Any:
        return _Space(space)

    def by_name(self, obj: Any, module: str, name: str) -> Any:
        reduced = super().by_name(obj, module, name)
        if not reach.is_importable(module):
            return self.refer_to(obj)
        if module in context.reloaded:
            self.reloads[module] = context.reloaded[module]
        return reduced

    def without_name(self, obj: Any, reduce: Callable[[ByName, Any], Any]) -> Any:
        is_definition = isinstance(obj, (FunctionType, type)) or by_value.has_definition(obj)
        return self.refer_to(obj) if is_definition else reduce(self, obj)

    def describe(self, obj: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Returns what makes the object of a definition, the arguments, and its variables."""
        kind = type(obj)
        if kind is CellType:
            try:
                return making.make_cell, (), {"cell_contents": obj.cell_contents}
            except ValueError:  # It is empty.
                return making.make_cell, (), {"cell_contents": making.Removed}
        if kind is dict:
            known = {name: obj[name] for name in ("__name__", "__file__", "__package__") if type(obj.get(name)) is str}
            names = self.owner.definition(obj).names
            return dict, (known,), {name: obj[name] for name in sorted(names) if name in obj}
        if kind is FunctionType:
            made, state = by_value.parts_of_function(self, obj)
            state.pop("cells", None)
            if names := state.pop("globals", ()):
                # Kept until the pickle refers to it.
                definition = self._spaces[0] = self.owner.definition(obj.__globals__)
                definition.names.update(names)
            state = {"__name__": obj.__name__, "__doc__": None, "__annotations__": {}, **state}
            found = {name: one for name in ("__defaults__", "__kwdefaults__") if (one := getattr(obj, name))}
            return mirror.make_function, made, {mirror.WHOLE: (mirror.fill_function, state), **found, **obj.__dict__}
        if isinstance(obj, type):
            made = by_value.how_of_class(obj)
            make: Any = making.make_class
            if not reach.is_reachable(obj, obj.__module__, obj.__qualname__):
                make, made = making.only_one, (making.track(obj), making.make_unfilled, made)
            return make, made, by_value.attributes_of_class(self, obj)
        make, made, state, _, _, fill = (*by_value.reduce_named(self, obj), None, None, None, None)[:6]
        return make, made, {} if state is None else {mirror.WHOLE: (fill or making.fill_new, state)}


class _Space:
    """Stands for globals that no module has: a definition."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.space = space


class Placed(Pickler):
    """Also refers to objects at these places. Slow."""

    def __init__(self, places: dict[int, elsewhere.Place], *how: Any) -> None:
        super().__init__(*how)
        self._places = places

    def persistent_id(self, obj: Any) -> Any:
        return self._places.get(id(obj))
