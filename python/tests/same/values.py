"""Programs: what is passed and returned × what a task does with it × how it is called × which use."""

import array
import asyncio
import collections
import concurrent.futures
import copy
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import itertools
import json
import logging
import math
import operator
import pathlib
import random
import re
import socket
import struct
import sys
import threading
import traceback
import types
import uuid

import backends
import numpy as np
import pandas as pd

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None

# ---- what the program defines


class Plain:
    shared = [0]

    def __init__(self, *items):
        self.items = list(items)

    def __eq__(self, other):
        return type(other) is Plain and self.items == other.items

    def __hash__(self):
        return len(self.items)

    def __repr__(self):
        return f"Plain({self.items})"


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"Slotted({self.x}, {hasattr(self, 'y')})"


@dataclasses.dataclass(slots=True)
class Reading:
    x: int
    items: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int


class Color(enum.Enum):
    RED = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    def __new__(cls, text, note="none"):
        made = super().__new__(cls, text)
        made.note = note
        return made

    def __repr__(self):
        return f"Text({str(self)!r}, {self.note})"


class Items(list):
    extra = None


class Table(dict):
    def __missing__(self, key):
        return f"no {key}"


class Stated:
    def __init__(self):
        self.kept, self.dropped = 1, threading.Lock()

    def __getstate__(self):
        return {"kept": self.kept}

    def __setstate__(self, state):
        self.kept = state["kept"] + 1

    def __repr__(self):
        return f"Stated({self.kept}, {hasattr(self, 'dropped')})"


class Reduced:
    def __init__(self, x):
        self.x, self.times = x, 0

    def __reduce__(self):
        self.times += 1
        return Reduced, (self.x + self.times,)

    def __repr__(self):
        return f"Reduced({self.x})"


class Registered:
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"Registered({self.x})"


def reduce_registered(value):
    return Registered, (value.x + 1,)


copyreg.pickle(Registered, reduce_registered)


class New:
    def __new__(cls, x):
        made = super().__new__(cls)
        made.x = x
        return made

    def __getnewargs__(self):
        return (self.x,)

    def __repr__(self):
        return f"New({self.x})"


class Linked:
    def __init__(self):
        self.me, self.others = self, [self]

    def __repr__(self):
        return f"Linked({self.me is self}, {self.others[0] is self})"


class Failure(Exception):
    def __init__(self, x, note=None):
        super().__init__(x, note)
        self.x = x


class Quiet(Exception):
    pass


def module_function(x):
    return x


def numbers(count, kind=float, order="C"):
    return np.arange(count, dtype=kind).reshape(2, -1, order=order)


def failure(cause=None):
    error = Failure(1, "note")
    error.add_note("seen")
    error.__cause__ = cause
    return error


def everything():
    """Values by name."""
    return {**values(), **arrays_of_other_types()}


