"""Functions and classes of the main file that numba compiles. On fork and spawn."""

import backends
import numba
import numpy
from numba import float64, int64
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


@jitclass
class Point:
    x: float64
    y: float64

    def __init__(self, x, y):
        self.x = x
        self.y = y

    @property
    def norm(self):
        return (self.x**2 + self.y**2) ** 0.5

    @staticmethod
    def unit():
        return 1.0

    def twice(self):
        return Point(2 * self.x, scaled(self.y))


@jitclass([("at", Point.class_type.instance_type), ("__values", float64[:])])
class Box:
    def __init__(self, at, count):
        self.at = at
        self.__values = numpy.zeros(count)

    def fill(self, value):
        self.__values[:] = value
        return self.__values.sum()


class Base:
    def area(self):
        return self.width * 2


@jitclass({"width": int64})
class Derived(Base):
    def __init__(self, width):
        self.width = width


def in_functions():
    "functions that numba compiles"
    return scaled(2.0), factorial(5), float(added(1.0))


def in_class():
    "a class that numba compiles"
    point = Point(3.0, 4.0)
    twice = point.twice()
    return point.norm, Point.unit(), twice.x, twice.y, isinstance(twice, Point)


def in_class_of_class():
    "a compiled class with an attribute of another"
    box = Box(Point(3.0, 4.0), 4)
    return box.fill(2.0), box.at.norm


def in_derived():
    "a compiled class with a base in Python"
    return Derived(5).area(), Derived.__name__


def as_argument(cls):
    return cls(3.0, 4.0).norm, cls is Point


def in_local():
    "a class that a task compiles"
    @jitclass([("value", int64)])
    class Inner:
        def __init__(self, value):
            self.value = value

    return Inner(3).value


def is_argument(on):
    "a compiled class as an argument"
    yield [on(as_argument, Point) for _ in range(2)]


if __name__ == "__main__":
    backends.run(globals())
