"""`Table`: rows and columns in shared memory."""

from __future__ import annotations

import pyarrow

from .._core.executor import executor_of
from .._errors import TableError
from . import part, plan, schema, shared, stream
from .part import Origin
from .read import Apply
from .run import Bar, closing, in_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import pathlib
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Literal

    from numpy.typing import NDArray

    from .._core.executor import Configured, Executor


class Part:
    """Rows of a table that one task has read or made: an array with an Arrow IPC stream."""

    def __init__(self, data: NDArray[Any], origin: Origin | None = None, is_checked: bool = True) -> None:
        #: The bytes of the stream, in the arena.
        self.data = data
        #: The place of the rows in a file, or None.
        self.origin = origin
        # A part that is not checked comes from a worker that may run hostile code.
        self._schema, self._batches = part.read(data) if is_checked else stream.read(data)

    @property
    def schema(self) -> Any:
        """The columns, a `pyarrow.Schema`."""
        return self._schema

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return sum(batch.num_rows for batch in self._batches)

    @property
    def nbytes(self) -> int:
        """The number of bytes in the arena."""
        return int(self.data.nbytes)

    def to_batches(self) -> list[Any]:
        """The rows as a list of `pyarrow.RecordBatch`, without a copy."""
        return list(self._batches)

    def __len__(self) -> int:
        return self.num_rows

    def __repr__(self) -> str:
        return f"<arenite.Table part: {self.num_rows} rows{f' of {self.origin}' if self.origin else ''}>"


