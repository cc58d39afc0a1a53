"""The large data of a pickle, beside it: arrays in the arena. Memory that is in the arena already is found by its
address, whatever object refers to it, and is passed without a copy. Other buffers of 4 KiB and more are copied once."""

from __future__ import annotations

from .._arenite import Buffer, PrivateBuffer, Task

# A worker imports this before its first task: `typing` and `pickle`, with their imports, take a fifth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .signatures import Part
    from .values import Values

    class Arena(Protocol):
        """The arena of an engine or of the running task, for large buffers."""

        def alloc(self, nbytes: int, zeroed: bool = False) -> Buffer: ...
        def find(self, address: int, nbytes: int, writable: bool = False) -> Buffer | None: ...
        def find_object(self, obj: Any) -> Buffer | None: ...
else:
    import _pickle as pickle


#: The size from which on a buffer is not part of the pickle.
OUT_OF_BAND = 4096
#: After a quarter of the allowed buffers, buffers below this size are part of the pickle.
_SMALL = 64 << 10
#: Below this size, copying an array costs less than mapping it.
COPIED = 256 << 10
#: The characters of numpy types that `str` identifies, and the number of numpy's own types. Types of other libraries
#: have some of these characters, too.
_NUMERIC, _OWN_TYPES = frozenset("?bBhHiIlLqQefdgFDGSUMm"), 24


