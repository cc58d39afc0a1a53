"""Programs: a task uses a global of each kind that programs have, mostly from the standard library."""

import abc
import argparse
import array
import collections
import configparser
import contextlib
import ctypes
import dataclasses
import datetime
import decimal
import difflib
import enum
import functools
import graphlib
import inspect
import io
import ipaddress
import itertools
import json
import logging
import operator
import pathlib
import queue
import random
import re
import string
import struct
import sys
import textwrap
import threading
import types
import typing
import uuid
import weakref
import zoneinfo

import backends

with contextlib.suppress(ImportError):
    import numpy

# ---- classes


class ClassProperty(property):
    def __get__(self, instance, owner=None):
        return self.fget(owner)


class Tagged(classmethod):
    tag = "tag"


class Noted(staticmethod):
    # From Python 3.15 on, `staticmethod.__new__` takes the function alone.
    def __new__(cls, function, note=None):
        return super().__new__(cls, function)

    def __init__(self, function, note=None):
        super().__init__(function)
        self.note = note


class Cached(functools.cached_property):
    pass


class Lazy:
    def __init__(self, function):
        self.function = function

    def __set_name__(self, owner, name):
        self.name = name
        owner.seen = (*getattr(owner, "seen", ()), name)

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        made = instance.__dict__[self.name] = self.function(instance)
        return made


class Slotted:
    # A slot has the name of an attribute of classes.
    __slots__ = ("__doc__", "__name__", "function")

    def __init__(self, function):
        self.function, self.__doc__, self.__name__ = function, function.__doc__, function.__name__

    def __get__(self, instance, owner=None):
        return self.function(owner)


class Methods:
    @ClassProperty
    def name(cls):
        return cls.__name__

    @Tagged
    def tagged(cls):
        return cls.__name__

    @Cached
    def cached(self):
        return [1]

    @Lazy
    def lazy(self):
        return 4

    @Slotted
    def slotted(cls):
        """Of the class."""
        return cls.__name__

    noted = Noted(len, note="note")
    partial = functools.partialmethod(lambda self, x, y: (x, y), 1)

    @functools.singledispatchmethod
    def kind(self, x):
        return "object"

    @kind.register
    def _(self, x: int):
        return "int"


def plugin(x):
    return sorted(vars(plugin)), plugin.registry, plugin.register([], x), plugin.globals


#: Attributes whose names mean something to arenite or to `functools`.
ATTRIBUTES = {"cells": 3, "imports": ["absent"], "globals": {"a": 1}, "register": list.append, "registry": {"k": 1}}
vars(plugin).update(ATTRIBUTES, dispatch=None, __wrapped__=len)


@functools.singledispatch
def dispatching(x):
    return "object"


dispatching.register(int, lambda x: "int")
vars(dispatching).update(cells=3, imports=["absent"], globals={"a": 1})


class OfGenerator:
    __slots__ = (name for name in ("a", "b"))

    def get(self):
        self.a = 1
        return self.a, hasattr(self, "b"), hasattr(self, "__dict__")


class Child(Methods):
    @property
    def name(self):
        return "of the instance"


class Abstract(abc.ABC):
    @abc.abstractclassmethod
    def make(cls): ...

    @abc.abstractstaticmethod
    def give(): ...

    @abc.abstractproperty
    def size(self): ...


class Concrete(Abstract):
    @classmethod
    def make(cls):
        return cls()

    @staticmethod
    def give():
        return 3

    size = property(lambda self: 8)


def refused():
    try:
        return Abstract()
    except TypeError as error:
        return str(error)


class OwnAttributes(dict):
    """A dictionary whose items are its attributes."""

    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__ = self


class OfItems(OwnAttributes):
    __setattr__ = dict.__setitem__

    def __init__(self, **items):
        dict.__init__(self, **items)
        object.__setattr__(self, "__dict__", self)


class Decorated:
    """A decorator whose objects are methods, but not of the class."""

    def __init__(self, function):
        functools.update_wrapper(self, function)

    def __get__(self, instance, owner=None):
        return types.MethodType(self, instance)

    def __call__(self, instance, number):
        return self.__wrapped__(instance, number), self.__name__


