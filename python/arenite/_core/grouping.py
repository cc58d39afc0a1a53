"""Groups of variables: see `definitions`. `Run` collects those of a bundle."""

from __future__ import annotations

import itertools
import linecache
import pickle
import sys
import warnings
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from io import BytesIO
from types import CellType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from .._arenite import Snapshot, Watch
from .._errors import ArenaFull
from . import by_name, codes, elsewhere, making, mirror, objects, out_of_band, reach
from .process import imported
from .sharing import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .definitions import Definitions
    from .sharing import Key


_ABSENT = object()
#: Names of a module that its tasks get although they begin with two underscores.
_SENT = ("__file__", "__getattr__")
#: Types of generators of random numbers, and the modules for which a warning about them was given.
_GENERATORS = {("numpy.random._generator", "Generator"), ("numpy.random.mtrand", "RandomState"), ("random", "Random")}
_warned: set[str] = set()
#: How much a task needs a variable that cannot be sent: it is left out, its use fails, or the task itself fails. A root
#: is named by the task itself.
_OPTIONAL, _USED, _NEEDED, _ROOT = range(4)


class Definition:
    """A function, class or other object of which each worker has one."""

    __slots__ = ("object", "number", "names", "groups", "found", "shape", "__weakref__")

    def __init__(self, obj: Any, number: int) -> None:
        try:
            self.object: Any = weakref.ref(obj)
        except TypeError:
            self.object = lambda: obj
        self.number = number
        #: The names that functions use, if this is a dictionary of globals without a module.
        self.names: set[str] = set()
        #: The groups of its variables.
        self.groups: dict[str, Group] = {}
        self.shape = shape_of(obj)
        #: The definitions that it needs to be made.
        self.found: dict[int, Definition] = {}


def shape_of(obj: Any) -> Any:
    """Returns what a worker needs to make an object: if the program changes that, the object has another definition."""
    if type(obj) is FunctionType:
        return obj.__code__
    return (obj.__name__, obj.__bases__, obj.__doc__) if isinstance(obj, type) else None


class Copy:
    """A copy of a large array, to send it, and to notice that the program changes it."""

    __slots__ = ("array", "number", "reduced", "__weakref__")

    def __init__(self, array: Any, number: int) -> None:
        self.array, self.number = array, number
        #: The array in the arena; None before there is one.
        self.reduced: Any = None

    def __reduce__(self) -> Any:
        if self.reduced is None:
            return making.itself, (self.array,)
        return out_of_band.AS_IT_IS[self.reduced[0]], self.reduced[1]


class Group:
    """Variables that share objects, as they were sent."""

    def __init__(self, owner: Definitions, keys: tuple[Key, ...], values: list[Any], is_deep: bool, run: Any) -> None:
        self.number = 0
        self.keys = keys
        #: Whether something stands for an object that cannot be pickled, as long as it cannot.
        self.is_spoilt = False
        #: The variables that were never sent before: what code of a worker has set there meanwhile stays.
        self.first: tuple[Key, ...] = ()
        #: Whether making the values runs no code of the program, and they cannot change.
        self.is_pure = (
            all(map(_is_fixed, values)) or keys[0][1] == mirror.WHOLE and values[0][0] is mirror.fill_function
        )
        self._is_deep = is_deep
        #: The values of variables of definitions. Globals are read again, so that the program can free them.
        self._held = [None if type(key[0]) is str else value for key, value in zip(keys, values, strict=True)]
        self._snapshot = None
        if not self.is_pure and all(type(value) in (list, dict) or objects.is_dict(value) for value in values):
            self._snapshot = Snapshot.of([value if type(value) in (list, dict) else value.__dict__ for value in values])
        shared = Shared()
        if not self.is_pure:
            for key, value in zip(keys, values, strict=True):
                shared.add(key, value)
        #: The identities of the objects in it that can change.
        self._objects = shared.first.keys()
        self.count, self.names, self.users, self.found, self.copies, self.reloads = 1, set(), {}, {}, {}, {}
        if all(map(codes.is_atom, values)):
            self.data = pickle.dumps(values, 5)
            return
        places = {} if self.is_pure or owner.copies_globals else objects.imported_in(values)
        given = [objects.Imported(one, places[id(one)]) if id(one) in places else one for one in values]
        pickler = objects.Placed(places, owner, shared, run) if places else objects.Pickler(owner, shared, run)
        self.data = pickler.dump_all(given, is_deep)
        if not places and b"==SUPPRESS==" in self.data and (argparse := imported("argparse")) is not None:
            # A text that parsers compare by identity.
            pickler = objects.Placed({id(argparse.SUPPRESS): ("argparse", "SUPPRESS")}, owner, shared, run)
            self.data = pickler.dump_all(given, is_deep)
        self.count = pickler.count
        self.names, self.users, self.found = pickler.names, pickler.users, pickler.found
        self.copies, self.reloads = pickler.copies, pickler.reloads

    @property
    def is_watched(self) -> bool:
        """Whether it has not changed if the variables have the same objects, and its snapshot is current."""
        return not self.is_spoilt and (self.is_pure or self._snapshot is not None)

    def is_current(self, owner: Definitions) -> bool:
        """Whether the program has not changed the objects."""
        if self.is_spoilt:
            return False
        if self._snapshot is not None:
            return self._snapshot.is_current()
        try:
            keys = zip(self.keys, self._held, strict=True)
            values = [globals_of(home)[name] if type(home) is str else held for (home, name), held in keys]
            # Kept until the next one: it may have new copies.
            now = owner.latest = Group(owner, self.keys, values, self._is_deep, None)
        except ArenaFull:
            raise  # The caller waits for room.
        except (Exception, objects.Raced):
            # It cannot be pickled as it is now: `Definitions.bundle` finds the reason, if the task needs it at all.
            return False
        # Equal objects may be others, or shared with others.
        return now.is_same(self) and now._objects == self._objects

    def is_same(self, other: Group) -> bool:
        """Whether both are the same for workers."""
        return (self.keys, self.data, self.reloads) == (other.keys, other.data, other.reloads)


