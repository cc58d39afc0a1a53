"""Parts of files with one JSON object per line, in workers."""

from __future__ import annotations

import json
import re

import pyarrow
import pyarrow.json

from . import cut
from .fault import Fault
from .schema import with_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST = (1 << 31) - 1
#: An integer that may need more than 63 bits.
_LONG = re.compile(rb"\d{19}")
#: An integer beyond 64 bits, which is not computed.
_BEYOND = 1 << 64


def _read(data: bytes, schema: Any = None, unexpected: str | None = None) -> Any:
    """Reads lines. `unexpected`: the treatment of fields that are not in the schema."""
    if unexpected is None:
        unexpected = "infer" if schema is None else "error"
    return pyarrow.json.read_json(
        pyarrow.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=min(len(data) + 1, _MOST)),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected),
    )


def _lines(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line and not line.isspace()]


def _check_utf8(data: bytes) -> None:
    """Raises `Fault` for a line that is not UTF-8: the parser would accept it."""
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError as error:
        row = cut.count_lines(data[: data.rfind(b"\n", 0, error.start) + 1]) + 1
        raise Fault("the text is not UTF-8", row=row) from None


def parse(data: bytes, table: Any) -> list[Any]:
    """Parses whole lines. Returns batches."""
    _check_utf8(data)
    if not cut.count_lines(data[:4096]) and not cut.count_lines(data):
        return []
    try:
        parsed = _read(data, table)
        _check_lines(data, parsed.num_rows)
        if parsed.schema.names != table.names:
            parsed = parsed.select(table.names)
        return parsed.cast(table).to_batches()  # type: ignore[no-any-return]
    except pyarrow.ArrowException as error:
        raise _diagnose(data, table, error) from None


def _check_lines(data: bytes, rows: int) -> None:
    """Raises `Fault` if not each line is an object: the parser would accept several in a line, and one in several
    lines, where a part may end."""
    if rows == data.count(b"\n") + (not data.endswith(b"\n")) or rows == cut.count_lines(data):
        return
    bad = next((row for row, line in enumerate(_lines(data), 1) if not _is_object(line)), 0)
    raise Fault("no JSON object in one line", row=bad)


def _diagnose(data: bytes, table: Any, error: Exception) -> Fault:
    """Finds the first line that cannot be parsed."""
    lines = _lines(data)

    def why(low: int, high: int) -> Any:
        try:
            _read(b"\n".join(lines[low:high]) + b"\n", table)
        except pyarrow.ArrowException as found:
            return found
        return None

    low, high = 0, len(lines)
    if why(low, high) is None:
        return Fault(_words(error))
    while high - low > 1:
        middle = (low + high) // 2
        if why(low, middle) is None:
            low = middle
        else:
            high = middle
    error = why(low, high) or error
    if _is_object(lines[low]):
        column, words = _of_column(lines[low], table, _words(error))
        text = f"{words}; pass types= or schema=, or widen=True, which chooses one that fits all rows"
        return Fault(text, row=low + 1, column=column, is_of_type=True)
    return Fault(f"no JSON object in one line: {_words(error)}", row=low + 1)


def _of_column(line: bytes, table: Any, words: str) -> tuple[str | None, str]:
    """Returns the column for which a line does not fit the schema, and the reason."""
    for field in table:
        try:
            _read(line + b"\n", pyarrow.schema([field]), "ignore")
        except pyarrow.ArrowException:
            return field.name, words
    for field in _read(line + b"\n").schema:
        known = table.field(field.name).type if field.name in table.names else None
        if known is None or not _has_fields(known, field.type):
            return field.name, "the schema has no such field"
    return None, words


def _has_fields(known: Any, found: Any) -> bool:
    """Whether a type has all fields of another type."""
    types = pyarrow.types
    if types.is_struct(known) and types.is_struct(found):
        names = {field.name: field.type for field in known}
        return all(field.name in names and _has_fields(names[field.name], field.type) for field in found)
    if types.is_list(known) and types.is_list(found):
        return _has_fields(known.value_type, found.value_type)
    return True


def _words(error: Exception) -> str:
    """Returns the message of Arrow, without its row number, which counts only the line that Arrow was given."""
    return str(error).replace(" in row 0", "")


def _is_object(line: bytes) -> bool:
    """Whether a line is a JSON object, of any schema."""
    try:
        return bool(_read(line + b"\n").num_rows == 1)
    except pyarrow.ArrowException:
        return False


def infer(data: bytes, rows: int | None, typed: tuple[str, ...] = ()) -> Any:
    """Returns the schema that fits the first `rows` lines, or all. Texts that look like times remain texts. `typed`:
    the columns whose types the user has given."""
    _check_utf8(data)
    lines = _lines(data)[:rows]
    if not lines:
        raise Fault("there is no row")
    try:
        sample = b"\n".join(lines) + b"\n"
        read = _read(sample)
        _check_lines(sample, read.num_rows)
        found = read.schema
    except pyarrow.ArrowException as error:
        bad = next((row for row, line in enumerate(lines, 1) if not _is_object(line)), 0)
        raise Fault(f"no JSON object per line: {_words(error)}", row=bad) from None

    def text(kind: Any) -> Any:
        return pyarrow.string() if pyarrow.types.is_timestamp(kind) else kind

    found = with_types(found, text)
    types = dict(zip(found.names, found.types))
    for row, line in enumerate(lines, 1):
        if _LONG.search(line):
            # A byte-order mark is not part of the first line's object.
            for name, value in json.loads(line.decode("utf-8-sig"), parse_int=_integer).items():
                if name not in typed:
                    types[name] = _with_large(value, types[name], name, row)
    return pyarrow.schema([field.with_type(types[field.name]) for field in found])


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= 20 else _BEYOND


def _with_large(value: Any, kind: Any, column: str, row: int) -> Any:
    """Returns the type of a column, with `uint64` for integers of 64 bits. The parser makes floats of integers beyond
    63 bits, which would be rounded."""
    types = pyarrow.types
    if types.is_struct(kind) and isinstance(value, dict):
        fields = [field.with_type(_with_large(value.get(field.name), field.type, column, row)) for field in kind]
        return pyarrow.struct(fields)
    if types.is_list(kind) and isinstance(value, list):
        for one in value:
            kind = pyarrow.list_(_with_large(one, kind.value_type, column, row))
        return kind
    if not types.is_floating(kind) or type(value) is not int or -(1 << 63) <= value < 1 << 63:
        return kind
    if not 0 < value < _BEYOND:
        advice = "pass types= or schema= with a decimal type, or float64, which rounds it"
        raise Fault(f"an integer has more than 64 bits; {advice}", row=row, column=column)
    return pyarrow.uint64()
