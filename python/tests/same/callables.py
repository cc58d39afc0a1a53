"""Programs: what is called × what it holds × how it is called × how many workers × which use."""

import abc
import asyncio
import collections
import contextlib
import contextvars
import ctypes
import dataclasses
import datetime
import enum
import functools
import operator
import random
import sys
import threading
import typing
import weakref

import backends

# ---- what the program defines

FACTOR = 3
TABLE = [1, 2, 3]
NESTED = {"a": {"b": [1]}}
HANDLERS = {}
CACHE = {}
LOCK = threading.Lock()
EVENT = threading.Event()
REQUEST = contextvars.ContextVar("request", default="none")
LOCAL = threading.local()
MEMORY = weakref.WeakValueDictionary()
RANDOM = random.Random(5)


#: One object for defaults, globals and attributes of classes, whatever is used first.
ABSENT = object()


def is_absent(x, y=ABSENT):
    return y is ABSENT, x


def default_is_absent(x):
    return only_default(x) is ABSENT


def only_default(x, y=ABSENT):
    return y


class Nothing:
    pass


NOTHING = Nothing()
LOGGED = [0]
SECTIONS = {"log": LOGGED}


class Keeps:
    absent, nothing, log = ABSENT, NOTHING, LOGGED

    def has(self, x, y=ABSENT, *, z=NOTHING):
        return self.absent is ABSENT and y is self.absent, self.nothing is NOTHING and z is self.nothing, x


def is_nothing(x, y=NOTHING):
    return y is NOTHING, x


def is_nothing_too(x, *, y=NOTHING, log=LOGGED):
    return y is NOTHING, log is LOGGED, Keeps.log is LOGGED, SECTIONS["log"] is LOGGED


def wrapped(function):
    @functools.wraps(function)
    def call(x):
        return function(x)

    return call


@wrapped
def is_nothing_inside(x, y=NOTHING, *, z=ABSENT):
    return y is NOTHING, z is ABSENT


@functools.lru_cache
def is_nothing_cached(x, y=NOTHING):
    return y is NOTHING


def holds_nothing(x, held={"nothing": NOTHING, "more": [(NOTHING,)]}, *, others=(LOGGED, ABSENT)):
    return held["nothing"] is NOTHING, held["more"][0][0] is NOTHING, others[0] is LOGGED, others[1] is ABSENT


def looks_inside(x):
    return is_nothing_inside(x), is_nothing_cached(x), holds_nothing(x)


class Tree:
    root = None

    def is_root(self, x):
        return self.root is ROOT, ROOT.root is ROOT


Tree.root = ROOT = Tree()


def logs(x, log=LOGGED):
    log.append(x)
    return LOGGED[-1] == x, len(LOGGED) == len(log) == len(Keeps.log)


class Missing:
    def __reduce__(self):
        return "MISSING"


MISSING = Missing()
Number = typing.NewType("Number", int)
T = typing.TypeVar("T")


def handler(function):
    HANDLERS[function.__name__] = function
    return function


@handler
def plus(x):
    return x + FACTOR


@handler
def minus(x):
    return x - FACTOR


def table(x):
    return TABLE[x % len(TABLE)]


def nested(x):
    return NESTED["a"]["b"][0] + x


def handled(x):
    return sorted((name, one(x)) for name, one in HANDLERS.items())


def locked(x):
    with LOCK:
        return x


def waits(x):
    EVENT.set()
    return EVENT.is_set(), x


def context(x):
    return REQUEST.get(), x


def weak(x):
    return len(MEMORY), x


def is_missing(x):
    return x is MISSING, MISSING is MISSING


def number(x):
    return Number(x)


def by_name_of_global(x):
    return globals()["plus"](x)


def through_main(x):
    import __main__

    return __main__.FACTOR + x


def recursive(x):
    return 1 if x < 2 else x * recursive(x - 1)


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
def decorated(x):
    return 2 * x


@functools.lru_cache(maxsize=None)
def fibonacci(x):
    return x if x < 2 else fibonacci(x - 1) + fibonacci(x - 2)


def uses_cache(x):
    return fibonacci(x) + 1


@functools.singledispatch
def dispatched(x):
    return "something"


@dispatched.register
def _(x: int):
    return f"int {x}"


