"""Objects that several globals of a module share without being globals: a cell of two closures, a row of a table, the
memory of an array and of its views."""

from __future__ import annotations

import weakref
from collections import OrderedDict, defaultdict, deque
from functools import partial
from itertools import chain, islice
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import by_value, pickling

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The number of objects that are looked at in a module, and in each of its globals.
_MOST, _MOST_OF_EACH = 10_000, 300
#: The number of bytes of an array that is always sent with its parts.
_SMALL = 64 << 10

_DICTS = {dict, OrderedDict, defaultdict}
_LISTS = {list, set, deque}


class Links(NamedTuple):
    #: The globals, by name, each with the identity of its object.
    values: dict[str, int]
    #: For each global that shares objects with others: the names of all of them. They are sent together.
    groups: dict[str, set[str]]
    #: Arrays, by identity, whose memory at least two arrays use.
    owners: dict[int, weakref.ref[Any]]


def find(space: dict[str, Any], known: Links | None) -> Links:
    """Returns what the globals of a module share; what is `known`, if they are the same objects."""
    found = [(name, value) for name, value in list(space.items()) if type(value) not in by_value.ATOMS]
    found = [(name, value) for name, value in found if name[:2] != "__"]
    values = {name: id(value) for name, value in found}
    if known is not None and known.values == values:
        return known
    walk = _Walk(space, {id(value) for _, value in found if not isinstance(value, FunctionType)})
    groups: dict[str, set[str]] = {}
    first: dict[int, str] = {}
    for name, value in found:
        for one in walk.objects_in(value):
            _join(groups, name, first.setdefault(one, name))
    owners = {}
    for arrays in walk.arrays.values():
        owner = owner_of(arrays[0])
        # The whole memory is sent. Without this limit, two short parts of a huge array would cost too much.
        if len(arrays) > 1 and owner.nbytes <= max(_SMALL, 2 * sum(one.nbytes for one in arrays)):
            owners[id(owner)] = weakref.ref(owner)
    return Links(values, groups, owners)


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
        self._left = _MOST
        #: The arrays found, by the identity of the array that has their memory.
        self.arrays: dict[int, list[Any]] = {}

    def objects_in(self, value: Any) -> set[int]:
        """Returns the identities of these objects in a global. Other globals in it count only if a function or class
        holds them: another object refers to them by name."""
        found: set[int] = set()
        seen: set[int] = set()
        left = [(value, False)]
        most = min(_MOST_OF_EACH, self._left)
        while left and len(seen) < most:
            one, is_held = left.pop()
            key = id(one)
            if key in seen or type(one) in by_value.ATOMS:
                continue
            seen.add(key)
            is_other = one is not value and key in self._globals
            if is_other and not is_held:
                continue
            if pickling.is_array(one):
                owner = id(owner_of(one))
                found.add(owner)
                self.arrays.setdefault(owner, []).append(one)
                continue
            parts, can_change = self._look(one, one is value)
            if can_change:
                found.add(key)
            if not (is_other and can_change):
                is_held = is_held or isinstance(one, (FunctionType, type))
                parts = list(islice(parts, most))
                if not by_value.ATOMS.issuperset(map(type, parts)):
                    left += [(part, is_held) for part in parts]
        self._left -= len(seen)
        return found

    def _look(self, value: Any, is_global: bool) -> tuple[Iterable[Any], bool]:
        """Returns the objects that a value contains, and whether the value itself can be changed."""
        kind = type(value)
        if kind in _LISTS:
            return value, True
        if kind in _DICTS:
            return value.values(), True
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
        if isinstance(value, type):
            is_own = is_global and value.__module__ == self._space.get("__name__")
            return (vars(value).values() if is_own else ()), False
        if kind is bytearray:
            return (), True
        # Instances of other classes may be shared by many, as loggers are, and have names of their own.
        is_own = not pickling.is_importable(kind.__module__) and not hasattr(kind, "__members__")
        return (vars(value).values() if is_own and hasattr(value, "__dict__") else ()), is_own
