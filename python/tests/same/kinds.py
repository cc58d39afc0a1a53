"""Values of each kind that programs have: in globals, arguments and results. On fork and spawn."""

import abc
import argparse
import array
import asyncio
import collections
import concurrent.futures
import configparser
import contextlib
import copyreg
import ctypes
import dataclasses
import datetime
import decimal
import difflib
import enum
import fractions
import functools
import graphlib
import inspect
import io
import ipaddress
import itertools
import json
import logging
import math
import operator
import pathlib
import queue
import random
import re
import socket
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
import numpy as np
import pandas as pd

with contextlib.suppress(ImportError):
    import ml_dtypes

# ---- methods and descriptors


class ClassProperty(property):
    def __get__(self, instance, owner=None):
        return self.fget(owner)


class Noted(staticmethod):
    # From Python 3.15 on, `staticmethod.__new__` takes the function alone.
    def __new__(cls, function, note=None):
        return super().__new__(cls, function)

    def __init__(self, function, note=None):
        super().__init__(function)
        self.note = note


class Lazy:
    def __init__(self, function):
        self.function = function

    def __set_name__(self, owner, name):
        self.name, owner.seen = name, (*getattr(owner, "seen", ()), name)

    def __get__(self, instance, owner=None):
        made = instance.__dict__[self.name] = self.function(instance)
        return made


class Slotted:
    # A slot has the name of an attribute of classes.
    __slots__ = ("__doc__", "__name__", "function")

    def __init__(self, function):
        self.function, self.__doc__, self.__name__ = function, function.__doc__, function.__name__

    def __get__(self, instance, owner=None):
        return self.function(owner)


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


class Methods:
    name = ClassProperty(lambda cls: cls.__name__)
    noted = Noted(len, note="note")
    partial = functools.partialmethod(lambda self, x, y: (x, y), 1)
    cached = functools.cached_property(lambda self: [1])
    lazy = Lazy(lambda self: 4)
    slotted = Slotted(lambda cls: cls.__name__)
    value = OfObjects()

    @functools.singledispatchmethod
    def kind(self, x):
        return "object"

    @kind.register
    def _(self, x: int):
        return "int"

    @Decorated
    def decorated(self, number):
        return number, type(self).__name__


class Abstract(abc.ABC):
    @abc.abstractmethod
    def make(self): ...

    size = abc.abstractproperty()


class Concrete(Abstract):
    make, size = classmethod(lambda cls: cls()), property(lambda self: 8)


def refused():
    try:
        return Abstract()
    except TypeError as error:
        return str(error)


class OfIterator:
    __slots__ = iter(("a", "__b", "__dict__", "__weakref__"))

    def get(self):
        self.a, self.__b, self.c = 1, 2, 3
        return self.a, self.__b, self.c, weakref.ref(self)() is self, sorted(vars(self))


# ---- enumerations


class Color(enum.Enum):
    RED, GREEN = 1, "g"
    _table, _nothing = enum.nonmember({1: [2]}), enum.nonmember(None)

    def add(self, y):
        return self._table.get(self.value), self._nothing, list(Color), Color(y)


class Text(str, enum.Enum):
    A, B = "a", "b"
    C = A
    __str__ = str.__str__
    double = property(lambda self: self.value * 2)


class Coordinate(bytes, enum.Enum):
    def __new__(cls, value, label):
        made = bytes.__new__(cls, [value])
        made._value_, made.label = value, label
        return made

    PX, PY, OTHER = (0, "P.X"), (1, "P.Y"), (1, "other")


class Coded(enum.Enum):
    def __new__(cls, code, text):
        made = object.__new__(cls)
        made._value_, made.text = code, text
        return made

    def __init__(self, code, text):
        self.both = f"{code} {text}"


class Code(Coded):
    RED, BLUE = (1, "red"), (2, "blue")


class Thousands(int, enum.Enum):
    def __new__(cls, value):
        made = int.__new__(cls, value * 1000)
        made._value_ = value
        return made

    K, M = 1, 2


class Day(datetime.date, enum.Enum):
    FIRST = 2020, 1, 2


class Place(tuple, enum.Enum):
    HERE, THERE = (1, 2), (3,)


