"""Encodes calls and results as bytes and memory of the arena.

A value is pickled with protocol 5. Large data is not part of the pickle, but of a list of buffers in the arena. Memory
that is in the arena already is found by its address, whatever object refers to it, and is passed without a copy. Other
buffers of 4 KiB and more are copied into the arena once.

Data is pickled by value. Objects that a module of the program defines are pickled by name; if a worker cannot import
that module, such as `__main__` or a notebook, `definitions` sends the definitions separately. Functions and classes
without such a name, such as lambdas and closures, are pickled by value: see `by_value`.
"""

from __future__ import annotations

import builtins
import copyreg
import sys
from io import BytesIO
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from weakref import ref

from .._arenite import Buffer, PrivateBuffer
from . import mirror
from .process import imported

# A worker imports this before its first task: `typing` and `pickle`, with their imports, take a fifth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Sequence
    from functools import partial
    from typing import Any, Protocol

    from .by_value import Names
    from .definitions import Bundle, Definitions

    class Arena(Protocol):
        """The arena of an engine or of the running task, for large buffers."""

        def alloc(self, nbytes: int, zeroed: bool = False) -> Buffer: ...
        def find(self, address: int, nbytes: int, writable: bool = False) -> Buffer | None: ...
        def find_object(self, obj: Any) -> Buffer | None: ...
else:
    import _pickle as pickle
    from _functools import partial

#: The size from which on a buffer is not part of the pickle.
OUT_OF_BAND = 4096

#: After a quarter of the allowed buffers, buffers below this size are part of the pickle.
_SMALL = 64 << 10

#: Below this size, copying an array costs less than mapping it.
COPIED = 256 << 10

#: The pickle of the arguments is a tuple of positional arguments, without keyword arguments.
POSITIONAL = 1
#: Instead of the function's pickle, the call has its digest and the number of its buffers. The buffers begin with the
#: function's pickle and its buffers.
FUNCTION_IN_BUFFER = 2
#: The pickle of the arguments is a sequence of single arguments, one for each call.
MANY = 4
#: The pickle of the arguments is a sequence of argument tuples, one for each call.
MANY_TUPLES = 8
#: Definitions precede the function's pickle, and their buffers come first: see `mirror.define`.
DEFINITIONS = 16
#: Instead of the function's pickle, the call has the names of its module and of itself.
NAMED = 32
#: A worker may keep the function: no object that it refers to can change.
KEPT = 64
#: The arguments are a packet of calls, for `worker.run_packet`. Its journal is the first buffer of the arguments.
#: (`context` defines the bits in between.)
PACKED = 512
JOURNALED = 1024
#: The calls of a packet may share their function, although it is pickled by value.
SHARED = 2048
#: The longest pickle of a function that is part of each call.
_SHORT_FUNCTION = 1024
_DIGEST = 16

#: Types that the C pickler handles alone.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})

#: The characters of numpy types that `str` identifies, and the number of numpy's own types. Types of other libraries
#: have some of these characters, too.
_NUMERIC, _OWN_TYPES = frozenset("?bBhHiIlLqQefdgFDGSUMm"), 24


class Beside:
    """The buffers of a pickle, in the arena. Separate from the pickler: otherwise the pickler would refer to itself,
    and keep everything until the next collection of cycles."""

    #: The largest number of buffers; None without a limit. Workers set it for results. Further buffers are part of the
    #: pickle; small ones before the limit.
    most: int | None = None

    #: Whether the receiver may write to arrays whose memory was not shared on purpose.
    gives = False

    def __init__(self, arena: Arena | None, private: bool) -> None:
        self.arena = arena
        self.private = private
        self.buffers: list[Buffer] = []
        self.copied = 0

    def take(self, view: pickle.PickleBuffer) -> bool:
        """Takes a buffer out of the pickle. Returns true if the buffer remains part of the pickle."""
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
        return all(numpy.array_equal(array[at : at + _PART], copy[at : at + _PART]) for at in range(0, len(array), _PART))
    return bool(array.tobytes() == copy.tobytes())


