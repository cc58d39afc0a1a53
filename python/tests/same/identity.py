"""Programs with objects that are compared by identity, or that refer to others: they stay one object, in every global
and every task."""

import argparse
import contextvars
import copyreg
import enum
import functools
import threading
import types
import weakref

import backends
import constants
from constants import LOCAL, LOCK, MISSING, UNSET, VARIABLE

# ---- objects of a module that workers import

LOCAL.before = 1


def of_a_module():
    VARIABLE.set(5)
    LOCAL.value = 3
    with LOCK:
        seen = constants.value_of_variable(), constants.is_locked(), constants.value_of_local()
        return UNSET is constants.UNSET, *seen, LOCAL.before


class Model:
    field = constants.Field()
    other = constants.Field(7)


def in_objects():
    return Model.field.default is MISSING, Model.field.default is constants.MISSING, Model.other.default


PARSER = argparse.ArgumentParser()
PARSER.add_argument("--size", default=argparse.SUPPRESS)
commands = PARSER.add_subparsers(dest="command")
commands.add_parser("run").add_argument("file")


def parsed():
    return str(PARSER.parse_args([])), str(PARSER.parse_args(["--size", "3", "run", "x"])), PARSER.format_usage()


# ---- one object in several globals and tasks

TURN = threading.Lock()
AGAIN = threading.RLock()
CHANGED = threading.Condition(TURN)
HELD = [AGAIN]
LEVEL = contextvars.ContextVar("LEVEL", default=0)
LEVELS = [LEVEL]


def first_task():
    LEVEL.set(5)
    with TURN, AGAIN:
        return TURN.locked()


def second_task():
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
KID = Node("kid", ROOT)
SEEN = weakref.proxy(ROOT)


def proxies():
    ROOT.name = "other"
    return SEEN.name, KID.parent.name, len(KID.parent.kids), SEEN(), [kid.name for kid in ROOT.kids]


class Registry:
    _table = {"a": 1}
    table = types.MappingProxyType(_table)


def read_only_view():
    Registry._table["b"] = 2
    return dict(Registry.table), types.MappingProxyType({"c": 3})["c"], "_table" in vars(Registry)


# ---- ways to make an object


class Registered:
    def __init__(self, value):
        self.value = value

    def __new__(cls, value):
        return super().__new__(cls)


copyreg.pickle(Registered, lambda made: (Registered, (made.value,)))
REGISTERED = Registered(3)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

    def __init__(self, value):
        type(self)._value2member_map_[value.upper()] = self


@functools.cache
def cached(value):
    return value + 1


cached.hits = 1


class Slots:
    __slots__ = ("__hidden", "size")

    def hide(self):
        self.__hidden = 4
        return self.__hidden


Slots.length = Slots.size
Slots.code = types.FunctionType.__code__


class Stands:
    """Says to be of another class."""

    def __init__(self, target):
        self.target = target

    @property
    def __class__(self):
        return type(self.target)


STANDS = Stands(2.5)


def made():
    slots = Slots()
    slots.size = 7
    return REGISTERED.value, Color("RED"), Color("blue").name, cached(1), cached.hits, slots.length, slots.hide()


def stands():
    return isinstance(STANDS, float), STANDS.target, type(STANDS).__name__, hasattr(Slots.code, "__get__")


TASKS = {
    f"{group}: {task.__name__}": task
    for group, tasks in {
        "elsewhere": (of_a_module, in_objects, parsed),
        "once": (first_task, second_task, proxies, read_only_view),
        "making": (made, stands),
    }.items()
    for task in tasks
}
names, programs = backends.of_tasks(TASKS)

if __name__ == "__main__":
    backends.main(programs)
