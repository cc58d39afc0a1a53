"""Parts of CSV files, in workers."""

from __future__ import annotations

import csv
import io
import re

import pyarrow
import pyarrow.csv

from . import cut
from .fault import Fault, check_nulls, shown
from .schema import duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .read import Spec

_MARK = b"\xef\xbb\xbf"
#: An integer that may need more than 63 bits.
_LONG = re.compile(rb"[+-]?\d{19,}")
#: A number that the parser reads as bits: 0xff is -1 as int8.
_HEX = re.compile(rb"0[xX][0-9a-fA-F]+")
#: The largest size of a block: the parser has 32 bits for it.
_MOST = (1 << 31) - 1


def header_names(header: bytes, delimiter: int) -> list[str]:
    """Returns the names in a header."""
    try:
        text = header.decode()
    except UnicodeDecodeError as error:
        raise Fault(f"the header cannot be read: {error}") from None
    try:
        # Skips empty lines before the header.
        lines = csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=chr(delimiter))
        known = csv.field_size_limit(max(len(text), csv.field_size_limit()))
        try:
            return next(lines, [])
        finally:
            csv.field_size_limit(known)
    except csv.Error as error:
        raise Fault(f"the header cannot be read: {error}") from None


class Columns:
    """The columns of a file, and their places in the table."""

    def __init__(self, header: bytes, spec: Spec, table: Any) -> None:
        self.table = table
        #: The names and types of all columns of the file.
        self.fields = list(table)
        #: For each column of the table, the index of its column in the file.
        self.places: list[int | None] = list(range(len(table)))
        self.delimiter = spec.delimiter
        if not spec.has_header:
            return
        names, known = header_names(header, spec.delimiter), table.names
        if spec.by_name:
            if (twice := duplicate(names)) is not None:
                text = f"two columns have the name {shown(twice)}, so by_name=True cannot tell them apart"
                raise Fault(text, column=twice)
            for name in names:
                if name not in known:
                    raise Fault("the schema has no such column", column=name)
            self.fields = [table.field(name) for name in names]
            self.places = [names.index(name) if name in names else None for name in known]
            return
        for index, (name, other) in enumerate(zip(names, known), 1):
            if name != other:
                text = f"column {index} is {shown(name)} in this file and {shown(other)} in the table"
                raise Fault(f"{text}; by_name=True reads files whose columns differ", column=name)
        if len(names) != len(known):
            text = f"this file has {len(names)} columns and the table {len(known)}"
            raise Fault(f"{text}; by_name=True reads files whose columns differ")

    def parse(self, data: Any, fields: Any = None, handler: Any = None, only: int | None = None) -> Any:
        """Parses records, with the columns of the file."""
        fields = self.fields if fields is None else fields
        names = [str(index) for index in range(len(fields))]
        return pyarrow.csv.read_csv(
            pyarrow.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=min(len(data) + 1, _MOST), column_names=names
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=chr(self.delimiter), newlines_in_values=True, invalid_row_handler=handler
            ),
            convert_options=convert(
                column_types={name: field.type for name, field in zip(names, fields)},
                include_columns=None if only is None else [names[only]],
            ),
        )

    def arrange(self, parsed: Any) -> list[Any]:
        """Returns the parsed data as batches with the columns of the table."""
        rows = parsed.num_rows
        columns = [
            pyarrow.nulls(rows, field.type) if place is None else parsed.column(place)
            for place, field in zip(self.places, self.table, strict=True)
        ]
        for field, column in zip(self.table, columns, strict=True):
            check_nulls(field, column)
        return pyarrow.Table.from_arrays(columns, schema=self.table).to_batches()  # type: ignore[no-any-return]

    def check_integers(self, data: Any) -> None:
        """Raises `Fault` for a hexadecimal number in a column of integers."""
        for index, field in enumerate(self.fields):
            kind = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
            if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_duration(kind)):
                continue
            cells = self.parse(data, [pyarrow.field(one.name, pyarrow.binary()) for one in self.fields], only=index)
            for row, cell in enumerate(cells.column(0).to_pylist(), 1):
                if cell is not None and _HEX.fullmatch(cell.strip()):
                    raise _does_not_fit(cell, field, row)

    def without_parser(self, error: Exception) -> Fault:
        """Returns the fault for a type of which the parser makes no values."""
        cells = (chr(self.delimiter) * (len(self.fields) - 1) or '""').encode() + b"\n"
        for index, field in enumerate(self.fields):
            try:
                self.parse(cells, only=index)
            except pyarrow.ArrowNotImplementedError:
                text = f"cells of CSV cannot be read as {field.type}: read another type, and convert the column"
                return Fault(text, column=field.name)
        return Fault(str(error))

    def diagnose(self, data: Any, error: Exception) -> Fault:
        """Finds the first row that cannot be parsed, and its column."""
        begins, ends = cut.records(cut.view(data), self.delimiter)
        whole = memoryview(data)

        def fails(low: int, high: int) -> bool:
            try:
                self.parse(_safe(whole[begins[low] : ends[high - 1]]))
            except pyarrow.ArrowException:
                return True
            return False

        # The records before `low` are valid, and one of those before `high` is not.
        low, high = 0, len(begins)
        if not high or not fails(low, high):
            return Fault(str(error))
        while high - low > 1:
            middle = (low + high) // 2
            if fails(low, middle):
                high = middle
            else:
                low = middle
        record = _safe(whole[begins[low] : ends[low]])
        return self._diagnose_record(record, low + 1, error)

    def _diagnose_record(self, record: bytes, row: int, error: Exception) -> Fault:
        wrong: list[int] = []

        def note(invalid: Any) -> str:
            wrong.append(invalid.actual_columns)
            return "skip"

        text = [pyarrow.field(field.name, pyarrow.binary()) for field in self.fields]
        cells = self.parse(record, text, note)
        if wrong:
            fields = f"{wrong[0]} field{'' if wrong[0] == 1 else 's'}"
            return Fault(f"{fields} instead of {len(text)}: is a quote or a line break missing, or too many?", row=row)
        for index, field in enumerate(self.fields):
            try:
                self.parse(record, only=index)
            except pyarrow.ArrowException:
                return _does_not_fit(cells.column(index)[0].as_py() or b"", field, row)
        return Fault(str(error), row=row)


