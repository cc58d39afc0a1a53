"""The mirror: the worker's version of modules of the program that it cannot import, above all `__main__`.

A worker has a module of the same name for each of these. The program fills the module with *definitions*: functions,
classes and other globals, which `definitions` sends once per worker and version. This module creates functions and
classes: in workers from definitions, and on both sides from objects that were pickled by value.
"""

from __future__ import annotations

import builtins
import sys
from io import BytesIO
from struct import Struct
from types import CellType, CodeType, FunctionType, ModuleType
from weakref import WeakValueDictionary

from .. import _arenite
from . import main, making, out_of_band

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from typing import Any

    from .channel import Address
else:
    import _pickle as pickle


def _fail(unsent: Any, *_: Any, **__: Any) -> Any:
    raise TypeError(unsent.arenite_reason)


_USES = (
    "aenter aexit aiter anext await bool call contains delitem enter exit getitem iter len next reversed setitem "
    "str format bytes complex float int index round trunc lt le gt ge abs invert neg pos divmod rdivmod add "
    "radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul and rand or ror xor "
    "rxor lshift rlshift rshift rrshift"
).split()
_Refusing: Any = type("_Refusing", (), {f"__{name}__": _fail for name in _USES})


class Unsent(_Refusing):  # type: ignore[misc]
    """Stands for a global or an attribute that cannot be sent. Each use raises the error."""

    def __init__(self, message: str) -> None:
        self.arenite_reason = message

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _fail(self)

    def __repr__(self) -> str:
        # A program may show all attributes of a class.
        return f"<not sent: {self.arenite_reason}>"

    def __reduce__(self) -> Any:
        # In a worker this raises: a task may not return it.
        return _fail(self) if _arenite.is_worker() else (Unsent, (self.arenite_reason,))


# ---- modules


def module(name: str) -> ModuleType:
    """Returns a module of the program. In a worker this is the mirror of the module, which starts empty."""
    found = sys.modules.get(name)
    if found is None:
        if not _arenite.is_worker():
            raise ModuleNotFoundError(f"the program has no module {name!r} any more", name=name)
        found = sys.modules[name] = _new_module(name)
    return found


class Mirror(ModuleType):
    """A module of the program in a worker. It asks the program for names that it does not have."""

    def __getattr__(self, name: str) -> Any:
        space = vars(self)
        if program is not None and not name.startswith("__"):
            from . import lookup

            with making.lock:
                if data := lookup.ask(program, space["__name__"], name):
                    apply(data, [], False)
            if name in space:
                return space[name]
        raise AttributeError(f"module {space.get('__name__')!r} has no attribute {name!r}", name=name, obj=self)


# Its type is one that `pickling` looks at.
Mirror.__name__ = "module"
#: The address for such questions; None in a sandbox.
program: Address | None = None


def _new_module(name: str) -> ModuleType:
    made = Mirror(name)
    # Tasks see the values of the program if they use them.
    for default in ("__doc__", "__loader__", "__package__"):
        delattr(made, default)
    vars(made)["__builtins__"] = _Builtins(made)
    return made


class _Builtins(dict):  # type: ignore[type-arg]
    """The builtins of code that a task itself makes with the globals of a mirror, as dill does: for a name that these
    lack, it asks the program."""

    def __init__(self, home: Mirror) -> None:
        super().__init__(vars(builtins))
        self._home = home

    def __missing__(self, name: str) -> Any:
        try:
            return vars(builtins)[name] if name in vars(builtins) else getattr(self._home, name)
        except AttributeError:
            raise KeyError(name) from None


def namespace(home: str | dict[str, Any], is_mirrored: bool) -> dict[str, Any]:
    """Returns the globals of a function that is created here: of its module, or those that were sent with it."""
    if isinstance(home, dict):
        # The thread of a lane may have no builtins.
        home.setdefault("__builtins__", __builtins__)
        return home
    return vars(module(home) if is_mirrored else making.import_module(home))


def clear_main() -> None:
    """Replaces the `__main__` of this worker by an empty module."""
    global _started_by
    # The old module stays, because its code runs.
    _started_by = sys.modules["__main__"]
    sys.modules["__main__"] = _new_module("__main__")