#: Attributes of functions and classes that are compared by identity.
_OF_FUNCTION = (
    *("__code__", "__defaults__", "__kwdefaults__", "__name__", "__qualname__", "__doc__", "__annotations__"),
    "__module__",
)
_OF_CLASS = ("__name__", "__bases__")


class _Watched:
    """The objects that must be unchanged for a bundle to be current."""

    def __init__(self) -> None:
        self.items: list[tuple[dict[Any, Any], Any, Any]] = []
        self.absent: list[tuple[dict[Any, Any], Any]] = []
        self.attributes: list[tuple[Any, str, Any]] = []
        self.mappings: list[tuple[Any, list[Any], list[Any]]] = []
        self.names: list[tuple[dict[Any, Any], list[Any]]] = []

    def add_item(self, space: dict[str, Any], name: str, value: Any) -> None:
        """`value`: what the bundle has. The global may have another value by now."""
        if value is not _ABSENT:
            self.items.append((space, name, value))
        else:
            self.absent.append((space, name))

    def add_definition(self, definition: Definition) -> None:
        obj = definition.object()
        if type(obj) is dict:
            for name in definition.names:
                self.add_item(obj, name, obj.get(name, _ABSENT))
        elif type(obj) is CellType:
            with suppress(ValueError):  # The cell is empty.
                self.attributes.append((obj, "cell_contents", obj.cell_contents))
        elif isinstance(obj, FunctionType):
            for name in _OF_FUNCTION:
                with suppress(Exception):  # From Python 3.14 on, reading annotations may raise.
                    self.attributes.append((obj, name, getattr(obj, name)))
            for mapping in (obj.__kwdefaults__, obj.__annotations__, obj.__dict__):
                if mapping:
                    self.add_mapping(mapping)
        elif isinstance(obj, type):
            self.attributes += ((obj, name, getattr(obj, name)) for name in _OF_CLASS)
            self.add_mapping(vars(obj))
            for name in ("__annotations__", "__annotations_cache__"):
                if type(annotations := vars(obj).get(name)) is dict:
                    self.add_mapping(annotations)

    def add_mapping(self, mapping: Any) -> None:
        self.mappings.append((mapping, list(mapping.keys()), list(mapping.values())))


def _is_fixed(value: Any) -> bool:
    """Whether a value is compared by identity: it cannot change, or the worker keeps its tasks' changes of it."""
    return all(map(_is_part_fixed, codes.parts_of_tuples(value)))


def _is_part_fixed(value: Any) -> bool:
    # Not `isinstance`, for which a lazy object makes its value.
    kind = type(value)
    if codes.is_one_of(kind, codes.ATOMS) or codes.is_one_of(kind, objects.BY_IDENTITY) or issubclass(kind, type):
        return True
    if kind is FunctionType:
        return True
    if kind is mirror.Unsent:
        return False
    if _find_shared()(value):
        return True
    # Properties and the like, but neither the program's descriptors nor callables with arguments that may change.
    return hasattr(kind, "__get__") and not issubclass(kind, (MethodType, partial)) and reach.is_of_library(kind)