class Table:
    """Rows and columns in shared memory, in Arrow's format: the result of `arenite.read_csv` and its siblings.

    Every library that reads Arrow (pyarrow, pandas, polars, duckdb) accepts a table and reads it in place. A table that
    is passed to a task is not copied either. The memory is freed with the last object that refers to it.

    >>> import arenite, pathlib, tempfile
    >>> with arenite.Executor(2) as ex, tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "a.csv").write_text('name,price\\napple,1.5\\n"pear,\\nripe",2\\n')
    ...     table = arenite.read_csv(folder, executor=ex)
    ...     doubled = table.map_batches(lambda batch: {"twice": [2 * price.as_py() for price in batch["price"]]})
    ...     len(table), table.schema.names, doubled.to_pyarrow()["twice"].to_pylist()
    (2, ['name', 'price'], [3.0, 4.0])
    """

    def __init__(
        self,
        schema: Any,
        parts: Iterable[Part] = (),
        failures: Sequence[TableError] = (),
        executor: Configured | None = None,
    ) -> None:
        self._schema = schema
        self._parts = list(parts)
        self._failures = tuple(failures)
        self._tasks = executor
        self._arrow: Any = None

    @property
    def schema(self) -> Any:
        """The columns and their types, a `pyarrow.Schema`."""
        return self._schema

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts, in the order of files and bytes."""
        return tuple(self._parts)

    @property
    def failures(self) -> tuple[TableError, ...]:
        """The errors of missing parts, with `errors="report"`."""
        return self._failures

    @property
    def nbytes(self) -> int:
        """The number of bytes in the arena."""
        return sum(one.nbytes for one in self._parts)

    def __len__(self) -> int:
        return sum(one.num_rows for one in self._parts)

    def to_batches(self) -> list[Any]:
        """The rows as a list of `pyarrow.RecordBatch`, without a copy."""
        return [batch for one in self._parts for batch in one.to_batches()]

    def to_pyarrow(self) -> Any:
        """The rows as a `pyarrow.Table`, without a copy."""
        if self._arrow is None:
            self._arrow = pyarrow.Table.from_batches(self.to_batches(), schema=self._schema)
        return self._arrow

    def to_pandas(self, **options: Any) -> Any:
        """Returns the rows as a `pandas.DataFrame`. `options`: as for `pyarrow.Table.to_pandas`."""
        return self.to_pyarrow().to_pandas(**options)

    def to_polars(self) -> Any:
        """The rows as a `polars.DataFrame`, in place where polars has Arrow's format."""
        import polars

        return polars.DataFrame(self.to_pyarrow())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as a stream of Arrow's C interface, without a copy."""
        return self.to_pyarrow().__arrow_c_stream__(requested_schema)

    def write_parquet(
        self,
        folder: str | os.PathLike[str],
        *,
        compression: str = "snappy",
        executor: Executor | Configured | None = None,
    ) -> list[pathlib.Path]:
        """Writes each part as a Parquet file, encoded by the workers: `part-00000.parquet` and so on. Returns the
        files.

        Creates the folder. A file gets its name when it is complete. If the folder already contains such files, an
        error is raised and none of them is replaced.

        :param compression: A codec of Parquet, or "none".
        :param executor: The executor whose workers encode, or the result of its `options`. By default the table's
            executor.

        >>> import arenite, pathlib, tempfile
        >>> with arenite.Executor(2) as ex, tempfile.TemporaryDirectory() as folder:
        ...     files = arenite.table({"n": [1, 2, 3]}, executor=ex).write_parquet(f"{folder}/out")
        ...     [file.name for file in files], len(arenite.read_parquet(f"{folder}/out", executor=ex))
        (['part-00000.parquet'], 3)
        """
        from . import write

        target = write.Folder(folder, compression)
        tasks = shared.configured(executor or self._tasks)
        call = shared.Caller(tasks, write.Encode(compression), "write_parquet")
        parts = [one for one in self._parts if one.num_rows] or [self._no_rows()]
        flights = in_order(((one, call(one.data)) for one in parts), 2 * shared.workers(tasks))
        return write.write_all(target, flights, lambda one, future: write.encoded(future, one.origin))

    def map_batches(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        schema: Any = None,
        errors: Literal["raise", "report"] = "raise",
        progress: bool | str = False,
        executor: Executor | Configured | None = None,
    ) -> Table:
        """Calls `function(batch, *arguments)` with each `pyarrow.RecordBatch`, in the workers. Returns a table of the
        results, in order.

        The function returns a RecordBatch, a Table, a dict of columns, or another object with `__arrow_c_stream__`. A
        batch is read in place, and each part of the results is written once. All calls share the arrays among the
        arguments. For a table without rows, the function is called once with an empty batch, to determine the columns.

        A part whose function raises an exception, crashes or exceeds its deadline costs no other part, and the error
        names its file and bytes.

        :param schema: The columns of the results, to which the results are converted. By default the columns of the
            first part, which all other parts must have.
        :param errors: "raise" raises the first failure, and cancels the rest. "report" returns a table of all other
            parts, with the failures in `Table.failures`.
        :param progress: Whether a progress bar is shown, if tqdm is installed. A text is its title.
        :param executor: The executor whose workers run the function, or the result of its `options`. By default the
            table's executor.
        """
        check_errors(errors)
        tasks = shared.configured(executor or self._tasks)
        call = shared.Caller(
            tasks, Apply(function, arguments, schema), getattr(function, "__qualname__", "map_batches")
        )
        parts = [one for one in self._parts if one.num_rows] or self._parts[:1] or [self._no_rows()]
        starts = ((one, call(one.data)) for one in parts)
        made = Collector(schema, errors, tasks)
        bar, read = Bar(progress, self.nbytes), 0
        try:
            for one, future in closing(in_order(starts, 2 * shared.workers(tasks))):
                made.take(future, one.origin)
                read += one.nbytes
                bar.show(read)
        finally:
            bar.close(False)
        return made.table()

    def _no_rows(self) -> Part:
        return Part(part.write(self._schema, []))

    def __reduce__(self) -> Any:
        # A table in a task uses the executor of tasks.
        return _restore, (self._schema, [(one.data, one.origin) for one in self._parts])

    def __repr__(self) -> str:
        failed = f", {len(self._failures)} failed" if self._failures else ""
        return f"<arenite.Table: {len(self)} rows in {len(self._parts)} parts{failed}; {schema.columns(self._schema)}>"


