"""Pickles the variables of the program: globals, and attributes of its functions and classes.

What the program has made of an object is sent, without the methods of the program that made it. Functions, classes and
other objects of which a worker has one are references to their definitions.
"""

from __future__ import annotations

import contextvars
import copyreg
import gc
import itertools
import logging
import pickle
import struct
import sys
import threading
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial
from io import BytesIO
from queue import SimpleQueue
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from . import by_value, codes, context, elsewhere, making, mirror, out_of_band, reach
from .by_name import Pickler as ByName
from .process import imported
from .weak import IdentityMap

if TYPE_CHECKING:
    from collections.abc import Callable

    from .definitions import Definitions
    from .grouping import Copy, Definition
    from .sharing import Shared


class Raced(BaseException):
    """Another thread has changed a container while it was pickled. Not an `Exception`: the container can be sent, at
    the next attempt."""


# ---- objects that each worker makes for itself

_serials = IdentityMap()
_next_serial = itertools.count(1)


def serial(obj: Any) -> int:
    number: int | None = _serials.get(obj)
    if number is None:
        number = _serials[obj] = next(_next_serial)
    return number


def _reduce_context_variable(_: Any, variable: contextvars.ContextVar[Any]) -> Any:
    try:
        default: tuple[Any, ...] = (contextvars.Context().run(variable.get),)
    except LookupError:
        default = ()
    return making.make_context_variable, (variable.name, default)


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


def _reduce_weak_container(_: Any, obj: Any) -> Any:
    items = list(obj) if isinstance(obj, weakref.WeakSet) else dict(obj.items())
    return type(obj), (items,), {"_referents": items}


def _reduce_proxy(_: Any, proxy: Any) -> Any:
    try:
        # A method of a proxy is one of its referent.
        referent = proxy.__reduce_ex__.__self__
    except ReferenceError:
        referent = None
    return making.make_reference, (weakref.proxy, referent, id(proxy))


#: Objects with weak references to others. The program keeps these, and the worker keeps its copies of them.
_REFERRING: dict[type, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(
        (weakref.ReferenceType, weakref.WeakMethod),
        lambda _, obj: (making.make_reference, (type(obj), obj(), id(obj))),
    ),
    **dict.fromkeys((weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary), _reduce_weak_container),
    **dict.fromkeys((weakref.ProxyType, weakref.CallableProxyType), _reduce_proxy),
}
_OWN = {**_RECREATED, **_REFERRING}

#: Attributes of `sys` that refer to the streams of each process.
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def _arguments_of(local: threading.local) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments with which each thread calls the `__init__` of a `threading.local`. It has no attributes
    for them."""
    held = gc.get_referents(local)
    arguments = next((one for one in held if type(one) is tuple), ())
    keywords = (one for one in held if type(one) is dict and {str}.issuperset(map(type, one)))
    return arguments, next(keywords, {})


def _constants_elsewhere() -> dict[int, tuple[str, str]]:
    """Returns the constants that programs compare by identity, and that are no objects for pickle: the module and the
    name by the identity."""
    names = ("argparse", "SUPPRESS"), ("math", "nan"), ("numpy", "nan")
    found = ((getattr(imported(home), name, None), home, name) for home, name in names)
    return {id(value): (home, name) for value, home, name in found if value is not None}


# ---- objects of the program's classes

#: Containers whose classes may override what pickle calls to make them.
_BASES: tuple[type, ...] = (OrderedDict, defaultdict, Counter, dict, list, set, deque)
_ADDING = ("__new__", "__init__", "__setitem__", "append", "extend")


def _container_of(kind: type) -> Any:
    """Returns the type of containers from which a class inherits, if the class overrides how items are added; None for
    other classes, and if the class says how it is pickled."""
    if not issubclass(kind, _BASES) or kind in _BASES or reach.is_of_library(kind):
        return None
    base: Any = next(base for base in _BASES if issubclass(kind, base))
    ways: tuple[Any, Any] = kind.__reduce_ex__, kind.__reduce__
    if ways != (base.__reduce_ex__, base.__reduce__):
        return None
    return base if any(getattr(kind, name, None) is not getattr(base, name, None) for name in _ADDING) else None


def _contents(base: Any, container: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the items of a container, and its other parts by name."""
    if issubclass(base, dict):
        options = {"default_factory": container.default_factory} if base is defaultdict else {}
        items = OrderedDict.items(container) if base is OrderedDict else dict.items(container)
        return dict(items), options
    return list(base.__iter__(container)), {"maxlen": container.maxlen} if base is deque else {}


def _origin_of(kind: Any) -> Any:
    """Returns the type of a library from which a class of the program inherits, if pickle calls the class with what
    this type takes, and the class may take something else. Returns None for other classes."""
    base: Any = next(one for one in kind.__mro__ if reach.is_of_library(one))
    if base is kind or type(kind).__call__ is not type.__call__ or by_value.is_registered(kind):
        return None
    if any(getattr(kind, name) is not getattr(base, name) for name in ("__reduce_ex__", "__reduce__")):
        return None
    return base if any(getattr(kind, name) is not getattr(base, name) for name in ("__new__", "__init__")) else None


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
    reduced = value.__reduce_ex__(4) if _is_plain(type(value)) else None
    return type(reduced) is tuple and (len(reduced) < 3 or reduced[2] is None)


