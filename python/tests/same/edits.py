"""Programs that change a definition, or what it holds, between two tasks: each change is a program of its own."""

import collections
import contextlib
import functools
import importlib
import pathlib
import sys
import tempfile
import threading
import types
import weakref

import backends
import numpy

space = globals()


def run(*codes):
    """The texts of one global state after the other."""
    return [functools.partial(exec, code, space) for code in codes]


def cells(code):
    """Versions of a cell of a notebook, which is edited and runs again."""
    return run(code.replace("VERSION", "1"), code.replace("VERSION", "2"))


# ---- what is defined again together with objects that hold it

CLASS = "class Conf:\n    def rate(self, x=0): return VERSION\n"
STEP = "def step(x=0): return x + VERSION\n"
HOLDERS = {
    "instance": (CLASS + "held = Conf()", "held.rate(), type(held) is Conf"),
    "method": (CLASS + "held = Conf().rate", "held()"),
    "class in a list": (CLASS + "held = [Conf]", "held[0]().rate(), held[0] is Conf"),
    "enumeration": (
        "import enum\nclass Color(enum.Enum):\n    RED = 1\n    def rate(self): return VERSION\nheld = Color.RED",
        "held is Color.RED, held.rate()",
    ),
    "named tuple": (
        "class Pair(collections.namedtuple('Pair', 'a b')):\n    def rate(self): return VERSION\nheld = [Pair(1, 2)]",
        "held[0].rate(), type(held[0]) is Pair",
    ),
    "list": (STEP + "held = [step]", "held[0](), held[0] is step"),
    "tuple": (STEP + "held = step, 1", "held[0]()"),
    "dict": (STEP + "held = {'step': step, 'more': [step]}", "held['step'](), held['more'][0]()"),
    "set": (STEP + "held = {step}", "[one() for one in held]"),
    "key": (CLASS + "held = {Conf: 1}", "Conf in held"),
    "objects": (CLASS + "held = {'a': [Conf(), Conf()]}", "held['a'][0].rate(), type(held['a'][1]) is Conf"),
    "objects that remain": (
        CLASS + "if VERSION == 1: remaining = [Conf()]",
        "remaining[0].rate(), type(remaining[0]) is Conf",
    ),
    "partial": (STEP + "held = functools.partial(step, 5)", "held()"),
    "object": (STEP + "held = types.SimpleNamespace(step=step)", "held.step()"),
    "attribute of a class": (STEP + "class Kept:\n    steps = [step]\n", "Kept.steps[0]()"),
    "attribute of the same class": (STEP + "Keeps.steps = [step]", "Keeps.steps[0]()"),
    "attribute of a function": (STEP + "keeps.steps = [step]", "keeps.steps[0]()"),
    "default": (STEP + "keeps.__defaults__ = ([step],)", "keeps()[0]()"),
    "closure": (STEP + "held = (lambda steps: lambda: steps[0]())([step])", "held()"),
    "cached": (
        "@functools.lru_cache\ndef step(x=0): return x + VERSION\nheld = [step]",
        "held[0](), held[0] is step",
    ),
}


class Keeps:
    pass


def keeps(steps=None):
    return steps


# ---- what is changed

Plain = type("Plain", (), {"__module__": __name__})


class First:
    number = 1


class Second:
    number = 2


class Child(First):
    pass


class Row:
    def __init__(self, number):
        self.number, self.more = number, [number]


class OtherRow(Row):
    pass


def flat(held):
    """The rows in containers."""
    if isinstance(held, Row):
        return [held]
    return [row for one in (held.values() if isinstance(held, dict) else held) for row in flat(one)]


rows, by_name = [Row(1), (Row(2), {"a": Row(3)})], {}


class Marked:
    __registry__ = {}
    _list_ = []
    _set_ = set()
    _deque_ = collections.deque()
    _object_ = Plain()


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
        self.function, self.scale = function, 1

    def __call__(self, x):
        return self.function(x) * self.scale

    def __get__(self, obj, kind):
        return functools.partial(self, obj)