@contextlib.contextmanager
def logging(name, log=LOGGED, *, absent=ABSENT):
    entered = [name, log is LOGGED, absent is ABSENT]
    try:
        yield entered
    except ZeroDivisionError:
        entered.append("failed")
    MANAGED.append(tuple(entered))


MANAGED = []


@logging("function")
def managed(x):
    return 2 * x


@logging("divides")
def divides(x):
    return x / 0


def calls_managed(x):
    MANAGED.clear()
    return managed(x), managed(x), divides(x), [list(one) for one in MANAGED]


def enters(x):
    with logging("here") as entered:
        return entered, x


@contextlib.asynccontextmanager
async def opening(name, log=LOGGED):
    MANAGED.append(name)
    yield log is LOGGED


@opening("async")
async def managed_async(x):
    return 3 * x


def runs_managed(x):
    MANAGED.clear()
    return asyncio.run(managed_async(x)), list(MANAGED)


class Manages:
    @logging("method")
    def add(self, x):
        MANAGED.clear()
        return x, self is not None


class Shows:
    @functools.singledispatchmethod
    def show(self, x):
        return "something"

    @show.register
    def _(self, x: int):
        return f"int {x}"

    @show.register(str)
    @classmethod
    def _(cls, x):
        return f"{cls.__name__} {x}"

    def both(self, x):
        return self.show(x), self.show("x"), self.show(None)


def accumulates(x, seen=[]):  # noqa: B006
    seen.append(x)
    return list(seen)


def counts(x):
    counts.calls += 1
    return counts.calls


counts.calls = 0


def remembers(x):
    CACHE[x] = len(CACHE)
    return CACHE


def sets_global(x):
    global LATEST
    before = globals().get("LATEST")
    LATEST = x
    return before


def draws(x):
    return RANDOM.randrange(1000)


def sets_local(x):
    before = getattr(LOCAL, "x", None)
    LOCAL.x = x
    return before


class Plain:
    made = 0
    shared = []

    def __init__(self, x=1):
        Plain.made += 1
        self.x, self.log = x, []

    def add(self, y):
        self.log.append(y)
        return self.x + y, len(self.log)

    __call__ = add

    def share(self, y):
        self.shared.append(y)
        return list(self.shared)

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

    def __repr__(self):
        return f"Slotted({self.x})"


class MoreSlots(Slotted):
    __slots__ = ("z",)

    def add(self, y):
        self.z = y
        return super().add(y) + self.z


@dataclasses.dataclass(slots=True)
class Reading:
    x: int
    items: list = dataclasses.field(default_factory=list)

    def add(self, y):
        self.items.append(y)
        return self


@dataclasses.dataclass(frozen=True, order=True)
class Frozen:
    x: int
    kind: typing.ClassVar[str] = "frozen"

    def add(self, y):
        return dataclasses.replace(self, x=self.x + y), len(dataclasses.fields(self))


class Color(enum.Enum):
    RED = 1
    GREEN = "g"

    def add(self, y):
        return self.name, self.value, y, Color(1), list(Color)


class Planet(enum.Enum):
    EARTH = (1.0, 2.0)
    MARS = (3.0, 4.0)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius

    def add(self, y):
        return self.mass + self.radius + y


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()

    def add(self, y):
        return self | Rights.WRITE


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

    def add(self, y):
        return self + y, Level.HIGH


class Text(str, enum.Enum):
    A, B = "a", "b"
    C = A
    __str__ = str.__str__

    @property
    def double(self):
        return self.value * 2

    def add(self, y):
        return str(self), f"{self}", self.double, Text.C, Text("a"), list(Text), y


class Numeral(int, enum.Enum):
    ONE = 1
    __str__ = int.__repr__

    def add(self, y):
        return str(self), repr(self), self + y


class Hidden(enum.Enum):
    A = "a"
    _table = enum.nonmember({"a": [1]})
    _nothing = enum.nonmember(None)

    @property
    def _content(self):
        return self._table[self.value]

    @classmethod
    def _all(cls):
        return [one._content for one in cls]

    def add(self, y):
        return self._content, self._all(), self._nothing, y


