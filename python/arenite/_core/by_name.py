"""`Pickler`: pickles data by value, and functions and classes by name if their name leads to them.

Functions and classes without a name, such as lambdas and closures, are pickled by value: see `by_value`.
"""

from __future__ import annotations

import builtins
import copyreg
import sys
from io import BytesIO
from types import FunctionType, ModuleType

from . import mirror, out_of_band, reach
from .process import imported

# A worker imports this before its first task: `typing` and `pickle`, with their imports, take a fifth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable
    from typing import Any

    from .codes import Names
else:
    import _pickle as pickle


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

    def __init__(self, file: BytesIO, beside: out_of_band.Beside) -> None:
        super().__init__(file, 5, buffer_callback=beside.take)
        _look_for_reducers()
        self.beside = beside
        #: The names in modules that the receiver cannot import, by module and name.
        self.names: set[tuple[str, str]] = set()
        #: The functions that refer to these names.
        self.users: dict[tuple[str, str], str] = {}
        self._spaces: dict[int, Any] = {}

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
        is_watched = package in _WATCHED or kind.__name__ in _BY_VALUE or _is_future(kind)
        if reduced is NotImplemented and not is_watched:
            if len(_simple) >= _MOST_SIMPLE:
                _simple.clear()
            _simple[kind] = True
        return reduced

    # ---- steps that `definitions` overrides

    def by_name(self, obj: Any, module: str, name: str) -> Any:
        """Reduces an object that this name leads to."""
        if not reach.is_importable(module):
            self.names.add((module, name.partition(".")[0]))
        return NotImplemented if isinstance(obj, (FunctionType, type)) else name

    def without_name(self, obj: Any, reduce: Callable[[Pickler, Any], Any]) -> Any:
        """Reduces a function or a class that has no name."""
        return reduce(self, obj)

    # ---- references of an object

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
                from .codes import words  # Not in each worker.

                self.may_refer(home, frozenset(words(value)))
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
        if names and home is not None and not reach.is_importable(home):
            self.names.update((home, f"{OPTIONAL}{name}") for name in names)

    def refer_module(self, module: ModuleType, names: Names | None = None) -> None:
        """Records a reference to a module, and to these names in it; without names, to all of them."""
        name = module.__name__
        if name in sys.modules and reach.is_importable(name):
            return
        if sys.modules.get(name) is not module:
            reach.unlisted[name] = module
        if names is None:
            # Skipped if code has named the attributes.
            if not any(home == name for home, _ in self.names):
                self.names.add((name, "*"))
        else:
            self.names.update((name, one) for one in (*names.others, "__getattr__") if one in vars(module))

    def space_of(self, space: dict[str, Any]) -> dict[str, Any]:
        """Returns the globals for functions of this pickle that have these globals: the same object for each of
        them."""
        known: dict[str, Any] | None = self._spaces.get(id(space))
        if known is None:
            known = self._spaces[id(space)] = {
                name: space[name] for name in ("__name__", "__file__", "__package__") if type(space.get(name)) is str
            }
        return known

    @staticmethod
    def can_pickle(value: Any) -> bool:
        try:
            Pickler(BytesIO(), out_of_band.Beside(None, False)).dump(value)
        except Exception:
            return False
        return True

    # ---- kinds of objects

    def reduce_function(self, function: FunctionType) -> Any:
        module, name = function.__module__, function.__qualname__
        if module == mirror.__name__:
            return NotImplemented  # Workers have this module: pickle refers to the function by name.
        if reach.is_reachable(function, module, name):
            return self.by_name(function, module, name)
        return self.without_name(function, load_by_value().reduce_function)

    def reduce_class(self, cls: type) -> Any:
        module, name = cls.__module__, cls.__qualname__
        if not cls.__flags__ & _HEAP_TYPE:
            if module == "builtins" and not hasattr(builtins, name):
                return load_by_value().reduce_builtin(cls)
            return NotImplemented
        if type(cls).__name__ == "JitClassType" and not reach.is_importable(module):
            raise TypeError(f"cannot pickle {name!r}, a class that numba has compiled")
        if reach.is_reachable(cls, module, name):
            return self.by_name(cls, module, name)
        if "__ctype_be__" in vars(cls) and (swapped := load_by_value().reduce_swapped(cls)):
            return swapped
        if cls.__flags__ & _IMMUTABLE_TYPE:
            return NotImplemented
        return self.without_name(cls, load_by_value().reduce_class)

    def _reduce_other(self, kind: type, obj: Any) -> Any:
        """Reduces an object whose type needs no special handling. If the type pickles by name, records the name."""
        module = kind.__module__
        if module == "dataclasses" or kind.__name__ in _BY_VALUE:
            _by_value = load_by_value()
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
                return load_by_value().reduce_descriptor(self, obj) if hasattr(kind, "__get__") else NotImplemented
        # Reduces it as the pickler would: the pickler does not show the reduced value.
        reduced = own(obj) if own is not None else obj.__reduce_ex__(5)
        return self._reduce_named(obj, reduced) if type(reduced) is str else reduced

    def _reduce_named(self, obj: Any, name: str) -> Any:
        module = getattr(obj, "__module__", None)
        if not isinstance(module, str):
            return name
        if reach.is_reachable(obj, module, name):
            return self.by_name(obj, module, name)
        _by_value = load_by_value()
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
        if self.beside.values is not None and _is_future(kind):
            return self.beside.values.reduce(obj, self.beside.arena)
        if imported("multiprocessing.reduction") is not None:
            from . import inherit

            return inherit.reduce(obj)
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
            return out_of_band.restore_small, (bytearray(), array.dtype, array.shape, "C")
        low, high = out_of_band.extent(array)
        # Read-only handles to the same memory may exist, for tasks that have returned it: searches for writable memory.
        found = arena.find(low, high - low, True)
        if found is None:
            raise ValueError(
                "mut() takes an array of this executor's arena: make it with ex.empty(), ex.zeros() or ex.array()"
            )
        start = array.__array_interface__["data"][0]
        if not array.flags.forc:
            found = found.for_array(start, array.itemsize, array.shape, array.strides)
        return out_of_band.view, (
            pickle.PickleBuffer(found.lend()),
            array.dtype,
            array.shape,
            array.strides,
            start - low,
        )


