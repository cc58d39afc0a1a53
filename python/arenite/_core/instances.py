"""Snapshots of containers with objects of the program's classes, which those of the extension do not look into."""

from __future__ import annotations

import copyreg
from operator import is_
from types import BuiltinFunctionType, GetSetDescriptorType
from typing import Any

from .._arenite import Watch
from . import by_value, pickling


class Snapshot:
    """The items of lists and dictionaries, and the attributes of objects, at one time. Keeps all of them alive."""

    def __init__(self, lists: list[list[Any]], dicts: list[dict[Any, Any]], objects: list[Any]) -> None:
        self._lists = [(one, one.copy()) for one in lists]
        attributes: list[tuple[Any, str, Any]] = [(one, "__class__", type(one)) for one in objects]
        attributes += [(one, "__dict__", one.__dict__) for one in objects]
        mappings = [(one, list(one), list(one.values())) for one in (*dicts, *(one.__dict__ for one in objects))]
        # The classes are parts of the same bundle, which has their names.
        self._watch = Watch([], [], attributes, mappings, [])

    def is_current(self) -> bool:
        """Returns whether all of them have the same items and attributes."""
        if not self._watch.is_current():
            return False
        return all(len(one) == len(items) and all(map(is_, one, items)) for one, items in self._lists)


def snapshot(value: Any) -> Snapshot | None:
    """Records the present items of a list or dictionary, and what they contain. Returns None if there are objects of
    other types that can change."""
    lists, dicts, objects = [], [], []
    left, seen, simple = [value], set(), {}
    while left:
        one = left.pop()
        kind: Any = type(one)
        if by_value.is_one_of(kind, by_value.ATOMS) or issubclass(kind, type) or id(one) in seen:
            continue
        # All of them exist until the end: another object cannot get the identity of one.
        seen.add(id(one))
        if kind is list:
            lists.append(one)
            left += one
        elif kind is dict:
            dicts.append(one)
            left += (*one, *one.values())
        elif kind is tuple or kind is frozenset:
            left += one
        else:
            if id(kind) not in simple:
                try:
                    simple[id(kind)] = _is_simple(kind)
                except Exception:  # Of its metaclass.
                    simple[id(kind)] = False
            if not simple[id(kind)]:
                return None
            objects.append(one)
            left += one.__dict__.values()
    return Snapshot(lists, dicts, objects)


def _is_simple(kind: Any) -> bool:
    """Whether the attributes in the `__dict__` of an object are all that is pickled of it: whether its class is one of
    the program, with a name, and changes nothing of how objects are made, read and pickled."""
    if pickling.is_of_library(kind) or not kind.__dictoffset__:
        return False
    if not pickling.is_reachable(kind, kind.__module__, kind.__qualname__) or by_value.is_registered(kind):
        return False
    for name in ("__reduce_ex__", "__reduce__", "__getstate__", "__getattribute__"):
        if getattr(kind, name) is not getattr(object, name):
            return False
    if copyreg._slotnames(kind):  # type: ignore[attr-defined]
        return False
    for base in kind.__mro__[:-1]:
        own = vars(base)
        if "__class__" in own or type(own.get("__new__")) is BuiltinFunctionType:
            return False
        if type(own.get("__dict__")) not in (GetSetDescriptorType, type(None)):
            return False
    return True
