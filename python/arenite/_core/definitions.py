"""The parts of the program's own modules that an executor has sent: `Definitions`; `Bundle`, which goes with tasks.

A *variable* is a global of such a module, or a variable of a *definition*: a function, class, cell or other object of
which each worker has one. No pickle contains a definition: it has the number of the definition.
Variables that share objects which can change are a *group*, and one pickle, so that pickle keeps what they share. A
group has a number. It gets another number when the program has changed the pickle. A bundle has all groups that a task
needs; the worker sets those variables that it does not have by this number. The others keep the state that tasks of the
worker have given them.
"""

from __future__ import annotations

import itertools
import sys
import weakref
from contextlib import contextmanager, nullcontext
from io import BytesIO
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any

from .._arenite import Watch
from . import by_name, grouping, locks, mirror, objects, out_of_band, pickling, reach, values
from .process import imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from .._arenite import Buffer, Engine
    from . import inherit
    from .signatures import Part
    from .sharing import Key

#: A bundle up to this length goes with each task. A longer bundle is in the arena.
_SHORT = 2048
#: The number of bundles that are stored.
_MOST_BUNDLES = 128
#: The number of copies of arrays: workers keep the arrays in globals, and the engine has an entry for each.
_MOST_COPIES = 4000

#: The seconds for which other threads wait at each further attempt to pickle definitions that they have changed
#: meanwhile.
_PAUSES = (0.01, 0.04, 0.16, 0.64, 2.56)

_IMPORTING = (
    "this process was started by multiprocessing and is importing the main file, which submits a task: put that below "
    'if __name__ == "__main__":'
)


# ---- what was sent


class Bundle:
    """The definitions that a task needs."""

    __slots__ = ("_prefix", "_buffers", "_owner", "_groups", "_watch")

    def __init__(
        self, prefix: bytes, buffers: list[Part], groups: list[grouping.Group], watch: Watch, owner: Definitions
    ) -> None:
        #: Empty if the task needs no definitions.
        self._prefix = prefix
        self._buffers = buffers
        self._watch = watch
        #: The groups whose objects may have changed.
        self._groups = [group for group in groups if not group.is_pure or group.is_spoilt]
        # A weak reference: a cycle would keep the workers of a dropped executor.
        self._owner = weakref.ref(owner)

    def is_current(self) -> bool:
        """Whether the program has changed nothing in the bundle since it was made."""
        owner = self._owner()
        if owner is None or not self._watch.is_current():
            return False
        # Another bundle may have sent other objects.
        return all(owner.is_latest(group) and group.is_current(owner) for group in self._groups)

    def before(self, head: bytes, kind: int, buffers: list[Part]) -> tuple[bytes, int, list[Part]]:
        """Adds the bundle before the head and the buffers of a task."""
        if not self._prefix:
            return head, kind, buffers
        return self._prefix + head, kind | pickling.DEFINITIONS, [*self._buffers, *buffers]


# ---- the definitions of an executor