#: The approximate size of a part of a table that was copied from memory.
_PART = 8 << 20


def table(data: Any, *, executor: Executor | Configured | None = None) -> Table:
    """Copies a table into shared memory, in parts for the workers: a data frame of pandas or polars, a table or batch
    of pyarrow, a dict of columns, or another object with `__arrow_c_stream__`.

    >>> import arenite
    >>> with arenite.Executor(2) as ex:
    ...     table = arenite.table({"n": [1, 2, 3]}, executor=ex)
    ...     squares = table.map_batches(lambda batch: {"square": [n.as_py() ** 2 for n in batch["n"]]})
    ...     squares.to_pyarrow()["square"].to_pylist()
    [1, 4, 9]

    The index of a pandas data frame is left out: `frame.reset_index()` makes columns of it.

    :param executor: The executor whose workers use the table, or the result of its `options`. By default all calls
        share an executor with a worker for each core, which ends with the program.
    """
    found = part.batches_of(data)
    if found is None:
        raise TypeError(
            f"table() takes a data frame, a table of pyarrow or a dict of columns, not {type(data).__name__}"
        )
    tasks = shared.configured(executor)
    # Enough parts for all workers, and none of them large.
    count = max(-(-found.nbytes // _PART), min(4 * shared.workers(tasks), found.nbytes >> 20), 1)
    size = max(1, -(-found.num_rows // count))
    pieces = [found.slice(start, size) for start in range(0, found.num_rows, size)]
    made = (part.write(found.schema, piece.to_batches(), executor_of(tasks).empty) for piece in pieces)
    return Table(found.schema, [Part(data) for data in made], executor=tasks)


def received(data: Any, origin: Origin | None, tasks: Configured) -> Part:
    """Returns the part that a worker has sent. Raises TableError if it is invalid."""
    if not part.is_part(data):
        raise TableError.at("its worker has sent no part", origin=origin)
    try:
        return Part(data, origin, not shared.is_sandboxed(tasks))
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError.at(f"its worker has sent no Arrow stream: {error}", origin=origin) from error


def _restore(columns: Any, parts: list[Any]) -> Table:
    return Table(columns, [Part(data, origin) for data, origin in parts])


def check_errors(errors: str) -> None:
    if errors not in ("raise", "report"):
        raise ValueError(f'errors must be "raise" or "report", not {errors!r}')


class Collector:
    """Makes a table from the parts that tasks return."""

    def __init__(self, columns: Any, errors: str, tasks: Configured) -> None:
        self._schema, self._errors, self._tasks = columns, errors, tasks
        self._parts: list[Part] = []
        self._failures: list[TableError] = []

    def fail(self, error: TableError) -> None:
        if self._errors == "raise":
            raise error
        self._failures.append(error)

    def take(self, future: Any, origin: Origin | None) -> None:
        try:
            data = future.result()
        except Exception as error:
            failure = plan.failed(error, origin)
            failure.__cause__ = error
            self.fail(failure)
        else:
            self.add(data, origin)

    def add(self, data: Any, origin: Origin | None) -> int | None:
        """Adds a part. Returns the number of its rows."""
        try:
            added = received(data, origin, self._tasks)
            if self._schema is None:
                self._schema = added.schema
            if not schema.same_columns(self._schema, added.schema):
                raise TableError.at(
                    f"this part has the columns {schema.columns(added.schema)}, and those before it "
                    f"{schema.columns(self._schema)}",
                    origin=origin,
                )
        except TableError as error:
            self.fail(error)
            return None
        self._parts.append(added)
        return added.num_rows

    def table(self) -> Table:
        columns = pyarrow.schema([]) if self._schema is None else self._schema
        return Table(columns, self._parts, self._failures, self._tasks)
