"""Makes classes and other objects from what was pickled of them: in workers, and in the program for results."""

from __future__ import annotations

import sys
from types import CellType, ModuleType
from weakref import WeakKeyDictionary, WeakValueDictionary

from .. import _arenite
from . import locks, reach

# A worker imports this before its first task: `typing` and `pickle`, with their imports, take a fifth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Removed:
    """Stands, itself, for a global or an attribute that was removed."""


def is_removed(value: Any) -> bool:
    return value is Removed


#: Locked while definitions are applied and while classes are made: tasks of several lanes, and results, may bring
#: definitions at the same time.
lock = locks.lock()


def import_module(name: str) -> ModuleType:
    __import__(name)
    return sys.modules[name]


#: Sentinels: objects of the program that have nothing but an identity, by number.
_sentinels: dict[int, object] = {}
def sentinel(number: int, make: Any = object, arguments: tuple[Any, ...] = ()) -> Any:
    """Returns this worker's object for a sentinel, or another object without weak references."""
    return _sentinels.setdefault(number, make(*arguments))


def make_cell() -> CellType:
    return CellType()


def make_json_scanner(options: dict[str, Any]) -> Any:
    from json.scanner import c_make_scanner  # type: ignore[attr-defined]
    from types import SimpleNamespace

    return c_make_scanner(SimpleNamespace(**options))


#: Objects that are pickled by value and of which a process has one, by their common name in all processes: classes,
#: type variables, locks.
_classes: WeakValueDictionary[str, Any] = WeakValueDictionary()
_tracked: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
#: Classes that were made here from a pickle and are not filled yet.
_unfilled: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def track(made: Any) -> str:
    """Returns the name of an object of which a process has one."""
    name = _tracked.get(made)
    if name is None:
        import uuid

        name = uuid.uuid4().hex
        _record(name, made)
    return name


def _record(name: str, made: Any) -> None:
    _tracked[made] = name
    _classes[name] = made


