"""Pickles functions and classes by value, with the objects that they consist of. `mirror` creates them from that.

This is used for functions and classes that no module has by name, and for definitions, which a worker gets once.
"""

from __future__ import annotations

import functools
import gc
import marshal
import sys
import types
import weakref
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from . import codes, elsewhere, making, mirror, reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import by_name


# ---- functions


def reduce_function(pickler: by_name.Pickler, function: FunctionType) -> Any:
    how, state = parts_of_function(pickler, function)
    defaults = {"__defaults__": function.__defaults__, "__kwdefaults__": function.__kwdefaults__}
    state.update((name, value) for name, value in defaults.items() if value)
    if function.__dict__:
        state["__dict__"] = dict(function.__dict__)
    return mirror.make_function, how, state, None, None, mirror.fill_function


def parts_of_function(pickler: by_name.Pickler, function: FunctionType) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments that create a function, and its state, without its defaults and attributes."""
    code, space = function.__code__, function.__globals__
    names = codes.names_of(code)
    state: dict[str, Any] = {"__qualname__": function.__qualname__, "__module__": function.__module__}
    if function.__doc__ is not None:
        state["__doc__"] = function.__doc__
    if annotations := _annotations(pickler, function):
        state["__annotations__"] = annotations
    if kinds := getattr(function, "__type_params__", None):
        state["__type_params__"] = kinds
    if cells := list(codes.contents(function)):
        state["cells"] = cells
    home: Any = codes.home_of(space, pickler.copies_globals)
    used = names.globals & space.keys()
    if home is None or not (home[1] or _needs_module(home[0], [space[name] for name in used])):
        # The function is sent without its module, which the worker may not have.
        state["globals"] = {name: space[name] for name in sorted(used)}
        home = pickler.space_of(space), False
    elif home[1]:
        pickler.refer(function, home[0], names)
    if imports := _submodules(names, [space[name] for name in used] + [content for _, content in cells]):
        state["imports"] = imports
    return (code, *home, function.__name__, function.__closure__ or ()), state


def _needs_module(home: str, values: list[Any]) -> bool:
    """Whether a function needs its module for these globals: not if other modules define them."""
    for value in values:
        if type(value) is ModuleType:
            continue
        other = getattr(value, "__module__", None)
        is_named = isinstance(value, (type, FunctionType, BuiltinFunctionType))
        if not is_named or other == home or not reach.is_importable(other):
            return True
    return False


def _submodules(names: codes.Names, values: list[Any]) -> list[str]:
    """Returns the modules that the code reads as attributes of packages, as in `xml.dom.minidom`."""
    packages = [f"{value.__name__}." for value in values if type(value) is ModuleType and hasattr(value, "__path__")]
    return [
        name for prefix in packages for name in list(sys.modules)
        if name.startswith(prefix) and names.others.issuperset(name[len(prefix) :].split("."))
        and reach.is_importable(name)
    ]  # fmt: skip


def _annotations(pickler: by_name.Pickler, owner: FunctionType | type) -> dict[str, Any]:
    """Returns the annotations of a function or class that can be pickled: few tasks need them."""
    try:
        given = owner.__annotations__
    except Exception:  # From Python 3.14 on, a name may not exist.
        return {}
    for value in given.values():
        pickler.may_refer(owner.__module__, codes.names_in(value))
    return {name: value for name, value in given.items() if type(value) in codes.ATOMS or pickler.can_pickle(value)}


# ---- classes

#: Attributes that determine how a class is created.
_OF_BODY = ("__module__", "__qualname__", "__slots__", "__doc__", "__orig_bases__", "__class__")
#: Attributes that a new class has.
_OF_CREATION = {*_OF_BODY, "__dict__", "__weakref__", "__classdictcell__", "__slotnames__"}
#: Attributes that a class with annotations has: Python 3.14 has a function that evaluates the annotations.
_OF_ANNOTATIONS = {"__annotations__", "__annotations_cache__", "__annotate_func__", "__annotate__"}


#: What determines the layout of a class of `ctypes`, in an order in which it can be set.
_OF_CTYPES = (
    *("_pack_", "_align_", "_layout_", "_anonymous_", "_length_", "_type_", "_flags_", "_restype_", "_argtypes_"),
    "_fields_",
)


def reduce_swapped(cls: Any) -> Any:
    """Reduces a number of `ctypes` in the other byte order. Returns None for a number in the order of this machine."""
    ours, other = ("__ctype_le__", "__ctype_be__") if sys.byteorder == "little" else ("__ctype_be__", "__ctype_le__")
    return (getattr, (getattr(cls, ours), other)) if getattr(cls, other) is cls else None


def _own_of_ctypes(cls: type) -> tuple[str, ...]:
    metaclass: Any = type(cls)
    return _OF_CTYPES if any(one.__module__ == "_ctypes" for one in metaclass.__mro__) else ()


def reduce_class(pickler: by_name.Pickler, cls: type) -> Any:
    how = making.track(cls), making.make_unfilled, how_of_class(cls)
    return making.only_one, how, attributes_of_class(pickler, cls), None, None, making.fill_tracked


def how_of_class(cls: type) -> tuple[Any, ...]:
    """Returns the arguments of `making.make_class`."""
    space = vars(cls)
    body = {name: space[name] for name in (*_OF_BODY, *_own_of_ctypes(cls)) if name in space}
    # A slot may have the name of an attribute.
    body = {name: value for name, value in body.items() if type(value) is not MemberDescriptorType}
    body.setdefault("__qualname__", cls.__qualname__)
    meta: type | None = type(cls)
    home = str(type(cls).__module__)
    if home == "_ctypes":
        meta = None  # No name leads to it.
    elif not reach.is_standard(home) and reach.is_importable(home):
        # An imported metaclass, which may check attributes.
        names = space.keys() - _OF_CREATION - _OF_ANNOTATIONS
        body |= {name: space[name] for name in sorted(names) if codes.is_atom(space[name])}
    return meta, cls.__name__, cls.__bases__, body, _members_of(cls) if _is_enum(cls) else None


def _is_enum(cls: type) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(cls, enum.EnumMeta)


def _members_of(cls: Any) -> tuple[Any, ...]:
    """Returns the arguments of `making.make_enum` that describe the members of an enumeration."""
    kind = next(one for one in cls._member_type_.__mro__ if type(vars(one).get("__new__")) is BuiltinFunctionType)
    found = [(name, one._value_, _content_of(one, kind)) for name, one in cls.__members__.items()]
    return vars(cls).get("_boundary_"), kind, found


def _content_of(member: Any, kind: Any) -> Any:
    """Returns the arguments with which `kind.__new__` makes an equal object."""
    if kind is object or hasattr(kind, "__getnewargs__"):
        return kind.__getnewargs__(member) if kind is not object else ()
    make, arguments = kind.__reduce_ex__(member, 2)[:2]
    if make is not type(member):
        raise TypeError(f"cannot pickle {type(member).__qualname__!r}, an enumeration of {kind.__name__!r} objects")
    return arguments


def attributes_of_class(pickler: by_name.Pickler, cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    left_out = {*_OF_CREATION, *_own_of_ctypes(cls)}
    if is_enum := _is_enum(cls):
        left_out |= {*_OF_ENUM, *cls.__members__}  # type: ignore[attr-defined]
    # A copy: reading annotations adds an attribute.
    for name, value in list(vars(cls).items()):
        if name in left_out or type(value).__name__ in _MADE or is_enum and _is_of_enum(cls, name, value):
            continue
        if name == "_abc_impl":
            import abc

            value = [one for ref in abc._get_dump(cls)[0] if (one := ref()) is not None]  # type: ignore[attr-defined]
        elif name in _OF_ANNOTATIONS:
            name = "__annotations__"
            value = found[name] if name in found else _annotations(pickler, cls)
        found[name] = value
    if is_enum:
        members: Any = cls.__members__  # type: ignore[attr-defined]
        found[making.MEMBERS] = [(name, _state_of(member)) for name, member in members.items()]
    return found


#: The names of the types of attributes that a class makes for its slots and fields.
_MADE = ("member_descriptor", "getset_descriptor", "CField")
#: Attributes that `EnumType` gives each enumeration, in all versions of Python.
_OF_ENUM = {
    *("__new__", "__annotations_cache__", "_all_bits_", "_boundary_", "_flag_mask_", "_hashable_values_", "_inverted_"),
    *("_member_map_", "_member_names_", "_member_type_", "_singles_mask_", "_unhashable_values_", "_use_args_"),
    *("_unhashable_values_map_", "_value2member_map_", "_value_repr_"),
}


def _is_of_enum(cls: type, name: str, value: Any) -> bool:
    """Whether `EnumType` gives an enumeration this attribute in the worker too."""
    function = getattr(value, "__func__", value)
    if type(function) is not FunctionType:
        return name == "_new_member_"
    inherited = next((vars(base)[name] for base in cls.__mro__[1:] if name in vars(base)), None)
    is_inherited = name == "_new_member_" or getattr(inherited, "__func__", inherited) is function
    return function.__module__ == "enum" and is_inherited


def _state_of(member: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in ("_sort_order_", "__objclass__")}


#: Types of the interpreter that have no name among the builtins.
_OF_TYPES = {value: name for name, value in vars(types).items() if isinstance(value, type)}
for _unnamed in (type(None), type(NotImplemented), type(Ellipsis)):
    # The pickler handles these types itself.
    _OF_TYPES.pop(_unnamed, None)


def reduce_builtin(cls: type) -> Any:
    name = _OF_TYPES.get(cls)
    return NotImplemented if name is None else (making.find_in, ("types", name))


# ---- parts of functions and classes


def _reduce_module(pickler: by_name.Pickler, module: ModuleType) -> Any:
    name = module.__name__
    if name in sys.modules and reach.is_importable(name):
        return making.import_module, (name,)
    pickler.refer_module(module)
    return mirror.module, (name,)


def _reduce_lru_cache(_: by_name.Pickler, cache: Any) -> Any:
    # `functools.update_wrapper` sets `__wrapped__`, and copies other attributes.
    own = {name: value for name, value in vars(cache).items() if name not in ("__wrapped__", "cache_parameters")}
    how = cache.__wrapped__, cache.cache_parameters()
    return making.make_lru_cache, how, own or None, None, None, making.fill_slots


def _reduce_new_type(_: by_name.Pickler, made: Any) -> Any:
    return type(made), (made.__name__, made.__supertype__), {"__module__": made.__module__}


def _reduce_type_variable(_: by_name.Pickler, made: Any) -> Any:
    """Reduces a type variable, or a type parameter of Python 3.12, to a call of its type."""
    names = ("bound", "covariant", "contravariant", "infer_variance")
    options = {name: value for name in names if (value := getattr(made, f"__{name}__", None))}
    if getattr(made, "has_default", bool)():
        options["default"] = made.__default__
    constraints = getattr(made, "__constraints__", ())
    how = type(made), made.__name__, constraints, options, made.__module__
    return making.only_one, (making.track(made), making.make_type_variable, how)


def _reduce_alias(_: by_name.Pickler, alias: Any) -> Any:
    how = alias.__name__, alias.__value__, alias.__type_params__, alias.__module__
    if alias.__type_params__:
        return making.make_alias, how
    # Its value may contain the alias.
    return making.make_late_alias, (how[0], how[3]), how[1], None, None, making.fill_late_alias


#: The types of methods and properties, which other types may inherit from, each with what makes an equal object.
DESCRIPTORS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    classmethod: lambda made: (made.__func__,),
    staticmethod: lambda made: (made.__func__,),
    property: lambda made: (made.fget, made.fset, made.fdel, made.__doc__),
}


def reduce_descriptor(_: by_name.Pickler, made: Any) -> Any:
    """Reduces a method of a class or a property. Returns NotImplemented for other objects."""
    base = next((base for base in DESCRIPTORS if isinstance(made, base)), None)
    if base is None:
        return NotImplemented
    kind, arguments = type(made), DESCRIPTORS[base](made)
    if kind is base:
        return kind, arguments
    state = made.__getstate__()
    return making.make_as, (kind, base, arguments), state, None, None, making.fill_new


def _reduce_cached_property(_: by_name.Pickler, made: Any) -> Any:
    return making.make_cached_property, (made.func, made.attrname)


def _reduce_weak(_: by_name.Pickler, made: Any) -> Any:
    """Reduces a container with weak references. Its copy keeps what it contains, as the program does elsewhere."""
    items = list(made) if isinstance(made, weakref.WeakSet) else dict(made.items())
    return type(made), (items,), {"_contents": items}


def _reduce_context_manager(_: by_name.Pickler, made: Any) -> Any:
    """Reduces what a function of `contextmanager` has returned, for its use as a decorator: each call of the decorated
    function calls that function again. Its generator stays here."""
    state = {name: value for name, value in vars(made).items() if name != "gen"}
    return (making.make_new, (type(made),), state) if "func" in state else NotImplemented


def _reduce_json_scanner(_: by_name.Pickler, scanner: Any) -> Any:
    # A hook for arrays came with Python 3.15.
    names = "strict", "object_hook", "object_pairs_hook", "array_hook", "parse_float", "parse_int", "parse_constant"
    return making.make_json_scanner, ({name: getattr(scanner, name) for name in names if hasattr(scanner, name)},)


#: The flag of `ctypes` for functions that keep a copy of `errno`.
_USES_ERRNO = 8


def _reduce_library(_: by_name.Pickler, library: Any) -> Any:
    """Reduces a library of `ctypes`: the worker loads it. Its functions keep their types."""
    found = {name: _types_of(one) for name, one in vars(library).items() if type(one) is library._FuncPtr}
    kind: Any = type(library)
    make = functools.partial(kind, library._name, use_errno=bool(library._FuncPtr._flags_ & _USES_ERRNO))
    return make, (), found, None, None, making.fill_library


def _types_of(function: Any) -> dict[str, Any]:
    found = {name: getattr(function, name) for name in ("argtypes", "restype", "errcheck") if hasattr(function, name)}
    return {name: value for name, value in found.items() if name != "errcheck" or value is not None}


def _reduce_method(_: by_name.Pickler, method: MethodType) -> Any:
    # By its name, as pickle does, unless its class has the method under another name.
    if getattr(method.__self__, method.__func__.__name__, None) == method:
        return NotImplemented
    return MethodType, (method.__func__, method.__self__)


#: Reducers by the type of the object. Arguments: the pickler and the object.
REDUCERS: dict[type, Callable[[by_name.Pickler, Any], Any]] = {
    # The code contains its file name and line numbers, for tracebacks. Both sides have the same version of Python.
    CodeType: lambda _, code: (marshal.loads, (marshal.dumps(code),)),
    CellType: lambda _, cell: (making.make_cell, ()),
    MethodType: _reduce_method,
    ModuleType: _reduce_module,
    mirror.Mirror: _reduce_module,
    **dict.fromkeys(DESCRIPTORS, reduce_descriptor),
    functools.cached_property: _reduce_cached_property,
    types.MappingProxyType: lambda _, proxy: (types.MappingProxyType, tuple(gc.get_referents(proxy))),
    **dict.fromkeys((weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary), _reduce_weak),
}
#: Reducers, likewise, for types of modules that few programs import.
RARE: dict[str, Callable[[by_name.Pickler, Any], Any]] = {
    "contextlib._GeneratorContextManager": _reduce_context_manager,
    "contextlib._AsyncGeneratorContextManager": _reduce_context_manager,
    "_json.Scanner": _reduce_json_scanner,
    "ctypes.CDLL": _reduce_library,
    "ctypes.PyDLL": _reduce_library,
    "random.SystemRandom": lambda _, made: (type(made), ()),
}
#: Reducers of definitions, by type, for objects that pickle by name.
NAMED: dict[str, Callable[[by_name.Pickler, Any], Any]] = {
    "functools._lru_cache_wrapper": _reduce_lru_cache,
    "typing.NewType": _reduce_new_type,
    "typing.TypeAliasType": _reduce_alias,
    **dict.fromkeys(("typing.TypeVar", "typing.TypeVarTuple", "typing.ParamSpec"), _reduce_type_variable),
}


def has_definition(obj: Any) -> bool:
    """Whether an object that pickles by name has a definition of its own, and needs no name."""
    return f"{type(obj).__module__}.{type(obj).__name__}" in NAMED


def reduce_named(pickler: by_name.Pickler, obj: Any) -> Any:
    """Reduces the definition of an object that pickles by name."""
    reduce = NAMED.get(f"{type(obj).__module__}.{type(obj).__name__}")
    if reduce is not None:
        return reduce(pickler, obj)
    return making.make_new, (type(obj),), obj.__getstate__(), None, None, making.fill_new


def reduce_marker(obj: Any) -> Any:
    """Reduces a marker of `dataclasses`, which is compared by identity. Returns NotImplemented for other objects."""
    place = elsewhere.place_of(obj)
    return NotImplemented if place is None else (making.find_in, place)