#: The number of elements that are compared at a time.
_PART = 1 << 16
#: Packages whose types are checked each time.
_WATCHED = {"numpy", "torch", "arenite", "multiprocessing"}
#: Types without special handling. Their number is limited, because the table keeps them alive.
_simple: dict[type, bool] = {}
#: The types of arrays, which are looked for first.
_arrays: set[type] = set()
_MOST_SIMPLE = 1024
#: The number of types for which `multiprocessing` had reducers at the last check.
_reducers_of_others = 0


def _look_for_reducers() -> None:
    """Checks all types again if the number of `multiprocessing` reducers, built-in or registered, has grown."""
    global _reducers_of_others
    reduction = imported("multiprocessing.reduction")
    if reduction is not None and len(reduction.ForkingPickler._extra_reducers) != _reducers_of_others:
        _reducers_of_others = len(reduction.ForkingPickler._extra_reducers)
        _simple.clear()


#: Precedes a name that the receiver may not need: it gets the name if it can be pickled.
OPTIONAL = "?"


class Pickler(pickle.Pickler):
    """Pickles data by value, and functions and classes by name if their name leads to them."""

    #: Whether functions of importable modules are sent with copies of the globals that they name.
    copies_globals = False

    def __init__(self, file: BytesIO, beside: Beside) -> None:
        super().__init__(file, 5, buffer_callback=beside.take)
        _look_for_reducers()
        self.beside = beside
        #: The names in modules that the receiver cannot import, by module and name. For a reloaded module the pair is
        #: "" and the name of the module.
        self.names: set[tuple[str, str]] = set()
        #: The functions that refer to these names.
        self.users: dict[tuple[str, str], str] = {}
        self._spaces: dict[int, dict[str, Any]] = {}

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _simple:
            return NotImplemented
        if kind in _arrays and (reduced := self.beside.reduce_array(obj)) is not NotImplemented:
            return reduced
        if kind is FunctionType:
            return self.reduce_function(obj)
        if issubclass(kind, type):
            return self.reduce_class(obj)
        own = reducers.get(kind)
        if own is not None:
            return own(self, obj)
        reduced = self._reduce_object(obj)
        if reduced is NotImplemented:
            reduced = self._reduce_other(kind, obj)
        package = str(kind.__module__).partition(".")[0]
        if reduced is NotImplemented and package not in _WATCHED and kind.__name__ not in _BY_VALUE:
            if len(_simple) >= _MOST_SIMPLE:
                _simple.clear()
            _simple[kind] = True
        return reduced

    # ---- steps that `definitions` overrides

    def by_name(self, obj: Any, module: str, name: str) -> Any:
        """Reduces an object that this name leads to."""
        if is_importable(module):
            self.note_module(module)
        else:
            self.names.add((module, name.partition(".")[0]))
        return NotImplemented if isinstance(obj, (FunctionType, type)) else name

    def without_name(self, obj: Any, reduce: Callable[[Pickler, Any], Any]) -> Any:
        """Reduces a function or a class that has no name."""
        return reduce(self, obj)

    def complete(self, _: Any, reduced: Any) -> Any:
        """Returns the reduced form of an object, as its type makes it."""
        return reduced

    # ---- references of an object

    def note_module(self, name: str) -> None:
        """Records a reference to a module that the receiver imports."""
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        if _specs.setdefault(name, spec) is not spec:
            self.names.add(("", name))

    def refer(self, function: FunctionType, home: str, names: Names) -> None:
        """Records that a function refers to these names, with globals of a module of the program."""
        space = function.__globals__
        for name in names.globals:
            # A global may hide a builtin later.
            self.names.add((home, name))
            self.users.setdefault((home, name), function.__qualname__)
            value = space.get(name)
            if isinstance(value, ModuleType):
                self.refer_module(value, names)
            elif type(value) is str:
                self.may_refer(home, frozenset(by_value().words(value)))
            elif name not in space and _is_added(name):
                self.names.add(("builtins", f"{OPTIONAL}{name}"))
        if space.get("__package__"):
            # Relative imports need it.
            self.names.add((home, "__package__"))
        if names.is_open:
            # The function may look up any global.
            self.names.add((home, "*"))
        self.may_refer(home, names.texts)
        if "__main__" in names.others and (main := sys.modules.get("__main__")):
            self.refer_module(main, names)
            if names.is_open:
                self.names.add(("__main__", "*"))

    def may_refer(self, home: str | None, names: frozenset[str]) -> None:
        """Records that text has these names, some of which may be globals of a module of the program, now or later."""
        if names and home is not None and not is_importable(home):
            self.names.update((home, f"{OPTIONAL}{name}") for name in names)

    def refer_module(self, module: ModuleType, names: Names | None = None) -> None:
        """Records a reference to a module, and to these names in it; without names, to all of them."""
        name = module.__name__
        if name in sys.modules and is_importable(name):
            return
        if sys.modules.get(name) is not module:
            unlisted[name] = module
        if names is None:
            # Skipped if code has named the attributes.
            if not any(home == name for home, _ in self.names):
                self.names.add((name, "*"))
        else:
            self.names.update((name, one) for one in (*names.others, "__getattr__") if one in vars(module))

    def space_of(self, space: dict[str, Any]) -> dict[str, Any]:
        """Returns the globals for functions of this pickle that have these globals: the same object for each of
        them."""
        known = self._spaces.get(id(space))
        if known is None:
            known = self._spaces[id(space)] = {
                name: space[name] for name in ("__name__", "__file__", "__package__") if type(space.get(name)) is str
            }
        return known

    # ---- kinds of objects

    def reduce_function(self, function: FunctionType) -> Any:
        module, name = function.__module__, function.__qualname__
        if module == mirror.__name__:
            return NotImplemented  # Workers have this module: pickle refers to the function by name.
        if is_reachable(function, module, name):
            return self.by_name(function, module, name)
        _by_value = by_value()
        if _by_value.is_singledispatch(function):
            return self.without_name(function, _by_value.reduce_singledispatch)
        return self.without_name(function, _by_value.reduce_function)

    def reduce_class(self, cls: type) -> Any:
        module, name = cls.__module__, cls.__qualname__
        if module == "_ctypes" and issubclass(cls, type):
            import ctypes

            return type, (getattr(ctypes, by_value().METACLASSES[name]),)
        if not cls.__flags__ & _HEAP_TYPE:
            if module == "builtins" and not hasattr(builtins, name):
                return by_value().reduce_builtin(cls)
            return NotImplemented
        if type(cls).__name__ == "JitClassType" and not is_importable(module):
            return by_value().reduce_jitclass(cls)
        if is_reachable(cls, module, name):
            return self.by_name(cls, module, name)
        if "__ctype_be__" in vars(cls) and (swapped := by_value().reduce_swapped(cls)):
            return swapped
        if cls.__flags__ & _IMMUTABLE_TYPE:
            return NotImplemented
        return self.without_name(cls, by_value().reduce_class)

    def _reduce_other(self, kind: type, obj: Any) -> Any:
        """Reduces an object whose type needs no special handling. If the type pickles by name, records the name."""
        module = kind.__module__
        if module == "dataclasses" or kind.__name__ in _BY_VALUE:
            _by_value = by_value()
            reduce = reducers.get(kind) or _by_value.RARE.get(f"{module}.{kind.__name__}")
            if reduce is not None:
                return reduce(self, obj)
            marker = _by_value.reduce_marker(obj) if module == "dataclasses" else NotImplemented
            if marker is not NotImplemented:
                return marker
        own: Any = copyreg.dispatch_table.get(kind)
        if own is None:
            ways: Any = kind
            if ways.__reduce_ex__ is object.__reduce_ex__ and ways.__reduce__ is object.__reduce__:
                return by_value().reduce_descriptor(self, obj) if hasattr(kind, "__get__") else NotImplemented
        # Reduces it as the pickler would: the pickler does not show the reduced value.
        reduced = own(obj) if own is not None else obj.__reduce_ex__(5)
        if type(reduced) is str:
            return self._reduce_named(obj, reduced)
        return reduced if own is not None else self.complete(obj, reduced)

    def _reduce_named(self, obj: Any, name: str) -> Any:
        module = getattr(obj, "__module__", None)
        if not isinstance(module, str):
            return name
        if is_reachable(obj, module, name):
            return self.by_name(obj, module, name)
        _by_value = by_value()
        return self.without_name(obj, _by_value.reduce_named) if _by_value.has_definition(obj) else name

    def _reduce_object(self, obj: Any) -> Any:
        """Reduces arrays. Returns NotImplemented for everything else."""
        kind = type(obj)
        module = kind.__module__
        if module == "numpy":
            if kind.__name__ in ("ndarray", "memmap"):
                _arrays.add(kind)
                return self.beside.reduce_array(obj)
        elif module == "torch":
            if kind.__name__ == "Tensor":
                return self._reduce_tensor(obj)
        elif module == "arenite._core.arrays" and kind.__name__ == "Mut":
            return self._reduce_mut(obj)
        elif module == "multiprocessing.managers" and hasattr(obj, "_authkey"):
            return _restore_proxy, (bytes(obj._authkey), *obj.__reduce__()[:2])
        if imported("multiprocessing.reduction") is not None:
            return _reduce_inherited(obj)
        return NotImplemented

    def _reduce_tensor(self, tensor: Any) -> Any:
        import torch

        if tensor.device.type != "cpu" or tensor.requires_grad or tensor.layout is not torch.strided:
            return NotImplemented
        try:
            return _restore_tensor, (tensor.numpy(),)
        except TypeError:  # numpy lacks this type of elements.
            return NotImplemented

    def _reduce_mut(self, mut: Any) -> Any:
        array = mut.array
        arena = self.beside.arena
        if arena is None:
            raise TypeError("mut() is an argument of tasks, not of an initializer")
        if array.nbytes == 0:
            return restore_small, (bytearray(), array.dtype, array.shape, "C")
        low, high = extent(array)
        # Read-only handles to the same memory may exist, for tasks that have returned it: searches for writable memory.
        found = arena.find(low, high - low, True)
        if found is None:
            raise ValueError(
                "mut() takes an array of this executor's arena: make it with ex.empty(), ex.zeros() or ex.array()"
            )
        start = array.__array_interface__["data"][0]
        if not array.flags.forc:
            found = found.for_array(start, array.itemsize, array.shape, array.strides)
        return view, (pickle.PickleBuffer(found.lend()), array.dtype, array.shape, array.strides, start - low)


