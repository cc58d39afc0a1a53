"""The parts of the program's own modules that an executor has sent: `Definitions`; `Bundle`, which goes with tasks.

A *binding* is a global of such a module. A *definition* is a function, class or other object that is pickled by its
name; its *parts* are attributes. Each binding and each part has a version, which grows when the program has changed it
after sending it. A bundle has everything that a task needs, with versions. The worker sets the bindings and parts that
it does not have in this version; the others keep the state that tasks of the worker have given them.
"""

from __future__ import annotations

import contextvars
import copyreg
import gc
import itertools
import linecache
import logging
import marshal
import pickle
import struct
import sys
import threading
import time
import warnings
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from io import BytesIO
from operator import is_
from queue import SimpleQueue
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .._arenite import Snapshot, Watch
from .._errors import ArenaFull
from . import by_value, elsewhere, instances, links, locks, mirror, pickling
from .process import imported
from .weak import IdentityMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractContextManager

    from .._arenite import Buffer, Engine
    from . import inherit

    _P = TypeVar("_P", bound="_Pickler")

Key = tuple[str, str]

#: A bundle up to this length goes with each task. A longer bundle is in the arena.
_SHORT = 1024
#: The number of bundles that are stored.
_MOST_BUNDLES = 128

#: The seconds for which other threads wait at each further attempt to pickle definitions that they have changed
#: meanwhile.
_PAUSES = (0.01, 0.04, 0.16, 0.64, 2.56)

_ABSENT = object()
#: Types of generators of random numbers, and the modules for which a warning about them was given.
_GENERATORS = {("numpy.random._generator", "Generator"), ("numpy.random.mtrand", "RandomState"), ("random", "Random")}
_warned: set[str] = set()
_IMPORTING = (
    "this process was started by multiprocessing and is importing the main file, which submits a task: put that below "
    'if __name__ == "__main__":'
)


class _Weak(weakref.ref[Any]):
    """A reference of a part to its object. Globals may be references, too."""

    __slots__ = ()


class _Functions(tuple[Any, ...]):
    """Identifies a function or a method, and keeps no function alive: it may refer to the class that has it."""

    __slots__ = ()


def _identity(value: Any) -> Any:
    """Returns what identifies a value that is compared by identity."""
    kind = type(value)
    if kind is FunctionType:
        return _Functions((weakref.ref(value),))
    held = by_value.DESCRIPTORS[kind](value) if kind in by_value.DESCRIPTORS else None
    if held is None:
        return value
    return _Functions((kind, *(weakref.ref(one) if type(one) is FunctionType else one for one in held)))


def _is_same(value: Any, other: Any) -> bool:
    """Whether two values that are compared by identity are the same, or equal. Equal numbers may be of different types,
    or differ in their sign."""
    kind = type(value)
    if value is other:
        return True
    if kind is not type(other):
        return False
    if issubclass(kind, tuple):
        # A function has one weak reference without a callback, as long as it exists.
        return len(value) == len(other) and all(map(_is_same, value, other))
    return by_value.is_atom(value) and by_value.is_atom(other) and _encoded(value) == _encoded(other)


def _encoded(value: Any) -> bytes:
    try:
        return marshal.dumps(value, 2)
    except ValueError:  # A range.
        return pickle.dumps(value, 5)


class _Part:
    """A binding, or an attribute of a definition, as it was last sent."""

    __slots__ = ("number", "name", "version", "value", "print", "objects", "shared", "items", "place")

    def __init__(self, number: int, name: str = "") -> None:
        self.number = number
        #: The name of a binding.
        self.name = name
        self.version = 0
        #: The object that was sent, or its identity; if it may change, a weak reference to it, so that the program can
        #: free its memory.
        self.value: Any = _ABSENT
        #: For a binding to such an object: the globals, and the name in them.
        self.place: tuple[dict[str, Any], str] | None = None
        #: What `_print` made of the object that was sent, if it may change without becoming another object.
        self.print: tuple[bytes, list[int]] | None = None
        #: The objects in it that globals have, each with its number in the pickle and its identity.
        self.objects: list[tuple[int, int]] = []
        #: Those that several globals have: the number of each, and the names of these globals.
        self.shared: list[tuple[int, frozenset[str]]] = []
        #: The items of the object that was sent, if it is a plain container.
        self.items: Snapshot | instances.Snapshot | None = None

    def has_changed(self, owner: Definitions) -> bool:
        """Whether the object was replaced, or has other contents than when it was sent."""
        if self.items is not None and self.items.is_current():
            return False
        value = self.value() if type(self.value) is _Weak else self.value
        if self.place is not None and self.place[0].get(self.place[1], _ABSENT) is not value:
            return True
        try:
            # Equal objects may be others, or shared with others.
            return _print(value, owner) != (self.print, self.objects)
        except ArenaFull:
            raise  # The caller waits for room.
        except (Exception, _Raced):
            # It cannot be pickled as it is now: `Definitions.bundle` finds the reason, if the task needs it at all.
            return True

    def refer(self, value: Any) -> None:
        """Starts another version if the value is another object."""
        value = _identity(value)
        self.version += not _is_same(value, self.value)
        self.value, self.print, self.items = value, None, None
        self.objects, self.shared = [], []

    def update(self, value: Any, owner: Definitions) -> None:
        """Starts another version if the value is not the one that was sent."""
        if _is_fixed(value):
            self.refer(value)
            return
        made, objects = _print(value, owner)
        found = ((number, owner.shared.get(key)) for number, key in objects)
        shared = [(number, names) for number, names in found if names and names != {self.name}]
        is_same = (made, shared) == (self.print, self.shared) and type(self.value) is not _Late
        self.version += not is_same
        self.value, self.print, self.objects, self.shared = value, made, objects, shared
        with suppress(TypeError):
            self.value = _Weak(value, owner.forgetting(self))
        if type(value) in (list, dict):
            self.items = Snapshot.of(value) or instances.snapshot(value)
        else:
            self.items = None


class _Late(NamedTuple):
    """The value of an attribute that is a global or contains globals, and the versions of these globals."""

    value: Any
    versions: list[int | None]


class _Definition:
    """A function or class that was sent."""

    __slots__ = ("object", "number", "parts", "shared")

    def __init__(self, obj: Any, number: int, forget: Callable[[Any], None]) -> None:
        try:
            self.object: Any = weakref.ref(obj, forget)
        except TypeError:
            self.object = lambda: obj
        self.number = number
        self.parts: dict[str, _Part] = {}
        #: The objects that several parts have, for each part: the number of each in the pickle, and the names of these
        #: parts.
        self.shared: dict[str, list[tuple[int, frozenset[str]]]] = {}


class Bundle:
    """The definitions that a task needs."""

    __slots__ = ("_prefix", "_buffers", "_owner", "_parts", "_watch")

    def __init__(self, prefix: bytes, buffers: list[Buffer], watched: _Watched, owner: Definitions) -> None:
        #: Empty if the task needs no definitions.
        self._prefix = prefix
        self._buffers = buffers
        self._watch = watched.watch()
        #: The parts whose objects may have changed their contents, with the versions that this bundle has.
        self._parts = [(part, part.version) for part in watched.parts]
        # A weak reference: a cycle would keep the workers of a dropped executor.
        self._owner = weakref.ref(owner)

    def is_current(self) -> bool:
        """Whether the program has changed no part of the bundle since it was made."""
        owner = self._owner()
        if owner is None or not self._watch.is_current():
            return False
        # Another bundle may have sent a later version of a part.
        for part, version in self._parts:
            if part.version != version or part.has_changed(owner):
                return False
        return True

    def numbers(self) -> set[int]:
        """Returns the numbers of the parts whose objects may have changed their contents."""
        return {part.number for part, _ in self._parts}

    def holds(self, part: _Part) -> bool:
        return any(one is part for one, _ in self._parts)

    def before(self, head: bytes, kind: int, buffers: list[Buffer]) -> tuple[bytes, int, list[Buffer]]:
        """Adds the bundle before the head and the buffers of a task."""
        if not self._prefix:
            return head, kind, buffers
        return self._prefix + head, kind | pickling.DEFINITIONS, [*self._buffers, *buffers]


