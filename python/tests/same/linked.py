"""Programs whose globals are objects that refer to each other: graphs, grids, chains, and classes with methods that
Python calls before unpickling has restored an object."""

import dataclasses
import sys
from collections import Counter, OrderedDict, defaultdict

import backends

#: More objects than can be pickled one inside the other.
LONG = 1_500


class Node:
    def __init__(self, name):
        self.name = name
        self.near = set()
        self.costs = {}

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return self.name == other.name

    def link(self, other):
        for one, two in ((self, other), (other, self)):
            one.near.add(two)
            one.costs[two] = len(one.costs)


class Late(Node):
    """Has a hash before it has a name."""

    name = None


@dataclasses.dataclass(unsafe_hash=True)
class Town:
    name: str = ""
    at: tuple = (0, (0, 0))
    roads: set = dataclasses.field(default_factory=set, compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Square:
    at: tuple
    near: list = dataclasses.field(default_factory=list, compare=False)


class Slotted:
    __slots__ = ("name", "peers")

    def __init__(self, name):
        self.name, self.peers = name, set()

    def __hash__(self):
        return hash(getattr(self, "name", 0))

    def __eq__(self, other):
        return self.name == other.name


class Owned(Node):
    owner = None


class Registry(dict):
    def add(self, key):
        key.owner = self
        self[key] = key.name


class Cell:
    def __init__(self, value):
        self.value, self.near, self.next = value, [], None


class Wrapper:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Bunch:
    def __init__(self, **options):
        self.options = options

    def __getattr__(self, name):
        return self.options.get(name)


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
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} is read-only")


class Counted:
    sets = Counter()

    def __init__(self, value):
        self.value = value

    def __setattr__(self, name, value):
        Counted.sets[name] += 1
        object.__setattr__(self, name, value)


def graph(kind, names="abcd"):
    nodes = {name: kind(name) for name in names}
    for one, two in zip(names, names[1:] + names[:1], strict=True):
        nodes[one].link(nodes[two])
    return nodes


def grid(make, size):
    cells = {(x, y): make(x, y) for x in range(size) for y in range(size)}
    for (x, y), cell in cells.items():
        cell.near.extend(cells[at] for at in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)) if at in cells)
    return cells


def chain(make, length):
    first = last = make(0)
    for number in range(1, length):
        last.next = make(number)
        last = last.next
    return first


def nested(kind, length):
    value = kind()
    for number in range(length):
        value = kind((number, value))
    return value


NODES, LATE = graph(Node), graph(Late)
TOWNS = {name: Town(name, (len(name), (1, 2))) for name in ("rome", "pisa", "bari")}
for town in TOWNS.values():
    town.roads.update(TOWNS.values())
SQUARES = grid(lambda x, y: Square((x, y)), 3)
ON_SQUARES = {square: square.at for square in SQUARES.values()}
LEFT, RIGHT = Slotted("left"), Slotted("right")
LEFT.peers, RIGHT.peers = {RIGHT, LEFT}, {LEFT, RIGHT}
REGISTRY, PLAIN, ORDERED, LISTS, COUNTS = Registry(), {}, OrderedDict(), defaultdict(list), Counter()
for name in "abc":
    REGISTRY.add(Owned(name))
    for container, value in ((PLAIN, 1), (ORDERED, 2), (LISTS, [3]), (COUNTS, 4)):
        key = Owned(name)
        key.owner, container[key] = container, value
LOOP = Owned("loop")
LOOP.owner = frozenset([LOOP])
CELLS = grid(lambda x, y: Cell((x, y)), 40)
CHAIN = chain(Cell, LONG)
LONG_GRAPH = graph(Node, [f"node {number}" for number in range(LONG)])
UNUSED = nested(tuple, LONG), nested(list, LONG)
WRAPPER, BUNCH, PATH, FIXED, COUNTED = Wrapper([1, 2]), Bunch(size=4), Path("api"), Fixed(1, [2]), Counted(5)
SETTINGS = Settings()


def names_near(nodes):
    return {name: sorted(one.name for one in node.near) for name, node in nodes.items()}


def nodes(_):
    return names_near(NODES), [NODES["b"] in node.near for node in NODES.values()], NODES["a"].costs[Node("b")]


def late(_):
    return names_near(LATE), [LATE["b"] in node.near for node in LATE.values()], LATE["a"].costs.get(LATE["b"])


def order(_):
    return list(vars(NODES["a"])), list(vars(TOWNS["rome"])), list(vars(COUNTED))


def towns(_):
    met = [[TOWNS[two] in TOWNS[one].roads for two in sorted(TOWNS)] for one in sorted(TOWNS)]
    return met, len(TOWNS["rome"].roads - {TOWNS["pisa"]}), repr(TOWNS["bari"])


def squares(_):
    return [sum(ON_SQUARES[near][0] for near in square.near) for square in SQUARES.values()]


def slotted(_):
    return LEFT in RIGHT.peers, RIGHT in LEFT.peers, len(LEFT.peers)


def containers(_):
    found = [[key in one for key in list(one)] for one in (REGISTRY, PLAIN, ORDERED, LISTS, COUNTS)]
    key = next(iter(PLAIN))
    return found, key.owner is PLAIN, PLAIN[Owned("b")], COUNTS[Owned("c")], LOOP in LOOP.owner


def cells(add):
    CELLS[0, 0].near.append(add)
    return sum(len(CELLS[3, y].near) for y in range(40)), CELLS[0, 0].near[2:], CELLS[0, 1].near[1] is CELLS[0, 0]


def along(add):
    one, total = CHAIN, 0
    while one is not None:
        total, one = total + one.value, one.next
    CHAIN.next.near.append(add)
    return total, CHAIN.next.near


def long_graph(_):
    seen, left = set(), [LONG_GRAPH["node 7"]]
    while left:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            left += one.near
    return len(seen)


def wrapped(_):
    return WRAPPER.count(1), WRAPPER.inner, BUNCH.size, BUNCH.other, PATH.users.first.parts


def settings(_):
    return SETTINGS.size, Settings() is SETTINGS, SETTINGS.values


def fixed(_):
    return FIXED.x, FIXED.y, COUNTED.value, sorted(Counted.sets.items())


TASKS = [nodes, late, order, towns, squares, slotted, containers, cells, along, long_graph, wrapped, fixed, settings]


def names():
    for task in TASKS:
        yield f"linked: {task.__name__}", ["fork", "spawn"]


def programs(which):
    for task in TASKS:
        with backends.executor(which) as ex:
            calls = [backends.outcome(ex.submit(task, number).result) for number in range(3)]
        yield f"linked: {task.__name__}", calls


if __name__ == "__main__":
    sys.setrecursionlimit(1_000)
    backends.main(programs)