@Scaled
def scaled(x):
    return x


def moded(function):
    """A decorator with a state in its closure."""
    mode, calls = "a", []

    @functools.wraps(function)
    def inner():
        return mode, calls

    def change(to):
        nonlocal mode
        mode = to
        calls.append(to)

    states[function.__name__] = change
    return inner


states = {}


@moded
def decorated():
    pass


def positional(x=1):
    return type(x).__name__, repr(x)


def keyword(*, x=1):
    return type(x).__name__, repr(x)


def described() -> int:
    "one"
    return described.__name__, described.__qualname__, described.__doc__, described.__annotations__


class Described:
    "one"
    number: int


class Equal(type):
    """A metaclass of classes that are equal and have no hash."""

    def __eq__(self, other):
        return isinstance(other, Equal)


class One(metaclass=Equal):
    number = 1


class Two(metaclass=Equal):
    number = 2


class Three(metaclass=Equal):
    def __hash__(self):
        return 1


class Local(threading.local):
    def __init__(self, number, *, text="a"):
        self.number, self.text = number, text


local = Local(5, text="b")

BARE = {"__name__": __name__, "x": 1, "max": max}
exec("def bare(): return x, max(1, 2), inner()\ndef inner(): return x", BARE)
bare = BARE["bare"]


class Thing:
    made = weakref.WeakSet()
    named = weakref.WeakValueDictionary()

    def __init__(self, name):
        self.name = name
        Thing.made.add(self)
        Thing.named[name] = self

    def get(self):
        return self.name


things = [Thing("a"), Thing("b")]
thing = Thing("c")
reference, to_item, dead = weakref.ref(thing), weakref.ref(things[0]), weakref.ref(Thing("d"))
to_method = weakref.WeakMethod(things[1].get)
huge = 10**5000
failure = None


def failed(message):
    try:
        try:
            raise KeyError(message)
        except KeyError as error:
            raise ValueError(message) from error
    except ValueError as error:
        error.add_note(message)
        return error.with_traceback(None)


def changes(name, *values):
    return [functools.partial(setattr, sys.modules[__name__], name, value) for value in values]


def sets(owner, name, *values):
    return [functools.partial(setattr, owner, name, value) for value in values]


def rename(owner, before, after):
    delattr(owner, before)
    setattr(owner, after, SAME)


SAME = ["same"]
array = numpy.arange(3)
NUMBERS = [1, True, 1.0, -0.0, 0.0, (1,), (True,), "1", b"1", range(2), frozenset([1]), frozenset([True])]