class _Watched:
    """The objects that must be unchanged for a bundle to be current."""

    def __init__(self) -> None:
        self._items: list[tuple[dict[Any, Any], Any, Any]] = []
        self._absent: list[tuple[dict[Any, Any], Any]] = []
        self._attributes: list[tuple[Any, str, Any]] = []
        self._mappings: list[tuple[Any, list[Any], list[Any]]] = []
        self._names: list[tuple[dict[Any, Any], list[Any]]] = []
        #: The parts whose objects may have changed their contents.
        self.parts: list[_Part] = []

    def watch(self) -> Watch:
        return Watch(self._items, self._absent, self._attributes, self._mappings, self._names)

    def add_global(self, space: dict[str, Any], name: str, value: Any, part: _Part | None) -> None:
        """`value`: what the bundle has. The global may have another value by now."""
        if part is not None and type(part.value) is _Weak:
            part.place = space, name
        elif value is not _ABSENT:
            self._items.append((space, name, value))
        else:
            self._absent.append((space, name))

    def add_definition(self, obj: Any) -> None:
        if isinstance(obj, FunctionType):
            for name in (*_OF_FUNCTION, *_OF_NEW_FUNCTION):
                with suppress(Exception):  # From Python 3.14 on, reading annotations may raise.
                    self._attributes.append((obj, name, getattr(obj, name)))
            self._attributes += ((cell, "cell_contents", content) for cell, content in by_value.contents(obj))
            for name in by_value.own_names(obj):
                self.add_global(obj.__globals__, name, obj.__globals__.get(name, _ABSENT), None)
            if obj.__kwdefaults__:
                self.add_mapping(obj.__kwdefaults__)
            self.add_mapping(obj.__dict__)
            if by_value.is_singledispatch(obj):
                self.add_mapping(obj.registry)  # type: ignore[attr-defined]
        elif isinstance(obj, type):
            self._attributes += ((obj, name, getattr(obj, name)) for name in _OF_NEW_CLASS)
            self.add_mapping(vars(obj))
            for name in ("__annotations__", "__annotations_cache__"):
                if type(annotations := vars(obj).get(name)) is dict:
                    self.add_mapping(annotations)
            reducers: dict[Any, Any] = copyreg.dispatch_table
            if by_value.is_registered(obj):
                self._items.append((reducers, obj, reducers[obj]))
            elif type(obj).__hash__ is not None:
                self._absent.append((reducers, obj))

    def add_mapping(self, mapping: Any) -> None:
        self._mappings.append((mapping, list(mapping.keys()), list(mapping.values())))

    def add_names(self, space: dict[str, Any]) -> None:
        self._names.append((space, list(space)))

    def add_part(self, part: _Part) -> None:
        if part.print is not None:
            self.parts.append(part)

    def add_module(self, module: ModuleType) -> None:
        if not pickling.is_standard(module.__name__):
            self._attributes.append((module, "__spec__", module.__spec__))


#: Attributes of functions that are compared, in addition to those that users set.
_OF_FUNCTION = ("__code__", "__defaults__", "__kwdefaults__")
#: Attributes that a function or class has when a worker makes it. They are sent again if they change.
_OF_NEW_FUNCTION = ("__name__", "__doc__", "__annotations__")
_OF_NEW_CLASS = ("__name__", "__bases__")


def _is_fixed(value: Any) -> bool:
    """Whether a value is compared by identity: it cannot change, or the worker keeps its tasks' changes of it."""
    return all(map(_is_part_fixed, by_value.parts_of_tuples(value)))


def _is_part_fixed(value: Any) -> bool:
    # Not `isinstance`, for which a lazy object makes its value.
    kind = type(value)
    if by_value.is_one_of(kind, by_value.ATOMS) or by_value.is_one_of(kind, _BY_IDENTITY) or issubclass(kind, type):
        return True
    if kind is FunctionType:
        # What a function without a name holds is no part of a definition.
        is_named = pickling.is_reachable(value, value.__module__, value.__qualname__)
        return is_named or not (value.__closure__ or value.__dict__ or by_value.own_names(value))
    if _find_shared()(value):
        return True
    # Properties and the like, but neither the program's descriptors nor callables with arguments that may change.
    return hasattr(kind, "__get__") and not issubclass(kind, (MethodType, partial)) and pickling.is_of_library(kind)


def _is_data(value: Any) -> bool:
    """Whether a value is a container of data, functions and classes, or an object of a class of the program."""
    kind = type(value)
    if not by_value.is_one_of(kind, _CONTAINERS) and not by_value.is_one_of(kind, elsewhere.CONTAINERS):
        return kind is SimpleNamespace or not pickling.is_of_library(kind)
    items = (*value, *value.values()) if issubclass(kind, dict) else value
    return Snapshot.of(value) is not None or all(map(_is_fixed, items))


def _find_shared() -> Callable[[Any], bool]:
    """Returns a function that finds objects of `multiprocessing` that workers share with the program."""
    if imported("multiprocessing.reduction") is None:
        return lambda _: False
    from . import inherit

    return inherit.is_shared


def _has_state(kind: type) -> bool:
    """Whether pickle makes an instance with `__new__` and gives it its state."""
    reducers: tuple[Any, Any] = kind.__reduce_ex__, kind.__reduce__
    return reducers == (object.__reduce_ex__, object.__reduce__) and not issubclass(kind, type)


#: Containers whose classes may override what pickle calls to make them.
_BASES: tuple[type, ...] = (OrderedDict, defaultdict, Counter, dict, list, set, deque)
_ADDING = ("__new__", "__init__", "__setitem__", "append", "extend")


def _container_of(kind: type) -> Any:
    """Returns the type of containers from which a class inherits, if the class overrides how items are added; None for
    other classes, and if the class says how it is pickled."""
    if not issubclass(kind, _BASES) or kind in _BASES or pickling.is_of_library(kind):
        return None
    base: Any = next(base for base in _BASES if issubclass(kind, base))
    ways: tuple[Any, Any] = kind.__reduce_ex__, kind.__reduce__
    if ways != (base.__reduce_ex__, base.__reduce__):
        return None
    return base if any(getattr(kind, name, None) is not getattr(base, name, None) for name in _ADDING) else None


def _constants_elsewhere() -> dict[int, tuple[str, str, bool]]:
    """Returns the constants that programs compare by identity, and that are no objects for pickle: the module and the
    name by the identity."""
    names = ("argparse", "SUPPRESS"), ("math", "nan"), ("numpy", "nan")
    found = ((getattr(imported(home), name, None), home, name) for home, name in names)
    return {id(value): (home, name, True) for value, home, name in found if value is not None}


def _origin_of(kind: Any) -> Any:
    """Returns the type of a library from which a class of the program inherits, if pickle calls the class with what
    this type takes, and the class may take something else. Returns None for other classes."""
    base: Any = next(one for one in kind.__mro__ if pickling.is_of_library(one))
    if base is kind or type(kind).__call__ is not type.__call__ or by_value.is_registered(kind):
        return None
    if any(getattr(kind, name) is not getattr(base, name) for name in ("__reduce_ex__", "__reduce__")):
        return None
    return base if any(getattr(kind, name) is not getattr(base, name) for name in ("__new__", "__init__")) else None


