"""The main file of the program, which workers run as the standard library's `spawn` and `forkserver` do: with
`__mp_main__` as its name, so that what a guard protects does not run.

A file without a guard is never run: it would start everything again. Then `definitions` sends what tasks name, as for
notebooks. After a run, definitions fill the functions and classes that the run has made: see `made_by_run`.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FunctionType, ModuleType

# A worker imports this before its first task: see `pickling`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

#: What the file finds as its name, outside of functions, and the global that has this name.
_NAME, _GLOBAL = "__mp_main__", "__mp_name__"
#: The flag of `compile` that makes a syntax tree.
_ONLY_TREE = 0x400


# ---- in the program


def described() -> tuple[str, str | None, bool] | None:
    """Returns the path of the main file, its name if the program was started by `python -m`, and whether workers can
    run it. Returns None without such a file, or if the file has no guard."""
    module = sys.modules.get("__main__")
    path, spec = getattr(module, "__file__", None), getattr(module, "__spec__", None)
    name = getattr(spec, "name", None)
    if not isinstance(path, str) or not _is_guarded(path):
        return None
    # The main module of a package, or of an archive, is a command: it has nothing but the call of its program.
    runs = name is None or name.rpartition(".")[2] != "__main__"
    return os.path.abspath(path), name, runs


#: For a file at its time: whether it has a guard.
_guarded: dict[tuple[str, int], bool] = {}


def _is_guarded(path: str) -> bool:
    try:
        key = path, os.stat(path).st_mtime_ns
        if key not in _guarded:
            with open(path, "rb") as file:
                text = file.read()
            _guarded[key] = b"__name__" in text and any(is_test for _, is_test in _names_in(_tree(text, path)))
        return _guarded[key]
    except (OSError, SyntaxError, ValueError):
        return False  # In an archive.


def _tree(text: bytes, path: str) -> Any:
    return compile(text, path, "exec", _ONLY_TREE, True)


def _names_in(node: Any, is_test: bool = False) -> Iterator[tuple[Any, bool]]:
    """Yields each `__name__` outside of functions, and whether a condition compares it, by itself or in a combination
    of conditions."""
    kind = type(node).__name__
    if kind in ("FunctionDef", "AsyncFunctionDef", "Lambda"):
        return
    if kind == "Name" and node.id == "__name__":
        yield node, is_test
    for field in node._fields:
        value = getattr(node, field, None)
        is_tested = field in ("test", "subject") or kind == "Expr" or is_test and kind in _CONDITIONS
        for child in value if isinstance(value, list) else [value]:
            if hasattr(child, "_fields"):
                yield from _names_in(child, is_tested)


_CONDITIONS = ("BoolOp", "Compare", "IfExp", "UnaryOp")


# ---- in a worker

#: The globals that the run has set.
_made: dict[str, Any] = {}
#: The classes of the run that definitions have filled.
_filled: list[type] = []
#: What the run has raised.
failure: BaseException | None = None


def run(module: ModuleType, path: str, name: str | None) -> None:
    """Runs the main file as this module."""
    global failure
    space = vars(module)
    sys.modules["__main__"] = sys.modules[_NAME] = module
    before = set(space)
    space.update(__name__="__main__", __file__=path, __package__=None, __doc__=None, __annotations__={})
    space[_GLOBAL] = _NAME
    try:
        exec(_code(space, path, name), space)
    except BaseException as error:
        if hasattr(error, "is_refusal"):
            # Not all that starts workers is below the guard: as without one, only what tasks name is there.
            for key in set(space) - before:
                del space[key]
            return
        failure = error
        error.add_note(
            f"The main file {path} raised this when a worker ran it, as multiprocessing does: move what belongs to the "
            'program below if __name__ == "__main__", or pass settings=arenite.Settings(main=False) to the executor.'
        )
    finally:
        space.pop(_GLOBAL, None)
        space.update(__file__=path)
    _made.update((key, value) for key, value in space.items() if key not in before and not key.startswith("__"))


def _code(space: dict[str, Any], path: str, name: str | None) -> CodeType:
    """Returns the code of the main file, with another global in place of its name: functions and classes that it makes
    belong to `__main__`, as in the program."""
    if name is not None:
        from importlib.util import find_spec

        spec: Any = find_spec(name)
        space.update(__spec__=spec, __package__=spec.parent, __loader__=spec.loader)
    with open(path, "rb") as file:
        tree = _tree(file.read(), path)
    for found, _ in _names_in(tree):
        found.id = _GLOBAL
    return compile(tree, path, "exec", 0, True)


def fork() -> None:
    """In a copy of the program: its globals count as made by the run of the main file."""
    _made.update(vars(sys.modules["__main__"]))


def check() -> None:
    """Raises what the run of the main file has raised."""
    if failure is not None:
        raise failure.with_traceback(failure.__traceback__)


def has_made(owner: Any, name: str) -> bool:
    """Whether the run of the main file has made a global, or an attribute of one of its classes."""
    if isinstance(owner, ModuleType):
        return has_made_value(vars(owner), name)
    return any(one is owner for one in _filled)


def has_made_value(space: dict[str, Any], name: str) -> bool:
    """Whether a global of these has the value that the run of the main file has given it."""
    return space.get("__name__") == "__main__" and name in _made and _made[name] is space.get(name)


def made_function(code: CodeType, space: dict[str, Any], cells: int) -> FunctionType | None:
    """Returns the function of this code that the run of the main file has made under its name."""
    owner = code.co_qualname.rpartition(".")[0]
    # A method is that of its class.
    if not _made or space is not vars(sys.modules["__main__"]) or owner and not has_made(_find(owner), ""):
        return None
    found = _find(code.co_qualname)
    found = getattr(found, "__func__", found)
    is_same = type(found) is FunctionType and found.__code__ == code and len(found.__closure__ or ()) == cells
    return found if is_same else None


def made_class(meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any], members: Any) -> type | None:
    """Returns the class like this that the run of the main file has made under its name."""
    if not _made or body.get("__module__") != "__main__":
        return None
    found: Any = _find(body.get("__qualname__", name))
    kind = type(found)
    if kind is not meta or found.__bases__ != bases:
        return None
    names = [one[0] for one in members[2]] if members is not None else None
    is_same = vars(found).get("__slots__") == body.get("__slots__")
    if not is_same or names is not None and list(vars(found)["_member_map_"]) != names:
        return None
    _filled.append(found)
    return found  # type: ignore[no-any-return]


def _find(qualname: str) -> Any:
    first, *rest = qualname.split(".")
    found = _made.get(first)
    for part in rest:
        found = getattr(found, "__dict__", {}).get(part)
    return found
