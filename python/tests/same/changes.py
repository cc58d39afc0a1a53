"""Changes of what a global, a class or a function holds, and new definitions, between two tasks. On fork."""

import array
import collections
import ctypes
import dataclasses
import functools
import importlib
import os
import pathlib
import sys
import tempfile
import threading
import types
import weakref

import backends
import numpy

space = globals()


def sets(owner, name, *values):
    return [functools.partial(setattr, owner, name, value) for value in values]


def changes(name, *values):
    return sets(sys.modules[__name__], name, *values)


def runs(*codes):
    return [functools.partial(exec, code, space) for code in codes]


def cells(code):
    # Versions of a cell of a notebook, which is edited and runs again.
    return runs(code.replace("VERSION", "1"), code.replace("VERSION", "2"))


def nothing():
    pass


class Row:
    def __init__(self, number):
        self.number, self.more = number, [number]


def flat(held):
    # The rows in containers.
    if isinstance(held, Row):
        return [held]
    return [row for one in (held.values() if isinstance(held, dict) else held) for row in flat(one)]


class OtherRow(Row):
    pass


@dataclasses.dataclass
class Data:
    held: object


class Slots:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


class State(Data):
    def __getstate__(self):
        return {"held": self.held}


class OfList(list):
    number = 0


class First:
    number = 1


class Second:
    number = 2


class Child(First):
    pass


class Plain:
    pass


class Marked:
    __registry__ = {}
    _list_, _set_, _deque_, _object_ = [], set(), collections.deque(), Plain()


class Field:
    def __init__(self):
        self.default = 1

    def __get__(self, obj, kind):
        return self.default


class Model:
    field = Field()


