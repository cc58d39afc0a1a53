"""Types for signatures. Only type checkers import this."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Literal, TypedDict, TypeVar, Union

import numpy

from .._arenite import Buffer, Task
from .settings import Settings

#: What a pickle refers to.
Part = Buffer | Task

Scalar = TypeVar("Scalar", bound=numpy.generic)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

#: An argument of a task: a value, or a future that stands for it.
Given = Union[A, Future[A]]

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