_inherit: Any = None


def _reduce_inherited(obj: Any) -> Any:
    """Reduces objects of `multiprocessing`, and types for which it has reducers."""
    global _inherit
    if _inherit is None:
        from . import inherit as module

        _inherit = module
    return _inherit.reduce(obj)


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


def _restore_proxy(key: bytes, function: Any, arguments: Any) -> Any:
    """Restores a proxy of a `multiprocessing.Manager`, whose server accepts processes that know its key."""
    from multiprocessing import current_process

    current_process().authkey = key
    return function(*arguments)


def _restore_tensor(array: Any) -> Any:
    import warnings

    import torch

    with warnings.catch_warnings():
        # torch has no read-only tensors. A write ends the worker.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)


#: Modules that are not in `sys.modules`, by name.
unlisted: dict[str, ModuleType] = {}
#: Reducers that pickle by value, by type; empty until `by_value` is loaded.
reducers: dict[type, Callable[[Pickler, Any], Any]] = {}
_by_value_module: Any = None


def by_value() -> Any:
    """Returns the module `by_value`. Few workers need it."""
    global _by_value_module
    if _by_value_module is None:
        from . import by_value as _by_value_module
    return _by_value_module


#: Flags of types.
_IMMUTABLE_TYPE, _HEAP_TYPE = 1 << 8, 1 << 9
#: The names of the types that `by_value` reduces.
_BY_VALUE = frozenset(
    "WeakKeyDictionary WeakSet WeakValueDictionary _AsyncGeneratorContextManager _GeneratorContextManager "
    "cached_property cell classmethod code dict_items dict_keys dict_values mappingproxy memoryview method module "
    "odict_items odict_keys odict_values property staticmethod CDLL KeyWrapper PyDLL Scanner SystemRandom _FuncPtr "
    "count ufunc ClassInstanceType _CustomPickled".split()
)
#: Names in `__module__` under which no module can be imported.
_absent: set[str] = set()
#: The specification of each module when a pickle first referred to it. A reload makes another specification.
_specs: dict[str, Any] = {}


