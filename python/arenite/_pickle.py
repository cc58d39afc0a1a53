"""How calls and results become bytes, and memory of the arena.

A value is pickled with protocol 5. What is large goes beside the pickle as a list of buffers in the arena: memory that
lies there already is found by its address, whatever object holds it, and is passed without a copy; other buffers of
4 KiB and more are copied in once.

Functions and classes are pickled by reference where a worker can import them, and by value (with cloudpickle) where it
cannot: those of `__main__`, of a notebook, and of modules that no import finds.
"""

from __future__ import annotations

import sys
from io import BytesIO
from types import BuiltinFunctionType, FunctionType

from ._arenite import Buffer

# A worker imports this before its first task: `typing` and `pickle`, with all they import, take a fifth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from ._arenite import Engine

    class Arena(Protocol):
        """Where large buffers go: the arena of an engine, or of the running task."""

        def alloc(self, nbytes: int, zeroed: bool = False) -> Buffer: ...
        def find(self, address: int, nbytes: int, writable: bool = False) -> Buffer | None: ...
        def find_object(self, obj: Any) -> Buffer | None: ...
else:
    import _pickle as pickle

#: Buffers from this size on do not travel inside the pickle.
OUT_OF_BAND = 4096

#: Below this size, buffers stay inside of a pickle that has a quarter of the buffers that it may have.
_SMALL = 64 << 10

#: The pickle of the arguments is a tuple of positional ones, without keyword arguments.
POSITIONAL = 1
#: In the place of the function's pickle are its digest and the number of its buffers, which come first, after the pickle.
FUNCTION_IN_BUFFER = 2
#: The pickle of the arguments is a sequence of single arguments: one call for each.
MANY = 4
#: The same with a tuple of arguments for each call.
MANY_TUPLES = 8
#: A pickle of a function up to this length goes with each call.
_SHORT_FUNCTION = 1024
_DIGEST = 16

#: What the C pickler handles by itself.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})

#: Characters of the numpy types that their `str` identifies.
_NUMERIC = frozenset("?bBhHiIlLqQefdgFDGSUMm")

#: What pickling fails with, besides `PicklingError`, where cloudpickle may succeed.
_RETRY = (pickle.PicklingError, AttributeError, TypeError)


class _NeedsValue(Exception):
    """A function or class has to be pickled by value."""


class Beside:
    """What goes beside a pickle: buffers in the arena. Apart from the pickler, which would refer to itself otherwise and
    keep everything until the next collection of cycles."""

    #: How many buffers may go beside a pickle, if there is a limit: that of results, which workers set. Further ones stay
    #: inside of the pickle, small ones before.
    most: int | None = None

    def __init__(self, arena: Arena | None, private: bool) -> None:
        self.arena = arena
        self.private = private
        self.buffers: list[Buffer] = []
        self.copied = 0

    def take(self, view: pickle.PickleBuffer) -> bool:
        """Takes a buffer out of the pickle. Returns true if it is to stay inside."""
        if self.arena is None:
            return True
        raw = view.raw()
        owner = raw.obj
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

    def reduce_array(self, array: Any) -> Any:
        """Reduces an array: to the memory that it views."""
        dtype, arena = array.dtype, self.arena
        if dtype.hasobject or array.nbytes == 0 or arena is None or type(array).__name__ != "ndarray":
            return NotImplemented
        shape, strides = array.shape, array.strides
        low, high = _extent(array)
        kind = dtype.str if dtype.char in _NUMERIC and dtype.names is None and not dtype.metadata else dtype
        is_full = self.most is not None and self._is_full(array.nbytes)
        found = None if is_full else arena.find(low, high - low)
        order = "C" if array.flags.c_contiguous or not array.flags.f_contiguous else "F"
        if found is not None:
            start = array.__array_interface__["data"][0] - low
            return _restore_view, (pickle.PickleBuffer(found), kind, shape, strides, start)
        if array.nbytes < OUT_OF_BAND or is_full:
            data: Any = array.tobytes(order)
            return _restore_small, (bytearray(data) if self.private else data, kind, shape, order)
        import numpy

        found = arena.alloc(array.nbytes)
        copy: Any = numpy.ndarray(shape, dtype, buffer=found, order=order)  # type: ignore[arg-type]
        numpy.copyto(copy, array)
        self.copied += array.nbytes
        return _restore_view, (pickle.PickleBuffer(found), kind, shape, copy.strides, 0)


