"""Tables: CSV files, lines of JSON and Parquet files, read by all workers into Arrow's format in shared memory.

A `Table` is a list of parts, and a part is one array of bytes with an Arrow IPC stream in it. Files are cut into
parts at the ends of records, also where fields contain line breaks, and each part is parsed by one task. So the rows
and their order depend neither on the number of workers nor on the size of parts. A parser or a function that dies
costs one part, which the error names by file and bytes. Workers parse with pyarrow.

Workers open the files. Pipes and compressed files are read by this process from their beginning, and so are all files
if the workers are sandboxed, because these cannot open any: they get the bytes as arrays, and parse them.
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

# A worker in a sandbox imports nothing later.
from . import write as write
from .column import apply as apply
from .reader import Scan as Scan
from .reader import make_plan, read_all
from .table import Part as Part
from .table import Table as Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from .._executor import Configured, Executor
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

    Fields may be quoted, and then contain delimiters, line breaks and doubled quotes. A byte-order mark and empty lines
    are left out. Files that gzip has compressed and pipes are read, too, by this process. An empty cell is null.

    :param source: A file, a folder, a pattern such as "data/*.csv", or a list of these. A pattern and a folder mean
        their files in the order of their paths.
    :param delimiter: What separates fields.
    :param header: Whether the first record has the names. Otherwise the columns are `column_1` and so on, or those of
        `schema`.
    :param schema: The columns and their types, a `pyarrow.Schema`. By default they are inferred from the first 1,000
        rows (at most 1 MiB) of the first file that has any, and a later value that does not fit is an error.
    :param types: The types of some columns, such as `{"price": "float64"}`: types of pyarrow or numpy, or their names.
    :param widen: Whether a value that does not fit its type changes the type of the column instead: an integer to a
        float, then to text. The files are read again then.
    :param by_name: Whether columns are matched by name: the table has those of all files, and null where a file has
        none. Otherwise all files have the columns of the first one.
    :param file_column: The name of a column to add, with the file of each row.
    :param part_bytes: The size of a part in bytes of its file: 8 MiB by default, and down to 1 MiB where that keeps all
        workers busy. The rows do not depend on it. Parsing takes a few times that much memory in each worker.
    :param errors: "raise" raises the first failure, which ends the rest. "report" returns a table of all other parts,
        with the failures in `Table.failures`.
    :param progress: Shows a progress bar of the bytes of the files, if tqdm is installed; text is its title.
    :param executor: The executor whose workers read, or what its `options` return. By default all calls share one,
        with a worker for each core, that ends with the program.

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

    A field that the schema lacks is an error, too, so that nothing is left out. Texts stay texts, also if they look
    like times: `schema` says otherwise.
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

    :param schema: The columns and their types, to which values are converted, instead of those of the files.
    :param widen: Whether a column may have other types in other files: its type is one that fits all.
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
    by_name: bool = False,
    file_column: str | None = None,
    part_bytes: int | None = None,
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Scan:
    """Prepares to read CSV files part by part, for more than fits into memory. The options are those of `read_csv`.

    There is no `widen`, because that may need all rows.
    """
    plan = make_plan(
        source, "csv", executor, delimiter=delimiter, header=header, schema=schema, types=types, by_name=by_name,
        file_column=file_column, part_bytes=part_bytes,
    )  # fmt: skip
    return Scan(plan, progress)


def scan_json(
    source: Sources,
    *,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    by_name: bool = False,
    file_column: str | None = None,
    part_bytes: int | None = None,
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Scan:
    """Prepares to read files with one JSON object per line part by part, as `scan_csv` does CSV."""
    plan = make_plan(
        source, "json", executor, schema=schema, types=types, by_name=by_name, file_column=file_column,
        part_bytes=part_bytes,
    )  # fmt: skip
    return Scan(plan, progress)


def scan_parquet(
    source: Sources,
    *,
    schema: Any = None,
    types: Mapping[str, Any] | None = None,
    by_name: bool = False,
    file_column: str | None = None,
    progress: bool | str = False,
    executor: Executor | Configured | None = None,
) -> Scan:
    """Prepares to read the row groups of Parquet files one by one, as `scan_csv` does the parts of CSV files."""
    plan = make_plan(source, "parquet", executor, schema=schema, types=types, by_name=by_name, file_column=file_column)
    return Scan(plan, progress)
