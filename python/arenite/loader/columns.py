"""Rows as columns: `share`. A list of dictionaries has many objects, whose reference counts every process writes; its
columns are a few arrays, which all processes read in place."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy

from .. import Executor

#: Types of Python whose values numpy keeps exactly, with their types of elements.
_EXACT: dict[type, Any] = {bool: numpy.bool_, int: numpy.int64, float: numpy.float64}


class Packed(Sequence[Any]):
    """Values of any length in one array."""

    def __init__(self, values: Iterable[bytes], restore: Callable[[bytes], Any]) -> None:
        parts = list(values)
        self._ends = numpy.cumsum([0, *map(len, parts)], dtype=numpy.int64)
        self._data = numpy.frombuffer(b"".join(parts), numpy.uint8)
        self._restore = restore

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self._restore(self._data[self._ends[at] : self._ends[at + 1]].tobytes())

    def to(self, executor: Executor) -> Packed:
        self._ends, self._data = executor.share(self._ends), executor.share(self._data)
        return self


class Rows(Sequence[Any]):
    """Rows in columns: a number gives a row as a dictionary, a name gives a column."""

    def __init__(self, columns: dict[str, Any]) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns have different lengths: {lengths}")
        self.columns = columns
        self._length = next(iter(lengths.values()), 0)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.columns[index]
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._length))]
        at = range(self._length)[index]
        return {name: _plain(column[at]) for name, column in self.columns.items()}

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(self._length))


def share(rows: Any, executor: Executor | None = None) -> Rows:
    """Makes columns of rows, which processes share.

    >>> import arenite.loader as al
    >>> table = al.share([{"path": "a.jpg", "label": 3}, {"path": "b.jpg", "label": 5}])
    >>> table[1], table["path"][0]
    ({'path': 'b.jpg', 'label': 5}, 'a.jpg')

    :param rows: A list of dictionaries with equal keys, a dictionary of columns, or a table of pyarrow.
    :param executor: Puts the columns into its shared memory now. By default the loader does, when it begins.
    """
    if hasattr(rows, "column_names") and hasattr(rows, "to_pydict"):
        rows = {name: _of_arrow(rows[name]) for name in rows.column_names}
    if isinstance(rows, Mapping):
        columns = dict(rows)
    else:
        rows = list(rows)
        names = list(rows[0]) if rows else []
        for number, row in enumerate(rows):
            if row.keys() != rows[0].keys():
                raise ValueError(f"row {number} has {list(row)}, row 0 {names}")
        columns = {name: [row[name] for row in rows] for name in names}
    made = {name: _column(values) for name, values in columns.items()}
    if executor is not None:
        made = {
            name: column.to(executor) if isinstance(column, Packed) else executor.share(column)
            for name, column in made.items()
        }
    return Rows(made)


def _column(values: Any) -> Any:
    """Returns an array of the values if numpy keeps them exactly, else a `Packed`."""
    if isinstance(values, numpy.ndarray) and not values.dtype.hasobject or isinstance(values, Packed):
        return values
    values = list(values)
    kinds = set(map(type, values))
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind in _EXACT:
        try:
            return numpy.array(values, _EXACT[kind])
        except OverflowError:
            pass  # Integers beyond 64 bits.
    if kind is str:
        return Packed(map(str.encode, values), bytes.decode)
    if kind is bytes:
        return Packed(values, bytes)
    if kind is numpy.ndarray and len({(one.shape, one.dtype) for one in values}) == 1 and not values[0].dtype.hasobject:
        return numpy.stack(values)
    return Packed(map(pickle.dumps, values), pickle.loads)


def _of_arrow(column: Any) -> Any:
    try:
        return column.combine_chunks().to_numpy(zero_copy_only=True)
    except (TypeError, ValueError, ArithmeticError):
        return column.to_pylist()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, numpy.generic) else value
