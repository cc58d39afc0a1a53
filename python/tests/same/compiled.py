"""Functions and classes of the main file that numba compiles. On fork and spawn."""

import backends
import numba
from numba import int64
from numba.experimental import jitclass

SCALE = 3.0


@numba.njit
def scaled(x):
    return x * SCALE


@numba.njit
def factorial(n):
    return 1 if n <= 1 else n * factorial(n - 1)


@numba.vectorize(["float64(float64)"])
def added(x):
    return x + SCALE


def in_functions():
    "functions that numba compiles"
    return scaled(2.0), factorial(5), float(added(1.0))


def in_local():
    "a class that a task compiles"
    @jitclass([("value", int64)])
    class Inner:
        def __init__(self, value):
            self.value = value

    return Inner(3).value


if __name__ == "__main__":
    backends.run(globals())
