"""The plain values that a sandboxed task may return.

The worker may run hostile code, and a pickle can call any function. So the worker pickles only numbers, text, bytes,
containers, dates and arrays, and the program reads only these: the extension checks opcodes and limits (`load_plain`),
and calls only the functions at the end of this module. These create no object whose size is given by a number.
"""

from __future__ import annotations

import builtins
import io
import math
import pickle
import re
import sys
from collections import Counter, OrderedDict, deque
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from types import FunctionType
from typing import TYPE_CHECKING, Any

from .. import _errors
from .._arenite import Buffer, PrivateBuffer, escape, load_plain
from . import out_of_band, pickling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The attributes of exceptions that are sent.
_ATTRIBUTES = ("__notes__", "name", "limit", "requested", "free", "capacity", "largest_free")


class _PlainPickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, beside: out_of_band.Beside) -> None:
        super().__init__(file, 5, buffer_callback=beside.take)
        self.beside = beside

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind.__module__ == "numpy":
            return self._reduce_numpy(obj)
        if isinstance(obj, BaseException):
            return _reduce_exception(obj)
        # The object, or the function that creates it.
        called = obj if isinstance(obj, (type, FunctionType)) else kind
        if (called.__module__, called.__qualname__) in _MAKERS:
            if kind is Counter:
                # Filled key by key, which the reader checks.
                return kind, (), None, None, iter(obj.items())
            # Before Python 3.12, the pickle of a fraction is text, which contains numbers of any length.
            return (kind, (obj.numerator, obj.denominator)) if kind.__name__ == "Fraction" else NotImplemented
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        raise TypeError(
            f"a task in a sandbox cannot return an object of type {name}: return numbers, text, bytes, dates, numpy "
            "arrays of these, and lists, tuples, sets and dictionaries"
        )

    def _reduce_numpy(self, obj: Any) -> Any:
        import numpy

        if type(obj) is numpy.ndarray and not obj.dtype.hasobject:
            if obj.size and out_of_band.overlaps(obj):
                # The program refuses arrays that are longer than their data.
                obj = obj.copy()
            reduced = self.beside.reduce_array(obj)
            if reduced is NotImplemented:
                order: Any = "C" if obj.flags.c_contiguous or not obj.flags.f_contiguous else "F"
                return _array, (obj.tobytes(order), _description(obj.dtype), obj.shape, order)
            restore, (data, _, *more) = reduced
            shape, *layout = more
            if restore is out_of_band.restore_small:
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
    """Returns a type of elements as text and lists."""
    from numpy.lib.format import descr_to_dtype, dtype_to_descr

    made = dtype_to_descr(dtype)
    with suppress(TypeError):
        if descr_to_dtype(made) == dtype:
            return made
    raise TypeError(f"a task in a sandbox cannot return elements of the type {dtype}: return numbers or text of numpy")


def _reduce_exception(error: BaseException) -> Any:
    kind = type(error)
    if _exception_type(kind.__module__, kind.__qualname__) is not kind:
        what = "ends an iteration" if kind is StopIteration else "is no exception of Python or of this package"
        raise TypeError(f"a task in a sandbox cannot send an exception that {what}: {kind.__qualname__}")
    reduced: Any = error.__reduce__()
    _, arguments, *state = reduced
    attributes = {name: value for name, value in (state[0] if state else {}).items() if name in _ATTRIBUTES}
    return _exception, (kind.__module__, kind.__qualname__, arguments, attributes)


def _exception_type(module: Any, name: Any) -> Any:
    home = {"builtins": builtins, "arenite._errors": _errors}.get(module)
    found = vars(home).get(name) if home is not None else None
    # Not `SystemExit` and the like: a task must not be able to end the program, nor the iteration over its results.
    if not isinstance(found, type) or not issubclass(found, Exception):
        return None
    return None if issubclass(found, StopIteration) else found


def dump(value: Any, arena: pickling.Arena | None, private: bool = False) -> tuple[bytes, list[Any], int]:
    """Pickles a plain value, like `pickling.dump`. Raises TypeError for other values."""
    file, beside = io.BytesIO(), out_of_band.Beside(arena, private)
    _PlainPickler(file, beside).dump(value)
    return file.getvalue(), beside.buffers, beside.copied