def _is_added(name: str) -> bool:
    """Whether the program has added a builtin of this name, as `gettext.install` does."""
    value = vars(builtins).get(name)
    if value is None or name.startswith("__") or name in ("True", "False", "Ellipsis", "NotImplemented"):
        return False
    return getattr(value, "__module__", None) not in ("builtins", "io", "_io", "_sitebuiltins")


def is_reachable(obj: Any, module: str | None, name: str) -> bool:
    """Whether this name in this module leads to the object. Imports the module, as pickle does: a package may give its
    classes the name of a module that only some programs import."""
    if not module or "<" in name:
        return False
    found: Any = sys.modules.get(module)
    if found is None:
        if module not in _absent:
            try:
                __import__(module)
            except Exception:
                _absent.add(module)
        found = sys.modules.get(module)
    try:
        for part in name.split("."):
            found = getattr(found, part, None)
    except Exception:  # A descriptor that only objects of the class can use.
        return False
    return found is obj


def dump(
    value: Any, arena: Arena | None, private: bool = False, beside: Callable[[Arena | None, bool], Beside] = Beside
) -> tuple[bytes, list[Buffer], int]:
    """Pickles a value. Returns the pickle, its buffers, and the number of bytes copied into the arena.

    Without an arena, all data is part of the pickle. `private`: the receiver may write to its copies. `beside`: makes
    the object that takes the arrays.
    """
    file, taken = BytesIO(), beside(arena, private)
    Pickler(file, taken).dump(value)
    return file.getvalue(), taken.buffers, taken.copied


