"""Types for signatures. Only type checkers import this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Literal, TypedDict, TypeVar

import numpy

Scalar = TypeVar("Scalar", bound=numpy.generic)

#: The type of an array's elements, as a class of numpy.
Kind = type[Scalar] | numpy.dtype[Scalar]


class PoolOptions(TypedDict, total=False):
    """The options of `Executor` that `Pool` takes by their names."""

    spares: int
    memory_limit: int | str | None
    max_arena_per_worker: int | float | str | None
    capacity: int | str | None
    preload: Iterable[str]
    recycle_above: int | str | None
    sandbox: bool | Literal["strict", "required"]
    lanes: int
    writable: Literal["copy", "results"] | None
    arrays: Literal["shared"] | None
    cancel_running: bool
    output: Literal["labelled", "plain"] | None
    logging: Literal["auto", "forward"] | None
    label: str
    env: Mapping[str, str] | None
    threads: int | Literal["all"] | None
    python: str | None
    trace: str | PathLike[str] | None
    report: str | PathLike[str] | None
    seed: int | None
    start_timeout: float | None