class _Hooks:
    """What both picklers do with arrays. Mixed into a subclass of `pickle.Pickler`."""

    beside: Beside

    def _reduce_object(self, obj: Any) -> Any:
        """Reduces arrays. Returns NotImplemented for everything else."""
        kind = type(obj)
        module = kind.__module__
        if module == "numpy":
            if kind.__name__ in ("ndarray", "memmap"):
                return self.beside.reduce_array(obj)
        elif module == "torch":
            if kind.__name__ == "Tensor":
                return self._reduce_tensor(obj)
        elif module == "arenite._arrays" and kind.__name__ == "Mut":
            return self._reduce_mut(obj)
        elif module == "multiprocessing.managers" and hasattr(obj, "_authkey"):
            return _restore_proxy, (bytes(obj._authkey), *obj.__reduce__()[:2])
        if "multiprocessing.reduction" in sys.modules:
            return _reduce_inherited(obj)
        return NotImplemented

    def _reduce_tensor(self, tensor: Any) -> Any:
        import torch

        if tensor.device.type != "cpu" or tensor.requires_grad or tensor.layout is not torch.strided:
            return NotImplemented
        try:
            return _restore_tensor, (tensor.numpy(),)
        except TypeError:  # A type of elements that numpy does not have.
            return NotImplemented

    def _reduce_mut(self, mut: Any) -> Any:
        array = mut.array
        arena = self.beside.arena
        if arena is None:
            raise TypeError("mut() is an argument of tasks, not of an initializer")
        low, high = _extent(array)
        # There may be read-only handles to the same memory: of tasks that have returned it.
        found = arena.find(low, high - low, True)
        if found is None:
            raise ValueError(
                "mut() takes an array of this executor's arena: make it with ex.empty(), ex.zeros() or ex.array()"
            )
        return _restore_mut, (pickle.PickleBuffer(found.lend()), array.dtype, array.shape)


_inherit: Any = None


def _reduce_inherited(obj: Any) -> Any:
    """Reduces objects of `multiprocessing`, and what it has reducers for."""
    global _inherit
    if _inherit is None:
        from . import _inherit as module

        _inherit = module
    return _inherit.reduce(obj)


def _extent(array: Any) -> tuple[int, int]:
    """Returns the addresses of the first byte of an array and behind its last one."""
    low = high = array.__array_interface__["data"][0]
    for count, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += stride * (count - 1)
        else:
            high += stride * (count - 1)
    return low, high + array.itemsize


def _restore_view(buffer: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], start: int) -> Any:
    import numpy

    return numpy.ndarray(shape, dtype, buffer=buffer, offset=start, strides=strides)


