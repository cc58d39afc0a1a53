"""Reads a file from its beginning, in blocks of whole records: `Feed`."""

from __future__ import annotations

import gzip
import os
import stat
import zlib

from . import cut
from .fault import Fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"
#: The number of bytes that are read at a time.
_STEP = 1 << 18


class Feed:
    """A file that is read from its beginning: a pipe, a compressed file, or the header and a sample of any file.

    Bytes that were read but not taken stay in the feed, so a pipe can be sampled before it is read.
    """

    def __init__(self, path: str, delimiter: int | None, has_header: bool) -> None:
        self._delimiter = delimiter
        self._file: IO[bytes] = open(path, "rb")
        try:
            self._open(has_header)
        except BaseException:
            self.close()
            raise

    def _open(self, has_header: bool) -> None:
        known = os.fstat(self._file.fileno())
        is_compressed = self._file.peek(2)[:2] == _GZIP  # type: ignore[attr-defined]
        self._reader: Any = gzip.GzipFile(fileobj=self._file) if is_compressed else self._file
        #: The length of a plain file, whose bytes can be read at any position.
        self._is_regular = stat.S_ISREG(known.st_mode)
        self.plain = known.st_size if self._is_regular and not is_compressed else None
        self._pending = bytearray()
        #: Position of the first byte that was not taken.
        self.offset = 0
        self._is_at_end = False
        #: The error that ended reading. It is raised after the complete records before it are taken.
        self._error: Exception | None = None
        self._fill(len(_MARK))
        if self._pending.startswith(_MARK):
            self._take(len(_MARK))
        #: The first record, if it is a header.
        header = self._record() if has_header else b""
        # A file of empty lines has no header.
        self.header = header if header.strip(b"\r\n") else b""
        #: The position after the byte-order mark and the header.
        self.header_end = self.offset

    def close(self) -> None:
        self._file.close()

    def position(self) -> int:
        """The bytes of the file that have been read, before decompression; 0 for a pipe."""
        return os.lseek(self._file.fileno(), 0, os.SEEK_CUR) if self._is_regular else 0

    def _fill(self, wanted: int) -> None:
        """Reads until this number of bytes is pending, or the file ends."""
        while len(self._pending) < wanted and not self._is_at_end:
            try:
                # `read1` returns the content of a damaged file before the damage.
                more = self._reader.read1(min(max(wanted - len(self._pending), 1 << 13), _STEP))
            except (OSError, EOFError, zlib.error) as error:
                self._error, more = error, b""
            self._is_at_end = not more
            self._pending += more

    def _take(self, end: int) -> bytes:
        with memoryview(self._pending) as pending:
            taken = bytes(pending[:end])
        del self._pending[:end]
        self.offset += end
        return taken

    def _record(self) -> bytes:
        """Takes the first record."""
        wanted = _STEP
        while True:
            self._fill(wanted)
            end = cut.first_record(cut.view(bytes(self._pending)), self._delimiter)
            if end is not None:
                return self._take(end)
            if self._error is not None:
                raise self._error
            if self._is_at_end:
                header = self._take(len(self._pending))
                begin = cut.view(header.lstrip(b"\r\n"))
                if self._delimiter is not None and cut.is_inside_quotes(begin, self._delimiter):
                    # It would contain all rows.
                    raise Fault("the file ends inside the quotes of a field of the header")
                return header
            wanted *= 2

    def _end_of_block(self, size: int) -> int:
        """Returns the end of the last record in the first `size` pending bytes. If no record ends there, returns the
        end of the first record after them."""
        wanted = size
        while True:
            self._fill(wanted)
            whole = self._is_at_end and self._error is None
            if whole and len(self._pending) <= size:
                return len(self._pending)
            # A copy: a view of the array would prevent it from shrinking.
            pending = cut.view(bytes(self._pending))
            end = cut.last_end(pending[:size], self._delimiter)
            if end is None:
                end = cut.first_end(pending, self._delimiter)
            if end is not None:
                return end
            if self._is_at_end:
                return len(self._pending) if whole else 0
            wanted *= 2

    def sample(self, size: int) -> bytes:
        """Returns the beginning of the content, up to the end of a record; all content if it is shorter than a
        record."""
        end = self._end_of_block(size)
        return bytes(memoryview(self._pending)[:end])

    def block(self, size: int) -> tuple[int, bytes, bool] | None:
        """Takes records of about `size` bytes, at least one. Returns their position, the records, and whether they are
        the last records; None at the end.

        Raises the error that ended reading, after the complete records before it were taken.
        """
        end = self._end_of_block(max(1, size))
        if not end:
            if self._error is not None:
                raise self._error
            return None
        start = self.offset
        data = self._take(end)
        # Reading on shows whether these were the last records.
        self._fill(1)
        return start, data, self._is_at_end and not self._pending and self._error is None
