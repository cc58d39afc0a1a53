"""Programs that change what a global, a class and a function hold: between two tasks, in tasks, or in another thread
while it is sent; and that define functions and classes again."""

import array
import collections
import contextlib
import ctypes
import dataclasses
import functools
import importlib
import os
import pathlib
import random
import sys
import tempfile
import threading
import types

import backends
import numpy

CASES = min(backends.CASES, 40)
SEED = os.environ.get("ARENITE_SEED", "")
STEPS = 4


@dataclasses.dataclass
class Data:
    held: object
    number: int = 0


class Slots:
    __slots__ = ("held", "number")

    def __init__(self, held):
        self.held, self.number = held, 0


class Plain:
    def __init__(self, held):
        self.held, self.number = held, 0

    def get(self):
        return self.held


class State(Plain):
    def __getstate__(self):
        return {"held": self.held, "number": self.number}


class Reduced:
    number = 0

    def __init__(self, held):
        self.held = held

    def __reduce__(self):
        return Reduced, (self.held,), {"number": self.number}


class OfList(list):
    number = 0


Named = collections.namedtuple("Named", "held number")


def closure(held):
    def get():
        return held

    return get


def with_attribute(held):
    def get():
        return get.held

    get.held = held
    return get


def leaf(rng):
    made = [
        lambda: [1],
        lambda: {"a": 1},
        lambda: {1, 2},
        lambda: collections.deque([1]),
        lambda: bytearray(b"ab"),
        lambda: array.array("i", [1, 2]),
        lambda: collections.Counter("ab"),
        lambda: (ctypes.c_int * 3)(1, 2, 3),
        lambda: numpy.arange(rng.choice([4, 5_000, 100_000])),
        lambda: numpy.arange(6).reshape(2, 3).T,
        lambda: numpy.array([1, "a", None], object),
    ]
    return rng.choice(made)()


#: What contains one object.
AROUND = [
    lambda held: [held],
    lambda held: (held, 1),
    lambda held: {"held": held},
    lambda held: collections.OrderedDict(held=held),
    lambda held: collections.defaultdict(list, held=held),
    lambda held: collections.deque([held]),
    lambda held: collections.ChainMap({"held": held}),
    lambda held: types.MappingProxyType({"held": held}),
    lambda held: types.SimpleNamespace(held=held, number=0),
    lambda held: Named(held, 0),
    lambda held: OfList([held]),
    lambda held: Plain(held).get,
    lambda held: functools.partial(Plain.get, Plain(held)),
    lambda held: type("Local", (), {"held": held, "number": 0}),
    *(Data, Slots, Plain, State, Reduced, closure, with_attribute),
]
LEAVES = numpy.ndarray, set, bytearray, array.array, ctypes.Array
MAPPINGS = dict, collections.ChainMap, types.MappingProxyType


def content(value):
    """The object that a value contains; None for a leaf."""
    if isinstance(value, MAPPINGS):
        return value.get("held")
    if isinstance(value, (list, tuple, collections.deque)):
        return value[0] if value and not isinstance(value[0], int) else None
    return getattr(value, "held", None) if hasattr(value, "held") else value() if callable(value) else None


def look(value):
    if isinstance(value, LEAVES):
        if isinstance(value, numpy.ndarray):
            return value.shape, value.tolist() if value.size < 10 else int(value.sum())
        return sorted(value)
    held = content(value)
    inner = "leaf" if held is None else look(held)
    if isinstance(value, MAPPINGS):
        return sorted((name, one) for name, one in value.items() if isinstance(one, int)), inner
    if isinstance(value, (list, tuple, collections.deque)):
        return [one for one in value if isinstance(one, int)], getattr(value, "number", None), inner
    return getattr(value, "number", None), inner


def change(value, rng):
    held = content(value)
    if held is not None and rng.randrange(3):
        change(held, rng)
    elif isinstance(value, numpy.ndarray):
        value[rng.randrange(len(value))] = rng.randrange(1000)
    elif isinstance(value, set):
        value.add(rng.randrange(1000))
    elif isinstance(value, LEAVES):
        value[0] = rng.randrange(100)
    elif isinstance(value, (dict, collections.ChainMap)):
        value["number"] = rng.randrange(1000)
    elif isinstance(value, OfList) and rng.randrange(2):
        value.number = rng.randrange(1000)
    elif isinstance(value, (list, collections.deque)):
        value.append(rng.randrange(1000))
    elif hasattr(value, "number") and not isinstance(value, tuple):
        value.number = rng.randrange(1000)
    else:
        change(held, rng)


