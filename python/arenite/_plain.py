"""What a sandboxed task may return: plain values.

Its worker may run hostile code, and a pickle can call anything. So the worker pickles numbers, text, bytes, containers,
dates and arrays only, and the program unpickles nothing else: it checks the opcodes, and the names of what is called are
in a list.
"""

from __future__ import annotations

import builtins
import io
import pickle
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

from . import _errors, _pickle
from ._arenite import Buffer, check_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a pickle may call, by its module: functions and types of the standard library that keep their arguments, and those
#: of this module, which check them.
_CALLED = {
    "builtins": {"complex", "range", "slice"},
    "collections": {"Counter", "OrderedDict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "arenite._plain": {"_array", "_exception", "_scalar"},
    "arenite._worker": {"Raised"},
}
#: Attributes of exceptions that are sent.
_ATTRIBUTES = ("__notes__", "name", "limit", "requested", "free", "capacity", "largest_free")


class _PlainPickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, beside: _pickle.Beside) -> None:
        super().__init__(file, 5, buffer_callback=beside.take)
        self.beside = beside

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind.__module__ == "numpy":
            return self._reduce_numpy(obj)
        if isinstance(obj, BaseException):
            return _reduce_exception(obj)
        # The object itself, or what makes it.
        called = obj if isinstance(obj, (type, FunctionType)) else kind
        if called.__qualname__ in _CALLED.get(called.__module__, ()):
            return NotImplemented
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        raise TypeError(
            f"a task in a sandbox cannot return an object of type {name}: return numbers, text, bytes, dates, numpy "
            "arrays of these, and lists, tuples, sets and dictionaries"
        )

    def _reduce_numpy(self, obj: Any) -> Any:
        import numpy

        if type(obj) is numpy.ndarray and not obj.dtype.hasobject:
            reduced = self.beside.reduce_array(obj)
            if reduced is NotImplemented:
                order: Any = "C" if obj.flags.c_contiguous or not obj.flags.f_contiguous else "F"
                return _array, (obj.tobytes(order), _description(obj.dtype), obj.shape, order)
            restore, (data, _, *more) = reduced
            shape, *layout = more
            if restore is _pickle._restore_small:
                return _array, (bytes(data), _description(obj.dtype), shape, layout[0])
            return _array, (data, _description(obj.dtype), shape, None, *layout)
        if isinstance(obj, numpy.generic) and not obj.dtype.hasobject:
            if not obj.nbytes:
                return _scalar, (bytes(4), f"{obj.dtype.kind}1")
            return _scalar, (obj.tobytes(), _description(obj.dtype))
        raise TypeError(
            f"a task in a sandbox cannot return {type(obj).__name__!r} objects of numpy that refer to others or have a "
            "type of their own: return ndarrays of numbers or text"
        )


def _description(dtype: Any) -> Any:
    """A type of elements as text and lists."""
    from numpy.lib.format import dtype_to_descr

    return dtype_to_descr(dtype)


def _dtype(description: Any) -> Any:
    import numpy
    from numpy.lib.format import descr_to_dtype

    dtype = descr_to_dtype(description)
    if not isinstance(dtype, numpy.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("an array of a sandboxed task refers to objects")
    return dtype


def _array(
    data: Any, description: Any, shape: Any, order: Any, strides: Any = None, start: Any = 0, private: bool = False
) -> Any:
    import numpy

    # An array keeps the address of its data: that must not be able to grow.
    if type(data) is not bytes and type(data) is not Buffer:
        raise pickle.UnpicklingError("an array of a sandboxed task has no data")
    memory: Any = data
    # numpy checks that the elements lie within it.
    if order is None:
        array: Any = numpy.ndarray(shape, _dtype(description), buffer=memory, offset=start, strides=strides)
    else:
        array = numpy.ndarray(shape, _dtype(description), buffer=memory, order=order)
    return array.copy("A") if private else array


def _scalar(data: Any, description: Any) -> Any:
    return _array(data, description, (), "C")[()]


def _reduce_exception(error: BaseException) -> Any:
    kind = type(error)
    if _exception_type(kind.__module__, kind.__qualname__) is not kind:
        raise TypeError(f"{kind.__qualname__} is no exception of Python or of this package")
    reduced: Any = error.__reduce__()
    _, arguments, *state = reduced
    attributes = {name: value for name, value in (state[0] if state else {}).items() if name in _ATTRIBUTES}
    return _exception, (kind.__module__, kind.__qualname__, arguments, attributes)


def _exception_type(module: Any, name: Any) -> Any:
    home = {"builtins": builtins, "arenite._errors": _errors}.get(module)
    found = vars(home).get(name) if home is not None else None
    # Not `SystemExit` and the like: the program must not end because a task says so.
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _exception(module: Any, name: Any, arguments: Any, attributes: Any) -> Any:
    kind = _exception_type(module, name)
    if kind is None or type(arguments) is not tuple or type(attributes) is not dict:
        raise pickle.UnpicklingError("an exception of a sandboxed task is damaged")
    error = kind(*arguments)
    for attribute in _ATTRIBUTES:
        if attribute in attributes:
            setattr(error, attribute, attributes[attribute])
    return error


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, buffers: Sequence[Any], private: bool) -> None:
        super().__init__(io.BytesIO(data), fix_imports=False, buffers=buffers)
        self.private = private

    def find_class(self, module: str, name: str) -> Any:
        if name in _CALLED.get(module, ()):
            found = super().find_class(module, name)
            return partial(_array, private=True) if self.private and found is _array else found
        raise pickle.UnpicklingError(f"a sandboxed worker sent a call of {module}.{name}, which is not allowed")


def dump(value: Any, arena: _pickle.Arena | None, private: bool = False) -> tuple[bytes, list[Any], int]:
    """Pickles a plain value, as `_pickle.dump` does others. Raises TypeError for all others."""
    file, beside = io.BytesIO(), _pickle.Beside(arena, private)
    _PlainPickler(file, beside).dump(value)
    return file.getvalue(), beside.buffers, beside.copied


def load(data: Any, buffers: Sequence[Any] = (), private: bool = False) -> Any:
    """Returns the value of a pickle that a sandboxed worker has sent."""
    data = bytes(data)
    check_plain(data)
    return _Unpickler(data, buffers, private).load()
