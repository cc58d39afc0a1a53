"""Arrays in shared memory. The program makes them by methods of an executor, a task by the functions of this module.

A task returns an array of these functions without a copy. Outside of tasks the functions make ordinary arrays, so that
functions that use them can be called and tested like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy

from .. import _arenite
from . import out_of_band, pickling

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from .signatures import Kind

Shape = int | tuple[int, ...]
Scalar = TypeVar("Scalar", bound=numpy.generic)

#: Read-only arrays below this size share pages of the arena. Larger arrays have separate pages.
PACKED = 64 << 10


def install() -> None:
    """From now on, numpy places arrays of 1 MiB and more in memory that tasks read without a copy.

    Call it before the arrays are made. An executor then passes such an array by a snapshot: as with a pickle, the task
    does not see what the program writes afterwards. Only pages that are written while tasks may read them are copied.
    If the array was written when it is passed again, the written pages are copied; before Linux 6.7, all of the array.

    >>> import arenite, numpy
    >>> arenite.install()
    >>> image = numpy.ones((1000, 1000))
    >>> with arenite.Executor(1) as ex:
    ...     total = ex.submit(numpy.sum, image)
    ...     image[:] = 7
    ...     int(total.result()), ex.stats().bytes_copied
    (1000000, 0)

    This applies to all threads of this process, to its copies by `os.fork`, and to everything that makes arrays by
    numpy: `numpy.load`, `cv2.imread`, data frames of pandas. Sandboxed workers get copies. In a task this does nothing.

    The process reuses freed memory, at most a sixteenth of the machine's memory and 1 GiB. Memory that is unused for 5
    seconds goes back to Linux when numpy makes or frees the next large array.

    Raises OSError if memory cannot be shared in this way: `ulimit -v`, or `vm.overcommit_memory=2`.
    """
    _arenite.install()


class Mut:
    """An array that is lent to one task for writing: see `mut`."""

    __slots__ = ("array",)

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __reduce__(self) -> Any:
        raise TypeError("mut() is an argument of an executor's tasks and cannot be pickled elsewhere")


def mut(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """Lends an array to one task, which writes to it in place.

    Several tasks may write to one array at the same time if their slices have no element in common: rows, columns,
    tiles, every second element. `submit` refuses others.

    >>> import arenite
    >>> def fill(row, value):
    ...     row[:] = value
    >>> with arenite.Executor(2) as ex:
    ...     out = ex.zeros((3, 2), int)
    ...     for done in [ex.submit(fill, arenite.mut(out[i]), i) for i in range(3)]:
    ...         done.result()
    ...     out.tolist()
    [[0, 0], [1, 1], [2, 2]]

    >>> with arenite.Executor(2) as ex:
    ...     out = ex.zeros((2, 4), int)
    ...     for done in [ex.submit(fill, arenite.mut(out[:, i : i + 2]), i) for i in (0, 2)]:
    ...         done.result()
    ...     out.tolist()
    [[0, 0, 2, 2], [0, 0, 2, 2]]

    Raises ValueError for an array whose elements share memory. Do not touch the slice before its task has ended. A task
    that is killed leaves the slice partly written. What a stray write of native code can reach beside the slice are the
    bytes between its elements, and the rest of its first and last page of 4 KiB.
    """
    if not isinstance(array, numpy.ndarray):
        raise TypeError(f"mut() takes an array, not {type(array).__name__}")
    if array.dtype.hasobject:
        raise TypeError("mut() takes an array of numbers: objects cannot be in shared memory")
    if out_of_band.overlaps(array):
        raise ValueError("mut() takes an array whose elements have memory of their own: no broadcast or sliding window")
    if not array.flags.writeable:
        raise ValueError("mut() takes a writable array: this one is read-only, as what share() and tasks return")
    # The task gets an array: type checkers see its type.
    return Mut(array)  # type: ignore[return-value]


def make(arena: pickling.Arena, shape: Shape, dtype: DTypeLike, order: Any, zeroed: bool) -> NDArray[Any]:
    """Makes an array in an arena."""
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of {kind} cannot be in shared memory: it holds Python objects")
    # Applies numpy's rules for shapes, with numpy's errors for bad shapes, without allocating memory.
    model: NDArray[Any] = numpy.broadcast_to(numpy.empty((), kind), shape)
    if model.nbytes == 0:
        return numpy.empty(shape, kind, order)
    buffer: Any = arena.alloc(model.nbytes, zeroed)
    return numpy.ndarray(model.shape, kind, buffer=buffer, order=order)


class _Sealed:
    """An arena whose `find` returns read-only memory only."""

    def __init__(self, arena: _arenite.Engine) -> None:
        self._arena = arena
        self.alloc = arena.alloc

    def find(self, address: int, nbytes: int, writable: bool = False) -> Any:
        if self._arena.find(address, nbytes, True) is not None:
            return None
        return self._arena.find(address, nbytes, writable)

    def find_object(self, value: Any) -> Any:
        found = self._arena.find_object(value)
        return None if found is None else self.find(found.address, found.nbytes)


def share(arena: _arenite.Engine, value: Any, count: Any) -> Any:
    """Returns the value with read-only memory in the arena. Copies the memory, unless it is already read-only there.
    `count`: adds a number of copied bytes to the statistics."""
    sealed = _Sealed(arena)
    if type(value) is numpy.ndarray and not value.dtype.hasobject and value.nbytes:
        address = value.__array_interface__["data"][0]
        if value.flags.c_contiguous and (found := sealed.find(address, value.nbytes)) is not None:
            shared = numpy.ndarray(value.shape, value.dtype, buffer=found) if found.of_private else value.view()
        elif value.flags.c_contiguous and (taken := arena.snapshot(address, value.nbytes)) is not None:
            shared = numpy.ndarray(value.shape, value.dtype, buffer=taken)  # type: ignore[arg-type]
        elif value.nbytes < PACKED:
            # The array is never lent, so it needs no separate pages. `copy` counts the bytes.
            buffer: Any = arena.copy(value.tobytes())
            shared = numpy.ndarray(value.shape, value.dtype, buffer=buffer)
        else:
            written: Any = arena.alloc(value.nbytes)
            numpy.copyto(numpy.ndarray(value.shape, value.dtype, buffer=written), value)
            # An array over the writable buffer could be made writable again.
            shared = numpy.ndarray(value.shape, value.dtype, buffer=arena.read_only(written))  # type: ignore[arg-type]
            count(value.nbytes)
        shared.flags.writeable = False
        return shared
    data, buffers, copied = pickling.dump(value, sealed)
    count(copied)
    # Arrays over the writable buffers could be made writable again.
    views = [memoryview(arena.read_only(buffer)) for buffer in buffers]  # type: ignore[arg-type]
    return pickling.load(data, views)


def _arena() -> pickling.Arena | None:
    """Returns the arena of the running task; None outside of tasks."""
    return _arenite.TaskArena() if _arenite.is_worker() else None


@overload
def empty(shape: Shape, *, order: Any = "C") -> NDArray[numpy.float64]: ...
@overload
def empty(shape: Shape, dtype: Kind[Scalar], order: Any = "C") -> NDArray[Scalar]: ...
@overload
def empty(shape: Shape, dtype: DTypeLike, order: Any = "C") -> NDArray[Any]: ...
def empty(shape: Shape, dtype: DTypeLike = float, order: Any = "C") -> NDArray[Any]:
    """Makes an array with unspecified elements, as `numpy.empty` does. A task returns it without a copy.

    >>> import arenite
    >>> def ramp(n):
    ...     out = arenite.empty(n, int)
    ...     out[:] = range(n)
    ...     return out
    >>> with arenite.Executor(1) as ex:
    ...     ex.submit(ramp, 4).result().tolist()
    [0, 1, 2, 3]
    """
    arena = _arena()
    return numpy.empty(shape, dtype, order) if arena is None else make(arena, shape, dtype, order, False)


@overload
def zeros(shape: Shape, *, order: Any = "C") -> NDArray[numpy.float64]: ...
@overload
def zeros(shape: Shape, dtype: Kind[Scalar], order: Any = "C") -> NDArray[Scalar]: ...
@overload
def zeros(shape: Shape, dtype: DTypeLike, order: Any = "C") -> NDArray[Any]: ...
def zeros(shape: Shape, dtype: DTypeLike = float, order: Any = "C") -> NDArray[Any]:
    """Makes an array of zeros, as `numpy.zeros` does. A task returns it without a copy."""
    arena = _arena()
    return numpy.zeros(shape, dtype, order) if arena is None else make(arena, shape, dtype, order, True)


@overload
def full(shape: Shape, fill_value: Any, dtype: Kind[Scalar], order: Any = "C") -> NDArray[Scalar]: ...
@overload
def full(shape: Shape, fill_value: Any, dtype: DTypeLike | None = None, order: Any = "C") -> NDArray[Any]: ...
def full(shape: Shape, fill_value: Any, dtype: DTypeLike | None = None, order: Any = "C") -> NDArray[Any]:
    """Makes an array with one value everywhere, as `numpy.full` does. A task returns it without a copy."""
    out = empty(shape, numpy.asarray(fill_value).dtype if dtype is None else dtype, order)
    out[...] = fill_value
    return out


@overload
def array(values: ArrayLike, dtype: Kind[Scalar]) -> NDArray[Scalar]: ...
@overload
def array(values: NDArray[Scalar], dtype: None = None) -> NDArray[Scalar]: ...
@overload
def array(values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]: ...
def array(values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Makes an array with a copy of these values, as `numpy.array` does. A task returns it without a copy."""
    source = numpy.asarray(values, dtype)
    out = empty(source.shape, source.dtype)
    out[...] = source
    return out
