"""Programs whose calls write to an array: where it is × how large it is × how it is called."""

import functools
import itertools

import backends
import numpy

#: The numbers of elements: in the pickle, copied, and mapped for writing; and views of arrays.
SIZES = {
    "small": lambda: numpy.zeros(10),
    "copied": lambda: numpy.zeros(3_000),
    "mapped": lambda: numpy.zeros(100_000),
    "rows": lambda: numpy.asfortranarray(numpy.zeros((300, 200))),
    "part": lambda: numpy.zeros(100_000)[500:90_000],
    "steps": lambda: numpy.zeros(9_000)[::3],
    "read-only": lambda: numpy.broadcast_to(numpy.zeros(600), (20, 600)),
    "objects": lambda: numpy.array([0.0, *range(900)], object),
    "none": lambda: numpy.zeros(0),
}


def add(array, number, other=None):
    if array.size and array.flags.writeable:
        array[(0,) * array.ndim] += number
    return array.shape, float(array.sum()), other is array


def add_last(number, other=None, *, array):
    return add(array, number, other)


class Holder:
    def __init__(self, array):
        self.array = array

    def add(self, number, other=None):
        return add(self.array, number, other), self.array is not None

    __call__ = add

    @property
    def method(self):
        return self.add


class Counter(Holder):
    """Counts its calls in an array of its own."""

    def __init__(self, array):
        super().__init__(array)
        self.calls = numpy.zeros(5_000, int)

    def add(self, number, other=None):
        self.calls += 1
        return super().add(number, other), int(self.calls[-1])

    __call__ = add


#: Makes the function from the array.
FUNCTIONS = {
    "method": lambda array: Holder(array).add,
    "method of a class that is derived": lambda array: Counter(array).add,
    "callable": Holder,
    "callable with a count": Counter,
    "partial": lambda array: functools.partial(add, array),
    "partial by keyword": lambda array: functools.partial(add_last, array=array),
    "partial of a method": lambda array: functools.partial(Holder.add, Holder(array)),
    "partial of a list": lambda array: functools.partial(add_first, [array, array]),
}


def add_first(arrays, number, other=None):
    return add(arrays[0], number, other), add(arrays[1], number), arrays[0] is arrays[1]


def add_to(number, array, other=None):
    return add(array, number, other)


def repeated(ex, array, count, **options):
    """Takes no more of a `repeat` than the calls."""
    rest = itertools.repeat(array, count)
    return list(ex.map(add_to, range(5), rest, **options)), rest.__length_hint__()


WAYS = {
    "submit": lambda ex, function: [ex.submit(function, number).result() for number in (1, 2)],
    "map": lambda ex, function: list(ex.map(function, range(9))),
    "chunks": lambda ex, function: list(ex.map(function, range(9), chunksize=4)),
}
REPEATED = {
    "map": lambda ex, array: list(ex.map(add_to, range(9), itertools.repeat(array))),
    "chunks": lambda ex, array: list(ex.map(add_to, range(9), itertools.repeat(array), chunksize=4)),
    "twice": lambda ex, array: list(ex.map(add_to, range(5), itertools.repeat(array), itertools.repeat(array))),
    "first": lambda ex, array: list(ex.map(add, itertools.repeat(array), range(5))),
    "alone": lambda ex, array: list(ex.map(sum_of, itertools.repeat(array, 3))),
    "some": lambda ex, array: repeated(ex, array, 9),
    "none": lambda ex, array: repeated(ex, array, 0),
    "few": lambda ex, array: repeated(ex, array, 3, chunksize=2),
}


def sum_of(array):
    return add(array, 1)


def names():
    """The programs, by the backends that they run on besides arenite."""
    for size in SIZES:
        for name in FUNCTIONS:
            for way in WAYS:
                yield f"function: {name}, {size}, {way}", ["fork", "spawn"]
        for way in REPEATED:
            yield f"repeated: {size}, {way}", ["fork", "spawn"]


def programs(which):
    with backends.executor(which) as ex:
        for program, _ in backends.drawn(names()):
            what, rest = program.split(": ")
            parts = rest.split(", ")

            def run():
                if what == "repeated":
                    return REPEATED[parts[1]](ex, SIZES[parts[0]]())
                return WAYS[parts[2]](ex, FUNCTIONS[parts[0]](SIZES[parts[1]]()))

            yield program, backends.outcome(run)


if __name__ == "__main__":
    backends.main(programs)