def dump_plain(value: Any) -> bytes | None:
    """Pickles numbers, text, None and tuples of these. Returns None for other values."""
    kind = type(value)
    if kind is tuple:
        for item in value:
            if type(item) not in _PLAIN:
                return None
    elif kind not in _PLAIN:
        return None
    return pickle.dumps(value, 5)


class Function:
    """A pickled function: the part of a call that is the same for all its calls."""

    __slots__ = ("head", "kind", "buffers", "copied", "names", "own", "_bundle", "_definitions", "_source")

    def __init__(
        self,
        data: bytes,
        kind: int,
        buffers: list[Buffer],
        copied: int,
        names: frozenset[tuple[str, str]],
        definitions: Definitions,
        source: tuple[Any, Pickler] | None = None,
    ) -> None:
        #: The function and its pickler, whose memo has the objects of the function, if tasks can change them.
        self._source = source
        #: The head, the kind and the buffers of a call.
        self.head = data
        self.kind = kind
        self.buffers = buffers
        #: The number of bytes that were copied for it.
        self.copied = copied
        #: The names in the program's modules that it refers to.
        self.names = names
        #: Head, kind and buffers without definitions.
        self.own = data, kind, buffers
        self._bundle: Bundle | None = None
        # The definitions refer to this object, and the executor refers to the definitions.
        self._definitions = ref(definitions)
        if names:
            self._bundle = definitions.bundle(names)
            self.head, self.kind, self.buffers = self._bundle.before(*self.own)

    def is_current(self) -> bool:
        """Whether the objects that this function refers to are unchanged since they were last sent."""
        return self._bundle is None or self._bundle.is_current()

    def holds(self, part: Any) -> bool:
        """Whether the definitions of this function contain this part."""
        return self._bundle is not None and self._bundle.holds(part)

    def referring_to(self, names: set[tuple[str, str]], definitions: Definitions) -> Function:
        """Returns a copy of this function that also sends the definitions of these names, to which the arguments of a
        call refer."""
        return Function(*self.own, 0, self.names | names, definitions, self._source)

    def has_objects(self) -> bool:
        """Whether the function contains containers that `Stock` would write without a pickler."""
        if self._source is None:
            return False
        function, pickler = self._source
        own = id(function.keywords) if issubclass(type(function), partial) else None
        return any(key != own and type(one) in _CHANGED for key, (_, one) in pickler.memo.copy().items())

    def picklers(self) -> list[Pickler] | None:
        """Returns a list for the pickler of arguments; None if the function shares no objects with them."""
        return None if self._source is None else []

    def shares(self, picklers: list[Pickler] | None) -> bool:
        """Whether the function contains objects of the arguments that tasks can change or compare."""
        if not picklers or self._source is None:
            return False
        memo = picklers[0].memo.copy()
        return any(has_identity(memo[key][1]) for key in memo.keys() & self._source[1].memo.copy().keys())

    def call(
        self, call: Any, kind: int, private: bool, beside: Callable[[Arena | None, bool], Beside] = Arguments
    ) -> tuple[bytes, bytes, int, list[Buffer], int]:
        """Pickles the arguments of a call. Returns head, pickle, kind and buffers of the call, and the number of bytes
        copied."""
        definitions = self._definitions()
        if definitions is None:
            raise RuntimeError("the executor of this function is gone")
        picklers = self.picklers()
        data, buffers, copied, names = definitions.dump(call, private, beside, picklers)
        if self.shares(picklers):
            # One pickle keeps them the same.
            assert self._source is not None
            call, kind = _together(self._source[0], call, kind)
            return pickle_function(call_together, definitions, private).call(call, kind, private, beside)
        if names <= self.names:
            return self.head, data, self.kind | kind, [*self.buffers, *buffers], copied
        head, own, before = definitions.bundle(self.names | names).before(*self.own)
        return head, data, own | kind, [*before, *buffers], copied