class Operation(enum.Enum):
    PLUS, MINUS = enum.member(operator.add), enum.member(lambda x: -x)


class Kept(enum.Flag, boundary=enum.KEEP):
    A = 1


class Strict(enum.IntFlag, boundary=enum.STRICT):
    A, B = 1, 2


class Conforming(enum.Flag, boundary=enum.CONFORM):
    A, B, BOTH = 1, 2, 3


class Letter(enum.StrEnum):
    A, B = enum.auto(), enum.auto()


class Upper(enum.Enum):
    RED = "red"

    def __init__(self, value):
        type(self)._value2member_map_[value.upper()] = self


# ---- classes that inherit from those of the standard library


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


class Price(decimal.Decimal):
    def __new__(cls, text, *, currency):
        made = super().__new__(cls, text)
        made.currency = currency
        return made


class Moment(datetime.datetime):
    def __new__(cls, text):
        return super().__new__(cls, *map(int, text.split("-")))


class Group(frozenset):
    def __new__(cls, *members):
        return super().__new__(cls, members)


class Record(dict):
    def __new__(cls, key, *values):
        made = super().__new__(cls)
        made.key = key
        return made

    def __init__(self, key, *values):
        super().__init__(enumerate(values))


class OwnAttributes(dict):
    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__ = self


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


class Fault(Exception):
    def __init__(self, text, *, code):
        super().__init__(text)
        self.code = code

    def __reduce__(self):
        return functools.partial(type(self), code=self.code), self.args


class Dice(random.Random):
    def __init__(self, name):
        self.name = name
        super().__init__(7)


class Talking(logging.Logger):
    def __init__(self, name, level=logging.NOTSET):
        super().__init__(name, level)
        self.said = ["hello"]


LOWER, TWICE, FOREST, RECENT = Lower(), Twice(), Forest(), Recent()
LOWER["A"] = 1
LOWER.own = LOWER
TWICE.append(1)
list.append(TWICE, TWICE)
FOREST["a"]["b"]["c"] = 3
RECENT[1] = RECENT[2] = RECENT[3] = [1]
logging.setLoggerClass(Talking)
TALKING = logging.getLogger("talking.one")
logging.setLoggerClass(logging.Logger)

# ---- classes that say how they are pickled


class Stated:
    dropped = None

    def __init__(self):
        self.kept, self.dropped = 1, threading.Lock()

    def __getstate__(self):
        return {"kept": self.kept}


class Registered:
    def __init__(self, x):
        self.x = x

    def __new__(cls, x):
        return super().__new__(cls)


copyreg.pickle(Registered, lambda made: (Registered, (made.x,)))


class Missing:
    def __reduce__(self):
        return "MISSING"


MISSING = Missing()


class Linked:
    def __init__(self):
        self.me, self.others = self, [self]


class Stands:
    """Says to be of another class."""

    def __init__(self, target):
        self.target = target

    __class__ = property(lambda self: type(self.target))


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


T = typing.TypeVar("T")
Number = typing.NewType("Number", int)


class Generic(typing.Generic[T]):
    pass


class Structure(ctypes.BigEndianStructure):
    _pack_, _fields_ = 1, (("tag", ctypes.c_uint8), ("value", ctypes.c_double))


class Either(ctypes.Union):
    _fields_ = (("number", ctypes.c_uint32), ("bytes", ctypes.c_uint8 * 4))


def plugin(x):
    return sorted(vars(plugin)), plugin.registry, plugin.register([], x), plugin.globals


# Names that mean something to arenite or to `functools`.
vars(plugin).update(cells=3, imports=["absent"], globals={"a": 1}, register=list.append, registry={}, __wrapped__=len)


@functools.singledispatch
def dispatching(x):
    return "object"


dispatching.register(int, lambda x: "int")
vars(dispatching).update(cells=3, imports=["absent"])


def failure(cause):
    error = ValueError("text")
    error.add_note("seen")
    error.__cause__ = cause
    return error


