"""Arrays: views of them in arguments and results, who writes to them, and how long they are. On fork and spawn."""

import functools
import itertools
import sys

import backends
import numpy
from numpy.lib.stride_tricks import as_strided, sliding_window_view

#: Numbers in an array: below the size from which on arrays are passed in shared memory, and above.
LENGTHS = 60, 6_000, 60_000
VIEWS = {
    "a whole array": [lambda array: array],
    "windows whose elements share memory": [
        lambda array: sliding_window_view(array, 3), lambda array: sliding_window_view(array, 8)[::4],
        lambda array: sliding_window_view(array, 3)[::-1, ::-1], lambda array: sliding_window_view(array, 3).T,
        lambda array: sliding_window_view(sliding_window_view(array, 4), 2, 1),
        lambda array: as_strided(array, (array.size - 2, 2), (8, 16)),
    ],
    "rows and columns that are repeated": [
        lambda array: numpy.broadcast_to(array, (3, array.size)), lambda array: numpy.broadcast_to(array[:1], (70, 90)),
        lambda array: numpy.broadcast_to(array[:, None], (array.size, 3)),
    ],
    "steps, parts, and other orders": [
        lambda array: array[::2], lambda array: array[::-1], lambda array: array.reshape(10, -1).T,
        lambda array: array.reshape(10, -1)[2:4, 1::3],
    ],
}  # fmt: skip
if sys.version_info < (3, 14):
    # Later, other pools pass contiguous read-only views on as read-only: protocol 5 is the default of `pickle` there.
    VIEWS["views of no row, of one, and side by side"] = [
        lambda array: numpy.broadcast_to(array, (0, array.size)),
        lambda array: numpy.broadcast_to(array, (1, array.size)),
        lambda array: sliding_window_view(array, 4)[::4],
    ]  # fmt: skip


def make(is_ours, length):
    # Where the result of a task goes, if the pool has such a place.
    if not is_ours:
        return numpy.arange(float(length))
    import arenite

    made = arenite.empty(length)
    made[:] = numpy.arange(float(length))
    return made


def write(view):
    view += numpy.arange(float(view.size)).reshape(view.shape)
    view[-1:] *= 2
    return view.shape, float(view.sum()), view.ravel()[:20].tolist()


def give(array, title, number):
    return array, VIEWS[title][number](array)


def views(title, on):
    for length, (number, view) in itertools.product(LENGTHS, enumerate(VIEWS[title])):
        array = numpy.arange(float(length))
        shared = on.ex.share(array) if on.is_ours else array
        result = on.ex.submit(make, on.is_ours, length).result()
        # A task writes to an argument, and the program to a result.
        for one in array, result:
            yield backends.outcome(on.ex.submit(write, view(one)).result)
            yield backends.outcome(lambda one=one, view=view: list(on.ex.map(write, [view(one)] * 2)))
        for one in array, shared:
            yield backends.outcome(on.pool.apply, write, (view(one),))
            yield backends.outcome(on.pool.map, write, [view(one)] * 2)
            both = on.ex.submit(give, one, title, number).result()
            yield backends.outcome(write, both[1]), backends.outcome(lambda both=both: both[0].sum()), float(one.sum())


for _title in VIEWS:
    backends.program(f"{_title}, to which tasks and the program write", functools.partial(views, _title))

SIZES = {
    "in the pickle, copied, and mapped": [
        lambda: numpy.zeros(10), lambda: numpy.zeros(3_000), lambda: numpy.zeros(100_000),
    ],
    "that are parts, and in other orders": [
        lambda: numpy.asfortranarray(numpy.zeros((300, 200))), lambda: numpy.zeros(100_000)[500:90_000],
        lambda: numpy.zeros(9_000)[::3],
    ],
    "that are read-only, empty, or of objects": [
        lambda: numpy.broadcast_to(numpy.zeros(600), (20, 600)), lambda: numpy.zeros(0),
        lambda: numpy.array([0.0, *range(900)], object),
    ],
}  # fmt: skip


def add(array, number, other=None):
    if array.size and array.flags.writeable:
        array[(0,) * array.ndim] += number
    return array.shape, float(array.sum()), other is array


def add_to(number, array, other=None):
    return add(array, number, other)


def add_last(number, *, array):
    return add(array, number)


def add_first(arrays, number):
    return add(arrays[0], number), add(arrays[1], number), arrays[0] is arrays[1]


class Counter:
    def __init__(self, array):
        self.array, self.calls = array, numpy.zeros(5_000, int)

    def add(self, number):
        self.calls += 1
        return add(self.array, number), int(self.calls[-1])

    __call__ = add


HOLDERS = [
    lambda array: Counter(array).add, Counter, lambda array: functools.partial(add, array),
    lambda array: functools.partial(add_last, array=array), lambda array: functools.partial(add_first, [array, array]),
    lambda array: functools.partial(Counter.add, Counter(array)),
]  # fmt: skip


def held(makes, on):
    for make, hold in itertools.product(makes, HOLDERS):
        yield [backends.outcome(on.ex.submit(hold(make()), number).result) for number in (1, 2)]
        for size in (1, 4):
            made = hold(make())
            yield backends.outcome(lambda made=made, size=size: list(on.ex.map(made, range(9), chunksize=size)))


def some(ex, array, count, **options):
    # Takes no more of a `repeat` than the calls.
    rest = itertools.repeat(array, count)
    return list(ex.map(add_to, range(5), rest, **options)), rest.__length_hint__()


REPEATED = [
    lambda ex, array: list(ex.map(add_to, range(9), itertools.repeat(array))),
    lambda ex, array: list(ex.map(add_to, range(9), itertools.repeat(array), chunksize=4)),
    lambda ex, array: list(ex.map(add_to, range(5), itertools.repeat(array), itertools.repeat(array))),
    lambda ex, array: list(ex.map(add, itertools.repeat(array), range(5))),
    *(functools.partial(some, count=count) for count in (9, 0)), functools.partial(some, count=3, chunksize=2),
]  # fmt: skip


def repeated(makes, on):
    for make, way in itertools.product(makes, REPEATED):
        yield backends.outcome(lambda make=make, way=way: way(on.ex, make()))


for _title, _makes in SIZES.items():
    backends.program(f"methods, objects and partials with arrays {_title}", functools.partial(held, _makes))
    backends.program(f"repeated arguments that are arrays {_title}", functools.partial(repeated, _makes))

if __name__ == "__main__":
    backends.run(globals())