def _is_simple(value: Any) -> bool:
    """Whether a value is never shared with others in a pickle: an atom, a function or a class."""
    kind = type(value)
    return codes.is_one_of(kind, codes.ATOMS) or issubclass(kind, (FunctionType, ModuleType, type))


def _find_shared() -> Callable[[Any], bool]:
    """Returns a function that finds objects of `multiprocessing` that workers share with the program."""
    if imported("multiprocessing.reduction") is None:
        return lambda _: False
    from . import inherit

    return inherit.is_shared


class Shell:
    """How a worker makes the object of a definition, and its variables."""

    def __init__(self, run: Run, obj: Any) -> None:
        pickler = objects.Pickler(run.owner, None, run)
        make, arguments, self.variables = pickler.describe(obj)
        pickler.dump((make, arguments))
        self.data = pickler.file.getvalue()
        self.names, self.users, self.found = pickler.names, pickler.users, pickler.found


class Run:
    """Collects the groups of one bundle."""

    def __init__(self, owner: Definitions, is_deep: bool) -> None:
        self.owner = owner
        self._is_deep = is_deep
        self._shared = Shared()
        self._watched = _Watched()
        #: The globals of modules, as they were when they were first needed: other threads may change them meanwhile.
        self._spaces: dict[str, dict[str, Any]] = {}
        self._values: dict[Key, Any] = {}
        self._levels: dict[Key, int] = {}
        self._made: dict[Key, Group] = {}
        #: Those of them that may share objects.
        self._grouped: set[Key] = set()
        self._left_out: set[Key] = set()
        #: The variables that are left, by the level of need.
        self._left: list[deque[Key]] = [deque() for _ in range(_ROOT + 1)]
        #: By the number of the definition. None while a shell is being made.
        self._shells: dict[int, Shell | None] = {}
        self._definitions: dict[int, tuple[Definition, int]] = {}
        self._users: dict[Key, str] = {}

    def collect(self, names: Iterable[Key]) -> None:
        """Makes the groups of these names, and of everything that they refer to."""
        for name in names:
            self._need_name(name, _ROOT)
        # Groups come last, when most of the variables that belong to them are known.
        later: deque[Key] = deque()
        while queue := next((queue for queue in reversed(self._left) if queue), later):
            key = queue.popleft()
            self._levels.setdefault(key, _OPTIONAL)
            if key in self._made or key in self._left_out:
                continue
            group = self._shared.group_of(key)
            if _is_simple(self._values[key]):
                self._make((key,))
                other = next((one for one in group if not _is_simple(self._values[one])), None)
                if other is not None:
                    later.append(other)
                continue
            is_complete = queue is later
            for one in group.copy() if is_complete else ():
                self._levels.setdefault(one, _OPTIONAL)
                if one not in self._made and one not in self._left_out and _is_simple(self._values[one]):
                    is_complete = False
                    self._make((one,))
            if is_complete:
                self._make(tuple(sorted((one for one in group if not _is_simple(self._values[one])), key=str)))
            elif key not in self._made and key not in self._left_out:
                later.append(key)

    # ---- what is needed

    def _need_name(self, key: Key, level: int) -> None:
        home, name = key
        if name == "*":
            space = self._space(home)
            self._watched.names.append((globals_of(home), list(space)))
            found = [one for one in space if one in _SENT or not one.startswith("__")]
            for one in [*found, *self.owner.bound_in(home)]:
                self._need_global((home, one), _OPTIONAL)
        elif name.startswith(by_name.OPTIONAL):
            self._need_global((home, name[1:]), _OPTIONAL)
        else:
            self._need_global(key, level)

    def _need_global(self, key: Key, level: int) -> None:
        value = self._space(key[0]).get(key[1], _ABSENT)
        if value is _ABSENT:
            if key not in self._levels:
                self._levels[key] = level
                self._watched.add_item(globals_of(key[0]), key[1], _ABSENT)
                if key not in self.owner.groups:
                    return  # It never existed.
                self._need(key, making.Removed, level)
            return
        if (type(value).__module__, type(value).__name__) in _GENERATORS:
            _warn_of_generator(*key)
        self._need(key, value, level)

    def _space(self, home: str) -> dict[str, Any]:
        space = self._spaces.get(home)
        if space is None:
            space = self._spaces[home] = dict(globals_of(home))
            items = (((home, name), value) for name, value in space.items() if not name.startswith("__"))
            found = [(key, value) for key, value in items if not codes.is_one_of(type(value), codes.ATOMS)]
            self._values.update(found)
            self._shared.add_module(found)
        return space

    def _need(self, key: Key, value: Any, level: int) -> None:
        known = self._levels.get(key, -1)
        if level <= known and not (value is making.Removed and key not in self._values):
            return
        self._levels[key] = level
        if known == -1 or key not in self._values:
            self._values[key] = value
            joined = self._shared.add(key, value)
            for one in itertools.chain(*joined) if self._grouped else ():
                if one in self._grouped:
                    self._grouped.remove(one)
                    del self._made[one]
                    self._left[self._levels[one]].append(one)
        self._left_out.discard(key)
        if key not in self._made:
            self._left[level].append(key)

    def refer(self, definition: Definition, obj: Any) -> None:
        """Makes the shell of a definition to which a pickle refers, so that the pickle fails if the shell cannot be
        made."""
        if definition.number not in self._shells:
            self._shells[definition.number] = None
            try:
                shell = self._shells[definition.number] = Shell(self, obj)
                definition.found = shell.found
            except BaseException:
                del self._shells[definition.number]
                raise
        elif self._shells[definition.number] is None:
            raise TypeError(f"cannot pickle {obj!r}, which needs itself to be made")

    def _need_definition(self, definition: Definition, level: int) -> None:
        _, known = self._definitions.get(definition.number, (None, -1))
        obj, number, inner = definition.object(), definition.number, min(level, _USED)
        if type(obj) is dict:
            for name in definition.names & obj.keys():
                self._need((number, name), obj[name], inner)
        if level <= known:
            return
        self._definitions[number] = definition, level
        shell = self._shells[number]
        assert shell is not None
        variables = dict(shell.variables)
        for name in definition.groups.keys() - variables.keys():
            variables[name] = making.Removed
        for name, value in variables.items():
            self._need((number, name), value, inner)
        is_root = level == _ROOT and type(obj) is FunctionType
        self._follow(shell, _NEEDED if is_root else inner, inner)

    def _follow(self, made: Shell | Group, of_names: int, of_definitions: int) -> None:
        """Adds what a pickle refers to."""
        self._users.update(made.users)
        for name in sorted(made.names):
            self._need_name(name, of_names)
        for definition in made.found.values():
            self._need_definition(definition, of_definitions)

    # ---- groups

    def _make(self, keys: tuple[Key, ...]) -> None:
        """Makes the group of these variables, without those that cannot be sent."""
        keys = tuple(key for key in keys if key not in self._left_out)
        try:
            group = self._group(keys)
        except Exception as error:
            if type(error) is RecursionError and not self._is_deep:
                raise
            if len(keys) == 1:
                self._fail(keys[0], error)
                return
            for key in keys:
                try:
                    self._group((key,))
                except Exception as reason:
                    self._fail(key, reason)
            left = tuple(key for key in keys if key not in self._left_out and key not in self._made)
            if len(left) == len(keys):
                raise
            if left:
                self._make(left)
            return
        self._accept(group)

    def _group(self, keys: tuple[Key, ...]) -> Group:
        return Group(self.owner, keys, [self._values[key] for key in keys], self._is_deep, self)

    def _accept(self, group: Group) -> None:
        self._made.update(dict.fromkeys(group.keys, group))
        self._grouped.update(key for key in group.keys if not _is_simple(self._values[key]))
        level = max(self._levels[key] for key in group.keys)
        inner = min(level, _USED)
        for key in group.keys:
            if type(key[0]) is str and type(value := self._values[key]) is not str:
                # An alias of a type may refer to classes by text.
                for name in codes.names_in(value):
                    self._need_name((key[0], by_name.OPTIONAL + name), _OPTIONAL)
        self._follow(group, inner, level if level == _ROOT and _is_simple(self._values[group.keys[0]]) else inner)

    def _fail(self, key: Key, error: Exception) -> None:
        """Handles a variable that cannot be pickled."""
        home, name = key
        level = self._levels[key]
        if type(home) is str:
            value = self._values[key]
            if not self.owner.copies_globals and (place := elsewhere.place_of(value)) is not None:
                # The worker's own object has to do.
                self._values[key] = objects.Imported(value, place, False)
                group = self._group((key,))
                group.is_pure = True
                self._accept(group)
                return
            if level == _OPTIONAL:
                self._left_out.add(key)
                return
            user = self._users.get(key) or self.owner.users.get(key)
            what = f"the global `{name}`" if user is None else f"`{user}` uses the global `{name}`"
            # Workers that have run the main file may have the global from there.
            if level >= _NEEDED and not (self.owner.runs_main and home == "__main__"):
                raise named(error, what) from error
        else:
            obj = self._definitions[home][0].object()
            what = f"`{getattr(obj, '__qualname__', obj)}` has the attribute `{name}`"
        value, unsent = self._values[key], mirror.Unsent(str(named(error, what)))
        # A function can be called if its other defaults can be sent.
        is_tuple = type(home) is not str and name == "__defaults__"
        self._values[key] = (
            tuple(one if by_name.Pickler.can_pickle(one) else unsent for one in value) if is_tuple else unsent
        )
        group = self._group((key,))
        group.is_spoilt = True
        self._accept(group)

    # ---- the bundle

    def watch(self) -> Watch:
        for key in [*self._made, *self._left_out]:
            home, name = key
            if type(home) is str and (value := self._spaces[home].get(name, _ABSENT)) is not _ABSENT:
                if key in self._left_out or self._made[key].is_watched:
                    self._watched.add_item(globals_of(home), name, value)
                    if objects.is_dict(value):
                        self._watched.attributes += (
                            (value, one, getattr(value, one)) for one in ("__class__", "__dict__")
                        )
        for definition, _ in self._definitions.values():
            self._watched.add_definition(definition)
        watched = self._watched
        return Watch(watched.items, watched.absent, watched.attributes, watched.mappings, watched.names)

    def groups(self) -> list[Group]:
        """Returns the groups in the order in which workers make them: what may run code of the program comes last, in
        the order in which the program has made it."""
        places = {
            key: place
            for home, space in self._spaces.items()
            for place, key in enumerate((home, name) for name in space)
        }
        groups = dict.fromkeys(self._made.values())
        found = sorted(groups, key=lambda group: (not group.is_pure, places.get(self._global_of(group), -1)))
        for group in found:
            self.owner.record(group)
        return found

    def _global_of(self, group: Group) -> Key:
        """Returns the first variable of a group; for one of a definition, the global with the definition."""
        home, name = group.keys[0]
        if type(home) is str:
            return home, name
        obj = self._definitions[home][0].object()
        return getattr(obj, "__module__", None), getattr(obj, "__qualname__", "").partition(".")[0]

    def dump(self, groups: list[Group], beside: out_of_band.Beside) -> bytes:
        """Returns the bundle for `mirror.apply`."""
        parts: list[bytes] = []
        at = 0

        def add(data: bytes) -> tuple[int, int]:
            nonlocal at
            parts.append(data)
            at += len(data)
            return at - len(data), at

        shells = {
            number: add(shell.data) for number, shell in self._shells.items() if shell and number in self._definitions
        }
        records = []
        for group in groups:
            arrays: Any = None
            if group.copies:
                before, file = len(beside.buffers), BytesIO()
                copies = [(number, self.owner.placed(copy, beside)) for number, copy in group.copies.items()]
                pickle.Pickler(file, 5, buffer_callback=beside.take).dump(copies)
                arrays = *add(file.getvalue()), before, len(beside.buffers)
            first = tuple(place for place, key in enumerate(group.keys) if key in group.first)
            records.append((group.number, group.keys, first, group.is_spoilt, *add(group.data), group.count, arrays))
        head = pickle.dumps((shells, records, self._sources()), 5)
        return b"".join([len(head).to_bytes(4, "little"), head, *parts])

    def _sources(self) -> dict[str, list[str]]:
        """Returns the lines of notebook cells with functions: no file contains them."""
        functions = (definition.object() for definition, _ in self._definitions.values())
        names = {one.__code__.co_filename for one in functions if type(one) is FunctionType}
        known = ((name, linecache.cache.get(name)) for name in names)
        return {name: list(one[2]) for name, one in known if one is not None and len(one) == 4 and one[1] is None}


def _warn_of_generator(home: str, name: str) -> None:
    """Warns once that a task uses a generator of random numbers that is a global."""
    if home in _warned:
        return
    _warned.add(home)
    frame, depth = sys._getframe(1), 2
    while str(frame.f_globals.get("__name__")).startswith("arenite.") and frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    warnings.warn(
        f"each worker has a copy of the global {name!r} of {home!r}, a generator of random numbers, so tasks in "
        f"different workers draw the same numbers: call arenite.rng() in the task instead",
        stacklevel=depth,
    )


def globals_of(home: str) -> dict[str, Any]:
    module = sys.modules.get(home) or reach.unlisted.get(home)
    return {} if module is None else vars(module)


def named(error: Exception, what: str) -> Exception:
    """Returns an exception of pickling that names the object."""
    if isinstance(error.__cause__, Exception) and str(error).endswith(str(error.__cause__)):
        return error  # An inner pickler has named it.
    kind = type(error) if type(error) in (TypeError, pickle.PicklingError, AttributeError, ValueError) else TypeError
    return kind(f"{what}: {error}")
