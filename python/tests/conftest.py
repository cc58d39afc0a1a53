"""Around every test: a watchdog that says what was waited for, and a look for what was left behind."""

import collections
import contextlib
import gc
import os
import random
import re
import signal
import sys
import time

import _pytest.runner
import harness
import pytest


def pytest_configure(config):
    # Processes of pytest-xdist inherit it: all draw the same cases.
    os.environ.setdefault("ARENITE_SEED", str(random.SystemRandom().randrange(1 << 32)))
    # A variable with the name of the test: executors with other variables have another template.
    _pytest.runner._update_current_test_var = lambda item, when: None
    harness.keep_stderr()
    # A shell ignores it for what it runs in the background, and programs that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "patience(seconds): how long this test may stay at one wait")
    config.addinivalue_line("markers", "nightly: takes long and finds little; `-m \"\"` runs it, too")
    config.addinivalue_line("markers", "leaves(what): this test may leave processes and descriptors of another library")


def pytest_collection_finish():
    if arenite := sys.modules.get("arenite"):
        arenite.before_fork(harness.ready)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"ARENITE_SEED={os.environ['ARENITE_SEED']}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.failed = True
    return report


@pytest.fixture(autouse=True)
def watchdog(request):
    """Fails a test that stays at one wait for longer than its patience, with all stacks."""
    marker = request.node.get_closest_marker("patience")
    with harness.Watchdog(request.node.nodeid, marker.args[0] if marker else harness.PATIENCE):
        yield


def kinds():
    """How many descriptors of each kind are open, without those of workers that may be replaced at this moment."""
    channel = sys.modules.get("arenite._core.channel")
    printed = {pipe for receiver in list(channel._open) for pipe in getattr(receiver, "pipes", ())} if channel else set()
    opened = [of for number, of in harness.descriptors().items() if number not in printed]
    # What `arenite.install()` and results have opened stays as long as the process.
    lasting = ("arenite-numpy", "/pagemap", "[userfaultfd]")
    opened = [of for of in opened if not any(part in of for part in lasting)]
    return collections.Counter(re.sub(r"\[\d+\]|[0-9a-f]{16}", "", of) for of in opened)


def end_templates():
    """Ends the templates that are kept for other executors."""
    if extension := sys.modules.get("arenite._arenite"):
        extension.join_all()


@pytest.fixture(scope="module", autouse=True)
def no_descriptors_left(request):
    """Fails a file of tests after which there are more descriptors than before it.

    Templates are kept for later executors, so that not each test starts an interpreter for its workers.
    """
    end_templates()
    opened = kinds()
    yield
    end_templates()
    tests = (item for item in request.session.items if item.path == request.path)
    if not any(test.get_closest_marker("leaves") or getattr(test, "failed", False) for test in tests):
        # The report of a failure holds the variables of the test.
        wait_for_none(lambda: [f"{count} descriptors of {kind}" for kind, count in (kinds() - opened).items()])


@pytest.fixture(autouse=True)
def nothing_left(request, watchdog):
    """Fails a test after which there are more processes or names in `/dev/shm` than before it."""
    # A worker that is started or replaced in the background would seem to be left behind.
    for executor in harness.open_executors():
        harness.all_ready(executor)
    children, names = workers(), harness.shared_memory()
    yield
    if extension := sys.modules.get("arenite._arenite"):
        # What a test has made of numpy is not for others.
        extension.install(False)
    # Their executors end with the program otherwise.
    if isolated := sys.modules.get("arenite._core.isolated"):
        while isolated._executors:
            isolated._executors.popitem()[1].shutdown()
    if request.node.get_closest_marker("leaves"):
        return

    def left():
        # As many as before, but not the same: a worker of a shared executor may have been replaced.
        now = workers()
        more = len(now) > len(children) or any(not harness.is_alive(pid) for pid in set(now) - set(children))
        found = [f"process {harness.describe(pid)}" for pid in now if more and pid not in children]
        return found + [f"/dev/shm/{name}" for name in harness.shared_memory() - names]

    try:
        wait_for_none(left)
    finally:
        for child in set(workers()) - set(children) if left() else ():
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def workers():
    """Children of this process that are no templates."""
    return [pid for pid in harness.children() if harness.name(pid) != "template"]


def wait_for_none(left):
    """Fails if something is left. What a shutdown without waiting has begun may still be under way."""
    for look in range(100):
        if look in (1, 10):
            gc.collect()
        if not (found := left()):
            return
        time.sleep(0.02)
    pytest.fail("left behind:\n" + "\n".join(found))
