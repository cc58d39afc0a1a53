"""Reads files: all parts into a table, or part by part."""

from __future__ import annotations

import numpy
import pyarrow

from .._errors import TableError
from . import parquet, part, shared
from .plan import Plan, Rows, Task
from .read import Infer, Read, ReadThenApply, Spec
from .run import Bar, closing, in_order
from .schema import merge, same_columns, type_of, typed, widen_by_position
from .sources import files
from .table import Collector, Table, check_errors, received

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import pathlib
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Literal, Protocol, TypeVar, TypeVarTuple, overload

    from .._core.executor import Configured, Executor
    from .sources import Sources

    _T = TypeVar("_T")
    _Ts = TypeVarTuple("_Ts")

    class _HasRows(Protocol):
        """A batch or a table, of pyarrow or of another library."""

        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


def make_plan(
    sources: Sources,
    format: str,
    executor: Executor | Configured | None,
    *,
    delimiter: str = ",",
    header: bool = True,
    by_name: bool = False,
    file_column: str | None = None,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    widen: bool = False,
    part_bytes: int | None = None,
) -> Plan:
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise ValueError(f"delimiter must be one ASCII character that is no quote, line break or NUL, not {delimiter!r}")
    if by_name and not header:
        raise ValueError("by_name=True needs a header: columns have no names without it")
    if part_bytes is not None and part_bytes < 1:
        raise ValueError("part_bytes must be at least 1")
    if isinstance(schema, dict):
        schema = pyarrow.schema({name: type_of(kind) for name, kind in schema.items()})
    spec = Spec(format, ord(delimiter), header and format == "csv", by_name, file_column)
    tasks = shared.configured(executor)
    return Plan(files(sources), spec, tasks=tasks, schema=schema, types=types, widen=widen, part_bytes=part_bytes)


def read_all(plan: Plan, errors: Literal["raise", "report"], progress: bool | str) -> Table:
    """Reads all parts."""
    check_errors(errors)
    bar = Bar(progress, sum(plan.lens))
    table = None
    try:
        while table is None:
            wider, table = _attempt(plan, errors, bar)
            plan.schema = plan.schema if wider is None else wider
        return table
    finally:
        bar.close(table is not None)


def make_scan(plan: Plan, progress: bool | str) -> Scan:
    """Prepares to read part by part. If types may be widened, reads all parts for it."""
    if plan.widen and plan.spec.format != "parquet":
        if (pipe := plan.first_pipe()) is not None:
            text = "widen=True reads the files twice, and this one can be read only once: pass types= or schema="
            raise TableError.at(text, file=pipe)
        bar = Bar(progress, sum(plan.lens))
        is_done = False
        try:
            # Failures for other reasons come again when the parts are read.
            wider, _ = _attempt(plan, "report", bar, keeps=False)
            is_done = True
        finally:
            bar.close(is_done)
        plan.schema = plan.schema if wider is None else wider
    return Scan(plan, progress)


def _attempt(plan: Plan, errors: str, bar: Bar, keeps: bool = True) -> tuple[Any, Table | None]:
    """Reads all parts with this schema. Returns the table, or a schema with which reading must begin again. `keeps`:
    whether the table has the parts."""
    made, rows, wider = Collector(plan.columns(), errors, plan.tasks), Rows(plan), None
    call = shared.Caller(plan.tasks, Read(plan.spec, plan.schema), f"read_{plan.spec.format}")
    for task, future in closing(in_order(_starts(plan, call), plan.ahead)):
        if isinstance(task, TableError):
            made.fail(task)
            continue
        count = None
        try:
            data = plan.reply(future, task.origin, count=lambda: rows.before(task))
            is_over = wider is not None or not keeps
            count = len(received(data, task.origin, plan.tasks)) if is_over else made.add(data, task.origin)
        except TableError as error:
            found = None
            if error._is_of_type and plan.widen and plan.is_repeatable():
                found = _widened(plan, wider, task)
            if found is None:
                # Another type would not help.
                made.fail(error)
            else:
                wider, made = found, Collector(None, errors, plan.tasks)
        rows.add(task, count)
        bar.show(task.read)
    return (wider, None) if wider is not None else (None, made.table())


