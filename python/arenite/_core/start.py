"""The start of a worker: the interpreter, its arguments, and its data."""

from __future__ import annotations

import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

from .. import _arenite
from . import context, libraries, tools
from .process import imported
from .sizes import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .definitions import Definitions

#: Loads the package and its extension from their places in this process, whatever the search path contains, and runs
#: tasks. Their imports use the search path of this process, which is part of the data. `importlib.util` would make this
#: program shorter, but importing it takes a quarter of a worker's start.
_PROGRAM = """\
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
loader = ExtensionFileLoader('arenite._arenite', {path!r})
spec = ModuleSpec('arenite._arenite', loader, origin={path!r})
module = sys.modules['arenite._arenite'] = loader.create_module(spec)
module.__spec__, module.__file__ = spec, spec.origin
loader.exec_module(module)
spec = PathFinder.find_spec('arenite', [{folder!r}])
package = sys.modules['arenite'] = type(sys)('arenite')
package.__spec__, package.__file__, package.__path__ = spec, spec.origin, spec.submodule_search_locations
package._arenite = module
spec.loader.exec_module(package)
module.run_worker(f'{{sys.implementation.cache_tag}} {{sys.version.split()[0]}}'.encode())
"""

#: The program for another interpreter, which finds the package itself, if the modules of this program are in an
#: archive.
_PROGRAM_OF_OTHERS = """\
import sys
import arenite._arenite as module
if module.__version__ != {version!r}:
    sys.exit(f'the program has arenite {version}, but {{sys.executable}} has arenite {{module.__version__}}')
module.run_worker(f'{{sys.implementation.cache_tag}} {{sys.version.split()[0]}}'.encode())
"""

#: The argument that makes a frozen program a worker.
_WORKER = "--arenite-worker"
#: Whether this process has called `freeze_support`; then its workers will call it, too.
_has_support = False

#: Variables in which libraries read the number of threads to start in each process.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)

#: The seed of text hashes in all workers of this process, which would otherwise have different seeds. The seed of this
#: process is unknown, unless it was set.
_HASH_SEED = str(int.from_bytes(os.urandom(4), "little"))

