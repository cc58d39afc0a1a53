"""Encodes calls and results as bytes and memory of the arena.

A value is pickled with protocol 5. Large data is not part of the pickle, but of a list of buffers in the arena: see
`out_of_band`. Data is pickled by value. Objects that a module of the program defines are pickled by name: see
`by_name`. If a worker cannot import that module, such as `__main__` or a notebook, `definitions` sends
the definitions separately.
"""

from __future__ import annotations

import sys
from io import BytesIO
from types import BuiltinFunctionType, FunctionType
from weakref import ref

from . import mirror, out_of_band, reach
from .by_name import Pickler
from .out_of_band import Arguments as Arguments
from .out_of_band import Beside as Beside

# A worker imports this before its first task: `typing` and `pickle`, with their imports, take a fifth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Sequence
    from functools import partial
    from typing import Any

    from .definitions import Bundle, Definitions
    from .out_of_band import Arena as Arena
    from .signatures import Part
else:
    import _pickle as pickle
    from _functools import partial


#: The pickle of the arguments is a tuple of positional arguments, without keyword arguments.
POSITIONAL = 1
#: Instead of the function's pickle, the call has its digest and the number of its buffers. The buffers begin with the
#: function's pickle and its buffers.
FUNCTION_IN_BUFFER = 2
#: The pickle of the arguments is a sequence of single arguments, one for each call.
MANY = 4
#: The pickle of the arguments is a sequence of argument tuples, one for each call.
MANY_TUPLES = 8
#: Definitions precede the function's pickle, and their buffers come first: see `mirror.define`.
DEFINITIONS = 16
#: Instead of the function's pickle, the call has the names of its module and of itself.
NAMED = 32
#: A worker may keep the function: no object that it refers to can change.
KEPT = 64
#: The arguments are a packet of calls, for `worker.run_packet`. Its journal is the first buffer of the arguments.
#: (`context` defines the bits in between.)
PACKED = 512
JOURNALED = 1024
#: The calls of a packet may share their function, although it is pickled by value.
SHARED = 2048
#: The longest pickle of a function that is part of each call.
_SHORT_FUNCTION = 1024
_DIGEST = 16


def dump(
    value: Any, arena: Arena | None, private: bool = False, beside: Callable[[Arena | None, bool], Beside] = Beside
) -> tuple[bytes, list[Part], int]:
    """Pickles a value. Returns the pickle, its buffers, and the number of bytes copied into the arena.

    Without an arena, all data is part of the pickle. `private`: the receiver may write to its copies. `beside`: makes
    the object that takes the arrays.
    """
    file, taken = BytesIO(), beside(arena, private)
    Pickler(file, taken).dump(value)
    return file.getvalue(), taken.buffers, taken.copied


def dump_plain(value: Any) -> bytes | None:
    """Pickles numbers, text, None and tuples of these. Returns None for other values."""
    kind = type(value)
    if kind is tuple:
        for item in value:
            if type(item) not in reach.PLAIN:
                return None
    elif kind not in reach.PLAIN:
        return None
    return pickle.dumps(value, 5)


