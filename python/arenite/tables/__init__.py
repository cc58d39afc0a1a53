"""Tables: CSV files, lines of JSON and Parquet files, read by all workers into Arrow's format in shared memory.

A `Table` is a list of parts, and a part is one array of bytes with an Arrow IPC stream in it. Files are cut into
parts at the ends of records, also where fields contain line breaks, and each part is parsed by one task. So the rows
and their order depend neither on the number of workers nor on the size of parts. A parser or a function that dies
costs one part, which the error names by file and bytes. Workers parse with pyarrow.

Workers open the files. This process reads pipes and compressed files, from their beginning. It also reads all files for
sandboxed workers, which cannot open files: they get the bytes as arrays, and parse them.
"""

from __future__ import annotations

try:
    import numpy as numpy
    import pyarrow as pyarrow
except ImportError as _missing:
    raise ImportError(
        f"tables need pyarrow and numpy, and {_missing.name} is missing: pip install 'arenite[tables]'",
        name=_missing.name,
    ) from _missing

# Imported now, because a sandboxed worker cannot import them later. pyarrow imports this module when it converts a
# column.
import pyarrow.compute as _compute  # noqa: F401

from . import write as write
from .column import apply as apply
from .reader import Scan as Scan
from .reader import make_plan, make_scan, read_all
from .table import Part as Part
from .table import Table as Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from .._core.executor import Configured, Executor
    from .sources import Sources


def read_csv(
    source: Sources,
    *,
    delimiter: str = ",",
    header: bool = True,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    widen: bool = False,
    by_name: bool = False,
    file_column: str | None = None,
    part_bytes: int | None = None,
    errors: Literal["raise", "report"] = "raise",
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Table:
    """Reads CSV files into a table.

    >>> import arenite, pathlib, tempfile
    >>> with arenite.Executor(2) as ex, tempfile.TemporaryDirectory() as data:
    ...     _ = pathlib.Path(data, "a.csv").write_text('name,price\\napple,1.5\\n"pear,\\nripe",2\\n')
    ...     _ = pathlib.Path(data, "b.csv").write_text("name,price\\nplum,\\n")
    ...     arenite.read_csv(f"{data}/*.csv", executor=ex)
    <arenite.Table: 3 rows in 2 parts; name: string, price: double>

    Fields may be quoted, and then contain delimiters, line breaks and doubled quotes. Byte-order marks and empty lines
    are skipped. This process also reads pipes, and files that gzip has compressed. An empty cell is null.

    :param source: A file, a folder, a pattern such as "data/*.csv", or a list of these. A pattern or a folder stands
        for its files in the order of their paths.
    :param delimiter: The separator of fields.
    :param header: Whether the first record contains the names. Otherwise the columns have the names `column_1` and so
        on, or the names in `schema`.
    :param schema: The columns and their types, a `pyarrow.Schema`. By default they are inferred from the first 1,000
        rows (at most 1 MiB) of the first file with rows; a later value that does not fit is an error.
    :param types: The types of some columns, such as `{"price": "float64"}`: types of pyarrow or numpy, or their names,
        except "float", which has 32 bits in pyarrow and 64 in numpy.
    :param widen: Whether a value that does not fit its type changes the type of the column: from integer to float, then
        to text. Then the files are read again.
    :param by_name: Whether columns are matched by name: the table has the columns of all files, with null where a file
        lacks a column. Otherwise all files must have the columns of the first file.
    :param file_column: The name of an additional column with the file of each row.
    :param part_bytes: The size of a part in bytes of its file: by default 8 MiB, and down to 1 MiB if that keeps all
        workers busy. The rows do not depend on it. Parsing a part takes a few times its size in memory of the worker.
    :param errors: "raise" raises the first failure, and cancels the rest. "report" returns a table of all other parts,
        with the failures in `Table.failures`.
    :param progress: Whether a progress bar of the bytes of the files is shown, if tqdm is installed. A text is its
        title.
    :param executor: The executor whose workers read, or the result of its `options`. By default all calls share an
        executor with a worker for each core, which ends with the program.

    Raises TableError, which names file, row and column.
    """
    plan = make_plan(
        source, "csv", executor, delimiter=delimiter, header=header, schema=schema, types=types, widen=widen,
        by_name=by_name, file_column=file_column, part_bytes=part_bytes,
    )  # fmt: skip
    return read_all(plan, errors, progress)


def read_json(
    source: Sources,
    *,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    widen: bool = False,
    by_name: bool = False,
    file_column: str | None = None,
    part_bytes: int | None = None,
    errors: Literal["raise", "report"] = "raise",
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Table:
    """Reads files with one JSON object per line into a table, as `read_csv` does CSV.

    A field that is not in the schema is an error, so that no data is lost. Texts that look like times remain texts,
    unless `schema` gives the column another type.
    """
    plan = make_plan(
        source, "json", executor, schema=schema, types=types, widen=widen, by_name=by_name, file_column=file_column,
        part_bytes=part_bytes,
    )  # fmt: skip
    return read_all(plan, errors, progress)


def read_parquet(
    source: Sources,
    *,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    widen: bool = False,
    by_name: bool = False,
    file_column: str | None = None,
    errors: Literal["raise", "report"] = "raise",
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Table:
    """Reads Parquet files into a table, as `read_csv` does CSV. Each row group is a part.

    :param schema: The columns and their types, instead of those in the files. Values are converted; one that would be
        cut or rounded is an error.
    :param widen: Whether a column may have different types in different files: then its type is one that fits all
        values.
    """
    plan = make_plan(
        source, "parquet", executor, schema=schema, types=types, widen=widen, by_name=by_name, file_column=file_column
    )
    return read_all(plan, errors, progress)


def scan_csv(
    source: Sources,
    *,
    delimiter: str = ",",
    header: bool = True,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    widen: bool = False,
    by_name: bool = False,
    file_column: str | None = None,
    part_bytes: int | None = None,
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Scan:
    """Prepares to read CSV files part by part, for more than fits into memory. The options are those of `read_csv`.

    With `widen`, all parts are read at once to find types that fit all rows, the same as those of `read_csv`, and again
    when they are asked for. Columns in `types` keep their types.
    """
    plan = make_plan(
        source, "csv", executor, delimiter=delimiter, header=header, schema=schema, types=types, widen=widen,
        by_name=by_name, file_column=file_column, part_bytes=part_bytes,
    )  # fmt: skip
    return make_scan(plan, progress)


def scan_json(
    source: Sources,
    *,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    widen: bool = False,
    by_name: bool = False,
    file_column: str | None = None,
    part_bytes: int | None = None,
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Scan:
    """Prepares to read files with one JSON object per line part by part, as `scan_csv` does CSV."""
    plan = make_plan(
        source, "json", executor, schema=schema, types=types, widen=widen, by_name=by_name, file_column=file_column,
        part_bytes=part_bytes,
    )  # fmt: skip
    return make_scan(plan, progress)


def scan_parquet(
    source: Sources,
    *,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    widen: bool = False,
    by_name: bool = False,
    file_column: str | None = None,
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Scan:
    """Prepares to read the row groups of Parquet files one by one, as `scan_csv` does the parts of CSV files."""
    plan = make_plan(
        source, "parquet", executor, schema=schema, types=types, widen=widen, by_name=by_name, file_column=file_column
    )
    return make_scan(plan, progress)
