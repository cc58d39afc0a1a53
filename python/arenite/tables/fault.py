"""The error of a worker about the content of a part: `Fault`."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Fault(Exception):
    """The content of a part violates its format or the schema."""

    def __init__(self, text: str, *, row: int = 0, column: str | None = None, is_of_type: bool = False) -> None:
        super().__init__(text)
        self.text = text
        #: The row of the part, from 1 on; 0 if none is to blame.
        self.row = row
        self.column = column
        #: Whether the part could be read with another schema.
        self.is_of_type = is_of_type

    def reply(self) -> dict[str, Any]:
        """Returns the reply of the worker."""
        return {"text": self.text, "row": self.row, "column": self.column, "is_of_type": self.is_of_type}

    @classmethod
    def of(cls, reply: Any) -> Fault | None:
        """Returns the fault that a worker has sent; None if the reply is no fault."""
        if type(reply) is not dict or "is_of_type" not in reply:
            return None
        text, row, column = (reply.get(name) for name in ("text", "row", "column"))
        if type(text) is not str or type(row) is not int or type(column) not in (str, type(None)):
            return cls("its worker has sent no fault")
        if not 0 <= row < 1 << 63:
            return cls("its worker has sent no fault")
        return cls(text, row=row, column=column, is_of_type=bool(reply["is_of_type"]))


def check_nulls(field: Any, column: Any) -> None:
    """Raises `Fault` for a null in a column whose field excludes it."""
    if not field.nullable and column.null_count:
        row = next(row for row, is_null in enumerate(column.is_null().to_pylist(), 1) if is_null)
        raise Fault("a value is missing, and the schema says nullable=False", row=row, column=field.name)


def shown(text: str) -> str:
    """Returns the text in quotes."""
    return json.dumps(text, ensure_ascii=False)
