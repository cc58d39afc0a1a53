"""Arrays that were copied into the arena, and that further tasks use without another copy.

An executor shares the copy of a read-only array with further tasks while a task that uses the copy has not ended, if
the array still has the same bytes. joblib shares the copies of all large arrays during one call of `Parallel`.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from . import locks, out_of_band, pickling

if TYPE_CHECKING:
    from .future import Future


class Copies:
    """The copies in the arena."""

    #: Whether a copy that several tasks have used stays until `clear`. Otherwise it is freed after these tasks have
    #: ended.
    lasts = False

    def __init__(self) -> None:
        #: By the identity of arrays that exist. See `free`.
        self._known: dict[int, _Known] = {}
        self._lock = locks.lock()
        #: The number of arrays copied.
        self.added = 0
        #: The arrays of tasks whose end is not reported.
        self._held: list[tuple[weakref.ref[Future[Any]], list[int]]] = []

    def clear(self) -> None:
        """Frees the memory."""
        self._known.clear()

    def hold(self, future: Future[Any], used: list[int]) -> None:
        """Marks these arrays as used until the future is done."""
        self._held.append((weakref.ref(future), used))

    def find(self, array: Any, used: list[int] | None = None, looks: bool = False) -> Any:
        """Returns the replacement of an array that was copied before. `used`: the arrays of the task; None for a
        function, whose arrays are needed until the call ends. `looks`: returns it only if the copy still has the same
        bytes."""
        with self._lock:
            known = self._known.get(id(array))
        if known is None or known.array() is not array or known.layout != _layout(array):
            return None
        # A read-only array may still have changed, by another view or while it was writable.
        if looks and not out_of_band.is_same(array, out_of_band.restore_view(*known.reduced[1])):
            return None
        with self._lock:
            known.take(used)
        return known.reduced

    def add(self, array: Any, reduced: Any, used: list[int] | None = None) -> None:
        """Records the replacement of an array."""
        self.added += 1
        known, key = self._known, id(array)
        # Does not refer to `self`, because the callback may outlive the call.
        made = _Known(weakref.ref(array, lambda _: known.pop(key, None)), _layout(array), reduced)
        with self._lock:
            made.take(used)
            self._known[key] = made

    def release(self, used: list[int]) -> None:
        """Unmarks the arrays of tasks that have ended."""
        with self._lock:
            for key in used:
                known = self._known.get(key)
                if known is not None:
                    known.users -= 1
        used.clear()

    def free(self) -> None:
        """Frees the copies that no open task uses. Called before another array is copied, not earlier: the next task
        may use the same array."""
        held, self._held = self._held, []
        for future, used in held:
            if (one := future()) is not None and not one.done():
                self._held.append((future, used))
            else:
                self.release(used)
        with self._lock:
            most = 1 if self.lasts else 1 << 62
            # Negative: tasks still used the last copy of an array that has changed.
            # Arrays may end meanwhile.
            for key, known in self._known.copy().items():
                if known.users <= 0 and known.uses <= most:
                    self._known.pop(key, None)


class _Known:
    """A copy in the arena."""

    __slots__ = ("array", "layout", "reduced", "users", "uses")

    def __init__(self, array: weakref.ref[Any], layout: tuple[Any, ...], reduced: Any) -> None:
        self.array = array
        #: The layout of the array when it was copied.
        self.layout = layout
        #: The replacement that is sent for the array.
        self.reduced = reduced
        #: The number of uses by open tasks, and by all tasks.
        self.users = self.uses = 0

    def take(self, used: list[int] | None) -> None:
        key = id(self.array())
        if used is not None and key in used:
            # The same task refers to the array again, or the array is pickled anew.
            return
        # Uses by a function are never released.
        self.users += 1
        self.uses += 1
        if used is not None:
            used.append(key)


def _layout(array: Any) -> tuple[Any, ...]:
    """Returns the address and the element type of an array, with all else that can change without making a new
    array."""
    return array.__array_interface__["data"], array.shape, array.strides, array.dtype


class Beside(out_of_band.Arguments):
    """Replaces the arrays in the arguments of one task of an executor."""

    def __init__(self, arena: pickling.Arena | None, private: bool, copies: Copies, used: list[int]) -> None:
        super().__init__(arena, private)
        self.copies, self.used = copies, used

    def reduce_array(self, array: Any) -> Any:
        if self.private or array.nbytes < out_of_band.OUT_OF_BAND or not _is_fixed(array):
            return super().reduce_array(array)
        reduced = self.copies.find(array, self.used, looks=True)
        if reduced is None:
            self.copies.free()
            before = self.copied
            reduced = super().reduce_array(array)
            if self.copied != before:
                self.copies.add(array, reduced, self.used)
        return reduced


def _is_fixed(array: Any) -> bool:
    """Whether an array, and everything that it is a view of, is read-only."""
    import numpy

    while isinstance(array, numpy.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or type(array) is bytes
