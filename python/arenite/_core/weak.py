"""`IdentityMap`: values for objects that are compared by identity, as long as the objects exist."""

from __future__ import annotations

from weakref import ref

# A worker imports this before its first task: see `pickling`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class IdentityMap:
    """A `WeakKeyDictionary` that compares its keys by identity: a metaclass may define equality, and then its classes
    may have no hash."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[ref[Any], Any]] = {}

    def __contains__(self, obj: Any) -> bool:
        held = self._held.get(id(obj))
        return held is not None and held[0]() is obj

    def get(self, obj: Any, default: Any = None) -> Any:
        held = self._held.get(id(obj))
        return held[1] if held is not None and held[0]() is obj else default

    def __setitem__(self, obj: Any, value: Any) -> None:
        key, held = id(obj), self._held
        held[key] = ref(obj, lambda _: held.pop(key, None)), value

    def pop(self, obj: Any, default: Any = None) -> Any:
        value = self.get(obj, default)
        self._held.pop(id(obj), None)
        return value