class Coordinate(bytes, enum.Enum):
    def __new__(cls, value, label, unit):
        made = bytes.__new__(cls, [value])
        made._value_, made.label, made.unit = value, label, unit
        return made

    PX = 0, "P.X", "km"
    PY = 1, "P.Y", "km"
    OTHER = 1, "other", "km"

    def add(self, y):
        found = Coordinate(1), Coordinate["OTHER"], list(Coordinate)
        names = [(one.name, one.value) for one in found[:2]], len(found[2])
        return bytes(self), len(self), self.label, self.unit, names, y


class Coded(enum.Enum):
    def __new__(cls, code, text):
        made = object.__new__(cls)
        made._value_, made.text = code, text
        return made

    def __init__(self, code, text):
        self.both = f"{code} {text}"


class Code(Coded):
    RED = 1, "red"
    BLUE = 2, "blue"

    def add(self, y):
        return self.text, self.both, Code(2), self, y


class Thousands(int, enum.Enum):
    def __new__(cls, value):
        made = int.__new__(cls, value * 1000)
        made._value_ = value
        return made

    K, M = 1, 2

    def add(self, y):
        return int(self), self.value, self + y, Thousands(2), Thousands["K"], self


class Day(datetime.date, enum.Enum):
    FIRST = 2020, 1, 2

    def add(self, y):
        return self.year, self.value, Day(datetime.date(2020, 1, 2)), y


class Place(tuple, enum.Enum):
    HERE = 1, 2
    THERE = (3,)

    def add(self, y):
        return self[0], len(self), self.value, Place((3,)), y


class Operation(enum.Enum):
    PLUS = enum.member(operator.add)
    MINUS = enum.member(minus)

    def add(self, y):
        return self.MINUS.value(y), self.PLUS.value(y, 1), self


class Kept(enum.Flag, boundary=enum.KEEP):
    A = 1

    def add(self, y):
        return Kept(5).value, ~Kept.A, Kept.A in Kept(y)


class Strict(enum.IntFlag, boundary=enum.STRICT):
    A, B = 1, 2

    def add(self, y):
        return Strict(y)


class Conforming(enum.Flag, boundary=enum.CONFORM):
    A, B, BOTH = 1, 2, 3

    def add(self, y):
        return Conforming(y), Conforming.BOTH


class Ejecting(enum.Flag, boundary=enum.EJECT):
    A = 1

    def add(self, y):
        return Ejecting(y)


class Pair(typing.NamedTuple):
    x: int
    y: int = 2

    def add(self, z):
        return self._replace(x=z)


Point = collections.namedtuple("Point", "x y")


class Shape(abc.ABC):
    known = {}

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        Shape.known[cls.__name__] = cls

    @abc.abstractmethod
    def area(self, y): ...


class Square(Shape):
    def area(self, y):
        return y * y, sorted(Shape.known)


@Shape.register
class Virtual:
    pass


class Box(typing.Generic[T]):
    def __init__(self, x: T) -> None:
        self.x = x

    def get(self, y):
        return self.x, y, isinstance(self, Box)


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
        before = self.field
        self.field = y
        return before, self.field


class Single:
    instance, lock = None, threading.Lock()

    def __new__(cls):
        with cls.lock:
            cls.instance = cls.instance or super().__new__(cls)
            return cls.instance

    def get(self, y):
        return Single() is Single(), y


class Failure(Exception):
    def __init__(self, x):
        super().__init__(x)
        self.x = x


def fails(x):
    raise Failure(x)


def fails_sometimes(x):
    if x == 2:
        raise Failure(x)
    return x


def fails_from(x):
    try:
        raise KeyError(x)
    except KeyError as error:
        raise ValueError("outer") from error


def fails_in_group(x):
    raise ExceptionGroup("several", [ValueError(x), Failure(x)])


def exits(x):
    raise SystemExit(x)


def takes_two(x, y):
    return x


def append(seen, x):
    seen.append(x)
    return list(seen)


def closure(x):
    def inner(y):
        return x + y + FACTOR

    return inner


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


def local_factorial():
    def inner(y):
        return 1 if y < 2 else y * inner(y - 1)

    return inner


def counts_elsewhere():
    def helper():
        pass

    def count(x):
        helper.calls = getattr(helper, "calls", 0) + 1
        return helper.calls, x

    return count


