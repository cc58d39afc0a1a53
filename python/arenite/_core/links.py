"""Objects that several globals of a module share without being globals: a cell of two closures, a row of a table, the
memory of an array and of its views."""

from __future__ import annotations

import copyreg
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from operator import is_
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import by_value, elsewhere, pickling

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The number of objects that are looked at in a module, and in each of its globals; in long ones if that leaves any.
_MOST, _MOST_OF_EACH, _MOST_OF_LONG = 20_000, 300, 3_000
#: The number of elements of a container from which on they are looked at last.
_LONG = 30
#: The number of elements of a container that are compared with those of others.
_MOST_ELEMENTS = 20_000
#: The number of bytes of an array that is always sent with its parts.
_SMALL = 64 << 10

_DICTS = {dict, Counter, OrderedDict, defaultdict}
_LISTS = {list, set, deque}
_CHANGING = {bytearray, *_DICTS, *_LISTS}
#: Types of the standard library whose instances are looked into.
_OF_DATA = frozenset(
    "_io.BytesIO _io.StringIO array.array collections.ChainMap collections.UserDict collections.UserList random.Random "
    "types.SimpleNamespace".split()
)


class _Held(NamedTuple):
    #: The identity of the global's object, and a weak reference to it if its type has them.
    value: int
    reference: weakref.ref[Any] | None
    #: The identities of the objects in it that tasks can change, and the arrays.
    objects: set[int]
    arrays: list[weakref.ref[Any]]
    #: The identities of other globals in it, to which it refers by name.
    named: set[int]
    #: Whether all objects in it were looked at.
    is_whole: bool

    def is_of(self, value: Any) -> bool:
        return self.value == id(value) and (self.reference is None or self.reference() is value)

    def is_like(self, other: _Held) -> bool:
        """Whether both have the same objects."""
        if (self.value, self.objects, self.named) != (other.value, other.objects, other.named):
            return False
        ours, theirs = ([reference() for reference in one.arrays] for one in (self, other))
        return len(ours) == len(theirs) and all(map(is_, ours, theirs))


class Links(NamedTuple):
    #: What each global held when it was looked at.
    held: dict[str, _Held]
    #: For each global that shares objects with others: the names of all of them. They are sent together.
    groups: dict[str, set[str]]
    #: Arrays, by identity, whose memory at least two arrays use.
    owners: dict[int, weakref.ref[Any]]
    #: The names of globals by the identities of the objects in them.
    first: dict[int, str]
    #: For each of these that several globals have, or that a global refers to by name: the names of these globals.
    shared: dict[int, frozenset[str]]

    def holders(self, names: set[str]) -> set[str]:
        """Returns the globals that refer to these by name, or refer to such a global."""
        found: set[str] = set()
        left = names
        while left:
            values = {self.held[name].value for name in left if name in self.held}
            left = {name for name, one in self.held.items() if not one.named.isdisjoint(values)} - found - names
            found |= left
        return found