class Definitions:
    """The state that the workers of an executor have got, and the pickling of values for these workers."""

    def __init__(self, is_sandboxed: bool = False) -> None:
        self.engine: Engine | None = None
        #: A sandboxed worker imports no modules.
        self.copies_globals = is_sandboxed
        #: Whether workers have what the main file has set.
        self.runs_main = False
        #: Functions that are pickled by name; and the functions by this name.
        self.functions: dict[Any, pickling.Function] = {}
        self.named: dict[bytes, Any] = {}
        self.numbers = itertools.count(1)
        #: The group of each global, as it was sent last.
        self.groups: dict[Key, grouping.Group] = {}
        #: What was pickled last, to see whether it has changed.
        self.latest: grouping.Group | None = None
        #: By the identity of the object. Groups that refer to a definition keep it.
        self._definitions: weakref.WeakValueDictionary[int, grouping.Definition] = weakref.WeakValueDictionary()
        self._by_number: weakref.WeakValueDictionary[int, grouping.Definition] = weakref.WeakValueDictionary()
        #: Sentinels by their identity, with the number of each.
        self._sentinels: dict[int, tuple[object, int]] = {}
        self._bundles: dict[frozenset[Key], Bundle] = {}
        #: By the identity of the array. Groups keep them.
        self._copies: weakref.WeakValueDictionary[int, grouping.Copy] = weakref.WeakValueDictionary()
        #: Functions that are pickled by value, by identity: the objects in their pickles, and the pickles.
        self._constants: dict[int, tuple[weakref.ref[FunctionType], list[Any], pickling.Function]] = {}
        #: The functions of the last pickle, for error messages.
        self.users: dict[Key, str] = {}
        #: Serves the objects of `multiprocessing` that workers share with the program.
        self.server: inherit.Server | None = None
        self._lock = locks.lock()

    def close(self) -> None:
        """Called when the workers have ended."""
        if self.server is not None:
            self.server.close()

    def passing(self) -> AbstractContextManager[None]:
        """Returns a context in which objects of `multiprocessing` can be pickled. A sandboxed worker cannot reach
        them."""
        if self.copies_globals or imported("multiprocessing.context") is None:
            return nullcontext()
        from . import inherit

        return inherit.passing(self)

    def dump(
        self,
        value: Any,
        private: bool,
        beside: Callable[..., out_of_band.Beside] = out_of_band.Arguments,
        picklers: list[by_name.Pickler] | None = None,
        takes_values: bool = False,
    ) -> tuple[bytes, list[Part], int, set[Key]]:
        """Pickles a value. Returns the result of `pickling.dump`, and the names in the program's modules that it refers
        to. `picklers`: gets the pickler, whose memo has the objects pickled; `takes_values`:
        with values in place of futures."""
        file, taken = BytesIO(), beside(self.engine, private)
        if takes_values:
            taken.values = values.Values()
        pickler = by_name.Pickler(file, taken)
        pickler.copies_globals = self.copies_globals
        pickler.dump(value)
        self.users = pickler.users
        if taken.values is not None and taken.values.futures:
            taken.values.check(value)
        if picklers is not None:
            picklers.append(pickler)
        return file.getvalue(), taken.buffers, taken.copied, pickler.names

    def constant(self, function: FunctionType, held: list[Any]) -> pickling.Function | None:
        """Returns the recorded pickle of a function that is sent by value, if it is still valid. `held`: the objects
        that a pickle has or refers to."""
        known = self._constants.get(id(function))
        if known is None or known[0]() is not function:
            return None
        is_valid = len(known[1]) == len(held) and all(map(is_, known[1], held)) and known[2].is_current()
        return known[2] if is_valid else None

    def keep(self, function: FunctionType, held: list[Any], made: pickling.Function) -> None:
        """Records the pickle of a function that refers to nothing that can change, as long as the function exists."""
        key, constants = id(function), self._constants
        constants[key] = weakref.ref(function, lambda _: constants.pop(key, None)), held, made

    def refer(self, function: Any, names: set[Key]) -> None:
        """Adds the names that a function refers to, if the function is pickled by name."""
        pickler = by_name.Pickler(BytesIO(), out_of_band.Beside(None, False))
        pickler.by_name(function, function.__module__, function.__qualname__)
        names |= pickler.names

    def copy(self, data: bytes) -> Buffer:
        assert self.engine is not None
        return self.engine.copy(data)

    # ---- bundles

    def bundle(self, names: Iterable[Key]) -> Bundle:
        """Returns the bundle of definitions that these names need."""
        key = frozenset(names)
        known = self._bundles.get(key)
        if known is not None and known.is_current():
            return known
        with self._lock:
            process = imported("multiprocessing.process")
            if process is not None and getattr(process.current_process(), "_inheriting", False):
                raise RuntimeError(_IMPORTING)
            beside: out_of_band.Beside = out_of_band.Arguments(self.engine, False)
            data, groups, watch = self._define(key, beside)
            prefix, buffers = b"", beside.buffers
            # Otherwise all names are those of builtins.
            if groups:
                if buffers or len(data) > _SHORT:
                    assert self.engine is not None
                    buffers, data = [self.engine.copy(data), *buffers], b""
                prefix = mirror.HEADER.pack(next(self.numbers), len(buffers), len(data)) + data
            if len(self._bundles) >= _MOST_BUNDLES:
                self._bundles.pop(next(iter(self._bundles)), None)
            made = self._bundles[key] = Bundle(prefix, buffers, groups, watch, self)
            return made

    def of_setup(self, names: Iterable[Key]) -> bytes:
        """Returns the definitions that an initializer needs, with the data of arrays. No engine exists yet."""
        with self._lock:
            return self._define(names, out_of_band.Arguments(None, False))[0]

    def of_lookup(self, home: str, name: str) -> bytes:
        """Returns the same for a global that a task looks up; nothing if the program does not have it."""
        has_global = name in grouping.globals_of(home) and not reach.is_importable(home)
        return self.of_setup([(home, by_name.OPTIONAL + name)]) if has_global else b""

    def _define(self, names: Iterable[Key], beside: out_of_band.Beside) -> tuple[bytes, list[grouping.Group], Watch]:
        """Pickles the definitions of these names, and of everything that they refer to."""
        raced: BaseException | None = None
        is_deep = False
        for pause in (0.0, *_PAUSES):
            try:
                with _pausing_others(pause), self.passing():
                    try:
                        run = grouping.Run(self, is_deep)
                        run.collect(names)
                    except RecursionError:
                        # Objects are linked in chains that are too long for recursion.
                        run = grouping.Run(self, True)
                        run.collect(names)
                    groups = run.groups()
                    return run.dump(groups, beside), groups, run.watch()
            except objects.Raced as error:
                raced = error.__cause__
        raise RuntimeError(f"another thread keeps changing a global: {raced}") from raced

    # ---- what was sent

    def _groups_at(self, key: Key) -> Any:
        home, name = key
        if type(home) is str:
            return self.groups, key
        definition = self._by_number.get(home)
        return {} if definition is None else definition.groups, name

    def record(self, group: grouping.Group) -> None:
        """Gives a group the number of what was sent before, if that is the same; otherwise a new number."""
        places = [self._groups_at(key) for key in group.keys]
        known = [groups.get(name) for groups, name in places]
        before = known[0]
        if before is not None and group.is_same(before):
            group.number, group.first = before.number, before.first
        else:
            group.number = next(self.numbers)
            group.first = tuple(key for key, one in zip(group.keys, known, strict=True) if one is None)
        for groups, name in places:
            groups[name] = group

    def is_latest(self, group: grouping.Group) -> bool:
        """Whether no other bundle has sent other objects for the variables of a group."""
        for key in group.keys:
            groups, name = self._groups_at(key)
            if name not in groups or groups[name].number != group.number:
                return False
        return True

    def bound_in(self, home: str) -> list[str]:
        """Returns the globals of a module that were sent."""
        return [name for at, name in list(self.groups) if at == home]

    def definition(self, obj: Any) -> grouping.Definition:
        """Returns the record of a function, class or other object of which a worker has one."""
        known = self._definitions.get(id(obj))
        if known is None or known.object() is not obj or known.shape != grouping.shape_of(obj):
            known = self._definitions[id(obj)] = grouping.Definition(obj, next(self.numbers))
            self._by_number[known.number] = known
        return known

    def sentinel(self, obj: object) -> int:
        """Returns the number of a sentinel."""
        known = self._sentinels.get(id(obj))
        if known is None:
            known = self._sentinels[id(obj)] = obj, next(self.numbers)
        return known[1]

    def copy_of(self, array: Any) -> grouping.Copy | None:
        """Returns the copy of a large array. Makes a copy if none exists or the array has changed. Returns None if the
        array is part of the pickle."""
        if array.nbytes < out_of_band.OUT_OF_BAND or array.dtype.hasobject:
            return None
        known = self._copies.get(id(array))
        if known is not None and out_of_band.is_same(array, known.array):
            return known
        if len(self._copies) >= _MOST_COPIES:
            return None
        made = grouping.Copy(array, next(self.numbers))
        if self.engine is None:
            made.array = array.copy("K")
        elif self._place(made, array) is None:
            return None
        self._copies[id(array)] = made
        return made

    def _place(self, copy: grouping.Copy, array: Any) -> Any:
        beside = out_of_band.Arguments(self.engine, False)
        reduced = beside.reduce_array(array)
        if reduced is NotImplemented or reduced[0] not in out_of_band.AS_IT_IS:
            return None
        assert self.engine is not None
        self.engine.count_copied(beside.copied)
        copy.reduced, copy.array = reduced, out_of_band.restore_view(*reduced[1])
        return reduced

    def placed(self, copy: grouping.Copy, beside: out_of_band.Beside) -> grouping.Copy:
        """Returns a copy whose data is in the arena, if there is one."""
        if beside.arena is None or copy.reduced is None and self._place(copy, copy.array) is None:
            inner = grouping.Copy(copy.array, copy.number)
            return inner
        return copy


@contextmanager
def _pausing_others(seconds: float) -> Iterator[None]:
    """Lets other threads wait so long until this thread pauses for them."""
    if not seconds:
        yield
        return
    with _pausing:
        before = sys.getswitchinterval()
        sys.setswitchinterval(max(before, seconds))
        try:
            yield
        finally:
            sys.setswitchinterval(before)


_pausing = locks.lock()
