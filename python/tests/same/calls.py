"""What a task calls: functions, methods, partials and objects, in each way that pools have. On fork and spawn."""

import abc
import asyncio
import contextlib
import contextvars
import functools
import operator
import os
import random
import signal
import sys
import threading
import typing
import weakref
from concurrent.futures.process import BrokenProcessPool

import backends

FACTOR, TABLE, HANDLERS, CACHE = 3, [1, 2, 3], {}, {}
LOCK, EVENT, LOCAL, RANDOM = threading.Lock(), threading.Event(), threading.local(), random.Random(5)
REQUEST = contextvars.ContextVar("request", default="none")
MEMORY = weakref.WeakValueDictionary()
#: One object for defaults, globals and attributes of classes, whatever is used first.
ABSENT, LOGGED = object(), [0]


def handler(function):
    HANDLERS[function.__name__] = function
    return function


@handler
def plus(x):
    return x + FACTOR


@handler
def minus(x):
    return x - FACTOR


def handled(x):
    return sorted((name, one(x)) for name, one in HANDLERS.items())


def uses_state_of_threads(x):
    with LOCK:
        EVENT.set()
    return EVENT.is_set(), REQUEST.get(), len(MEMORY), x


def through_main(x):
    import __main__

    return __main__.FACTOR + x, globals()["plus"](x)


def even(x):
    return x == 0 or odd(x - 1)


def odd(x):
    return x != 0 and even(x - 1)


def annotated(x: int, y: "NotDefined" = 1) -> typing.Optional[int]:  # noqa: F821
    return x + y


def wrapped(function):
    calls = []

    @functools.wraps(function)
    def wrapper(x):
        calls.append(x)
        return function(x), len(calls)

    return wrapper


@wrapped
def decorated(x, y=ABSENT, *, z=LOGGED):
    return 2 * x, y is ABSENT, z is LOGGED


@functools.lru_cache(maxsize=None)
def fibonacci(x, y=ABSENT):
    return x if x < 2 else fibonacci(x - 1) + fibonacci(x - 2) if y is ABSENT else -1


@functools.singledispatch
def dispatched(x):
    return "something"


dispatched.register(int, lambda x: f"int {x}")


def is_absent(x, y=ABSENT, *, held={"a": [(ABSENT,)]}, log=LOGGED):  # noqa: B006
    return y is ABSENT, held["a"][0][0] is ABSENT, log is LOGGED, Keeps.log is LOGGED


class Keeps:
    absent, log = ABSENT, LOGGED

    def has(self, x, y=ABSENT, *, log=LOGGED):
        log.append(x)
        return self.absent is ABSENT and y is self.absent, LOGGED[-1] == x, len(Keeps.log) == len(log)


class Tree:
    root = None

    def is_root(self, x):
        return self.root is ROOT, ROOT.root is ROOT


Tree.root = ROOT = Tree()


@contextlib.contextmanager
def entering(name, log=LOGGED, *, absent=ABSENT):
    entered = [name, log is LOGGED, absent is ABSENT]
    try:
        yield entered
    except ZeroDivisionError:
        entered.append("failed")
    MANAGED.append(tuple(entered))


MANAGED = []


@entering("function")
def managed(x):
    return 2 * x


def calls_managed(x):
    MANAGED.clear()
    with entering("here") as entered, contextlib.suppress(KeyError):
        entered[1:] = [managed(x) / 0]
    return managed(x), MANAGED


@contextlib.asynccontextmanager
async def opening(log=LOGGED):
    MANAGED.append("async")
    yield log is LOGGED


@opening()
async def managed_async(x):
    return 3 * x


def runs_managed(x):
    MANAGED.clear()
    return asyncio.run(managed_async(x)), list(MANAGED)


def keeps_state(x, seen=[]):  # noqa: B006
    global LATEST
    before, LATEST = globals().get("LATEST"), x
    seen.append(x)
    keeps_state.calls = getattr(keeps_state, "calls", 0) + 1
    CACHE[x] = len(CACHE)
    local, LOCAL.x = getattr(LOCAL, "x", None), x
    return before, seen, keeps_state.calls, CACHE, local, RANDOM.randrange(1000)


class Plain:
    made, shared = 0, []

    def __init__(self, x=1):
        Plain.made += 1
        self.x, self.log = x, []

    def add(self, y):
        self.log.append(y)
        return self.x + y, len(self.log)

    __call__ = add

    def share(self, y):
        self.shared.append(y)
        return self.shared

    @classmethod
    def counted(cls, y):
        cls.made += 1
        return cls.made

    @staticmethod
    def static(y):
        return y + FACTOR

    @functools.lru_cache
    def cached(self, y):
        return y * self.x

    @functools.cached_property
    def late(self):
        return self.x + 1

    def uses_late(self, y):
        return self.late + y

    @functools.singledispatchmethod
    def show(self, x):
        return "something"

    @show.register
    def _(self, x: int):
        return f"int {x}"

    def both(self, x):
        return self.show(x), self.show(None)

    @entering("method")
    def enters(self, y):
        return y, MANAGED.clear()

    def __repr__(self):
        return f"Plain({self.x}, {self.log})"