def counts_by_another():
    def helper():
        pass

    def count(function):
        setattr(function, "calls", getattr(function, "calls", 0) + 1)
        return function.calls

    return lambda x: (count(helper), x)


def counts_in_defaults():
    def helper(calls=0):
        return calls

    def count(x):
        helper.__defaults__ = (helper() + 1,)
        return helper(), x

    return count


def counts_in_own_globals():
    own = {"__name__": "no_module", "calls": 0}
    exec("def count(x):\n    global calls\n    calls += 1\n    return calls, x", own)
    return own["count"]


def many_attributes():
    def call(x):
        return sorted(vars(call)), call.registry, call.register, x

    vars(call).update(cells=3, imports=["absent"], globals={"a": 1}, registry={"k": 1}, register=True)
    return call


def local_class():
    class Local:
        made = 0

        def __init__(self, x):
            Local.made += 1
            self.x = x

        def get(self, y):
            return self.x + y, type(self) is Local

    return Local(3)


# ---- the programs

#: By name: what is called, and whether it keeps something from one call to the next, which depends on the worker.

# ---- classes that hold their own instances, or whose creation takes more than a name


class Only:
    _one = None

    def __new__(cls):
        if cls._one is None:
            cls._one = super().__new__(cls)
        return cls._one


ONLY = Only()


def is_only(x):
    return Only() is ONLY, Only._one is ONLY, x


class Symbol:
    _known: typing.ClassVar = {}

    def __new__(cls, name):
        if name not in cls._known:
            made = cls._known[name] = super().__new__(cls)
            made.name = name
        return cls._known[name]

    def __reduce__(self):
        return Symbol, (self.name,)


class Interned:
    _known: typing.ClassVar = {}

    def __new__(cls, name):
        return cls._known.setdefault(name, super().__new__(cls))

    def __getnewargs__(self):
        return (next(name for name, one in self._known.items() if one is self),)


A_SYMBOL, AN_INTERNED = Symbol("a"), Interned("a")


def are_known(x):
    return Symbol("a") is A_SYMBOL, len(Symbol._known), Interned("a") is AN_INTERNED, len(Interned._known), x


class Colour:
    all: typing.ClassVar = set()
    by_name: typing.ClassVar = {}
    order: typing.ClassVar = []
    salt = 3
    count = 0

    def __new__(cls, name):
        cls.count += 1
        return super().__new__(cls)

    def __init__(self, name):
        self.name = name
        self.all.add(self)
        self.by_name[self] = name
        self.order.append(self)

    def __hash__(self):
        return hash((self.salt, self.name))

    def __eq__(self, other):
        return (self.salt, self.name) == (other.salt, other.name)


RED = Colour("red")
Colour.BLUE = Colour("blue")


def colours(x):
    listed = [colour.name for colour in Colour.order], [Colour.by_name[colour] for colour in Colour.order]
    found = RED in Colour.all, Colour.BLUE in Colour.all, Colour.order[0] is RED
    return listed, found, Colour.count, len(Colour.all), x


MADE = []


class Registering(type):
    def __new__(meta, name, bases, space, *, tag):
        made = super().__new__(meta, name, bases, space)
        made.tag = tag
        MADE.append(name)
        return made

    def __init__(cls, name, bases, space, *, tag):
        super().__init__(name, bases, space)


class Registered(metaclass=Registering, tag=4):
    def get(self, x):
        return self.tag + x, MADE


def registered(x):
    return Registered().get(x), type(Registered).__name__


class Figure:
    def area(self):
        return sum(shape().area() for shape in type(self).__subclasses__())


class Quad(Figure):
    def area(self):
        return 4


class Disc(Figure):
    def area(self):
        return 3


def shapes(x):
    return Figure().area(), [shape.__name__ for shape in Figure.__subclasses__()], x


class Record(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("tag", ctypes.c_uint8), ("value", ctypes.c_double))


class Network(ctypes.BigEndianStructure):
    _fields_ = (("port", ctypes.c_uint16), ("record", ctypes.c_uint32))


class Either(ctypes.Union):
    _fields_ = (("number", ctypes.c_uint32), ("bytes", ctypes.c_uint8 * 4))


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)


