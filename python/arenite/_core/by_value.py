"""Pickles functions and classes by value, with the objects that they consist of. `mirror` creates them from that.

This is used for functions and classes that no module has by name, and for definitions, which a worker gets once.
"""

from __future__ import annotations

import ast
import contextlib
import copyreg
import functools
import gc
import itertools
import marshal
import operator
import sys
import types
import weakref
from collections import OrderedDict
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from . import codes, making, mirror, reach

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
    packages = [value for value in values if type(value) is ModuleType and hasattr(value, "__path__")]
    found = []
    for package in packages:
        prefix = f"{package.__name__}."
        for name in list(sys.modules):
            if name.startswith(prefix) and names.others.issuperset(name[len(prefix) :].split(".")):
                if reach.is_importable(name):
                    found.append(name)
    return found


def _annotations(pickler: by_name.Pickler, owner: FunctionType | type) -> dict[str, Any]:
    """Returns the annotations of a function or class that can be pickled: few tasks need them."""
    try:
        given = owner.__annotations__
    except Exception:  # From Python 3.14 on, a name may not exist.
        return {}
    for value in given.values():
        pickler.may_refer(owner.__module__, codes.names_in(value))
    return {name: value for name, value in given.items() if type(value) in codes.ATOMS or pickler.can_pickle(value)}


def reduce_code(_: by_name.Pickler, code: CodeType) -> Any:
    # The code contains its file name and line numbers, for tracebacks. Both sides have the same version of Python.
    return making.make_code, (marshal.dumps(code),)


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
#: The metaclasses of `ctypes`, which no name leads to, each with a class that has it.
METACLASSES = {
    **{"PyCStructType": "Structure", "UnionType": "Union", "PyCArrayType": "Array", "PyCSimpleType": "_SimpleCData"},
    **{"PyCPointerType": "_Pointer", "PyCFuncPtrType": "_CFuncPtr"},
}


def reduce_swapped(cls: Any) -> Any:
    """Reduces a number of `ctypes` in the other byte order. Returns None for a number in the order of this machine."""
    ours, other = ("__ctype_le__", "__ctype_be__") if sys.byteorder == "little" else ("__ctype_be__", "__ctype_le__")
    return (getattr, (getattr(cls, ours), other)) if getattr(cls, other) is cls else None


def _own_of_ctypes(cls: type) -> tuple[str, ...]:
    return _OF_CTYPES if type(cls).__module__ == "_ctypes" else ()


def reduce_jitclass(cls: Any) -> Any:
    """Reduces a class of numba to the plain class that was compiled, and the types of its fields."""
    return making.make_jitclass, (making.track(cls), cls.__bases__[0], dict(cls.class_type.struct))


def _reduce_compiled(_: by_name.Pickler, made: Any) -> Any:
    """Reduces a function of numba, which numba pickles with copies of its globals: not if its classes are among
    them."""
    try:
        return copyreg.dispatch_table[type(made)](made)
    except Exception:
        return made._reduce()


def _reduce_instance_type(_: by_name.Pickler, made: Any) -> Any:
    """Reduces the type that numba has for objects of one of its classes, which has no attribute for the class."""
    for known in list(sys.modules["numba.core.registry"].cpu_target.typing_context._globals):
        cls: Any = known() if isinstance(known, weakref.ref) else known
        if getattr(cls, "class_type", None) is made.class_type:
            return operator.attrgetter("class_type.instance_type"), (cls,)
    return NotImplemented


def reduce_class(pickler: by_name.Pickler, cls: type) -> Any:
    name, made = making.track(cls), how_of_class(cls)
    return making.make_tracked, (name, *made), attributes_of_class(pickler, cls), None, None, making.fill_tracked


def how_of_class(cls: type) -> tuple[Any, ...]:
    """Returns the arguments of `making.make_class`."""
    space = vars(cls)
    body = {name: space[name] for name in (*_OF_BODY, *_own_of_ctypes(cls)) if name in space}
    # A slot may have the name of an attribute.
    body = {name: value for name, value in body.items() if type(value) is not MemberDescriptorType}
    if hasattr(body.get("__slots__"), "__next__"):
        # An iterator, which the class has used up.
        own = (name for name in ("__dict__", "__weakref__") if name in space)
        body["__slots__"] = (*own, *(name for name, one in space.items() if type(one) is MemberDescriptorType))
    body.setdefault("__qualname__", cls.__qualname__)
    home = str(type(cls).__module__)
    if not reach.is_standard(home) and reach.is_importable(home):
        # An imported metaclass, which may check attributes.
        names = space.keys() - _OF_CREATION - _OF_ANNOTATIONS
        body |= {name: space[name] for name in sorted(names) if codes.is_atom(space[name])}
    members = None
    if _is_enum(cls):
        members = _members_of(cls)
    return type(cls), cls.__name__, cls.__bases__, body, members


