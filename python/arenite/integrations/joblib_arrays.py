"""The arrays of a call of joblib's `Parallel`: `Arrays`."""

from __future__ import annotations

import mmap
import os
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any

from .. import _arenite
from .._core import codes, out_of_band, pickling, reach
from .._core.copies import Copies

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable

#: The size from which on arrays are shared, the default of joblib.
MAX_NBYTES = 1 << 20
#: The number of functions of a call that are pickled only once.
_MOST_FUNCTIONS = 64


class Arrays(Copies):
    """Passes the arrays of one call of `Parallel`."""

    lasts = True

    def __init__(
        self, max_nbytes: int | None = MAX_NBYTES, is_private: bool = False, opens_files: bool = True
    ) -> None:
        super().__init__()
        #: The size from which on arrays are shared; infinite if none is.
        self.max_nbytes = float("inf") if max_nbytes is None else max_nbytes
        #: Whether tasks get private copies of shared arrays.
        self.is_private = is_private
        #: Whether workers may open files.
        self.opens_files = opens_files
        #: The pickled functions, and the objects that they referred to.
        self._functions: dict[Any, tuple[list[Any], pickling.Function]] = {}

    def clear(self) -> None:
        """Frees the memory."""
        super().clear()
        self._functions.clear()

    def function(self, kind: type[Any], function: Any, pickle: Callable[[], pickling.Function]) -> pickling.Function:
        """Returns the pickle of a function. Makes it once for each kind, unless the function refers to objects that the
        program may change between two calls."""
        held = _held(function)
        if held is None:
            return pickle()
        before, known = self._functions.get((kind, function), ([], None))
        if known is None or not known.is_current() or len(held) != len(before) or not all(map(is_, held, before)):
            if len(self._functions) >= _MOST_FUNCTIONS:
                self._functions.clear()
            known = pickle()
            self._functions[kind, function] = held, known
        return known


def _held(function: Any) -> list[Any] | None:
    """Returns the objects to which a function refers: none if it is sent by name. Returns None if they may change."""
    held: list[Any] = []
    if reach.is_global(function):
        return held
    is_constant = type(function) is FunctionType and codes.is_constant(function, held)
    return held if is_constant else None


class Beside(out_of_band.Beside):
    """Takes arrays as loky does: large ones are shared, and small ones are private to their task."""

    def __init__(
        self, arena: pickling.Arena | None, private: bool, arrays: Arrays, used: list[int] | None
    ) -> None:
        super().__init__(arena, False)
        self.arrays, self.used = arrays, used

    def take(self, view: pickle.PickleBuffer) -> bool:
        raw = view.raw()
        # Buffers that are part of the pickle are copied into memory of the task.
        return super().take(view) if type(raw.obj) is _arenite.Buffer or raw.nbytes >= self.arrays.max_nbytes else True

    def reduce_array(self, array: Any) -> Any:
        arrays = self.arrays
        if arrays.opens_files and (mapped := _mapped(array)) is not None:
            return mapped
        is_small = array.nbytes < arrays.max_nbytes
        # An array that the program cannot write is read-only for tasks, too.
        self.private = is_small and array.flags.writeable
        if is_small:
            return _copied(super().reduce_array(array), array)
        reduced = arrays.find(array, self.used)
        if reduced is None:
            arrays.free()
            reduced = super().reduce_array(array)
            if reduced is NotImplemented:
                return reduced
            if arrays.is_private:
                reduced = _copied(reduced, array)
            arrays.add(array, reduced, self.used)
        return reduced


def _copied(reduced: Any, array: Any) -> Any:
    """Returns a reduction that gives the task a private copy of an array instead of a view."""
    if reduced is NotImplemented or reduced[0] is not out_of_band.restore_view or not array.flags.writeable:
        return reduced
    return _restore_copy, reduced[1]


def _restore_copy(*view: Any) -> Any:
    return out_of_band.restore_view(*view).copy("K")


def _mapped(array: Any) -> Any:
    """Returns a reduction that maps the file of an array in a worker, if it is a `numpy.memmap` or a part of one."""
    import numpy

    root: Any = None
    base = array
    while isinstance(base, numpy.ndarray):
        root, base = base, base.base
    if not isinstance(root, numpy.memmap) or not isinstance(base, mmap.mmap):
        return None
    path: Any = getattr(root, "filename", None)
    if path is None or not os.path.exists(path):
        return None
    low, high = out_of_band.extent(array)
    first = root.offset + low - root.__array_interface__["data"][0]
    # "w+" would empty the file.
    mode = "r+" if root.mode == "w+" else root.mode
    start = array.__array_interface__["data"][0] - low
    region = os.path.abspath(path), mode, first, high - low
    return _restore_map, (*region, array.dtype, array.shape, array.strides, start)


def _restore_map(
    path: str, mode: Any, first: int, size: int, dtype: Any, shape: Any, strides: Any, start: int
) -> Any:
    import numpy

    mapped: Any = numpy.memmap(path, numpy.uint8, mode, first, (size,))
    begin = mapped[start : start + numpy.dtype(dtype).itemsize].view(dtype)
    view: Any = numpy.lib.stride_tricks.as_strided(begin, shape, strides, True, mode != "r")
    view.offset = first + start
    return view
