"""Combines schemas that differ: `merge`."""

from __future__ import annotations

from contextlib import suppress

import numpy
import pyarrow
import pyarrow.compute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_UNITS = ("s", "ms", "us", "ns")


class Differs(Exception):
    """A column has two types, and must not be widened."""

    def __init__(self, column: str, known: Any, found: Any) -> None:
        super().__init__(column)
        self.column, self.known, self.found = column, known, found


def widest(a: Any, b: Any) -> Any:
    """Returns the narrowest type that can contain the values of both types: text if there is no other."""
    types = pyarrow.types
    if a == b or types.is_null(b):
        return a
    if types.is_null(a):
        return b
    if types.is_timestamp(a) and types.is_timestamp(b) and a.tz == b.tz:
        return a if _UNITS.index(a.unit) > _UNITS.index(b.unit) else b
    if {types.is_date32(a), types.is_timestamp(b)} == {True} or {types.is_timestamp(a), types.is_date32(b)} == {True}:
        return a if types.is_timestamp(a) else b
    if {a, b} == {pyarrow.string(), pyarrow.large_string()}:
        return pyarrow.large_string()
    if types.is_list(a) and types.is_list(b):
        return pyarrow.list_(widest(a.value_type, b.value_type))
    if types.is_struct(a) and types.is_struct(b):
        return pyarrow.struct(list(merge(pyarrow.schema(list(a)), pyarrow.schema(list(b)), True)))
    if types.is_integer(a) and types.is_integer(b):
        if pyarrow.uint64() in (a, b):
            is_unsigned = types.is_unsigned_integer(a) and types.is_unsigned_integer(b)
            return pyarrow.uint64() if is_unsigned else pyarrow.float64()
        return pyarrow.int64()
    if all(types.is_integer(one) or types.is_floating(one) for one in (a, b)):
        return pyarrow.float64()
    return pyarrow.string()


def merge(known: Any, found: Any, may_widen: bool) -> Any:
    """Returns the columns of both schemas, in the order of their first appearance. Raises `Differs`."""
    fields = {field.name: field for field in known}
    for field in found:
        before = fields.get(field.name)
        if before is None:
            fields[field.name] = field
        elif before.type != field.type:
            # A column without values in a sample has no type yet.
            is_null = pyarrow.types.is_null
            if not (may_widen or is_null(before.type) or is_null(field.type)):
                raise Differs(field.name, before.type, field.type)
            fields[field.name] = pyarrow.field(field.name, widest(before.type, field.type))
    return pyarrow.schema(list(fields.values()), known.metadata)


def widen_by_position(known: Any, found: Any) -> Any:
    """Returns the schema whose columns can contain the values of both schemas, which have the same columns."""
    fields = [
        pyarrow.field(before.name, widest(before.type, field.type)) for before, field in zip(known, found, strict=True)
    ]
    return pyarrow.schema(fields, known.metadata)


def type_of(kind: Any) -> Any:
    """Returns the Arrow type for a type that the user has given: a type of Arrow, its name, or a type of numpy or
    Python."""
    if isinstance(kind, pyarrow.DataType):
        return kind
    if kind is str:
        return pyarrow.string()
    if kind == "float":
        raise ValueError("'float' has 32 bits in pyarrow, and 64 in numpy: write 'float32' or 'float64'")
    if isinstance(kind, str):
        with suppress(ValueError):
            return pyarrow.type_for_alias(kind)
    try:
        return pyarrow.from_numpy_dtype(numpy.dtype(kind))
    except (ValueError, TypeError, pyarrow.ArrowException) as error:
        raise ValueError(f"{kind!r} is no type of pyarrow or numpy: {error}") from None


def typed(schema: Any, types: Mapping[str, Any]) -> Any:
    """Returns the schema with these types for some of its columns."""
    for name in types:
        if name not in schema.names:
            raise ValueError(f"types has the column {name!r}, and the files have {', '.join(map(repr, schema.names))}")
    fields = [field.with_type(types[field.name]) if field.name in types else field for field in schema]
    return pyarrow.schema(fields, schema.metadata)