def _contents(base: Any, container: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the items of a container, and its other parts by name."""
    if issubclass(base, dict):
        options = {"default_factory": container.default_factory} if base is defaultdict else {}
        items = OrderedDict.items(container) if base is OrderedDict else dict.items(container)
        return dict(items), options
    return list(base.__iter__(container)), {"maxlen": container.maxlen} if base is deque else {}


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
    return mirror.make_plain, (kind, *first), state, None, None, mirror.fill_plain


def _is_restored(kind: Any) -> bool:
    """Whether an instance of a class of the program is restored from its attributes alone."""
    has_own = kind.__getstate__ is not object.__getstate__ or _defines(kind, "__setstate__")
    return _is_plain(kind) and not has_own and not pickling.is_of_library(kind)


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
    if by_value.is_one_of(type(value), by_value.ATOMS):
        return True
    kinds = FunctionType, property, classmethod, staticmethod, ModuleType, type
    parts = by_value.parts_of_tuples(value)
    return not any(issubclass(type(one), kinds) or pickling.has_identity(one) for one in parts)


def _empty(value: Any) -> Callable[[], Any] | None:
    """Returns the type of a container, which makes an empty one; None for other values."""
    return type(value) if type(value) in _CONTAINERS else None


def _print(value: Any, owner: Definitions) -> tuple[tuple[bytes, list[int]], list[tuple[int, int]]]:
    """Returns a pickle and the identities of what names in it lead to, which are equal as long as the value is; and the
    objects in it that globals have: the number of each in the pickle, and its identity."""
    printer = _pickled(lambda: _Printer(owner), value)
    memo = printer.memo.copy()
    objects = sorted((memo[key][0], key) for key in memo.keys() & owner.objects)
    return (printer.file.getvalue(), printer.named), objects


# ---- picklers


class _Raced(BaseException):
    """Another thread has changed a container while it was pickled. Not an `Exception`: the container can be sent, at
    the next attempt."""


_serials = IdentityMap()
_next_serial = itertools.count(1)


def _serial(obj: Any) -> int:
    number: int | None = _serials.get(obj)
    if number is None:
        number = _serials[obj] = next(_next_serial)
    return number


def _reduce_context_variable(_: Any, variable: contextvars.ContextVar[Any]) -> Any:
    try:
        default: tuple[Any, ...] = (contextvars.Context().run(variable.get),)
    except LookupError:
        default = ()
    return mirror.make_context_variable, (variable.name, default)


#: How loggers are pickled: by name.
_REDUCE_LOGGER = logging.Logger.__reduce__
#: Objects that each worker creates for itself, as if it had run the program's main file.
_RECREATED: dict[type, Callable[[Any, Any], Any]] = {
    type(threading.Lock()): lambda *_: (threading.Lock, ()),
    type(threading.RLock()): lambda *_: (threading.RLock, ()),
    SimpleQueue: lambda _, obj: (SimpleQueue, ()) if obj.empty() else NotImplemented,
    contextvars.ContextVar: _reduce_context_variable,
    struct.Struct: lambda _, obj: (struct.Struct, (obj.format,)),
    # A sentinel: the worker has one object for all references to it.
    object: lambda pickler, obj: (mirror.sentinel, (pickler.owner.sentinel(obj),)),
}
#: Those of which a worker has one object, in whatever globals and tasks it gets them.
_LOCKS = {type(threading.Lock()), type(threading.RLock()), SimpleQueue}
_BY_IDENTITY = {ModuleType, threading.local, *_RECREATED}


def _reduce_weak_container(_: Any, obj: Any) -> Any:
    items = list(obj) if isinstance(obj, weakref.WeakSet) else dict(obj.items())
    return type(obj), (items,), {"_referents": items}


def _reduce_proxy(_: Any, proxy: Any) -> Any:
    try:
        # A method of a proxy is one of its referent.
        referent = proxy.__reduce_ex__.__self__
    except ReferenceError:
        referent = None
    return mirror.make_reference, (weakref.proxy, referent, id(proxy))


#: Objects with weak references to others. The program keeps these, and the worker keeps its copies of them.
_REFERRING: dict[type, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(
        (weakref.ReferenceType, weakref.WeakMethod),
        lambda _, obj: (mirror.make_reference, (type(obj), obj(), id(obj))),
    ),
    **dict.fromkeys((weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary), _reduce_weak_container),
    **dict.fromkeys((weakref.ProxyType, weakref.CallableProxyType), _reduce_proxy),
}
#: Reducers of definitions.
_OWN = {**_RECREATED, **_REFERRING}
_CONTAINERS = {list, dict, set, bytearray}


#: Names of a module that its tasks get although they begin with two underscores.
_SENT = ("__file__", "__getattr__")

#: Attributes of `sys` that refer to the streams of each process.
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def _arguments_of(local: threading.local) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments with which each thread calls the `__init__` of a `threading.local`. It has no attributes
    for them."""
    held = gc.get_referents(local)
    arguments = next((one for one in held if type(one) is tuple), ())
    keywords = (one for one in held if type(one) is dict and {str}.issuperset(map(type, one)))
    return arguments, next(keywords, {})


class _Pickler(pickling.Pickler):
    """The base of all picklers of definitions."""

    owner: Definitions
    #: The plain objects whose attributes are pickled after the value: so the pickler does not recurse from object to
    #: object. None if it does, which is faster.
    left: list[Any] | None = None

    def dump(self, value: Any) -> None:
        #: The streams of this process by their identity, with the names that they have in `sys`.
        self._streams = {id(getattr(sys, name)): name.strip("_") for name in _STREAMS}
        try:
            super().dump(value)
            while self.left:
                left, self.left = self.left, []
                super().dump(self.record_of([_Filled(one) for one in left]))
        except RuntimeError as error:
            if "during iteration" not in str(error):
                raise
            raise _Raced from error

    def record_of(self, filled: list[_Filled]) -> Any:
        return filled

    def reducer_override(self, obj: Any) -> Any:
        kind: Any = type(obj)
        reduce = _OWN.get(kind)
        place = None if self.owner.copies_globals else elsewhere.place_of(obj)
        if reduce is not None:
            reduced = reduce(self, obj)
            if type(reduced) is not tuple or kind not in _RECREATED:
                return reduced
            if place is not None:
                return mirror.find_or_call, (*place, kind.__name__, *reduced)
            if kind is contextvars.ContextVar:
                return mirror.sentinel, (self.owner.sentinel(obj), *reduced)
            return (mirror.only_one, (_serial(obj), *reduced)) if kind in _LOCKS else reduced
        if issubclass(kind, threading.local):
            # The worker's thread begins with what the thread that submits the task has.
            state = {name: value for name, value in vars(obj).items() if by_value.can_pickle(value)}
            arguments, keywords = _arguments_of(obj)
            make = partial(kind, *arguments, **keywords) if arguments or keywords else kind
            if place is not None:
                found = *place, kind.__name__, make, ()
                return mirror.find_or_call, found, state or None, None, None, mirror.fill_new
            return make, (), state or None, None, None, mirror.fill_new
        if id(obj) in self._streams:
            return getattr, (sys, self._streams[id(obj)])
        if place is not None and (pickling.is_standard(place[0]) or kind in elsewhere.METHODS):
            return mirror.find_in, place
        if place is not None and _has_no_state(obj):
            return mirror.find_or_make, (*place, kind)
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented and any("__class__" in vars(one) for one in kind.__mro__[:-1]):
            # Pickle refuses an object that says to be of another class.
            made: Any = obj.__reduce_ex__(4)
            return (kind.__new__, *made[1:]) if made[0] is copyreg.__newobj__ else made  # type: ignore[attr-defined]
        if reduced is NotImplemented and self.left is not None and _is_restored(kind):
            made = mirror.make_plain, (kind, *map(_values_in, _state_of(obj)))
            # An object in a set or dictionary needs its hash at once.
            if type(kind.__hash__) is not FunctionType or _has_hash(made, obj):
                self.left.append(obj)
                return made
        return reduced

    def complete(self, obj: Any, reduced: Any) -> Any:
        """Adds the attributes of an exception that its type leaves out, and the class of a logger."""
        kind: Any = type(obj)
        is_listed = kind.__reduce__ is _REDUCE_LOGGER and obj.name in obj.manager.loggerDict
        if is_listed and not pickling.is_of_library(kind):
            state = {name: one for name, one in vars(obj).items() if name not in vars(logging.root)}
            state = {name: one for name, one in state.items() if by_value.can_pickle(one)}
            return mirror.find_logger, (obj.name, kind), state, None, None, mirror.fill_slots
        if not issubclass(kind, BaseException) or kind.__setstate__ is not BaseException.__setstate__:
            return reduced
        found = {name: getattr(obj, name) for name in ("__context__", "__cause__", "__suppress_context__")}
        state = reduced[2] if type(reduced) is tuple and len(reduced) == 3 else {}
        if not any(found.values()) or type(state) is not dict:
            return reduced
        return *reduced[:2], {**state, **{name: one for name, one in found.items() if by_value.can_pickle(one)}}


def _pickled(make: Callable[[], _P], value: Any) -> _P:
    """Pickles a value. Returns the pickler."""
    try:
        pickler = make()
        pickler.dump(value)
    except RecursionError:
        pickler = make()
        pickler.left = []
        pickler.dump(value)
    return pickler


class _Filled:
    """Gives a plain object its attributes when it is unpickled."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return mirror.fill_plain, (self.made, _state_of(self.made))


class _Imported:
    """An object of a module that workers import: they get its contents in the object of their own module."""

    def __init__(self, value: Any, place: elsewhere.Place, part: _Part, is_sent: bool) -> None:
        self.value, self.place, self.part, self.is_sent = value, place, part, is_sent

    def __reduce__(self) -> tuple[Any, ...]:
        make = mirror.find_or_make, (*self.place, type(self.value))
        if not self.is_sent:
            return make
        contents: Any
        if type(self.value) not in elsewhere.CONTAINERS:
            contents = self.value.__reduce_ex__(4)[2]
        else:
            contents = dict(self.value) if isinstance(self.value, dict) else list(self.value)
        return *make, (self.part.number, self.part.version, contents), None, None, mirror.refill


def _has_contents(value: Any) -> bool:
    """Whether workers need the contents of an object of a module. Those of objects of Python belong to a process, and
    objects of libraries are pickled as they want."""
    kind = type(value)
    return kind in elsewhere.CONTAINERS or (_is_plain(kind) and not pickling.is_of_library(kind))


class _Printer(_Pickler):
    def __init__(self, owner: Definitions) -> None:
        self.file = BytesIO()
        super().__init__(self.file, _Prints(owner))
        self.owner = owner
        #: The types of the objects pickled.
        self.kinds: set[type] = set()
        #: The identities of the objects to which names in the pickle lead, and of modules that were loaded again: the
        #: program may define other objects with these names.
        self.named: list[int] = []
        self._is_shared = _find_shared()

    def reducer_override(self, obj: Any) -> Any:
        self.kinds.add(type(obj))
        if self._is_shared(obj):
            return mirror.sentinel, (self.owner.sentinel(obj),)
        return super().reducer_override(obj)

    def by_name(self, obj: Any, module: str, name: str) -> Any:
        if not pickling.is_importable(module) and type(obj).__weakrefoffset__:
            self.named.append(_serial(obj))
        return super().by_name(obj, module, name)

    def note_module(self, name: str) -> None:
        super().note_module(name)
        spec = _spec_of(name) if ("", name) in self.names else None
        if spec is not None:
            self.named.append(_serial(spec))

    def without_name(self, obj: Any, reduce: Callable[[pickling.Pickler, Any], Any]) -> Any:
        if not type(obj).__weakrefoffset__:
            # An alias of a type.
            return reduce(self, obj)
        # The pickle of a code object is not reproducible.
        made = _serial, (_serial(obj),)
        if type(obj) is not FunctionType:
            return made
        own = [obj.__globals__.get(name, _ABSENT) for name in by_value.own_names(obj)]
        return *made, ([content for _, content in by_value.contents(obj)], vars(obj), own)


class _Finder(_Printer):
    """Finds the globals that a global contains."""

    def __init__(self, shared: dict[int, Key], key: Key, owner: Definitions) -> None:
        super().__init__(owner)
        self._shared = shared
        self._key = key
        self.found: set[Key] = set()

    def persistent_id(self, obj: Any) -> Any:
        key = self._shared.get(id(obj))
        if key is not None and key != self._key:
            self.found.add(key)
        return None


class _Prints(pickling.Beside):
    """Replaces each large array by the identity of an equal copy in the arena."""

    def __init__(self, owner: Definitions) -> None:
        super().__init__(None, False)
        self._owner = owner

    def reduce_array(self, array: Any) -> Any:
        if array.nbytes < pickling.OUT_OF_BAND or array.dtype.hasobject:
            return NotImplemented
        copy = self._owner.copy_of(array)
        return NotImplemented if copy is None else (_serial, (copy.serial, array.flags.writeable))


class _Copies(pickling.Arguments):
    """Puts large arrays into the arena. An array that has not changed is not copied again."""

    #: The limit of copies: workers keep the arrays in globals, and the engine has an entry for each.
    most = 4000

    def __init__(self, owner: Definitions) -> None:
        super().__init__(owner.engine, False)
        self._owner = owner

    def reduce_array(self, array: Any) -> Any:
        if array.nbytes < pickling.OUT_OF_BAND or array.dtype.hasobject or self._is_full(array.nbytes):
            return super().reduce_array(array)
        copy = self._owner.copy_of(array)
        return super().reduce_array(array) if copy is None else copy.reduced


class _Copy:
    """A copy of an array in the arena."""

    __slots__ = ("array", "reduced", "serial", "source")

    def __init__(self, source: weakref.ref[Any], reduced: Any) -> None:
        self.source = source
        self.reduced = reduced
        self.array = pickling.restore_view(*reduced[1])
        self.serial = next(_next_serial)

    def is_of(self, array: Any) -> bool:
        """Whether this is a copy of `array`, with the contents that the array has now."""
        return self.source() is array and pickling.is_same(array, self.array)


class _Definer(_Pickler):
    """Pickles definitions, each of them where a record first refers to it."""

    def __init__(self, file: BytesIO, beside: pickling.Beside, owner: Definitions, is_deep: bool) -> None:
        super().__init__(file, beside)
        self.left = [] if is_deep else None
        self.copies_globals = owner.copies_globals
        self.owner = owner
        self.versions: dict[int, int] = {}
        self.watched = _Watched()
        self.sources: set[str] = set()
        self._of_modules = _constants_elsewhere()
        #: The number of records pickled.
        self.count = 0
        #: The globals that cannot be pickled, each with the reason.
        self.unsent: dict[Key, Exception] = {}
        #: The parts that may have changed; None if all may have.
        self.changed: set[int] | None = None
        #: The names that the function itself refers to. If one cannot be sent, submitting fails. For other names, only
        #: their use fails.
        self._needed: set[Key] = set()
        #: Names that the task may not need. One that cannot be sent is left out.
        self._optional: set[Key] = set()
        self._done: set[Key] = set()
        #: Globals that may change, each with the other such globals that it contains.
        self._objects: dict[Key, set[Key]] = {}
        #: The keys of these globals by the identity of their objects, for each module.
        self._shared: dict[str, dict[int, Key]] = {}
        #: These objects. Otherwise another object could get the identity of one that another thread removes.
        self._held: list[Any] = []
        self._links: dict[str, links.Links] = {}
        #: Globals that were linked with those that share objects with them.
        self._grouped: set[Key] = set()
        #: Globals for which `_is_sendable` is being computed.
        self._tried: set[Key] = set()
        self._bound: set[Key] = set()
        self._key: Key | None = None
        #: Attributes of definitions that are globals or contain globals. They are pickled after these globals are
        #: bound.
        self._late: list[tuple[Any, _Part | None, str, Any, list[Key]]] = []
        #: Attributes of classes that contain instances of the class. They are pickled last, because making an instance
        #: may use all other attributes.
        self._last: list[tuple[type, int, int, str, Any]] = []

    def define(self, roots: frozenset[Key]) -> None:
        """Pickles records of these names, and of everything that they refer to."""
        self.names |= roots
        self._needed |= roots
        # Objects come last: creating them in the worker may use everything that they refer to.
        while left := _as_defined(self.names - self._done - self._objects.keys()) or _in_order(
            self._objects, self._done
        ) or self._linked():
            for home, name in left:
                if home and name != "*" and self._is_for_later((home, name)):
                    continue
                self._done.add((home, name))
                if not home:
                    self.owner.reload(self, name)
                elif name[:1] in ("*", pickling.OPTIONAL):
                    found = {(home, name[1:])}
                    if name == "*":
                        self.watched.add_names(_space(home))
                        found = {(home, one) for one in list(_space(home)) if one in _SENT or not one.startswith("__")}
                        found |= self.owner.bound_in(home)
                    self._optional |= found - self.names
                    self.names |= found
                else:
                    self._define_global((home, name), roots)
        self._define_late()
        for name in self.sources:
            known = linecache.cache.get(name)
            # The definition is from a notebook cell: no file contains it.
            if known is not None and len(known) == 4 and known[1] is None:
                self.write((0, 0, False, None, name, list(known[2])))

    def _linked(self) -> list[Key]:
        """Adds the globals that share objects with those defined so far."""
        found = {one for key in self._done for one in self.owner.group_of(key)} - self.names
        self._optional |= found
        self.names |= found
        return _as_defined(found)

    def _links_in(self, home: str) -> links.Links:
        if home not in self._links:
            self._links[home] = self.owner.links_in(home, self.names, self.changed)
        return self._links[home]

    def _is_sendable(self, key: Key) -> bool:
        """Whether a global can be sent."""
        if key in self._tried:
            # The global contains itself.
            return True
        self._tried.add(key)
        # A separate pickler: an exception would spoil the pickle of the others.
        trial = _Definer(BytesIO(), _Copies(self.owner), self.owner, self.left is not None)
        trial._tried, trial._shared, trial._links = self._tried, self._shared, self._links
        trial._held = self._held
        try:
            self.owner.bind(trial, key, _space(key[0]).get(key[1], _ABSENT))
        except Exception as error:
            if type(error) is RecursionError and self.left is None:
                raise
            return False
        finally:
            self._tried.discard(key)
        return True

    def _is_for_later(self, key: Key) -> bool:
        """Whether a global is an object that is pickled later. Adds the names that it refers to."""
        home, name = key
        value = _space(home).get(name)
        if key in self._objects or _is_fixed(value):
            return False
        self._objects[key] = set()
        try:
            finder = _pickled(lambda: _Finder(self.shared_in(home), key, self.owner), value)
            self._objects[key] = finder.found
            self.names |= finder.names | finder.found
        except Exception as error:
            if key not in self._needed:
                self.unsent[key] = error
        return True

    def _define_global(self, key: Key, roots: frozenset[Key]) -> None:
        home, name = key
        before, owner = self.names.copy(), self.owner
        # Read once: another thread may set the global meanwhile.
        value = _space(home).get(name, _ABSENT)
        if (type(value).__module__, type(value).__name__) in _GENERATORS:
            _warn_of_generator(home, name)
        if type(value) is not str:
            # An alias of a type may refer to classes by text.
            self.may_refer(home, by_value.names_in(value))
        if key not in self._grouped:
            group = {(home, one) for one in self._links_in(home).groups.get(name, {name})}
            owner.link(group)
            self._grouped |= group
        if key not in self._optional or self._is_sendable(key):
            owner.bind(self, key, value)
        if key in self._optional:
            self._optional |= self.names - before
        elif key in roots and type(value) is FunctionType:
            self._needed |= self.names - before
        self.watched.add_global(_space(home), name, value, owner.part_of(key))

    def _delay_defaults(self, function: FunctionType, state: dict[str, Any]) -> None:
        """Removes those defaults from the state of a function that are globals: they are sent later."""
        if not function.__module__ or pickling.is_importable(function.__module__):
            return
        for name in ("__defaults__", "__kwdefaults__"):
            keys = self._globals_in(function, name, state.get(name))
            if keys and all(map(self._is_sendable, keys)):
                self.names.update(keys)
                self._late.append((function, None, name, state.pop(name), keys))

    def _define_late(self) -> None:
        """Pickles attributes that are globals too, so that they refer to the globals of the worker."""
        for obj, part, name, value, keys in self._late:
            number, version = None, 0
            if part is not None:
                held = [self.owner.part_of(key) for key in keys]
                known = _Late(value, [None if one is None else one.version for one in held])
                before = part.value
                if type(before) is not _Late or before.value is not value or before.versions != known.versions:
                    part.value, part.version = known, part.version + 1
                number, version = part.number, part.version
                self.versions[number] = version
            self._key = obj.__module__, ""
            self.write((0, 0, False, None, "", (obj, [(number, version, name, value)])))
        for cls, number, version, name, value in self._last:
            self._key = cls.__module__, ""
            self.write((0, 0, False, None, "", (cls, [(number, version, name, value)])))

    def _has_instances(self, cls: type, value: Any) -> bool:
        """Whether the value of an attribute contains instances of the class that has the attribute."""
        if _is_fixed(value):
            return False
        printer = _Printer(self.owner)
        with suppress(Exception):
            printer.dump(value)
        return any(cls in kind.__mro__ for kind in printer.kinds)

    def _globals_in(self, obj: Any, name: str, value: Any) -> list[Key]:
        """Returns the globals that an attribute is or, for a function, that its defaults are or contain."""
        shared = self.shared_in(obj.__module__)
        if name not in ("__defaults__", "__kwdefaults__"):
            return [shared[id(value)]] if id(value) in shared else []
        if not value:
            return []
        finder = _Finder(shared, ("", ""), self.owner)
        for one in value.values() if isinstance(value, dict) else value:
            if id(one) in shared:
                finder.found.add(shared[id(one)])
            elif type(one) in (list, dict, tuple, set, frozenset):
                with suppress(Exception):
                    finder.dump(one)
        return sorted(finder.found)

    def write(self, record: tuple[Any, ...]) -> None:
        self.dump(record)
        self.count += 1

    def record_of(self, filled: list[_Filled]) -> Any:
        self.count += 1
        return 0, 0, False, None, "", (filled, [])

    def shared_in(self, home: str) -> dict[int, Key]:
        """Returns the globals of a module that may change, by the identity of their objects."""
        if home not in self._shared:
            found = [(value, name) for name, value in list(_space(home).items()) if not _is_fixed(value)]
            self._held.append(found)
            self._shared[home] = {id(value): (home, name) for value, name in found if not name.startswith("__")}
        return self._shared[home]

    def bind(self, key: Key, record: tuple[Any, ...]) -> None:
        """Pickles a global. Other globals that it contains refer to the globals of the worker."""
        self._key = key
        self.write(record)
        self._bound.add(key)

    def persistent_id(self, obj: Any) -> Any:
        key = self._key and self.shared_in(self._key[0]).get(id(obj))
        return key if key in self._bound and key != self._key else self._of_modules.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is MethodType and elsewhere.place_of(obj) is None:
            # A class under construction has no attributes, so its methods cannot be found by name.
            return MethodType, (obj.__func__, obj.__self__)
        if pickling.is_array(obj):
            return self._array(obj)
        reduced, kind = super().reducer_override(obj), type(obj)
        base = _container_of(kind)
        if base is not None:
            # The items are those that the program has put there, by methods of the class that may change them.
            attributes = mirror.Items if links.attribute(obj, "__dict__") is obj else obj.__getstate__()
            contents, options = _contents(base, obj)
            state = base, contents, options, attributes
            return base.__new__, (kind,), state, None, None, mirror.fill_container
        if type(reduced) is tuple and reduced[0] is kind and (origin := _origin_of(kind)) is not None:
            return mirror.make_as, (kind, origin, reduced[1]), *reduced[2:]
        if reduced is NotImplemented:
            reduced = _reduce_plain(obj, kind)
        if reduced is NotImplemented and type(kind.__new__) is FunctionType and _has_state(kind):
            # The program has run the `__new__` of the class, and sends the effects.
            first: Any = next(one for one in kind.__mro__ if type(vars(one).get("__new__")) is BuiltinFunctionType)
            value = first.__getnewargs__(obj) if hasattr(first, "__getnewargs__") else ()
            return first.__new__, (kind, *value), *obj.__reduce_ex__(4)[2:]
        return reduced

    def complete(self, obj: Any, reduced: Any) -> Any:
        """Adds attributes that a type in C leaves out: `Decimal` does for classes that inherit from it."""
        kind, reduced = type(obj), super().complete(obj, reduced)
        if type(reduced) is not tuple or len(reduced) > 3:
            return reduced
        if not any(one is kind for one in (reduced[0], *reduced[1][:1])):
            return reduced
        if any(isinstance(way, FunctionType) for way in (kind.__reduce_ex__, kind.__reduce__)):
            return reduced
        state = reduced[2] if len(reduced) == 3 else None
        parts = state if type(state) is tuple else (state,)
        # Last: this gives an object without attributes an empty dictionary, which becomes part of its pickle.
        attributes = not any(isinstance(part, dict) for part in parts) and getattr(obj, "__dict__", None)
        if not attributes or type(attributes) is not dict:
            return reduced
        return *reduced[:2], (state, dict(attributes)), None, None, mirror.fill_attributes

    def _array(self, array: Any) -> Any:
        view = links.view_of(array, self._links_in(self._key[0])) if self._key else None
        reduced = super().reducer_override(array) if view is None else view
        if type(reduced) is tuple and len(reduced) == 2:
            # Unlike an argument, a global is what the program has made.
            reduced = pickling.AS_IT_IS.get(reduced[0], reduced[0]), reduced[1]
            return reduced if array.flags.writeable else (pickling.restore_read_only, reduced)
        return reduced

    def note_module(self, name: str) -> None:
        super().note_module(name)
        module = sys.modules.get(name)
        if module is not None:
            self.watched.add_module(module)

    def by_name(self, obj: Any, module: str, name: str) -> Any:
        reduced = super().by_name(obj, module, name)
        if pickling.is_importable(module):
            return reduced
        definition = self.owner.definition(obj)
        self.watched.add_definition(obj)
        if isinstance(obj, FunctionType):
            self.sources.add(obj.__code__.co_filename)
            return self._function(obj, definition)
        if isinstance(obj, type):
            return self._class(obj, definition)
        make, arguments, state, _, _, fill = (*by_value.reduce_named(self, obj), None, None, None, None)[:6]
        if state is not None and fill is None:
            fill = mirror.fill_new
        how = definition.number, make, arguments
        return mirror.define_object, how, (definition.number, fill, state, []), None, None, mirror.fill_definition

    def _function(self, function: Any, definition: _Definition) -> Any:
        if by_value.is_singledispatch(function):
            how, (registered, attributes) = by_value.parts_of_singledispatch(function)
            parts = self._parts(definition, {mirror.REGISTERED: registered, **attributes})
            made, state = (definition.number, mirror.make_singledispatch, how), (definition.number, None, None, parts)
            return mirror.define_object, made, state, None, None, mirror.fill_definition
        how, content = by_value.parts_of_function(self, function)
        values = {name: getattr(function, name) for name in _OF_FUNCTION}
        new = {"__name__": function.__name__, "__doc__": function.__doc__}
        new["__annotations__"] = content.get("__annotations__", {})
        for index, cell in enumerate(function.__closure__ or ()):
            with suppress(ValueError):  # The cell is empty.
                new[f"{mirror.CELL}{index}"] = cell.cell_contents
        new |= {f"{mirror.GLOBAL}{name}": value for name, value in content.get("globals", {}).items()}
        parts = self._parts(definition, {**values, **function.__dict__}, new)
        filled = definition.number, mirror.fill_function, content, parts
        return mirror.define_function, (definition.number, *how), filled, None, None, mirror.fill_definition

    def _class(self, cls: type, definition: _Definition) -> Any:
        how = by_value.how_of_class(cls)
        state = definition.number, None, None, self._parts_of_class(cls, definition)
        return mirror.define_class, (definition.number, *how), state, None, None, mirror.fill_definition

    def without_name(self, obj: Any, reduce: Callable[[pickling.Pickler, Any], Any]) -> Any:
        if not isinstance(obj, type):
            reduced = reduce(self, obj)
            if type(obj) is FunctionType and not by_value.is_singledispatch(obj):
                self._delay_defaults(obj, reduced[2])
            return reduced
        # Tasks may also get this class by value.
        definition = self.owner.definition(obj)
        self.watched.add_definition(obj)
        how = definition.number, mirror.make_tracked, (mirror.track(obj), *by_value.how_of_class(obj))
        state = definition.number, None, None, self._parts_of_class(obj, definition)
        return mirror.define_object, how, state, None, None, mirror.fill_definition

    def _parts_of_class(self, cls: type, definition: _Definition) -> list[tuple[Any, ...]]:
        new = {name: getattr(cls, name) for name in _OF_NEW_CLASS}
        new["__doc__"] = vars(cls).get("__doc__")
        return self._parts(definition, by_value.attributes_of_class(self, cls), new)

    def _parts(
        self, definition: _Definition, values: dict[str, Any], new: dict[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Returns the parts of a definition with their versions. Compares the contents of parts; of those that Python
        itself uses, only if they are data. `new`: parts that a new object has. They follow when they have changed."""
        known, owner, obj, new = definition.parts, self.owner, definition.object(), new or {}
        values = {**new, **values}
        before = {name: part.version for name, part in known.items()}
        parts = []
        for name in [*values, *(name for name in known if name not in values)]:
            value = values.get(name, _ABSENT)
            part = known.get(name)
            if part is None:
                part = known[name] = _Part(next(owner.numbers))
            if value is _ABSENT:
                value = mirror.Removed
            elif (keys := self._globals_in(obj, name, value)) and (
                type(part.value) is _Late or all(map(self._is_sendable, keys))
            ):
                self.names.update(keys)
                self._late.append((obj, part, name, value, keys))
                parts.append((part.number, 0, name, mirror.Late(_empty(value))))
                continue
            if name in ("__kwdefaults__", "__annotations__") and type(value) is dict:
                part.refer(tuple(value.items()))
            elif name.startswith("_") and name.endswith("_") and not _is_data(value):
                part.refer(value)
            else:
                what = f"`{definition.object().__qualname__}` has the attribute `{name}`"
                try:
                    owner.update(part, value, what)
                except Exception as error:
                    value = mirror.Unsent(str(error))
                    owner.update(part, value, what)
            self.watched.add_part(part)
            if name in new and part.version == 1:
                continue
            self.versions[part.number] = part.version
            if isinstance(obj, type) and self._has_instances(obj, value):
                self._last.append((obj, part.number, part.version, name, value))
                value = mirror.Late(_empty(value))
            parts.append((part.number, part.version, name, value))
        holders: dict[int, set[str]] = {}
        for *_, name, value in parts:
            for _, key in () if type(value) is mirror.Late else known[name].objects:
                holders.setdefault(key, set()).add(name)
        for place, (number, version, name, value) in enumerate(parts):
            if type(value) is not mirror.Late:
                part = known[name]
                found = ((count, frozenset(holders[key])) for count, key in part.objects)
                shared = [one for one in found if len(one[1]) > 1]
                part.version += version == before.get(name) and shared != definition.shared.get(name, [])
                definition.shared[name], self.versions[number] = shared, part.version
                parts[place] = number, part.version, name, value
        return parts


# ---- the definitions of an executor


class Definitions:
    """The state that the workers of an executor have got, and the pickling of values for these workers."""

    def __init__(self, is_sandboxed: bool = False) -> None:
        self.engine: Engine | None = None
        #: A sandboxed worker imports no modules.
        self.copies_globals = is_sandboxed
        #: Whether workers have what the main file has set.
        self.runs_main = False
        #: Functions that are pickled by name.
        self.functions: dict[Any, pickling.Function] = {}
        self.numbers = itertools.count(1)
        self._bindings: dict[Key, _Part] = {}
        #: What the globals of each module share.
        self._links: dict[str, links.Links] = {}
        #: The identities of all objects in these globals. Some may be gone since.
        self.objects: AbstractSet[int] = set()
        #: For each of these that several globals have, or that a global refers to by name: the names of these globals.
        self.shared: dict[int, frozenset[str]] = {}
        #: For each global that shares objects with others: all of them, as they were sent last.
        self._groups: dict[Key, set[Key]] = {}
        #: Sentinels by their identity, with the number of each.
        self._sentinels: dict[int, tuple[object, int]] = {}
        self._definitions: dict[int, _Definition] = {}
        self._bundles: dict[frozenset[Key], Bundle] = {}
        self._copies: dict[int, _Copy] = {}
        #: Functions that are pickled by value, by identity: the objects in their pickles, and the pickles.
        self._constants: dict[int, tuple[weakref.ref[FunctionType], list[Any], pickling.Function]] = {}
        #: The functions of the last pickle, for error messages.
        self._users: dict[Key, str] = {}
        #: Serves the objects of `multiprocessing` that workers share with the program.
        self.server: inherit.Server | None = None
        self._lock = locks.lock()

    def close(self) -> None:
        """Called when the workers have ended."""
        if self.server is not None:
            self.server.close()

    def passing(self) -> AbstractContextManager[None]:
        """Returns a context in which objects of `multiprocessing` can be pickled. A sandboxed worker cannot reach
        them."""
        if self.copies_globals or imported("multiprocessing.context") is None:
            return nullcontext()
        from . import inherit

        return inherit.passing(self)

    def dump(
        self,
        value: Any,
        private: bool,
        beside: Callable[..., pickling.Beside] = pickling.Arguments,
        picklers: list[pickling.Pickler] | None = None,
    ) -> tuple[bytes, list[Buffer], int, set[Key]]:
        """Pickles a value. Returns the result of `pickling.dump`, and the names in the program's modules that it refers
        to. `picklers`: gets the pickler, whose memo has the objects pickled."""
        file, taken = BytesIO(), beside(self.engine, private)
        pickler = pickling.Pickler(file, taken)
        pickler.copies_globals = self.copies_globals
        pickler.dump(value)
        self._users = pickler.users
        if picklers is not None:
            picklers.append(pickler)
        return file.getvalue(), taken.buffers, taken.copied, pickler.names

    def constant(self, function: FunctionType, held: list[Any]) -> pickling.Function | None:
        """Returns the recorded pickle of a function that is sent by value, if it is still valid. `held`: the objects
        that a pickle has or refers to."""
        known = self._constants.get(id(function))
        if known is None or known[0]() is not function:
            return None
        is_valid = len(known[1]) == len(held) and all(map(is_, known[1], held)) and known[2].is_current()
        return known[2] if is_valid else None

    def keep(self, function: FunctionType, held: list[Any], made: pickling.Function) -> None:
        """Records the pickle of a function that refers to nothing that can change, as long as the function exists."""
        key, constants = id(function), self._constants
        constants[key] = weakref.ref(function, lambda _: constants.pop(key, None)), held, made

    def refer(self, function: Any, names: set[Key]) -> None:
        """Adds the names that a function refers to, if the function is pickled by name."""
        pickler = pickling.Pickler(BytesIO(), pickling.Beside(None, False))
        pickler.by_name(function, function.__module__, function.__qualname__)
        names |= pickler.names

    def copy(self, data: bytes) -> Buffer:
        assert self.engine is not None
        return self.engine.copy(data)

    def copy_of(self, array: Any) -> _Copy | None:
        """Returns the copy of an array in the arena. Makes a copy if none exists or the array has changed. Returns None
        if the array is to be pickled."""
        key, copies = id(array), self._copies
        known = copies.get(key)
        if known is not None and known.is_of(array):
            return known
        beside = pickling.Arguments(self.engine, False)
        reduced = beside.reduce_array(array)
        if reduced is NotImplemented or reduced[0] not in (pickling.restore_view, pickling.restore_own):
            return None
        if self.engine is not None:
            self.engine.count_copied(beside.copied)
        made = copies[key] = _Copy(weakref.ref(array, lambda _: copies.pop(key, None)), reduced)
        return made

    def bundle(self, names: Iterable[Key]) -> Bundle:
        """Returns the bundle of definitions that these names need."""
        key = frozenset(names)
        known = self._bundles.get(key)
        if known is not None and known.is_current():
            return known
        with self._lock:
            process = imported("multiprocessing.process")
            if process is not None and getattr(process.current_process(), "_inheriting", False):
                raise RuntimeError(_IMPORTING)
            changed = None if known is None else known.numbers()
            versions, watched, data, beside = self._define(key, partial(_Copies, self), changed)
            prefix, buffers = b"", beside.buffers
            # Otherwise all names are those of builtins.
            if data:
                head = pickle.dumps(versions, 5)
                data = len(head).to_bytes(4, "little") + head + data
                if buffers or len(data) > _SHORT:
                    assert self.engine is not None
                    buffers, data = [self.engine.copy(data), *buffers], b""
                prefix = mirror.header(next(self.numbers), len(buffers), len(data)) + data
            if len(self._bundles) >= _MOST_BUNDLES:
                self._bundles.pop(next(iter(self._bundles)), None)
            made = self._bundles[key] = Bundle(prefix, buffers, watched, self)
            return made

    def of_setup(self, names: Iterable[Key]) -> bytes:
        """Returns the definitions that an initializer needs, with the data of arrays. No engine exists yet."""
        with self._lock:
            versions, _, data, _ = self._define(frozenset(names), partial(pickling.Arguments, None, False))
        head = pickle.dumps(versions, 5)
        return len(head).to_bytes(4, "little") + head + data

    def of_lookup(self, home: str, name: str) -> bytes:
        """Returns the same for a global that a task looks up; nothing if the program does not have it."""
        has_global = name in _space(home) and not pickling.is_importable(home)
        return self.of_setup([(home, pickling.OPTIONAL + name)]) if has_global else b""

    def _define(
        self,
        names: frozenset[Key],
        begin: Callable[[], pickling.Beside],
        changed: set[int] | None = None,
        is_deep: bool = False,
    ) -> tuple[Any, _Watched, bytes, pickling.Beside]:
        """Pickles the definitions of these names, and of everything that they refer to. `begin`: makes the object that
        takes the arrays. `changed`: the parts that may have changed since; None if all may have. `is_deep`: whether
        objects are linked in chains that are too long for recursion."""
        raced: BaseException | None = None
        for pause in (0.0, *_PAUSES):
            file, beside = BytesIO(), begin()
            definer = _Definer(file, beside, self, is_deep)
            definer.changed = changed
            try:
                with _pausing_others(pause), self.passing():
                    definer.define(names)
                return (definer.versions, definer.count), definer.watched, file.getvalue(), beside
            except _Raced as error:
                raced = error.__cause__
            except RecursionError:
                if is_deep:
                    raise
                return self._define(names, begin, changed, is_deep=True)
        raise RuntimeError(f"another thread keeps changing a global: {raced}") from raced

    def bind(self, definer: _Definer, key: Key, value: Any) -> None:
        """Pickles a binding to this value, unless the global never existed."""
        home, name = key
        part = self._bindings.get(key)
        if part is None:
            if value is _ABSENT:
                return
            part = self._bindings[key] = _Part(next(self.numbers), name)
        if value is _ABSENT:
            value = mirror.Removed
        user = definer.users.get(key) or self._users.get(key)
        what = f"the global `{name}`" if user is None else f"`{user}` uses the global `{name}`"
        place = None if self.copies_globals else elsewhere.place_of(value)
        if key in definer.unsent and place is None:
            value = mirror.Unsent(str(_named(definer.unsent[key], what)))
        try:
            self.update(part, value, what)
            if place is not None and _has_contents(value):
                value = _Imported(value, place, part, True)
        except Exception as error:
            if place is not None:
                # The worker's own object has to do.
                part.refer(value)
                value = _Imported(value, place, part, False)
            elif self.runs_main and home == "__main__" and not isinstance(error, ArenaFull):
                # It has to do if the worker has it from the main file.
                value = mirror.Unsent(str(error))
                part.refer(value)
            else:
                raise
        try:
            definer.bind(key, (part.number, part.version, part.version == 1, home, name, value))
        except Exception as error:
            if type(error) is RecursionError and definer.left is None:
                raise
            raise _named(error, what) from error
        definer.watched.add_part(part)
        definer.versions[part.number] = part.version

    def links_in(self, home: str, names: set[Key], changed: set[int] | None) -> links.Links:
        """Returns what the globals of a module share. Looks into globals that were replaced, and into those with these
        names or with parts that may have `changed`; None if all may have."""
        again = {name for at, name in names if at == home}
        for (at, name), part in self._bindings.items():
            if at == home and part.print is not None and (changed is None or part.number in changed):
                (again.discard if part.items is not None and part.items.is_current() else again.add)(name)
        known = self._links.get(home)
        made = self._links[home] = links.find(_space(home), known, again)
        if made is not known:
            found = [one.first.keys() for one in self._links.values()]
            self.objects = found[0] if len(found) == 1 else set().union(*found)
            self.shared = {key: names for one in self._links.values() for key, names in one.shared.items()}
        return made

    def group_of(self, key: Key) -> set[Key]:
        return self._groups.get(key, set())

    def link(self, keys: set[Key]) -> None:
        """Records the globals of a module that share objects. If one has changed, or they did not share before, all get
        new versions: a worker has copies of the same objects only if it gets them together."""
        before = {key: self._groups.get(key, {key}) for key in keys}
        if len(keys) == 1 and keys in before.values():
            return
        parts = [(part, part.version, key) for key in keys if (part := self._bindings.get(key))]
        for part, _, (home, name) in parts:
            with suppress(Exception):
                part.update(_space(home).get(name, mirror.Removed), self)
        is_new = any(before[key] != keys for _, _, key in parts)
        if is_new:
            self._bundles.clear()
            self.functions.clear()
        if is_new or any(part.version != version for part, version, _ in parts):
            for part, version, _ in parts:
                part.version = version + 1
            for home, name in keys:
                known = self._definitions.get(id(_space(home).get(name)))
                for part in () if known is None else known.parts.values():
                    part.version += bool(part.objects)
            # Objects that contain these globals have to refer to the new ones.
            for home in {home for home, _ in keys}:
                for name in self._links[home].holders({name for at, name in keys if at == home}):
                    if part := self._bindings.get((home, name)):
                        part.version += 1
        self._groups.update(dict.fromkeys(keys, keys))

    def bound_in(self, home: str) -> set[Key]:
        """Returns the globals of a module that were sent."""
        return {key for key in list(self._bindings) if key[0] == home}

    def part_of(self, key: Key) -> _Part | None:
        return self._bindings.get(key)

    def update(self, part: _Part, value: Any, what: str) -> None:
        """Gives a part its new value, and a new version number if the value has changed. `what`: the name of the part
        in error messages."""
        try:
            part.update(value, self)
        except Exception as error:
            raise _named(error, what) from error

    def forgetting(self, part: _Part) -> Callable[[Any], None]:
        """Returns the callback for the end of a part's object: it removes the bundles with the object."""
        owner = weakref.ref(self)

        def forget(_: Any) -> None:
            definitions = owner()
            if definitions is not None:
                kept: tuple[dict[Any, Any], ...] = definitions._bundles, definitions.functions
                for held in kept:
                    for key, one in list(held.items()):
                        if one.holds(part):
                            held.pop(key, None)

        return forget

    def definition(self, obj: Any) -> _Definition:
        """Returns the record of a function, class or other object that is pickled by name."""
        key = id(obj)
        known = self._definitions.get(key)
        if known is None or known.object() is not obj:
            forget = self._definitions.pop

            def forgotten(_: Any) -> None:
                forget(key, None)

            known = self._definitions[key] = _Definition(obj, next(self.numbers), forgotten)
        return known

    def sentinel(self, obj: object) -> int:
        """Returns the number of a sentinel."""
        known = self._sentinels.get(id(obj))
        if known is None:
            known = self._sentinels[id(obj)] = obj, next(self.numbers)
        return known[1]

    def reload(self, definer: _Definer, name: str) -> None:
        """Pickles the information that the program has reloaded a module."""
        part = self._bindings.get(("", name))
        if part is None:
            part = self._bindings["", name] = _Part(next(self.numbers))
        spec = _spec_of(name)
        known = _loaded_again.get(name)
        if known is None or known[0] is not spec:
            known = _loaded_again[name] = spec, time.monotonic()
        if part.value is not spec:
            part.value, part.version = spec, part.version + 1
        definer.write((part.number, part.version, False, None, name, known[1]))
        definer.versions[part.number] = part.version
        definer.note_module(name)


def _warn_of_generator(home: str, name: str) -> None:
    """Warns once that a task uses a generator of random numbers that is a global."""
    if home in _warned:
        return
    _warned.add(home)
    frame, depth = sys._getframe(1), 2
    while str(frame.f_globals.get("__name__")).startswith("arenite.") and frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    warnings.warn(
        f"each worker has a copy of the global {name!r} of {home!r}, a generator of random numbers, so tasks in "
        f"different workers draw the same numbers: call arenite.rng() in the task instead",
        stacklevel=depth,
    )


def _as_defined(keys: set[Key]) -> list[Key]:
    """Sorts globals as their modules have them: the order in which a class gets its subclasses."""
    homes = {home for home, _ in keys}
    places = {home: {name: place for place, name in enumerate(list(_space(home)))} for home in homes}
    return sorted(keys, key=lambda key: (key[0], places[key[0]].get(key[1], -1), key[1]))


def _in_order(objects: dict[Key, set[Key]], done: set[Key]) -> list[Key]:
    """Returns the globals that are not done yet, each after those that it contains."""
    ordered: dict[Key, None] = {}

    def add(key: Key, inside: tuple[Key, ...]) -> None:
        if key not in inside and key not in ordered and key not in done:
            for held in sorted(objects[key] & objects.keys()):
                add(held, (*inside, key))
            ordered[key] = None

    for key in objects:
        add(key, ())
    return list(ordered)


@contextmanager
def _pausing_others(seconds: float) -> Iterator[None]:
    """Lets other threads wait so long until this thread pauses for them."""
    if not seconds:
        yield
        return
    with _pausing:
        before = sys.getswitchinterval()
        sys.setswitchinterval(max(before, seconds))
        try:
            yield
        finally:
            sys.setswitchinterval(before)


_pausing = locks.lock()


#: Modules that the program has reloaded: the specification, and the time when the reload was noticed.
_loaded_again: dict[str, tuple[Any, float]] = {}


def _spec_of(name: str) -> Any:
    return getattr(sys.modules.get(name), "__spec__", None)


def _space(home: str) -> dict[str, Any]:
    module = sys.modules.get(home) or pickling.unlisted.get(home)
    return {} if module is None else vars(module)


def _named(error: Exception, what: str) -> Exception:
    """Returns an exception of pickling that names the object."""
    if isinstance(error.__cause__, Exception) and str(error).endswith(str(error.__cause__)):
        return error  # An inner pickler has named it.
    kind = type(error) if type(error) in (TypeError, pickle.PicklingError, AttributeError, ValueError) else TypeError
    return kind(f"{what}: {error}")
