"""Functions and classes that travel by value: lambdas, closures, local classes. On loky."""

import functools

import backends

FACTOR = 3


def plus(x):
    return x + FACTOR


def closure(x):
    return lambda y: x + y + FACTOR


def counter():
    count = 0

    def inner(y):
        nonlocal count
        count += 1
        return count

    return inner


def recording():
    seen = []

    def inner(y):
        seen.append(y)
        return list(seen)

    return inner


def own_attribute():
    def inner(y):
        inner.calls = getattr(inner, "calls", 0) + 1
        return inner.calls

    return inner


def many_attributes():
    def call(x):
        return sorted(vars(call)), call.registry, x

    vars(call).update(cells=3, imports=["absent"], globals={"a": 1}, registry={"k": 1}, register=True)
    return call


def recursive():
    def inner(y):
        return 1 if y < 2 else y * inner(y - 1)

    return inner


def counts_elsewhere():
    def helper(calls=0):
        return calls

    def count(function):
        function.calls = getattr(function, "calls", 0) + 1
        function.__defaults__ = (function() + 1,)
        return function.calls, function()

    return lambda x: (count(helper), x)


def own_globals():
    own = {"__name__": "no_module", "calls": 0}
    exec("def count(x):\n    global calls\n    calls += 1\n    return calls, x", own)
    return own["count"]


def local_class():
    class Local:
        made = 0

        def __init__(self, x):
            Local.made += 1
            self.x = x

        def get(self, y):
            return self.x + y, type(self) is Local

    return Local(3)


CALLS = {
    "a lambda that uses globals and functions of the main file": lambda x: plus(x) + FACTOR,
    "a closure over a number": closure(4),
    "a closure that counts": counter(),
    "a closure over a list": recording(),
    "a local function that sets an attribute of its own": own_attribute(),
    "a local function with attributes of many names": many_attributes(),
    "a local function that calls itself": recursive(),
    "a local function whose attributes and defaults another one sets": counts_elsewhere(),
    "a function whose globals are no module": own_globals(),
    "a method of a local class": local_class().get,
    "a partial of a lambda": functools.partial(lambda a, b: a - b, 10),
    "a lambda that fails": lambda x: x / 0,
}
ITEMS = [1, 2, 3, 4, 5]


def in_each_way(call, on):
    yield [[backends.outcome(on.ex.submit(call, item).result) for item in ITEMS] for _ in range(2)]
    for items, size in ((ITEMS, 1), (ITEMS * 8, 1), (ITEMS, 2)):
        yield backends.outcome(lambda items=items, size=size: list(on.ex.map(call, items, chunksize=size)))


for _title, _call in CALLS.items():
    backends.program(_title, functools.partial(in_each_way, _call))

VERSION = """
def helper(x): return x, {0}
class Tools:
    @staticmethod
    def clean(x): return x, {0}
"""


def defined_again(on):
    "closures over functions and classes that are defined again: each has what it was made with"
    made = []
    for version in range(3):
        exec(VERSION.format(version), globals())
        helper, tools = globals()["helper"], globals()["Tools"]
        clean, both = tools.clean, (helper, tools.clean)
        made += [lambda x, clean=clean: clean(x), lambda x, both=both: [one(x) for one in both]]
        made += [(lambda one: lambda x: one(x))(helper), lambda x: Tools.clean(x)]  # noqa: F821
        yield [on(call, version) for call in made]


def in_no_module(on):
    "a function of a dictionary that is no module, whose globals change"
    own = {"__name__": "nowhere", "x": 1}
    exec("def outer(): return inner(), x\ndef inner(): return x", own)
    for value in (1, 1, 2, [3]):
        own["x"] = value
        yield on(own["outer"])


if __name__ == "__main__":
    backends.run(globals())