def _is_enum(cls: type) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(cls, enum.EnumMeta)


def _members_of(cls: Any) -> tuple[Any, ...]:
    """Returns the arguments of `making.make_enum` that describe the members of an enumeration."""
    kind = next(one for one in cls._member_type_.__mro__ if type(vars(one).get("__new__")) is BuiltinFunctionType)
    members = [(name, one._value_, _content_of(one, kind)) for name, one in cls.__members__.items()]
    if any(content is None for _, _, content in members):
        kind = None
    return vars(cls).get("_boundary_"), kind, members


def _content_of(member: Any, kind: Any) -> tuple[Any, ...] | None:
    """Returns the arguments with which `kind.__new__` makes an equal object; None if that is not enough."""
    if kind is object:
        return ()
    if kind.__init__ is not object.__init__:
        return None
    if hasattr(kind, "__getnewargs__"):
        return kind.__getnewargs__(member)  # type: ignore[no-any-return]
    reduced = kind.__reduce_ex__(member, 2)
    return reduced[1] if reduced[0] is type(member) else None


def attributes_of_class(pickler: by_name.Pickler, cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    of_body = _own_of_ctypes(cls)
    members: Any = cls.__members__ if _is_enum(cls) else None  # type: ignore[attr-defined]
    # A copy: reading annotations adds an attribute.
    for name, value in list(vars(cls).items()):
        if name in _OF_CREATION or type(value) in _DESCRIPTORS_IN_C and not _is_alias(cls, name, value):
            continue
        if type(value).__module__ in ("_ctypes", "ctypes") and type(value).__name__ == "CField" or name in of_body:
            continue
        if name == "_abc_impl":
            import abc

            value = [one for ref in abc._get_dump(cls)[0] if (one := ref()) is not None]  # type: ignore[attr-defined]
        elif name in _OF_ANNOTATIONS:
            name = "__annotations__"
            value = found[name] if name in found else _annotations(pickler, cls)
        elif members is not None and (name in members or _is_of_enum(cls, name, value)):
            continue
        found[name] = value
    if members is not None:
        found["_member_state_"] = [(name, _state_of(member)) for name, member in members.items()]
        # Values that the program has given to a member beyond its own.
        names = {id(member): name for name, member in members.items()}
        by_value = cls._value2member_map_.items()  # type: ignore[attr-defined]
        more = [(value, one) for value, one in by_value if id(one) in names and value is not one._value_]
        if more := [(value, names[id(one)]) for value, one in more if value != one._value_]:
            found["_value2member_map_"] = more
    if is_registered(cls):
        found[making.COPYREG] = copyreg.dispatch_table[cls]
    return found


def _is_alias(cls: type, name: str, descriptor: Any) -> bool:
    """Whether a descriptor in C, such as one of a slot, has another name in its class, or belongs to another class."""
    other = descriptor.__name__
    return descriptor.__objclass__ is not cls or (other != name and vars(cls).get(other) is descriptor)


def is_registered(cls: type) -> bool:
    """Whether `copyreg` has a reducer for a class. The metaclass of a class may have no hash."""
    return type(cls).__hash__ is not None and cls in copyreg.dispatch_table


_DESCRIPTORS_IN_C: tuple[type, ...] = (MemberDescriptorType, GetSetDescriptorType)
#: Attributes that `EnumType` gives each enumeration, in all versions of Python.
_OF_ENUM = {
    *("__new__", "__annotations_cache__", "_all_bits_", "_boundary_", "_flag_mask_", "_hashable_values_", "_inverted_"),
    *("_member_map_", "_member_names_", "_member_type_", "_singles_mask_", "_unhashable_values_", "_use_args_"),
    *("_unhashable_values_map_", "_value2member_map_", "_value_repr_"),
}


def _is_of_enum(cls: type, name: str, value: Any) -> bool:
    """Whether `EnumType` gives an enumeration this attribute in the worker too."""
    if name in _OF_ENUM or name == "_iter_member_" and type(value) is MethodType:
        return True
    function = getattr(value, "__func__", value)
    if name == "_new_member_" and type(function) is not FunctionType:
        return True
    if type(function) is not FunctionType or function.__module__ != "enum":
        return False
    inherited = next((vars(base)[name] for base in cls.__mro__[1:] if name in vars(base)), None)
    return name == "_new_member_" or getattr(inherited, "__func__", inherited) is function


def _state_of(member: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the attributes of a member that are in its `__dict__`, and those in slots."""
    state = {name: value for name, value in vars(member).items() if name not in ("_sort_order_", "__objclass__")}
    slots = {}
    for base in type(member).__mro__:
        for name, slot in vars(base).items() if "__slots__" in vars(base) else ():
            if type(slot) is MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # The slot is empty.
                    slots[name] = slot.__get__(member)
    return state, slots


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


#: The attributes that a cache gets in addition.
_OF_CACHE = ("__wrapped__", "cache_parameters")


def _reduce_lru_cache(pickler: by_name.Pickler, cache: Any) -> Any:
    made = making.make_lru_cache, (cache.__wrapped__, cache.cache_parameters())
    # `functools.update_wrapper` has copied the others.
    own = {name: value for name, value in vars(cache).items() if getattr(cache.__wrapped__, name, cache) is not value}
    own = {name: value for name, value in own.items() if name not in _OF_CACHE and pickler.can_pickle(value)}
    return (*made, own, None, None, making.fill_slots) if own else made


def _reduce_new_type(_: by_name.Pickler, made: Any) -> Any:
    return type(made), (made.__name__, made.__supertype__), {"__module__": made.__module__}


def _reduce_type_variable(_: by_name.Pickler, made: Any) -> Any:
    kind, constraints = type(made).__name__, ()
    options = {"default": made.__default__} if _has_default(made) else {}
    if not _is_named(made):
        constraints, bound = _bounds_of(made)
        parts = {"bound": constraints or bound, **options}
        return making.make_type_parameter, _how_of_parameter(made), parts, None, None, making.fill_late
    if kind == "TypeVar":
        constraints = made.__constraints__
        options |= {"bound": made.__bound__, "covariant": made.__covariant__, "contravariant": made.__contravariant__}
    how = making.track(made), kind, made.__module__, made.__name__, constraints, options
    return making.make_type_variable, how


#: The stars before a type parameter, by its type.
_STARS = {"TypeVar": "", "TypeVarTuple": "*", "ParamSpec": "**"}


def _is_named(variable: Any) -> bool:
    """Returns false for the type parameter of a generic class, function or alias, which the interpreter makes."""
    return str(variable.__module__) != "typing"


def _has_default(variable: Any) -> bool:
    return bool(hasattr(variable, "has_default") and variable.has_default())


def _how_of_parameter(made: Any) -> tuple[Any, ...]:
    """Returns the arguments of `making.make_type_parameter`."""
    constraints, bound = _bounds_of(made)
    stars = _STARS[type(made).__name__]
    return making.track(made), stars, made.__name__, len(constraints), bound is not None, _has_default(made)


def _bounds_of(parameter: Any) -> tuple[tuple[Any, ...], Any]:
    """Returns the constraints and the bound of a type parameter. A bound that cannot be evaluated is None."""
    try:
        return getattr(parameter, "__constraints__", ()), getattr(parameter, "__bound__", None)
    except Exception:
        return (), None


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


#: The types of the views of dictionaries.
_VIEWS = [
    type(view)
    for made in (dict[Any, Any](), OrderedDict[Any, Any]())
    for view in (made.keys(), made.values(), made.items())
]


def _reduce_view(_: by_name.Pickler, view: Any) -> Any:
    """Reduces a view of a dictionary."""
    kind = type(view).__name__
    held: Any = dict(enumerate(view)) if kind.endswith("values") else view
    if kind.endswith("keys"):
        held = dict.fromkeys(view)
    whole = OrderedDict if kind.startswith("odict") else dict
    return operator.methodcaller(kind.partition("_")[2]), (whole(held),)


def _reduce_memory(_: by_name.Pickler, view: memoryview) -> Any:
    whole = view.obj
    if view.contiguous and not view.readonly and view.nbytes and type(whole).__name__ in ("bytearray", "array"):
        # What is written by the one is seen by the other.
        start = _address_of(view) - _address_of(memoryview(whole))
        return making.make_memory, (whole, view.format, view.shape, (start, start + view.nbytes))
    data = view.tobytes() if view.readonly else bytearray(view.tobytes())
    if 0 in (view.shape or ()) or view.ndim == 1 and view.format == "B":
        return memoryview, (data,)
    return making.make_memory, (data, view.format, view.shape)


def _address_of(view: memoryview) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def _reduce_count(_: by_name.Pickler, count: Any) -> Any:
    # Only its text has the numbers: `itertools` has no support for pickling from Python 3.14 on.
    try:
        return itertools.count, ast.literal_eval(repr(count).removeprefix("count")[:-1] + ",)")
    except (SyntaxError, ValueError):
        return NotImplemented


def _reduce_key(_: by_name.Pickler, key: Any) -> Any:
    """Reduces what `functools.cmp_to_key` has made, which has no attribute for its function."""
    held = [one for one in gc.get_referents(key) if one is not type(key)]
    return (functools.cmp_to_key, tuple(held)) if len(held) == 1 else NotImplemented


def _reduce_ufunc(_: by_name.Pickler, made: Any) -> Any:
    """Reduces what `numpy.frompyfunc` has made, which has no attribute for its function."""
    held = [one for one in gc.get_referents(made) if callable(one)]
    if len(held) != 1:
        return NotImplemented  # A function of numpy, which has a name.
    make: Any = sys.modules["numpy"].frompyfunc
    if made.identity is not None:
        make = functools.partial(make, identity=made.identity)
    return make, (held[0], made.nin, made.nout)


def _reduce_cached_property(_: by_name.Pickler, made: Any) -> Any:
    return making.make_cached_property, (made.func, made.attrname)


def _reduce_context_manager(_: by_name.Pickler, made: Any) -> Any:
    state = {name: value for name, value in vars(made).items() if name != "gen"}
    if "func" not in state:
        return NotImplemented  # The generator has begun.
    return making.make_new, (type(made),), state, None, None, making.fill_context_manager


_SINGLEDISPATCH = functools.singledispatch(lambda _: None).__code__  # type: ignore[attr-defined]


def is_singledispatch(function: FunctionType) -> bool:
    return function.__code__ is _SINGLEDISPATCH


def parts_of_singledispatch(function: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    first = function.registry[object]
    registered = [(kind, one) for kind, one in function.registry.items() if one is not first]
    own = ("registry", "dispatch", "register", "_clear_cache", "__wrapped__")
    return (first,), (tuple(registered), {name: value for name, value in vars(function).items() if name not in own})


def reduce_singledispatch(_: by_name.Pickler, function: Any) -> Any:
    how, state = parts_of_singledispatch(function)
    return making.make_singledispatch, how, state, None, None, making.fill_singledispatch


def _reduce_json_scanner(_: by_name.Pickler, scanner: Any) -> Any:
    # A hook for arrays came with Python 3.15.
    names = "strict", "object_hook", "object_pairs_hook", "array_hook", "parse_float", "parse_int", "parse_constant"
    return making.make_json_scanner, ({name: getattr(scanner, name) for name in names if hasattr(scanner, name)},)


#: The flag of `ctypes` for functions that keep a copy of `errno`.
_USES_ERRNO = 8


def _reduce_library(_: by_name.Pickler, library: Any) -> Any:
    """Reduces a library of `ctypes`: the worker loads it. Its functions keep their types."""
    found = {name: _types_of(one) for name, one in vars(library).items() if type(one) is library._FuncPtr}
    how = type(library), library._name, bool(library._FuncPtr._flags_ & _USES_ERRNO)
    return making.make_library, how, found, None, None, making.fill_library


def _reduce_library_function(_: by_name.Pickler, function: Any) -> Any:
    library = (function._objects or {}).get("0")
    if library is None or not hasattr(library, "_FuncPtr"):
        return NotImplemented  # A pointer, which means nothing in another process.
    return getattr, (library, function.__name__), _types_of(function), None, None, making.fill_slots


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
    CodeType: reduce_code,
    CellType: lambda _, cell: (making.make_cell, ()),
    MethodType: _reduce_method,
    ModuleType: _reduce_module,
    mirror.Mirror: _reduce_module,
    **dict.fromkeys(DESCRIPTORS, reduce_descriptor),
    contextlib._GeneratorContextManager: _reduce_context_manager,
    contextlib._AsyncGeneratorContextManager: _reduce_context_manager,
    functools.cached_property: _reduce_cached_property,
    types.MappingProxyType: lambda _, proxy: (types.MappingProxyType, tuple(gc.get_referents(proxy))),
    **dict.fromkeys(_DESCRIPTORS_IN_C, lambda _, made: (getattr, (made.__objclass__, made.__name__))),
    **dict.fromkeys(_VIEWS, _reduce_view),
    memoryview: _reduce_memory,
    itertools.count: _reduce_count,
    type(functools.cmp_to_key(max)): _reduce_key,
    weakref.WeakSet: lambda _, made: (weakref.WeakSet, (list(made),)),
    weakref.WeakKeyDictionary: lambda _, made: (weakref.WeakKeyDictionary, (dict(made.items()),)),
    weakref.WeakValueDictionary: lambda _, made: (weakref.WeakValueDictionary, (dict(made.items()),)),
}
#: Reducers, likewise, for types of modules that few programs import.
RARE: dict[str, Callable[[by_name.Pickler, Any], Any]] = {
    "_json.Scanner": _reduce_json_scanner,
    "ctypes.CDLL": _reduce_library,
    "ctypes.PyDLL": _reduce_library,
    "ctypes._FuncPtr": _reduce_library_function,
    "numba.core.serialize._CustomPickled": _reduce_compiled,
    "numba.core.types.misc.ClassInstanceType": _reduce_instance_type,
    "numpy.ufunc": _reduce_ufunc,
    "random.SystemRandom": lambda _, made: (type(made), ()),
}
#: Reducers of definitions, by type, for objects that pickle by name.
NAMED: dict[type, Callable[[by_name.Pickler, Any], Any]] = {type(functools.lru_cache(len)): _reduce_lru_cache}


def has_definition(obj: Any) -> bool:
    """Whether an object that pickles by name has a definition of its own, and needs no name."""
    typing = sys.modules.get("typing")
    if typing is not None and not NAMED.get(typing.NewType):
        NAMED[typing.NewType] = _reduce_new_type
        for name in _STARS:
            NAMED[getattr(typing, name)] = _reduce_type_variable
        alias = getattr(typing, "TypeAliasType", None)
        if alias is not None:
            NAMED[alias] = _reduce_alias
    return type(obj) in NAMED


def reduce_named(pickler: by_name.Pickler, obj: Any) -> Any:
    """Reduces the definition of an object that pickles by name."""
    if has_definition(obj):
        return NAMED[type(obj)](pickler, obj)
    return making.make_new, (type(obj),), obj.__getstate__(), None, None, making.fill_new


def _reduce_alias(_: by_name.Pickler, alias: Any) -> Any:
    parameters, home, name = alias.__type_params__, alias.__module__, alias.__name__
    # New in Python 3.15.
    options = {"qualname": alias.__qualname__} if hasattr(alias, "__qualname__") else {}
    if any(map(_is_named, parameters)):
        return making.call_in, (home, type(alias), (name, alias.__value__), {"type_params": parameters, **options})
    how = home, name, options.get("qualname"), *map(_how_of_parameter, parameters)
    parts = {"value": alias.__value__, "parameters": parameters}
    return making.make_alias, how, parts, None, None, making.fill_late


#: The markers of `dataclasses` by the names of their types. `dataclasses` compares markers by identity.
_MARKERS = {
    "_MISSING_TYPE": "MISSING",
    "_KW_ONLY_TYPE": "KW_ONLY",
    "_HAS_DEFAULT_FACTORY_CLASS": "_HAS_DEFAULT_FACTORY",
}


def reduce_marker(obj: Any) -> Any:
    """Reduces a marker of `dataclasses`, or a copy of a marker that another pickler has made."""
    kind = type(obj).__name__
    name = obj.name if kind == "_FIELD_BASE" else _MARKERS.get(kind)
    return NotImplemented if name is None else (making.find_in, ("dataclasses", name))
