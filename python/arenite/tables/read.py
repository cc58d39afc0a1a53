"""The tasks of workers for a table: find ends of records, infer schemas, read parts, run functions on them, count rows.

Each task is an object that is pickled once for all parts. A fault of the content is returned, not raised, because a
sandboxed worker can return it.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy
import pyarrow

from .. import _arenite
from . import csv, cut, jsonl, parquet, part
from .fault import Fault
from .schema import converted_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The number of rows from which a schema is inferred.
SAMPLED_ROWS = 1000


class Spec(NamedTuple):
    """The options for reading files."""

    format: str
    delimiter: int
    has_header: bool
    by_name: bool
    file_column: str | None

    @property
    def separator(self) -> int | None:
        """The delimiter, if quoted fields may contain line breaks."""
        return self.delimiter if self.format == "csv" else None


class Place(NamedTuple):
    """The place of a part: bytes of a file, or the number of a row group and the next number."""

    path: str
    start: int
    end: int
    header: bytes
    is_last: bool
    #: The bytes of the part (for Parquet, of the file) if a worker cannot read the file.
    data: Any


def load(path: str, start: int, end: int) -> bytes:
    """Reads bytes of a file."""
    pieces, at = [], start
    try:
        with open(path, "rb", buffering=0) as file:
            while at < end:
                piece = os.pread(file.fileno(), end - at, at)
                if not piece:
                    break
                pieces.append(piece)
                at += len(piece)
    except OSError as error:
        raise Fault(f"cannot read it: {error.strerror}") from None
    if at < end:
        raise Fault(f"the file has become shorter while it was read: {end - at} bytes are missing")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _content(place: Place) -> bytes:
    return load(place.path, place.start, place.end) if place.data is None else bytes(place.data)


class Task:
    """Converts faults to replies."""

    def __call__(self, *arguments: Any) -> Any:
        if _arenite.is_worker():
            # For Ctrl-C, pyarrow would make a pipe in each call, which a sandbox refuses. The program ends workers
            # itself.
            pyarrow.enable_signal_handlers(False)
        try:
            return self.run(*arguments)
        except Fault as fault:
            return fault.reply()

    def run(self, *arguments: Any) -> Any:
        raise NotImplementedError


class Survey(Task):
    """Returns the state after bytes of a file, for each state in which they may begin."""

    def __init__(self, delimiter: int) -> None:
        self.delimiter = delimiter

    def run(self, path: str, start: int, end: int, first: int) -> Any:
        # The previous byte determines whether a quote opens a field.
        before = cut.NEWLINE if start == first else load(path, start - 1, start)[0]

        def blocks() -> Iterator[Any]:
            for at in range(start, end, cut.BLOCK):
                yield cut.view(load(path, at, min(end, at + cut.BLOCK)))

        return tuple(cut.states_behind(blocks(), self.delimiter, before))


class Infer(Task):
    """Returns the schema of a sample, or of a whole part, as a part without rows."""

    def __init__(self, spec: Spec, rows: int | None, typed: tuple[str, ...]) -> None:
        #: `typed`: the columns whose types the user has given.
        self.spec, self.rows, self.typed = spec, rows, typed

    def run(self, *place: Any) -> Any:
        content, spec = _content(Place(*place)), self.spec
        if spec.format == "csv":
            return part.write(csv.infer(content, Place(*place).header, spec, self.rows), [])
        return part.write(jsonl.infer(content, self.rows, self.typed), [])


class Describe(Task):
    """Returns the schema of a Parquet file, as a part without rows, and the rows of each row group."""

    def run(self, path: str, data: Any) -> Any:
        schema, rows = parquet.describe(path, data)
        return part.write(schema, []), tuple(rows)


class CountRows(Task):
    """Returns the number of rows of a part."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def run(self, *place: Any) -> Any:
        content = _content(Place(*place))
        if self.spec.format == "csv":
            return cut.count_records(cut.view(content), self.spec.delimiter)
        return cut.count_lines(content)


class Read(Task):
    """Reads a part."""

    def __init__(self, spec: Spec, schema: Any) -> None:
        #: `schema` does not include the column for the file.
        self.spec, self.schema = spec, schema

    def run(self, *place: Any) -> Any:
        return part.write(*self.batches(Place(*place)))

    def batches(self, place: Place) -> tuple[Any, list[Any]]:
        """Returns the schema and the batches of a part."""
        spec = self.spec
        if spec.format == "csv":
            found = csv.parse(_content(place), place.header, spec, self.schema, place.is_last)
        elif spec.format == "json":
            found = jsonl.parse(_content(place), self.schema)
        else:
            found = parquet.read(place.path, place.data, place.start, self.schema)
        if spec.file_column is None:
            return self.schema, found
        return _with_file(self.schema, found, spec.file_column, place.path)


def schema_with_file(schema: Any, column: str | None) -> Any:
    """Returns the schema with a column for the name of the file."""
    return schema if column is None else schema.append(pyarrow.field(column, _file_type()))


def _file_type() -> Any:
    return pyarrow.dictionary(pyarrow.int32(), pyarrow.string())


def _with_file(schema: Any, batches: list[Any], column: str, path: str) -> tuple[Any, list[Any]]:
    schema = schema_with_file(schema, column)
    name = os.fsencode(path).decode("utf-8", "replace")

    def add(batch: Any) -> Any:
        names = pyarrow.DictionaryArray.from_arrays(numpy.zeros(batch.num_rows, "i4"), [name])
        return pyarrow.RecordBatch.from_arrays([*batch.columns, names], schema=schema)

    return schema, [add(batch) for batch in batches]


class Apply(Task):
    """Runs a function on the batches of a part. Returns its results as one part."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], schema: Any) -> None:
        self.function, self.arguments, self.schema = function, arguments, schema

    def run(self, data: Any) -> Any:
        schema, batches = part.read(data)
        # The table has no rows: the call shows which columns the function makes.
        return self.on(batches or [_no_rows(schema)])

    def on(self, batches: list[Any]) -> Any:
        tables, schema = [], self.schema
        for batch in batches:
            result = self.function(batch, *self.arguments)
            made = part.batches_of(result)
            if made is None:
                raise TypeError(
                    "the function of map_batches() returns a RecordBatch, a Table or a dict of columns, not "
                    f"{type(result).__name__}"
                )
            if schema is None:
                schema = made.schema
            if made.schema != schema:
                made = converted_table(made, schema)
            tables.append(made)
        return part.write(schema, pyarrow.concat_tables(tables).to_batches())


def _no_rows(schema: Any) -> Any:
    return pyarrow.RecordBatch.from_arrays([pyarrow.array([], kind) for kind in schema.types], schema=schema)


class ReadThenApply(Task):
    """Reads a part and runs a function on its batches. Returns the number of rows, and the list of results; results
    with rows and columns are parts."""

    def __init__(self, read: Read, function: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
        self.read, self.function, self.arguments = read, function, arguments

    def run(self, *place: Any) -> Any:
        schema, batches = self.read.batches(Place(*place))
        rows = sum(batch.num_rows for batch in batches)
        if self.function is None:
            return rows, [part.write(schema, batches)] if batches else []
        results = []
        while batches:
            result = self.function(batches.pop(0), *self.arguments)
            made = part.batches_of(result)
            results.append((result,) if made is None else part.write(made.schema, made.to_batches()))
        return rows, results
