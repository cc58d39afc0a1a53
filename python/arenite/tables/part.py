"""Parts: arrays of bytes with an Arrow IPC stream, in the arena."""

from __future__ import annotations

import pyarrow

from .._core import arrays
from .._core.process import imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from numpy.typing import NDArray


class Origin:
    """The place of a part's rows in a file."""

    __slots__ = ("bytes", "file", "row_group", "rows")

    def __init__(
        self, file: str, bytes: range | None = None, row_group: int | None = None, rows: range | None = None
    ) -> None:
        #: The file.
        self.file = file
        #: The bytes of the file. For a compressed file, the bytes of its content. None for Parquet.
        self.bytes = bytes
        #: The row group of a Parquet file, from 0 on.
        self.row_group = row_group
        #: The rows of the row group, from 0.
        self.rows = rows

    def __str__(self) -> str:
        if self.bytes is not None:
            return f"{self.file}, bytes {self.bytes.start}..{self.bytes.stop}"
        if self.row_group is not None and self.rows is not None:
            return f"{self.file}, row group {self.row_group} (rows {self.rows.start}..{self.rows.stop})"
        return self.file

    def __repr__(self) -> str:
        return f"<Origin {self}>"


def write(schema: Any, batches: Iterable[Any], empty: Callable[..., NDArray[Any]] = arrays.empty) -> NDArray[Any]:
    """Writes batches as a part, in memory from `empty`: in a task, in the arena. This is the only copy."""
    batches = list(batches)

    def into(sink: Any) -> None:
        with pyarrow.ipc.new_stream(sink, schema) as stream:
            for batch in batches:
                stream.write_batch(batch)

    # Computes the length first.
    ruler = pyarrow.MockOutputStream()
    into(ruler)
    data = empty(ruler.size(), "u1")
    into(pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(data)))
    return data


def read(data: NDArray[Any]) -> tuple[Any, list[Any]]:
    """Returns the schema and the batches of a part. Both refer to its memory."""
    with pyarrow.ipc.open_stream(pyarrow.py_buffer(data)) as stream:
        return stream.schema, [batch for batch in stream if batch.num_rows]


def is_part(value: Any) -> bool:
    """Whether the reply of a task is a part: tasks of tables return no other arrays."""
    return type(value).__module__ == "numpy" and value.dtype == "u1" and value.ndim == 1


def batches_of(result: Any) -> Any:
    """Returns the result of a function as an Arrow table; None if it is no table."""
    if isinstance(result, pyarrow.Table):
        return result
    if isinstance(result, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([result])
    if isinstance(result, dict):
        return pyarrow.table(result)
    if (pandas := imported("pandas")) is not None and isinstance(result, pandas.DataFrame):
        # Without its index, which is no column.
        return pyarrow.Table.from_pandas(result, preserve_index=False).replace_schema_metadata(None)
    if hasattr(result, "__arrow_c_stream__") and not hasattr(result, "__arrow_c_array__") and not is_column(result):
        return pyarrow.table(result)
    return None


def is_column(value: Any) -> bool:
    """Whether an object with `__arrow_c_stream__` is a column and no table: a Series or a ChunkedArray."""
    pandas, polars = imported("pandas"), imported("polars")
    columns = [pyarrow.ChunkedArray, *(library.Series for library in (pandas, polars) if library is not None)]
    return isinstance(value, tuple(columns))
