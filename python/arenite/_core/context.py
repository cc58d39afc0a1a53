"""State of the program that workers follow: the search path, the warning filters, and which modules it has reloaded.

Workers get the first two when they start. After the program has changed one, the current state precedes each call:
the length of a pickle, and the pickle. A worker that has this state compares bytes and does nothing.

Entries that a worker has added itself, in its initializer or by an import, remain: see `merged`.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

# A worker imports this before its first task: see `pickling`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from typing import Any
else:
    import _pickle as pickle

#: A bit of a call's kind, in addition to those of `pickling`: the state precedes the call.
PRECEDED = 128
#: A bit of a call's kind: the call has a deadline, whose clock starts after everything that the call needs is loaded.
TIMED = 256
_LENGTH = 4


# ---- in the program


def path(entries: list[Any] | None = None) -> list[Any]:
    """Returns the search path with absolute entries: a later worker may start in another working directory."""
    entries = sys.path if entries is None else entries
    return [os.path.abspath(entry) if isinstance(entry, str) else entry for entry in entries]


def filters(entries: list[Any] | None = None) -> list[Any]:
    """Returns the warning filters, with the names of their categories: a worker may not have imported the classes."""
    return [
        (action, message, (category.__module__, category.__qualname__), module, line)
        for action, message, category, module, line in (_filters() if entries is None else entries)
        if isinstance(category, type)
    ]


def _filters() -> list[Any]:
    found: list[Any] = getattr(sys.modules.get("warnings"), "filters", [])
    return found


#: The modules that the program has reloaded, each with the time.
reloaded: dict[str, float] = {}


class _Reloads:
    """Finds no module, but notes which ones are reloaded: their finders get the module as the target."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if target is not None:
            reloaded[name] = monotonic()


class Sent:
    """The state that the workers of an executor have got."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        if _Reloads not in sys.meta_path:
            sys.meta_path.insert(0, _Reloads)
        #: Search path, filters and reloaded modules, and what precedes each call. Replaced as a whole: threads may
        #: submit at the same time.
        self._state: tuple[Any, Any, dict[str, float], bytes] = sys.path[:], _filters()[:], {}, b""

    def before(self, head: bytes, kind: int) -> tuple[bytes, int]:
        """Adds the state before the head of a call if it has changed since the executor was made. Returns head and
        kind."""
        # Entries are compared by identity first, so this takes a tenth of a microsecond.
        known_path, known_filters, known_reloads, prefix = self._state
        if sys.path != known_path or _filters() != known_filters or reloaded != known_reloads:
            new_path, new_filters, reloads = sys.path[:], _filters()[:], reloaded.copy()
            data = pickle.dumps((path(new_path), filters(new_filters), reloads), 5)
            prefix = len(data).to_bytes(_LENGTH, "little") + data
            self._state = new_path, new_filters, reloads, prefix
        return (prefix + head, kind | PRECEDED) if prefix else (head, kind)


# ---- in a worker


class _Named(type):
    """The class of a category that is known by name: the worker may import the category later, or never."""

    def __subclasscheck__(cls, other: type) -> bool:
        return any((base.__module__, base.__qualname__) == (cls.__module__, cls.__qualname__) for base in other.__mro__)

    def __eq__(cls, other: object) -> bool:
        names = getattr(other, "__module__", None), getattr(other, "__qualname__", None)
        return isinstance(other, type) and names == (cls.__module__, cls.__qualname__)

    def __hash__(cls) -> int:
        return hash((cls.__module__, cls.__qualname__))


_applied = b""
#: The search path of the program; None if this process does not follow it.
_path: list[Any] | None = []
_given: list[Any] = []
#: The filters that this module has set.
_set: list[Any] = []


def split(function: bytes) -> bytes:
    """Applies the state that precedes a call, and returns the rest."""
    global _applied
    end = _LENGTH + int.from_bytes(function[:_LENGTH], "little")
    prefix = function[:end]
    if prefix != _applied:
        take_path, take_filters, reloads = pickle.loads(prefix[_LENGTH:])
        _apply(take_path, take_filters)
        for name, since in reloads.items():
            _reload(name, since)
        _applied = prefix
    return function[end:]


#: When this process started, and when the modules that it has reloaded since were reloaded in the program.
_started = monotonic()
followed: dict[str, float] = {}


def _reload(name: str, since: float) -> None:
    """Reloads a module that the program has reloaded, if this worker may have its old code."""
    module = sys.modules.get(name)
    if followed.get(name, _started) < since and module is not None:
        import importlib

        from . import mirror

        importlib.invalidate_caches()
        try:
            importlib.reload(module)
        except Exception:
            pass  # In the program it has failed in the same way, or it is a module that the program sends.
        mirror.note_change()
    followed[name] = since


def begin(new_path: list[Any] | None, new_filters: list[Any], is_copy: bool = False) -> None:
    """Applies the state that the program had when the executor was made. This process has no entries of its own yet,
    unless it is a copy of a template. Without a path, this process does not follow the program's path."""
    global _path, _given, _started
    # With this import, the process has filters.
    import warnings  # noqa: F401

    if not is_copy:
        # Copies have the modules of their template.
        _started = monotonic()
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
    """Restores the order of the program's filters if an import has added or moved filters."""
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
    """Returns `given` with the additional entries of `current`, which are in neither `given` nor `previous`. Additional
    entries in front of all others stay in front; the rest follow `given`."""
    front: list[Any] = []
    back: list[Any] = []
    own = front
    for entry in current:
        if entry in previous or entry in given:
            own = back
        else:
            own.append(entry)
    return [*front, *given, *back]
