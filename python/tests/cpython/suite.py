"""Finds CPython's own tests of `concurrent.futures`, and puts `arenite.Executor` in the place of `ProcessPoolExecutor`.

The tests are those of the interpreter, or those in the folder that `ARENITE_CPYTHON_TESTS` names, which has
`test_concurrent_futures.py` (up to 3.11) or `test_concurrent_futures/` in it. On Debian:

    apt-get download libpython3.11-testsuite && dpkg-deb -x libpython3.11-testsuite_*.deb testsuite
    export ARENITE_CPYTHON_TESTS=$PWD/testsuite/usr/lib/python3.11/test

`ARENITE_CPYTHON_EXECUTOR=ProcessPoolExecutor` runs them with the standard library's own: a check of this harness.
"""

import atexit
import concurrent.futures.process
import importlib
import importlib.util
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

NAME = "test_concurrent_futures"
PARTS = ["util", "executor", "test_init", "test_shutdown", "test_wait", "test_as_completed", "test_process_pool"]
PARTS += ["test_deadlock", "test_future"]


def find():
    """The file or folder with the tests; None if there are none."""
    if folder := os.environ.get("ARENITE_CPYTHON_TESTS"):
        for name in (NAME + ".py", NAME):
            if (path := Path(folder, name)).exists():
                return path
        raise FileNotFoundError(f"ARENITE_CPYTHON_TESTS: no {NAME} in {folder}")
    spec = importlib.util.find_spec("test." + NAME)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    return path.parent if path.name == "__init__.py" else path


class Suite:
    """The tests as modules that workers can import: alone in a folder of `sys.path`."""

    def __init__(self, path, folder=None):
        self.folder = folder or self._folder(path)
        sys.path.append(self.folder)
        whole = importlib.import_module(NAME)
        self.modules = [whole]
        if hasattr(whole, "__path__"):
            self.modules += [importlib.import_module(f"{NAME}.{part}") for part in PARTS]
        for module in self.modules:
            sys.modules["test." + module.__name__] = module

    @staticmethod
    def _folder(path):
        folder = tempfile.mkdtemp(prefix="cpython-tests-")
        atexit.register(shutil.rmtree, folder)
        os.symlink(path, Path(folder, path.name))
        return folder

    def __getattr__(self, name):
        for module in self.modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"no {name} in CPython's tests")

    def replace(self, name, value):
        for module in self.modules:
            if hasattr(module, name):
                setattr(module, name, value)


if os.environ.get("ARENITE_CPYTHON_EXECUTOR") == "ProcessPoolExecutor":
    Broken = concurrent.futures.process.BrokenProcessPool

    class ProcessPoolExecutor(concurrent.futures.ProcessPoolExecutor):
        def __init__(self, max_workers=None, mp_context=None, **options):
            super().__init__(max_workers, mp_context or multiprocessing.get_context("spawn"), **options)

else:
    import arenite

    Broken = arenite.WorkerDied

    class ProcessPoolExecutor(arenite.Executor):
        """`arenite.Executor` behind the parameters of `concurrent.futures.ProcessPoolExecutor`."""

        def __init__(
            self, max_workers=None, mp_context=None, initializer=None, initargs=(), *, max_tasks_per_child=None
        ):
            super().__init__(
                max_workers,
                initializer=initializer,
                initargs=initargs,
                max_tasks_per_child=max_tasks_per_child,
                # Tests compare what tasks print.
                output="plain",
            )
            # Tests cancel tasks after a moment, and expect that some have begun.
            while initializer is None and not all(worker.ready for worker in self.stats().workers):
                time.sleep(0.001)


def in_child(folder):
    """Makes a program that a test starts see the same: called by the lines that `PREAMBLE` puts before it."""
    concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor
    Suite(None, folder)


PREAMBLE = "import sys; sys.path.append({here!r}); import suite; suite.in_child({folder!r})\n"
