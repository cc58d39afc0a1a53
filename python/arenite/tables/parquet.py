"""Row groups of Parquet files, in workers."""

from __future__ import annotations

from contextlib import suppress

import numpy
import pyarrow
import pyarrow.parquet

from .._core import arrays
from .fault import Fault, check_nulls, shown
from .schema import converted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: The types of columns that may be read as dictionaries.
_TEXTS = [pyarrow.string(), pyarrow.binary()]


def _open(path: str, data: Any, **options: Any) -> Any:
    source = path if data is None else pyarrow.BufferReader(pyarrow.py_buffer(data))
    try:
        return pyarrow.parquet.ParquetFile(source, **options)
    except OSError as error:
        if data is None and error.errno is not None:
            raise Fault(f"cannot open it: {error.strerror}") from None
        raise Fault(f"no whole Parquet file: {error}") from None
    except pyarrow.ArrowException as error:
        raise Fault(f"no whole Parquet file: {error}") from None


def describe(path: str, data: Any) -> tuple[Any, list[int]]:
    """Returns the schema of a file, and the number of rows of each row group."""
    with _open(path, data) as file:
        known = file.metadata
        return file.schema_arrow, [known.row_group(group).num_rows for group in range(known.num_row_groups)]


def read(path: str, data: Any, group: int, table: Any) -> list[Any]:
    """Reads a row group. Returns batches."""
    with _open(path, data) as file:
        repeated = _repeated(file, group, table)
        # The text of a column may be longer than an array can be. It consists of several arrays if it is read as text.
        with suppress(Fault):
            if repeated:
                with _open(path, data, metadata=file.metadata, read_dictionary=repeated) as again:
                    return _batches(again, group, table)
        return _batches(file, group, table)


def _batches(file: Any, group: int, table: Any) -> list[Any]:
    try:
        found = file.read_row_group(group, use_threads=False)
    except (OSError, pyarrow.ArrowException) as error:
        raise Fault(str(error)) from None
    rows = found.num_rows
    columns = []
    for position, field in enumerate(table):
        index = found.schema.get_field_index(field.name)
        if index < 0 and field.name in found.schema.names:
            # Two columns have this name: uses the position.
            if found.schema.names != table.names:
                raise Fault(f"two columns have the name {shown(field.name)}", column=field.name)
            index = position
        if index < 0:
            column = pyarrow.nulls(rows, field.type)
        else:
            try:
                column = converted(found.column(index), field.type)
            except pyarrow.ArrowException as error:
                raise Fault(str(error), column=field.name) from None
        check_nulls(field, column)
        columns.append(column)
    return pyarrow.Table.from_arrays(columns, schema=table).to_batches()  # type: ignore[no-any-return]


def _repeated(file: Any, group: int, table: Any) -> list[str]:
    """Returns the columns of text that a row group contains as a dictionary of values, and a number for each row. To
    decode them as they are, and to convert the dictionaries to text, is up to twice as fast as to decode text."""
    known, names = file.metadata.row_group(group), file.schema_arrow.names
    columns = map(known.column, range(known.num_columns))
    # A value that is not in a dictionary takes at least the 4 bytes of its length.
    short = {column.path_in_schema for column in columns if column.total_uncompressed_size < 4 * column.num_values}
    fields = [field for field in table if field.type in _TEXTS and field.name in short and names.count(field.name) == 1]
    return [field.name for field in fields if file.schema_arrow.field(field.name).type == field.type]


def encode(schema: Any, batches: list[Any], compression: str, empty: Callable[..., Any] = arrays.empty) -> Any:
    """Returns the rows as a Parquet file, in an array that `empty` makes: by default, in a task, one in the arena."""
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.Table.from_batches(batches, schema=schema)
    pyarrow.parquet.write_table(table, sink, compression=compression)
    encoded = numpy.frombuffer(sink.getvalue(), "u1")
    data = empty(len(encoded), "u1")
    data[:] = encoded
    return data
