"""Objects that refer to each other, that are compared by identity, and that functions and arguments share. On fork and
spawn."""

import argparse
import array
import collections
import contextvars
import dataclasses
import functools
import io
import math
import random
import sys
import threading
import types
import weakref

import backends
import constants
import numpy
from constants import LOCAL, LOCK, MISSING, UNSET, VARIABLE

# ---- objects of a module that workers import

LOCAL.before = 1


def of_a_module():
    "a sentinel, a lock, a context variable and thread-local values of an imported module"
    VARIABLE.set(5)
    LOCAL.value = 3
    with LOCK:
        seen = constants.value_of_variable(), constants.is_locked(), constants.value_of_local()
        return UNSET is constants.UNSET, *seen, LOCAL.before


class Model:
    field, other = constants.Field(), constants.Field(7)


def in_objects():
    "a sentinel of a module inside an object of its class"
    return Model.field.default is MISSING, Model.field.default is constants.MISSING, Model.other.default


PARSER = argparse.ArgumentParser()
PARSER.add_argument("--size", default=argparse.SUPPRESS)
PARSER.add_subparsers(dest="command").add_parser("run").add_argument("file")


def parsed():
    "a parser of arguments with sentinels of its library"
    return str(PARSER.parse_args([])), str(PARSER.parse_args(["--size", "3", "run", "x"])), PARSER.format_usage()


NAN, KNOWN = math.nan, {math.nan: "nan"}


def not_a_number(value=math.nan):
    return NAN is math.nan, math.nan in KNOWN, value is NAN, [NAN] == [math.nan]


# ---- one object in several globals, functions and tasks

TURN, AGAIN, LEVEL = threading.Lock(), threading.RLock(), contextvars.ContextVar("LEVEL", default=0)
CHANGED, HELD, LEVELS = threading.Condition(TURN), [AGAIN], [LEVEL]


def first_of_two():
    "a lock and a context variable that one task sets"
    LEVEL.set(5)
    with TURN, AGAIN:
        return TURN.locked()


def second_of_two():
    "the same lock and context variable, in containers, in another task"
    with TURN, HELD[0]:
        CHANGED.notify()
    return LEVELS[0].get(), HELD[0] is AGAIN, LEVELS[0] is LEVEL


class Node:
    def __init__(self, name, parent=None):
        self.name, self.kids = name, []
        if parent is not None:
            self.parent = weakref.proxy(parent)
            parent.kids.append(self)

    def __call__(self):
        return self.name


ROOT = Node("root")
KID, SEEN = Node("kid", ROOT), weakref.proxy(ROOT)


class Registry:
    _table = {"a": 1}
    table = types.MappingProxyType(_table)


def read_only_view():
    "a read-only view of a dictionary, which a task changes"
    Registry._table["b"] = 2
    return dict(Registry.table), "_table" in vars(Registry)


class Slots:
    __slots__ = ("__hidden", "size", "held")

    def hide(self):
        self.__hidden = self.length = 4
        return self.__hidden, self.size


Slots.length, Slots.code = Slots.size, types.FunctionType.__code__


class Holder:
    def __init__(self, held):
        self.held = held

    def poke(self, number=0):
        self.held.append(number)
        return self.held


def counters(held):
    count = 0

    def more():
        nonlocal count
        count += 1
        held.append(count)
        return count, held

    return more, lambda: (count, held)


LIST, NUMBERS = [1], numpy.arange(6_000.0)
A, B, C = [LIST], Holder(LIST), {"held": (LIST, LIST)}
D, E, F = Slots(), Holder(LIST).poke, functools.partial(Holder.poke, Holder(LIST))
D.held = LIST
KEYS, LATE = {D: 0}, {**{str(number): [] for number in range(400)}, "held": LIST}
MORE, SEES = counters(LIST)
BACK, ROWS, PART = NUMBERS[::-1], NUMBERS.reshape(2, -1), [NUMBERS[:4_000]]


class Parent:
    held = LIST


class Child(Parent):
    own = (LIST,)


def defaulted(held=LIST):
    return held


defaulted.held = LIST


def all_of_a_list():
    return [A[0], B.held, *C["held"], D.held, next(iter(KEYS)).held, LATE["held"], Child.held, Child.own[0]]


def first_looks():
    "a list that globals, a class, a default and closures share: a task that reads"
    return [one is LIST for one in all_of_a_list()], LIST


def then_changes():
    "the same list: a task that changes it through a method, a partial, a class and a closure"
    B.poke(1), E(2), F(3), Child.held.append(4), defaulted().append(5), defaulted.held.append(6)
    return MORE(), SEES()[0], LIST


def then_looks():
    "the same list: another task sees the changes everywhere"
    return [one is LIST for one in all_of_a_list()], LIST, defaulted() is defaulted.held, E(0) is F(0), SEES()


def rebinds():
    "a task that gives a global and an attribute the object of others"
    global A
    A, Parent.held = C, B
    return A is C, Child.held is B