def _defines(kind: type, name: str) -> bool:
    """Whether a class, or one that it inherits from, has a method. Does not ask the metaclass."""
    return any(name in vars(one) for one in kind.__mro__)


def _reduce_plain(obj: Any, kind: Any) -> Any:
    """Reduces an object of the program whose class has methods that pickle would call before the object is restored:
    it gets its attributes without them. Pickle adds an object to the sets and dictionaries of a cycle before it has
    attributes: those that lead into no cycle, which the hash may need, are set when the object is made."""
    has_getattr = _defines(kind, "__getattr__")
    has_setattr = kind.__setattr__ is not object.__setattr__
    has_hash = type(kind.__hash__) is FunctionType
    if not (has_getattr or has_setattr or has_hash) or not _is_restored(kind):
        return NotImplemented
    state = _state_of(obj)
    first = tuple(map(_values_in, state))
    may_be_in_cycle = has_hash and [*map(len, first)] != [*map(len, state)]
    if not (has_getattr or (has_setattr and state[1]) or may_be_in_cycle):
        return NotImplemented
    return making.make_plain, (kind, *first), state, None, None, making.fill_plain


def _is_restored(kind: Any) -> bool:
    """Whether an instance of a class of the program is restored from its attributes alone."""
    has_own = kind.__getstate__ is not object.__getstate__ or _defines(kind, "__setstate__")
    return _is_plain(kind) and not has_own and not reach.is_of_library(kind)


def is_dict(value: Any) -> bool:
    """Whether the attributes in the `__dict__` of an object are all that is pickled of it."""
    kind: Any = type(value)
    if not kind.__dictoffset__ or kind.__getattribute__ is not object.__getattribute__ or not _is_restored(kind):
        return False
    own = any("__class__" in vars(base) for base in kind.__mro__[:-1]) or by_value.is_registered(kind)
    return not own and not copyreg._slotnames(kind)  # type: ignore[attr-defined]


def _has_hash(made: tuple[Callable[..., Any], tuple[Any, ...]], obj: Any) -> bool:
    """Whether what this call makes has the hash of an object."""
    if _defines(type(obj), "__del__"):
        return False
    try:
        return hash(made[0](*made[1])) == hash(obj)
    except Exception:  # Of the program's method.
        return False


