"""Inputs of maps, which the program changes after the call, or whose length is wrong. On fork."""

import array
import collections
import functools
import importlib
import itertools

import backends
import numpy

#: The number of items, and how many of them arenite takes at a time, as it would of many more.
ITEMS, AHEAD = 60, 5


class Same(list):
    pass


class Doubled(list):
    def __iter__(self):
        return (2 * item for item in super().__iter__())


NUMBERS = range(ITEMS)
BY_NUMBER = dict.fromkeys(NUMBERS, "value")
#: What makes inputs, and the part of each that a map reads.
INPUTS = {
    "a list": [lambda: list(NUMBERS)],
    "lists of classes": [lambda: Same(NUMBERS), lambda: Doubled(NUMBERS), lambda: collections.UserList(NUMBERS)],
    "a list of lists": [lambda: [[number] for number in NUMBERS]],
    "a set": [lambda: set(NUMBERS)],
    "queues with and without a length": [lambda: collections.deque(NUMBERS), lambda: collections.deque(NUMBERS, ITEMS)],
    "a dictionary, its keys, values and items": [lambda: dict(BY_NUMBER), dict.keys, dict.values, dict.items],
    "dictionaries of collections": [lambda: collections.OrderedDict(BY_NUMBER), iter, lambda held: held.values()],
    "dictionaries of classes of Python": [lambda: collections.UserDict(BY_NUMBER)],
    "a counter and a dictionary with defaults": [lambda: collections.Counter(NUMBERS)],
    "arrays and bytes": [lambda: array.array("i", NUMBERS), lambda: bytearray(NUMBERS)],
    "arrays of numpy": [lambda: numpy.arange(ITEMS), lambda: numpy.array([*NUMBERS, "text"], object)],
}


def clear(held):
    held.clear() if hasattr(held, "clear") else held.__delitem__(slice(None))


def replace(held):
    if hasattr(held, "keys"):
        held.update(dict.fromkeys(held, "other"))
    elif isinstance(held, set):
        held.difference_update(range(0, ITEMS, 2))
    else:
        for number in range(ITEMS):
            held[number] = held[0]


def grow(held):
    if hasattr(held, "keys"):
        held["more"] = "more"
    else:
        (held.add if isinstance(held, set) else held.append)(1)


def give(*items):
    return items


WAYS = [
    lambda ex, items: ex.map(give, items),
    lambda ex, items: ex.map(give, items, chunksize=7),
    lambda ex, items: ex.map(give, NUMBERS, items, chunksize=1),
    lambda ex, items: ex.map(give, items, itertools.repeat(3)),
]


def changed(makes, on):
    if on.is_ours:
        core = importlib.import_module("arenite._core.map")
        core._MOST_SIZED = core._MOST_PACKED = AHEAD
    for make in makes:
        # The first makes a dictionary of which the others take a part.
        part = lambda held: held  # noqa: E731
        if isinstance(make, type(dict.keys)) or make is iter:
            part, make = make, makes[0]
        for way, change in itertools.product(WAYS, (clear, replace, grow)):
            if isinstance(make(), numpy.ndarray) and change is not replace:
                continue

            def run(way=way, change=change, make=make, part=part):
                held = make()
                results = way(on.ex, part(held))
                change(held)
                return list(results)

            yield backends.outcome(run)


for _title, _makes in INPUTS.items():
    backends.program(f"the input of a map changes after the call: {_title}", functools.partial(changed, _makes))


class Input:
    """An input with this length, or whose length raises this."""

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return iter([1, 2, 3])

    def __len__(self):
        if isinstance(self.length, int):
            return self.length
        raise self.length("no length")


class Hints(Input):
    """An iterator with a wrong length."""

    taken, __length_hint__ = 0, Input.__len__

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        if self.taken > 3:
            raise StopIteration
        return self.taken


class Hinted(Input):
    """Its iterator has a wrong length, too."""

    def __iter__(self):
        return Hints(self.length)


class Hides(list):
    def __len__(self):
        raise ValueError("no length")


def taken(ex, items, **options):
    # What a map gives, and the items that it leaves.
    items = iter(items)
    return list(ex.map(give, [1, 2], items, **options)), list(items)


LENGTHS = [
    lambda ex, items: list(ex.map(give, items)),
    lambda ex, items: list(ex.map(give, items, chunksize=2)),
    lambda ex, items: list(ex.map(give, items, range(5))),
    lambda ex, items: list(ex.map(give, range(5), items)),
    taken,
    lambda ex, items: taken(ex, items, chunksize=3),
]
KINDS = Input, Hinted, Hints
ODD = {
    "raises": [functools.partial(kind, error) for kind in KINDS for error in (TypeError, AttributeError, ValueError)],
    "is too small or too large": [functools.partial(kind, length) for kind in KINDS for length in (0, 2, 10)],
    "is hidden by a class": [lambda: Hides([1, 2, 3])],
    "is that of an iterator": [
        lambda: reversed([1, 2, 3]), lambda: itertools.repeat(5, 3), lambda: itertools.repeat(None, 0),
        lambda: itertools.chain([1], [2]),
    ],
}  # fmt: skip


def measured(makes, on):
    for make, way in itertools.product(makes, LENGTHS):
        yield backends.outcome(lambda make=make, way=way: way(on.ex, make()))


for _title, _makes in ODD.items():
    backends.program(f"the input of a map whose length {_title}", functools.partial(measured, _makes))

if __name__ == "__main__":
    backends.run(globals())
