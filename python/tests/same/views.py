"""Programs: where the memory of an array is × which view of it × who writes to the view × how long it is."""

import sys

import backends
import numpy
from numpy.lib.stride_tricks import as_strided, sliding_window_view

#: Numbers in an array: below the size from which on arrays are passed in shared memory, and above.
LENGTHS = (60, 6_000, 60_000)
#: The elements of most of these share memory.
VIEWS = {
    "whole": lambda array: array,
    "windows": lambda array: sliding_window_view(array, 3),
    "windows with steps": lambda array: sliding_window_view(array, 8)[::4],
    "windows side by side": lambda array: sliding_window_view(array, 4)[::4],
    "windows reversed": lambda array: sliding_window_view(array, 3)[::-1, ::-1],
    "columns of windows": lambda array: sliding_window_view(array, 3).T,
    "every second of windows": lambda array: sliding_window_view(array, 3)[:, ::2],
    "windows of windows": lambda array: sliding_window_view(sliding_window_view(array, 4), 2, 1),
    "writable windows": lambda array: as_strided(array, (array.size - 2, 2), (8, 16)),
    "rows": lambda array: numpy.broadcast_to(array, (3, array.size)),
    "columns": lambda array: numpy.broadcast_to(array[:, None], (array.size, 3)),
    "one number": lambda array: numpy.broadcast_to(array[:1], (70, 90)),
    "no row": lambda array: numpy.broadcast_to(array, (0, array.size)),
    "one row": lambda array: numpy.broadcast_to(array, (1, array.size)),
    "every second": lambda array: array[::2],
    "transposed": lambda array: array.reshape(10, -1).T,
    "reversed": lambda array: array[::-1],
    "corner": lambda array: array.reshape(10, -1)[2:4, 1::3],
}
if sys.version_info >= (3, 14):
    # Other pools pass contiguous read-only views on as read-only, because protocol 5 is the default of `pickle` there.
    for name in ("windows side by side", "no row", "one row"):
        del VIEWS[name]


def make(which, length):
    """Makes an array where the result of a task goes, if the pool has such a place."""
    if which != "arenite":
        return numpy.arange(float(length))
    import arenite

    made = arenite.empty(length)
    made[:] = numpy.arange(float(length))
    return made


def share(ex, which, array):
    return getattr(ex, "executor", ex).share(array) if which == "arenite" else array


def write(view):
    view += numpy.arange(float(view.size)).reshape(view.shape)
    view[-1:] *= 2
    return view.shape, float(view.sum()), view.ravel()[:20].tolist()


def give(array, name):
    return VIEWS[name](array)


def give_both(array, name):
    return array, VIEWS[name](array)


def make_view(which, length, name):
    return VIEWS[name](make(which, length))


def in_task(ex, which, length, view):
    """Of an array of the program, and of a result."""
    result = ex.submit(make, which, length).result()
    for array in numpy.arange(float(length)), result:
        yield ex.submit(write, VIEWS[view](array)).result()
        yield list(ex.map(write, [VIEWS[view](array)] * 2))
        yield float(array.sum())


def in_program(ex, which, length, view):
    """Of what a task makes, of its argument, and of a shared array."""
    yield write(ex.submit(make_view, which, length, view).result())
    array = numpy.arange(float(length))
    for array in array, share(ex, which, array):
        yield write(ex.submit(give, array, view).result())
        yield write(ex.submit(give_both, array, view).result()[1])
        yield float(array.sum())


def in_pool(pool, which, length, view):
    """Of an array of the program, and of a shared array."""
    array = numpy.arange(float(length))
    for array in array, share(pool, which, array):
        yield pool.apply(write, (VIEWS[view](array),))
        yield pool.map(write, [VIEWS[view](array)] * 2)
        yield write(pool.apply(give, (array, view)))


WAYS = {way.__name__: way for way in (in_task, in_program, in_pool)}


def names():
    for way in WAYS:
        for length in LENGTHS:
            for view in VIEWS:
                yield f"{way}: {length}, {view}", ["fork", "spawn"]


def programs(which):
    with backends.executor(which) as ex, backends.pool(which) as pool:
        for program, _ in backends.drawn(names()):
            way, rest = program.split(": ")
            length, view = rest.split(", ")
            run = WAYS[way](pool if way == "in_pool" else ex, which, int(length), view)
            yield program, backends.outcome(lambda: list(run))


if __name__ == "__main__":
    backends.main(programs)
