"""Settings of libraries that change the results of tasks, such as the precision of `decimal`.

A program usually sets them in its main file, which workers do not run. So workers start with those that the program has
changed before it makes the executor. A worker applies the settings of a library after the import of the library.
"""

from __future__ import annotations

import os
import sys
from collections import namedtuple
from functools import partial
from operator import attrgetter, methodcaller
from threading import local
from types import BuiltinFunctionType, FunctionType, ModuleType

from . import context, process, reach

# A worker imports this before its first task: see `pickling`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


#: A setting of a module, or several that are read and set together. `of_thread`: whether each thread has its own.
Setting = namedtuple("Setting", "home default get put of_thread", defaults=[False])


def _attribute(home: str, name: str, default: Any) -> Setting:
    return Setting(home, default, attrgetter(name), lambda module, value: setattr(module, name, value))


def _function(home: str, get: str, put: str, default: Any) -> Setting:
    return Setting(home, default, methodcaller(get), lambda module, value: getattr(module, put)(value))


def _options(home: str, get: str, put: str) -> Setting:
    """Options of which each thread has its own, in a dictionary."""

    def read(module: Any) -> Any:
        return {name: value for name, value in getattr(module, get)().items() if type(value) in _PLAIN}

    return Setting(home, None, read, lambda module, value: getattr(module, put)(**value), True)


def _get_decimal(module: Any) -> str:
    context = module.getcontext().copy()
    context.clear_flags()
    return repr(context)


def _get_locale(module: Any) -> str | None:
    """Returns the locale if the program has changed it. Python itself only sets the one of characters."""
    value: str = module.setlocale(module.LC_ALL)
    parts = [part.partition("=") for part in value.split(";")]
    is_changed = any((one or name) != "C" for name, _, one in parts if name != "LC_CTYPE")
    return value if is_changed else None


def _get_levels(module: Any) -> Any:
    """Returns the level that disables all loggers, and the levels of loggers by name; that of the root logger is
    empty."""
    manager = module.root.manager
    found = {name: level for name, one in list(manager.loggerDict.items()) if (level := getattr(one, "level", 0))}
    if module.root.level != module.WARNING:
        found[""] = module.root.level
    return manager.disable, found


def _set_levels(module: Any, value: Any) -> None:
    module.disable(value[0])
    for name, level in value[1].items():
        module.getLogger(name or None).setLevel(level)


def _get_options(module: Any) -> Any:
    """Returns the options of pandas that are plain values."""
    found: dict[str, Any] = {}
    left = [("", module.options.d)]
    for prefix, options in left:
        for name, value in options.items():
            if type(value) is dict:
                left.append((f"{prefix}{name}.", value))
            elif type(value) in _PLAIN:
                found[prefix + name] = value
    return found


def _set_options(module: Any, value: Any) -> None:
    own = _get_options(module)
    for name, one in value.items():
        # Setting some gives a warning.
        if one != own.get(name, one):
            module.set_option(name, one)


_PLAIN = (int, float, bool, str, type(None))


def _get_threads(module: Any) -> int | None:
    """Returns the number of threads of OpenCV if the program has changed it."""
    default = os.environ.get("OPENCV_FOR_THREADS_NUM", "")
    number: int = module.getNumThreads()
    return None if number == (int(default) if default.isdecimal() else module.getNumberOfCPUs()) else number


_THREADS = Setting("cv2", None, _get_threads, lambda module, value: module.setNumThreads(value))
_ALL = [
    _THREADS,
    _function("sys", "getrecursionlimit", "setrecursionlimit", 1000),
    _function("sys", "get_int_max_str_digits", "set_int_max_str_digits", 4300),
    _function("socket", "getdefaulttimeout", "setdefaulttimeout", None),
    _function("csv", "field_size_limit", "field_size_limit", 131072),
    _function("calendar", "firstweekday", "setfirstweekday", 0),
    _attribute("PIL.Image", "MAX_IMAGE_PIXELS", 89478485),
    _attribute("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES", False),
    Setting("logging", (0, {}), _get_levels, _set_levels),
    Setting("pandas", {}, _get_options, _set_options),
    _options("sklearn", "get_config", "set_config"),
    _options("numpy", "geterr", "seterr"),
    _options("numpy", "get_printoptions", "set_printoptions"),
    Setting("locale", None, _get_locale, lambda module, value: module.setlocale(module.LC_ALL, value)),
    Setting(
        "decimal",
        "Context(prec=28, rounding=ROUND_HALF_EVEN, Emin=-999999, Emax=999999, capitals=1, clamp=0, flags=[], "
        "traps=[InvalidOperation, DivisionByZero, Overflow])",
        _get_decimal,
        lambda module, value: module.setcontext(eval(value, module.__dict__)),
        of_thread=True,
    ),
]


# ---- in the program


def changed(has_threads: bool = True) -> list[tuple[int, Any]]:
    """Returns the settings that differ from those of a new process, by their index. `has_threads`: whether numbers of
    threads are among them."""
    found = []
    for index, setting in enumerate(_ALL):
        if setting is _THREADS and not has_threads:
            continue
        module = process.imported(setting.home)
        try:
            if module is not None and (value := setting.get(module)) != setting.default:
                found.append((index, value))
        except (AttributeError, KeyError):
            pass  # A version of the library that keeps its settings elsewhere.
    return found


