"""Objects that modules have which workers import, such as `os.environ` or the method `random.random`: workers use the
objects of their own modules."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from . import codes, reach

Place = tuple[str, str]

#: Containers whose contents are sent.
CONTAINERS = (dict, list, set, OrderedDict, defaultdict, Counter, deque)
_OTHERS = {*codes.ATOMS, ModuleType, FunctionType, tuple, frozenset}
#: Modules whose attributes the interpreter or the program sets.
_SKIPPED = ("__main__", "__mp_main__", "builtins")
#: The types of methods of an object.
METHODS: tuple[type, ...] = (BuiltinFunctionType, MethodType)

#: The module and the name of objects, by identity. An object may be gone since.
_places: dict[int, Place] = {}
#: What `_newest` returned at that time.
_modules = 0, 0


def place_of(value: Any) -> Place | None:
    """Returns the module and the name of an object that a worker's module has, too. The module may be of the standard
    library, of a package or of the program."""
    kind = type(value)
    if issubclass(kind, type) or codes.is_one_of(kind, _OTHERS) or (kind in METHODS and _is_bare(value)):
        return None
    if kind.__module__ == "__main__":
        return None  # As below, but without a look at all modules.
    if _newest() != _modules:
        _look()
    place = _places.get(id(value))
    if place is None:
        return None
    home, name = place
    if getattr(sys.modules.get(home), "__dict__", {}).get(name) is not value or not reach.is_importable(home):
        return None
    # The program may have given its own object to the module.
    owner = type(getattr(value, "__self__", None)) if kind in METHODS else kind
    is_own = reach.is_standard if reach.is_standard(home) else reach.is_importable
    return place if is_own(owner.__module__) else None


def _is_bare(function: Any) -> bool:
    """Whether a function of C is no method of an object."""
    owner = function.__self__
    return owner is None or isinstance(owner, (ModuleType, type))


def _newest() -> tuple[int, int]:
    """Returns the number of modules, and the identity of the last one that was imported."""
    try:
        last = next(reversed(sys.modules))
    except RuntimeError:  # Another thread imports a module.
        last = ""
    return len(sys.modules), id(sys.modules.get(last))


def _look() -> None:
    global _modules
    _places.clear()
    _modules = _newest()
    modules = [(name, one) for name, one in list(sys.modules.items()) if isinstance(one, ModuleType)]
    # An object may have several names: that of the standard library comes first.
    for home, module in sorted(modules, key=lambda item: not reach.is_standard(item[0])):
        if home in _SKIPPED:
            continue
        for name, value in list(vars(module).items()):
            kind = type(value)
            if not (name.startswith("__") or issubclass(kind, type) or codes.is_one_of(kind, _OTHERS)):
                _places.setdefault(id(value), (home, name))
