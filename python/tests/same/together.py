"""Programs whose functions and arguments refer to the same objects."""

import array
import collections
import functools
import io
import random
import types

import backends
import numpy


class Body:
    def __init__(self, x):
        self.x, self.seen = x, []

    def nearest(self, bodies):
        return min(abs(self.x - other.x) for other in bodies if other is not self)

    def put(self, seen):
        seen.append(1)
        return len(self.seen), seen is self.seen

    def __call__(self, other, key=None):
        return other is self, key is self, other is key


class Tree:
    __slots__ = ("children", "parent")

    def __init__(self, parent=None):
        self.children, self.parent = [], parent
        if parent is not None:
            parent.children.append(self)

    def is_over(self, tree):
        return tree.parent is self, any(child is tree for child in self.children)


def is_same(one, other):
    return one is other


def change(one, key, other):
    other[key] = 1
    return one == other, one is other, len(one)


def is_pair(pair):
    one, other = pair
    return one is other, one is other[0]


def twice(x):
    pair = x, -x
    return pair, pair, (pair,)


def sizes(settings, values):
    values.append(settings["n"])
    return len(values), settings


#: Objects of libraries, each with what changes it and what reads it.
OF_LIBRARIES = {
    "deque": (collections.deque([0]), "append", list),
    "UserList": (collections.UserList([0]), "append", list),
    "bytes": (bytearray(b"a"), "append", bytes),
    "array": (array.array("i", [0]), "append", list),
    "OrderedDict": (collections.OrderedDict(), "update", dict),
    "Counter": (collections.Counter(), "update", dict),
    "defaultdict": (collections.defaultdict(list), "update", dict),
    "ChainMap": (collections.ChainMap(), "update", dict),
    "namespace": (types.SimpleNamespace(), "__setattr__", vars),
    "text file": (io.StringIO(), "write", io.StringIO.getvalue),
    "random": (random.Random(3), "seed", random.Random.random),
    "random of numpy": (numpy.random.RandomState(3), "seed", numpy.random.RandomState.random_sample),
    "small numbers": (numpy.zeros(3), "fill", list),
    "numbers": (numpy.zeros(3_000), "fill", list),
    "many numbers": (numpy.zeros(40_000), "fill", numpy.sum),
    "masked numbers": (numpy.ma.zeros(3), "fill", list),
}
ARGUMENTS = {"update": ({"a": 1},), "__setattr__": ("a", 1), "write": ("a",)}


def use(one, kind, two):
    """Changes one object. Returns what the other one has then."""
    _, change, read = OF_LIBRARIES[kind]
    getattr(one, change)(*ARGUMENTS.get(change, (1,)))
    return one is two, read(two)


class Holder:
    def __init__(self, held):
        self.held = held

    def use(self, kind, other):
        return use(other, kind, self.held)


BODIES = [Body(x) for x in (0, 3, 7)]
ROOT = Tree()
LEAF = Tree(ROOT)
PAIR = (1.5, "a")
TABLE, LIST, SETTINGS, ABSENT = {}, [1, 2], {"n": 1}, object()

#: A name, a function and arguments of calls.
CASES = [
    ("method", BODIES[0].nearest, [(BODIES,)] * 7),
    ("method of a list", BODIES[0].put, [(BODIES[0].seen,), ([],)]),
    ("slots", ROOT.is_over, [(LEAF,), (ROOT,)]),
    ("slots of a child", LEAF.is_over, [(ROOT,)]),
    ("callable", BODIES[0], [(BODIES[0],), (BODIES[1],), (1,)]),
    ("callable of two", BODIES[1], [(BODIES[1], BODIES[1]), (BODIES[0], BODIES[0])]),
    ("partial", functools.partial(is_same, BODIES[0]), [(body,) for body in BODIES]),
    ("partial by keyword", functools.partial(is_same, other=TABLE), [(TABLE,), ({},), (None,)]),
    ("partial of a partial", functools.partial(functools.partial(change, TABLE), "key"), [(TABLE,), ({},)]),
    ("changed", functools.partial(change, TABLE), [("a", TABLE), ("b", TABLE), ("c", {})]),
    ("list", functools.partial(is_same, LIST), [(LIST,), ([1, 2],), ((1, 2),)]),
    ("arguments", is_same, [(PAIR, PAIR), (PAIR, LIST), (LIST, LIST), ((PAIR,), PAIR)]),
    ("parts of an argument", is_pair, [((PAIR, PAIR),), ((PAIR, (PAIR,)),), ((LIST, LIST),)]),
    ("sentinel", functools.partial(is_same, ABSENT), [(ABSENT,), (object(),)]),
    *((kind, functools.partial(use, one), [(kind, one)]) for kind, (one, _, _) in OF_LIBRARIES.items()),
    *((f"attribute: {kind}", Holder(one).use, [(kind, one)]) for kind, (one, _, _) in OF_LIBRARIES.items()),
    ("nothing shared", functools.partial(sizes, SETTINGS), [([1],), ([2, 3],), ([],)]),
]


def names():
    """The programs, by the backends that they run on besides arenite."""
    for name, _, _ in CASES:
        yield f"together: {name}", ["fork", "spawn"]
    yield "together: results", ["fork", "spawn"]


def programs(which):
    with backends.executor(which) as ex, backends.pool(which) as pool:
        for name, function, calls in CASES:
            columns = list(zip(*calls))
            yield (
                f"together: {name}",
                [
                    [backends.outcome(ex.submit(function, *arguments).result) for arguments in calls],
                    [backends.outcome(lambda size=size: list(ex.map(function, *columns, chunksize=size))) for size in (1, 3)],
                    backends.outcome(lambda: pool.starmap(function, calls)),
                    backends.outcome(lambda: pool.apply(function, calls[0])),
                    backends.outcome(lambda: list(pool.imap(functools.partial(_unpacked, function), calls))),
                ],
            )
        yield "together: results", [(one is two, one is three[0]) for one, two, three in ex.map(twice, range(9))]


def _unpacked(function, arguments):
    return function(*arguments)


if __name__ == "__main__":
    backends.main(programs)
