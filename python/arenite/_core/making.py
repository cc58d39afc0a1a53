"""Makes classes and other objects from what was pickled of them: in workers, and in the program for results."""

from __future__ import annotations

import marshal
import sys
from types import CellType, CodeType, FunctionType, ModuleType
from weakref import WeakValueDictionary, proxy, ref

from .. import _arenite
from . import locks
from .weak import IdentityMap

# A worker imports this before its first task: `typing` and `pickle`, with their imports, take a fifth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable
    from typing import Any
else:
    import _thread as threading


#: The part of a function of `singledispatch` that has the functions which it calls. No attribute has this name.
REGISTERED = "<registered>"


class Removed:
    """Stands, itself, for a global or an attribute that was removed."""


class Items:
    """Stands, itself, for the attributes of a dictionary that are its items: `self.__dict__ = self`."""


def is_removed(value: Any) -> bool:
    return value is Removed


is_worker = _arenite.is_worker()
#: Locked while definitions are applied and while classes are made: tasks of several lanes, and results, may bring
#: definitions at the same time.
lock = locks.lock()


def import_module(name: str) -> ModuleType:
    __import__(name)
    return sys.modules[name]


#: Sentinels: objects of the program that have nothing but an identity, by number.
_sentinels: dict[int, object] = {}
#: Objects of which this worker has one, by their numbers in the program.
_only: WeakValueDictionary[int, Any] = WeakValueDictionary()


def only_one(number: int, make: Any, arguments: tuple[Any, ...]) -> Any:
    return _only.setdefault(number, make(*arguments))


def sentinel(number: int, make: Any = object, arguments: tuple[Any, ...] = ()) -> Any:
    """Returns this worker's object for a sentinel, or another object without weak references."""
    return _sentinels.setdefault(number, make(*arguments))


def make_code(data: bytes) -> CodeType:
    made: CodeType = marshal.loads(data)
    return made


def make_cell() -> CellType:
    return CellType()


#: Classes and type variables that are pickled by value, by their common name in all processes.
_classes: WeakValueDictionary[str, Any] = WeakValueDictionary()
_tracked = IdentityMap()
#: Classes that were made here from a pickle and are not filled yet.
_unfilled = IdentityMap()


def note_sent(cls: type) -> None:
    """Records a class of the program, in a worker."""
    _sent_classes[cls] = True
    _unfilled.pop(cls)


def track(made: Any) -> str:
    """Returns the name of a class or a type variable that is pickled by value."""
    name: str | None = _tracked.get(made)
    if name is None:
        import uuid

        name = uuid.uuid4().hex
        _record(name, made)
    return name


def _record(name: str, made: Any) -> None:
    _tracked[made] = name
    _classes[name] = made


def make_tracked(name: str, *how: Any) -> type:
    """Returns the class with this name. Makes the class if it does not exist here."""
    found = _classes.get(name)
    if found is None:
        found = make_class(*how)
        _unfilled[found] = True
        _record(name, found)
    return found


def make_jitclass(name: str, plain: type, fields: dict[str, Any]) -> Any:
    """Returns the class of numba with this name. Compiles a plain class if it does not exist here."""
    found = _classes.get(name)
    if found is None:
        from numba.experimental import jitclass

        found = jitclass(fields)(plain)
        _record(name, found)
    return found


def fill_tracked(cls: type, attributes: dict[str, Any]) -> None:
    """Sets the attributes of a class. Does not change a class that was defined in this process."""
    is_unfilled = _unfilled.pop(cls, False)
    if is_unfilled or is_worker:
        for name, value in attributes.items():
            set_attribute(cls, name, value)
        if is_unfilled:
            introduce(cls)


def make_class(meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any], members: Any) -> type:
    """Makes a class with only those attributes, in `body`, that determine how instances are created. `members`: for
    an enumeration, further arguments of `make_enum`."""
    with lock:
        # The program has run the `__init_subclass__` of each base, and has sent its effects.
        hooks = _suspend(base for base in _lineage(bases) if _is_hooked(base))
        try:
            if members is not None:
                return make_enum(meta, name, bases, body, *members)
            if isinstance(meta, type) and meta.__name__ == "_TypedDictMeta":
                # The metaclass takes no base but its own.
                parent: Any = super(meta, meta)
                return parent.__new__(meta, name, (dict,), body)  # type: ignore[no-any-return]
            return _make_plain(meta, name, bases, body)
        finally:
            _resume(hooks)


