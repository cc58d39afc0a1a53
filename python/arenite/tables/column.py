"""A function on each value of a column, or each row or group of a data frame: `apply`."""

from __future__ import annotations

import pyarrow

from .._core.executor import executor_of
from .._core.process import imported
from .._errors import TableError
from . import frame, part, shared
from .run import in_order
from .table import closing, received

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
        try:
            made = pyarrow.array(results, self.kind)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
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

    Values are Python objects: numbers, text, dates, lists, dicts; a missing one is None. The column is copied once,
    into shared memory. pandas keeps name and index.

    | data frame | the same by its library |
    |---|---|
    | of pandas | `frame.apply(function, axis=1)` |
    | of pandas, with `by` | `frame.groupby(by, observed=True).apply(function)` |
    | of polars | `frame.map_rows(function)` |
    | of polars, with `by` | `frame.group_by(by, maintain_order=True).map_groups(function)` |

    The library works in the workers, on pieces of the frame: what a function returns has to be of the same form for
    all rows or groups.

    :param by: The column, or the list of columns, whose values make groups of the rows of a data frame.
    :param type: The type of the results, a `pyarrow.DataType`. By default it is inferred from the results.
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
    return rebuild(pyarrow.chunked_array([column.cast(found) for column in columns], type=found))


def _type(columns: list[Any]) -> Any:
    """Returns the type that fits all results."""
    schemas = [pyarrow.schema([("", column.type)]) for column in columns]
    if not schemas:
        return pyarrow.null()
    try:
        return pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pyarrow.ArrowException as error:
        raise _of_several_types(error) from None


def _of_several_types(error: Exception) -> TypeError:
    return TypeError(f"the values that the function returned have no type in common; pass type=: {error}")


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
        return values if isinstance(values, pyarrow.ChunkedArray) else pyarrow.chunked_array([values]), to_pandas
    if polars is not None and isinstance(series, polars.Series):
        return pyarrow.chunked_array([series.to_arrow()]), lambda made: polars.Series(series.name, made)
    raise TypeError(
        "apply() takes a pandas or polars Series or data frame, or an array of pyarrow, "
        f"not {series.__class__.__name__}"
    )