def call_together(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _together(function: Any, call: Any, kind: int) -> tuple[Any, int]:
    """Returns the arguments of calls of `call_together`, and their kind."""
    if kind & MANY:
        return [(function, one) for one in call], kind & ~MANY | MANY_TUPLES
    if kind & MANY_TUPLES:
        return [(function, *one) for one in call], kind
    if kind & POSITIONAL:
        return (function, *call), kind
    return ((function, *call[0]), call[1]), kind


#: Containers that `Stock` writes without a pickler, and that tasks can change.
_CHANGED = frozenset({list, dict, set})
#: Types whose objects cannot change. They are compared by value.
_VALUES: tuple[Any, ...] = (
    *(*_PLAIN, tuple, frozenset, range, slice, type(...), type(NotImplemented), CodeType, property, classmethod),
    *(staticmethod, FunctionType, BuiltinFunctionType, type, ModuleType),
)
#: The names of such types in libraries, and of types whose objects have names of their own.
_VALUES_OF_LIBRARIES = frozenset(
    "Decimal ExtensionDtype Fraction Logger Pattern PurePath Timestamp UUID ZoneInfo date datetime device dtype "
    "generic time timedelta timezone ufunc".split()
)


def has_identity(obj: Any) -> bool:
    """Whether a task can change an object, or tells it from an equal one."""
    kind = type(obj)
    if kind in _CHANGED:
        return True
    if kind in _VALUES or issubclass(kind, (type, ModuleType)) or hasattr(kind, "__members__"):
        return False
    if "__qualname__" in vars(kind):
        return False  # A function of an extension module, such as one of Cython.
    is_value = issubclass(kind, _VALUES) or not _VALUES_OF_LIBRARIES.isdisjoint(one.__name__ for one in kind.__mro__)
    return not (is_value and is_of_library(kind))


def is_standard(module: str) -> bool:
    """Whether a module is of the standard library."""
    return module.partition(".")[0] in sys.stdlib_module_names


def is_of_library(kind: type) -> bool:
    """Whether a type is not of the program: Python or an installed package defines it."""
    module = str(kind.__module__)
    if is_standard(module):
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def pickle_function(
    function: Any,
    definitions: Definitions,
    private: bool,
    beside: Callable[[Arena | None, bool], Beside] = Arguments,
) -> Function:
    """Pickles a function for any number of calls. Puts a long pickle into the arena once. A function with a name is
    pickled once; another function each time, because the objects that it refers to may have changed."""
    is_plain = type(function) in (FunctionType, BuiltinFunctionType, type)
    if is_plain:
        known = definitions.functions.get(function)
        if known is not None and known.is_current() and is_global(function):
            return known
    if is_plain and is_global(function):
        names: set[tuple[str, str]] = set()
        data = f"{function.__module__}:{function.__qualname__}".encode()
        definitions.refer(function, names)
        if len(definitions.functions) >= _MOST_FUNCTIONS:
            definitions.functions.clear()
        made = definitions.functions[function] = Function(data, NAMED, [], 0, frozenset(names), definitions)
        return made
    kind = 0
    held: list[Any] = []
    if type(function) is FunctionType and by_value().is_constant(function, held):
        kind = KEPT
        if (known := definitions.constant(function, held)) is not None:
            return known
    picklers: list[Pickler] | None = None if kind else []
    data, buffers, copied, found = definitions.dump(function, private, beside, picklers)
    if buffers or len(data) > _SHORT_FUNCTION:
        from hashlib import blake2b

        digest = blake2b(data, digest_size=_DIGEST).digest() if kind else bytes(_DIGEST)
        buffers = [definitions.copy(data), *buffers]
        data, kind = digest + (len(buffers) - 1).to_bytes(4, "little"), kind | FUNCTION_IN_BUFFER
    source = (function, picklers[0]) if picklers else None
    made = Function(data, kind, buffers, copied, frozenset(found), definitions, source)
    if kind & KEPT:
        definitions.keep(function, held, made)
    return made


#: The number of functions for which an executor stores names.
_MOST_FUNCTIONS = 1024


def unpickle_function(head: bytes, kind: int, buffers: list[Any], private: bool, known: dict[bytes, Any]) -> Any:
    """Returns the function of a call, and removes its buffers from `buffers`. `known`: functions that cannot change,
    each with the number of changes of definitions before it was loaded, and the places of functions with a name."""
    function, make = open_function(head, kind, buffers, private, known)
    return function if make is None else make()


def open_function(
    head: bytes, kind: int, buffers: list[Any], private: bool, known: dict[bytes, Any]
) -> tuple[Any, Callable[[], Any] | None]:
    """Like `unpickle_function`, for any number of calls. Returns the function, or a factory that makes it for each
    call."""
    if kind & DEFINITIONS:
        head = mirror.define(head, buffers, private)
    if kind & NAMED:
        place = known.get(head)
        if place is None:
            module, _, name = head.decode().partition(":")
            place = module, name.split(".")
            # Waits for another lane that imports the module now.
            __import__(module)
            _keep(known, head, place)
        return _find(*place), None
    data: Any = head
    own: list[Any] = []
    if kind & FUNCTION_IN_BUFFER:
        count = 1 + int.from_bytes(head[_DIGEST:], "little")
        data, *own = buffers[:count]
        del buffers[:count]
    if not kind & KEPT:
        return None, lambda: load(data, own, private)
    changes = mirror.changes()
    function, loaded = known.get(head, (None, -1))
    if loaded != changes:
        # The functions and classes that it refers to by name may be others now.
        function = load(data, own, private)
        _keep(known, head, (function, changes))
    return function, None


def _keep(known: dict[bytes, Any], head: bytes, value: Any) -> None:
    if len(known) >= _MOST_KNOWN:
        known.pop(next(iter(known)), None)
    known[head] = value


def _find(module: str, names: list[str]) -> Any:
    """Finds a function by name at each call: its module may have been reloaded, or may have replaced the function."""
    found: Any = sys.modules.get(module)
    if found is None:
        __import__(module)
        found = sys.modules[module]
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError:
            raise AttributeError(f"Can't get attribute {'.'.join(names)!r} on {sys.modules[module]!r}") from None
    return found


#: The number of functions that a worker stores.
_MOST_KNOWN = 256


def is_global(function: Any) -> bool:
    """Whether the function's name in its module leads to the function."""
    return is_reachable(function, function.__module__, function.__qualname__)


def load(data: Any, buffers: Sequence[Any], private: bool = False) -> Any:
    """Returns the value of a pickle. `private`: with private copies instead of views of the arena. From 256 KiB on,
    each page is copied when it is written."""
    return pickle.loads(data, buffers=own(buffers, private))


def own(buffers: Sequence[Any], private: bool) -> Sequence[Any]:
    """Returns the buffers, or `private` copies of those that this process cannot write to."""
    if private and buffers:
        return [
            buffer
            if type(buffer) is Buffer and buffer.lendable
            else (type(buffer) is Buffer and _private_view(buffer)) or bytearray(buffer)
            for buffer in buffers
        ]
    return buffers


def _private_view(buffer: Buffer) -> bytearray | memoryview | None:
    """Returns a private copy, for objects that keep the buffer from which they are restored."""
    copy = _private(buffer)
    return memoryview(copy) if type(copy) is PrivateBuffer else copy


#: The specification of a module when it was looked for, and whether a worker can import it, by its name.
_importable: dict[str, tuple[Any, bool]] = {}
#: Modules that no worker has to look for.
_FIXED: dict[str | None, bool] = {None: True, "builtins": True, "__main__": False, "__mp_main__": False}


def is_importable(name: str | None) -> bool:
    """Whether a worker finds the module with this name in the place from where this process has loaded it."""
    if name in _FIXED:
        return _FIXED[name]
    module = sys.modules.get(name)  # type: ignore[arg-type]
    if module is None:
        # No module has this name yet: the pickler reports the error.
        return True
    spec = getattr(module, "__spec__", None)
    known = _importable.get(name)  # type: ignore[arg-type]
    if known is None or known[0] is not spec:
        known = _importable[name] = spec, _is_found(name, spec)  # type: ignore[index, arg-type]
    return known[1]


def _is_found(name: str, ours: Any) -> bool:
    if ours is None:
        return False
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        if not is_importable(parent):
            return False
        path = getattr(sys.modules.get(parent), "__path__", None)
        if path is None:
            # The parent package makes this module, such as `os.path`.
            return parent in sys.modules
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec = find(name, path) if find is not None else None
        except Exception:
            continue
        if spec is not None:
            return ours.origin is None or spec.origin is None or ours.origin == spec.origin
    # An extension module may make further modules without a finder. They exist in the worker if their package is found.
    return bool(parent) and path is None
