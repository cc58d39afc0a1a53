"""Calls a function for each row or group of a data frame of pandas or polars: `apply`."""

from __future__ import annotations

import sys

import numpy

from .._core.process import imported
from .._errors import TableError
from . import shared
from .run import closing, in_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .._core.executor import Configured

#: The number of pieces for each worker, and the minimum number of rows of a piece.
_PIECES_PER_WORKER, _LEAST_PIECE = 4, 256


def is_frame(data: Any) -> bool:
    """Returns true if `data` is a data frame of pandas or polars."""
    return any(
        (library := imported(name)) is not None and isinstance(data, library.DataFrame)
        for name in ("pandas", "polars")
    )


class Pandas:
    """Divides a data frame of pandas into pieces, applies the function to a piece, and joins the results."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], by: Any) -> None:
        self.function, self.arguments, self.by = function, arguments, by

    def __call__(self, piece: Any) -> Any:
        """Returns the results of the function, or a data frame if all of them are its rows."""
        import pandas

        made: list[Any] = []

        def note(rows: Any, *arguments: Any) -> Any:
            result = self.function(rows, *arguments)
            # pandas may use the same object for the next row.
            made.append(result.copy(deep=False) if self.by is None and isinstance(result, pandas.Series) else result)
            return result

        joined = self._on(piece, note, self.arguments)
        return joined if not made or (self.by is None and isinstance(joined, pandas.DataFrame)) else made

    def _on(self, frame: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self.by is None:
            return frame.apply(function, axis=1, args=arguments)
        return frame.groupby(self.by, observed=True).apply(function, *arguments)

    def pieces(self, frame: Any, most: int) -> Iterator[tuple[str, int, Any]]:
        """The pieces of the data frame, each after its name for error messages and the number of its rows or groups."""
        if self.by is None:
            yield from _rows(len(frame), most, lambda start, end: frame.iloc[start:end])
            return
        # A row whose key is missing belongs to no group.
        numbers = frame.groupby(self.by, observed=True).ngroup().fillna(-1).to_numpy("int64")
        order = numpy.argsort(numbers, kind="stable")
        order = order[numbers[order] >= 0]
        ends = numpy.cumsum(numpy.bincount(numbers[order]))
        if len(ends) == 0:
            yield "no groups", 0, frame
            return
        size = max(_LEAST_PIECE, -(-len(order) // most))
        first = start = 0
        while start < len(order):
            last = min(int(numpy.searchsorted(ends, start + size)), len(ends) - 1)
            yield f"groups {first}..{last + 1}", last + 1 - first, frame.take(order[start : ends[last]])
            first, start = last + 1, int(ends[last])

    def is_of(self, made: Any, count: int) -> bool:
        """Whether this may be the result of a piece with this number of rows or groups."""
        is_list = isinstance(made, list) or (self.by is None and isinstance(made, sys.modules["pandas"].DataFrame))
        return count == 0 or (is_list and len(made) == count)

    def join(self, frame: Any, made: list[Any]) -> Any:
        """Returns what pandas makes of all results."""
        pandas = sys.modules["pandas"]
        if not any(isinstance(results, list) for results in made):
            return pandas.concat(made)
        # pandas calls the function in the same order: it gets the results that the workers have computed.
        results = [row for piece in made for row in _rows_of(piece)]
        if self.by is None:
            # Rows of one column are made faster.
            frame = pandas.DataFrame({0: numpy.zeros(len(frame), "u1")}, index=frame.index)
        elif any(result is not None for result in results):
            # Groups of few columns, too. The columns decide only what no results become.
            frame = frame[self.by if isinstance(self.by, list) else [self.by]]
        order = iter(results)
        return self._on(frame, lambda _: next(order), ())


def _rows_of(made: Any) -> list[Any]:
    return made if isinstance(made, list) else [row for _, row in made.iterrows()]


class Polars:
    """Like `Pandas`, for polars. Pieces and results are tables of Arrow that share the memory of the data frames."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], by: Any) -> None:
        self.function, self.arguments, self.by = function, arguments, by

    def __call__(self, piece: Any) -> Any:
        import polars

        frame = polars.from_arrow(piece)
        function, arguments = self.function, self.arguments
        if self.by is None:
            made = frame.map_rows(lambda row: function(row, *arguments))  # type: ignore[union-attr]
        else:
            groups = frame.group_by(self.by, maintain_order=True)  # type: ignore[union-attr]
            made = groups.map_groups(lambda group: function(group, *arguments))
        return made.to_arrow()

    def pieces(self, frame: Any, most: int) -> Iterator[tuple[str, int, Any]]:
        if self.by is None:
            yield from _rows(len(frame), most, lambda start, end: frame[start:end].to_arrow())
            return
        size = max(_LEAST_PIECE, -(-len(frame) // most))
        groups = frame.partition_by(self.by, maintain_order=True)
        first = rows = 0
        for last, group in enumerate(groups):
            rows += len(group)
            if rows >= size or last + 1 == len(groups):
                piece = sys.modules["polars"].concat(groups[first : last + 1])
                yield f"groups {first}..{last + 1}", last + 1 - first, piece.to_arrow()
                first, rows = last + 1, 0
        if not groups:
            yield "no groups", 0, frame.to_arrow()

    def is_of(self, made: Any, count: int) -> bool:
        is_table = isinstance(made, sys.modules["pyarrow"].Table)
        return is_table and (self.by is not None or len(made) == count)

    @staticmethod
    def join(frame: Any, made: list[Any]) -> Any:
        polars = sys.modules["polars"]
        return polars.concat([polars.from_arrow(table) for table in made], how="vertical_relaxed")


def _rows(count: int, most: int, cut: Callable[[int, int], Any]) -> Iterator[tuple[str, int, Any]]:
    size = max(_LEAST_PIECE, -(-count // most))
    for start in range(0, max(count, 1), size):
        end = min(start + size, count)
        yield f"rows {start}..{end}", end - start, cut(start, end)


def apply(frame: Any, function: Callable[..., Any], arguments: tuple[Any, ...], by: Any, tasks: Configured) -> Any:
    """See `column.apply`."""
    is_polars = type(frame).__module__.partition(".")[0] == "polars"
    one = (Polars if is_polars else Pandas)(function, arguments, by)
    workers = shared.workers(tasks)
    call = shared.Caller(tasks, one, getattr(function, "__qualname__", "apply"))
    pieces = one.pieces(frame, _PIECES_PER_WORKER * workers)
    made = []
    calls = (((name, count), call(piece)) for name, count, piece in pieces)
    for (name, count), future in closing(in_order(calls, 2 * workers)):
        try:
            result = future.result()
            if not one.is_of(result, count):
                raise TableError(f"its worker has not sent a result for each of {count} rows or groups")
            made.append(result)
        except Exception as error:
            error.add_note(f"It is of {name} of the data frame that apply() was given")
            raise
    return one.join(frame, made)