class Reply(bytearray):
    """Stands for the value of a task in a pickle."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task


class Beside:
    """The buffers of a pickle, in the arena, and the tasks whose values belong to it. Separate from the pickler:
    otherwise the pickler would refer to itself, and keep everything until the next collection of cycles."""

    #: The largest number of buffers; None without a limit. Workers set it for results. Further buffers are part of the
    #: pickle; small ones before the limit.
    most: int | None = None

    #: Whether the receiver may write to arrays whose memory was not shared on purpose.
    gives = False

    #: Replaces futures by their values; None where a future is none: see `values`.
    values: Values | None = None

    def __init__(self, arena: Arena | None, private: bool) -> None:
        self.arena = arena
        self.private = private
        self.buffers: list[Part] = []
        self.copied = 0

    def take(self, view: pickle.PickleBuffer) -> bool:
        """Takes a buffer out of the pickle. Returns true if the buffer remains part of the pickle."""
        if self.arena is None:
            return True
        raw = view.raw()
        owner = raw.obj
        if type(owner) is Reply:
            self.buffers.append(owner.task)
            return False
        if self.most is not None and self._is_full(raw.nbytes):
            return True
        if type(owner) is Buffer and owner.nbytes == raw.nbytes:
            self.buffers.append(owner)
            return False
        if raw.nbytes < OUT_OF_BAND:
            return True
        found = self.arena.find_object(raw)
        if found is None:
            found = self.arena.alloc(raw.nbytes)
            memoryview(found)[:] = raw
            self.copied += raw.nbytes
        self.buffers.append(found)
        return False

    def _is_full(self, nbytes: int) -> bool:
        assert self.most is not None
        return len(self.buffers) >= (self.most // 4 if nbytes < _SMALL else self.most)

    def snapshot(self, address: int, nbytes: int) -> Buffer | None:
        """Returns a snapshot of memory that numpy has placed where tasks read snapshots: see `arrays.install`."""
        take: Callable[[int, int], Buffer | None] | None = getattr(self.arena, "snapshot", None)
        return None if take is None else take(address, nbytes)

    def reduce_array(self, array: Any) -> Any:
        """Reduces an array to a view of its memory."""
        dtype, arena = array.dtype, self.arena
        if dtype.hasobject or arena is None or type(array).__name__ != "ndarray":
            return NotImplemented
        if array.nbytes == 0:
            # By numpy, a copy of a read-only array would be read-only.
            return restore_small, (bytearray(), dtype, array.shape, "C" if array.flags.c_contiguous else "F")
        shape, order = array.shape, "C" if array.flags.c_contiguous or not array.flags.f_contiguous else "F"
        is_plain = dtype.char in _NUMERIC and dtype.num < _OWN_TYPES and dtype.names is None and not dtype.metadata
        kind = dtype.str if is_plain else dtype
        owner = array if array.base is None else array.base
        if array.nbytes < OUT_OF_BAND and type(owner) is type(array) and owner.base is None:
            # Not in the arena, where no array owns its memory.
            return restore_small, (bytearray(array.tobytes(order)), kind, shape, order)
        strides, (low, high) = array.strides, extent(array)
        is_full = self.most is not None and self._is_full(array.nbytes)
        found = None if is_full else arena.find(low, high - low)
        is_shared = found is not None and not found.of_private
        restore: Any = restore_view if is_shared or not self.gives else restore_own
        # Other arrays are copied, as by every pool: without gaps, and with no overlapping elements.
        if found is None and array.nbytes >= _SMALL and array.flags.forc and array.flags.aligned and not is_full:
            found = self.snapshot(low, high - low)
        if found is not None:
            start = array.__array_interface__["data"][0]
            if not array.flags.forc:
                found = found.for_array(start, array.itemsize, shape, strides)
            return restore, (pickle.PickleBuffer(found), kind, shape, strides, start - low)
        if array.nbytes < OUT_OF_BAND or self.private or is_full:
            # The array is copied anyway, so the copy is writable, as with every other pool.
            return restore_small, (bytearray(array.tobytes(order)), kind, shape, order)
        import numpy

        found = arena.alloc(array.nbytes)
        copy: Any = numpy.ndarray(shape, dtype, buffer=found, order=order)  # type: ignore[arg-type]
        numpy.copyto(copy, array)
        self.copied += array.nbytes
        return restore, (pickle.PickleBuffer(found), kind, shape, copy.strides, 0)


class Arguments(Beside):
    """Replaces the arrays of a call. The task may write to its copies, as with every other pool."""

    gives = True


def is_array(value: Any) -> bool:
    """Whether a value is an array of numpy, and not of a derived class. Does not import numpy."""
    kind = type(value)
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


def is_same(array: Any, copy: Any) -> bool:
    """Whether a copy of an array has the same type, shape and bytes. Does not compare elements, because NaN is not
    equal to itself."""
    import numpy

    if (array.dtype, array.shape) != (copy.dtype, copy.shape):
        return False
    if not (array.flags.c_contiguous and copy.flags.c_contiguous):
        array, copy = array.T, copy.T
    if array.flags.c_contiguous and copy.flags.c_contiguous:
        kind = numpy.uint64 if array.nbytes % 8 == 0 else numpy.uint8
        # Elements of 12 bytes cannot be viewed as numbers of 8 bytes at once.
        array, copy = (one.reshape(-1).view(numpy.uint8).view(kind) for one in (array, copy))
        # Compares a part at a time: a change is often at the beginning.
        return all(
            numpy.array_equal(array[at : at + _PART], copy[at : at + _PART]) for at in range(0, len(array), _PART)
        )
    return bool(array.tobytes() == copy.tobytes())


#: The number of elements that are compared at a time.
_PART = 1 << 16


def extent(array: Any) -> tuple[int, int]:
    """Returns the addresses of the first byte of an array and of the byte after its last one."""
    low = high = array.__array_interface__["data"][0]
    for count, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += stride * (count - 1)
        else:
            high += stride * (count - 1)
    return low, high + array.itemsize


def overlaps(array: Any) -> bool:
    """Whether elements of an array may share memory, as in the result of `broadcast_to`."""
    if array.flags.forc:
        return False
    extent = array.itemsize
    for stride, count in sorted((abs(stride), count) for stride, count in zip(array.strides, array.shape, strict=True)):
        if count > 1:
            if stride < extent:
                return True
            extent += stride * (count - 1)
    return False


def _apart(array: Any) -> Any:
    """Gives each element its own memory if the receiver may write to it, as with every other pool."""
    return array.copy() if array.flags.writeable and overlaps(array) else array


def restore_view(*layout: Any) -> Any:
    return _apart(view(*layout))


def view(buffer: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], start: int) -> Any:
    import numpy

    if type(buffer) is memoryview and type(buffer.obj) in (bytearray, PrivateBuffer):
        # The view is read-only because the sender could not write to the memory. The private copy can be written.
        buffer = buffer.obj
    return numpy.ndarray(shape, dtype, buffer=buffer, offset=start, strides=strides)


def restore_part(owner: Any, *layout: Any) -> Any:
    """Restores an array that uses the memory of another one."""
    return view(owner if owner.flags.c_contiguous else owner.T, *layout)


def restore_read_only(restore: Callable[..., Any], layout: tuple[Any, ...]) -> Any:
    array = restore(*layout)
    array.flags.writeable = False
    return array


def restore_own(*layout: Any) -> Any:
    """Restores an array that the task may write to. In a sandbox, an array of 256 KiB or more is read-only."""
    return _apart(own_view(*layout))


def own_view(buffer: Any, *layout: Any) -> Any:
    if type(buffer) is Buffer and buffer.readonly:
        buffer = _private(buffer) or buffer
    return view(buffer, *layout)


#: What restores the same array with the elements that share memory in the program.
AS_IT_IS: dict[Any, Any] = {restore_view: view, restore_own: own_view}


def _private(buffer: Buffer) -> bytearray | PrivateBuffer | None:
    """Returns a private copy. From 256 KiB on, each page is copied when it is written; None if the system cannot do
    that."""
    return bytearray(buffer) if buffer.nbytes < COPIED else buffer.private_copy()


#: The largest size, in bytes, of arrays that own their memory.
_OWNED = 1024


def restore_small(data: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    import numpy

    made: Any = numpy.ndarray(shape, dtype, buffer=data, order=order)  # type: ignore[arg-type]
    # An array can be resized in place only if it owns its memory.
    return made.copy("K") if made.nbytes <= _OWNED else made


def own(buffers: Sequence[Any], private: bool) -> Sequence[Any]:
    """Returns the buffers, or `private` copies of those that this process cannot write to."""
    if private and buffers:
        return [
            buffer
            if type(buffer) is tuple or type(buffer) is Buffer and buffer.lendable
            else (type(buffer) is Buffer and _private_view(buffer)) or bytearray(buffer)
            for buffer in buffers
        ]
    return buffers


def _private_view(buffer: Buffer) -> bytearray | memoryview | None:
    """Returns a private copy, for objects that keep the buffer from which they are restored."""
    copy = _private(buffer)
    return memoryview(copy) if type(copy) is PrivateBuffer else copy