def find(space: dict[str, Any], known: Links | None, again: set[str]) -> Links:
    """Returns what the globals of a module share; what is `known`, if they have the same objects. Looks only into
    globals that were replaced, and `again` into these, whose contents may have changed."""
    found = _globals_in(space)
    before = {} if known is None else known.held
    same = {name: one for name, value in found if (one := before.get(name)) is not None and one.is_of(value)}
    left = [(name, value) for name, value in found if name not in same or name in again]
    is_whole = known is not None and len(same) == len(found) == len(before)
    if is_whole and not left:
        return known  # type: ignore[return-value]
    walk = _Walk(space, {id(value) for _, value in found if type(value) is not FunctionType})
    new = {name: walk.look_into(value, _MOST_OF_EACH) for name, value in left}
    long = [(name, value) for name, value in left if not new[name].is_whole]
    if long and (most := min(_MOST_OF_LONG, walk.left // len(long))) > _MOST_OF_EACH:
        new |= {name: walk.look_into(value, most) for name, value in long}
    if is_whole and all(one.is_like(before[name]) for name, one in new.items()):
        return known  # type: ignore[return-value]
    held: dict[str, _Held] = {}
    groups: dict[str, set[str]] = {}
    first: dict[int, str] = {}
    shared: dict[int, set[str]] = {}
    all_arrays: dict[int, list[Any]] = defaultdict(list)
    for name, _ in found:
        one = held[name] = new.get(name) or same[name]
        for key in one.objects:
            if (other := first.setdefault(key, name)) is not name:
                _join(groups, name, other)
                shared.setdefault(key, {other}).add(name)
        for array in (array for reference in one.arrays if (array := reference()) is not None):
            all_arrays[id(owner_of(array))].append(array)
    owners = {}
    for arrays in all_arrays.values():
        owner = owner_of(arrays[0])
        # The whole memory is sent. Without this limit, two short parts of a huge array would cost too much.
        if len(arrays) > 1 and owner.nbytes <= max(_SMALL, 2 * sum(one.nbytes for one in arrays)):
            owners[id(owner)] = weakref.ref(owner)
    for key in set().union(*(one.named for one in held.values())) & first.keys():
        shared.setdefault(key, {first[key]})
    return Links(held, groups, owners, first, {key: frozenset(names) for key, names in shared.items()})


def _globals_in(space: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns the globals of a module that are no atoms."""
    found = [(name, value) for name, value in list(space.items()) if name[:2] != "__"]
    try:
        return [(name, value) for name, value in found if type(value) not in by_value.ATOMS]
    except Exception:  # A type has no hash.
        return [(name, value) for name, value in found if not by_value.is_one_of(type(value), by_value.ATOMS)]


def _join(groups: dict[str, set[str]], name: str, other: str) -> None:
    if name != other:
        both = groups.get(name, {name}) | groups.get(other, {other})
        groups.update(dict.fromkeys(both, both))


def owner_of(array: Any) -> Any:
    """Returns the array that has the memory of an array."""
    while pickling.is_array(array.base):
        array = array.base
    return array


def view_of(array: Any, links: Links) -> Any:
    """Reduces an array to a view of the memory of another one, if globals use the memory of that one."""
    owner = owner_of(array)
    known = links.owners.get(id(owner))
    is_known = known is not None and known() is owner
    if owner is array or not is_known or array.dtype.hasobject:
        return None
    flat = owner if owner.flags.c_contiguous else owner.T
    if not flat.flags.c_contiguous:
        return None
    start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    return pickling.restore_part, (owner, array.dtype, array.shape, array.strides, start)


class _Walk:
    """Finds the objects in globals that tasks can change."""

    def __init__(self, space: dict[str, Any], globals_: set[int]) -> None:
        self._space = space
        self._globals = globals_
        self.left = _MOST
        self._own: dict[type, bool] = {}
        self._containers: dict[type, Any] = {}
        self._arrays: list[Any] = []
        self._named: set[int] = set()

    def look_into(self, value: Any, most: int) -> _Held:
        self._arrays, self._named = [], set()
        found: set[int] = set()
        is_whole = True
        # Code of the program may raise anything.
        with suppress(Exception):
            is_whole = self._add_objects(value, found, min(most, self.left))
        reference = None
        with suppress(TypeError):
            reference = weakref.ref(value)
        return _Held(id(value), reference, found, [weakref.ref(array) for array in self._arrays], self._named, is_whole)

    def _add_objects(self, value: Any, found: set[int], most: int) -> bool:
        """Adds the identities of these objects in a global. Looks at `most` objects; returns whether these were all.
        Other globals in it count only if a function or class holds them: another object refers to them by name."""
        seen: set[int] = set()
        is_whole = True
        left = deque([(value, False)])
        while left and len(seen) < most:
            one, is_held = left.pop()
            key = id(one)
            if key in seen:
                continue
            seen.add(key)
            is_other = one is not value and key in self._globals
            if is_other and not is_held:
                self._named.add(key)
                continue
            if pickling.is_array(one):
                found.add(self._add_array(one))
                continue
            parts, can_change = self._look(one, one is value)
            if can_change:
                found.add(key)
            if not (is_other and can_change):
                is_held = is_held or isinstance(one, (FunctionType, type))
                parts = [part for part in islice(parts, _MOST_ELEMENTS) if type(part) not in by_value.ATOMS]
                if len(parts) > most:
                    # Looks into the first ones only.
                    is_whole = False
                    changing = {kind for kind in set(map(type, parts)) if kind in _CHANGING or self._is_own(kind)}
                    others = set() if is_held else self._globals
                    found.update({id(part) for part in parts if type(part) in changing} - others)
                    found.update(self._add_array(part) for part in parts[most:] if pickling.is_array(part))
                more = [(part, is_held) for part in parts[:most]]
                # What is beside a long container comes before its elements.
                (left.extend if len(more) < _LONG else left.extendleft)(more)
        self.left -= len(seen)
        return is_whole and not left

    def _add_array(self, array: Any) -> int:
        """Records an array. Returns the identity of the array that has its memory."""
        self._arrays.append(array)
        return id(owner_of(array))

    def _look(self, value: Any, is_global: bool) -> tuple[Iterable[Any], bool]:
        """Returns the objects that a value contains, and whether the value itself can be changed."""
        kind = type(value)
        if kind in _LISTS:
            return value, True
        if kind in _DICTS:
            # Values first: keys are seldom more than atoms, and the rest of a long container is not looked at.
            return chain(value.values(), value), True
        if kind in (tuple, frozenset):
            return value, False
        if kind is FunctionType:
            # A function that is pickled by name is one object in each worker.
            is_named = not is_global and self._space.get(value.__qualname__) is value
            if is_named or pickling.is_importable(value.__module__ or ""):
                return (), False
            parts = value.__closure__ or (), value.__defaults__ or (), (value.__kwdefaults__ or {}).values()
            return chain(*parts, vars(value).values()), False
        if kind is CellType:
            try:
                return (value.cell_contents,), True
            except ValueError:
                return (), True  # The cell is empty.
        if kind in (classmethod, staticmethod, MethodType):
            return (value.__func__, getattr(value, "__self__", None)), False
        if kind is property:
            return (value.fget, value.fset, value.fdel), False
        if kind is partial:
            return (value.func, *value.args, *value.keywords.values()), False
        if issubclass(kind, type):
            is_own = is_global and value.__module__ == self._space.get("__name__")
            return (vars(value).values() if is_own else ()), False
        if kind is bytearray:
            return (), True
        # Instances of other classes may be shared by many, as loggers are, and have names of their own.
        if not self._is_own(kind) or elsewhere.place_of(value) is not None:
            return (), False
        slots = [attribute(value, name) for name in copyreg._slotnames(kind)]  # type: ignore[attr-defined]
        own = chain(slots, (attribute(value, "__dict__") or {}).values())
        base = self._container(kind)
        if base is dict:
            own = chain(own, dict.values(value), dict.keys(value))
        elif base is not None:
            own = chain(own, base.__iter__(value))
        return own, True

    def _container(self, kind: type) -> Any:
        """Returns the type of containers that a class inherits from; None for other classes."""
        if kind not in self._containers:
            found = (one for one in (dict, list, tuple, set, frozenset, deque) if issubclass(kind, one))
            self._containers[kind] = next(found, None)
        return self._containers[kind]

    def _is_own(self, kind: type) -> bool:
        """Whether instances of a class are looked into: those of the program, but no members of enumerations."""
        if kind not in self._own:
            is_own = f"{kind.__module__}.{kind.__qualname__}" in _OF_DATA or not pickling.is_of_library(kind)
            self._own[kind] = is_own and not hasattr(kind, "__members__")
        return self._own[kind]


def attribute(value: Any, name: str) -> Any:
    """Returns an attribute without the `__getattr__` of the program; None if it is not set."""
    try:
        return object.__getattribute__(value, name)
    except Exception:
        return None