MATH, C = ctypes.CDLL("libm.so.6"), ctypes.CDLL(None, use_errno=True)
MATH.cos.argtypes, MATH.cos.restype = [ctypes.c_double], ctypes.c_double
Made = enum.Enum("Made", "A B")
Fields = collections.namedtuple("Fields", "a b", defaults=[2])
OF_THREAD = threading.local()
OF_THREAD.value = 3
TABLE = pd.DataFrame({"a": [1, 2, 3], "b": list("xyz"), "c": pd.Categorical(list("xyx"))})
ERRORS = [
    ValueError("a", 1), OSError(2, "no", "file"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), SystemExit(3),
    json.JSONDecodeError("m", "[", 1), concurrent.futures.CancelledError(), asyncio.TimeoutError("t"),
    socket.gaierror(1, "x"), StopAsyncIteration("s"), ExceptionGroup("g", [ValueError(1), KeyError(2)]),
]  # fmt: skip


def raises(own):
    raise own


backends.table(globals(), {
    "numbers, and what is one object": (
        [None, True, -7, 1 << 200, 1.5, math.nan, -0.0, 1 + 2j, ..., NotImplemented], "own",
    ),
    "a number with more digits than Python shows": (10**5000, "own.bit_length()"),
    "texts: empty, long, and one that is no UTF-8": (["grüße", "", "\udc80", "a" * 5000, "arenite:removed"], "own"),
    "bytes that can change and bytes that cannot": (
        [b"\0\xff", bytes(5000), bytearray(b"abc"), bytearray(5000)], "own",
    ),
    "containers in containers": (
        [[1, [2]], [], (1, (2,)), {"b": 1, "a": [2]}, {3, 1}, frozenset({1}), range(1, 9, 2)], "own",
    ),
    "containers of collections": (
        [collections.OrderedDict(b=1, a=2), collections.Counter("aba"), collections.deque([1, 2, 3], maxlen=2),
         collections.ChainMap({"a": 1}, {"b": 2}), collections.defaultdict(list, a=[1]), collections.UserList([1])],
        "own, own[2].append(4), own[4]['new']",
    ),
    "a dictionary of dictionaries by default": (
        collections.defaultdict(lambda: collections.defaultdict(int)), "own['a']['b']",
    ),
    "dates, times and zones": (
        [
            datetime.date(2024, 2, 29), datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
            datetime.timedelta(1, 2),
        ],
        "own",
    ),
    "decimals, fractions, addresses, paths": (
        [decimal.Decimal("1.10"), fractions.Fraction(1, 3), uuid.UUID(int=5), ipaddress.ip_network("10.0.0.0/30"),
         pathlib.PurePosixPath("/a"), decimal.Context(prec=5), slice(1, None)],
        "own",
    ),
    "exceptions of the standard library": (ERRORS, "own"),
    "a task raises an exception that it got": (Fault("text", code=4), "raises(own)"),
    "streams in memory": ([io.StringIO("ab\ncd"), io.BytesIO(b"data")], "own[0].readline(), own[1].read()"),
    "functions that are objects": (
        [operator.itemgetter(1), operator.attrgetter("a.b"), operator.methodcaller("upper"), functools.partial(max, 1)],
        "own, own[2]('a'), own[3](2)",
    ),
    "methods of builtin types and objects": (
        [str.join, "abc".upper, (3).__add__, len, int], "own[0]('-', 'ab'), own[1](), own[2](3)",
    ),
    "a pattern, a template, a wrapper, a structure": (
        [re.compile(r"(\d+)", re.I), string.Template("$a"), textwrap.TextWrapper(width=5), struct.Struct("<ih")],
        "own[0].match('12').group(1), own[1].substitute(a=1), own[2].wrap('aa bb'), own[3].size",
    ),
    "parsers of arguments, of configurations, of JSON": (
        [argparse.Namespace(a=1), argparse.ArgumentParser(prog="p"), configparser.ConfigParser({"a": "1"})],
        "own[0], own[1].parse_args([]), own[2].defaults()",
    ),
    "a decoder with a function": (json.JSONDecoder(parse_float=str), "own.decode('[1, 2.5]')"),
    "a graph, a matcher, a signature": (
        [
            graphlib.TopologicalSorter({"a": {"b"}}), difflib.SequenceMatcher(None, "abc", "abd"),
            inspect.signature(lambda a, *, b=2: 0),
        ],
        "own[1].ratio(), own[2], list(own[0].static_order())",
    ),
    "counters that go on": ([itertools.count(5), itertools.count(5.5, 2)], "[next(one) for one in own]"),
    "the method of an iterator": (itertools.count().__next__, "own()"),
    "a queue of this process": (queue.SimpleQueue(), "own.put(1), own.get()"),
    "semaphores, barriers and conditions": (
        [threading.Semaphore(2), threading.Barrier(1), threading.Condition()],
        "[own[0].acquire(False) for _ in range(3)], own[1].wait(), own[2].acquire(), own[2].release()",
    ),
    "attributes of this thread": (OF_THREAD, "own.value, own.__dict__"),
    "generators of random numbers": ([random.Random(3), np.random.default_rng(3)], "own[0].random(), own[1].random()"),
    "random numbers of the system": (random.SystemRandom(), "0 <= own.random() < 1"),
    "a read-only view of a dictionary": (types.MappingProxyType({"a": [1]}), "own['a'], type(own).__name__"),
    "loggers, adapters and handlers": (
        [logging.getLogger("log"), logging.LoggerAdapter(logging.getLogger("log"), {"a": 1})],
        "own[0] is logging.getLogger('log'), own[1].extra, own[1].logger.name",
    ),
    "a handler that writes to the error output": (logging.StreamHandler(), "own.level, own.stream is sys.stderr"),
    "a library of C": (MATH, "own.cos(0.0), own.cos.restype"),
    "the library of the program, with errno": (C, "own.getppid() > 0, own.close(-1), ctypes.get_errno()"),
    "numbers, structures and unions of C": (
        [(ctypes.c_int * 3)(1, 2, 3), Structure(1, 2.5), Either(258)],
        "own[0][:], own[1].value, bytes(own[1]), own[2].bytes[:]",
    ),
    "a context manager": (contextlib.nullcontext(3), "own.__enter__()"),
    "a cache without a limit": (functools.cache(lambda x: [x]), "own(2) is own(2)"),
    "names of types": ([list[int], list[int] | None, Number], "own[:2], own[2](3), own[2].__supertype__"),
    "a variable of types, and a class of it": (
        [T, Generic[int]], "own[0].__name__, own[0] is Generic.__parameters__[0], own[1]",
    ),
    "methods of many kinds": (Methods, "own.name, own.noted([1]), own().partial(2), own().kind(3), own().kind('x')"),
    "methods that keep what they give": (Methods, "own().cached, own().lazy, own.seen, own.slotted"),
    "attributes of methods": (
        Methods, "vars(own)['noted'].note, sorted(type(one).__name__ for one in vars(own).values() if callable(one))",
    ),
    "a method of a class that is no method": (Methods(), "own.decorated(3), own.value"),
    "an abstract class and its child": (Concrete, "own.make().size, sorted(Abstract.__abstractmethods__), refused()"),
    "a class without a module": (Homeless(), "type(own).__name__, type(own).__module__"),
    "a dataclass that refers to itself": (Node(1, [Node(2)]), "own, type(own)(3), dataclasses.fields(own)[1].name"),
    "a frozen dataclass with slots": (Position(x=1), "own, own.__slots__, dataclasses.replace(own, y=5)"),
    "a typed dictionary": (Options, "own(level=1), own.__total__, own.__annotations__"),
    "a protocol": (Runs, "isinstance(3, own), own.__name__"),
    "an enumeration with attributes that are no members": (Color.RED, "own.add('g'), own is Color.RED, Color['GREEN']"),
    "an enumeration of texts with an alias": (Text, "str(own.B), f'{own.A}', own.A.double, own.C, own('a'), list(own)"),
    "an enumeration of bytes with labels": (Coordinate, "bytes(own.PY), own.PY.label, own(1), own['OTHER'], list(own)"),
    "an enumeration that inherits __new__": (Code.RED, "own.text, own.both, Code(2), own"),
    "an enumeration of numbers with other values": (Thousands, "int(own.M), own.M.value, own(2), own['K']"),
    "an enumeration of dates": (Day, "own.FIRST.year, own.FIRST.value, own(datetime.date(2020, 1, 2))"),
    "an enumeration of tuples": (Place, "own.THERE[0], own.HERE.value, own((3,))"),
    "an enumeration of functions": (Operation, "own.MINUS.value(3), own.PLUS.value(3, 1)"),
    "flags that keep bits": (Kept, "own(5).value, ~own.A, own.A in own(3)"),
    "flags that are strict": (Strict, "own(3), [own(9)]"),
    "flags that conform": (Conforming, "own(9), own.BOTH, own.A | own.B"),
    "an enumeration with values by itself": (Letter, "own('a') is own.A, list(own)"),
    "an enumeration that is made by a call": (Made, "[one.name for one in own], own(1) is own.A"),
    "a named tuple with a default": (Fields, "own(1), own._field_defaults"),
    "a tuple that is made of parts": (
        [Span(1, 4), {"a": Area(2, 3)}], "own[0].length, own[1]['a'].size, Span(2, 3).length",
    ),
    "a number that is made of text": (Metres("3.5 m"), "own + 1, own.text, type(own)('2 m') * 2"),
    "a dictionary that is made of values": (Record("k", 1, 2), "dict(own), own.key, type(own)('q', 3).key"),
    "a dictionary that counts and contains itself": (
        LOWER, "own.__setitem__('B', 2), dict(own), own.count, own.own is own",
    ),
    "a queue of a fixed length": (Latest(1, 2, 3, 4), "own.append(5), list(own), own.maxlen"),
    "a dictionary that moves its items": (RECENT, "[*own.items()], own.__setitem__(2, 0), [*own], own.popitem()"),
    "an object with a state of its own": (Stated(), "own.kept"),
    "an object that a global's name restores": (MISSING, "own is MISSING"),
    "an object that contains itself": (Linked(), "own.me is own, own.others[0] is own"),
    "an object that says to be of another class": (
        Stands(2.5), "isinstance(own, float), own.target, type(own).__name__",
    ),
    "a function with attributes of many names": (plugin, "own(1)"),
    "a function that dispatches, with attributes": (dispatching, "own(1), own('a'), own.cells, own.imports"),
    "small arrays": ([np.zeros(3), np.ones(3, bool), np.array(["a", "bcd"]), np.array(5.0), np.zeros((0, 3))], "own"),
    "arrays of dates, records and objects": (
        [np.array(["2024-01-01"], "M8[D]"), np.zeros(2, [("a", "i4"), ("b", "f8")]), np.array([1, "a", None], object)],
        "own",
    ),
    "an array in the order of columns": (
        np.arange(2000.0).reshape(2, -1, order="F"), "own, own.flags.f_contiguous, own.sum()",
    ),
    "an array read backwards": (np.arange(20_000)[::-1], "own[:3], own.sum()"),
    "one array twice in a list": ([np.zeros(3)] * 2, "own[0].fill(7), own[1]"),
    "scalars and types of numpy": ([np.float32(1.5), np.dtype([("a", "i4")])], "own"),
    "a function of numpy": (np.hypot, "own(3, 4), own is np.hypot"),
    "functions of numpy in a list and a dictionary": ([np.hypot, {"sin": np.sin}], "own[0](3, 4), own[1]['sin'](0.0)"),
    "a masked array": (np.ma.array([1, 2], mask=[0, 1]), "own, own.sum()"),
    "frames, series and categories": ([TABLE, TABLE["a"], TABLE.index, TABLE["c"]], "own"),
    "frames with zones, and with missing values": (
        [
            pd.DataFrame({"d": pd.date_range("2024", periods=3, tz="UTC")}),
            pd.DataFrame({"n": pd.array([1, None], "Int64")}),
        ],
        "own",
    ),
    "a frame that a task changes": (TABLE.copy(), "own.__setitem__('new', 1), own"),
})  # fmt: skip


if "ml_dtypes" in globals():
    names = "bfloat16", "float8_e4m3fnuz", "float8_e5m2", "int4", "uint2"
    kinds = [np.dtype(getattr(ml_dtypes, name)) for name in names]
    made = [np.arange(20).astype(kind) for kind in kinds], [np.ones(6000, kind) for kind in kinds]
    made += ([np.zeros(3, [("a", kinds[0]), ("b", "i4")])],)
    backends.table(globals(), {"arrays of types that another library adds": (made, "own")})

if __name__ == "__main__":
    backends.run(globals())