#: Types of elements that another library adds to numpy. Some have the character of one of numpy's own.
OTHER_TYPES = ["bfloat16", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2", "float4_e2m1fn", "int4", "uint2"]


def arrays_of_other_types():
    kinds = [np.dtype(getattr(ml_dtypes, name)) for name in OTHER_TYPES] if ml_dtypes else []
    made = {f"{kind}": np.arange(20).astype(kind) for kind in kinds}
    made.update({f"many {kind}": np.ones(6000, kind) for kind in kinds})
    made.update({f"records of {kind}": np.zeros(3, [("a", kind), ("b", "i4")]) for kind in kinds[:3]})
    return made


def values():
    table = pd.DataFrame({"a": [1, 2, 3], "b": list("xyz"), "c": pd.Categorical(list("xyx"))})
    return {
        "none": None, "true": True, "int": -7, "long": 1 << 200, "float": 1.5, "nan": math.nan, "minus zero": -0.0,
        "complex": 1 + 2j, "text": "grüße", "empty text": "", "surrogate": "\udc80", "long text": "a" * 5000,
        "bytes": b"\x00\xff", "long bytes": bytes(5000), "bytearray": bytearray(b"abc"),
        "long bytearray": bytearray(5000), "list": [1, [2, [3]]], "empty list": [], "tuple": (1, (2,)),
        "dict": {"b": 1, "a": [2]}, "set": {3, 1, 2}, "frozenset": frozenset({1}), "range": range(1, 9, 2),
        "slice": slice(1, None), "ellipsis": ..., "not implemented": NotImplemented, "type": int, "builtin": len,
        "ordered": collections.OrderedDict(b=1, a=2), "default": collections.defaultdict(list, a=[1]),
        "default of a function": collections.defaultdict(module_function, a=1),
        "counter": collections.Counter("abca"), "deque": collections.deque([1, 2], maxlen=3),
        "chain of maps": collections.ChainMap({"a": 1}, {"b": 2}), "array": array.array("d", [1, 2]),
        "date": datetime.date(2024, 2, 29), "time": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
        "difference": datetime.timedelta(1, 2), "decimal": decimal.Decimal("1.10"),
        "fraction": fractions.Fraction(1, 3),
        "uuid": uuid.UUID(int=5), "path": pathlib.PurePosixPath("/a/b"), "address": ipaddress.ip_address("127.0.0.1"),
        "pattern": re.compile("a+", re.I), "partial": functools.partial(module_function, 1),
        "getter": operator.itemgetter(1), "caller": operator.methodcaller("upper"),
        "generator of numbers": random.Random(3), "struct sequence": struct.pack("<i", 3),
        "namespace": types.SimpleNamespace(a=1, b=[2]), "string stream": io.StringIO("text"),
        "bytes stream": io.BytesIO(b"data"), "logger": logging.getLogger("some.name"), "function": module_function,
        "class": Plain, "object": Plain(1, 2), "object as a key": {Plain(1): Plain(2)}, "slots": Slotted(1),
        "dataclass": Reading(1, [2]), "frozen dataclass": Frozen(1), "enumeration": Color.RED, "flags": Rights(3),
        "text with attributes": Text("a", "b"), "list with attributes": Items([1]), "dict with a method": Table(a=1),
        "object with a state": Stated(), "object with a reduction": Reduced(3), "object with arguments": New(4),
        "object of a registered class": Registered(5),
        "object of itself": Linked(), "objects twice": (lambda one: [one, one])(Plain(1)),
        "bound method": Plain(1).__repr__,
        "error": ValueError("a", 1), "error of the program": failure(), "error with a cause": failure(KeyError(1)),
        "group of errors": ExceptionGroup("g", [ValueError(1), Quiet()]), "system error": OSError(2, "no", "file"),
        "unicode error": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "json error": json.JSONDecodeError("m",
        "[", 1),
        "timeout": TimeoutError("late"), "cancelled": concurrent.futures.CancelledError(), "exit": SystemExit(3),
        "stop": StopAsyncIteration("s"), "async error": asyncio.TimeoutError("t"),
        "socket error": socket.gaierror(1, "x"),
        "zeros": np.zeros(3), "numbers": numbers(10), "integers": numbers(10, np.int32), "large numbers": numbers(2000),
        "columns": numbers(10, order="F"), "large columns": numbers(2000, order="F"), "booleans": np.ones(3, bool),
        "texts": np.array(["a", "bcd"]), "dates": np.array(["2024-01-01"], "datetime64[D]"),
        "objects": np.array([1, "a", None], object), "no numbers": np.zeros((0, 3)), "one number": np.array(5.0),
        "scalar": np.float32(1.5), "integer scalar": np.int64(3), "type of numbers": np.dtype([("a", "i4"), ("b",
        "f8")]),
        "records": np.zeros(2, [("a", "i4"), ("b", "f8")]), "masked": np.ma.array([1, 2], mask=[0, 1]),
        "every second": np.arange(10)[::2], "reversed": np.arange(2000)[::-1],
        "broadcast": np.broadcast_to(1.0, (2, 3)),
        "arrays": [np.zeros(2), np.ones(2)], "array twice": (lambda one: [one, one])(np.zeros(3)),
        "function of arrays": np.add, "random generator": np.random.default_rng(3),
        "frame": table, "series": table["a"], "index": table.index, "categories": table["c"],
        "frame with dates": pd.DataFrame({"d": pd.date_range("2024", periods=3, tz="Europe/Berlin")}),
        "frame with missing": pd.DataFrame({"n": pd.array([1, None], dtype="Int64")}),
        "timestamp": pd.Timestamp("2024-01-01"),
        "generator": (n for n in range(3)), "lock": threading.Lock(), "thread": threading.Thread(), "module": math,
        "open file": io.FileIO("/dev/null"), "iterator": iter([1, 2]), "count": itertools.count(3),
        "view": {1: 2}.keys(),
        "memory": memoryview(b"abc"), "frame of code": math.sqrt, "local": threading.local(), "copied": copy.copy,
    }  # fmt: skip


#: What arenite sends as well.
ONLY_HERE = {"module", "view", "memory"}
if sys.version_info >= (3, 14):
    ONLY_HERE.add("count")


# ---- what is done


def give(value):
    return value


def describe(value):
    return backends.show(value)


def change(value):
    """Changes a value in the way that it has, and returns it."""
    if isinstance(value, np.ndarray):
        value.flat[:1] = value.flat[-1:]
    elif isinstance(value, pd.DataFrame):
        value.iloc[0, 0] = value.iloc[1, 0]
    elif isinstance(value, (dict, collections.UserDict)):
        value["new"] = 1
    elif hasattr(value, "append") and not isinstance(value, pd.Index):
        value.append(value[0] if len(value) else 0)
    elif isinstance(value, set):
        value.add(7)
    elif hasattr(value, "__dict__") and not isinstance(value, (type, types.FunctionType)):
        value.changed = 1
    return value


def change_here(value):
    """A result is changed in the program."""
    return change(value)


def fail_with(value):
    raise value if isinstance(value, BaseException) else Failure(value)


def again(value):
    return [value, value]


#: What a task does, and what the program does with the result.
DONE = {
    "given": (give, None),
    "described": (describe, None),
    "changed in the task": (change, None),
    "changed in the program": (give, change_here),
    "raised": (fail_with, None),
    "twice": (again, None),
}
#: Differences on purpose: see the table in docs/python.md.
READ_ONLY = {"large numbers", "large columns", "reversed"}


#: What cannot be sent in a global, and classes whose pickles show that there was one.
NOT_GLOBAL = {
    *("generator", "open file", "thread", "object with a state", "object with a reduction"),
    *("object of a registered class", "broadcast"),
}
#: By the name of a value that is a global: two tasks, of which one changes it.
GLOBALS = {}


def _define():
    for number, (name, value) in enumerate(everything().items()):
        if name not in NOT_GLOBAL:
            GLOBALS[name] = f"describe{number}", f"change{number}"
            globals()[f"value{number}"] = value
            exec(f"def describe{number}(): return describe(value{number})", globals())
            exec(f"def change{number}(): return describe(change(value{number}))", globals())


_define()


def names():
    for done in DONE:
        for name in everything():
            if name in ONLY_HERE or (name in READ_ONLY and "changed" in done):
                continue
            # Not on loky, which slots break.
            yield f"submit, {done}: {name}", ["fork", "spawn"]
            if done in ("given", "changed in the task"):
                yield f"map, {done}: {name}", ["fork", "spawn"]
                yield f"chunks, {done}: {name}", ["fork", "spawn"]
    for name in GLOBALS:
        yield f"global, changed in tasks: {name}", ["fork", "spawn"]
    for name in everything():
        if name not in ONLY_HERE:
            yield f"pool, changed in the task: {name}", ["fork", "spawn"]
            yield f"pool, changed in the program: {name}", ["fork", "spawn"]


def programs(which):
    wanted = [name for name, others in backends.drawn(names()) if which == "arenite" or which in others]
    with backends.executor(which) as ex:
        for program in wanted:
            way, rest = program.split(", ", 1)
            done, name = rest.split(": ", 1)
            if way == "pool":
                continue
            if way == "global":
                yield program, [backends.outcome(ex.submit(globals()[task]).result) for task in 2 * GLOBALS[name]]
                continue
            task, after = DONE[done]
            value = everything()[name]

            def run():
                if way == "submit":
                    found = ex.submit(task, value).result()
                else:
                    found = list(ex.map(task, [value, value, 3], chunksize=1 if way == "map" else 2))
                # What the program has is as it was.
                return (found if after is None else after(found)), backends.show(value)

            yield program, backends.outcome(run)
    with backends.pool(which) as pool:
        for program in wanted:
            way, rest = program.split(", ", 1)
            done, name = rest.split(": ", 1)
            if way == "pool":
                task, after = DONE[done]
                value = everything()[name]

                def run():
                    found = pool.apply(task, (value,))
                    return (found if after is None else after(found)), backends.show(value)

                yield program, backends.outcome(run)


if __name__ == "__main__":
    backends.main(programs)