#: Variables that sandboxed workers get, and prefixes of further ones.
_PLAIN = {"PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "GLIBC_TUNABLES"}
_PLAIN_BEGINNINGS = ("LC_", "MALLOC_", "PYTHON", "ARENITE_", "_PYI_")


def freeze_support() -> None:
    """Lets a program that is frozen by PyInstaller run workers. The workers are processes of the program itself, which
    this call turns into workers.

    Call it first in the main program, before other work and before the command line is read. It does nothing in
    programs that are not frozen.

    >>> import arenite
    >>> if __name__ == "__main__":
    ...     arenite.freeze_support()
    """
    global _has_support
    if not is_frozen():
        return
    if sys.argv[1:] == [_WORKER]:
        # The extension imports this module. The import is here so that PyInstaller finds it.
        from . import worker  # noqa: F401

        _arenite.run_worker(identity())
        sys.exit()
    _has_support = True


def is_frozen() -> bool:
    """Whether `sys.executable` is the program itself."""
    return bool(getattr(sys, "frozen", False))


def interpreter(python: str | None) -> str:
    """Returns the path of the interpreter that workers run."""
    path = python or sys.executable
    if python is None and is_frozen() and not _has_support:
        raise RuntimeError(
            f"this program is frozen: {path} is the program itself and no interpreter that workers could run. Call "
            "arenite.freeze_support() first in the main program, so that it can be its own worker, or pass the path of a "
            f"Python {sys.version.split()[0]} with the same packages as settings=arenite.Settings(python=…)"
        )
    if not path:
        raise RuntimeError(
            "sys.executable is empty, so this Python is embedded in another program and cannot be started again: pass "
            "the path of an interpreter with the same packages as settings=arenite.Settings(python=…)"
        )
    return path


def identity() -> bytes:
    """Returns what a worker must have in common with this process, because both exchange byte code and pickles. The
    worker computes the same value."""
    return f"{sys.implementation.cache_tag} {sys.version.split()[0]}".encode()


def arguments(python: str | None) -> list[str]:
    """Returns the arguments of the interpreter."""
    if is_frozen():
        program = _PROGRAM_OF_OTHERS.format(version=_arenite.__version__)
        return [_WORKER] if python is None else ["-P", "-c", program]
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    flags = [flag for flag in _args_from_interpreter_flags() if flag != "-P"]
    path = os.path.abspath(_arenite.__file__)
    program = _PROGRAM.format(path=path, folder=os.path.dirname(os.path.dirname(path)))
    # -P: a file in the working directory must not take the place of a module of the standard library.
    return [*flags, "-P", "-c", program]


def environment(
    workers: int,
    given: Mapping[str, str] | None,
    sandboxed: bool,
    python: str | None = None,
    threads: int | None = None,
) -> list[tuple[str, str]]:
    """Returns the environment of a worker: the environment of this process, the number of threads of libraries, and
    variables that the user sets. `threads`: see `thread_count`.

    A sandboxed worker gets only variables of the loader, the C library and Python, without secrets of the program; its
    libraries start no threads, because the sandbox could not confine them."""
    share = max(1, len(os.sched_getaffinity(0)) // max(1, workers))
    counts = {} if threads == 0 else dict.fromkeys(_THREADS, str(threads or share))
    if sandboxed:
        made = {name: value for name, value in os.environ.items() if name in _PLAIN or name.startswith(_PLAIN_BEGINNINGS)}
        made.update(dict.fromkeys(_THREADS, "1"))
    elif threads is None:
        made = {**counts, **os.environ}
    else:
        made = {**os.environ, **counts}
    # The allocators of pyarrow and polars start threads, which a template must not have.
    for name in ("JE_ARROW_MALLOC_CONF", "_RJEM_MALLOC_CONF"):
        made.setdefault(name, "background_thread:false")
    if python is not None and is_frozen():
        # The program's value points to its own libraries.
        made.pop("LD_LIBRARY_PATH", "")
        if "LD_LIBRARY_PATH_ORIG" in os.environ:
            made["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH_ORIG"]
    made.update(given or {})
    if made.get("PYTHONHASHSEED", "random") == "random":
        made["PYTHONHASHSEED"] = _HASH_SEED
    return list(made.items())


def method(start: str | None, context: Any) -> tuple[str, bool]:
    """Checks the arguments `start` and `mp_context`. Returns the start method, and whether the caller has chosen it."""
    chosen = start
    if start is None and context is not None:
        chosen = context if isinstance(context, str) else context.get_start_method()
    if chosen not in (None, *_METHODS):
        raise ValueError(f"start must be one of {', '.join(_METHODS)}, not {chosen!r}")
    return chosen or _METHODS[0], chosen is not None


_METHODS = ("forkserver", "spawn", "fork")


def thread_count(threads: Any, sandboxed: bool) -> int | None:
    """Checks the argument `threads`. Returns the number of threads of libraries in a worker: None for its share of the
    cores, 0 for the number that each library chooses."""
    if threads is None:
        return None
    number = 0 if threads == "all" else count("threads", threads)
    if sandboxed and number != 1:
        raise ValueError(f"libraries start no threads in a sandbox: threads must be None or 1, not {threads!r}")
    return number


def setup(
    definitions: Definitions,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    preload: Iterable[str],
    sandboxed: bool,
    threads: int | None,
    env: Mapping[str, str] | None,
    python: str | None,
    **given: Any,
) -> bytes:
    """Returns the pickled arguments of `worker.start`. `given`: those that are passed as they are.

    - `private`: whether tasks get private copies of shared arrays; `private_values`: of arrays in values of other
      tasks, as the program does; `memory_limit`: see `Executor`.
    - `log`: how records are forwarded; `output`: where output goes, None for the engine; `bars`: see
      `printing.show_bars`.
    - `imports`: the file with the names of modules, and whether workers keep reading it; `lookups`: where workers ask
      for names.
    - `template`: the arguments of the template, for workers that are not copied from one; `main`: those of
      `mirror.begin_main`."""
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    first = defined = None
    if initializer is not None:
        with definitions.passing():
            first, _, _, names_used = definitions.dump((initializer, tuple(initargs)), given["private"])
        if names_used:
            defined = definitions.of_setup(names_used)
    given |= {
        # The modules of a frozen program are in an archive that other interpreters cannot read.
        "path": None if python is not None and is_frozen() else context.path(),
        # Arguments of the program may be secrets.
        "argv": sys.argv[:1] if sandboxed else list(sys.argv),
        "filters": context.filters(),
        "libraries": (libraries.changed(threads is None), {} if sandboxed else libraries.of_modules()),
        "preload": modules(preload, sandboxed),
        "definitions": defined,
        "initializer": first,
        "sandboxed": sandboxed,
        "hash_seed": (env or {}).get("PYTHONHASHSEED", os.environ.get("PYTHONHASHSEED")),
        "key": None if sandboxed else _key(),
        "tools": [] if sandboxed else tools.followers(interpreter(python)),
    }
    return pickle.dumps(given, 5)


def modules(preload: Iterable[str], sandboxed: bool) -> list[str]:
    """Returns the names of the modules that a worker imports before it is ready."""
    names = [preload] if isinstance(preload, str) else list(preload)
    if sandboxed:
        # Modules that restore arguments: arrays and, if Dask is loaded, exceptions. A sandboxed task cannot import
        # them.
        loaded = ("numpy", "tblib.pickling_support", "arenite._core.isolated")
        names[:0] = ["arenite._core.identity", *(name for name in loaded if name in sys.modules)]
    return names


def _key() -> bytes | None:
    """Returns the key by which processes of this program authenticate each other, if it uses `multiprocessing`."""
    process = imported("multiprocessing.process")
    return None if process is None else bytes(process.current_process().authkey)