class Scaled:
    """A decorator whose objects have a state."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.scale = 1

    def __call__(self, x):
        return self.__wrapped__(x) * self.scale


scaled = Scaled(lambda x: x)


def moded(function):
    # A decorator with a state in its closure.
    mode, calls = "a", []

    def change(to):
        nonlocal mode
        mode = to
        calls.append(to)

    states.append(change)
    return lambda: (mode, calls)


states = []
decorated = moded(None)


def positional(x=1):
    return type(x).__name__, repr(x)


def keyword(*, x=1):
    return type(x).__name__, repr(x)


def described() -> int:
    return described.__name__, described.__qualname__, described.__doc__, described.__annotations__


class Equal(type):
    """A metaclass of classes that are equal and have no hash."""

    def __eq__(self, other):
        return isinstance(other, Equal)


One, Two = (Equal(name, (), {"number": name, "__module__": __name__}) for name in ("One", "Two"))
BARE = {"__name__": __name__, "x": 1, "max": max}
exec("def bare(): return x, max(1, 2), inner()\ndef inner(): return x", BARE)
bare = BARE["bare"]


class Thing:
    made, named = weakref.WeakSet(), weakref.WeakValueDictionary()

    def __init__(self, name):
        self.name = name
        Thing.made.add(self)
        Thing.named[name] = self

    def get(self):
        return self.name


things, thing = [Thing("a"), Thing("b")], Thing("c")
to_global, to_item, dead = weakref.ref(thing), weakref.ref(things[0]), weakref.ref(Thing("d"))
to_method = weakref.WeakMethod(things[1].get)


def failed(message):
    try:
        try:
            raise KeyError(message)
        except KeyError as error:
            raise ValueError(message) from error
    except ValueError as error:
        error.add_note(message)
        return error.with_traceback(None)


class Keeps:
    pass


def keeps(steps=None):
    return steps


rows, by_name = [Row(1), (Row(2), {"a": Row(3)})], {}
number, huge, failure, text_new = 0, 10**5000, None, None
NUMBERS = [1, True, 1.0, -0.0, 0.0, (1,), (True,), "1", b"1", range(2), frozenset([1]), frozenset([True])]
SAME = ["same"]
CLASS = "class Conf:\n    def rate(self, x=0): return VERSION\n"
STEP = "def step(x=0): return x + VERSION\n"
ENUM = "import enum\nclass Color(enum.Enum):\n    RED = 1\n    def rate(self): return VERSION\nheld = Color.RED"
PAIR = "class Pair(collections.namedtuple('P', 'a')):\n    def rate(self): return VERSION\nheld = [Pair(1)]"
CACHED = "@functools.lru_cache\ndef step(x=0): return x + VERSION\nheld = [step]"
DATA = array.array("i", [1]), bytearray(b"ab"), (ctypes.c_int * 2)(1), numpy.zeros(4), numpy.zeros(40_000)
CONTAINERS = collections.deque([1]), collections.OrderedDict(a=1), collections.ChainMap({}), collections.Counter()
HOLDING = Data([1]), Slots([1]), State([1]), types.SimpleNamespace(held=[1])
HOLDING += OfList([1]), types.MappingProxyType({"a": [1]})
CALLED = Data([1]).__eq__, functools.partial(max, [1]), (lambda held: lambda: held)([1])
BYTES, INTS = bytearray(b"abcdef"), array.array("i", range(6))
VIEWS = memoryview(BYTES), memoryview(BYTES)[2:5], memoryview(INTS)[1:3]


def write_to_views():
    for at, view in enumerate(VIEWS):
        view[0] = 90 + at
    BYTES[3], INTS[2] = 48, 7
    return bytes(BYTES), INTS.tolist(), [view.tolist() for view in VIEWS]


backends.steps(space, {
    # Objects that hold what is defined again.
    "an instance, and its class is defined again": (cells(CLASS + "held = Conf()"), "held.rate(), type(held) is Conf"),
    "a bound method, and its class is defined again": (cells(CLASS + "held = Conf().rate"), "held()"),
    "a class in a list and as a key, defined again": (
        cells(CLASS + "held = [Conf, {Conf: 1}]"), "held[0]().rate(), Conf in held[1]",
    ),
    "an enumeration that is defined again": (cells(ENUM), "held is Color.RED, held.rate()"),
    "a named tuple whose class is defined again": (cells(PAIR), "held[0].rate(), type(held[0]) is Pair"),
    "functions in containers, defined again": (
        cells(STEP + "held = [step, (step,), {'a': step}, {step}]"),
        "held[0](), held[1][0](), held[2]['a'](), step in held[3]",
    ),
    "objects in a dictionary, whose class is defined again": (
        cells(CLASS + "held = {'a': [Conf(), Conf()]}"), "held['a'][0].rate(), type(held['a'][1]) is Conf",
    ),
    "an object that remains while its class is defined again": (
        cells(CLASS + "if VERSION == 1: remaining = [Conf()]"), "remaining[0].rate(), type(remaining[0]) is Conf",
    ),
    "a partial and a namespace of what is defined again": (
        cells(STEP + "held = functools.partial(step, 5), types.SimpleNamespace(step=step)"),
        "held[0](), held[1].step()",
    ),
    "attributes of classes that hold what is defined again": (
        cells(STEP + "class Kept:\n    steps = [step]\nKeeps.steps = [step]"), "Kept.steps[0](), Keeps.steps[0]()",
    ),
    "an attribute of a function that holds what is defined again": (
        cells(STEP + "keeps.steps = [step]"), "keeps.steps[0]()",
    ),
    "a default that holds what is defined again": (cells(STEP + "keeps.__defaults__ = ([step],)"), "keeps()[0]()"),
    "a closure that holds what is defined again": (
        cells(STEP + "held = (lambda steps: lambda: steps[0]())([step])"), "held()",
    ),
    "a cached function that is defined again": (cells(CACHED), "held[0](), held[0] is step"),
    # Attributes, defaults and names.
    "an attribute of a class under another name": (
        [*sets(Plain, "a", SAME), lambda: (delattr(Plain, "a"), setattr(Plain, "b", SAME))],
        "sorted(one for one in vars(Plain) if one[0] != '_')",
    ),
    "an attribute of a function under another name": (
        [*sets(positional, "a", SAME), lambda: (delattr(positional, "a"), setattr(positional, "b", SAME))],
        "sorted(vars(positional))",
    ),
    "defaults that are equal and of other types": (
        sets(positional, "__defaults__", *[(one,) for one in NUMBERS]), "positional()",
    ),
    "an array as a default": (
        sets(positional, "__defaults__", (numpy.arange(3),), (numpy.arange(1, 4),)), "positional()",
    ),
    "defaults of keywords that are equal and of other types": (
        sets(keyword, "__kwdefaults__", *[{"x": one} for one in NUMBERS]), "keyword()",
    ),
    "defaults of keywords that change in place": (
        [nothing, lambda: keyword.__kwdefaults__.update(x=3), lambda: keyword.__kwdefaults__.update(x=3.0)],
        "keyword()",
    ),
    "a global that becomes equal values of other types": (
        changes("number", *NUMBERS), "type(number).__name__, repr(number)",
    ),
    "a huge number that becomes another": (changes("huge", 10**5000, 3**20000, 3**20000), "huge.bit_length()"),
    "attributes with underscores that are data": (
        [
            nothing, lambda: Marked.__registry__.update(b=First), lambda: Marked._list_.append(1),
            lambda: Marked._set_.add(1,
        ),
         lambda: Marked._deque_.append(1), *sets(Marked._object_, "held", 1, [2])],
        "Marked.__registry__, Marked._list_, Marked._set_, list(Marked._deque_), vars(Marked._object_)",
    ),
    "a state in the closure of a decorator": ([nothing, lambda: states[0]("b")], "decorated()"),
    "a state in the object of a decorator": (sets(scaled, "scale", 1, 2), "scaled(10)"),
    "a state in a descriptor": (sets(vars(Model)["field"], "default", 1, [2]), "Model.field, Model().field"),
    "what describes a function": (
        [
            *sets(described, "__doc__", "two", None), *sets(described, "__annotations__", {}),
            *sets(described, "__name__", "other"),
        ],
        "described()",
    ),
    "the annotations of a class": (
        [
            *sets(Child, "__annotations__", {"number": int}), lambda: Child.__annotations__.update(text=str),
        ],
        "Child.__annotations__",
    ),
    "the bases of a class": (sets(Child, "__bases__", (First,), (Second,)), "Child.number, Child.__mro__[1].__name__"),
    "classes that are equal and have no hash": (
        [nothing, *sets(Two, "number", 3)], "One.number, Two.number, Two().number",
    ),
    "a new subclass": (
        runs("class Root: pass", "class Leaf(Root): pass"), "[one.__name__ for one in Root.__subclasses__()]",
    ),
    "a builtin function that a global hides and shows again": (
        [nothing, *changes("max", lambda *_: "mine"), lambda: space.pop("max")], "max(1, 2)",
    ),
    "a builtin function that a dictionary which is no module hides": (
        [nothing, lambda: BARE.update(max=lambda *_: "mine", x=[3]), lambda: BARE.pop("max")], "bare()",
    ),
    # Objects.
    "objects in a list that change in each way": (
        [
            nothing, *[lambda one=one: setattr(rows[0], "number", one) for one in (1.0, True, 1)],
            lambda: rows[1][0].more.append(3,
        ),
         lambda: rows[1][1].update(b=rows[0]), lambda: setattr(rows[0], "__dict__", {"number": 7, "more": []}),
         lambda: setattr(rows[0], "__class__", OtherRow), lambda: setattr(OtherRow, "number", 5),
         lambda: vars(rows[0]).pop("number"),
         lambda: rows.append(rows[0]), lambda: rows.__setitem__(2, Row(7)), lambda: rows.reverse()],
        "[(type(row).__name__, vars(row), row is rows[0]) for row in flat(rows)]",
    ),
    "objects in a dictionary that come to be one": (
        [
            lambda: by_name.update(a=Row(1)), lambda: by_name.update(b=by_name["a"]),
            lambda: by_name["a"].more.append(by_name["a"],
        ),
         lambda: setattr(by_name["b"], "number", by_name), lambda: by_name.update(b=Row(1))],
        "sorted(by_name), by_name['a'] is by_name.get('b'), len(by_name['a'].more), by_name['a'].number is by_name",
    ),
    "arrays, bytes and numbers of C that change": (
        [nothing, *(lambda at=at: DATA[at].__setitem__(0, 7) for at in range(5))], "[one[0] for one in DATA]",
    ),
    "containers of collections that change": (
        [nothing, lambda: CONTAINERS[0].append(2), *(lambda at=at: CONTAINERS[at].update(b=2) for at in (1, 2, 3))],
        "[*map(list, CONTAINERS)]",
    ),
    "objects of each form whose list changes": (
        [
            nothing, *(lambda at=at: HOLDING[at].held.append(2) for at in range(4)), *sets(HOLDING[4], "number", 3),
            lambda: HOLDING[5]["a"].append(2),
        ],
        "[getattr(one, 'held', one) for one in HOLDING[:4]], HOLDING[4].number, HOLDING[5]['a']",
    ),
    "a method, a partial and a closure whose list changes": (
        [
            nothing, lambda: CALLED[0].__self__.held.append(2), lambda: CALLED[1].args[0].append(2),
            lambda: CALLED[2]().append(2),
        ],
        "CALLED[0].__self__, CALLED[1].args, CALLED[2]()",
    ),
    "weak sets and weak dictionaries": (
        [nothing, lambda: things.append(Thing("e"))], "len(Thing.made), sorted(Thing.named), things[-1].name",
    ),
})  # fmt: skip

# ---- what globals have in common

A = B = C = None


def common():
    return [innermost(one) for one in (A, B, C)], B is A, inner(B) is inner(A), inner(C) is A, inner(C) is inner(B)


def inner(value):
    if isinstance(value, (Data, Slots, types.SimpleNamespace)):
        return value.held
    return next(iter(value.values())) if isinstance(value, dict) else value[0] if value else None


def innermost(value):
    while value is not None and not isinstance(value, list) or value and not isinstance(value[0], int):
        value = inner(value)
    return value


AROUND = {
    "lists": lambda held: [held],
    "dictionaries": lambda held: {"held": held},
    "ordered dictionaries": lambda held: collections.OrderedDict(held=held),
    "objects": Data,
    "objects with slots": Slots,
    "namespaces": lambda held: types.SimpleNamespace(held=held),
    "lists of a class": lambda held: OfList([held]),
    "objects in lists": lambda held: [Data(held)],
}


def put(value, held):
    if isinstance(value, dict):
        value["held"] = held
    elif isinstance(value, list):
        value[0] = held
    else:
        value.held = held


def joined(one, on):
    global A, B, C
    shared, two = [1], AROUND["lists"]
    A, B, C = one(shared), two(shared), one(two([1]))
    yield on(common)
    put(B, [1])
    yield on(common)
    put(B, shared)
    put(C, B)
    yield on(common)
    A, B = one([1]), one(shared)
    yield on(common)
    A = B
    yield on(common)
    # Another one at the address of one that has gone.
    A, B, C, others = one(shared), one([1]), None, []
    place, B = id(B), None
    for _ in range(20_000):
        others.append(one(shared))
        if id(others[-1]) == place:
            break
    B = others.pop()
    yield on(common)


for _name, _make in AROUND.items():
    backends.program(f"globals that come to share a list, and no longer: {_name}", functools.partial(joined, _make))


class Kind:
    held = other = None


def attributes():
    return attributes.held is attributes.other, Kind.held is A, Kind.held is Kind.other


def joined_attributes(on):
    "attributes of a class and a function that come to be one object"
    global A
    A = [1]
    attributes.held, attributes.other = ([2],) * 2
    Kind.held = Kind.other = A
    yield on(attributes)
    attributes.other, Kind.other = [2], [1]
    yield on(attributes)
    Kind.held, Kind.other = A, attributes.held
    yield on(attributes)
    A = Kind.held = attributes.held
    yield on(attributes)


LEVELS = 12
DEEP, TABLES, CYCLE = [1], {"end": [0]}, [[1]]
for _ in range(LEVELS):
    DEEP, TABLES = [DEEP] * 10, {key: TABLES for key in "abcdefghij"}
CYCLE.append(CYCLE)


def parts():
    value, table = DEEP, TABLES
    for _ in range(LEVELS):
        value, table = value[3], table["c"]
    return value, table, DEEP[0] is DEEP[9], CYCLE[1] is CYCLE, CYCLE[0]


def shares_parts(on):
    "containers with a billion paths to one list, and one that contains itself"
    yield on(parts)
    value, table = DEEP, TABLES
    for _ in range(LEVELS):
        value, table = value[0], table["d"]
    for one in (value, table["end"], CYCLE[0]):
        one.append(2)
        yield on(parts)


# ---- what a task reaches and does not need

hidden = None


class Hides:
    held = None


def reaches(x, held=None):
    return (hidden, Hides.held, reaches.held, held) if x < 0 else x


def outer(x):
    return reaches(x)


reaches.held = None
PLACES = {
    "global": lambda value: space.update(hidden=value),
    "class": lambda value: setattr(Hides, "held", value),
    "function": lambda value: setattr(reaches, "held", value),
    "default": lambda value: setattr(reaches, "__defaults__", (value,)),
}


def is_spoilt(on):
    "what cannot be sent for a while, where a task reaches it and does not need it"
    for place, hold in PLACES.items():
        held = [1]
        hold(Data(held))
        yield on(outer, 1)
        with open(os.devnull) as file:
            held.append(file)
            yield on(outer, 2)
            held.pop()
        held.append(3)
        yield on(outer, 3)
        if place != "default":
            yield on(outer, -1)
        hold(None)


class Grows:
    """Lets another thread change a container when it is pickled itself."""

    def __init__(self, change):
        self.change, self.left = change, 3

    def __reduce__(self):
        if self.left:
            self.left -= 1
            thread = threading.Thread(target=self.change, args=(self.left,))
            thread.start()
            thread.join()
        return Row, (0,)


def grows(on):
    "containers that another thread changes while they are sent"
    made = [{}, collections.OrderedDict(), collections.Counter(), Plain(), set(), collections.deque()]
    for held in made:
        for hold in PLACES.values():
            hold(held)
            for step in range(2):
                more = functools.partial(add_to, held, step)
                more(Grows(more))
                yield on(outer, step)
            hold(None)


def add_to(held, step, one):
    if isinstance(held, dict):
        held[len(held)] = one
    elif isinstance(held, Plain):
        setattr(held, f"_{len(vars(held))}", one)
    else:
        (held.add if isinstance(held, set) else held.append)(one)


def changes_all_the_time(on):
    "a dictionary that another thread changes all the time"
    held, ends = {one: Row(one) for one in range(100)}, threading.Event()
    space["hidden"] = held

    def change():
        while not ends.wait(0.0001):
            held.pop(1000, None) or held.setdefault(1000, Row(0))

    thread = threading.Thread(target=change)
    thread.start()
    yield [on(outer, x) for x in range(10)]
    ends.set()
    thread.join()
    space["hidden"] = None


class Sets:
    """An attribute whose first pickle lets another thread set a global."""

    is_done = False

    def __reduce__(self):
        if not self.is_done:
            self.is_done = True
            thread = threading.Thread(target=changes("raced", Second)[0])
            thread.start()
            thread.join()
        return Sets, ()


def uses_raced():
    return raced.__name__


def is_raced(on):
    "a global that another thread sets while it is sent arrives with the next task"
    for _ in range(3):
        space["raced"] = type("Racing", (), {"__module__": __name__, "held": Sets()})
        on(uses_raced)
        yield on(uses_raced) == backends.show(raced.__name__)


# ---- modules of the program that are loaded again

VERSION = """
def helper(x): return x, {0}
class Tools:
    clean = staticmethod(lambda x: (x, {0}))
    @classmethod
    def count(cls, x): return x, {0}
    def method(self, x=0): return x, {0}
    class Inner:
        def __init__(self, x): self.x = x, {0}
        def __repr__(self): return f"Inner{{self.x}}"
"""


def uses_module():
    return loaded[0][0](1), loaded[1].method(), type(loaded[1]).clean(2)


def reloaded(on):
    "a module of the program that is changed and loaded again, with objects of it"
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        for version in range(3):
            # Of different lengths: a file may be written twice within the resolution of its time.
            pathlib.Path(folder, "loaded_again.py").write_text(VERSION.format(version) + "\n" * version)
            importlib.invalidate_caches()
            module = importlib.import_module("loaded_again")
            tools = (importlib.reload(module) if version else module).Tools
            space["loaded"] = [module.helper], tools()
            for task in (module.helper, tools.count, tools().method, tools.Inner):
                yield on(task, 1)
            yield on(uses_module)
        sys.path.remove(folder)


def defined_again(on):
    "functions and classes of the main file that are defined again"
    for version in range(3):
        exec(VERSION.format(version), space)
        tools = space["Tools"]
        for task in (space["helper"], tools.count, tools().method, tools.Inner, functools.partial(tools.method, None)):
            yield on(task, 1)


if __name__ == "__main__":
    backends.run(space)