def load(data: Any, buffers: Sequence[Buffer] = (), private: bool = False) -> Any:
    """Returns the value of a pickle that a sandboxed worker has sent."""
    distinct = _distinct(buffers)
    if not private:
        return load_plain(data, list(buffers), distinct, _MAKERS)
    # One copy for each buffer, because any number of arrays may refer to it.
    own = [
        buffer.nbytes >= out_of_band.COPIED and not buffer.lendable and buffer.private_copy() or buffer for buffer in buffers
    ]
    return load_plain(data, own, distinct, _PRIVATE_MAKERS)


def _distinct(buffers: Sequence[Buffer]) -> int:
    """Returns the number of distinct bytes in all buffers: thousands of buffers may share memory."""
    count = end = 0
    for begin, nbytes in sorted((buffer.address, buffer.nbytes) for buffer in buffers):
        count += max(0, begin + nbytes - max(begin, end))
        end = max(end, begin + nbytes)
    return count


# ---- functions that create objects in the program; hostile code may choose their arguments


def _refused(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"a sandboxed worker sent {what}")


def _are(kinds: Any, *values: Any) -> bool:
    return all(type(value) in kinds for value in values)


#: The bits of a number in a range or a fraction. Dividing such numbers takes time quadratic in their length.
_LONGEST = 1 << 14
#: The parts of dates and times.
_DATE_PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo", "fold")
#: The largest number in a duration.
_LARGEST = 1 << 40
#: The number of parts of an array's elements that take no memory.
_MOST_EMPTY = 1 << 16
#: The number of columns without memory that each element may have beyond these parts.
_FREE_COLUMNS = 100
#: The largest line and column of a syntax error.
_MOST_COLUMNS = 1 << 20
#: The number of elements of arrays, and of exceptions, in an argument of an exception.
_MOST_SHOWN = 20_000
#: The bits of an integer that Python writes out.
_LONGEST_SHOWN = 14_000
#: The types of arguments of exceptions whose texts contain no control characters.
_SHOWN_ESCAPED = {
    type(None), bool, int, float, complex, bytes, bytearray, tuple, list, dict, set, frozenset, deque, Counter,
    OrderedDict, range, slice, date, datetime, time, timedelta,
}  # fmt: skip
#: A type of elements other than a structure, in the form of `numpy.dtype.str`.
_TYPE = re.compile(r"[<>|=]?[biufcSUVmM][0-9]{0,9}(\[[0-9]{0,9}[A-Za-zμ]{1,7}(/[0-9]{1,9})?\])?").fullmatch


def _complex(real: Any, imag: Any) -> complex:
    if not _are((float,), real, imag):
        raise _refused("a complex number of other things than numbers")
    return complex(real, imag)


def _range(start: Any, stop: Any, step: Any) -> range:
    if not _are((int,), start, stop, step):
        raise _refused("a range of other things than integers")
    if max(start.bit_length(), stop.bit_length(), step.bit_length()) > _LONGEST:
        raise _refused(f"a range with an integer of more than {_LONGEST} bits")
    return range(start, stop, step)


def _counter() -> Counter[Any]:
    return Counter()


def _ordered_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _deque(items: Any = (), maxlen: Any = None) -> deque[Any]:
    if items != () or not _are((int, type(None)), maxlen):
        raise _refused("a deque of something else than its length")
    return deque((), maxlen)


