"""What workers take over from the program at any time: the search path and the filters of warnings.

Workers get both when they start. Once the program has changed one of them, each call is preceded by what holds now: the
length of its pickle and the pickle. A worker that has it already compares bytes and does nothing.

What a worker has added of its own, in its initializer or by an import, remains: see `merged`.
"""

from __future__ import annotations

import os
import sys

# A worker imports this before its first task: see `_pickle`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from typing import Any
else:
    import _pickle as pickle

#: A bit of the kind of a call, beside those of `_pickle`: see above.
PRECEDED = 128
#: A bit of the kind of a call that has a deadline, whose clock starts when all that the call needs is loaded.
TIMED = 256
_LENGTH = 4


# ---- in the program


def path() -> list[Any]:
    """The search path. Absolute: workers start later too, and the working directory may be another one then."""
    return [os.path.abspath(entry) if isinstance(entry, str) else entry for entry in sys.path]


def filters() -> list[Any]:
    """The filters of warnings, with the names of their categories, which a worker may not have imported."""
    return [
        (action, message, (category.__module__, category.__qualname__), module, line)
        for action, message, category, module, line in _filters()
        if isinstance(category, type)
    ]


def _filters() -> list[Any]:
    found: list[Any] = getattr(sys.modules.get("warnings"), "filters", [])
    return found


class Sent:
    """What the workers of an executor have got."""

    __slots__ = ("_filters", "_path", "_prefix")

    def __init__(self) -> None:
        self._path = sys.path[:]
        self._filters = _filters()[:]
        self._prefix = b""

    def before(self, head: bytes, kind: int) -> tuple[bytes, int]:
        """Puts what has changed since the executor was made before the head of a call. Returns head and kind."""
        # Entries are compared by identity first, so this takes a tenth of a microsecond.
        if sys.path != self._path or _filters() != self._filters:
            self._path, self._filters = sys.path[:], _filters()[:]
            data = pickle.dumps((path(), filters()), 5)
            self._prefix = len(data).to_bytes(_LENGTH, "little") + data
        return (self._prefix + head, kind | PRECEDED) if self._prefix else (head, kind)


# ---- in a worker


class _Named(type):
    """The class of a category that is known by its name: the worker may import it later, or never."""

    def __subclasscheck__(cls, other: type) -> bool:
        return any((base.__module__, base.__qualname__) == (cls.__module__, cls.__qualname__) for base in other.__mro__)

    def __eq__(cls, other: object) -> bool:
        names = getattr(other, "__module__", None), getattr(other, "__qualname__", None)
        return isinstance(other, type) and names == (cls.__module__, cls.__qualname__)

    def __hash__(cls) -> int:
        return hash((cls.__module__, cls.__qualname__))


_applied = b""
#: The program's. None: this process does not follow it.
_path: list[Any] | None = []
_given: list[Any] = []
#: The filters as this module has set them.
_set: list[Any] = []


def split(function: bytes) -> bytes:
    """Applies what precedes a call, and returns the rest."""
    global _applied
    end = _LENGTH + int.from_bytes(function[:_LENGTH], "little")
    prefix = function[:end]
    if prefix != _applied:
        take_path, take_filters = pickle.loads(prefix[_LENGTH:])
        _apply(take_path, take_filters)
        _applied = prefix
    return function[end:]


def begin(new_path: list[Any] | None, new_filters: list[Any], is_copy: bool = False) -> None:
    """Takes over what the program had when the executor was made. Nothing of this process is its own so far, unless it
    is a copy of a template. Without a path, this process keeps its own."""
    global _path, _given
    # Then there are filters.
    import warnings  # noqa: F401

    if not is_copy:
        _path, _given = None if new_path is None else sys.path[:], _filters()[:]
    _apply(new_path, new_filters)


def _apply(new_path: list[Any] | None, new_filters: list[Any]) -> None:
    global _path, _given
    if new_path is not None and _path is not None and new_path != _path:
        sys.path[:] = merged(sys.path, _path, new_path)
        _path = new_path
    previous, _given = _given, [_filter(*parts) for parts in new_filters]
    if _given or previous:
        _set_filters(previous)


def renew() -> None:
    """Puts the program's filters into their order again, if an import has added filters of its own or moved these."""
    if _given and _filters() != _set:
        _set_filters(_given)


def _set_filters(previous: list[Any]) -> None:
    global _set
    import warnings

    now = _filters()
    now[:] = merged(now, previous, _given)
    getattr(warnings, "_filters_mutated", int)()
    _set = now[:]


def _filter(action: str, message: Any, category: tuple[str, str], module: Any, line: int) -> Any:
    home, name = category
    found = getattr(sys.modules["builtins"], name, None) if home == "builtins" else None
    if found is None:
        found = _Named(name, (Warning,), {"__module__": home, "__qualname__": name})
    return action, message, found, module, line


def merged(current: Any, previous: list[Any], given: list[Any]) -> list[Any]:
    """Returns what is given, with the entries of `current` that come neither from it nor from `previous`: in front of
    it those that are in front of all these, and behind it the others."""
    front: list[Any] = []
    back: list[Any] = []
    own = front
    for entry in current:
        if entry in previous or entry in given:
            own = back
        else:
            own.append(entry)
    return [*front, *given, *back]