PROGRAM = """
class Class{0}:
    held = None

    def look(self):
        return look(Class{0}.held)

class Child{0}(Class{0}):
    pass

def global_of{0}():
    return look(held{0})

def class_of{0}():
    return Child{0}().look()

def function_of{0}():
    return look(function_of{0}.held)

def change_global_of{0}(seed):
    change(held{0}, random.Random(seed))
    return look(held{0})

def change_class_of{0}(seed):
    change(Class{0}.held, random.Random(seed))
    return look(Child{0}.held)

def change_function_of{0}(seed):
    change(function_of{0}.held, random.Random(seed))
    return look(held{0})
"""


def value_of(rng):
    value = leaf(rng)
    for _ in range(rng.randrange(4)):
        value = rng.choice(AROUND)(value)
    return value


def define(case):
    """Creates the globals of a program. Returns each of its tasks with the object that changes."""
    rng = random.Random(f"{SEED} {case}")
    space = globals()
    exec(PROGRAM.format(case), space)
    held = space[f"held{case}"] = value_of(rng)
    of_class = space[f"Class{case}"].held = value_of(rng)
    of_function = space[f"function_of{case}"].held = value_of(rng)
    return {f"global_of{case}": held, f"class_of{case}": of_class, f"function_of{case}": of_function}


# ---- what a task reaches and does not need

HIDDEN = """
class Hides{0}:
    held = None

def inner{0}(x, held=None):
    return look({1}) if x < 0 else x

def outer{0}(x):
    return inner{0}(x)
"""
PLACES = ["hidden{0}", "Hides{0}.held", "inner{0}.held", "held"]


def hide(name, place, value):
    """Creates a task that uses a value only if its argument is negative."""
    space = globals()
    exec(HIDDEN.format(name, PLACES[place].format(name)), space)
    space[f"hidden{name}"] = value if place == 0 else None
    space[f"Hides{name}"].held = value if place == 1 else None
    space[f"inner{name}"].held = value if place == 2 else None
    space[f"inner{name}"].__defaults__ = (value if place == 3 else None,)
    return space[f"outer{name}"]


