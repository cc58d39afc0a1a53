"""What names lead to: whether a worker can import a module, whether a name leads to an object, whose a type is."""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

# A worker imports this before its first task: `typing` and `pickle`, with their imports, take a fifth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


#: Types that the C pickler handles alone.
PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})
#: Modules that are not in `sys.modules`, by name.
unlisted: dict[str, ModuleType] = {}
#: Names in `__module__` under which no module can be imported.
_absent: set[str] = set()


def is_reachable(obj: Any, module: str | None, name: str) -> bool:
    """Whether this name in this module leads to the object. Imports the module, as pickle does: a package may give its
    classes the name of a module that only some programs import."""
    if not module or "<" in name:
        return False
    found: Any = sys.modules.get(module)
    if found is None:
        if module not in _absent:
            try:
                __import__(module)
            except Exception:
                _absent.add(module)
        found = sys.modules.get(module)
    try:
        for part in name.split("."):
            found = getattr(found, part, None)
    except Exception:  # A descriptor that only objects of the class can use.
        return False
    return found is obj


#: Containers that `Stock` writes without a pickler, and that tasks can change.
CHANGING = frozenset({list, dict, set})
#: Types whose objects cannot change. They are compared by value.
_VALUES: tuple[Any, ...] = (
    *(*PLAIN, tuple, frozenset, range, slice, type(...), type(NotImplemented), CodeType, property, classmethod),
    *(staticmethod, FunctionType, BuiltinFunctionType, type, ModuleType),
)
#: The names of such types in libraries, and of types whose objects have names of their own.
_VALUES_OF_LIBRARIES = frozenset(
    "Decimal ExtensionDtype Fraction Logger Pattern PurePath Timestamp UUID ZoneInfo date datetime device dtype "
    "generic time timedelta timezone ufunc".split()
)


def has_identity(obj: Any) -> bool:
    """Whether a task can change an object, or tells it from an equal one."""
    kind = type(obj)
    if kind in CHANGING:
        return True
    if kind in _VALUES or issubclass(kind, (type, ModuleType)) or hasattr(kind, "__members__"):
        return False
    if "__qualname__" in vars(kind):
        return False  # A function of an extension module, such as one of Cython.
    is_value = issubclass(kind, _VALUES) or not _VALUES_OF_LIBRARIES.isdisjoint(one.__name__ for one in kind.__mro__)
    return not (is_value and is_of_library(kind))


def is_standard(module: str) -> bool:
    """Whether a module is of the standard library."""
    return module.partition(".")[0] in sys.stdlib_module_names


def is_of_library(kind: type) -> bool:
    """Whether a type is not of the program: Python or an installed package defines it."""
    return is_library(str(kind.__module__))


def is_library(module: str) -> bool:
    """Whether a module is of Python or of an installed package."""
    if is_standard(module) or module.partition(".")[0] == "arenite":
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def is_global(function: Any) -> bool:
    """Whether the function's name in its module leads to the function."""
    return is_reachable(function, function.__module__, function.__qualname__)


#: The specification of a module when it was looked for, and whether a worker can import it, by its name.
_importable: dict[str, tuple[Any, bool]] = {}
#: Modules that no worker has to look for.
_FIXED: dict[str | None, bool] = {None: True, "builtins": True, "__main__": False, "__mp_main__": False}


def is_importable(name: str | None) -> bool:
    """Whether a worker finds the module with this name in the place from where this process has loaded it."""
    if name in _FIXED:
        return _FIXED[name]
    module = sys.modules.get(name)  # type: ignore[arg-type]
    if module is None:
        # No module has this name yet: the pickler reports the error.
        return True
    spec = getattr(module, "__spec__", None)
    known = _importable.get(name)  # type: ignore[arg-type]
    if known is None or known[0] is not spec:
        known = _importable[name] = spec, _is_found(name, spec)  # type: ignore[index, arg-type]
    return known[1]


def _is_found(name: str, ours: Any) -> bool:
    if ours is None:
        return False
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        if not is_importable(parent):
            return False
        path = getattr(sys.modules.get(parent), "__path__", None)
        if path is None:
            # The parent package makes this module, such as `os.path`.
            return parent in sys.modules
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec = find(name, path) if find is not None else None
        except Exception:
            continue
        if spec is not None:
            return ours.origin is None or spec.origin is None or ours.origin == spec.origin
    # An extension module may make further modules without a finder. They exist in the worker if their package is found.
    return bool(parent) and path is None
