"""Finds the ends of records of a CSV file without parsing it.

A line break ends a record unless it is inside quotes, and whether a position is inside quotes depends on all quotes
before it. So workers count the quotes of each chunk of a file, for each state in which the chunk may begin, all at the
same time; then the states are chained from the beginning of the file. The rules are those of the parser: a quote opens
a quoted field only at the beginning of a field; elsewhere in a bare field it is literal; inside quotes it is doubled.

If no quote is literal, a position is inside quotes if the number of quotes before it is odd. Whether quotes are literal
is checked for all quotes of a block at once. The first literal quote, and some quotes after it, are checked one by one.
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Bytes = NDArray[numpy.uint8]
Positions = NDArray[numpy.intp]

QUOTE, NEWLINE, RETURN = b'"'[0], b"\n"[0], b"\r"[0]

#: The state between two bytes: outside quotes; inside quotes; after a quote that either closes the field, or is the
#: first of two that stand for one.
OUTSIDE, QUOTED, CLOSING = 0, 1, 2
STATES = (OUTSIDE, QUOTED, CLOSING)

#: The number of bytes that are processed together; they fit into the cache of a core.
BLOCK = 1 << 18
#: The number of quotes after a literal quote that are checked one by one: at first, and at most.
_FIRST_STEPS, _MOST_STEPS = 8, 1024


def view(data: Any) -> Bytes:
    """Returns the bytes of a buffer as an array, without a copy."""
    return numpy.frombuffer(data, numpy.uint8)


def quotes(
    data: Bytes, delimiter: int, state: int, before: int, found: Positions | None = None
) -> tuple[Positions, int]:
    """Returns the positions of all quotes that are not literal, and the state after the data.

    The data begins in `state`, after the byte `before`. `found`: the positions of all quotes, if they are known.
    """
    if not len(data):
        return numpy.empty(0, numpy.intp), state
    if found is None:
        found = numpy.flatnonzero(data == QUOTE)
    if len(found):
        found, state = _without_literals(data, found, delimiter, state, before)
    else:
        state = QUOTED if state == QUOTED else OUTSIDE
    if state == CLOSING and found[-1] != len(data) - 1:
        state = OUTSIDE
    return found, state


def _without_literals(data: Bytes, found: Positions, delimiter: int, state: int, before: int) -> tuple[Positions, int]:
    separators = (delimiter, NEWLINE, RETURN)
    # The position of the last quote that closes a field, if the state is CLOSING.
    last = -1

    def opens(position: int) -> bool:
        if state == CLOSING and position == last + 1:
            return True
        return (int(data[position - 1]) if position else before) in separators

    kept: list[Any] = []
    at, steps = 0, _FIRST_STEPS
    while at < len(found):
        rest = found[at:]
        bad = _first_literal(data, rest, separators, state, opens)
        kept.append(rest[:bad])
        if bad:
            state, last = (state == QUOTED) ^ (bad & 1), int(rest[bad - 1])
            state = QUOTED if state else CLOSING
        at += bad
        # Checks some quotes one by one: each literal quote exchanges the opening and closing quotes after it.
        single = []
        for position in found[at : at + steps].tolist():
            if state == QUOTED:
                state, last = CLOSING, position
            elif opens(position):
                state = QUOTED
            else:
                state = OUTSIDE
                continue
            single.append(position)
        kept.append(numpy.array(single, numpy.intp))
        at += steps
        steps = min(2 * steps, _MOST_STEPS)
    return (kept[0] if len(kept) == 1 else numpy.concatenate(kept)), state


def _first_literal(data: Bytes, found: Positions, separators: tuple[int, ...], state: int, opens: Any) -> int:
    """Returns the index of the first literal quote, assuming that no earlier quote is literal; the number of quotes if
    none is literal."""
    first = 1 if state == QUOTED else 0
    opening = found[first::2]
    if not len(opening):
        return len(found)
    before = data[opening - 1]
    # The previous quote closes a field, so both quotes are one doubled quote.
    valid = before == QUOTE
    for separator in separators:
        valid |= before == separator
    if not first:
        valid[0] = opens(int(opening[0]))
    return len(found) if valid.all() else first + 2 * int(valid.argmin())


def states_behind(blocks: Any, delimiter: int, before: int) -> list[int]:
    """Returns, for each state in which the bytes may begin, the state after them. `blocks`: consecutive arrays."""
    states = list(STATES)
    for block in blocks:
        known: dict[int, int] = {}
        found = numpy.flatnonzero(block == QUOTE)
        for index, state in enumerate(states):
            if state not in known:
                known[state] = quotes(block, delimiter, state, before, found)[1]
            states[index] = known[state]
        before = int(block[-1]) if len(block) else before
    return states


def is_inside_quotes(data: Bytes, delimiter: int) -> bool:
    """Whether data that begins with a record ends inside quotes."""
    state, before = OUTSIDE, NEWLINE
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        state = quotes(block, delimiter, state, before)[1]
        before = int(block[-1])
    return state == QUOTED


def breaks(data: Bytes, found: Positions, state: int, byte: int = NEWLINE) -> Positions:
    """Returns the positions of all line breaks outside quotes. The data begins in `state`; `found`: its quotes."""
    lines: Positions = numpy.flatnonzero(data == byte)
    if not len(found) and state != QUOTED:
        return lines
    before = numpy.searchsorted(found, lines) + (state == QUOTED)
    outside: Positions = lines[before & 1 == 0]
    return outside


def first_end(data: Bytes, delimiter: int | None, state: int = OUTSIDE, before: int = NEWLINE) -> int | None:
    """Returns the position after the first record that ends in the data. Without a delimiter, records are lines."""
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        found, behind = _in_block(block, delimiter, state, before)
        if len(found):
            return at + int(found[0]) + 1
        state, before = behind, int(block[-1])
    return None


def last_end(data: Bytes, delimiter: int | None) -> int | None:
    """Returns the position after the last record that ends in the data, which begins with a record."""
    last, state, before = None, OUTSIDE, NEWLINE
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        found, state = _in_block(block, delimiter, state, before)
        if len(found):
            last = at + int(found[-1]) + 1
        before = int(block[-1])
    return last


def _in_block(block: Bytes, delimiter: int | None, state: int, before: int) -> tuple[Positions, int]:
    """Returns the ends of records in a block, and the state after it."""
    if delimiter is None:
        return numpy.flatnonzero(block == NEWLINE), OUTSIDE
    found, behind = quotes(block, delimiter, state, before)
    return breaks(block, found, state), behind


def first_record(data: Bytes, delimiter: int | None) -> int | None:
    """Returns the position after the first record and the empty lines before it; None if the record does not end
    here."""
    blank = 0
    while blank < len(data) and data[blank] in (NEWLINE, RETURN):
        blank += 1
    rest = data[blank:]
    end = first_end(rest, delimiter)
    if delimiter is not None:
        # The parser also ends a record at a carriage return without a line feed. If it took the records after such a
        # header for a part of the header, they would be lost.
        head = rest[:end]
        found, _ = quotes(head, delimiter, OUTSIDE, NEWLINE)
        alone = breaks(head, found, OUTSIDE, RETURN)
        alone = alone[alone + 1 < len(rest)]
        alone = alone[rest[alone + 1] != NEWLINE]
        if len(alone):
            end = int(alone[0]) + 1
    return None if end is None else blank + end


def records(data: Bytes, delimiter: int) -> tuple[Positions, Positions]:
    """Returns the start positions of records, and the positions after their ends, without empty lines."""
    found, _ = quotes(data, delimiter, OUTSIDE, NEWLINE)
    ends = breaks(data, found, OUTSIDE)
    if (data == RETURN).any():
        alone = breaks(data, found, OUTSIDE, RETURN)
        # A "\r" before "\n" is part of the same line break.
        behind = numpy.minimum(alone + 1, len(data) - 1)
        ends = numpy.sort(numpy.concatenate([ends, alone[data[behind] != NEWLINE]]))
    ends = ends + 1
    if len(data) and (not len(ends) or ends[-1] != len(data)):
        ends = numpy.append(ends, len(data))
    begins = numpy.concatenate([numpy.zeros(1, numpy.intp), ends[:-1]]) if len(ends) else ends
    # A record that begins with a line break is an empty line.
    filled = ~numpy.isin(data[begins], (NEWLINE, RETURN)) if len(begins) else numpy.empty(0, bool)
    return begins[filled], ends[filled]


def count_records(data: Bytes, delimiter: int) -> int:
    return len(records(data, delimiter)[0])


def count_lines(data: bytes) -> int:
    """Returns the number of lines that are not blank."""
    return sum(not line.isspace() for line in data.split(b"\n") if line)