def records(x):
    record = Record(x, 2.5)
    number = list(Either(258).bytes)
    return record.tag, record.value, ctypes.sizeof(Record), bytes(Network(1, 2)), number, Callback(lambda n: n + x)(1)


if sys.version_info >= (3, 12):
    exec("type Paired = tuple[int, Tree_of]\ntype Tree_of = int | list[Tree_of]")
else:
    Paired = tuple


def aliases(x, pair: "Paired" = None):
    return Paired.__name__, str(getattr(Paired, "__value__", "")), x


BY_NAME = {
    "singleton": (is_only, False),
    "known by name": (are_known, False),
    "class with its instances": (colours, False),
    "metaclass with arguments": (registered, False),
    "subclasses": (shapes, False),
    "ctypes": (records, False),
    "type aliases": (aliases, False),
    **{one.__name__: (one, False) for one in (
        plus, minus, table, nested, handled, locked, waits, context, weak, is_missing, number, by_name_of_global,
        through_main, recursive, even, odd, annotated, uses_cache, fails, fails_sometimes, fails_from, fails_in_group,
        exits, takes_two, is_absent, default_is_absent, is_nothing, is_nothing_too, logs,
        is_nothing_inside, looks_inside, holds_nothing,
    )},
    "sentinel of a class": (Keeps().has, False),
    "tree whose root is a global": (Tree().is_root, False),
    **{one.__name__: (one, True) for one in (
        decorated, accumulates, counts, remembers, sets_global, draws, sets_local,
    )},
    "fibonacci": (fibonacci, False),
    "dispatched": (dispatched, False),
    "abs": (abs, False),
    "str": (str, False),
    "bound method": (Plain(2).add, False),
    "callable object": (Plain(3), False),
    "shares a list of its class": (Plain(2).share, True),
    "class method": (Plain.counted, True),
    "static method": (Plain.static, False),
    "cached method": (Plain(4).cached, False),
    "cached property": (Plain(5).uses_late, False),
    "class": (Plain, False),
    "slots": (Slotted(1).add, False),
    "slots, misspelt": (Slotted(1).misspelt, False),
    "slots of a subclass": (MoreSlots(2).add, False),
    "dataclass with slots": (Reading(1).add, False),
    "dataclass": (Frozen(1).add, False),
    "dataclass as a class": (Frozen, False),
    "enumeration": (Color.RED.add, False),
    "enumeration with fields": (Planet.MARS.add, False),
    "flags": (Rights.READ.add, False),
    "numbers with names": (Level.LOW.add, False),
    "text with names": (Text.B.add, False),
    "numbers that are written as numbers": (Numeral.ONE.add, False),
    "enumeration with hidden attributes": (Hidden.A.add, False),
    "bytes with names": (Coordinate.PY.add, False),
    "enumeration that inherits __new__": (Code.RED.add, False),
    "numbers with other values": (Thousands.M.add, False),
    "dates with names": (Day.FIRST.add, False),
    "tuples with names": (Place.THERE.add, False),
    "functions with names": (Operation.MINUS.add, False),
    "flags that keep": (Kept.A.add, False),
    "flags that are strict": (Strict.A.add, False),
    "flags that conform": (Conforming.A.add, False),
    "flags that eject": (Ejecting.A.add, False),
    "named tuple": (Pair(1).add, False),
    "named tuple of collections": (Point(1, 2).count, False),
    "abstract class": (Square().area, False),
    "generic class": (Box(1).get, False),
    "metaclass": (Made().get, False),
    "nested class": (Outer.Inner().get, False),
    "descriptor": (Described().get, False),
    "context manager as a decorator": (calls_managed, False),
    "context manager": (enters, False),
    "asynchronous context manager": (runs_managed, False),
    "context manager around a method": (Manages().add, False),
    "singledispatchmethod": (Shows().both, False),
    "singleton": (Single().get, False),
    "partial with a list": (functools.partial(append, []), False),
    "partial with a class": (functools.partial(takes_two, y=Plain), False),
    "partial of a partial": (functools.partial(functools.partial(takes_two), y=1), False),
    "method of a list": ([1, 2, 3].count, False),
    "method of a generator of numbers": (random.Random(3).randrange, False),
    "itemgetter": (operator.itemgetter(0), False),
    "method of a builtin type": (int.bit_length, False),
}  # fmt: skip
#: What only loky takes, as arenite does.
BY_VALUE = {
    "lambda": lambda x: x + 1,
    "lambda with a global": lambda x: plus(x) + FACTOR,
    "closure": closure(4),
    "closure that counts": counter(),
    "closure with a list": recording(),
    "function with an attribute of its own": own_attribute(),
    "function with many attributes": many_attributes(),
    "recursive closure": local_factorial(),
    "attribute of another function": counts_elsewhere(),
    "attributes that another function sets": counts_by_another(),
    "defaults of another function": counts_in_defaults(),
    "globals of no module": counts_in_own_globals(),
    "method of a local class": local_class().get,
    "partial of a lambda": functools.partial(lambda a, b: a - b, 10),
    "lambda that fails": lambda x: x / 0,
}
ITEMS = [1, 2, 3, 4, 5]

