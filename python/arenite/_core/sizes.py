"""Numbers from users: counts, and sizes in bytes, which may be text such as "1.5GiB"."""

from __future__ import annotations

import re
from operator import index
from typing import Any

_UNITS = {"": 1, "B": 1, **{f"{unit}iB": 1024**power for power, unit in enumerate("KMGT", 1)}}
_UNITS.update({f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)})


def count(what: str, number: Any, least: int = 0) -> int:
    """Returns a whole number.

    >>> count("lanes", 2, least=1)
    2
    """
    try:
        given = index(number)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, not {number!r}") from None
    if given < least:
        raise ValueError(f"{what} must be at least {least}, not {given}")
    return given


def parse(what: str, size: int | str | None, least: int = 1) -> int | None:
    """Returns a size in bytes.

    >>> parse("memory_limit", "1.5KiB"), parse("memory_limit", 100)
    (1536, 100)
    """
    if size is None:
        return None
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
        units = {unit.lower(): count for unit, count in _UNITS.items()}
        if match is None or match[2].lower() not in units:
            raise ValueError(f"{what} must be a number of bytes, or a size such as '512MiB' or '1.5GiB', not {size!r}")
        size = int(float(match[1]) * units[match[2].lower()])
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise ValueError(f"{what} must be a positive number of bytes, not {size!r}")
    if size < least:
        raise ValueError(f"{what} must be at least {least} bytes, not {size}")
    return size