class OfObjects:
    """A descriptor that classes refuse."""

    def __get__(self, instance, owner=None):
        if instance is None:
            raise RuntimeError("only objects have it")
        return self.value

    def __set_name__(self, owner, name):
        self.value = name


class Decorates:
    value = OfObjects()

    @Decorated
    def method(self, number):
        return number, type(self).__name__


class Span(tuple):
    """Its `__new__` does not take what pickle gives it."""

    def __new__(cls, start, end):
        return super().__new__(cls, (start, end))

    length = property(lambda self: self[1] - self[0])


class Area(collections.namedtuple("Area", "width height size")):
    def __new__(cls, width, height):
        return super().__new__(cls, width, height, width * height)


class Metres(float):
    def __new__(cls, text):
        made = super().__new__(cls, text.removesuffix(" m"))
        made.text = text
        return made


class Record(dict):
    def __new__(cls, key, *values):
        made = super().__new__(cls)
        made.key = key
        return made

    def __init__(self, key, *values):
        super().__init__(enumerate(values))


class Talking(logging.Logger):
    def __init__(self, name, level=logging.NOTSET):
        super().__init__(name, level)
        self.said = ["hello"]

    def talk(self):
        return self.name, self.isEnabledFor(logging.INFO), self.said


class Lower(dict):
    """Counts how often an item is set."""

    count = 0

    def __setitem__(self, key, value):
        super().__setitem__(key.lower(), value)
        self.count += 1


class Twice(list):
    def append(self, value):
        super().append(value * 2)

    def extend(self, values):
        for value in values:
            self.append(value)


class Forest(collections.defaultdict):
    def __init__(self):
        super().__init__(Forest)


class Named(set):
    def __init__(self, name, *values):
        super().__init__(values)
        self.name = name


class Latest(collections.deque):
    def __init__(self, *values):
        super().__init__(values, maxlen=3)


