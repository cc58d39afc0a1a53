"""Arrays that were copied into the arena, and are passed to other tasks too without another copy.

An executor does so with read-only arrays that are the same, byte for byte, while a task that takes the copy has not
ended. joblib does so with all large ones, for one call of `Parallel`.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from . import _pickle

if TYPE_CHECKING:
    from ._future import Future


class Copies:
    """Arrays that are in the arena."""

    #: Whether what several tasks have taken stays until `clear`, and not only until these have ended.
    lasts = False

    def __init__(self) -> None:
        #: By their identity as long as they exist. See `free`.
        self._known: dict[int, _Known] = {}
        self._lock = threading.Lock()
        #: How many were copied.
        self.added = 0
        #: The arrays of tasks whose end no one reports.
        self._held: list[tuple[weakref.ref[Future[Any]], list[int]]] = []

    def clear(self) -> None:
        """Frees the memory."""
        self._known.clear()

    def hold(self, future: Future[Any], used: list[int]) -> None:
        """These arrays are taken until the future is done."""
        self._held.append((weakref.ref(future), used))

    def find(self, array: Any, used: list[int] | None = None, looks: bool = False) -> Any:
        """Returns what is sent instead of an array, if it was copied before. `used`: the arrays of the task; None for a
        function, whose arrays are needed until the call ends. `looks`: only if the copy is the same still."""
        with self._lock:
            known = self._known.get(id(array))
        if known is None or known.array() is not array or known.layout != _layout(array):
            return None
        # Being read-only is no proof: another view may write, or may have done so while the array could be written.
        if looks and not _pickle.is_same(array, _pickle._restore_view(*known.reduced[1])):
            return None
        with self._lock:
            known.take(used)
        return known.reduced

    def add(self, array: Any, reduced: Any, used: list[int] | None = None) -> None:
        """Keeps what is sent instead of an array."""
        self.added += 1
        known, key = self._known, id(array)
        # Without a reference to `self`: the callback may outlive the call.
        made = _Known(weakref.ref(array, lambda _: known.pop(key, None)), _layout(array), reduced)
        with self._lock:
            made.take(used)
            self._known[key] = made

    def release(self, used: list[int]) -> None:
        """The tasks that took these arrays have ended."""
        with self._lock:
            for key in used:
                known = self._known.get(key)
                if known is not None:
                    known.users -= 1
        used.clear()

    def free(self) -> None:
        """Frees the memory of arrays that no open task takes. Called before another array is copied, and not earlier:
        the next task, which is about to be sent, may take the same array."""
        held, self._held = self._held, []
        for future, used in held:
            if (one := future()) is not None and not one.done():
                self._held.append((future, used))
            else:
                self.release(used)
        with self._lock:
            most = 1 if self.lasts else 1 << 62
            # Less than none: of an array that changed, the tasks that took its last copy.
            for key in [key for key, known in self._known.items() if known.users <= 0 and known.uses <= most]:
                del self._known[key]


class _Known:
    """An array that is in the arena."""

    __slots__ = ("array", "layout", "reduced", "users", "uses")

    def __init__(self, array: weakref.ref[Any], layout: tuple[Any, ...], reduced: Any) -> None:
        self.array = array
        #: What it was when it was copied.
        self.layout = layout
        #: What is sent instead of it.
        self.reduced = reduced
        #: How often open tasks take it, and how often any did.
        self.users = self.uses = 0

    def take(self, used: list[int] | None) -> None:
        key = id(self.array())
        if used is not None and key in used:
            # Again in the same task, or that is pickled anew.
            return
        # What a function takes is never released.
        self.users += 1
        self.uses += 1
        if used is not None:
            used.append(key)


def _layout(array: Any) -> tuple[Any, ...]:
    """Where the elements of an array are, and what they are: all that can be changed without making a new array."""
    return array.__array_interface__["data"], array.shape, array.strides, array.dtype


class Beside(_pickle.Arguments):
    """Takes the arrays of one task of an executor."""

    def __init__(self, arena: _pickle.Arena | None, private: bool, copies: Copies, used: list[int]) -> None:
        super().__init__(arena, private)
        self.copies, self.used = copies, used

    def reduce_array(self, array: Any) -> Any:
        if self.private or array.nbytes < _pickle.OUT_OF_BAND or not _is_fixed(array):
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
    """Whether an array and all that it views are read-only."""
    import numpy

    while isinstance(array, numpy.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or type(array) is bytes