#: Programs by name: what changes, and what a task returns each time.
EDITS = {
    **{f"again: {name}": (cells(code), look) for name, (code, look) in HOLDERS.items()},
    "names: attribute of a class": (
        [lambda: setattr(Plain, "a", SAME), lambda: rename(Plain, "a", "b")],
        "sorted(name for name in vars(Plain) if name[0] != '_')",
    ),
    "names: attribute of a function": (
        [lambda: setattr(positional, "a", SAME), lambda: rename(positional, "a", "b")],
        "sorted(vars(positional))",
    ),
    "defaults: equal": (sets(positional, "__defaults__", *[(one,) for one in NUMBERS]), "positional()"),
    "defaults: array": (sets(positional, "__defaults__", (array,), (array + 1,)), "positional()"),
    "defaults: keywords": (sets(keyword, "__kwdefaults__", *[{"x": one} for one in NUMBERS]), "keyword()"),
    "defaults: keywords in place": (
        [lambda: None, lambda: keyword.__kwdefaults__.update(x=3), lambda: keyword.__kwdefaults__.update(x=3.0)],
        "keyword()",
    ),
    "objects: in a list": (
        [
            lambda: None,
            # Without a reference to the objects, which this table would share with the global.
            *[lambda one=one: setattr(rows[0], "number", one) for one in (1.0, True, 1)],
            lambda: rows[1][0].more.append(3),
            lambda: rows[1][1].update(b=rows[0]),
            lambda: rows[1][1]["b"].__dict__.update(text="a"),
            lambda: setattr(rows[1][1]["a"], "a", SAME),
            lambda: rename(rows[1][1]["a"], "a", "b"),
            lambda: setattr(rows[0], "__dict__", {"number": 7, "more": []}),
            lambda: setattr(rows[0], "__class__", OtherRow),
            lambda: setattr(OtherRow, "number", 5),
            lambda: vars(rows[0]).pop("number"),
            lambda: rows.append(rows[0]),
            lambda: rows.__setitem__(2, Row(7)),
            lambda: rows.reverse(),
        ],
        "[(type(row).__name__, vars(row), row is found[0]) for found in [flat(rows)] for row in found]",
    ),
    "objects: in a dictionary": (
        [
            lambda: by_name.update(a=Row(1)),
            lambda: by_name.update(b=by_name["a"], c=[by_name["a"]]),
            lambda: by_name["a"].more.append(by_name["a"]),
            lambda: setattr(by_name["b"], "number", by_name),
            lambda: by_name.update(b=Row(1)),
        ],
        "[sorted(by_name), by_name['a'] is by_name.get('b'), len(by_name['a'].more), by_name['a'].number is by_name]",
    ),
    "underscores": (
        [
            lambda: None,
            lambda: Marked.__registry__.update(a=1),
            lambda: Marked.__registry__.update(b=First),
            lambda: Marked._list_.append(1),
            lambda: Marked._set_.add(1),
            lambda: Marked._deque_.append(1),
            *sets(Marked._object_, "held", 1, [2]),
        ],
        "Marked.__registry__, Marked._list_, Marked._set_, list(Marked._deque_), vars(Marked._object_)",
    ),
    "state: closure": ([lambda: None, lambda: states["decorated"]("b")], "decorated()"),
    "state: decorator": (sets(scaled, "scale", 1, 2), "scaled(10)"),
    "state: descriptor": (sets(vars(Model)["field"], "default", 1, [2]), "Model.field, Model().field"),
    "attributes: function": (
        [
            *sets(described, "__doc__", "one", "two", None),
            *sets(described, "__annotations__", {"return": int}, {}),
            *sets(described, "__name__", "described", "other"),
        ],
        "described()",
    ),
    "attributes: class": (
        [
            *sets(Described, "__doc__", "one", "two"),
            *sets(Described, "__name__", "Described", "Other"),
            *sets(Described, "__annotations__", {"number": int}, {"number": str}),
            lambda: Described.__annotations__.update(text=str),
        ],
        "Described.__doc__, Described.__name__, Described.__annotations__",
    ),
    "attributes: bases": (sets(Child, "__bases__", (First,), (Second,)), "Child.number, Child.__mro__"),
    "hidden: from the first task": ([*changes("max", lambda *_: "mine"), lambda: space.pop("max")], "max(1, 2)"),
    "hidden: later": ([lambda: None, *changes("min", lambda *_: "mine"), lambda: space.pop("min")], "min(1, 2)"),
    "hidden: in no module": (
        [lambda: None, lambda: BARE.update(max=lambda *_: "mine"), lambda: BARE.pop("max")],
        "bare()",
    ),
    "any global: new": (
        [lambda: None, *changes("any_new", 1), lambda: space.pop("any_new")],
        "[name for name in globals() if name.startswith('any_')]",
    ),
    "any global: evaluated": (
        [*changes("shown", "1"), lambda: space.update(shown="any_other", any_other=2)],
        "eval(shown)",
    ),
    "any global: in a text": (
        [lambda: None, *changes("text_new", 1, 2), lambda: space.pop("text_new")],
        "backends.global_of('@text_new')",
    ),
    "any global: subclass": (
        run("class Root: pass", "class Leaf(Root): pass"),
        "[one.__name__ for one in Root.__subclasses__()]",
    ),
    "no module: global": ([lambda: None, lambda: BARE.update(x=2), lambda: BARE.update(x=[3])], "bare()"),
    "weak: references": (
        [lambda: None, lambda: setattr(things[0], "name", "z")],
        "to_item().name, to_method()(), dead()",
    ),
    "weak: reference to a global": (
        [lambda: None, *sets(thing, "name", "y")],
        "reference() is thing, reference().name",
    ),
    "weak: reference alone": ([lambda: None], "reference() is not None"),
    "weak: containers": ([lambda: None, lambda: things.append(Thing("e"))], "len(Thing.made), sorted(Thing.named)"),
    "numbers: huge": (changes("huge", 10**5000, 3**20000, 3**20000), "huge.bit_length()"),
    "numbers: equal": (changes("number", *NUMBERS), "type(number).__name__, repr(number)"),
    "exception": (
        changes("failure", failed("a"), failed("b"), ValueError("c")),
        "repr(failure), repr(failure.__cause__), repr(failure.__context__), failure.__suppress_context__",
    ),
    "equal classes": ([lambda: None, *sets(Two, "number", 3)], "One.number, Two.number, One().number, Two().number"),
    "thread": ([lambda: None], "local.number, local.text"),
    "nameless": ([*changes("", 1)], "space[''] if '' in globals() else 1"),
}
number = 0

