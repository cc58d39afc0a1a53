"""Types for signatures. Only type checkers import this."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypedDict, TypeVar

import numpy

from .settings import Settings

Scalar = TypeVar("Scalar", bound=numpy.generic)

#: The type of an array's elements, as a class of numpy.
Kind = type[Scalar] | numpy.dtype[Scalar]


class PoolOptions(TypedDict, total=False):
    """The options of `Executor` that `Pool` takes by their names."""

    start: Literal["forkserver", "spawn", "fork"] | None
    preload: Iterable[str]
    memory_limit: int | str | None
    capacity: int | str | None
    sandbox: bool | Literal["strict", "required"]
    lanes: int
    threads: int | Literal["all"] | None
    writable: Literal["copy", "results"] | None
    output: Literal["labelled", "plain"] | None
    seed: int | None
    settings: Settings
