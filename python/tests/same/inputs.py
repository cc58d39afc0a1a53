"""Programs: the input of a map × how the program changes it after the call × how it is called."""

import array
import collections
import importlib
import itertools

import backends

#: The number of items, and how many of them arenite takes at a time, as it would of many more.
ITEMS, AHEAD = 60, 5


def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


numpy = optional("numpy")


class Same(list):
    pass


class Doubled(list):
    def __iter__(self):
        return (2 * item for item in super().__iter__())


NUMBERS = range(ITEMS)
BY_NUMBER = dict.fromkeys(NUMBERS, "value")
#: What makes an input, and its part that a map reads.
INPUTS = {
    "list": (lambda: list(NUMBERS), None),
    "list of a class": (lambda: Same(NUMBERS), None),
    "list with an iterator": (lambda: Doubled(NUMBERS), None),
    "list of lists": (lambda: [[number] for number in NUMBERS], None),
    "set": (lambda: set(NUMBERS), None),
    "deque": (lambda: collections.deque(NUMBERS), None),
    "deque of the last": (lambda: collections.deque(NUMBERS, ITEMS), None),
    "dict": (lambda: dict(BY_NUMBER), None),
    "keys": (lambda: dict(BY_NUMBER), dict.keys),
    "values": (lambda: dict(BY_NUMBER), dict.values),
    "items": (lambda: dict(BY_NUMBER), dict.items),
    "ordered dict": (lambda: collections.OrderedDict(BY_NUMBER), None),
    "ordered values": (lambda: collections.OrderedDict(BY_NUMBER), lambda held: held.values()),
    "default dict": (lambda: collections.defaultdict(str, BY_NUMBER), None),
    "user dict": (lambda: collections.UserDict(BY_NUMBER), None),
    "user list": (lambda: collections.UserList(NUMBERS), None),
    "counter": (lambda: collections.Counter(NUMBERS), None),
    "array": (lambda: array.array("i", NUMBERS), None),
    "bytearray": (lambda: bytearray(NUMBERS), None),
}
if numpy:
    INPUTS["numpy array"] = lambda: numpy.arange(ITEMS), None
    INPUTS["numpy array of objects"] = lambda: numpy.array([*NUMBERS, "text"], object), None


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
    elif isinstance(held, set):
        held.add(ITEMS)
    else:
        held.append(1)


def nothing(held):
    pass


CHANGES = {change.__name__: change for change in (clear, replace, grow, nothing)}


def give(item):
    return item


def both(item, other):
    return item, other


WAYS = {
    "map": lambda ex, items: ex.map(give, items),
    "single": lambda ex, items: ex.map(give, items, chunksize=1),
    "chunks": lambda ex, items: ex.map(give, items, chunksize=7),
    "two": lambda ex, items: ex.map(both, items, NUMBERS),
    "twice": lambda ex, items: ex.map(both, NUMBERS, items, chunksize=7),
    "repeated": lambda ex, items: ex.map(both, items, itertools.repeat(3)),
}


def names():
    for way in WAYS:
        for name in INPUTS:
            for change in CHANGES:
                if not (name.startswith("numpy") and change in ("clear", "grow")):
                    yield f"{way}: {name}, {change}", ["fork"]


def programs(which):
    if which == "arenite":
        core = importlib.import_module("arenite._core.map")
        core._MOST_SIZED = core._MOST_PACKED = AHEAD
    with backends.executor(which) as ex:
        for program, _ in backends.drawn(names()):
            way, rest = program.split(": ")
            name, change = rest.split(", ")
            make, part = INPUTS[name]

            def run():
                held = make()
                results = WAYS[way](ex, held if part is None else part(held))
                CHANGES[change](held)
                return list(results)

            yield program, backends.outcome(run)


if __name__ == "__main__":
    backends.main(programs)
