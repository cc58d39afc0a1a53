"""A process pool that shares arrays without a copy, and where a crash costs one task.

>>> import arenite
>>> with arenite.Executor(max_workers=2) as ex:         # a concurrent.futures.Executor
...     list(ex.map(lambda n: n * n, range(4)))
[0, 1, 4, 9]

The names of this module are imported when they are first used, so that `import arenite` costs nothing and a worker
loads only what its tasks need.
"""

from __future__ import annotations

# The constant of `typing`: importing `typing` takes longer than all other imports of a worker. Not `False`: jedi, which
# Spyder, pylsp and IPython complete with, takes a literal at its word and skips the imports below.
TYPE_CHECKING = bool()
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from . import service as service
    from ._arenite import __version__ as __version__
    from ._broken import StartFailed as StartFailed
    from ._broken import WorkerDied as WorkerDied
    from ._core.actor import Actor as Actor
    from ._core.arrays import array as array
    from ._core.arrays import empty as empty
    from ._core.arrays import full as full
    from ._core.arrays import install as install
    from ._core.arrays import mut as mut
    from ._core.arrays import zeros as zeros
    from ._core.executor import Executor as Executor
    from ._core.executor import cancelled as cancelled
    from ._core.future import Future as Future
    from ._core.identity import Worker as Worker
    from ._core.identity import rng as rng
    from ._core.identity import worker as worker
    from ._core.isolated import Report as Report
    from ._core.isolated import isolated as isolated
    from ._core.limiter import Limiter as Limiter
    from ._core.pool import Pool as Pool
    from ._core.settings import Settings as Settings
    from ._core.start import freeze_support as freeze_support
    from ._core.stats import Stats as Stats
    from ._core.template import before_fork as before_fork
    from ._errors import ArenaFull as ArenaFull
    from ._errors import Cancelled as Cancelled
    from ._errors import Crash as Crash
    from ._errors import CrashFrame as CrashFrame
    from ._errors import DeadlineExceeded as DeadlineExceeded
    from ._errors import MemoryLimitExceeded as MemoryLimitExceeded
    from ._errors import RemoteError as RemoteError
    from ._errors import TableError as TableError
    from .store import connect as connect
    from .tables import Scan as Scan
    from .tables import Table as Table
    from .tables import apply as apply
    from .tables import read_csv as read_csv
    from .tables import read_json as read_json
    from .tables import read_parquet as read_parquet
    from .tables import scan_csv as scan_csv
    from .tables import scan_json as scan_json
    from .tables import scan_parquet as scan_parquet
    from .tables.table import table as table

#: The names of each module.
_NAMES = {
    "_arenite": "__version__",
    "_broken": "StartFailed WorkerDied",
    "_core.actor": "Actor",
    "_core.arrays": "array empty full install mut zeros",
    "_core.executor": "Executor cancelled",
    "_core.future": "Future",
    "_core.identity": "Worker rng worker",
    "_core.isolated": "Report isolated",
    "_core.limiter": "Limiter",
    "_core.pool": "Pool",
    "_core.settings": "Settings",
    "_core.start": "freeze_support",
    "_core.stats": "Stats",
    "_core.template": "before_fork",
    "_errors": "ArenaFull Cancelled Crash CrashFrame DeadlineExceeded MemoryLimitExceeded RemoteError TableError",
    "service": "service",
    "store": "connect",
    "tables": "Scan Table apply read_csv read_json read_parquet scan_csv scan_json scan_parquet",
    "tables.table": "table",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

# In the order of the pages of the API: `packaging/site/api.py` has their headings.
__all__ = [
    "Executor", "Pool", "isolated", "Report", "Future", "Actor", "Limiter", "Settings", "Stats",
    "empty", "mut", "array", "zeros", "full", "install",
    "cancelled", "rng", "worker", "Worker",
    "WorkerDied", "Crash", "CrashFrame", "DeadlineExceeded", "MemoryLimitExceeded", "Cancelled", "RemoteError",
    "ArenaFull", "StartFailed", "TableError",
    "read_csv", "read_json", "read_parquet", "table", "Table", "scan_csv", "scan_json", "scan_parquet", "Scan", "apply",
    "connect", "service",
    "before_fork", "freeze_support", "__version__",
]  # fmt: skip


if not TYPE_CHECKING:  # Type checkers read the imports above.

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module 'arenite' has no attribute {name!r}")
        try:
            module = import_module(f"arenite.{_HOMES[name]}")
        except ImportError as error:
            if error.name in ("arenite", "arenite._arenite") and "_arenite" in str(error):
                _explain(error)
            if error.name in ("numpy", "pyarrow"):
                return _missing(name, error)
            raise
        if _HOMES[name] == "_broken":
            module.complete()
        value = globals()[name] = module if name == _HOMES[name] else getattr(module, name)
        return value


def _missing(name: str, error: ImportError) -> Any:
    """Raises the error of a missing library when called: stands in for a name that needs the library, so that
    `help(arenite)`, `hasattr` and `from arenite import *` work without it."""
    text = f"arenite.{name} needs {error.name}, which is not installed: pip install {error.name}"
    if _HOMES[name].startswith("tables"):
        # The text names the missing library.
        text = f"arenite.{name}: {error}"

    def missing(*_: Any, **__: Any) -> NoReturn:
        raise ImportError(text, name=error.name) from error

    if name[0].isupper():
        return type(name, (), {"__doc__": text, "__module__": "arenite", "__init__": missing})
    missing.__name__ = missing.__qualname__ = name
    missing.__module__, missing.__doc__ = "arenite", text
    return missing


def _explain(error: ImportError) -> NoReturn:
    """The extension cannot be loaded."""
    import sys

    if sys.platform != "linux":
        raise ImportError(f"arenite runs on Linux, not on {sys.platform}") from error
    raise ImportError(
        f"the extension of arenite is not in {__path__[0]}: install the package (in a clone: pip install ./python), and "
        "start Python outside of the folder of its source"
    ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