ON_EXECUTOR = {
    "submit": lambda ex, call: [ex.submit(call, item).result() for item in ITEMS],
    "map": lambda ex, call: list(ex.map(call, ITEMS)),
    # As many that short ones are sent in packets.
    "many": lambda ex, call: list(ex.map(call, ITEMS * 8)),
    "chunks": lambda ex, call: list(ex.map(call, ITEMS, chunksize=2)),
}
ON_POOL = {
    "apply": lambda pool, call: [pool.apply(call, (item,)) for item in ITEMS],
    # The calls of a chunk share what the function holds elsewhere.
    "pool map": lambda pool, call: pool.map(call, ITEMS, chunksize=1),
    "imap": lambda pool, call: list(pool.imap(call, ITEMS)),
    "imap_unordered": lambda pool, call: sorted(pool.imap_unordered(call, ITEMS), key=repr),
    "starmap": lambda pool, call: pool.starmap(call, [(item,) for item in ITEMS], chunksize=3),
}
#: With `multiprocessing`, exceptions end a chunk, and an exit ends the worker, whose call never returns.
NOT_ON_POOL = {"exits"}
SETUPS = {"one worker": 1, "two workers": 2}
#: Those that a worker which is replaced after two calls has to get again.
RECYCLED = [name for name, (_, keeps) in BY_NAME.items() if keeps]
RECYCLED += ["plus", "handled", "locked", "fibonacci", "dispatched", "bound method", "slots", "dataclass"]


def names():
    """The programs, by the backends that they run on besides arenite."""
    for setup in SETUPS:
        for way in ON_EXECUTOR:
            for name, (_, keeps) in BY_NAME.items():
                if not keeps or setup == "one worker":
                    yield f"{setup}, {way}: {name}", ["fork", "spawn"]
            for name in BY_VALUE:
                yield f"{setup}, {way}: {name}", ["loky"]
    for name in RECYCLED:
        yield f"recycled: {name}", ["fork", "spawn"]
    for way in ON_POOL:
        for name in BY_NAME:
            if name not in NOT_ON_POOL:
                yield f"pool, {way}: {name}", ["fork", "spawn"]


def programs(which):
    wanted = [name for name, others in backends.drawn(names()) if which == "arenite" or which in others]
    for setup, workers in SETUPS.items():
        for way, run in ON_EXECUTOR.items():
            here = f"{setup}, {way}: "
            mine = [name.removeprefix(here) for name in wanted if name.startswith(here)]
            if mine:
                with backends.executor(which, workers) as ex:
                    for name in mine:
                        call = BY_VALUE.get(name) or BY_NAME[name][0]
                        # The first use and the second.
                        yield here + name, [backends.outcome(lambda: run(ex, call)) for _ in range(2)]
    for way, run in ON_POOL.items():
        yield from on_pool(which, f"pool, {way}: ", wanted, run)
    yield from on_pool(which, "recycled: ", wanted, ON_POOL["apply"], maxtasksperchild=2)


def on_pool(which, here, wanted, run, **options):
    mine = [name.removeprefix(here) for name in wanted if name.startswith(here)]
    if mine:
        with backends.pool(which, **options) as pool:
            for name in mine:
                yield here + name, [backends.outcome(lambda: run(pool, BY_NAME[name][0])) for _ in range(2)]


if __name__ == "__main__":
    backends.main(programs)