def _does_not_fit(cell: bytes, field: Any, row: int) -> Fault:
    try:
        text = shown(cell.decode()[:100])
    except UnicodeDecodeError:
        return Fault("the text is not UTF-8", row=row, column=field.name)
    advice = "pass types= or schema=, or widen=True, which chooses a type that fits all rows"
    return Fault(f"{text} is not {field.type}; {advice}", row=row, column=field.name, is_of_type=True)


def convert(**options: Any) -> Any:
    """Returns the options for converting text to values: only an empty cell is null, quoted or not."""
    return pyarrow.csv.ConvertOptions(
        null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=True, **options
    )


def _safe(records: Any) -> bytes:
    """Returns records in a form that the parser reads completely: it would skip a byte-order mark at the beginning of
    any part, and an empty line before the mark prevents that."""
    data = bytes(records)
    if data.startswith(_MARK):
        data = b"\n" + data
    return data if data.endswith(b"\n") else data + b"\n"


def is_blank(data: bytes) -> bool:
    """Whether the data contains no records."""
    return not data or (data[0] in b"\r\n" and not data.strip(b"\r\n"))


def parse(data: bytes, header: bytes, spec: Spec, table: Any, is_last: bool) -> list[Any]:
    """Parses whole records, without the header. Returns batches."""
    columns = Columns(header, spec, table)
    if is_blank(data):
        return []
    if is_last and cut.is_inside_quotes(cut.view(data), spec.delimiter):
        # The parser would fail, or take the rest of the file as the field.
        row = cut.count_records(cut.view(data), spec.delimiter)
        raise Fault("the file ends inside the quotes of a field that begins in this row", row=row)
    if data.startswith(_MARK) or not data.endswith(b"\n"):
        data = _safe(data)
    try:
        parsed = columns.parse(data)
    except pyarrow.ArrowNotImplementedError as error:
        raise columns.without_parser(error) from None
    except pyarrow.ArrowException as error:
        raise columns.diagnose(data, error) from None
    if b"0x" in data or b"0X" in data:
        columns.check_integers(data)
    return columns.arrange(parsed)


def infer(data: bytes, header: bytes, spec: Spec, rows: int | None) -> Any:
    """Returns the schema that fits the first `rows` records, or all. A column without values has no type."""
    begins, ends = cut.records(cut.view(data), spec.delimiter)
    sample = _safe(data[: ends[min(rows, len(ends)) - 1]] if rows and len(ends) else data)
    if spec.has_header:
        names = header_names(header, spec.delimiter)
    elif len(begins):
        first = header_names(data[begins[0] : ends[0]], spec.delimiter)
        names = [f"column_{number}" for number in range(1, len(first) + 1)]
    else:
        raise Fault("there is no row")
    if not len(begins):
        return pyarrow.schema([(name, pyarrow.null()) for name in names])
    # Text fits every column, so only a row with too many or too few fields fails here.
    text = Columns(b"", spec._replace(has_header=False), pyarrow.schema([(name, pyarrow.string()) for name in names]))
    places = [str(index) for index in range(len(names))]
    try:
        found = pyarrow.csv.read_csv(
            pyarrow.BufferReader(sample),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=min(len(sample) + 1, _MOST), column_names=places
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=chr(spec.delimiter), newlines_in_values=True),
            convert_options=convert(),
        ).schema
    except pyarrow.ArrowException as error:
        raise text.diagnose(sample, error) from None
    types = list(found.types)
    for index, (name, kind) in enumerate(zip(names, types)):
        if pyarrow.types.is_binary(kind):
            raise text.diagnose(sample, Fault("the text is not UTF-8", column=name))
        # The parser makes floats of integers beyond 64 bits, which would be rounded.
        is_float, is_integer = pyarrow.types.is_floating(kind), pyarrow.types.is_integer(kind)
        altered = _LONG if is_float else _HEX if is_integer else None
        if altered is not None and altered.search(sample):
            cells = text.parse(sample, only=index).column(0).to_pylist()
            if any(cell is not None and altered.fullmatch(cell.strip().encode()) for cell in cells):
                types[index] = pyarrow.string()
    return pyarrow.schema(list(zip(names, types)))