class Slotted:
    __slots__ = ("x", "__weakref__")

    def __init__(self, x):
        self.x = x

    def add(self, y):
        return self.x + y

    def misspelt(self, y):
        self.y = y


class MoreSlots(Slotted):
    __slots__ = ("z",)

    def add(self, y):
        self.z = y
        return super().add(y) + self.z


class Shape(abc.ABC):
    known: typing.ClassVar = {}

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        Shape.known[cls.__name__] = cls

    @abc.abstractmethod
    def area(self, y): ...


class Square(Shape):
    def area(self, y):
        return y * y, sorted(Shape.known), [one.__name__ for one in Shape.__subclasses__()]


class Meta(type):
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.by = cls.__name__
        return made


class Made(metaclass=Meta):
    def get(self, y):
        return self.by, y, type(Made()) is Made


class Outer:
    factor = 5

    class Inner:
        def get(self, y):
            return Outer.factor * y, type(self) is Outer.Inner


class Descriptor:
    def __set_name__(self, owner, name):
        self.name = f"_{name}"

    def __get__(self, instance, owner=None):
        return getattr(instance, self.name, "nothing")

    def __set__(self, instance, value):
        setattr(instance, self.name, value)


class Described:
    field = Descriptor()

    def get(self, y):
        before, self.field = self.field, y
        return before, self.field


class Only:
    _one, lock = None, threading.Lock()

    def __new__(cls):
        with cls.lock:
            cls._one = cls._one or super().__new__(cls)
            return cls._one


ONLY = Only()


def is_only(x):
    return Only() is ONLY, Only._one is ONLY, x


class Symbol:
    _known: typing.ClassVar = {}

    def __new__(cls, name):
        return cls._known.setdefault(name, super().__new__(cls))

    def __getnewargs__(self):
        return (next(name for name, one in self._known.items() if one is self),)


SYMBOL = Symbol("a")


def is_known(x):
    return Symbol("a") is SYMBOL, len(Symbol._known), x


class Colour:
    all: typing.ClassVar = set()
    order: typing.ClassVar = []
    salt = 3

    def __init__(self, name):
        self.name = name
        self.all.add(self)
        self.order.append(self)

    def __hash__(self):
        return hash((self.salt, self.name))

    def __eq__(self, other):
        return (self.salt, self.name) == (other.salt, other.name)


RED = Colour("red")
Colour.BLUE = Colour("blue")


def colours(x):
    return [one.name for one in Colour.order], RED in Colour.all, Colour.BLUE in Colour.all, Colour.order[0] is RED, x


class Registering(type):
    def __new__(meta, name, bases, space, *, tag):
        made = super().__new__(meta, name, bases, space)
        made.tag = tag
        REGISTERED.append(name)
        return made

    def __init__(cls, name, bases, space, *, tag):
        super().__init__(name, bases, space)


REGISTERED = []


class Registered(metaclass=Registering, tag=4):
    def get(self, x):
        return self.tag + x, REGISTERED


class Failure(Exception):
    def __init__(self, x):
        super().__init__(x)
        self.x = x


def fails_sometimes(x):
    if x == 2:
        raise Failure(x)
    return x


def fails_in_group(x):
    try:
        raise KeyError(x)
    except KeyError as error:
        raise ExceptionGroup("several", [ValueError(x), Failure(x)]) from error


def takes_two(x, y):
    return x


def append(seen, x):
    seen.append(x)
    return list(seen)


