"""CPython's own tests of `multiprocessing.Pool`, with `arenite.Pool` in its place."""

import importlib
import importlib.util
import multiprocessing
import os
import sys
import unittest
from pathlib import Path
from unittest import mock

import arenite
import harness
import pytest
import suite

NAME = "_test_multiprocessing"


def find():
    """The file with the tests; None if there is none."""
    if folder := os.environ.get("ARENITE_CPYTHON_TESTS"):
        path = Path(folder, NAME + ".py")
        return path if path.exists() else None
    spec = importlib.util.find_spec("test." + NAME)
    return None if spec is None or spec.origin is None else Path(spec.origin)


path = find()
if path is None:
    pytest.skip(
        "this Python has no tests of multiprocessing: set ARENITE_CPYTHON_TESTS to a folder that has them",
        allow_module_level=True,
    )
sys.path.append(suite.Suite._folder(path))
tests = importlib.import_module(NAME)

#: Tests that cannot apply, and why.
NOT_APPLICABLE = {
    "test_make_pool": "looks into private attributes; wrong numbers of processes are in tests/test_pool.py",
    "test_traceback": "wants the type multiprocessing.pool.RemoteTraceback; the traceback is in tests/test_pool.py",
    "test_resource_warning": "sets a private attribute; see tests/test_pool.py",
    "test_unpickleable_result": "returns a lambda, which can be pickled here",
    "test_map_no_failfast": "its exception is larger than 512 KiB, and comes as RemoteError; see tests/test_pool.py",
    "test_pool_worker_lifetime": "looks into private attributes; see tests/test_pool.py",
    "test_worker_finalization_via_atexit_handler_of_multiprocessing": "tests multiprocessing in a program of its own",
}


def build(base):
    """A class of tests in which those that cannot apply are skipped, each with its reason."""
    members = {
        "__module__": __name__,
        "TYPE": "processes",
        "Pool": arenite.Pool,
        "setUp": lambda self: self.enterContext(mock.patch.object(multiprocessing, "Pool", arenite.Pool)),
    }
    for name in NOT_APPLICABLE:
        if hasattr(base, name):
            members[name] = unittest.skip(NOT_APPLICABLE[name])(lambda self: None)
            used.add(name)
    return type(base.__name__.replace("_Test", "Test"), (base, unittest.TestCase), members)


used = set()


class TestPool(build(tests._TestPool)):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Its processes are there before the first test is looked at.
        harness.until(lambda: all(worker.ready for worker in cls.pool.executor.stats().workers), "all workers")


TestPoolWorkerErrors = build(tests._TestPoolWorkerErrors)
TestPoolWorkerLifetime = build(tests._TestPoolWorkerLifetime)


def test_the_list_names_tests_that_exist():
    """An entry of the list that no version of the tests has any more has to go."""
    assert set(NOT_APPLICABLE) == used