def in_spoilt(case, submit):
    """What can be sent no more, and then again."""
    held = [1]
    task = hide(case, case % len(PLACES), AROUND[case // len(PLACES)](held))
    yield backends.outcome(lambda: submit(task, 1))
    with open(os.devnull) as file:
        held.append(file)
        yield backends.outcome(lambda: submit(task, 2))
        held.pop()
    held.append(3)
    yield backends.outcome(lambda: submit(task, 3))
    if PLACES[case % len(PLACES)] != "held":
        # What a default contains is sent once.
        yield backends.outcome(lambda: submit(task, -1))


class Grows:
    """Lets another thread change a container when it is pickled itself."""

    def __init__(self, change, times):
        self.change, self.left = change, times

    def __reduce__(self):
        if self.left:
            self.left -= 1
            thread = threading.Thread(target=self.change, args=(self.left,))
            thread.start()
            thread.join()
        return Plain, (0,)


#: How an object gets into a container.
GROWING = {
    "dict": (dict, dict.__setitem__),
    "ordered dict": (collections.OrderedDict, dict.__setitem__),
    "counter": (collections.Counter, dict.__setitem__),
    "object": (lambda: Plain(0), lambda held, key, one: setattr(held, f"_{key}", one)),
    "set": (set, lambda held, _, one: held.add(one)),
    "deque": (collections.deque, lambda held, _, one: held.append(one)),
}
TIMES = 3


def in_raced(name, submit):
    """What another thread changes while it is sent: at first, and again."""
    make, put = GROWING[name]
    for place in range(len(PLACES)):
        held = make()
        task = hide(f"{place}{name.replace(' ', '')}", place, held)
        for step in range(2):
            more = functools.partial(lambda step, n: put(held, f"{step}, {n}", n), step)
            put(held, f"grows{step}", Grows(more, TIMES))
            yield backends.outcome(lambda: submit(task, step))


def in_thread(submit):
    """A thread that changes something all the time."""
    held = {number: Plain(number) for number in range(100)}
    task, ends = hide("thread", 0, held), threading.Event()

    def change():
        while not ends.wait(0.0001):
            held.pop(1000, None) or held.setdefault(1000, Plain(0))

    thread = threading.Thread(target=change)
    thread.start()
    yield [backends.outcome(lambda: submit(task, x)) for x in range(10)]
    ends.set()
    thread.join()


# ---- what is defined again

VERSION = """
def helper(x):
    return x, {0}

class Tools:
    @staticmethod
    def clean(x):
        return x, {0}

    @classmethod
    def count(cls, x):
        return x, {0}

    def method(self, x):
        return x, {0}

    class Inner:
        @staticmethod
        def clean(x):
            return x, {0}

        def __init__(self, x):
            self.x = x, {0}

        def __repr__(self):
            return f"Inner{{self.x}}"
"""


def named(helper, tools):
    return {
        "function": helper,
        "static method": tools.clean,
        "class method": tools.count,
        "method": tools().method,
        "method of a class": functools.partial(tools.method, None),
        "inner static method": tools.Inner.clean,
        "inner class": tools.Inner,
        "partial": functools.partial(tools.clean),
    }


def closures(helper, tools):
    clean, both = tools.clean, (helper, tools.Inner.clean)
    return {
        "function": lambda x: helper(x),
        "class": lambda x: tools.Inner.clean(x),
        "static method": lambda x: clean(x),
        "tuple": lambda x: [one(x) for one in both],
        "default": lambda x, one=clean: one(x),
        "closure": (lambda one: lambda x: one(x))(lambda x: helper(x)),
    }


#: Programs by name, each with what it calls and the pool that takes it.
AGAIN = {
    f"again: {home}, {calls.__name__}": (home, calls, other)
    for home in ("main", "file")
    for calls, other in ((named, "fork"), (closures, "loky"))
}


def defined(home, number, folder, name):
    """The globals of a module after this version was defined in it."""
    if home == "main":
        exec(VERSION.format(number), globals())
        return globals()
    path = pathlib.Path(folder, f"{name}.py")
    # Of different lengths: a file may be written twice within the resolution of its time.
    path.write_text(VERSION.format(number) + "\n" * number)
    importlib.invalidate_caches()
    return vars(importlib.reload(importlib.import_module(name)) if number else importlib.import_module(name))


def in_again(name, pool):
    home, calls, _ = AGAIN[name]
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        for number in range(3):
            space = defined(home, number, folder, f"defined_{calls.__name__}")
            if calls is named:
                made.clear()  # The standard library refuses what its name does not lead to any more.
            made.update((f"{one} {number}", call) for one, call in calls(space["helper"], space["Tools"]).items())
            with pool() as ex:
                yield {one: backends.outcome(ex.submit(call, number).result) for one, call in made.items()}


def names():
    for case in range(CASES):
        yield f"program: {case}", ["fork"]
        yield f"tasks: {case}", ["fork"]
    for case in range(len(AROUND) * len(PLACES)):
        yield f"spoilt: {case}", ["fork"]
    for name in GROWING:
        yield f"raced: {name}", ["fork"]
    yield "raced: all the time", ["fork"]
    for name, (_, _, other) in AGAIN.items():
        yield name, [other]


def in_tasks(case, submit):
    rng = random.Random(case)
    for seed in range(2 * STEPS):
        task = f"{rng.choice(['global', 'class', 'function'])}_of{case}"
        task, arguments = (f"change_{task}", [seed]) if rng.randrange(2) else (task, [])
        yield backends.outcome(lambda: submit(globals()[task], *arguments))


def in_program(case, submit):
    for task, value in define(case).items():
        rng = random.Random(task)
        for _ in range(STEPS):
            yield backends.outcome(lambda: submit(globals()[task]))
            change(value, rng)


def programs(which):
    wanted = [name for name, others in backends.drawn(names()) if which == "arenite" or which in others]

    with backends.executor(which) as ex:

        def pool():
            # A pool begins with what the program has now.
            return contextlib.nullcontext(ex) if which == "arenite" else backends.executor(which)

        def submit(task, *arguments):
            with pool() as ex:
                return ex.submit(task, *arguments).result()

        for name in wanted:
            kind, _, case = name.partition(": ")
            if kind == "program":
                yield name, list(in_program(int(case), submit))
            elif kind == "spoilt":
                yield name, list(in_spoilt(int(case), submit))
            elif kind == "raced":
                yield name, list(in_thread(submit) if case == "all the time" else in_raced(case, submit))
            elif kind == "again":
                yield name, list(in_again(name, pool))
    cases = [int(name.removeprefix("tasks: ")) for name in wanted if name.startswith("tasks")]
    for case in cases:
        define(case)
    with backends.executor(which) as ex:
        for case in cases:
            yield f"tasks: {case}", list(in_tasks(case, lambda task, *seed: ex.submit(task, *seed).result()))


if __name__ == "__main__":
    backends.main(programs)