_started_by: ModuleType | None = None
#: The globals of `begin_main`.
_OF_MAIN = ("__file__", "__spec__")


def begin_main(path: str, name: str | None, runs: bool) -> None:
    """Runs the main file, or sets what `multiprocessing` reads to import it in the processes that a task starts.
    `name`: the name of the main module if the program was started by `python -m`."""
    space = vars(module("__main__"))
    if runs:
        main.run(module("__main__"), path, name)
        return
    space["__file__"] = path
    if name is not None:
        from importlib.machinery import ModuleSpec

        space["__spec__"] = ModuleSpec(name, None, origin=path)


# ---- functions


def make_function(
    code: CodeType, home: str | dict[str, Any], is_mirrored: bool, name: str, cells: tuple[CellType, ...]
) -> FunctionType:
    """Makes a function, which `fill_function` fills later. `home`: the name of the module with its globals, or the
    globals."""
    space = namespace(home, is_mirrored)
    asking = space.get("__builtins__")
    if type(asking) is not _Builtins:
        return FunctionType(code, space, name, None, cells or None)
    # The program has sent the globals of this function, so it gets the plain builtins, which are faster.
    with making.lock:
        space["__builtins__"] = __builtins__
        try:
            return FunctionType(code, space, name, None, cells or None)
        finally:
            space["__builtins__"] = asking


def fill_function(function: FunctionType, state: dict[str, Any]) -> None:
    """Sets the parts of a function that refer to other objects, perhaps to the function."""
    for cell, content in state.pop("cells", ()):
        cell.cell_contents = content
    for name in state.pop("imports", ()):
        __import__(name)
    function.__globals__.update(state.pop("globals", ()))
    making.fill_slots(function, state)


# ---- definitions, in a worker

#: The number of the group from which this worker has each variable of a module or of a definition.
_state: dict[Any, dict[str, int]] = {}
#: Functions, classes and other definitions, by the number that the program has given them.
_objects: WeakValueDictionary[int, Any] = WeakValueDictionary()
#: Those whose objects have no weak references.
_strong: dict[int, Any] = {}
#: The shells of definitions that are not made yet, and the copies of arrays for the group that is being made.
_shells: dict[int, Any] = {}
_arrays: dict[int, Any] = {}
#: The objects that were made while a bundle is applied: its groups refer to them.
_new: list[Any] = []
#: Bundles that this worker has loaded, by number: the value of `_changes` at which the worker had their groups.
_bundles: dict[int, int] = {}
_changes = 0
_MOST_BUNDLES = 512
#: The number of entries of `_state` from which on it is looked at whether they are needed.
_MOST_STATE = _most = 1000
#: The name of the variable with everything of a definition that has no name of its own, and how it is set.
WHOLE = "<whole>"

#: A bundle's number, the number of its buffers, and its length if it is not in a buffer.
HEADER = Struct("<QII")


def define(head: bytes, buffers: list[Any], private: bool) -> bytes:
    """Applies the definitions in the head of a task, and removes them from head and buffers. Returns the rest."""
    number, count, length = HEADER.unpack_from(head)
    end = HEADER.size + length
    own = buffers[:count]
    if count:
        del buffers[:count]
    if _bundles.get(number) != _changes:
        with making.lock:
            apply(head[HEADER.size : end] or own[0], own if length else own[1:], private)
            if len(_bundles) >= _MOST_BUNDLES:
                _bundles.clear()
            _bundles[number] = _changes
    return head[end:]


def apply(data: Any, buffers: list[Any], private: bool) -> None:
    """Makes the definitions of a bundle that do not exist in this worker, and sets the variables that it does not have
    from these groups."""

    content = memoryview(data)
    size = int.from_bytes(content[:4], "little")
    shells, records, sources = pickle.loads(content[4 : 4 + size])
    content = content[4 + size :]
    before = _shells.copy()
    for number, (start, end) in shells.items():
        if find_object(number) is None:
            _shells[number] = content[start:end]
            # Another object of this number had them.
            _state.pop(number, None)
    try:
        for number, keys, first, is_stand_in, start, end, count, arrays in records:
            if all(_state.get(home, {}).get(name) == number for home, name in keys):
                continue
            if arrays is not None:
                begin, stop, *part = arrays
                own = out_of_band.own(buffers[slice(*part)], private)
                _arrays.update(pickle.loads(content[begin:stop], buffers=own))
            _set_group(number, keys, first, is_stand_in, content[start:end], count)
            _arrays.clear()
        _forget()
    finally:
        _new.clear()
        _shells.clear()
        _shells.update(before)
    for name, lines in sources.items():
        set_source(name, lines)