def only_one(name: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Returns the object with this name. Makes it if it does not exist here."""
    found = _classes.get(name)
    if found is None:
        found = make(*arguments)
        _record(name, found)
    return found


def make_unfilled(*how: Any) -> type:
    made = make_class(*how)
    _unfilled[made] = True
    return made


def fill_tracked(cls: type, attributes: dict[str, Any]) -> None:
    """Sets the attributes of a class. Does not change a class that was defined in this process."""
    is_unfilled = _unfilled.pop(cls, False)
    if is_unfilled or _arenite.is_worker():
        for name, value in attributes.items():
            set_attribute(cls, name, value)


def make_class(meta: Any, name: str, bases: tuple[type, ...], body: dict[str, Any], members: Any) -> type:
    """Makes a class with only those attributes, in `body`, that determine how instances are created. `meta`: None for
    the metaclass of the first base; `members`: for an enumeration, further arguments of `make_enum`."""
    meta = meta or type(bases[0])
    with lock:
        # The program has run the `__init_subclass__` of each base, perhaps with keywords, and sends the effects.
        lineage = dict.fromkeys(one for base in bases for one in base.__mro__ if not reach.is_standard(one.__module__))
        hooks = {base: vars(base)["__init_subclass__"] for base in lineage if "__init_subclass__" in vars(base)}
        for base in hooks:
            type.__delattr__(base, "__init_subclass__")
        try:
            if members is not None:
                return make_enum(meta, name, bases, body, *members)
            return _make_plain(meta, name, bases, body)
        finally:
            for base, hook in hooks.items():
                type.__setattr__(base, "__init_subclass__", hook)


def _make_plain(meta: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    made: type
    if meta.__name__ == "_TypedDictMeta":
        # The metaclass takes no base but its own.
        made = super(meta, meta).__new__(meta, name, (dict,), body)
        return made
    # The program has also run its own metaclass.
    imported = next(one for one in meta.__mro__ if reach.is_importable(one.__module__))
    try:
        made = meta(name, bases, dict(body)) if meta is imported else imported.__new__(meta, name, bases, dict(body))
    except Exception:
        # An imported metaclass may need attributes that are set later, or keywords of the class.
        made = type.__new__(meta, name, bases, dict(body))
    return made


def make_enum(
    meta: Any, name: str, bases: tuple[type, ...], body: dict[str, Any], boundary: Any, kind: Any, members: list[Any]
) -> type:
    """Makes an enumeration from the name, the value and the content of each member, from which `kind`, a type in C,
    makes an instance."""

    def create(cls: type, *given: Any) -> Any:
        # `EnumType` wraps the definition of a member again if members are tuples.
        content, value = given if len(given) == 2 else given[0]
        made = kind.__new__(cls, *content)
        made._value_ = value
        return made

    # The program has run the `__new__` and the `__init__` of the enumeration, and has sent their effects.
    own = {"__new__": create, "__init__": lambda *_: None} if members else {}
    filled = meta.__prepare__(name, bases)
    for member, value, content in members:
        filled[member] = content, value
    filled.update({**body, **own})
    made: Any = meta(name, bases, filled, **({} if boundary is None else {"boundary": boundary}))
    if own:
        type.__delattr__(made, "__init__")
        type.__delattr__(made, "__new_member__")
        type.__setattr__(made, "_new_member_", kind.__new__)
    return made  # type: ignore[no-any-return]


#: The name of an attribute that stands for the attributes of the members of an enumeration.
MEMBERS = "<members>"


def set_attribute(cls: type, name: str, value: Any) -> None:
    if name == "_abc_impl":
        for subclass in value:
            cls.register(subclass)  # type: ignore[attr-defined]
    elif is_removed(value):
        if name in vars(cls):
            delattr(cls, name)
    elif name == MEMBERS:
        for member, state in value:
            vars(vars(cls)["_member_map_"][member]).update(state)
    else:
        try:
            # Avoids a metaclass that checks assignments.
            type.__setattr__(cls, name, value)
        except TypeError:
            # A metaclass in C, such as those of `ctypes`.
            setattr(cls, name, value)


def make_alias(name: str, value: Any, parameters: tuple[Any, ...], home: str) -> Any:
    """Makes the alias of a `type` statement with type parameters."""
    from typing import TypeAliasType  # type: ignore[attr-defined]

    space = {"make": TypeAliasType, "how": (name, value), "parameters": parameters, "__name__": home}
    # The alias takes its module from the globals of the calling code.
    return eval("make(*how, type_params=parameters)", space)


#: The values of aliases that are made, by the identity of the alias.
_late: dict[int, list[Any]] = {}


def make_late_alias(name: str, home: str) -> Any:
    """Makes the alias of a `type` statement, which has a value when `fill_late_alias` is called."""
    space: dict[str, Any] = {"value": [], "__name__": home}
    exec(f"type {name} = value[0]", space)
    _late[id(space[name])] = space["value"]
    return space[name]


def fill_late_alias(alias: Any, value: Any) -> None:
    _late.pop(id(alias), []).append(value)


def make_lru_cache(function: Any, parameters: dict[str, Any]) -> Any:
    from functools import lru_cache

    return lru_cache(**parameters)(function)


def make_type_variable(kind: Any, name: str, constraints: tuple[Any, ...], options: dict[str, Any], home: str) -> Any:
    made = kind(name, *constraints, **options)
    made.__module__ = home
    return made


def make_cached_property(function: Any, name: str | None) -> Any:
    from functools import cached_property

    made: Any = cached_property(function)
    made.attrname = name
    return made


def fill_library(library: Any, functions: dict[str, dict[str, Any]]) -> None:
    for name, types in functions.items():
        fill_slots(getattr(library, name), types)


def fill_slots(made: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(made, name, value)


def make_as(kind: Any, base: Any, arguments: tuple[Any, ...]) -> Any:
    """Makes an object of a class that inherits from `base`, without the `__new__` and `__init__` of the class."""
    made = base.__new__(kind, *arguments)
    if base.__init__ is not object.__init__:
        base.__init__(made, *arguments)
    return made


def find_in(home: str, name: str) -> Any:
    return getattr(import_module(home), name)


def find_or_make(home: str, name: str, kind: str, make: Any, arguments: tuple[Any, ...]) -> Any:
    """Returns an object of an importable module. Makes another one if the program has put the object there: then the
    module has none of a type with this name here."""
    try:
        found = find_in(home, name)
    except (ImportError, AttributeError):
        found = None
    return found if type(found).__name__ == kind else make(*arguments)


def refill(made: Any, contents: Any) -> None:
    """Gives an object of a module the contents that it has in the program."""
    if hasattr(made, "clear") and type(contents) in (dict, list):
        made.clear()
        (made.extend if hasattr(made, "extend") else made.update)(contents)
    else:
        if hasattr(made, "__dict__"):
            vars(made).clear()
        fill_new(made, contents)


def make_new(cls: Any) -> Any:
    return cls.__new__(cls)


def fill_new(made: Any, state: Any) -> None:
    """Applies the state of an object as unpickling does."""
    fill = getattr(made, "__setstate__", None)
    if fill is not None:
        fill(state)
        return
    slots = None
    if type(state) is tuple and len(state) == 2:
        state, slots = state
    if state:
        vars(made).update(state)
    fill_slots(made, slots or {})


def make_plain(cls: Any, attributes: dict[str, Any], slots: dict[str, Any]) -> Any:
    """Makes an object with some of its attributes, without the `__new__` of its class."""
    made = object.__new__(cls)
    fill_plain(made, (attributes, slots))
    return made


def fill_plain(made: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Gives an object all its attributes, in their order, without methods of its class."""
    if state[0]:
        vars(made).clear()
        vars(made).update(state[0])
    for name, value in state[1].items():
        object.__setattr__(made, name, value)


def itself(value: Any) -> Any:
    return value