def _state_of(obj: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the attributes of an object, and those in its slots."""
    state = object.__getstate__(obj)  # type: ignore[attr-defined]
    attributes, slots = state if type(state) is tuple else (state, None)
    return attributes or {}, slots or {}


def _values_in(attributes: dict[str, Any]) -> dict[str, Any]:
    """Returns the attributes that lead to no other objects that can change."""
    return {name: one for name, one in attributes.items() if _is_value(one)}


def _is_value(value: Any) -> bool:
    """Whether a value is an atom, a member of an enumeration, an object such as a date, or a tuple of these."""
    if codes.is_one_of(type(value), codes.ATOMS):
        return True
    kinds = FunctionType, property, classmethod, staticmethod, ModuleType, type
    parts = codes.parts_of_tuples(value)
    return not any(issubclass(type(one), kinds) or reach.has_identity(one) for one in parts)


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
        make = making.find_or_make, (*self.place, type(self.value))
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
        reduced = self._reduce(obj, kind)
        if (base := _container_of(kind)) is not None:
            # The items are those that the program has put there, by methods of the class that may change them.
            is_own = getattr(obj, "__dict__", None) is obj
            contents, options = _contents(base, obj)
            state = base, contents, options, making.Items if is_own else obj.__getstate__()
            return base.__new__, (kind,), state, None, None, making.fill_container
        if type(reduced) is tuple and reduced[0] is kind and (origin := _origin_of(kind)) is not None:
            return making.make_as, (kind, origin, reduced[1]), *reduced[2:]
        if reduced is NotImplemented:
            reduced = _reduce_plain(obj, kind)
        if reduced is NotImplemented and type(kind.__new__) is FunctionType and _has_state(kind):
            # The program has run the `__new__` of the class, and sends the effects.
            first: Any = next(one for one in kind.__mro__ if type(vars(one).get("__new__")) is BuiltinFunctionType)
            value = first.__getnewargs__(obj) if hasattr(first, "__getnewargs__") else ()
            return first.__new__, (kind, *value), *obj.__reduce_ex__(4)[2:]
        return reduced

    def _reduce(self, obj: Any, kind: Any) -> Any:
        place = None if self.copies_globals else elsewhere.place_of(obj)
        reduce = _OWN.get(kind)
        if reduce is not None:
            reduced = reduce(self, obj)
            if type(reduced) is not tuple or kind not in _RECREATED:
                return reduced
            if place is not None:
                return making.find_or_call, (*place, kind.__name__, *reduced)
            if kind is contextvars.ContextVar:
                return making.sentinel, (self.owner.sentinel(obj), *reduced)
            return (making.only_one, (serial(obj), *reduced)) if kind in _LOCKS else reduced
        if issubclass(kind, threading.local):
            # The worker's thread begins with what the thread that submits the task has.
            state = {name: value for name, value in vars(obj).items() if ByName.can_pickle(value)}
            arguments, keywords = _arguments_of(obj)
            make = partial(kind, *arguments, **keywords) if arguments or keywords else kind
            how = (make, ()) if place is None else (making.find_or_call, (*place, kind.__name__, make, ()))
            return *how, state or None, None, None, making.fill_new
        if hasattr(kind, "write") and (name := next((one for one in _STREAMS if getattr(sys, one) is obj), None)):
            return getattr, (sys, name.strip("_"))
        if place is not None and (reach.is_standard(place[0]) or kind in elsewhere.METHODS):
            return making.find_in, place
        if place is not None and _has_no_state(obj):
            return making.find_or_make, (*place, kind)
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented and any("__class__" in vars(one) for one in kind.__mro__[:-1]):
            # Pickle refuses an object that says to be of another class.
            made: Any = obj.__reduce_ex__(4)
            return (kind.__new__, *made[1:]) if made[0] is copyreg.__newobj__ else made  # type: ignore[attr-defined]
        if reduced is NotImplemented and self.left is not None and _is_restored(kind):
            made = making.make_plain, (kind, *map(_values_in, _state_of(obj)))
            # An object in a set or dictionary needs its hash at once.
            if type(kind.__hash__) is not FunctionType or _has_hash(made, obj):
                self.left.append(obj)
                return made
        return reduced

    def complete(self, obj: Any, reduced: Any) -> Any:
        """Adds what a type leaves out: the class of a logger, attributes of an exception, and those in the `__dict__`
        of a class that inherits from a type in C, such as `Decimal`."""
        kind: Any = type(obj)
        is_listed = kind.__reduce__ is logging.Logger.__reduce__ and obj.name in obj.manager.loggerDict
        if is_listed and not reach.is_of_library(kind):
            state: Any = {name: one for name, one in vars(obj).items() if name not in vars(logging.root)}
            state = {name: one for name, one in state.items() if ByName.can_pickle(one)}
            return making.find_logger, (obj.name, kind), state, None, None, making.fill_slots
        if issubclass(kind, BaseException) and kind.__setstate__ is BaseException.__setstate__:
            found = {name: getattr(obj, name) for name in ("__context__", "__cause__", "__suppress_context__")}
            state = reduced[2] if type(reduced) is tuple and len(reduced) == 3 else {}
            if any(found.values()) and type(state) is dict:
                found = {name: one for name, one in found.items() if ByName.can_pickle(one)}
                reduced = *reduced[:2], {**state, **found}
        if type(reduced) is not tuple or len(reduced) > 3:
            return reduced
        if not any(one is kind for one in (reduced[0], *reduced[1][:1])):
            return reduced
        if any(isinstance(way, FunctionType) for way in (kind.__reduce_ex__, kind.__reduce__)):
            return reduced
        state = reduced[2] if len(reduced) == 3 else None
        parts = state if type(state) is tuple else (state,)
        # Last: this gives an object without attributes an empty dictionary, which becomes part of its pickle.
        attributes: Any = not any(isinstance(part, dict) for part in parts) and getattr(obj, "__dict__", None)
        if not attributes or type(attributes) is not dict:
            return reduced
        return *reduced[:2], (state, dict(attributes)), None, None, making.fill_attributes

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
        if kind is FunctionType and by_value.is_singledispatch(obj):
            first, (registered, attributes) = by_value.parts_of_singledispatch(obj)
            return making.make_singledispatch, first, {making.REGISTERED: registered, **attributes}
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
                make, made = making.make_tracked, (making.track(obj), *made)
            return make, made, by_value.attributes_of_class(self, obj)
        make, made, state, _, _, fill = (*by_value.reduce_named(self, obj), None, None, None, None)[:6]
        return make, made, {} if state is None else {mirror.WHOLE: (fill or making.fill_new, state)}


class _Space:
    """Stands for globals that no module has: a definition."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.space = space


class Exact(Pickler):
    """Also refers to constants that programs compare by identity, and to objects at these places. Slow."""

    def __init__(self, places: dict[int, elsewhere.Place], *how: Any) -> None:
        super().__init__(*how)
        self._constants = {**_constants_elsewhere(), **places}

    def persistent_id(self, obj: Any) -> Any:
        return self._constants.get(id(obj))


def is_exact(data: bytes) -> bool:
    """Whether a pickle may contain such a constant."""
    return b"G\x7f\xf8\0\0\0\0\0\0" in data or b"==SUPPRESS==" in data