#: What is called, by its title.
CALLS = {
    "a function that uses a global, and one that others register": plus,
    "a dictionary of functions that a decorator fills": handled,
    "a lock, an event, a context variable and weak values in globals": uses_state_of_threads,
    "a function that finds a global through __main__": through_main,
    "functions that call each other": even,
    "annotations that name nothing": annotated,
    "a decorator that counts in its closure, around defaults": decorated,
    "a recursive function with a cache": fibonacci,
    "a function that dispatches by type": dispatched,
    "a function that a name leads to with a builtin type": int.bit_length,
    "a builtin function": abs,
    "a default, a container in a default and an attribute that are one global": is_absent,
    "an attribute, a default and a global that are one list": Keeps().has,
    "a tree whose root is a global and an attribute of its class": Tree().is_root,
    "a context manager that decorates a function": calls_managed,
    "an asynchronous context manager": runs_managed,
    "a function that keeps state in a global, a default, an attribute and a thread": keeps_state,
    "a bound method that changes its object": Plain(2).add,
    "a callable object that changes": Plain(3),
    "a method that changes a list of its class": Plain(2).share,
    "a class method that counts": Plain.counted,
    "a static method": Plain.static,
    "a method with a cache": Plain(4).cached,
    "a property that is computed once": Plain(5).uses_late,
    "a method that dispatches by type": Plain(6).both,
    "a context manager that decorates a method": Plain(7).enters,
    "a class that is called": Plain,
    "a method of an object with slots": Slotted(1).add,
    "a slot that is misspelt": Slotted(1).misspelt,
    "slots of a subclass": MoreSlots(2).add,
    "an abstract class whose children register": Square().area,
    "a metaclass that makes objects": Made().get,
    "a class in a class": Outer.Inner().get,
    "a descriptor that stores by name": Described().get,
    "a class with one object": is_only,
    "objects that their class finds by name": is_known,
    "a class whose set has its objects, by a hash from its attribute": colours,
    "a metaclass with a keyword": Registered().get,
    "an exception of one call of many": fails_sometimes,
    "a group of exceptions with a cause": fails_in_group,
    "a call with too few arguments": takes_two,
    "a partial with a list": functools.partial(append, []),
    "a partial of a partial, with a class": functools.partial(functools.partial(takes_two), y=Plain),
    "a method of a list": [1, 2, 3].count,
    "a method of a generator of random numbers": random.Random(3).randrange,
    "an object of the standard library that is called": operator.itemgetter(0),
}
ITEMS = [1, 2, 3, 4, 5]


def in_each_way(call, on):
    yield [[outcome(on.ex.submit(call, item).result) for item in ITEMS] for _ in range(2)]
    # Many short calls are sent in packets.
    for items, size in ((ITEMS, 1), (ITEMS * 8, 1), (ITEMS, 2)):
        yield outcome(lambda items=items, size=size: list(on.ex.map(call, items, chunksize=size)))
    yield [outcome(on.pool.apply, call, (item,)) for item in ITEMS]
    # The calls of a chunk share what the function holds elsewhere.
    yield outcome(lambda: on.pool.map(call, ITEMS, chunksize=1))
    yield outcome(lambda: list(on.pool.imap(call, ITEMS)))
    yield outcome(lambda: sorted(on.pool.imap_unordered(call, ITEMS), key=repr))
    yield outcome(lambda: on.pool.starmap(call, [(item,) for item in ITEMS], chunksize=3))


outcome = backends.outcome
for _title, _call in CALLS.items():
    backends.program(_title, functools.partial(in_each_way, _call))


def in_workers_that_are_replaced(on):
    "functions of all kinds in workers that are replaced after two calls"
    made = Plain(2)
    Plain.made = 0
    with on.new_pool(maxtasksperchild=2) as pool:
        for call in (keeps_state, handled, fibonacci, dispatched, made.add, decorated):
            yield [outcome(pool.apply, call, (item,)) for item in ITEMS]


def in_two_workers(on):
    "many short calls of functions without a state, in two workers"
    with on.executor(2) as ex:
        for call in (plus, handled, even, fails_sometimes, Plain(2).add, is_absent, colours):
            yield outcome(lambda call=call: list(ex.map(call, ITEMS * 8)))


# ---- what ends a worker


def fail():
    raise ValueError("no licence")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


async def awaited(ex, *task):
    return await asyncio.get_running_loop().run_in_executor(ex, *task)


def caught(call, *arguments):
    try:
        return call(*arguments)
    except BrokenProcessPool:
        return "caught"


def ended(on, task=None, **options):
    # Texts and types differ, but a program that catches exceptions of one pool has to catch those of the others.
    for way in (
        lambda ex: ex.submit(task or abs, *([] if task else [1])).result(),
        lambda ex: asyncio.run(awaited(ex, task or abs, *([] if task else [1]))),
        lambda ex: list(ex.map(functools.partial(_ignoring, task), [1, 2])),
        lambda ex: list(ex.map(functools.partial(_ignoring, task), [1, 2], chunksize=2)),
    ):
        with on.executor(**options) as ex:
            yield outcome(caught, way, ex)
            if not task:
                yield outcome(caught, ex.submit, abs, 1), outcome(caught, ex.map, abs, [1])


def _ignoring(task, x):
    return task() if task else abs(x)


def exits_now():
    os._exit(3)


def dies(on):
    "a task whose process exits, and one whose process is killed"
    for task in (exits_now, kill):
        yield from ended(on, task)


def starts_fail(on):
    "an initializer that raises, one that exits, and one that kills its process"
    for initializer in (fail, sys.exit, kill):
        yield from ended(on, initializer=initializer)


if __name__ == "__main__":
    backends.run(globals())