class Function:
    """A pickled function: the part of a call that is the same for all its calls."""

    __slots__ = ("head", "kind", "buffers", "copied", "names", "own", "_bundle", "_changing", "_definitions", "_source")

    def __init__(
        self,
        data: bytes,
        kind: int,
        buffers: list[Part],
        copied: int,
        names: frozenset[tuple[str, str]],
        definitions: Definitions,
        source: tuple[Any, Pickler] | None = None,
    ) -> None:
        #: The function and its pickler, whose memo has the objects of the function, if tasks can change them.
        self._source = source
        #: The identities of those objects that tasks can change or compare; None before they are needed.
        self._changing: set[int] | None = None
        #: The head, the kind and the buffers of a call.
        self.head = data
        self.kind = kind
        self.buffers = buffers
        #: The number of bytes that were copied for it.
        self.copied = copied
        #: The names in the program's modules that it refers to.
        self.names = names
        #: Head, kind and buffers without definitions.
        self.own = data, kind, buffers
        self._bundle: Bundle | None = None
        # The definitions refer to this object, and the executor refers to the definitions.
        self._definitions = ref(definitions)
        if names:
            self._bundle = definitions.bundle(names)
            self.head, self.kind, self.buffers = self._bundle.before(*self.own)

    def is_current(self) -> bool:
        """Whether the objects that this function refers to are unchanged since they were last sent."""
        return self._bundle is None or self._bundle.is_current()

    def referring_to(self, names: set[tuple[str, str]], definitions: Definitions) -> Function:
        """Returns a copy of this function that also sends the definitions of these names, to which the arguments of a
        call refer."""
        return Function(*self.own, 0, self.names | names, definitions, self._source)

    def has_objects(self) -> bool:
        """Whether the function contains containers that `Stock` would write without a pickler."""
        if self._source is None:
            return False
        function, pickler = self._source
        own = id(function.keywords) if issubclass(type(function), partial) else None
        return any(key != own and type(one) in reach.CHANGING for key, (_, one) in pickler.memo.copy().items())

    def picklers(self) -> list[Pickler] | None:
        """Returns a list for the pickler of arguments; None if the function shares no objects with them."""
        return None if self._source is None else []

    def objects(self) -> frozenset[int]:
        """Returns the identities of the objects of this function that tasks can change."""
        return frozenset() if self._source is None else frozenset(self._source[1].memo.copy())

    def shares(self, picklers: list[Pickler] | None) -> bool:
        """Whether the function contains objects of the arguments that tasks can change or compare."""
        if not picklers or self._source is None:
            return False
        if self._changing is None:
            memo = self._source[1].memo.copy()
            self._changing = {key for key, (_, one) in memo.items() if reach.has_identity(one)}
        return not self._changing.isdisjoint(picklers[0].memo.copy())

    def call(
        self, call: Any, kind: int, private: bool, beside: Callable[[Arena | None, bool], Beside] = Arguments
    ) -> tuple[bytes, bytes, int, list[Part], int]:
        """Pickles the arguments of a call. Returns head, pickle, kind and buffers of the call, and the number of bytes
        copied."""
        definitions = self._definitions()
        if definitions is None:
            raise RuntimeError("the executor of this function is gone")
        picklers = self.picklers()
        data, buffers, copied, names = definitions.dump(call, private, beside, picklers, True)
        if self.shares(picklers):
            # One pickle keeps them the same.
            assert self._source is not None
            call, kind = _together(self._source[0], call, kind)
            return pickle_function(call_together, definitions, private).call(call, kind, private, beside)
        if names <= self.names:
            return self.head, data, self.kind | kind, [*self.buffers, *buffers], copied
        head, own, before = definitions.bundle(self.names | names).before(*self.own)
        return head, data, own | kind, [*before, *buffers], copied


