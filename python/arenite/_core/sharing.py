"""Finds the variables that share objects which can change: a list in two globals, a cell of two closures, the memory of
an array and of its views. Such variables are sent together, in one pickle."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from functools import partial
from itertools import islice
from types import BuiltinFunctionType, CellType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from . import codes, elsewhere, out_of_band, reach

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The module or the number of the definition that has a variable, and the name of the variable.
Key = tuple[Any, str]

#: The number of objects that are looked at in the globals of a module that no task needs; in each of them; and in long
#: ones if that leaves any.
_MOST, _MOST_OF_EACH, _MOST_OF_LONG = 20_000, 300, 3_000
#: The number of elements of such a container that are compared with others.
_MOST_ELEMENTS = 20_000
#: The number of bytes of an array that is always sent with its parts.
_SMALL = 64 << 10

_CHANGING = {bytearray, dict, Counter, OrderedDict, defaultdict, list, set, deque}
#: Types whose objects cannot change, but contain others.
_TRANSPARENT = {
    *(BuiltinFunctionType, CellType, MappingProxyType, MethodType, classmethod, partial, property, staticmethod),
}
#: The number of elements of a container from which on they are looked at last.
_LONG = 30
#: Modules of types whose instances are looked into.
_LOOKED_INTO = frozenset("_io _weakrefset array builtins collections itertools random types weakref".split())


class Shared:
    """The variables of one bundle and of its modules, in groups of those that share objects."""

    def __init__(self) -> None:
        #: The first variable that was seen to have an object, by the identity of the object.
        self.first: dict[int, Key] = {}
        self._groups: dict[Key, list[Key]] = {}
        #: The arrays that use a memory, by the identity of the array that owns it.
        self._arrays: dict[int, dict[int, Any]] = {}
        #: Of the last variable: the number of objects that were looked at, and whether these were all.
        self._count, self._is_complete = 0, True
        self._own: dict[type, bool] = {}

    def group_of(self, key: Key) -> list[Key]:
        """Returns the variables that share objects with this one. Each of them has the same list."""
        return self._groups[key]

    def add_module(self, variables: list[tuple[Key, Any]]) -> None:
        """Adds the globals of a module. Looks at a limited number of objects, because tasks may need none of them."""
        left, long = _MOST, []
        for key, value in variables:
            self.add(key, value, min(left, _MOST_OF_EACH))
            left -= self._count
            if not self._is_complete:
                long.append((key, value))
        for key, value in long:
            self.add(key, value, min(left // len(long), _MOST_OF_LONG))

    def add(self, key: Key, value: Any, most: int = sys.maxsize) -> list[list[Key]]:
        """Adds a variable. Looks at no more than `most` objects. Returns the groups that became one."""
        self._groups.setdefault(key, [key])
        joined: list[list[Key]] = []
        if codes.is_one_of(type(value), codes.ATOMS):
            return joined
        found: set[int] = set()
        with suppress(Exception):  # Of the program's code.
            self._look_into(value, most, found)
        for one in found:
            other = self.first.setdefault(one, key)
            ours, theirs = self._groups[key], self._groups[other]
            if ours is not theirs:
                joined += [ours.copy(), theirs.copy()]
                ours, theirs = sorted((ours, theirs), key=len, reverse=True)
                ours += theirs
                self._groups.update(dict.fromkeys(theirs, ours))
        return joined

    def _look_into(self, value: Any, most: int, found: set[int]) -> None:
        """Adds the identities of the objects in a value that tasks can change."""
        seen: set[int] = set()
        left = deque([value])
        self._is_complete = True
        while left and len(seen) < most:
            one = left.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            if out_of_band.is_array(one):
                owner = owner_of(one)
                self._arrays.setdefault(id(owner), {})[id(one)] = one
                found.add(id(owner))
                continue
            parts, can_change = self._look(one, one is value)
            if can_change:
                found.add(id(one))
            elements = islice(parts, None if most == sys.maxsize else _MOST_ELEMENTS)
            more = [part for part in elements if not codes.is_one_of(type(part), codes.ATOMS)]
            if len(more) > most:
                self._is_complete = False
                kinds = {kind for kind in set(map(type, more)) if kind in _CHANGING or self._is_own(kind)}
                found.update(id(part) for part in more if type(part) in kinds)
                del more[most:]
            # What is beside a long container comes before its elements.
            (left.extend if len(more) < _LONG else left.extendleft)(more)
        self._count = len(seen)
        self._is_complete &= not left

    def _look(self, value: Any, is_whole: bool) -> tuple[Iterable[Any], bool]:
        """Returns the objects that a value contains, and whether the value itself can be changed."""
        kind = type(value)
        if kind in (tuple, frozenset, *_CHANGING):
            return gc.get_referents(value), kind in _CHANGING
        if kind is ModuleType or kind is object:
            return (), False
        if kind is FunctionType:
            is_named = reach.is_reachable(value, value.__module__, value.__qualname__)
            if is_named and not is_whole or reach.is_importable(value.__module__ or ""):
                return (), False
            return (value.__closure__, value.__defaults__, value.__kwdefaults__, vars(value)), False
        if issubclass(kind, type):
            is_own = is_whole and not reach.is_importable(value.__module__)
            return (vars(value).values() if is_own else ()), False
        if issubclass(kind, weakref.ReferenceType):
            return (value(),), False
        if kind in _TRANSPARENT:
            return gc.get_referents(value), False
        # Instances of other classes may be shared by many, as loggers are, and have names of their own.
        if elsewhere.place_of(value) is not None:
            return (), False
        if self._is_own(kind):
            return gc.get_referents(value), True
        is_looked_into = kind.__module__ in _LOOKED_INTO and not hasattr(kind, "__get__") and reach.has_identity(value)
        return (gc.get_referents(value) if is_looked_into else ()), is_looked_into

    def _is_own(self, kind: type) -> bool:
        """Whether instances of a class are looked into: those of the program, but no members of enumerations."""
        if kind not in self._own:
            self._own[kind] = not reach.is_of_library(kind) and not hasattr(kind, "__members__")
        return self._own[kind]

    def view_of(self, array: Any) -> Any:
        """Reduces an array to a part of the array that has its memory, if several arrays use that. Returns None for
        other arrays. Two short parts of a huge array are sent without it."""
        owner = owner_of(array)
        arrays = self._arrays.get(id(owner), {}).values()
        most = max(_SMALL, 2 * sum(one.nbytes for one in arrays))
        if owner is array or len(arrays) < 2 or owner.nbytes > most or array.dtype.hasobject:
            return None
        if not (owner.flags.c_contiguous or owner.flags.f_contiguous):
            return None
        start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        return out_of_band.restore_part, (owner, array.dtype, array.shape, array.strides, start)


def owner_of(array: Any) -> Any:
    """Returns the array that has the memory of an array."""
    while out_of_band.is_array(array.base):
        array = array.base
    return array
