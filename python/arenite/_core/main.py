"""The main file of the program, which workers run as the standard library's `spawn` and `forkserver` do: under the name
`__mp_main__`, so that what a guard protects does not run.

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
    from typing import Any

#: The name of the module while its file runs.
_NAME = "__mp_main__"
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
            _guarded[key] = b"__name__" in text and _has_test(compile(text, path, "exec", _ONLY_TREE, True).body)
        return _guarded[key]
    except (OSError, SyntaxError, ValueError):
        return False  # In an archive.


def _has_test(statements: list[Any]) -> bool:
    """Whether one of these statements, or of those in their blocks, tests `__name__`."""
    for one in statements:
        blocks = [getattr(one, part, ()) for part in ("body", "orelse", "handlers", "finalbody", "cases")]
        kind = type(one).__name__
        tested = getattr(one, "test", None) or getattr(one, "subject", None) or (kind == "Expr" and one.value)
        if tested and _names_itself(tested):
            return True
        if kind not in ("FunctionDef", "AsyncFunctionDef", "ClassDef") and any(
            _has_test(block) for block in blocks if isinstance(block, list)
        ):
            return True
    return False


def _names_itself(expression: Any) -> bool:
    """Whether an expression compares `__name__`, by itself or in a combination of conditions."""
    kind = type(expression).__name__
    if kind == "Name":
        return bool(expression.id == "__name__")
    if kind == "Compare":
        return any(map(_names_itself, (expression.left, *expression.comparators)))
    if kind == "BoolOp":
        return any(map(_names_itself, expression.values))
    return kind in ("IfExp", "UnaryOp") and _names_itself(getattr(expression, "test", None) or expression.operand)


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
    space.update(__name__=_NAME, __file__=path, __package__=None, __doc__=None, __annotations__={})
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
            'program below if __name__ == "__main__", or make the executor with main=False.'
        )
    finally:
        space["__name__"] = "__main__"
        _rename()
        space.update(__file__=path)
    _made.update((key, value) for key, value in space.items() if key not in before and not key.startswith("__"))


def _code(space: dict[str, Any], path: str, name: str | None) -> CodeType:
    if name is not None:
        from importlib.util import find_spec

        spec: Any = find_spec(name)
        space.update(__spec__=spec, __package__=spec.parent, __loader__=spec.loader)
        code: CodeType = spec.loader.get_code(name)
        return code
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", 0, True)


def _rename() -> None:
    """Gives the functions and classes of the run the module that they have in the program."""
    import gc

    for one in gc.get_objects():
        if type(one) is FunctionType and one.__module__ == _NAME:
            one.__module__ = "__main__"
        elif issubclass(type(one), type) and type.__dict__["__dict__"].__get__(one).get("__module__") == _NAME:
            # Its metaclass may refuse the one or the other.
            for change in (type.__setattr__, setattr):
                try:
                    change(one, "__module__", "__main__")
                    break
                except Exception:
                    continue


def fork() -> None:
    """In a copy of the program: its globals count as made by the run of the main file."""
    _made.update(vars(sys.modules["__main__"]))


def check() -> None:
    """Raises what the run of the main file has raised."""
    if failure is not None:
        raise failure.with_traceback(failure.__traceback__)


def is_made(home: str, name: str, value: Any) -> bool:
    """Whether a global has the value that the run of the main file has given it."""
    return home == "__main__" and name in _made and _made[name] is value


def has_made(cls: Any) -> bool:
    """Whether definitions have filled this class, which the run of the main file has made."""
    return any(one is cls for one in _filled)


def made_function(code: CodeType, space: dict[str, Any], cells: int) -> FunctionType | None:
    """Returns the function of this code that the run of the main file has made under its name."""
    owner = code.co_qualname.rpartition(".")[0]
    # A method is that of its class.
    if not _made or space is not vars(sys.modules["__main__"]) or owner and not has_made(_find(owner)):
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