def _restore_small(data: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    import numpy

    return numpy.ndarray(shape, dtype, buffer=data, order=order)  # type: ignore[arg-type]


def _restore_proxy(key: bytes, function: Any, arguments: Any) -> Any:
    """Restores a proxy of a `multiprocessing.Manager`, whose server accepts processes that know its key."""
    from multiprocessing import current_process

    current_process().authkey = key
    return function(*arguments)


def _restore_mut(buffer: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    import numpy

    return numpy.ndarray(shape, dtype, buffer=buffer)


def _restore_tensor(array: Any) -> Any:
    import warnings

    import torch

    with warnings.catch_warnings():
        # Tensors know no read-only memory; a write ends the worker.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)


class _Pickler(_Hooks, pickle.Pickler):
    """Pickles by reference. Raises `_NeedsValue` at the first function or class that a worker cannot import."""

    def __init__(self, file: BytesIO, beside: Beside) -> None:
        super().__init__(file, 5, buffer_callback=beside.take)
        self.beside = beside

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (FunctionType, type)):
            if not is_importable(obj.__module__):
                raise _NeedsValue
            return NotImplemented
        return self._reduce_object(obj)


_value_pickler: type[Any] | None = None


def _by_value() -> type[Any]:
    """Returns the pickler that falls back to pickling by value. cloudpickle is imported when it is first needed."""
    global _value_pickler
    if _value_pickler is None:
        import cloudpickle

        class ValuePickler(_Hooks, cloudpickle.CloudPickler):  # type: ignore[misc]
            def __init__(self, file: BytesIO, beside: Beside) -> None:
                super().__init__(file, 5, buffer_callback=beside.take)
                self.beside = beside

            def reducer_override(self, obj: Any) -> Any:
                if isinstance(obj, (FunctionType, type)):
                    name = obj.__module__
                    if name != "__main__" and not is_importable(name) and name in sys.modules:
                        cloudpickle.register_pickle_by_value(sys.modules[name])
                else:
                    reduced = self._reduce_object(obj)
                    if reduced is not NotImplemented:
                        return reduced
                return super().reducer_override(obj)

        _value_pickler = ValuePickler
    return _value_pickler


def dump(
    value: Any, arena: Arena | None, private: bool = False, beside: Callable[[Arena | None, bool], Beside] = Beside
) -> tuple[bytes, list[Buffer], int]:
    """Pickles a value. Returns the pickle, the buffers beside it, and the number of bytes copied into the arena.

    Without an arena everything is inside the pickle. `private`: the receiver gets memory of its own to write to.
    `beside` makes what takes the arrays.
    """
    file, taken = BytesIO(), beside(arena, private)
    try:
        _Pickler(file, taken).dump(value)
    except (_NeedsValue, *_RETRY):
        file, taken = BytesIO(), beside(arena, private)
        _by_value()(file, taken).dump(value)
    return file.getvalue(), taken.buffers, taken.copied


def dump_plain(value: Any) -> bytes | None:
    """Pickles numbers, text, None and tuples of these; returns None for everything else."""
    kind = type(value)
    if kind is tuple:
        for item in value:
            if type(item) not in _PLAIN:
                return None
    elif kind not in _PLAIN:
        return None
    return pickle.dumps(value, 5)


#: Pickles of functions that workers import.
_functions: dict[Any, bytes] = {}


def dump_function(
    function: Any, arena: Arena | None, private: bool = False, beside: Callable[[Arena | None, bool], Beside] = Beside
) -> tuple[bytes, list[Buffer], int]:
    """Pickles a function. By reference it is pickled once; by value each time, since what it refers to may have
    changed."""
    is_plain = type(function) in (FunctionType, BuiltinFunctionType)
    if is_plain:
        known = _functions.get(function)
        if known is not None:
            return known, [], 0
    dumped = dump(function, arena, private, beside)
    if is_plain and _is_global(function):
        if len(_functions) >= 1024:
            _functions.clear()
        _functions[function] = dumped[0]
    return dumped


class Function:
    """A pickled function: what goes with each call of it."""

    __slots__ = ("head", "kind", "buffers", "copied")

    def __init__(self, head: bytes, kind: int, buffers: list[Buffer], copied: int) -> None:
        self.head = head
        self.kind = kind
        self.buffers = buffers
        self.copied = copied


def pickle_function(
    function: Any, engine: Engine, private: bool, beside: Callable[[Arena | None, bool], Beside] = Beside
) -> Function:
    """Pickles a function for any number of calls. A long pickle is put into the arena once."""
    data, buffers, copied = dump_function(function, engine, private, beside)
    if not buffers and len(data) <= _SHORT_FUNCTION:
        return Function(data, 0, buffers, copied)
    from hashlib import blake2b

    digest = blake2b(data, digest_size=_DIGEST).digest()
    head = digest + len(buffers).to_bytes(4, "little")
    return Function(head, FUNCTION_IN_BUFFER, [engine.copy(data), *buffers], copied)


def unpickle_function(head: bytes, kind: int, buffers: list[Any], private: bool, known: dict[bytes, Any]) -> Any:
    """Returns the function of a call, and takes what belongs to it out of the buffers. One that refers to memory of the
    arena is made for each call; `known` has the others."""
    data: Any = head
    own: list[Any] = []
    if kind & FUNCTION_IN_BUFFER:
        count = 1 + int.from_bytes(head[_DIGEST:], "little")
        data, *own = buffers[:count]
        del buffers[:count]
    if own:
        return load(data, own, private)
    function = known.get(head)
    if function is None:
        function = pickle.loads(data)
        if len(known) >= _MOST_KNOWN:
            del known[next(iter(known))]
        known[head] = function
    return function


#: How many functions a worker keeps.
_MOST_KNOWN = 256


def _is_global(function: Any) -> bool:
    """Whether a function is what an import of its module gives."""
    name = function.__module__
    module = sys.modules.get(name) if name else None
    return module is not None and is_importable(name) and getattr(module, function.__qualname__, None) is function


def load(data: Any, buffers: Sequence[Any], private: bool = False) -> Any:
    """Returns the value of a pickle. `private`: with memory of its own instead of views of the arena."""
    if private and buffers:
        buffers = [buffer if type(buffer) is Buffer and not buffer.readonly else bytearray(buffer) for buffer in buffers]
    return pickle.loads(data, buffers=buffers)


#: Whether a worker can import a module, by its name.
_importable: dict[str | None, bool] = {"builtins": True, "__main__": False, "__mp_main__": False}


def is_importable(name: str | None) -> bool:
    """Whether a worker finds the module of this name where this process has it from."""
    known = _importable.get(name)
    if known is None:
        known = _importable[name] = name is None or _is_found(name)
    return known


def _is_found(name: str) -> bool:
    module = sys.modules.get(name)
    if module is None:
        # Not a module: the pickler says what is wrong.
        return True
    ours = getattr(module, "__spec__", None)
    if ours is None:
        return False
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        if not is_importable(parent):
            return False
        path = getattr(sys.modules.get(parent), "__path__", None)
        if path is None:
            # A module that its parent makes, as `os.path`.
            return parent in sys.modules
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec = find(name, path) if find is not None else None
        except Exception:
            continue
        if spec is not None:
            return ours.origin is None or spec.origin is None or ours.origin == spec.origin
    # Extension modules may make others without a finder; those of a package that is found come with it.
    return bool(parent) and path is None