class Recent(collections.OrderedDict):
    """Contains the two items that were set last."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > 2:
            self.popitem(last=False)


class Letters(collections.Counter):
    def __init__(self, text, *, factor):
        super().__init__(text)
        self.factor = factor


class Refused(Exception):
    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


class NoFile(OSError):
    def __init__(self, path):
        super().__init__(2, "no file", path)
        self.path = path


class Day(datetime.datetime):
    def __new__(cls, text):
        return super().__new__(cls, *map(int, text.split("-")))


class Hours(datetime.timedelta):
    def __new__(cls, text):
        return super().__new__(cls, hours=int(text))


class Price(decimal.Decimal):
    def __new__(cls, text, *, currency):
        made = super().__new__(cls, text)
        made.currency = currency
        return made


class Group(frozenset):
    def __new__(cls, *members):
        return super().__new__(cls, members)


class Buffer(bytearray):
    def __init__(self, size, tag):
        super().__init__(size)
        self.tag = tag


class Dice(random.Random):
    def __init__(self, name):
        self.name = name
        super().__init__(7)


class Place(types.SimpleNamespace):
    def __init__(self, both):
        super().__init__(x=both, y=both)


LOWER, TWICE, FOREST, RECENT = Lower(), Twice(), Forest(), Recent()
LOWER["A"] = 1
LOWER.own = LOWER
TWICE.append(1)
list.append(TWICE, TWICE)
FOREST["a"]["b"]["c"] = 3
RECENT[1] = RECENT[2] = RECENT[3] = [1]


class Homeless:
    pass


Homeless.__module__ = None


@dataclasses.dataclass
class Node:
    key: int
    kids: "list[Node]" = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True, frozen=True, kw_only=True)
class Position:
    x: int
    y: int = 3


class Options(typing.TypedDict, total=False):
    level: int


@typing.runtime_checkable
class Runs(typing.Protocol):
    def run(self) -> int: ...


class Runner:
    def run(self):
        return 5


class Letter(enum.StrEnum):
    A = enum.auto()
    B = enum.auto()


class Money(decimal.Decimal):
    currency = "EUR"


class Moment(datetime.datetime):
    pass


class Fault(Exception):
    def __init__(self, text, *, code):
        super().__init__(text)
        self.code = code

    def __reduce__(self):
        return functools.partial(Fault, code=self.code), self.args


class Detailed(Fault):
    pass


def fail():
    raise Detailed("text", code=4)


logging.setLoggerClass(Talking)
TALKING = logging.getLogger("talking.one")
logging.setLoggerClass(logging.Logger)
TALKING.setLevel(logging.INFO)
MONEY, MOMENT = Money("1.5"), Moment(2020, 1, 2)
MONEY.currency = MOMENT.zone = "USD"
MATH, C = ctypes.CDLL("libm.so.6"), ctypes.CDLL(None, use_errno=True)
MATH.cos.argtypes, MATH.cos.restype = [ctypes.c_double], ctypes.c_double
Made = enum.Enum("Made", "A B")
Fields = collections.namedtuple("Fields", "a b", defaults=[2])
T = typing.TypeVar("T")
Number = typing.NewType("Number", int)


# ---- the programs

#: By name: the value of the global `own`, and what the task does.
PROGRAMS = {
    "methods": (Methods, "own.name, own.tagged(), own.noted([1]), own().partial(2)"),
    "values of methods": (Methods, "own().cached, own().lazy, own.seen"),
    "parts of methods": (Methods, "vars(own)['noted'].note, vars(own)['tagged'].tag, vars(own)['slotted'].__doc__"),
    "kinds of methods": (Methods, "[type(vars(own)[name]).__name__ for name in ('name', 'tagged', 'noted', 'cached')]"),
    "slots": (Methods, "own.slotted, Slotted.__slots__"),
    "dispatch": (Methods, "own().kind(3), own().kind('x')"),
    "overridden": (Child, "own().name, own.seen"),
    "abstract": (Concrete, "own.make().give(), own().size, sorted(Abstract.__abstractmethods__), refused()"),
    "without a module": (Homeless(), "type(own).__name__, type(own).__module__"),
    "dataclass": (Node(1, [Node(2)]), "own, type(own)(3), dataclasses.fields(own)[1].name"),
    "slots of a dataclass": (Position(x=1), "own, own.__slots__, dataclasses.replace(own, y=5)"),
    "typed dictionary": (Options, "own(level=1), own.__total__, own.__annotations__"),
    "protocol": (Runs, "isinstance(Runner(), own), isinstance(3, own)"),
    "letters": (Letter, "own('a') is own.A, list(own)"),
    "attribute of a decimal": (MONEY, "own + 1, own.currency, type(own).__name__"),
    "attribute of a date": (MOMENT, "own, own.zone"),
    "exception of another class": (fail, "own()"),
    "library": (MATH, "own.cos(0.0), own.cos.restype"),
    "function of a library": (MATH.cos, "own(0.0), own.argtypes"),
    "library of the program": (C, "own.getppid() > 0, own.close(-1), ctypes.get_errno()"),
    "decoder": (json.JSONDecoder(parse_float=str), "own.decode('[1, 2.5]'), own.raw_decode('{} ')"),
    "list of a type": (list[int], "own"),
    "made enumeration": (Made, "[one.name for one in own], own(1) is own.A"),
    "made tuple": (Fields, "own(1), own._field_defaults"),
    "count": (itertools.count(5), "next(own), next(own)"),
    "count by steps": (itertools.count(5.5, 2), "next(own), next(own)"),
    "next number": (itertools.count().__next__, "own()"),
    "queue": (queue.SimpleQueue(), "own.put(1), own.get()"),
    "class without a strong reference": (weakref.ref(Methods), "own() is Methods"),
    "gone": (weakref.ref(type("Gone", (), {})()), "own()"),
    "of this thread": (threading.local(), "own.value, own.__dict__"),
    "text template": (string.Template("$a"), "own.substitute(a=1)"),
    "random of the system": (random.SystemRandom(), "0 <= own.random() < 1"),
    "sequence of random numbers": (random.Random(3), "own.random()"),
    "order": (functools.cmp_to_key(lambda a, b: b - a), "sorted([1, 3, 2], key=own)"),
    "keys": (collections.OrderedDict(b=1, a=2).keys(), "list(own), type(own).__name__"),
    "values": (collections.OrderedDict(b=1, a=1).values(), "list(own), type(own).__name__"),
    "items": (collections.OrderedDict(b=1, a=2).items(), "list(own), type(own).__name__"),
    "keys of a dictionary": ({"b": 1, "a": 2}.keys(), "list(own), 'b' in own, type(own).__name__"),
    "values of a dictionary": ({"b": 1, "a": 1}.values(), "list(own), type(own).__name__"),
    "memory": (memoryview(b"abc"), "bytes(own), own.readonly, own[0]"),
    "memory to write": (memoryview(bytearray(b"abc")), "own.__setitem__(0, 9), bytes(own), own.readonly"),
    "memory of numbers": (memoryview(array.array("d", [1.5, 2])), "own[1], own.shape, own.format"),
    "table in memory": (memoryview(array.array("i", range(6))).cast("B").cast("i", (2, 3)), "own[1, 2], own.shape"),
    "proxy": (types.MappingProxyType({"a": [1]}), "own['a'], type(own).__name__"),
    "pattern": (re.compile(r"(\d+)"), "own.match('12').group(1)"),
    "arguments": (argparse.Namespace(a=1), "own"),
    "parser": (argparse.ArgumentParser(prog="p", add_help=False), "own.prog, own.parse_args([])"),
    "configuration": (configparser.ConfigParser({"a": "1"}), "own.defaults()"),
    "precision": (decimal.Context(prec=5), "own.divide(1, 3)"),
    "signature": (inspect.signature(lambda a, *, b=2: 0), "own"),
    "log": (logging.getLogger("log"), "own.name, own.level"),
    "adapter of a log": (logging.LoggerAdapter(logging.getLogger("log"), {"a": 1}), "own.extra, own.logger.name"),
    "handler of a log": (logging.StreamHandler(), "own.level, own.stream is sys.stderr"),
    "text in memory": (io.StringIO("ab\ncd"), "own.readline()"),
    "zone": (datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), "own, own.tzinfo.key"),
    "structure": (struct.Struct("<ih"), "own.size"),
    "numbers of C": ((ctypes.c_int * 3)(1, 2, 3), "list(own)"),
    "semaphore": (threading.Semaphore(2), "own.acquire(False), own.acquire(False), own.acquire(False)"),
    "barrier": (threading.Barrier(1), "own.wait()"),
    "condition": (threading.Condition(), "own.acquire(), own.release()"),
    "lock in a dictionary": ({"lock": threading.Lock()}, "own['lock'].acquire(False), own['lock'].release()"),
    "chain of mappings": (collections.ChainMap({"a": 1}, {"b": 2}), "own['b'], own"),
    "nested defaults": (collections.defaultdict(lambda: collections.defaultdict(int)), "own['a']['b']"),
    "getter": (operator.attrgetter("a.b"), "own"),
    "caller": (operator.methodcaller("upper"), "own('a')"),
    "bound": ("abc".upper, "own()"),
    "method of a type": (str.join, "own('-', 'ab')"),
    "method of a number": ((3).__add__, "own(3)"),
    "unlimited cache": (functools.cache(lambda x: [x]), "own(2) is own(2)"),
    "context": (contextlib.nullcontext(3), "own.__enter__()"),
    "network": (ipaddress.ip_network("10.0.0.0/30"), "list(own)"),
    "identifier": (uuid.UUID(int=3), "own"),
    "path": (pathlib.Path("/tmp"), "own / 'a'"),
    "wrapper": (textwrap.TextWrapper(width=5), "own.wrap('aa bb cc')"),
    "graph": (graphlib.TopologicalSorter({"a": {"b"}}), "list(own.static_order())"),
    "matcher": (difflib.SequenceMatcher(None, "abc", "abd"), "own.ratio()"),
    "alias": (list[int] | None, "own"),
    "type variable": (T, "own.__name__, own"),
    "new type": (Number, "own(3), own.__supertype__"),
    "attributes of a function": (plugin, "own(1)"),
    "attributes of a dispatching function": (dispatching, "own(1), own('a'), own.cells, own.imports, own.globals"),
    "slots from a generator": (OfGenerator, "own().get()"),
    "items as attributes": (OwnAttributes(a=1), "own.__setattr__('a', own.a + 1), dict(own), own.a, vars(own) is own"),
    "attributes as items": (OfItems(a=OfItems(b=[1])), "own.a.b.append(2), own['a']['b'], setattr(own, 'c', 3), own.c"),
    "descriptors of objects": (Decorates, "own().method(3), own().value, vars(own)['method'].__qualname__"),
    "object with such descriptors": (Decorates(), "own.method(3), own.value"),
    "dictionary of its own items": (LOWER, "own.__setitem__('B', 2), dict(own), own.count, own.own is own"),
    "list of its own items": (TWICE, "own[0], own[1] is own, own.append(2), len(own)"),
    "dictionary of itself": (FOREST, "own['a']['b']['c'], type(own['x']['y']).__name__, len(own)"),
    "set with a name": (Named("n", 1, 2), "sorted(own), own.name, own.add(3)"),
    "short queue": (Latest(1, 2, 3, 4), "own.append(5), list(own), own.maxlen"),
    "order of items": (RECENT, "[*own.items()], own.__setitem__(2, 0), [*own], own.move_to_end(3), own.popitem()"),
    "counter of letters": (Letters("aab", factor=2), "own.most_common(1), own.factor, own['z']"),
    "exception of its code": (Refused(3, reason="a"), "str(own), own.code, own.args, type(own).__mro__[1].__name__"),
    "exception of a path": (NoFile("a"), "own.errno, own.filename, own.path, type(own).__name__"),
    "date made of text": (Day("2020-1-2"), "own.isoformat(), type(own)('2021-1-1') - own"),
    "time made of text": (Hours("3"), "own.total_seconds(), type(own)('2').seconds"),
    "decimal with a currency": (Price("1.5", currency="EUR"), "own + 1, own.currency"),
    "set of arguments": (Group(1, 2), "sorted(own), len(type(own)(3))"),
    "bytes with a tag": (Buffer(2, "t"), "bytes(own), own.tag, own.append(3)"),
    "dice": (Dice("d"), "own.random(), own.randrange(6)"),
    "place": (Place(3), "own.x, own.y, type(own)(4).x"),
    "tuple made of parts": (Span(1, 4), "[*own], own.length, type(own)(2, 3).length"),
    "tuple with more fields": (Area(2, 3), "[*own], own.size, type(own)(1, 1).size"),
    "number made of text": (Metres("3.5 m"), "own + 1, own.text, type(own)('2 m') * 2"),
    "dictionary made of values": (Record("k", 1, 2), "dict(own), own.key, type(own)('q', 3).key"),
    "values made of parts": ([Span(1, 4), {"a": Area(2, 3)}], "own[0].length, own[1]['a'].size, own.append(3)"),
    "log of a class": (TALKING, "own.talk(), type(own).__name__, own is logging.getLogger(own.name), own.parent.name"),
    "log of another class": (logging.getLogger("plain"), "type(own).__name__, type(logging.getLogger('new')).__name__"),
    "text": ("arenite:removed", "own"),
}  # fmt: skip
if "numpy" in globals():
    PROGRAMS["function of arrays"] = numpy.frompyfunc(lambda a, b: a + b, 2, 1), "own([1, 2], 3), own.nin, own(2, 1)"
    PROGRAMS["reduction"] = numpy.frompyfunc(lambda a, b: a | b, 2, 1, identity=0), "own.reduce([]), own.reduce([1, 2])"
    PROGRAMS["function of numpy"] = numpy.hypot, "own(3, 4), own is numpy.hypot"
PROGRAMS["of this thread"][0].value = 3
OWN = re.compile(r"\bown\b")
TASKS = {}


def _define():
    """Gives each program a global of its own, and a task."""
    for number, (name, (value, does)) in enumerate(PROGRAMS.items()):
        globals()[f"own{number}"] = value
        exec(f"def task{number}(): return {OWN.sub(f'own{number}', does)}", globals())
        TASKS[f"kinds: {name}"] = globals()[f"task{number}"]


_define()

names, programs = backends.of_tasks(TASKS)

if __name__ == "__main__":
    backends.main(programs)