def after_rebinding():
    "another task after a global and an attribute were bound anew"
    return A is C, Child.held is B, Child.held.held is LIST


def arrays_share():
    "views in globals share the memory of their array"
    NUMBERS[0] += 1
    BACK[0] += 2
    ROWS[1, 0] += 3
    PART[0][1] += 4
    return float(NUMBERS.sum()), float(BACK[-1]), float(ROWS[0, 1]), float(PART[0][0])


# ---- graphs


class Vertex:
    def __init__(self, name):
        self.name, self.near, self.costs = name, set(), {}

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return self.name == other.name

    def link(self, other):
        for one, two in ((self, other), (other, self)):
            one.near.add(two)
            one.costs[two] = len(one.costs)


class Late(Vertex):
    """Has a hash before it has a name."""

    name = owner = None


@dataclasses.dataclass(unsafe_hash=True)
class Town:
    name: str = ""
    roads: set = dataclasses.field(default_factory=set, compare=False, repr=False)


class Peer:
    __slots__ = ("name", "peers")

    def __init__(self, name):
        self.name, self.peers = name, set()

    def __hash__(self):
        return hash(getattr(self, "name", 0))


class Cell:
    def __init__(self, value):
        self.value, self.near, self.next = value, [], None


class Wrapper:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Settings:
    one = None

    def __new__(cls):
        if cls.one is None:
            cls.one = super().__new__(cls)
            cls.one.values = {"size": 4}
        return cls.one

    def __getattr__(self, name):
        return self.values[name]


class Path:
    def __init__(self, *parts):
        self.parts = parts

    def __getattr__(self, name):
        return Path(*self.parts, name)


class Fixed:
    __slots__ = ("x",)

    def __init__(self, x):
        object.__setattr__(self, "x", x)

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} is read-only")


class Counted:
    sets = collections.Counter()

    def __init__(self, value):
        self.value = value

    def __setattr__(self, name, value):
        Counted.sets[name] += 1
        object.__setattr__(self, name, value)


def graph(kind, names):
    made = {name: kind(name) for name in names}
    for one, two in zip(names, names[1:] + names[:1], strict=True):
        made[one].link(made[two])
    return made


#: More objects than can be pickled one inside the other.
LONG = 1_500
VERTICES, LATES, LONG_GRAPH = graph(Vertex, "abcd"), graph(Late, "abcd"), graph(Vertex, [f"{n}" for n in range(LONG)])
TOWNS = {name: Town(name) for name in ("rome", "pisa", "bari")}
for _town in TOWNS.values():
    _town.roads.update(TOWNS.values())
LEFT, RIGHT = Peer("left"), Peer("right")
LEFT.peers, RIGHT.peers = {RIGHT, LEFT}, {LEFT, RIGHT}
OWNING = [{}, collections.OrderedDict(), collections.defaultdict(list), collections.Counter()]
for _one in OWNING:
    for _name in "abc":
        _key = Late(_name)
        _key.owner, _one[_key] = _one, 1
LOOP = Late("loop")
LOOP.owner = frozenset([LOOP])
CELLS = {(x, y): Cell((x, y)) for x in range(40) for y in range(40)}
for (_x, _y), _cell in CELLS.items():
    _cell.near += [CELLS[at] for at in ((_x + 1, _y), (_x - 1, _y), (_x, _y + 1), (_x, _y - 1)) if at in CELLS]
CHAIN = _last = Cell(0)
for _number in range(1, LONG):
    _last.next = _last = Cell(_number)
UNUSED = functools.reduce(lambda value, number: (number, value), range(LONG), ())
WRAPPER, SETTINGS, PATH, FIXED, COUNTED = Wrapper([1, 2]), Settings(), Path("api"), Fixed([2]), Counted(5)


def vertices():
    "vertices in each other's sets and dictionaries"
    met = [[LATES[name] in LATES[other].near for name in "abcd"] for other in "abcd"]
    return [sorted(one.name for one in node.near) for node in VERTICES.values()], met, VERTICES["a"].costs[Vertex("b")]


def towns():
    "dataclasses in each other's sets"
    return [[TOWNS[two] in TOWNS[one].roads for two in sorted(TOWNS)] for one in sorted(TOWNS)], repr(TOWNS["bari"])


def peers():
    "objects with slots and a hash, in each other's sets"
    return LEFT in RIGHT.peers, RIGHT in LEFT.peers, len(LEFT.peers), list(vars(VERTICES["a"])), list(vars(COUNTED))


def owners():
    "dictionaries whose keys refer to them, and a set that contains its owner"
    return [[key in one and key.owner is one for key in list(one)] for one in OWNING], LOOP in LOOP.owner


def cells():
    "a grid of a thousand objects that refer to their neighbours"
    CELLS[0, 0].near.append(1)
    return sum(len(CELLS[3, y].near) for y in range(40)), CELLS[0, 0].near[2:], CELLS[0, 1].near[1] is CELLS[0, 0]