#: The specifications of modules that are not of the program, by name: thousands of them take milliseconds.
_of_libraries: dict[str, Any] = {}


def of_modules() -> dict[str, tuple[Any, list[tuple[str, Any]]]]:
    """Returns the settings of the program's own modules that workers import, by the name of the module: the plain
    globals, and plain attributes of classes and their instances, if a module has no objects of other kinds. Otherwise
    the state of a module could be incomplete."""

    found: dict[str, tuple[Any, list[tuple[str, Any]]]] = {}
    for home, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None) if type(module) is ModuleType else None
        if spec is None or _of_libraries.get(home) is spec:
            continue
        if not spec.has_location or reach.is_library(home):
            _of_libraries[home] = spec
            continue
        if not reach.is_importable(home) or process.imported(home) is None:
            continue
        settings: list[tuple[str, Any]] = []
        names = (item for item in list(vars(module).items()) if not item[0].startswith("__"))
        if all(_add_setting(home, name, value, settings) for name, value in names) and settings:
            found[home] = _version(module), settings
    return found


def _version(module: Any) -> Any:
    """Returns what the file of a module has in common with the file from which another process has loaded it."""
    import zlib

    try:
        # Not its time: the run of the main file may have made another file of the same text.
        with open(module.__spec__.origin, "rb") as file:
            return zlib.crc32(file.read())
    except OSError:  # In an archive.
        return None


def _add_setting(home: str, name: str, value: Any, found: list[tuple[str, Any]]) -> bool:
    """Adds what is plain in a global. Returns whether it is of a kind that a module of settings has."""
    kind = type(value)
    is_short = kind in _CONTAINERS and len(value) <= _LONGEST and all(type(one) in _PLAIN for one in _items(value))
    if kind in _PLAIN or is_short:
        found.append((name, value))
        return True
    if kind in _OTHERS or kind.__module__ in ("typing", "__future__", "logging"):
        return True
    is_class = isinstance(value, type)
    # An object may answer any name.
    if not is_class and type(getattr(value, "__dict__", None)) is not dict:
        return False
    if (value if is_class else kind).__module__ != home:
        return is_class
    attributes = [item for item in vars(value).items() if item[0][:2] != "__" and type(item[1]) in _PLAIN]
    found += ((f"{name}.{one}", held) for one, held in attributes)
    return is_class or len(attributes) == len(vars(value))


def _items(container: Any) -> Any:
    return (*container, *container.values()) if type(container) is dict else container


_CONTAINERS = dict, list, set, tuple
_OTHERS: tuple[type, ...] = ModuleType, FunctionType, BuiltinFunctionType
#: The number of items of a container from which on it is data.
_LONGEST = 100


# ---- in a worker

_given: list[tuple[int, Any]] = []
#: The levels of loggers whose package is not imported yet: it may set its own.
_levels: dict[str, int] = {}
#: What each thread has applied: the settings by their index, and the number of loaded modules at that time.
_local = local()


def begin(given: list[tuple[int, Any]], modules: dict[str, Any]) -> None:
    """Applies the settings that `changed` and `of_modules` have returned in the program."""
    _given[:] = given
    for index, value in given:
        process.after_import(_ALL[index].home, partial(_put, index, value))
        if _ALL[index].put is _set_levels:
            _levels.update(value[1])
    for home, settings in modules.items():
        process.after_import(home, partial(_set_globals, *settings))


def renew() -> None:
    """Called before each task: applies settings that each thread has for itself, and levels of loggers, if modules were
    imported."""
    known: dict[Any, Any] = _local.__dict__
    if not _given or known.get("count") == len(sys.modules):
        return
    known["count"] = len(sys.modules)
    for index, value in _given:
        module = process.imported(_ALL[index].home) if _ALL[index].of_thread else None
        if module is not None and str(index) not in known:
            _put(index, value, module)
    for name in [name for name in _levels if name.partition(".")[0] in sys.modules]:
        sys.modules["logging"].getLogger(name).setLevel(_levels.pop(name))


def take_over() -> None:
    """Called after the initializer: other threads get what it has set, and its levels stay."""
    taken = dict(_given)
    for index, value in changed():
        if _ALL[index].of_thread:
            taken[index] = value
            _local.__dict__[str(index)] = True
    _given[:] = taken.items()
    for name in [name for name in _levels if name.partition(".")[0] in sys.modules]:
        del _levels[name]


def _put(index: int, value: Any, module: Any) -> None:
    _local.__dict__[str(index)] = True
    try:
        _ALL[index].put(module, value)
    except Exception:
        pass  # A worker with other limits refuses it, as a recursion limit below its depth. No import fails for that.


def _set_globals(version: Any, settings: list[tuple[str, Any]], module: Any) -> None:
    if module.__name__ in context.followed or version != _version(module):
        return  # The program had other code.
    for path, value in settings:
        *owners, name = path.split(".")
        try:
            owner = getattr(module, owners[0]) if owners else module
            now: Any = getattr(owner, name, None)
            if type(now) is type(value) and type(value) in (dict, list, set):
                if now != value:
                    now.clear()
                    (now.extend if type(now) is list else now.update)(value)
            elif type(now) is not type(value) or now != value:
                setattr(owner, name, value)
        except Exception:
            pass  # The module of this worker has something else there.
