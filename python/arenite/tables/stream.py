"""Checks Arrow streams from workers that may run hostile code: `read`.

pyarrow refuses buffers outside of their message, and `validate` checks their content. Neither bounds the time and
memory that a short stream takes. So `read` refuses four things that no honest worker writes:

- compressed buffers: 16 KB become 512 MB;
- buffers that share bytes: each of a million columns is as long as the whole stream, and is checked;
- fields that share names: each of a million fields has a copy of a name that is as long as the whole stream;
- dictionaries that grow: each of a thousand additions copies a dictionary that is as long as the whole stream.

It also refuses types that the program has registered with pyarrow, whose code would run on data of the worker.

A stream is read message by message. pyarrow has verified the flatbuffer of each message; this module reads its tables.
"""

from __future__ import annotations

import struct

import numpy
import pyarrow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Kinds of messages.
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
#: Types of fields with a member of any length.
_TIMESTAMP, _UNION = 10, 14
#: The key for the name of an extension type in the metadata of a field.
_EXTENSION = b"ARROW:extension:name"
#: The bytes of buffers that may be checked for each byte of a stream: batches may share a dictionary.
_LOOKED_AT = 64


def read(data: Any) -> tuple[Any, list[Any]]:
    """Returns the schema and the batches of a stream. Both refer to its memory. Raises ArrowInvalid for invalid data,
    or data beyond a limit."""
    buffer = pyarrow.py_buffer(data)
    for message in pyarrow.ipc.MessageReader.open_stream(buffer):
        _check(message)
    left = _LOOKED_AT * (buffer.size + 4096)
    batches = []
    with pyarrow.ipc.open_stream(buffer) as stream:
        for batch in stream:
            left -= batch.get_total_buffer_size() + sum(map(_viewed, batch.columns))
            if left < 0:
                raise pyarrow.ArrowInvalid("batches share too long a dictionary, or texts too many bytes")
            batch.validate(full=True)
            if batch.num_rows:
                batches.append(batch)
        return stream.schema, batches


def _viewed(array: Any) -> int:
    """Returns the length of all texts that may share bytes."""
    kind = array.type
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _viewed(array.storage)
    if pyarrow.types.is_string_view(kind) or pyarrow.types.is_binary_view(kind):
        views = array.buffers()[1]
        return 0 if views is None else int(numpy.frombuffer(views, "<i4")[::4].clip(0).sum(dtype="i8"))
    if pyarrow.types.is_dictionary(kind):
        return _viewed(array.dictionary)
    if pyarrow.types.is_struct(kind) or pyarrow.types.is_union(kind):
        return sum(_viewed(array.field(number)) for number in range(kind.num_fields))
    return _viewed(array.values) if kind.num_fields else 0


def _check(message: Any) -> None:
    """Refuses a message that takes more memory than its length."""
    data = memoryview(message.metadata)
    try:
        root = _Table(data, _number(data, "<I", 0))
        kind, header = root.number(1, "<B"), root.table(2)
        if header is not None and kind == _SCHEMA:
            _check_schema(header)
        elif header is not None and kind == _DICTIONARY:
            if header.number(2, "<B"):
                raise pyarrow.ArrowInvalid("a dictionary grows")
            header = header.table(1)
        if header is not None and kind in (_DICTIONARY, _BATCH):
            _check_batch(header, 0 if message.body is None else message.body.size)
    except struct.error:
        raise pyarrow.ArrowInvalid("a message is cut") from None


def _check_schema(schema: _Table) -> None:
    left = len(schema.data)
    fields = [*schema.tables(1)]
    left -= schema.texts(2)
    while fields:
        field = fields.pop()
        left -= 8 + field.length(0) + field.texts(6)
        kind, of_kind = field.number(2, "<B"), field.table(3)
        if kind in (_TIMESTAMP, _UNION) and of_kind is not None:
            # The time zone, or the type numbers of a union.
            left -= of_kind.length(1)
        if left < 0:
            raise pyarrow.ArrowInvalid("fields share what they consist of")
        for pair in field.tables(6):
            if pair.text(0) == _EXTENSION and not _is_of_arrow(pair.text(1)):
                raise pyarrow.ArrowInvalid("a type is none of Arrow's own: return its storage")
        fields += field.tables(5)


def _is_of_arrow(name: bytes) -> bool:
    """Whether this is a type of Arrow itself. pyarrow no longer reads its type for pickles."""
    return name.startswith(b"arrow.") and name != b"arrow.py_extension_type"


def _check_batch(batch: _Table, size: int) -> None:
    if batch.table(3) is not None:
        raise pyarrow.ArrowInvalid("buffers are compressed")
    begin, count = batch.vector(2)
    lengths = numpy.frombuffer(batch.data, "<i8", 2 * count, begin)[1::2] if count else numpy.zeros(0, "<i8")
    if (lengths < 0).any() or numpy.minimum(lengths, size + 1).sum() > size:
        raise pyarrow.ArrowInvalid("buffers share bytes")


def _number(data: memoryview, kind: str, at: int) -> int:
    if at < 0:
        raise struct.error
    number: int = struct.unpack_from(kind, data, at)[0]
    return number


class _Table:
    """A table of a flatbuffer. Missing members are None, 0 or empty."""

    __slots__ = ("at", "data")

    def __init__(self, data: memoryview, at: int) -> None:
        self.data, self.at = data, at

    def _place(self, member: int) -> int | None:
        members = self.at - _number(self.data, "<i", self.at)
        if 4 + 2 * member >= _number(self.data, "<H", members):
            return None
        offset = _number(self.data, "<H", members + 4 + 2 * member)
        return self.at + offset if offset else None

    def _target(self, member: int) -> int | None:
        at = self._place(member)
        return None if at is None else at + _number(self.data, "<I", at)

    def number(self, member: int, kind: str) -> int:
        at = self._place(member)
        return 0 if at is None else _number(self.data, kind, at)

    def table(self, member: int) -> _Table | None:
        at = self._target(member)
        return None if at is None else _Table(self.data, at)

    def vector(self, member: int) -> tuple[int, int]:
        """Returns the position of the first element, and the number of elements."""
        at = self._target(member)
        return (0, 0) if at is None else (at + 4, _number(self.data, "<I", at))

    def length(self, member: int) -> int:
        """Returns the length of a text or a vector."""
        return self.vector(member)[1]

    def text(self, member: int) -> bytes:
        begin, length = self.vector(member)
        return bytes(self.data[begin : begin + length])

    def tables(self, member: int) -> list[_Table]:
        begin, count = self.vector(member)
        places = range(begin, begin + 4 * count, 4)
        return [_Table(self.data, at + _number(self.data, "<I", at)) for at in places]

    def texts(self, member: int) -> int:
        """Returns the length of all keys and values."""
        return sum(8 + pair.length(0) + pair.length(1) for pair in self.tables(member))