def _forget() -> None:
    """Forgets definitions that nothing in this worker refers to any more."""
    global _most
    if len(_state) <= _most:
        return
    # Four references: of the table, of its items, of the variable, and of the call.
    for number in [number for number, one in _strong.items() if sys.getrefcount(one) <= 4]:
        del _strong[number]
    for key in [key for key in _state if type(key) is not str and find_object(key) is None]:
        del _state[key]
    _most = max(_MOST_STATE, 2 * len(_state))


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, place: tuple[str, str]) -> Any:
        return making.find_in(*place)


def _set_group(number: int, keys: Any, first: Any, is_stand_in: bool, data: Any, count: int) -> None:
    """Sets the variables of a group. `is_stand_in`: the group stands for what cannot be sent."""
    global _changes
    try:
        unpickler = _Unpickler(BytesIO(data))
        values = unpickler.load()
        for _ in range(count - 1):
            unpickler.load()
    except Exception as error:
        if program is None:
            raise  # In a sandbox.
        reason = f"cannot be unpickled: {type(error).__name__}: {error}"
        values = [Unsent(f"the global `{name}` {reason}" if type(home) is str else reason) for home, name in keys]
        is_stand_in = True
    for place, ((home, name), value) in enumerate(zip(keys, values, strict=True)):
        known = _state.setdefault(home, {})
        owner = module(home) if type(home) is str else find(home)
        if not (is_stand_in and main.has_made(owner, name)):
            if type(home) is not str:
                _set_part(owner, name, value)
            elif not (place in first and name not in known and _is_set_here(vars(owner), name)):
                set_item(vars(owner), name, value)
        known[name] = number
        _changes += 1


def _is_set_here(space: dict[str, Any], name: str) -> bool:
    """Whether code of this worker has set a global. The program has not changed it since."""
    return name in space and name not in _OF_MAIN and not main.has_made_value(space, name)


def set_item(space: dict[str, Any], name: str, value: Any) -> None:
    if making.is_removed(value):
        space.pop(name, None)
    else:
        space[name] = value


def changes() -> int:
    """Returns a number that grows when definitions of this worker change."""
    return _changes


def note_change() -> None:
    """Notes that functions which tasks have loaded may refer to others now."""
    global _changes
    _changes += 1


def find_object(number: int) -> Any:
    found = _objects.get(number)
    return _strong.get(number) if found is None else found


def find(number: int) -> Any:
    """Returns the object of a definition. Makes the object if this worker does not have it."""
    found = find_object(number)
    if found is not None:
        return found
    make, arguments = _Unpickler(BytesIO(_shells[number])).load()
    # Its arguments may have needed it.
    found = find_object(number)
    if found is not None:
        return found
    made = _made_by_main(make, arguments) or make(*arguments)
    try:
        _objects[number] = made
    except TypeError:
        _strong[number] = made
    _new.append(made)
    return made


def _made_by_main(make: Any, arguments: Any) -> Any:
    """Returns the function or class that the run of the main file has made in place of this one."""
    if make is make_function:
        code, home, is_mirrored, _, cells = arguments
        return main.made_function(code, namespace(home, is_mirrored), len(cells))
    return main.made_class(*arguments) if make is making.make_class else None


def array(number: int) -> Any:
    """Returns the array of the group that is being made which has this number."""
    return _arrays[number]


def _set_part(made: Any, name: str, value: Any) -> None:
    if name == WHOLE:
        fill, content = value
        fill(made, content)
    elif isinstance(made, type):
        making.set_attribute(made, name, value)
    elif type(made) is dict:
        set_item(made, name, value)
    elif making.is_removed(value):
        if hasattr(made, name):
            delattr(made, name)
    else:
        setattr(made, name, value)


def set_source(name: str, lines: list[str]) -> None:
    """Lets tracebacks show the source of a notebook's cell."""
    import linecache

    linecache.cache[name] = sum(map(len, lines)), None, lines, name