def along():
    "a chain of more objects than recursion allows"
    one, total = CHAIN, 0
    while one is not None:
        total, one = total + one.value, one.next
    CHAIN.next.near.append(1)
    return total, CHAIN.next.near


def long_graph():
    "a graph of more objects than recursion allows"
    seen, left = set(), [LONG_GRAPH["7"]]
    while left:
        if (one := left.pop()) not in seen:
            seen.add(one)
            left += one.near
    return len(seen)


def intercepting():
    "objects whose methods Python calls before they are restored"
    found = WRAPPER.count(1), PATH.users.parts, SETTINGS.size, Settings() is SETTINGS
    return *found, FIXED.x, COUNTED.value, Counted.sets


# ---- what a function and its arguments share


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


def is_same(one, other):
    return one is other


def change(one, key, other):
    other[key] = 1
    return one == other, one is other, len(one)


def is_pair(pair):
    return pair[0] is pair[1], pair[0] is pair[1][0]


def sizes(settings, values):
    values.append(settings["n"])
    return len(values), settings


def uses(one, kind, two):
    _, change, *arguments, read = OF_LIBRARIES[kind]
    getattr(one, change)(*arguments)
    return one is two, read(two)


#: Objects of libraries, each with what changes it and what reads it.
OF_LIBRARIES = {
    "deque": (collections.deque([0]), "append", 1, list),
    "bytes": (bytearray(b"a"), "append", 1, bytes),
    "array": (array.array("i", [0]), "append", 1, list),
    "dictionary": (collections.OrderedDict(), "update", {"a": 1}, dict),
    "defaults": (collections.defaultdict(list), "update", {"a": 1}, dict),
    "maps": (collections.ChainMap(), "update", {"a": 1}, dict),
    "namespace": (types.SimpleNamespace(), "__setattr__", "a", 1, vars),
    "text file": (io.StringIO(), "write", "a", io.StringIO.getvalue),
    "random": (random.Random(3), "seed", 1, random.Random.random),
    "random of numpy": (numpy.random.RandomState(3), "seed", 1, numpy.random.RandomState.random_sample),
    "numbers": (numpy.zeros(3), "fill", 1, list),
    "more numbers": (numpy.zeros(3_000), "fill", 1, numpy.sum),
    "many numbers": (numpy.zeros(40_000), "fill", 1, numpy.sum),
    "masked numbers": (numpy.ma.zeros(3), "fill", 1, list),
}
BODIES, PAIR, TABLE, ABSENT = [Body(x) for x in (0, 3, 7)], (1.5, "a"), {}, object()
TOGETHER = {
    "a method gets a list that contains its object": (BODIES[0].nearest, [(BODIES,)] * 7),
    "a method gets a list of its object": (BODIES[0].put, [(BODIES[0].seen,), ([],)]),
    "a callable object gets itself": (BODIES[0], [(BODIES[0],), (BODIES[1], BODIES[1]), (1,)]),
    "a partial gets its own argument": (functools.partial(is_same, BODIES[0]), [(body,) for body in BODIES]),
    "a partial of a partial gets a dictionary that it changes": (
        functools.partial(functools.partial(change, TABLE), "key"), [(TABLE,), ({},)],
    ),
    "a partial with a keyword gets the same dictionary": (
        functools.partial(is_same, other=TABLE), [(TABLE,), ({},), (None,)],
    ),
    "arguments are one object, or parts of each other": (
        is_pair, [((PAIR, PAIR),), ((PAIR, (PAIR,)),), ((LIST, LIST),)],
    ),
    "a sentinel in a partial and in an argument": (functools.partial(is_same, ABSENT), [(ABSENT,), (object(),)]),
    "a partial and arguments that share nothing": (functools.partial(sizes, {"n": 1}), [([1],), ([2, 3],), ([],)]),
    **{f"a partial and its argument share an object: {kind}": (functools.partial(uses, one[0]), [(kind, one[0])])
       for kind, one in OF_LIBRARIES.items()},
}  # fmt: skip


def _unpacked(function, arguments):
    return function(*arguments)


def in_each_way(function, calls, on):
    columns = list(zip(*calls, strict=False)) if len({len(one) for one in calls}) == 1 else None
    yield [backends.outcome(on.ex.submit(function, *arguments).result) for arguments in calls]
    for size in (1, 3) if columns else ():
        yield backends.outcome(lambda size=size: list(on.ex.map(function, *columns, chunksize=size)))
    yield backends.outcome(on.pool.starmap, function, calls)
    yield backends.outcome(lambda: list(on.pool.imap(functools.partial(_unpacked, function), calls)))


for _title, (_function, _calls) in TOGETHER.items():
    backends.program(_title, functools.partial(in_each_way, _function, _calls))


def twice(x):
    pair = x, -x
    return pair, pair, (pair,)


def results(on):
    "parts of a result are one object"
    yield [(one is two, one is three[0]) for one, two, three in on.ex.map(twice, range(9))]


if __name__ == "__main__":
    sys.setrecursionlimit(1_000)
    backends.run(globals())
