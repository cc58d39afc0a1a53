"""Programs with a global, or an attribute of another module, that no task uses and whose class is unusual; and with
modules that come and go."""

import contextlib
import functools
import importlib.util
import pathlib
import shutil
import sys
import tempfile
import types

import backends

TABLE = [1, 2]


def read():
    return TABLE, len(TABLE)


class Lazy:
    """As the settings of Django are before they are configured."""

    @property
    def __class__(self):
        raise RuntimeError("not configured")


class Fields:
    __slots__ = ("_fields",)

    def __init__(self):
        object.__setattr__(self, "_fields", {})

    def __getattr__(self, name):
        return self._fields[name]


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
    def __eq__(cls, other):
        raise ValueError("ambiguous")

    def __hash__(cls):
        return hash(list)


class OfWithoutHash(metaclass=WithoutHash):
    pass


class OfAllEqual(metaclass=AllEqual):
    pass


class Uncomparable:
    __hash__ = None

    def __eq__(self, other):
        raise ValueError("ambiguous")

    def __bool__(self):
        raise ValueError("ambiguous")

    def __len__(self):
        raise ValueError("ambiguous")


class Dynamic:
    def __getattr__(self, name):
        return Dynamic()


class Unset:
    __slots__ = ("a", "b")


KINDS = {
    kind.__name__: kind
    for kind in (Lazy, Fields, Closed, WithDict, OfWithoutHash, OfAllEqual, Uncomparable, Dynamic, Unset)
}
#: Where the object is.
PLACES = {
    "global": lambda one: one,
    "list": lambda one: [one, [1]],
    "tuple": lambda one: ((one,), [1]),
    "long list": lambda one: [one] * 500,
    "attribute": lambda one: types.SimpleNamespace(held=one),
    "default": lambda one: lambda x=one: x,
    "value": lambda one: {"one": one},
}


@contextlib.contextmanager
def unused_global(kind, place):
    globals()["unused"] = PLACES[place](KINDS[kind]())
    yield
    del globals()["unused"]


@contextlib.contextmanager
def unused_attribute(kind, place):
    module = sys.modules["elsewhere"] = types.ModuleType("elsewhere")
    module.one = PLACES[place](KINDS[kind]())
    yield
    del sys.modules["elsewhere"]


SOURCE = "TABLE = {'a': 1}\ndef call(): return 'called', TABLE\n"


@functools.cache
def folder():
    return pathlib.Path(tempfile.mkdtemp())


def loaded(name):
    """A module with a file in a folder that is not searched for modules."""
    path = folder() / f"{name}.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_table():
    return IMPORTED


def call_late():
    return CALLED()


IMPORTED = CALLED = None


def replaced_modules(submit):
    """A module has gone and another one has come: there are as many as before."""
    global IMPORTED
    sys.path.insert(0, str(folder()))
    (folder() / "gone.py").write_text(SOURCE)
    import gone

    IMPORTED = gone.TABLE
    for _ in range(2):
        yield submit(read_table)
    del sys.modules["gone"]
    sys.modules["another"] = types.ModuleType("another")
    yield submit(read_table)
    sys.path.remove(str(folder()))
    del sys.modules["another"]


def late_module(submit):
    """A module is registered after its functions were used."""
    global CALLED
    module = loaded("late")
    CALLED = module.call
    yield submit(call_late)
    sys.modules["late"] = module
    yield submit(call_late)
    yield submit(module.call)
    del sys.modules["late"]


def new_module(submit):
    """Another module takes the name of an earlier one."""
    global CALLED
    for _ in range(2):
        sys.modules["new"] = loaded("new")
        CALLED = sys.modules["new"].call
        yield submit(call_late)
    sys.path.insert(0, str(folder()))
    del sys.modules["new"]
    import new

    CALLED = new.call
    yield submit(call_late)
    sys.path.remove(str(folder()))
    del sys.modules["new"]


MODULES = {one.__name__: one for one in (replaced_modules, late_module, new_module)}


def names():
    """The programs, by the backends that they run on besides arenite."""
    for name in MODULES:
        yield f"modules: {name}", ["fork"]
    for kind in KINDS:
        for place in PLACES:
            for where in ("unused_global", "unused_attribute"):
                yield f"{where}: {kind}, {place}", ["fork"]


def programs(which):
    def submit(task):
        with backends.executor(which) as ex:
            return backends.outcome(ex.submit(task).result)

    for name, _ in backends.drawn(names()):
        where, _, what = name.partition(": ")
        if where == "modules":
            yield name, list(MODULES[what](submit))
        else:
            with globals()[where](*what.split(", ")):
                yield name, [submit(read)]
    shutil.rmtree(folder())


if __name__ == "__main__":
    backends.main(programs)