def _make_plain(meta: Any, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    # The program has run a metaclass of its own, perhaps with further arguments, and has sent the effects.
    makers = [one.__new__ for one in meta.__mro__ if "__new__" in vars(one) and not _is_sent(one)]
    if not any(map(_is_sent, meta.__mro__)):
        makers.insert(0, lambda meta, *how: meta(*how))
    failed: Exception | None = None
    for make in makers:
        try:
            made: type = make(meta, name, bases, dict(body))
            return made
        except Exception as error:
            # An imported metaclass may need attributes that are set later, or keywords of the class.
            failed = failed or error
    assert failed is not None
    raise failed


def _is_sent(cls: type) -> bool:
    return cls in _sent_classes or cls in _tracked


def make_enum(
    meta: Any, name: str, bases: tuple[type, ...], body: dict[str, Any], boundary: Any, kind: Any, members: list[Any]
) -> type:
    """Makes an enumeration from the name, the value and the content of each member. `kind`: the type that makes an
    instance from the content; None if `EnumType` makes the members from their values."""
    from enum import member as as_member

    def create(cls: type, *given: Any) -> Any:
        # `EnumType` wraps the definition of a member again if members are tuples.
        content, value = given if len(given) == 2 else given[0]
        made = kind.__new__(cls, *content)
        made._value_ = value
        return made

    # The program has run the `__new__` and the `__init__` of the enumeration, and has sent their effects.
    is_made_here = bool(members) and kind is not None
    own = {"__new__": create, "__init__": lambda *_: None} if is_made_here else {}
    filled = meta.__prepare__(name, bases)
    for member, value, content in members:
        if is_made_here:
            filled[member] = content, value
        else:
            filled[member] = as_member(value) if hasattr(value, "__get__") else value
    filled.update({**body, **own})
    made: Any = meta(name, bases, filled, **({} if boundary is None else {"boundary": boundary}))
    if is_made_here:
        type.__delattr__(made, "__init__")
        type.__delattr__(made, "__new_member__")
        type.__setattr__(made, "_new_member_", kind.__new__)
    return made  # type: ignore[no-any-return]


def _lineage(bases: Iterable[type]) -> list[type]:
    return list(dict.fromkeys(one for base in bases for one in base.__mro__))


def _is_hooked(base: type) -> bool:
    """Whether a class has an `__init_subclass__`: one of the program, or of an imported module outside of the standard
    library. The latter may need attributes that are set later, or keywords of the class."""
    if "__init_subclass__" not in vars(base):
        return False
    function = getattr(vars(base)["__init_subclass__"], "__func__", None)
    home = str(base.__module__).partition(".")[0]
    return _is_sent(base) or type(function) is FunctionType and home not in sys.stdlib_module_names


def _suspend(bases: Iterable[type]) -> list[tuple[type, Any]]:
    """Keeps this thread from running the `__init_subclass__` of these classes. Returns the argument of `_resume`."""
    thread, hooks = threading.get_ident(), [(base, vars(base)["__init_subclass__"]) for base in bases]
    for base, hook in hooks:

        def run(cls: Any, /, _base: Any = base, _hook: Any = hook, **keywords: Any) -> None:
            here = threading.get_ident() == thread
            (super(_base, cls).__init_subclass__ if here else _hook.__get__(None, cls))(**keywords)

        type.__setattr__(base, "__init_subclass__", classmethod(run))
    return hooks


def _resume(hooks: list[tuple[type, Any]]) -> None:
    for base, hook in hooks:
        type.__setattr__(base, "__init_subclass__", hook)


def introduce(cls: type) -> None:
    """Runs the `__init_subclass__` of imported bases for a class that is complete: they may register the class
    elsewhere. What they change in the class, the program has sent."""
    with lock:
        hooked = [base for base in cls.__mro__[1:] if _is_hooked(base)]
        imported = [base for base in hooked if not _is_sent(base)]
        if not imported:
            return
        before, hooks = dict(vars(cls)), _suspend(filter(_is_sent, hooked))
        try:
            vars(imported[0])["__init_subclass__"].__get__(None, cls)()
        except Exception:
            pass  # It needs keywords of the class, which are not known.
        finally:
            _resume(hooks)
        for name in [name for name in vars(cls) if name not in before]:
            type.__delattr__(cls, name)
        for name, value in before.items():
            if vars(cls).get(name) is not value:
                type.__setattr__(cls, name, value)


#: The attribute name for the reducer that `copyreg` has for a class.
COPYREG = "__copyreg__"


def set_attribute(cls: type, name: str, value: Any) -> None:
    if name == "_abc_impl":
        for subclass in value:
            cls.register(subclass)  # type: ignore[attr-defined]
    elif name == COPYREG:
        import copyreg

        copyreg.dispatch_table.pop(cls, None)
        if not is_removed(value):
            copyreg.pickle(cls, value)
    elif name == "_value2member_map_":
        for other, member in () if is_removed(value) else value:
            vars(cls)[name].setdefault(other, vars(cls)["_member_map_"][member])
    elif is_removed(value):
        if name in vars(cls):
            delattr(cls, name)
    elif name == "_member_state_":
        for member, (state, slots) in value:
            made = vars(cls)["_member_map_"][member]
            vars(made).update(state)
            for slot, content in slots.items():
                object.__setattr__(made, slot, content)
    else:
        try:
            # Avoids a metaclass that checks assignments.
            type.__setattr__(cls, name, value)
        except TypeError:
            # A metaclass in C, such as those of `ctypes`.
            setattr(cls, name, value)


def make_alias(home: str, name: str, qualname: str | None, *parameters: tuple[Any, ...]) -> Any:
    """Makes the alias of a `type` statement with these type parameters. `fill_late` sets its value, which may contain
    the alias."""
    value = f"parts[{len(parameters)}]['value']"
    return _with_parameters(f"type {name}[", f"] = {value}", name, parameters, home, qualname)


def make_type_parameter(*how: Any) -> Any:
    """Returns the type parameter of a generic class, function or alias. Makes it if it does not exist here. `how`: the
    name that `track` gives, the stars before its own name, this name, the number of its constraints, and whether it has
    a bound and a default. `fill_late` sets these parts, which may contain the parameter."""
    found = _classes.get(how[0])
    return _with_parameters("def own[", "](): pass", "own", (how,)).__type_params__[0] if found is None else found


def _with_parameters(
    before: str, after: str, name: str, parameters: Any, home: str = __name__, qualname: str | None = None
) -> Any:
    """Makes a generic object with the syntax of Python 3.12, which evaluates all parts at their first use."""
    texts = []
    for number, (_, stars, own, constraints, has_bound, has_default) in enumerate(parameters):
        place, text = f"parts[{number}]", stars + own
        if constraints:
            text += ": (" + "".join(f"{place}['bound'][{one}], " for one in range(constraints)) + ")"
        elif has_bound:
            text += f": {place}['bound']"
        texts.append(text + (f" = {place}['default']" if has_default else ""))
    space: dict[str, Any] = {"__name__": home, "parts": [{} for _ in range(len(texts) + 1)]}
    code = compile(f"{before}{', '.join(texts)}{after}".replace("[]", ""), "<arenite>", "exec")
    exec(code if qualname is None else _code_with_qualname(code, name, qualname), space)
    made = space[name]
    for (key, *_), parameter in zip(parameters, made.__type_params__, strict=True):
        _record(key, parameter)
    for one, parts in zip((*made.__type_params__, made), space["parts"], strict=True):
        _late_parts[id(one)] = one, parts
    return made


def _code_with_qualname(code: CodeType, name: str, qualname: str) -> CodeType:
    """Returns code that gives what it names `name` another qualified name."""
    inner = (_code_with_qualname(one, name, qualname) if type(one) is CodeType else one for one in code.co_consts)
    return code.replace(co_consts=tuple(inner), co_qualname=qualname if code.co_name == name else code.co_qualname)


def call_in(home: str, make: Any, arguments: Any, options: Any) -> Any:
    """Calls a type of `typing`, which takes the module of what it makes from the globals of the calling code."""
    return eval("make(*arguments, **options)", {"__name__": home, **locals()})


#: Aliases and type parameters that are not filled yet, each with the place for its parts.
_late_parts: dict[int, tuple[Any, dict[str, Any]]] = {}


def fill_late(made: Any, parts: dict[str, Any]) -> None:
    known = _late_parts.pop(id(made), None)
    if known is not None:
        known[1].update(parts)


def make_lru_cache(function: Any, parameters: dict[str, Any]) -> Any:
    from functools import lru_cache

    return lru_cache(**parameters)(function)


def make_singledispatch(function: Any) -> Any:
    from functools import singledispatch

    return singledispatch(function)


def fill_singledispatch(function: Any, state: tuple[Iterable[Any], dict[str, Any]]) -> None:
    registered, attributes = state
    for kind, implementation in registered:
        function.register(kind, implementation)
    vars(function).update(attributes)


def make_type_variable(
    key: str, kind: str, home: str, name: str, constraints: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Returns the type variable that `track` names `key`. Makes it if it does not exist here."""
    found = _classes.get(key)
    if found is not None:
        return found
    import typing

    made = call_in(home, getattr(typing, kind), (name, *constraints), options)
    _record(key, made)
    return made


def make_context_variable(name: str, default: tuple[Any, ...]) -> Any:
    from contextvars import ContextVar

    return ContextVar(name, default=default[0]) if default else ContextVar(name)


def make_cached_property(function: Any, name: str | None) -> Any:
    from functools import cached_property

    made: Any = cached_property(function)
    made.attrname = name
    return made


def make_json_scanner(options: dict[str, Any]) -> Any:
    from json.scanner import c_make_scanner  # type: ignore[attr-defined]
    from types import SimpleNamespace

    return c_make_scanner(SimpleNamespace(**options))


def make_library(kind: Any, name: str | None, uses_errno: bool) -> Any:
    return kind(name, use_errno=uses_errno)


def fill_library(library: Any, functions: dict[str, dict[str, Any]]) -> None:
    for name, types in functions.items():
        fill_slots(getattr(library, name), types)


def fill_slots(made: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(made, name, value)


def fill_attributes(made: Any, state: tuple[Any, dict[str, Any]]) -> None:
    """Applies the state of an object, and sets attributes that are not part of the state."""
    if state[0] is not None:
        fill_new(made, state[0])
    vars(made).update(state[1])


def make_memory(data: Any, layout: str, shape: tuple[int, ...], part: tuple[int, int] | None = None) -> memoryview:
    """Makes a view of an object, or of the bytes from the first number of `part` to the second."""
    view = memoryview(data).cast("B")
    made = view if part is None else view[slice(*part)]
    return made.cast(layout, shape)  # type: ignore[call-overload, no-any-return]


#: The referents of weak references, by the number of the reference.
_referents: dict[int, Any] = {}


def make_reference(kind: Any, referent: Any, number: int) -> Any:
    """Makes a weak reference. Without a referent, makes the reference of an object that no longer exists."""
    _referents[number] = referent
    if referent is None:
        kind, referent = (kind if kind is proxy else ref), type("", (), {})()
    return kind(referent)


def make_as(kind: Any, base: Any, arguments: tuple[Any, ...]) -> Any:
    """Makes an object of a class that inherits from `base`, without the `__new__` and `__init__` of the class."""
    made = base.__new__(kind, *arguments)
    if base.__init__ is not object.__init__:
        base.__init__(made, *arguments)
    return made


def find_in(home: str, name: str) -> Any:
    return getattr(import_module(home), name)


def _find(home: str, name: str) -> Any:
    """Returns an object of an importable module; None if the program has added it to the module."""
    try:
        return find_in(home, name)
    except (ImportError, AttributeError):
        return None


def find_or_make(home: str, name: str, kind: Any) -> Any:
    """Returns an object of an importable module; a new one if the program has added it to the module."""
    found = _find(home, name)
    return found if type(found) is kind else kind.__new__(kind)


def find_or_call(home: str, name: str, kind: str, make: Any, arguments: tuple[Any, ...]) -> Any:
    """Like `find_or_make`, for an object of a type with this name that a call makes."""
    found = _find(home, name)
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


def find_logger(name: str, kind: Any) -> Any:
    """Returns the logger of this name, which has this class in the program."""
    import logging

    found: Any = logging.getLogger(name)
    if type(found) is logging.Logger:
        found.__class__ = kind
    return found


def fill_container(made: Any, state: tuple[Any, Any, dict[str, Any], Any]) -> None:
    """Adds items to a container with the methods of the type from which its class inherits."""
    base, contents, options, attributes = state
    if issubclass(base, dict):
        for name, value in options.items():
            getattr(base, name).__set__(made, value)
        for key, value in contents.items():
            base.__setitem__(made, key, value)
    else:
        base.__init__(made, contents, **options)
    if attributes is Items:
        object.__setattr__(made, "__dict__", made)
    elif attributes is not None:
        fill_new(made, attributes)


class LateGenerator:
    """The generator of a context manager. Calls its function at the first use, when the function has its defaults."""

    def __init__(self, made: Any) -> None:
        self._call = made.func, made.args, made.kwds
        self._made: Any = None

    def _generator(self) -> Any:
        if self._made is None:
            function, arguments, options = self._call
            self._made = function(*arguments, **options)
        return self._made

    def __next__(self) -> Any:
        return next(self._generator())

    def __anext__(self) -> Any:
        return anext(self._generator())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator(), name)


def fill_context_manager(made: Any, state: dict[str, Any]) -> None:
    vars(made).update(state)
    made.gen = LateGenerator(made)


_sent_classes = IdentityMap()


def itself(value: Any) -> Any:
    return value
