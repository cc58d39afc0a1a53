"""The identity of a worker in `multiprocessing`, modules of which arenite only knows what others import, and the texts
of exceptions."""

from __future__ import annotations

import os
import sys

from .. import _arenite

# A worker imports this before its first task: see `pickling`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, ModuleType
    from typing import Any


def name_process(key: bytes | None) -> None:
    """Sets the name and number of this worker in `multiprocessing.current_process()` after `multiprocessing` is
    imported. `key`: the key by which processes of the program authenticate each other."""

    def change(module: ModuleType) -> None:
        own = _arenite.worker_identity()
        if own is None:
            return
        number, _, label = own
        # The number has the form of a pool's processes, for programs that read it from the identity.
        current = module.current_process()
        current._identity = (number + 1,)
        current.name = f"{label}-{number + 1}"
        if key is not None:
            current.authkey = key
        try:
            parent: Any = module._ParentProcess  # type: ignore[attr-defined]
            program = os.getppid()
            module._parent_process = parent("MainProcess", program, os.pidfd_open(program))  # type: ignore[attr-defined]
        except OSError:
            pass  # Without a descriptor left nobody can wait for the program.

    after_import("multiprocessing.process", change)


def prepare_forks() -> None:
    """Lets tasks fork, and lead a session: this worker leads a process group, which a leader of a session must not."""
    os.register_at_fork(after_in_child=_arenite.after_fork_in_task)
    setsid = os.setsid

    def join_other_group() -> None:
        own = os.getpid()
        if os.getpgrp() == own and os.getsid(0) != own:
            # The engine ends the group of this number, which the session has again.
            os.setpgid(0, os.getpgid(os.getppid()))
        setsid()

    os.setsid = join_other_group


def imported(name: str) -> Any:
    """Returns a module if the program has imported it. Returns None also while a thread imports it, which has defined
    only a part of its names."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


def after_import(name: str, call: Callable[[ModuleType], None]) -> None:
    """Calls `call` with a module after its import, or now if it is imported already."""
    module = sys.modules.get(name)
    if module is not None:
        call(module)
    else:
        sys.meta_path.insert(0, _AfterImport(name, call))  # type: ignore[arg-type]


class _AfterImport:
    def __init__(self, name: str, call: Callable[[ModuleType], None]) -> None:
        self._name, self._call = name, call

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name != self._name:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        loader: Any = spec and spec.loader
        # The loader of a frozen module is a class.
        if loader is None or isinstance(loader, type):
            return spec
        execute, call = loader.exec_module, self._call

        def exec_module(module: ModuleType) -> None:
            execute(module)
            call(module)

        loader.exec_module = exec_module
        return spec


def text_of(error: BaseException, is_whole: bool = False) -> str:
    """Returns the text of an exception, which may be of any class; its `__str__` may fail. `is_whole`: with its class,
    like the end of a traceback."""
    import traceback

    try:
        return "".join(traceback.format_exception_only(type(error), error)).strip() if is_whole else str(error)
    except Exception:
        return f"{type(error).__name__}, whose text cannot be made"


#: The packages whose code calls the code of users.
_INTERNAL = ("arenite", "arenite._core", "arenite.integrations")


def is_internal(frame: FrameType) -> bool:
    """Whether a frame runs code of this package that is not the user's."""
    return frame.f_globals.get("__package__") in _INTERNAL