def call_together(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _together(function: Any, call: Any, kind: int) -> tuple[Any, int]:
    """Returns the arguments of calls of `call_together`, and their kind."""
    if kind & MANY:
        return [(function, one) for one in call], kind & ~MANY | MANY_TUPLES
    if kind & MANY_TUPLES:
        return [(function, *one) for one in call], kind
    if kind & POSITIONAL:
        return (function, *call), kind
    return ((function, *call[0]), call[1]), kind


def pickle_function(
    function: Any,
    definitions: Definitions,
    private: bool,
    beside: Callable[[Arena | None, bool], Beside] = Arguments,
) -> Function:
    """Pickles a function for any number of calls. Puts a long pickle into the arena once. A function with a name is
    pickled once; another function each time, because the objects that it refers to may have changed."""
    is_plain = type(function) in (FunctionType, BuiltinFunctionType, type)
    if is_plain:
        known = definitions.functions.get(function)
        if known is not None and known.is_current() and reach.is_global(function):
            return known
    if is_plain and reach.is_global(function):
        names: set[tuple[str, str]] = set()
        data = f"{function.__module__}:{function.__qualname__}".encode()
        definitions.refer(function, names)
        if len(definitions.functions) >= _MOST_FUNCTIONS:
            definitions.functions.clear()
            definitions.named.clear()
        # What had this name before may be freed.
        if (previous := definitions.named.setdefault(data, function)) is not function:
            definitions.functions.pop(previous, None)
            definitions.named[data] = function
        made = definitions.functions[function] = Function(data, NAMED, [], 0, frozenset(names), definitions)
        return made
    kind = 0
    held: list[Any] = []
    if type(function) is FunctionType and _is_constant(function, held):
        kind = KEPT
        if (known := definitions.constant(function, held)) is not None:
            return known
    picklers: list[Pickler] | None = None if kind else []
    data, buffers, copied, found = definitions.dump(function, private, beside, picklers)
    if buffers or len(data) > _SHORT_FUNCTION:
        from hashlib import blake2b

        digest = blake2b(data, digest_size=_DIGEST).digest() if kind else bytes(_DIGEST)
        buffers = [definitions.copy(data), *buffers]
        data, kind = digest + (len(buffers) - 1).to_bytes(4, "little"), kind | FUNCTION_IN_BUFFER
    source = (function, picklers[0]) if picklers else None
    made = Function(data, kind, buffers, copied, frozenset(found), definitions, source)
    if kind & KEPT:
        definitions.keep(function, held, made)
    return made


def _is_constant(function: FunctionType, held: list[Any]) -> bool:
    from .codes import is_constant  # Not in each worker.

    return is_constant(function, held)


#: The number of functions for which an executor stores names.
_MOST_FUNCTIONS = 1024


def unpickle_function(head: bytes, kind: int, buffers: list[Any], private: bool, known: dict[bytes, Any]) -> Any:
    """Returns the function of a call, and removes its buffers from `buffers`. `known`: functions that cannot change,
    each with the number of changes of definitions before it was loaded, and the places of functions with a name."""
    function, make = open_function(head, kind, buffers, private, known)
    return function if make is None else make()


def open_function(
    head: bytes, kind: int, buffers: list[Any], private: bool, known: dict[bytes, Any]
) -> tuple[Any, Callable[[], Any] | None]:
    """Like `unpickle_function`, for any number of calls. Returns the function, or a factory that makes it for each
    call."""
    if kind & DEFINITIONS:
        head = mirror.define(head, buffers, private)
    if kind & NAMED:
        place = known.get(head)
        if place is None:
            module, _, name = head.decode().partition(":")
            place = module, name.split(".")
            # Waits for another lane that imports the module now.
            __import__(module)
            _keep(known, head, place)
        return _find(*place), None
    data: Any = head
    own: list[Any] = []
    if kind & FUNCTION_IN_BUFFER:
        count = 1 + int.from_bytes(head[_DIGEST:], "little")
        data, *own = buffers[:count]
        del buffers[:count]
    if not kind & KEPT:
        return None, lambda: load(data, own, private)
    changes = mirror.changes()
    function, loaded = known.get(head, (None, -1))
    if loaded != changes:
        # The functions and classes that it refers to by name may be others now.
        function = load(data, own, private)
        _keep(known, head, (function, changes))
    return function, None


def _keep(known: dict[bytes, Any], head: bytes, value: Any) -> None:
    if len(known) >= _MOST_KNOWN:
        known.pop(next(iter(known)), None)
    known[head] = value


def _find(module: str, names: list[str]) -> Any:
    """Finds a function by name at each call: its module may have been reloaded, or may have replaced the function."""
    found: Any = sys.modules.get(module)
    if found is None:
        __import__(module)
        found = sys.modules[module]
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError:
            raise AttributeError(f"Can't get attribute {'.'.join(names)!r} on {sys.modules[module]!r}") from None
    return found


#: The number of functions that a worker stores.
_MOST_KNOWN = 256


def load(data: Any, buffers: Sequence[Any], private: bool = False) -> Any:
    """Returns the value of a pickle. `private`: with private copies instead of views of the arena. From 256 KiB on,
    each page is copied when it is written."""
    return pickle.loads(data, buffers=out_of_band.own(buffers, private))


def itself(value: Any) -> Any:
    return value


#: Makes a value from a pickle and its buffers. Workers set it.
load_value: Callable[[Any, Any], Any] = load


def value_of(reply: tuple[Any, Any]) -> Any:
    """Returns the value of another task, which is an argument of this one."""
    return load_value(*reply)


