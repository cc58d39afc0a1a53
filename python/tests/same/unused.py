"""Unusual objects that no task uses, objects that raise what their users do not expect, and modules that come and go.
On fork."""

import functools
import importlib.util
import pathlib
import sys
import tempfile
import types
from unittest import mock

import backends

TABLE, FACTOR = [1, 2], 5


def read():
    return TABLE, len(TABLE)


class Lazy:
    """As the settings of Django are before they are configured."""

    @property
    def __class__(self):
        raise RuntimeError("not configured")


class Fields:
    __slots__ = ("_fields",)

    def __getattr__(self, name):
        return {}[name]


class Closed:
    def __getattribute__(self, name):
        raise RuntimeError(name)


class WithDict:
    @property
    def __dict__(self):
        raise KeyError("no attributes")


class WithoutHash(type):
    def __eq__(cls, other):
        return cls is other


class AllEqual(type):
    __hash__ = type.__hash__

    def __eq__(cls, other):
        raise ValueError("ambiguous")


class Uncomparable:
    __hash__ = None

    def __eq__(self, other):
        raise ValueError("ambiguous")

    __bool__ = __len__ = lambda self: [][0]


class Dynamic:
    def __getattr__(self, name):
        return Dynamic()


class Unset:
    __slots__ = ("a", "b")


KINDS = {
    "an object whose class cannot be asked": Lazy,
    "an object that raises KeyError for attributes": Fields,
    "an object whose attributes all raise": Closed,
    "an object whose dictionary raises": WithDict,
    "a class without a hash": functools.partial(WithoutHash, "Made", (), {}),
    "a class that cannot be compared": functools.partial(AllEqual, "Made", (), {}),
    "an object that cannot be compared and has no truth": Uncomparable,
    "an object that has each attribute": Dynamic,
    "an object whose slots are not set": Unset,
}
PLACES = [
    lambda one: one, lambda one: [one, [1]], lambda one: ((one,), [1]), lambda one: [one] * 500,
    lambda one: types.SimpleNamespace(held=one), lambda one: lambda x=one: x, lambda one: {"one": one},
]  # fmt: skip


def is_unused(kind, on):
    module = sys.modules["elsewhere"] = types.ModuleType("elsewhere")
    for place in PLACES:
        globals()["unused"] = module.one = place(kind())
        yield on(read)
    del globals()["unused"], sys.modules["elsewhere"]


for _title, _kind in KINDS.items():
    backends.program(f"no task uses {_title}, in a global and in a module", functools.partial(is_unused, _kind))


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


def called(on):
    "objects that raise KeyError or ValueError for attributes, as what a task calls"
    for made in (Dots(n=3), Dots(n=3).add, Refuses(), Refuses().add, functools.partial(Refuses(), other=2)):
        yield on(made, 4)
        for size in (1, 2):
            results = lambda made=made, size=size: on.ex.map(made, range(5), range(5), chunksize=size)  # noqa: E731
            yield backends.outcome(lambda results=results: list(results()))


class Silent:
    def __getattr__(self, name):
        raise RuntimeError(name)


def store(name, value):
    sys.modules[name] = value()
    return name in sys.modules


def stores(on):
    "a task that puts objects that are no modules among the modules"
    for name, kind in {"silent": Silent, "dots": Dots, "refuses": Refuses, "text": str, 5: Silent}.items():
        yield [on.ex.submit(store, name, kind).result() for _ in range(2)]


def make_lazy(name):
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def is_lazy(on):
    "a module that a task imports lazily stays so"
    yield [on.ex.submit(make_lazy, "colorsys").result(), on.ex.submit(lambda_of_loaded).result()]


def lambda_of_loaded():
    return type(sys.modules["colorsys"]) is type(sys)


def times(x):
    return x * FACTOR


def calls_times(x):
    return times(x)


TARGET = "__main__.times"


def patches():
    "a task that patches globals of __main__"
    with mock.patch("__main__.FACTOR", 10), mock.patch.object(sys.modules["__main__"], "TABLE", 4):
        found = calls_times(2), TABLE
    with mock.patch(TARGET, lambda x: "patched"):
        return *found, calls_times(2)


SOURCE = "TABLE = {'a': 1}\ndef call(): return 'called', TABLE\n"
IMPORTED = CALLED = None


def read_table():
    return IMPORTED


def call_late():
    return CALLED()


def loaded(folder, name):
    path = pathlib.Path(folder, f"{name}.py")
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def come_and_go(on):
    "modules of the program that go, come, and take the names of others"
    global IMPORTED, CALLED
    with tempfile.TemporaryDirectory() as folder:
        CALLED = (module := loaded(folder, "late")).call
        yield on(call_late)
        sys.modules["late"] = module
        yield on(call_late), on(module.call)
        for _ in range(2):
            sys.modules["late"] = loaded(folder, "late")
            CALLED = sys.modules["late"].call
            yield on(call_late)
        sys.path.insert(0, folder)
        del sys.modules["late"]
        IMPORTED = importlib.import_module("late").TABLE
        yield on(read_table)
        # As many as before.
        del sys.modules["late"]
        sys.modules["another"] = types.ModuleType("another")
        yield on(read_table)
        sys.path.remove(folder)
        del sys.modules["another"]


if __name__ == "__main__":
    backends.run(globals())
