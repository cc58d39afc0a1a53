"""CPython's own tests of `concurrent.futures`, with `arenite.Executor` in the place of `ProcessPoolExecutor`."""

import concurrent.futures.process
import logging
import multiprocessing
import os
import unittest

import pytest
import suite

path = suite.find()
if path is None:
    pytest.skip(
        "this Python has no tests of concurrent.futures: set ARENITE_CPYTHON_TESTS to a folder that has them",
        allow_module_level=True,
    )
tests = suite.Suite(path)

PRIVATE = "looks into private attributes of ProcessPoolExecutor; see test_adapted.py"
#: Tests that cannot apply, and why.
NOT_APPLICABLE = {
    "FailingInitializer.test_initializer": PRIVATE,
    "ProcessPoolShutdown.test_processes_terminate": PRIVATE,
    "ProcessPoolShutdown.test_context_manager_shutdown": PRIVATE,
    "ProcessPoolShutdown.test_del_shutdown": PRIVATE,
    "ProcessPoolShutdown.test_shutdown_no_wait": PRIVATE,
    "ProcessPoolExecutor.test_max_workers_negative": "0 workers mean: in this process; see test_adapted.py",
    "ProcessPoolExecutor.test_max_workers_too_large": "a limit of Windows",
    "ProcessPoolExecutor.test_killed_child": "expects that one death breaks the executor; see test_adapted.py",
    "ProcessPoolExecutor.test_saturation": PRIVATE,
    "ProcessPoolExecutor.test_idle_process_reuse_one": PRIVATE,
    "ProcessPoolExecutor.test_idle_process_reuse_multiple": PRIVATE,
    "ProcessPoolExecutor.test_max_tasks_per_child": PRIVATE,
    "ProcessPoolExecutor.test_max_tasks_per_child_defaults_to_spawn_context": "there is no mp_context",
    "ProcessPoolExecutor.test_python_finalization_error": "replaces a private function of threading, and expects "
    "BrokenProcessPool",
    "ExecutorDeadlock.test_shutdown_deadlock_pickle": PRIVATE,
}
#: Where an error belongs to its task here, and breaks a ProcessPoolExecutor as a whole.
ERRORS = {
    "test_exit_at_task_unpickle": SystemExit,
    "test_error_at_task_unpickle": Exception,
    "test_error_during_result_unpickle_in_result_handler": Exception,
    "test_exit_during_result_unpickle_in_result_handler": SystemExit,
}
STDLIB = os.environ.get("ARENITE_CPYTHON_EXECUTOR") == "ProcessPoolExecutor"
if STDLIB:
    NOT_APPLICABLE, ERRORS = {"FailingInitializer.test_initializer": "needs the queue of its context"}, {}

tests.replace("BrokenProcessPool", suite.Broken)
if not STDLIB:
    import arenite._errors

    # What the cause of an exception is.
    concurrent.futures.process._RemoteTraceback = arenite._errors.RemoteTraceback
    # Futures that the tests make themselves, and end by `set_result`.
    tests.replace("Future", lambda: arenite.Future(None))


class Plain(unittest.TestCase):
    """Without pytest's log handlers: tests look for what `logging` writes to stderr when it has none."""

    def setUp(self):
        super().setUp()
        handlers = logging.getLogger().handlers
        self.addCleanup(handlers.extend, list(handlers))
        handlers.clear()


class Arenite(tests.ExecutorMixin):
    executor_type = suite.ProcessPoolExecutor

    def get_context(self):
        return multiprocessing.get_context("spawn")

    def _check_crash(self, error, *arguments, **options):
        super()._check_crash(ERRORS.get(self._testMethodName, error), *arguments, **options)


if hasattr(tests, "assert_python_ok"):
    run = tests.assert_python_ok

    def assert_python_ok(option, program, **options):
        assert option == "-c"
        here = os.path.dirname(os.path.abspath(__file__))
        return run(option, suite.PREAMBLE.format(here=here, folder=tests.folder) + program, **options)

    tests.replace("assert_python_ok", assert_python_ok)


def build(name, *bases):
    """A class of tests in which those that cannot apply are skipped, each with its reason."""
    members = {"__module__": __name__}
    for test in {test for base in bases for test in dir(base) if test.startswith("test")}:
        if reason := NOT_APPLICABLE.get(f"{name}.{test}"):

            def skipped(self):
                raise AssertionError("skipped tests do not run")

            members[test] = unittest.skip(reason)(skipped)
            used.add(f"{name}.{test}")
    return type(f"Test{name}", bases, members)


used = set()
# The mixin before `Arenite` overrides what the tests replace, `Arenite` before `ExecutorMixin` what they leave open.
TestInitializer = build("Initializer", tests.InitializerMixin, Arenite, tests.BaseTestCase)
TestFailingInitializer = build("FailingInitializer", tests.FailingInitializerMixin, Arenite, tests.BaseTestCase)
TestProcessPoolShutdown = build("ProcessPoolShutdown", Arenite, tests.ProcessPoolShutdownTest, tests.BaseTestCase)
TestWait = build("Wait", Arenite, tests.WaitTests, tests.BaseTestCase)
TestAsCompleted = build("AsCompleted", Arenite, tests.AsCompletedTests, tests.BaseTestCase)
TestProcessPoolExecutor = build("ProcessPoolExecutor", Arenite, tests.ProcessPoolExecutorTest, tests.BaseTestCase)
TestFuture = build("Future", Plain, tests.FutureTests)
TestExecutorDeadlock = build("ExecutorDeadlock", Arenite, tests.ExecutorDeadlockTest, tests.BaseTestCase)


def test_the_list_names_tests_that_exist():
    """An entry of the list that no version of the tests has any more has to go."""
    newer = {"ProcessPoolExecutor.test_python_finalization_error"}
    assert set(NOT_APPLICABLE) - used <= newer