def _starts(plan: Plan, call: shared.Caller) -> Iterator[tuple[Task | TableError, Any]]:
    for task in plan.parts():
        yield (task, None) if isinstance(task, TableError) else (task, call(*task.place))


def _widened(plan: Plan, wider: Any, task: Task) -> Any:
    """Returns a schema that also fits this part; None if the part fits the types with which it was read, so that other
    types would not help. `wider`: the schema that other parts need, which may suffice for this part."""
    call = shared.Caller(shared.urgent(plan.tasks), Infer(plan.spec, None, tuple(plan.types)), "infer")
    try:
        found = plan.columns_in(plan.reply(call(*task.place), task.origin), task.origin)
    except TableError:
        return None
    fits = _merged(plan, plan.schema, found)
    if fits is None or same_columns(fits, plan.schema):
        return None
    return fits if wider is None else _merged(plan, wider, found)


def _merged(plan: Plan, known: Any, found: Any) -> Any:
    """Returns a schema whose columns can contain the values of both; None if the parser cannot read them with it."""
    if plan.spec.format != "json" and not plan.spec.by_name:
        return typed(widen_by_position(known, found), plan.types)
    merged = typed(merge(known, found, True), plan.types)
    if plan.spec.format == "json" and any(_is_made_text(field, merged) for field in known):
        # The parser converts no other values to text.
        return None
    return merged


def _is_made_text(field: Any, merged: Any) -> bool:
    types = pyarrow.types
    is_text = types.is_string(field.type) or types.is_null(field.type)
    return bool(types.is_string(merged.field(field.name).type) and not is_text)


