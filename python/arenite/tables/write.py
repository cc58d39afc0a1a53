"""Tables as Parquet files: `write_parquet`."""

from __future__ import annotations

import os
import pathlib
import secrets

import pyarrow

from .._errors import TableError
from . import parquet, part
from .part import Origin
from .plan import failed
from .read import Place, Read, Task
from .run import closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class Encode(Task):
    """Encodes a part as a Parquet file."""

    def __init__(self, compression: str) -> None:
        self.compression = compression

    def run(self, data: Any) -> Any:
        return parquet.encode(*part.read(data), self.compression)


class ReadAndEncode(Task):
    """Reads a part and encodes it. Returns the number of rows, and the file if there are any."""

    def __init__(self, read: Read, compression: str) -> None:
        self.read, self.compression = read, compression

    def run(self, *place: Any) -> Any:
        schema, batches = self.read.batches(Place(*place))
        rows = sum(batch.num_rows for batch in batches)
        return rows, parquet.encode(schema, batches, self.compression) if rows else None


class Folder:
    """A folder for the parts of one table."""

    def __init__(self, path: str | os.PathLike[str], compression: str) -> None:
        if compression != "none" and not _is_known(compression):
            raise ValueError(f"no compression {compression!r}: snappy, zstd, gzip, brotli, lz4 or none")
        self._path = pathlib.Path(path)
        #: The files that were written.
        self.files: list[pathlib.Path] = []
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            found = next(self._path.glob("part-*.parquet"), None)
        except OSError as error:
            raise _wrong(self._path, error) from error
        if found is not None:
            text = "the parts of another table are in this folder: remove them, or choose another folder"
            raise TableError.at(text, file=os.fspath(found))

    def write(self, data: Any) -> None:
        """Writes the next part. The file gets its name when it is complete, and replaces no file."""
        # Names have the order of the parts: a letter for each digit beyond the fifth, as in `part-a100000`.
        number = f"{len(self.files):05}"
        path = self._path / f"part-{'a' * (len(number) - 5)}{number}.parquet"
        try:
            draft = self._path / f".part-{secrets.token_hex(8)}"
            with open(draft, "xb") as file:
                try:
                    file.write(memoryview(data))
                    file.flush()
                    os.link(draft, path)
                finally:
                    os.unlink(draft)
        except OSError as error:
            raise _wrong(path, error) from error
        self.files.append(path)


def _is_known(compression: str) -> bool:
    try:
        return bool(pyarrow.Codec.is_available(compression))
    except ValueError:
        return False


def _wrong(path: pathlib.Path, error: OSError) -> TableError:
    return TableError.at(f"cannot write it: {error.strerror}", file=os.fspath(path))


def write_all(
    folder: Folder, flights: Iterator[tuple[Any, Any]], value: Callable[[Any, Any], Any]
) -> list[pathlib.Path]:
    """Writes the files that tasks have encoded, in order. `value(what, future)`: returns the file of a task, or
    None."""
    for what, future in closing(flights):
        data = value(what, future)
        if data is not None:
            folder.write(data)
        del data, future
    return folder.files


def encoded(future: Any, origin: Origin | None) -> Any:
    """Returns the file that a task has encoded. Raises TableError."""
    try:
        data = future.result()
    except Exception as error:
        raise failed(error, origin) from error
    return checked(data, origin)


def checked(data: Any, origin: Origin | None) -> Any:
    if not part.is_part(data):
        raise TableError.at("its worker has sent no file", origin=origin)
    return data
