"""A function on each value of a column, or each row or group of a data frame: `apply`."""

from __future__ import annotations

import datetime

import pyarrow

from .._core.executor import executor_of
from .._core.process import imported
from .._errors import TableError
from . import frame, part, shared
from .run import closing, in_order
from .schema import converted, is_exact
from .table import received

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core.executor import Configured, Executor

#: Chunks for each worker, and the fewest values of a chunk.
_CHUNKS_PER_WORKER, _LEAST_CHUNK = 4, 256


class Each:
    """Calls a function with each value of a part's column. Returns the results as a part."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], kind: Any) -> None:
        self.function, self.arguments, self.kind = function, arguments, kind

    def __call__(self, data: Any) -> Any:
        _, batches = part.read(data)
        function, arguments = self.function, self.arguments
        results = [function(value, *arguments) for batch in batches for value in batch.column(0).to_pylist()]
        if (pandas := imported("pandas")) is not None:
            results = [None if value is pandas.NaT else value for value in results]
        try:
            made = _array(results) if self.kind is None else _array_of(results, self.kind)
        except (pyarrow.ArrowException, OverflowError) as error:
            raise _of_several_types(error) from None
        return part.write(pyarrow.schema([("", made.type)]), [pyarrow.record_batch([made], names=[""])])


def apply(
    data: Any,
    function: Callable[..., Any],
    *arguments: Any,
    by: Any = None,
    type: Any = None,
    executor: Executor | Configured | None = None,
) -> Any:
    """Calls `function(value, *arguments)` with each value of a column, or each row or group of a data frame, in the
    workers. Returns the results as a column of the same kind: a pandas or polars Series, an Array or a ChunkedArray of
    pyarrow; of a data frame, what its library returns.

    >>> import arenite, pyarrow
    >>> with arenite.Executor(2) as ex:
    ...     arenite.apply(pyarrow.array(["a", "bcd", None]), lambda text: text and len(text), executor=ex).to_pylist()
    [1, 3, None]

    Values are Python objects: numbers, text, dates, lists, dicts; a missing one is None. Times of pandas keep their
    nanoseconds. The column is copied once, into shared memory. pandas keeps name and index.

    | data frame | the same by its library |
    |---|---|
    | of pandas | `frame.apply(function, axis=1)` |
    | of pandas, with `by` | `frame.groupby(by, observed=True).apply(function)` |
    | of polars | `frame.map_rows(function)` |
    | of polars, with `by` | `frame.group_by(by, maintain_order=True).map_groups(function)` |

    The library works in the workers, on pieces of the frame: what a function returns has to be of the same form for
    all rows or groups.

    :param by: The column, or the list of columns, whose values make groups of the rows of a data frame.
    :param type: The type of the results, a `pyarrow.DataType`. By default it is inferred from the results, which have
        one type. A result that the type would alter is a TypeError.
    :param executor: The executor whose workers run the function, or the result of its `options`. By default all calls
        share an executor.

    The first exception of the function, or `WorkerDied`, is raised with a note that names the rows of its chunk.
    """
    if frame.is_frame(data):
        if type is not None:
            raise TypeError("type= is for columns: the library of a data frame decides about types")
        return frame.apply(data, function, arguments, by, shared.configured(executor))
    if by is not None:
        raise TypeError("by= is for data frames")
    values, rebuild = _to_arrow(data)
    _check_values(values.type, values)
    tasks = shared.configured(executor)
    count = len(values)
    workers = shared.workers(tasks)
    size = max(_LEAST_CHUNK, -(-count // (_CHUNKS_PER_WORKER * workers)))
    call = shared.Caller(tasks, Each(function, arguments, type), getattr(function, "__qualname__", "apply"))

    def starts() -> Any:
        for start in range(0, count, size):
            chunk = values.slice(start, size)
            column = pyarrow.table([chunk], names=[""])
            data = part.write(column.schema, column.to_batches(), executor_of(tasks).empty)
            yield range(start, start + len(chunk)), call(data)

    made = []
    for rows, future in closing(in_order(starts(), 2 * workers)):
        try:
            answer = received(future.result(), None, tasks)
            if len(answer) != len(rows):
                raise TableError(f"its worker has sent {len(answer)} values for {len(rows)}")
            made += answer.to_batches()
        except Exception as error:
            error.add_note(f"It is of rows {rows.start}..{rows.stop} of the column that apply() was given")
            raise
    columns = [batch.column(0) for batch in made]
    found = type if type is not None else _type(columns)
    try:
        columns = [converted(column, found) for column in columns]
    except pyarrow.ArrowException as error:
        raise _of_several_types(error) from None
    return rebuild(pyarrow.chunked_array(columns, type=found))


def _type(columns: list[Any]) -> Any:
    """Returns the type that fits all results."""
    types = pyarrow.types
    kinds = [column.type for column in columns]
    zones = {kind.tz for kind in kinds if types.is_timestamp(kind)}
    if len(zones) > 1 and None not in zones:
        kinds = [pyarrow.timestamp(kind.unit, "UTC") if types.is_timestamp(kind) else kind for kind in kinds]
    # As in one chunk, Arrow must not alter values for a common type.
    for a, b in ((types.is_string, types.is_binary), (types.is_decimal, types.is_floating)):
        if any(map(a, kinds)) and any(map(b, kinds)):
            raise _of_several_types(f"{next(filter(a, kinds))} and {next(filter(b, kinds))}")
    schemas = [pyarrow.schema([("", kind)]) for kind in kinds]
    if not schemas:
        return pyarrow.null()
    try:
        return pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pyarrow.ArrowException as error:
        raise _of_several_types(error) from None


def _array(values: list[Any]) -> Any:
    """Returns values as an array of the type that fits them. Raises TypeError if Arrow would alter one."""
    made = pyarrow.array(values)
    exact = _exact(values, made.type)
    return made if exact == made.type else pyarrow.array(values, exact)


def _exact(values: Any, kind: Any) -> Any:
    """Returns the type that fits values for which Arrow has inferred `kind`. Raises TypeError if no type does."""
    types = pyarrow.types
    if types.is_struct(kind):
        rows = [value for value in values if isinstance(value, dict)]
        return pyarrow.struct(
            [field.with_type(_exact([row.get(field.name) for row in rows], field.type)) for field in kind]
        )
    if types.is_list(kind):
        if types.is_primitive(kind.value_type) and not types.is_temporal(kind.value_type):
            return kind
        inner = (one for value in values if hasattr(value, "__iter__") for one in value)
        return pyarrow.list_(_exact(list(inner), kind.value_type))
    if types.is_date(kind) and any(isinstance(value, datetime.datetime) for value in values):
        raise _of_several_types("dates, and dates with times")
    if types.is_string(kind) or _is_bytes(kind):
        if len({isinstance(value, str) for value in values if isinstance(value, (str, bytes))}) > 1:
            raise _of_several_types("bytes and text")
    if types.is_time(kind) and any(getattr(value, "tzinfo", None) is not None for value in values):
        raise _of_several_types("Arrow has no times of day with a time zone")
    if types.is_timestamp(kind):
        zones = {value.tzinfo for value in values if isinstance(value, datetime.datetime) and value == value}
        if len(zones) > 1 and None in zones:
            raise _of_several_types("times with and without a time zone")
        zone = "UTC" if len({str(zone) for zone in zones}) > 1 else kind.tz
        # Times and durations of pandas have nanoseconds.
        unit = "ns" if any(getattr(value, "nanosecond", 0) for value in values) else kind.unit
        return pyarrow.timestamp(unit, zone)
    if types.is_duration(kind) and any(getattr(value, "nanoseconds", 0) for value in values):
        return pyarrow.duration("ns")
    return kind


def _is_bytes(kind: Any) -> bool:
    return bool(pyarrow.types.is_binary(kind))


def _array_of(values: list[Any], kind: Any) -> Any:
    """Returns values as an array of this type. Raises TypeError if Arrow would alter one."""
    made = pyarrow.array(values, kind)
    try:
        # Bytes may become text.
        inferred = pyarrow.array(values) if _is_bytes(kind) else _array(values)
        same = is_exact(inferred, made)
    except (pyarrow.ArrowException, OverflowError):
        # Values of several types. A fraction may be rounded in a narrower float.
        same = pyarrow.types.is_floating(kind) or made.to_pylist() == values
    if not same:
        raise TypeError(f"a value that the function returned is not {kind}: it would be altered")
    return made


def _of_several_types(error: object) -> TypeError:
    return TypeError(f"the values that the function returned have no type in common; pass type=: {error}")


def _check_values(kind: Any, values: Any) -> None:
    """Refuses a column whose values are no objects of Python."""
    if isinstance(kind, pyarrow.BaseExtensionType) and not kind.extension_name.startswith("arrow."):
        raise TypeError(f"apply() cannot pass values of {kind}: convert the column, as by series.astype(str)")
    if kind == pyarrow.time64("ns"):
        try:
            values.cast(pyarrow.time64("us"))
        except pyarrow.ArrowInvalid:
            raise TypeError("apply() cannot pass times of day with nanoseconds: convert the column to text") from None


def _to_arrow(series: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Returns a column in Arrow's format, and a function that makes a column of the original kind from the results."""
    if isinstance(series, pyarrow.ChunkedArray):
        return series, lambda made: made
    if isinstance(series, pyarrow.Array):
        return pyarrow.chunked_array([series]), lambda made: made.combine_chunks()
    pandas, polars = imported("pandas"), imported("polars")
    if pandas is not None and isinstance(series, pandas.Series):

        def to_pandas(made: Any) -> Any:
            found = made.to_pandas()
            found.index, found.name = series.index, series.name
            return found

        # A NaN is a value in a column of floats. In other columns it stands for a missing value.
        values = pyarrow.array(series, from_pandas=series.dtype.kind != "f")
        if series.dtype == object:
            try:
                exact = _exact(series.tolist(), values.type)
            except TypeError:
                raise TypeError("apply() cannot pass the values of the column: they have no type in common") from None
            values = values if exact == values.type else pyarrow.array(series, exact, from_pandas=True)
        return values if isinstance(values, pyarrow.ChunkedArray) else pyarrow.chunked_array([values]), to_pandas
    if polars is not None and isinstance(series, polars.Series):
        return pyarrow.chunked_array([series.to_arrow()]), lambda made: polars.Series(series.name, made)
    raise TypeError(
        "apply() takes a pandas or polars Series or data frame, or an array of pyarrow, "
        f"not {series.__class__.__name__}"
    )
