"""The plan of reading files: `Plan`. Its `parts` cuts the files while they are read."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy
import pyarrow

from .._core.executor import executor_of
from .._core.process import text_of
from .._errors import ArenaFull, TableError
from . import cut, part, shared, stream
from .fault import Fault, shown
from .feed import Feed
from .part import Origin
from .read import SAMPLED_ROWS, CountRows, Describe, Infer, Place, Spec, Survey, schema_with_file
from .run import in_order
from .schema import Differs, duplicate, merge, same_columns, type_of, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .._core.executor import Configured

#: Bytes of a part of large files, and of small files; and the number of parts per worker for files in between.
_PART, _SMALL_PART, _PARTS_PER_WORKER = 8 << 20, 1 << 20, 4
#: The limit of bytes that are read from a file to infer its schema.
_SAMPLE = 1 << 20


class Task(NamedTuple):
    """A part to be read."""

    origin: Origin
    place: Place
    #: The bytes of all files up to the end of this part.
    read: int


class Plan:
    """The files of a table, and the options for reading them."""

    def __init__(
        self,
        files: list[str],
        spec: Spec,
        *,
        tasks: Configured,
        schema: Any = None,
        types: Mapping[str, Any] | None = None,
        widen: bool = False,
        part_bytes: int | None = None,
    ) -> None:
        self.files, self.spec, self.tasks, self.widen = files, spec, tasks, widen
        #: The types that the caller has given for some columns.
        self.types = {name: type_of(kind) for name, kind in (types or {}).items()}
        #: The bytes of each file, 0 for a pipe.
        self.lens = [os.path.getsize(file) if os.path.isfile(file) else 0 for file in files]
        #: The number of parts in flight: for each worker, one that runs and one that waits.
        self.ahead = 2 * shared.workers(tasks)
        self.part_bytes = self._part_bytes() if part_bytes is None else max(1, part_bytes)
        self._opened: dict[int, Feed] = {}
        #: For each Parquet file: the number of rows of each row group, and the content if it can be read only once.
        self._groups: list[tuple[list[int], Any]] = []
        if spec.format == "parquet":
            found = self._describe(schema)
        else:
            found = self._infer() if schema is None else schema
        #: The columns, without the additional column for the file.
        self.schema = typed(found, self.types)
        if spec.file_column is not None and spec.file_column in self.schema.names:
            text = f"the files have a column {shown(spec.file_column)} themselves"
            raise TableError.at(text, file=self.files[0])

    def _part_bytes(self) -> int:
        return min(max(sum(self.lens) // (_PARTS_PER_WORKER * shared.workers(self.tasks)), _SMALL_PART), _PART)

    def columns(self) -> Any:
        """The columns of the table."""
        return schema_with_file(self.schema, self.spec.file_column)

    def is_repeatable(self) -> bool:
        """Whether the files can be read again."""
        return self.first_pipe() is None

    def first_pipe(self) -> str | None:
        """Returns the first file that cannot be read again."""
        return next((file for file in self.files if not os.path.isfile(file)), None)

    def opens_files(self, file: str) -> bool:
        """Whether workers can open a file."""
        return os.path.isfile(file) and not shared.is_sandboxed(self.tasks)

    def share(self, data: bytes, file: str) -> Any:
        """Copies bytes to memory that workers can read."""
        try:
            array = executor_of(self.tasks).empty(len(data), "u1")
        except ArenaFull as full:
            raise TableError.at(of_full(full), file=file) from full
        array[:] = numpy.frombuffer(data, "u1")
        return array

    def open(self, index: int) -> Feed:
        """Opens a file at its beginning."""
        if (feed := self._opened.pop(index, None)) is not None:
            return feed
        try:
            return Feed(self.files[index], self.spec.separator, self.spec.has_header)
        except Exception as error:
            raise TableError.at(words(error), file=self.files[index]) from error

    def content(self, file: str) -> Any:
        """Returns the content of a file that workers cannot open."""
        if self.opens_files(file):
            return None
        try:
            with open(file, "rb") as opened:
                return self.share(opened.read(), file)
        except OSError as error:
            raise TableError.at(words(error), file=file) from error

    # ---- the schema

    def _infer(self) -> Any:
        """Returns the schema of the first file that has rows; with `by_name`, of all files."""
        found = self._infer_each()
        if self.spec.format != "csv":
            return found
        # Text fits all later cells of a column without values.
        types = [pyarrow.string() if pyarrow.types.is_null(kind) else kind for kind in found.types]
        return pyarrow.schema(list(zip(found.names, types)))

    def _infer_each(self) -> Any:
        merged: Any = None
        call = shared.Caller(shared.urgent(self.tasks), Infer(self.spec, SAMPLED_ROWS, tuple(self.types)), "infer")
        samples = self._samples() if self.spec.by_name else _one_with_rows(self._samples())
        starts = ((file, call(*place)) for file, place in samples)
        for file, reply in in_order(starts, self.ahead):
            # The sample begins with the first row of the file.
            found = self.columns_in(self.reply(reply, Origin(file), rows_before=0), Origin(file))
            if not self.spec.by_name:
                return found
            self._check_names(found, file)
            found = self._typed(found)
            merged = found if merged is None else self._union(merged, found, file)
        if merged is None:
            text = "there is no row to infer a schema from: pass one with schema="
            raise TableError.at(text, file=self.files[0])
        return merged

    @staticmethod
    def _check_names(found: Any, file: str) -> None:
        if (name := duplicate(found.names)) is not None:
            text = f"two columns have the name {shown(name)}, so by_name=True cannot tell them apart"
            raise TableError.at(text, file=file, column=name)

    def _typed(self, found: Any) -> Any:
        """Returns the schema of a file with the types that the user has given."""
        return typed(found, {name: kind for name, kind in self.types.items() if name in found.names})

    def _union(self, known: Any, found: Any, file: str) -> Any:
        try:
            return merge(known, found, self.widen)
        except Differs as differs:
            text = (
                f"it is {differs.found} in this file and {differs.known} in those before; pass types= or schema=, or "
                "widen=True, which chooses a type"
            )
            raise TableError.at(text, file=file, column=differs.column) from None

    def _samples(self) -> Iterator[tuple[str, Place]]:
        """Yields the beginnings of the files that have content."""
        for index, file in enumerate(self.files):
            feed = self.open(index)
            sample = feed.sample(_SAMPLE)
            # Empty lines are no rows.
            if not sample.strip(b"\r\n" if self.spec.format == "csv" else None):
                sample = b""
            if os.path.isfile(file):
                feed.close()
            else:
                self._opened[index] = feed
            if sample or feed.header:
                data = self.share(sample, file)
                yield file, Place(file, 0, 0, feed.header, False, data)

    def _describe(self, given: Any) -> Any:
        """Returns the schema of Parquet files, or checks that they have the columns of a given one. Records the number
        of rows of each row group."""
        known: Any = None
        call = shared.Caller(shared.urgent(self.tasks), Describe(), "describe")
        contents: list[Any] = []

        def starts() -> Iterator[Any]:
            for file in self.files:
                content = self.content(file)
                contents.append(None if os.path.isfile(file) else content)
                yield file, call(file, content)

        for number, (file, reply) in enumerate(in_order(starts(), self.ahead)):
            described = self.reply(reply, Origin(file))
            if not _is_description(described):
                raise TableError.at("its worker has sent no description", file=file)
            found, rows = self.columns_in(described[0], Origin(file)), described[1]
            if self.spec.by_name:
                self._check_names(found, file)
            if given is not None:
                missing = [name for name in given.names if name not in found.names]
                if missing and not self.spec.by_name:
                    text = f"the schema has the column {shown(missing[0])}, and this file does not"
                    raise TableError.at(f"{text}; by_name=True reads files whose columns differ", file=file)
            elif known is None:
                known = self._typed(found)
            else:
                found = self._typed(found)
                if not self.spec.by_name and known.names != found.names:
                    text = f"its columns are {found.names}, and those of the first file {known.names}"
                    raise TableError.at(f"{text}; by_name=True reads files whose columns differ", file=file)
                if not same_columns(known, found):
                    known = self._union(known, found, file)
            self._groups.append((list(rows), contents[number]))
        if given is not None:
            return given
        # Rows of other files may lack a value.
        return pyarrow.schema([field.with_nullable(True) for field in known], known.metadata)

    # ---- replies of tasks

    def reply(
        self, future: Any, origin: Origin, rows_before: int | None = None, count: Callable[[], int | None] | None = None
    ) -> Any:
        """Returns the reply of a task. Raises TableError. `count`: counts the rows of the file before the part."""
        try:
            reply = future.result()
        except Exception as error:
            raise failed(error, origin) from error
        fault = Fault.of(reply)
        if fault is None:
            return reply
        if fault.row and count is not None:
            rows_before = count()
        row = fault.row + rows_before if fault.row and rows_before is not None else None
        wrong = TableError.at(fault.text, origin=origin, row=row, row_of_part=fault.row or None, column=fault.column)
        wrong._is_of_type = fault.is_of_type
        raise wrong

    def columns_in(self, data: Any, origin: Origin) -> Any:
        """Returns the schema of a part that a worker has sent. Raises TableError if it is invalid."""
        if not part.is_part(data):
            raise TableError.at("its worker has sent no part", origin=origin)
        read = stream.read if shared.is_sandboxed(self.tasks) else part.read
        try:
            return read(data)[0]
        except (pyarrow.ArrowException, OSError) as error:
            raise TableError.at(f"its worker has sent no Arrow stream: {error}", origin=origin) from error

    # ---- parts

    def parts(self) -> Iterator[Task | TableError]:
        """Yields the parts of all files, in order. A file is cut while its parts are requested; after an error, the
        next file follows."""
        before = 0
        for index, size in enumerate(self.lens):
            try:
                for task in self._parts_of(index):
                    yield task._replace(read=before + task.read)
            except TableError as error:
                yield error
            before += size

    def _parts_of(self, index: int) -> Iterator[Task]:
        file, spec = self.files[index], self.spec
        if spec.format == "parquet":
            rows, content = self._groups[index]
            content = self.content(file) if content is None else content
            first = 0
            for group, count in enumerate(rows):
                origin = Origin(file, row_group=group, rows=range(first, first + count))
                first += count
                read = self.lens[index] * first // max(1, sum(rows))
                yield Task(origin, Place(file, group, group + 1, b"", False, content), read)
            return
        feed = self.open(index)
        try:
            if feed.plain is None or shared.is_sandboxed(self.tasks):
                yield from self._fed(file, feed)
                return
        finally:
            feed.close()
        header, begin, length = feed.header, feed.header_end, feed.plain
        if begin == length and not header:
            return
        ends = self._ends_of_records if spec.format == "csv" else self._ends_of_lines
        for end in ends(file, begin, length):
            yield Task(Origin(file, range(begin, end)), Place(file, begin, end, header, end == length, None), end)
            begin = end

    def _fed(self, file: str, feed: Feed) -> Iterator[Task]:
        """Yields the parts of a file that this process reads."""
        while True:
            try:
                block = feed.block(self.part_bytes)
            except Exception as error:
                raise TableError.at(f"reading ended behind byte {feed.offset}: {words(error)}", file=file) from error
            if block is None:
                if feed.header and feed.offset == feed.header_end:
                    # The header is checked even if the file has no rows.
                    yield self._passed(file, feed, feed.offset, b"", True)
                return
            start, data, is_last = block
            yield self._passed(file, feed, start, data, is_last)

    def _passed(self, file: str, feed: Feed, start: int, data: bytes, is_last: bool) -> Task:
        end = start + len(data)
        place = Place(file, start, end, feed.header, is_last, self.share(data, file))
        return Task(Origin(file, range(start, end)), place, feed.position())

    def _ends_of_lines(self, file: str, begin: int, length: int) -> Iterator[int]:
        """Yields the ends of the parts of a file whose records are lines."""
        while begin < length:
            at = begin + self.part_bytes - 1
            begin = _end_of_line(file, at, length) if at < length else length
            yield begin

    def _ends_of_records(self, file: str, begin: int, length: int) -> Iterator[int]:
        """Yields the ends of the parts of a CSV file, from the surveys of workers."""
        size, delimiter, first = self.part_bytes, self.spec.delimiter, begin
        if length - first <= size:
            yield length
            return
        call = shared.Caller(shared.urgent(self.tasks), Survey(delimiter), "survey")
        starts = ((start, call(file, start, min(length, start + size), first)) for start in range(first, length, size))
        state = cut.OUTSIDE
        for start, reply in in_order(starts, self.ahead):
            if start > first and start >= begin:
                end = _end_of_record(file, start, min(length, start + size), delimiter, state)
                if end is not None and begin < end < length:
                    yield end
                    begin = end
            # Without the result of this survey, no later cut is known.
            behind = self.reply(reply, Origin(file, range(begin, length)))
            state = behind[state] if behind[state] in cut.STATES else cut.OUTSIDE
        yield length


def _one_with_rows(samples: Iterator[tuple[str, Place]]) -> Iterator[tuple[str, Place]]:
    """Yields the first sample with rows, or the first if none has rows: its schema suffices if columns are not matched
    by name."""
    first = None
    for sample in samples:
        if len(sample[1].data):
            yield sample
            return
        first = first or sample
    if first is not None:
        yield first


def _is_description(reply: Any) -> bool:
    """Whether a worker has sent a schema, and the number of rows of each row group."""
    if type(reply) is not tuple or len(reply) != 2 or type(reply[1]) is not tuple:
        return False
    return all(type(rows) is int and 0 <= rows < 1 << 63 for rows in reply[1])


def _end_of_line(file: str, at: int, length: int) -> int:
    try:
        with open(file, "rb", buffering=0) as opened:
            while at < length and (block := os.pread(opened.fileno(), 1 << 16, at)):
                end = block.find(b"\n")
                if end >= 0:
                    return min(length, at + end + 1)
                at += len(block)
    except OSError as error:
        raise TableError.at(words(error), file=file) from error
    return length


def _end_of_record(file: str, start: int, end: int, delimiter: int, state: int) -> int | None:
    """Returns the position after the first record that ends in these bytes, which begin in `state`; None if none
    does."""
    try:
        with open(file, "rb", buffering=0) as opened:
            before = os.pread(opened.fileno(), 1, start - 1)[:1] or b"\n"
            size = 1 << 12
            while start < end and (block := os.pread(opened.fileno(), min(size, end - start), start)):
                data = cut.view(block)
                found = cut.first_end(data, delimiter, state, before[0])
                if found is not None:
                    end_of_record: int = start + found
                    return end_of_record
                state = cut.quotes(data, delimiter, state, before[0])[1]
                before, start, size = block[-1:], start + len(block), min(2 * size, cut.BLOCK)
    except OSError as error:
        raise TableError.at(words(error), file=file) from error
    return None


class Rows:
    """The numbers of rows of the current file's parts, from which the row of an error in the file is computed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._file: str | None = None
        #: Each part, and the number of its rows if it is known.
        self._parts: list[tuple[Place, int | None]] = []

    def add(self, task: Task, rows: int | None) -> None:
        if task.origin.file != self._file:
            self._file, self._parts = task.origin.file, []
        self._parts.append((task.place, rows))

    def before(self, task: Task) -> int | None:
        """The number of rows of the file before a part; None if they cannot be counted."""
        parts = self._parts if task.origin.file == self._file else []
        missing = [place for place, rows in parts if rows is None]
        known = sum(rows for _, rows in parts if rows is not None)
        if any(place.data is not None for place in missing) or self._plan.spec.format == "parquet":
            return None if missing else known
        if not missing:
            return known
        call = shared.Caller(shared.urgent(self._plan.tasks), CountRows(self._plan.spec), "count rows")
        try:
            counts: list[int] = [
                self._plan.reply(future, task.origin) for future in [call(*place) for place in missing]
            ]
        except TableError:
            return None
        return known + sum(counts)


def words(error: BaseException) -> str:
    """Returns the message of an error of reading."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def of_full(full: ArenaFull) -> str:
    return f"{full}; or scan the files, which needs room for a few parts only"


def failed(error: BaseException, origin: Origin | None) -> TableError:
    """Returns the error of a part whose task has failed: its worker died, it ran out of time or memory, or its function
    raised an exception."""
    from .. import _errors

    if isinstance(error, ArenaFull):
        text = of_full(error)
    elif isinstance(error, (_errors.Failure, _errors.Cancelled)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {text_of(error)}"
    return TableError.at(text, origin=origin)