def with_types(schema: Any, change: Any) -> Any:
    """Returns the schema with each type changed, including the types in structs and lists."""

    def changed(kind: Any) -> Any:
        if pyarrow.types.is_struct(kind):
            return pyarrow.struct([pyarrow.field(field.name, changed(field.type)) for field in kind])
        if pyarrow.types.is_list(kind):
            return pyarrow.list_(changed(kind.value_type))
        return change(kind)

    return pyarrow.schema([pyarrow.field(field.name, changed(field.type)) for field in schema])


def converted(column: Any, kind: Any) -> Any:
    """Converts an array or a ChunkedArray. Raises ArrowInvalid if a value does not fit the type: pyarrow cuts and
    rounds some."""
    if column.type == kind:
        return column
    made = column.cast(kind)
    if not is_exact(column, made):
        raise pyarrow.ArrowInvalid(f"a value of {column.type} does not fit {kind}: it would be altered")
    return made


def converted_table(table: Any, schema: Any) -> Any:
    """Converts the columns of a table, as `converted` does one."""
    made = table.cast(schema)
    for field, before, after in zip(table.schema, table.columns, made.columns, strict=True):
        if not is_exact(before, after):
            raise pyarrow.ArrowInvalid(
                f"a value of the column {field.name!r} ({before.type}) does not fit {after.type}: it would be altered"
            )
    return made


def is_exact(before: Any, after: Any) -> bool:
    """Whether a converted array has all that the values before were. A fraction may be rounded in a narrower float."""
    if isinstance(before, pyarrow.ChunkedArray):
        return all(map(is_exact, before.chunks, after.chunks))
    types, a, b = pyarrow.types, before.type, after.type
    if types.is_dictionary(a) or types.is_dictionary(b):
        # The values of a dictionary decide, which are fewer than the rows.
        before = before.dictionary if types.is_dictionary(a) else before
        after = after.dictionary if types.is_dictionary(b) else after
        return before.type == after.type or is_exact(before, before.cast(after.type))
    if a == b or types.is_null(a):
        return True
    if types.is_struct(a) and types.is_struct(b):
        both = [field.name for field in b if a.get_field_index(field.name) >= 0]
        return all(is_exact(before.field(name), after.field(name)) for name in both)
    if types.is_map(a) and types.is_map(b):
        return is_exact(before.keys, after.keys) and is_exact(before.items, after.items)
    if hasattr(a, "value_type") and hasattr(b, "value_type"):
        # Lists of several kinds.
        return is_exact(before.flatten(), after.flatten())
    if types.is_nested(a) or types.is_nested(b):
        return True
    if _is_text(a):
        # pyarrow reads the bits of a hexadecimal number: 0xff is -1 as int8.
        is_hex = types.is_integer(b) and pyarrow.compute.any(pyarrow.compute.match_substring_regex(before, "0[xX]"))
        return not (is_hex and is_hex.as_py())
    if _is_text(b) or (types.is_integer(a) and types.is_temporal(b)):
        return True
    if types.is_floating(b) and not types.is_integer(a):
        is_inf = pyarrow.compute.is_inf
        return not types.is_floating(a) or bool(is_inf(before).equals(is_inf(after)))
    if types.is_timestamp(a) and types.is_timestamp(b) and (a.tz is None) != (b.tz is None):
        return False
    try:
        return bool(after.cast(a).equals(before))
    except pyarrow.ArrowException:
        return False


def _is_text(kind: Any) -> bool:
    name = str(kind)
    return "string" in name or "binary" in name


def duplicate(names: list[str]) -> str | None:
    """Returns the first name that two columns have; None if there is none."""
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def same_columns(a: Any, b: Any) -> bool:
    """Whether columns have the same names and types."""
    return list(a.names) == list(b.names) and list(a.types) == list(b.types)


def columns(schema: Any) -> str:
    """Describes the columns of a schema."""
    return ", ".join(f"{field.name}: {field.type}" for field in schema) or "no columns"
