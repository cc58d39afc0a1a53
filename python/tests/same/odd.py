"""Programs with objects that raise what their users do not expect, with inputs of a wrong length, and with containers
that share parts."""

import collections
import contextlib
import functools
import importlib.util
import itertools
import sys

import backends


class Dots(dict):
    """Raises KeyError for attributes that it does not have."""

    __getattr__ = dict.__getitem__

    def __call__(self, number, other=0):
        return self["n"] + number + other

    def add(self, number, other=0):
        return self.n + number + other


class Refuses:
    """Raises ValueError instead of AttributeError. Has no state: pickle would look for a method that sets it."""

    __slots__ = ()

    def __getattr__(self, name):
        raise ValueError(name)

    def __call__(self, number, other=0):
        return number + other

    def add(self, number, other=0):
        return number - other


class Silent:
    def __getattr__(self, name):
        raise RuntimeError(name)


def store(name, value):
    sys.modules[name] = value()
    return name in sys.modules


def make_lazy(name):
    """Imports a module that is loaded when it is used."""
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def is_loaded(name):
    return type(sys.modules[name]) is type(sys)


def stored(number):
    sys.modules[f"stored_{number}"] = number
    sys.modules[number] = Silent()
    return number


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


class Hinted(Input):
    """Its iterator has a wrong length, too."""

    def __iter__(self):
        return Hints(self.length)


class Hints(Input):
    """An iterator with a wrong length."""

    __length_hint__ = Input.__len__

    def __iter__(self):
        return self

    def __next__(self):
        self.taken = getattr(self, "taken", 0) + 1
        if self.taken > 3:
            raise StopIteration
        return self.taken


class Hides:
    def __len__(self):
        raise ValueError("no length")


class List(Hides, list):
    pass


class Deque(Hides, collections.deque):
    pass


class Set(Hides, set):
    pass


class Users(Hides, collections.UserList):
    pass


LENGTHS = (TypeError, NotImplementedError, AttributeError, ValueError, 0, 2, 10)
INPUTS = {
    f"{kind.__name__} {getattr(length, '__name__', length)}": (kind, length)
    for kind in (Input, Hinted, Hints)
    for length in LENGTHS
}
INPUTS |= {kind.__name__: (kind, [1, 2, 3]) for kind in (List, Deque, Set)}
INPUTS |= {
    "reversed": (reversed, [1, 2, 3]),
    "repeat": (lambda count: itertools.repeat(5, count), 3),
    "repeat none": (lambda count: itertools.repeat(5, count), 0),
    "repeat None": (lambda count: itertools.repeat(None, count), 2),
    "chain": (lambda items: itertools.chain(items, items), [1, 2]),
}


def give(*items):
    return items


def taken(ex, items, **options):
    """What a map gives, and the items that it leaves."""
    items = iter(items)
    return list(ex.map(give, [1, 2], items, **options)), list(items)


WAYS = {
    "map": lambda ex, items: list(ex.map(give, items)),
    "chunks": lambda ex, items: list(ex.map(give, items, chunksize=2)),
    "first": lambda ex, items: list(ex.map(give, items, range(5))),
    "second": lambda ex, items: list(ex.map(give, range(5), items)),
    "taken": taken,
    "taken in chunks": lambda ex, items: taken(ex, items, chunksize=3),
}
CALLED = {
    "submit": lambda ex, function: ex.submit(function, 4).result(),
    "map": lambda ex, function: list(ex.map(function, range(5))),
    "chunks": lambda ex, function: list(ex.map(function, range(5), range(5), chunksize=2)),
    "one by one": lambda ex, function: list(ex.map(function, range(5), chunksize=1)),
}
FUNCTIONS = {
    "dots": lambda: Dots(n=3),
    "method of dots": lambda: Dots(n=3).add,
    "refuses": Refuses,
    "method of one that refuses": lambda: Refuses().add,
    "partial": lambda: functools.partial(Refuses(), other=2),
}
MODULES = {"silent": Silent, "dots": Dots, "refuses": Refuses, "text": str}

LEVELS = 12
DEEP, TABLES = [1], {"end": [0]}
for _ in range(LEVELS):
    DEEP, TABLES = [DEEP] * 10, {key: TABLES for key in "abcdefghij"}
CYCLE = [[1]]
CYCLE.append(CYCLE)


def innermost(value, key):
    for _ in range(LEVELS):
        value = value[key]
    return value


def deep():
    return len(DEEP), DEEP[0] is DEEP[9], innermost(DEEP, 3)


def tables():
    return TABLES["a"] is TABLES["b"], innermost(TABLES, "c")


def cycle():
    return CYCLE[1] is CYCLE, CYCLE[0]


#: A task, and the list that the program changes.
PARTS = {
    "deep": (deep, innermost(DEEP, 0)),
    "tables": (tables, innermost(TABLES, "d")["end"]),
    "cycle": (cycle, CYCLE[0]),
}


def names():
    """The programs, by the backends that they run on besides arenite."""
    yield from ((f"called: {name}, {way}", ["fork", "spawn"]) for name in FUNCTIONS for way in CALLED)
    yield from ((f"input: {name}, {way}", ["fork"]) for name in INPUTS for way in WAYS)
    yield from ((f"module: {name}", ["fork", "spawn"]) for name in [*MODULES, "numbers", "lazy"])
    yield from ((f"parts: {name}", ["fork"]) for name in PARTS)


def in_parts(ex, which, task, changed):
    """What a task sees, before and after the program has changed a list. A pool begins with what the program has now."""
    for _ in range(2):
        with contextlib.nullcontext(ex) if which == "arenite" else backends.executor(which) as ex:
            yield ex.submit(task).result()
        changed.append(2)


def programs(which):
    with backends.executor(which) as ex:
        for program, others in backends.drawn(names()):
            if which != "arenite" and which not in others:
                continue
            kind, _, rest = program.partition(": ")
            name, _, way = rest.partition(", ")

            def run():
                if kind == "called":
                    return CALLED[way](ex, FUNCTIONS[name]())
                if kind == "input":
                    make, given = INPUTS[name]
                    return WAYS[way](ex, make(given))
                if kind == "parts":
                    return list(in_parts(ex, which, *PARTS[name]))
                if name == "lazy":
                    return [ex.submit(task, "colorsys").result() for task in (make_lazy, is_loaded)]
                if name == "numbers":
                    return [ex.submit(stored, number).result() for number in range(3)]
                return [ex.submit(store, f"odd_{name}", MODULES[name]).result() for _ in range(2)]

            yield program, backends.outcome(run)


if __name__ == "__main__":
    backends.main(programs)