class Scan:
    """Files whose parts are read on demand, for more data than memory: the result of `arenite.scan_csv` and its
    siblings.

    At most two parts per worker are in memory, however large the files are. Iteration yields their rows as
    `pyarrow.RecordBatch`; dropping a batch frees its memory.

    >>> import arenite, pathlib, tempfile
    >>> with arenite.Executor(2) as ex, tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "a.csv").write_text("n\\n1\\n2\\n")
    ...     _ = pathlib.Path(folder, "b.csv").write_text("n\\n3\\n4\\n")
    ...     scan = arenite.scan_csv(folder, executor=ex)
    ...     sum(scan.map_batches(lambda batch: sum(batch["n"].to_pylist())))
    10
    """

    def __init__(self, plan: Plan, progress: bool | str) -> None:
        self._plan, self._progress = plan, progress

    @property
    def schema(self) -> Any:
        """The columns and their types, a `pyarrow.Schema`."""
        return self._plan.columns()

    def __iter__(self) -> Iterator[pyarrow.RecordBatch]:
        return self._run(None, ())

    if TYPE_CHECKING:

        @overload
        def map_batches(
            self, function: Callable[[pyarrow.RecordBatch, *_Ts], dict[str, Any] | _HasRows], *arguments: *_Ts
        ) -> Iterator[pyarrow.Table]: ...

        @overload
        def map_batches(self, function: Callable[[pyarrow.RecordBatch, *_Ts], _T], *arguments: *_Ts) -> Iterator[_T]: ...

    def map_batches(self, function: Callable[[Any, *_Ts], Any], *arguments: *_Ts) -> Iterator[Any]:
        """Calls `function(batch, *arguments)` with each batch, in the task that reads it. Returns an iterator over the
        results, in order.

        A result with rows and columns (a RecordBatch, a Table, a dict of columns, an object with `__arrow_c_stream__`)
        arrives as `pyarrow.Table` in shared memory; other results arrive unchanged. So a function that sums up sends a
        number.

        A part that fails raises `TableError` in place of its results; the following `next` returns the results after
        it. Dropping the iterator ends the tasks in flight.
        """
        return self._run(function, arguments)

    def write_parquet(self, folder: str | os.PathLike[str], *, compression: str = "snappy") -> list[pathlib.Path]:
        """Writes each part as a Parquet file, in the task that reads it: `part-00000.parquet` and so on, in order.
        Returns the files. This converts files of any size to Parquet with the memory of a few parts.

        A part that cannot be read raises `TableError`; the files of earlier parts remain. Otherwise like
        `Table.write_parquet`.
        """
        from . import write

        plan = self._plan
        target, rows = write.Folder(folder, compression), Rows(plan)
        work = write.ReadAndEncode(Read(plan.spec, plan.schema), compression)
        call = shared.Caller(plan.tasks, work, "write_parquet")
        bar = Bar(self._progress, sum(plan.lens))

        def value(task: Task | TableError, future: Any) -> Any:
            if isinstance(task, TableError):
                raise task
            reply = plan.reply(future, task.origin, count=lambda: rows.before(task))
            if type(reply) is not tuple or len(reply) != 2 or type(reply[0]) is not int:
                raise TableError.at("its worker has sent no file", origin=task.origin)
            rows.add(task, reply[0])
            bar.show(task.read)
            return None if reply[1] is None else write.checked(reply[1], task.origin)

        is_whole = False
        try:
            written = write.write_all(target, in_order(_starts(plan, call), plan.ahead), value)
            if not written:
                target.write(parquet.encode(plan.columns(), [], compression, numpy.empty))
            is_whole = True
            return written
        finally:
            bar.close(is_whole)

    def _run(self, function: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> Iterator[Any]:
        return Results(self._plan, function, arguments, self._progress)

    def __repr__(self) -> str:
        return f"<arenite.Scan of {len(self._plan.files)} files>"


class Results:
    """The results of a scan: an iterator that continues after an error."""

    def __init__(
        self, plan: Plan, function: Callable[..., Any] | None, arguments: tuple[Any, ...], progress: bool | str
    ) -> None:
        self._plan, self._rows = plan, Rows(plan)
        self._bar = Bar(progress, sum(plan.lens))
        self._is_plain = function is None
        read = ReadThenApply(Read(plan.spec, plan.schema), function, arguments)
        call = shared.Caller(plan.tasks, read, getattr(function, "__qualname__", "scan"))
        self._flights = in_order(_starts(plan, call), plan.ahead)
        #: Results of the last part that were not returned yet, in reverse order.
        self._values: list[Any] = []

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> Any:
        while not self._values:
            try:
                task, future = next(self._flights)
            except StopIteration:
                self._bar.close(True)
                raise
            if isinstance(task, TableError):
                raise task
            self._take(task, future)
            del task, future
        return self._values.pop()

    def _take(self, task: Task, future: Any) -> None:
        rows = None
        try:
            reply = self._plan.reply(future, task.origin, count=lambda: self._rows.before(task))
            if not _are_results(reply):
                raise TableError.at("its worker has sent no results", origin=task.origin)
            rows, values = reply
            self._values = [given for value in values for given in self._given(value, task)][::-1]
        finally:
            self._rows.add(task, rows)
            self._bar.show(task.read)

    def _given(self, value: Any, task: Task) -> list[Any]:
        if not part.is_part(value):
            return [value[0]]
        batches = received(value, task.origin, self._plan.tasks)
        if self._is_plain:
            return batches.to_batches()
        return [pyarrow.Table.from_batches(batches.to_batches(), schema=batches.schema)]

    def close(self) -> None:
        """Ends the tasks in flight. No further results come."""
        self._values.clear()
        self._flights.close()  # type: ignore[attr-defined]
        self._bar.close(False)


def _are_results(reply: Any) -> bool:
    """Whether a worker has sent a number of rows and a list of results: parts, and tuples of one value."""
    if type(reply) is not tuple or len(reply) != 2 or type(reply[0]) is not int or type(reply[1]) is not list:
        return False
    return all(part.is_part(value) or type(value) is tuple and len(value) == 1 for value in reply[1])