def _of_date(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that makes a date or time from its pickled state."""

    def make(*arguments: Any) -> Any:
        for argument in arguments:
            if type(argument) is int and abs(argument) < _LARGEST:
                continue
            if type(argument) is timezone or type(argument) is timedelta:
                continue
            if type(argument) not in (bytes, str) or len(argument) > 100:
                raise _refused(f"a {kind.__name__} of something else than numbers")
        made = kind(*arguments)
        if isinstance(made, (date, time)):
            # Of bytes, Python checks only the month, and what a day of zero does to its functions in C is undefined.
            # The same from numbers, which are all checked.
            parts = {part: getattr(made, part) for part in _DATE_PARTS if hasattr(made, part)}
            made = kind(**parts)
        return made

    make.__name__ = kind.__name__
    return make


def _decimal(text: Any) -> Any:
    from decimal import Decimal

    if type(text) is not str:
        raise _refused("a Decimal of something else than text")
    return Decimal(text)


def _fraction(numerator: Any, denominator: Any) -> Any:
    from fractions import Fraction

    if not _are((int,), numerator, denominator):
        raise _refused("a Fraction of something else than integers")
    if max(numerator.bit_length(), denominator.bit_length()) > _LONGEST:
        raise _refused(
            f"a Fraction with an integer of more than {_LONGEST} bits: return its numerator and denominator, or "
            "run the task without a sandbox"
        )
    return Fraction(numerator, denominator)


def _raised(text: Any, data: Any) -> Any:
    from .raised import Raised

    if type(text) is not str or type(data) is not bytes:
        raise _refused("an exception that is none")
    return Raised(text, data)


def _dtype(description: Any) -> tuple[Any, int]:
    """Returns a type of elements, and the number of parts of an element that nothing else bounds."""
    import numpy
    from numpy.lib.format import descr_to_dtype

    columns, empty = _empty_parts(description)
    dtype = descr_to_dtype(description)
    if not isinstance(dtype, numpy.dtype) or dtype.hasobject:
        raise _refused("an array that refers to objects")
    # The data bounds the number of elements, so a few columns without memory cost little.
    return dtype, empty - min(columns, _FREE_COLUMNS) if dtype.itemsize else empty


def _empty_parts(description: Any) -> tuple[int, int]:
    """Counts the columns and the parts of an element that take no memory. numpy shows each part.

    Refuses a description that `numpy.dtype` would read as more than one type. The reader limits its depth and length.
    """
    import numpy

    if type(description) is str:
        if not _TYPE(description):
            raise _refused(f"an array of the type {description!r:.50}")
        empty = int(not numpy.dtype(description).itemsize)
        return empty, empty
    if type(description) is not list:
        raise _refused("an array whose type is not described")
    columns = empty = 0 if description else 1
    for field in description:
        if type(field) is not tuple or not 2 <= len(field) <= 3:
            raise _refused("an array whose type is not described")
        inner, parts = _empty_parts(field[1])
        if len(field) == 3:
            count = _count(field[2])
            # numpy visits the other axes also if one is empty.
            inner, parts = (inner, parts * count) if count else (1, math.prod(filter(None, field[2])))
        columns += inner
        empty += parts
    return columns, empty


def _count(shape: Any) -> int:
    """Returns the number of elements of an array with this shape."""
    if type(shape) is not tuple or len(shape) > 64 or not _are((int,), *shape):
        raise _refused("an array without a shape")
    if any(not 0 <= extent < 1 << 63 for extent in shape):
        raise _refused("an array with a shape of no array")
    return math.prod(shape)


def _array(data: Any, description: Any, shape: Any, order: Any, strides: Any = None, start: Any = 0) -> Any:
    import numpy

    # An array refers to the address of its data, so the data must not be able to grow.
    if type(data) not in (bytes, Buffer, PrivateBuffer):
        raise _refused("an array without data")
    (dtype, empty), count = _dtype(description), _count(shape)
    if empty * max(count, 1) > max(len(data), _MOST_EMPTY):
        raise _refused(f"an array of {count} elements with parts that take no memory, for {len(data)} bytes of data")
    if count * dtype.itemsize > len(data):
        raise _refused(f"an array of {count} elements of {dtype.itemsize} bytes for {len(data)} bytes of data")
    if order is not None:
        array: Any = numpy.ndarray(shape, dtype, buffer=data, order=order)
    else:
        _check_strides(shape, strides, start, dtype.itemsize, len(data))
        array = numpy.ndarray(shape, dtype, buffer=data, offset=start, strides=strides)
    # The array owns its memory, which is counted.
    return array.copy("A") if type(data) is bytes else array


def _check_strides(shape: tuple[int, ...], strides: Any, start: Any, itemsize: int, nbytes: int) -> None:
    """Refuses elements outside of the data. numpy's own check computes with numbers that wrap around at 64 bits."""
    if type(strides) is not tuple or len(strides) != len(shape) or not _are((int,), start, *strides):
        raise _refused("an array whose elements have no places")
    first = last = start
    for extent, stride in zip(shape, strides, strict=True):
        if extent > 1 and stride < 0:
            first += stride * (extent - 1)
        elif extent > 1:
            last += stride * (extent - 1)
    # The stride of an axis with one element may be that of a larger array.
    if first < 0 or last + itemsize > nbytes or any(abs(stride) >= 1 << 60 for stride in strides):
        raise _refused("an array with elements outside of its data")


def _private_array(data: Any, *layout: Any) -> Any:
    array = _array(data, *layout)
    return array.copy("A") if type(data) is Buffer and not data.lendable else array


def _scalar(data: Any, description: Any) -> Any:
    array = _array(data, description, (), "C")
    # numpy does not check code points, and a text with others than those of Unicode breaks what encodes it.
    if array.dtype.kind == "U" and (array.reshape(1).view(array.dtype.byteorder + "u4") > sys.maxunicode).any():
        raise _refused("a text with characters that are none")
    return array[()]


def _exception(module: Any, name: Any, arguments: Any, attributes: Any) -> Any:
    kind = _exception_type(module, name)
    if kind is None or type(arguments) is not tuple or type(attributes) is not dict:
        raise _refused("an exception that is none")
    _check_exception(kind, arguments)
    error = _shown(kind, arguments)
    for attribute in _ATTRIBUTES:
        value = attributes.get(attribute)
        if type(value) is str:
            setattr(error, attribute, escape(value))
        elif type(value) is int and attribute not in ("__notes__", "name"):
            setattr(error, attribute, value)
        elif type(value) is list and attribute == "__notes__" and _are((str,), *value):
            error.__notes__ = [escape(note) for note in value]
    return error


def _check_exception(kind: type[Exception], arguments: tuple[Any, ...]) -> None:
    """Refuses arguments for which showing the exception takes more memory than creating it."""
    if issubclass(kind, UnicodeError) and kind is not UnicodeError:
        *_, text, start, end, _ = arguments
        is_of_text = isinstance(text, (str, bytes)) and _are((int,), start, end)
        if not is_of_text or not 0 <= start <= end <= len(text):
            raise _refused("an error of a text, at a place that is not there")
    if issubclass(kind, SyntaxError) and len(arguments) > 1:
        _, place = arguments
        # The file, the line, the column, the text, and the last line and column. A traceback marks the columns.
        kinds = (str, int, int, str, int, int)
        if type(place) is not tuple or len(place) not in (4, 6, 7):
            raise _refused("a syntax error without a place")
        for part, wanted in zip(place, kinds, strict=False):
            if part is not None and type(part) is not wanted:
                raise _refused("a syntax error at a place of other things than numbers and text")
            if type(part) is int and not -1 <= part <= _MOST_COLUMNS:
                raise _refused("a syntax error at a place that no file has")


def _shown(kind: type[Exception], arguments: tuple[Any, ...]) -> Exception:
    """Returns an exception whose texts contain no control characters, and that is shown in little time."""
    shown = list(map(_escaped, arguments))
    if issubclass(kind, SyntaxError) and len(arguments) > 1:
        # A traceback shows these parts unchanged. A seventh part would make Python 3.14 open a file, and notebooks open
        # the named one.
        name, *rest = map(_escaped, arguments[1][:6])
        if name and not (name.startswith("<") and name.endswith(">")):
            # Only its last part, which the text of the error contains.
            name = f"<{name.rpartition('/')[2]}>"
        shown[1] = (name, *rest)
    elif issubclass(kind, UnicodeError) and kind is not UnicodeError:
        # The error shows characters of this text by their numbers.
        shown[-4] = arguments[-4]
    return kind(*shown)


def _escaped(argument: Any) -> Any:
    """Returns an argument of an exception, or its text without control characters. Takes little time if it is shown
    by `str`, or by `repr` as a part of a tuple."""
    if isinstance(argument, str):
        # Not a subclass, such as numpy's.
        return escape(argument)
    kind = type(argument)
    if _cost(argument, {}) > _MOST_SHOWN:
        return f"<{kind.__name__} that takes long to show>"
    is_array = kind.__module__ == "numpy" and not (argument.dtype.kind == "U" and not argument.ndim)
    if is_array or kind in _SHOWN_ESCAPED:
        return argument
    # The text of the value contains the name of a time zone, or the only element of an array, unchanged.
    try:
        text = str(argument)
        is_escaped = text == escape(text)
    except Exception:
        return f"<{kind.__name__} that cannot be shown>"
    return argument if is_escaped else escape(text)


def _cost(value: Any, known: dict[int, int]) -> int:
    """Returns the number of elements of arrays, and of exceptions, that the text of a value contains, where a shared
    object counts as often as it occurs. What has no text counts as too many. `known`: the numbers of containers by
    identity."""
    kind = type(value)
    if kind is int:
        # Python refuses to write out longer integers.
        return _MOST_SHOWN + 1 if value.bit_length() > _LONGEST_SHOWN else 0
    if kind.__module__ == "numpy":
        # Of a long array, numpy shows three elements at both ends of each axis.
        shown = value.size if value.size <= 1000 else math.prod(min(extent, 6) for extent in value.shape)
        each = _parts(value.dtype) + value.dtype.itemsize // 64
        return 0 if value.ndim == 0 and value.dtype.names is None else max(shown, 1) * each
    if kind in (slice, range):
        parts: Any = (value.start, value.stop, value.step)
    elif kind.__name__ == "Fraction":
        parts = (value.numerator, value.denominator)
    elif isinstance(value, BaseException):
        parts = value.args
    elif kind in (Counter, OrderedDict, dict):
        parts = (*value, *value.values())
    elif kind in (tuple, list, set, frozenset, deque):
        parts = value
    else:
        return 0
    cost = known.get(id(value))
    if cost is None:
        # Containers contain no cycles: the reader fills a container before another one refers to it.
        cost = known[id(value)] = sum(_cost(part, known) for part in parts) + isinstance(value, BaseException)
    return cost


def _parts(dtype: Any) -> int:
    """Returns the number of parts of an element that numpy shows."""
    base, shape = dtype.subdtype or (dtype, ())
    inner: int = sum(_parts(base.fields[name][0]) for name in base.names) if base.names is not None else 1
    count: int = math.prod(max(extent, 1) for extent in shape)
    return max(inner, 1) * count


#: The functions that a pickle may call, by module and name: the function here that replaces the named one, and how the
#: created object is filled.
_MAKERS: dict[tuple[str, str], tuple[Callable[..., Any], str | None]] = {
    ("builtins", "complex"): (_complex, None),
    ("builtins", "range"): (_range, None),
    ("builtins", "slice"): (slice, None),
    ("collections", "Counter"): (_counter, "update"),
    ("collections", "OrderedDict"): (_ordered_dict, "update"),
    ("collections", "deque"): (_deque, "append"),
    ("datetime", "date"): (_of_date(date), None),
    ("datetime", "datetime"): (_of_date(datetime), None),
    ("datetime", "time"): (_of_date(time), None),
    ("datetime", "timedelta"): (_of_date(timedelta), None),
    ("datetime", "timezone"): (_of_date(timezone), None),
    ("decimal", "Decimal"): (_decimal, None),
    ("fractions", "Fraction"): (_fraction, None),
    ("arenite._core.plain", "_array"): (_array, None),
    ("arenite._core.plain", "_exception"): (_exception, "shown"),
    ("arenite._core.plain", "_scalar"): (_scalar, None),
    ("arenite._core.raised", "Raised"): (_raised, None),
}
#: The same functions, except that arrays own their memory.
_PRIVATE_MAKERS = {**_MAKERS, ("arenite._core.plain", "_array"): (_private_array, None)}