def _is_future(kind: type) -> bool:
    """Whether objects of a type are futures, of threads, processes or asyncio."""
    threads = imported("concurrent.futures._base")
    return threads is not None and issubclass(kind, threads.Future) or hasattr(kind, "_asyncio_future_blocking")


def _restore_tensor(array: Any) -> Any:
    import warnings

    import torch

    with warnings.catch_warnings():
        # torch has no read-only tensors. A write ends the worker.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)


#: Reducers that pickle by value, by type; empty until `by_value` is loaded.
reducers: dict[type, Callable[[Pickler, Any], Any]] = {}


def load_by_value() -> Any:
    """Returns the module `by_value`. Few workers need it."""
    from . import by_value

    if not reducers:
        reducers.update(by_value.REDUCERS)
    return by_value


#: Flags of types.
_IMMUTABLE_TYPE, _HEAP_TYPE = 1 << 8, 1 << 9
#: The names of the types that `by_value` reduces.
_BY_VALUE = frozenset(
    "CDLL PyDLL Scanner SystemRandom WeakKeyDictionary WeakSet WeakValueDictionary _AsyncGeneratorContextManager "
    "_GeneratorContextManager cached_property cell classmethod code mappingproxy method module property "
    "staticmethod".split()
)


def _is_added(name: str) -> bool:
    """Whether the program has added a builtin of this name, as `gettext.install` does."""
    value = vars(builtins).get(name)
    if value is None or name.startswith("__") or name in ("True", "False", "Ellipsis", "NotImplemented"):
        return False
    return getattr(value, "__module__", None) not in ("builtins", "io", "_io", "_sitebuiltins")
