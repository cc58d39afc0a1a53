"""Arrays in shared memory: in the program by the methods of an executor, in a task by the functions of this module.

In a task, an array that these functions make is returned without a copy. Outside of tasks they make ordinary arrays, so
that the functions that use them can be called and tested like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy

from . import _arenite, _pickle

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from ._typing import Kind

Shape = int | tuple[int, ...]
Scalar = TypeVar("Scalar", bound=numpy.generic)

#: Read-only arrays below this size lie side by side in the arena, others on pages of their own.
PACKED = 64 << 10


def install() -> None:
    """From now on, numpy makes arrays of 1 MiB and more in memory that tasks read without a copy.

    Call it before the arrays are made. An executor then passes such an array as it is at that moment: what the program
    writes to it afterwards, the task does not see, as with a pickle. Nothing is copied but pages that are written while
    tasks may read them. Of an array that is passed again, what was written since is copied; before Linux 6.7, all of it.

    >>> import arenite, numpy
    >>> arenite.install()
    >>> image = numpy.ones((1000, 1000))
    >>> with arenite.Executor(1) as ex:
    ...     total = ex.submit(numpy.sum, image)
    ...     image[:] = 7
    ...     int(total.result()), ex.stats().bytes_copied
    (1000000, 0)

    It holds for all threads of this process and for copies that `os.fork` makes of it, as long as they live, and for
    everything that makes arrays by numpy: `numpy.load`, `cv2.imread`, data frames of pandas. Sandboxed workers get
    copies. In a task it does nothing.

    Freed memory stays with the process, at most a sixteenth of the machine's and 1 GiB; from 5 seconds on, it goes back
    to Linux when numpy makes or frees the next large array.

    Raises OSError where memory cannot be shared so: `ulimit -v`, or `vm.overcommit_memory=2`.
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

    Any number of tasks may write to one array at the same time, as long as their slices do not overlap: overlapping
    ones are refused.

    >>> import arenite
    >>> def fill(row, value):
    ...     row[:] = value
    >>> with arenite.Executor(2) as ex:
    ...     out = ex.zeros((3, 2), int)
    ...     for done in [ex.submit(fill, arenite.mut(out[i]), i) for i in range(3)]:
    ...         done.result()
    ...     out.tolist()
    [[0, 0], [1, 1], [2, 2]]

    Raises ValueError for an array that is not contiguous: pass whole rows of it. Do not touch the slice before its task
    has ended. A task that is killed leaves it partly written.
    """
    if not isinstance(array, numpy.ndarray):
        raise TypeError(f"mut() takes an array, not {type(array).__name__}")
    if array.dtype.hasobject:
        raise TypeError("mut() takes an array of numbers: objects cannot be in shared memory")
    if not array.flags.c_contiguous:
        raise ValueError("mut() takes a contiguous array: whole rows, not columns or steps")
    if not array.flags.writeable:
        raise ValueError("mut() takes a writable array: this one is read-only, as what share() and tasks return")
    # The task gets an array.
    return Mut(array)  # type: ignore[return-value]


def make(arena: _pickle.Arena, shape: Shape, dtype: DTypeLike, order: Any, zeroed: bool) -> NDArray[Any]:
    """Makes an array in an arena."""
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of {kind} cannot be in shared memory: it holds Python objects")
    # What numpy makes of the shape, and its errors for bad ones, without memory.
    model: NDArray[Any] = numpy.broadcast_to(numpy.empty((), kind), shape)
    if model.nbytes == 0:
        return numpy.empty(shape, kind, order)
    buffer: Any = arena.alloc(model.nbytes, zeroed)
    return numpy.ndarray(model.shape, kind, buffer=buffer, order=order)


class _Sealed:
    """An arena in which only memory is found that nothing can write."""

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
    """Returns the value with its memory in the arena, read-only: a copy, unless nothing can write where the value lies.
    `count` is told how many bytes were copied."""
    sealed = _Sealed(arena)
    if type(value) is numpy.ndarray and not value.dtype.hasobject and value.nbytes:
        address = value.__array_interface__["data"][0]
        if value.flags.c_contiguous and (found := sealed.find(address, value.nbytes)) is not None:
            shared = numpy.ndarray(value.shape, value.dtype, buffer=found) if found.of_private else value.view()
        elif value.flags.c_contiguous and (taken := arena.snapshot(address, value.nbytes)) is not None:
            shared = numpy.ndarray(value.shape, value.dtype, buffer=taken)  # type: ignore[arg-type]
        elif value.nbytes < PACKED:
            # It is never lent, so it needs no pages of its own. This counts the copy.
            buffer: Any = arena.copy(value.tobytes())
            shared = numpy.ndarray(value.shape, value.dtype, buffer=buffer)
        else:
            written: Any = arena.alloc(value.nbytes)
            numpy.copyto(numpy.ndarray(value.shape, value.dtype, buffer=written), value)
            # Of the buffer that was written, an array could be made writable again.
            shared = numpy.ndarray(value.shape, value.dtype, buffer=arena.read_only(written))  # type: ignore[arg-type]
            count(value.nbytes)
        shared.flags.writeable = False
        return shared
    data, buffers, copied = _pickle.dump(value, sealed)
    count(copied)
    # Of the buffers that were written, arrays could be made writable again.
    views = [memoryview(arena.read_only(buffer)) for buffer in buffers]
    return _pickle.load(data, views)


def _arena() -> _pickle.Arena | None:
    """The arena of the running task, if this is one."""
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