for _name, (_, _look) in EDITS.items():
    _task = f"task_{list(EDITS).index(_name)}"
    exec(f"def {_task}(): return {_look}", space)


def task_of(name):
    return space[f"task_{list(EDITS).index(name)}"]


def in_edit(name, submit):
    for change in EDITS[name][0]:
        change()
        yield backends.outcome(lambda: submit(task_of(name)))


MODULE = "def step(x): return x + {0}\nclass Kind:\n    def rate(self): return {0}\n"


def uses_module():
    return [step(10) for step in loaded[0]], loaded[1].rate()


loaded = None


def in_reloaded(submit):
    """Objects of a module that is loaded again."""
    global loaded
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        for number in range(3):
            # Of different lengths: a file may be written twice within the resolution of its time.
            pathlib.Path(folder, "loaded_again.py").write_text(MODULE.format(number) + "\n" * number)
            importlib.invalidate_caches()
            module = importlib.import_module("loaded_again")
            if number:
                importlib.reload(module)
            loaded = [module.step], module.Kind()
            yield backends.outcome(lambda: submit(uses_module))
        sys.path.remove(folder)


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


raced = None


def uses_raced():
    return raced.__name__


def in_race(submit):
    """What another thread sets while a global is sent arrives with the next task."""
    for _ in range(3):
        changes("raced", type("Racing", (), {"__module__": __name__, "held": Sets()}))[0]()
        submit(uses_raced)
        yield submit(uses_raced) == raced.__name__


def in_no_module(submit):
    """Functions of a dictionary that is no module, such as a test of `doctest`."""
    own = {"__name__": "nowhere", "x": 1}
    exec("def outer(): return inner(), x\ndef inner(): return x", own)
    for value in (1, 1, 2, [3]):
        own["x"] = value
        yield backends.outcome(lambda: submit(own["outer"]))


OTHERS = {"reloaded": (in_reloaded, "fork"), "race": (in_race, "fork"), "no module: function": (in_no_module, "loky")}


def names():
    for name in EDITS:
        yield name, ["fork"]
    for name, (_, other) in OTHERS.items():
        yield name, [other]


def programs(which):
    wanted = [name for name, others in backends.drawn(names()) if which == "arenite" or which in others]

    with backends.executor(which) as ex:

        def submit(task):
            # A pool begins with what the program has now.
            with contextlib.nullcontext(ex) if which == "arenite" else backends.executor(which) as pool:
                return pool.submit(task).result()

        for name in wanted:
            made = OTHERS[name][0](submit) if name in OTHERS else in_edit(name, submit)
            yield name, list(made)


if __name__ == "__main__":
    backends.main(programs)
