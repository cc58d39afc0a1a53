"""Calls that meet: a shutdown and a copy, a fork and a report, Ctrl-C and the line after it."""

import concurrent.futures
import contextlib
import inspect
import itertools
import operator
import os
import sys
import threading
import time
import traceback

import harness
import numpy
import pytest

import arenite
from arenite import _arenite
from arenite._core import copies, dispatch, isolated, locks, making


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(1) as ex:
        yield ex


def wait_for(path):
    """Waits in a task until the test makes this file."""
    while not path.exists():
        time.sleep(0.001)
    return path.name


def in_child(check):
    """Calls `check` in a child made by `os.fork()`, and returns whether it passed there."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            harness.say(traceback.format_exc())
        finally:
            os._exit(code)
    with harness.waiting("the child"):
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            time.sleep(0.001)
    return ended[1] == 0


def test_a_shutdown_waits_for_copies_without_the_interpreter():
    """The copy needs the interpreter to return, and the shutdown needs the copy to return."""
    for _ in range(20):
        ex = arenite.Executor(1, capacity="64MiB")
        begun = threading.Semaphore(0)

        def copy(ex=ex, begun=begun):
            with pytest.raises(RuntimeError, match="after shutdown|after its shutdown"):
                while True:
                    ex.array(numpy.zeros(40_000))
                    ex.submit(len, bytes(300_000)).cancel()
                    begun.release()

        threads = [threading.Thread(target=copy) for _ in range(3)]
        for thread in threads:
            thread.start()
        with harness.waiting("copies and a shutdown"):
            for _ in range(6):
                begun.acquire()
            ex.shutdown(wait=False)
            for thread in threads:
                thread.join()
            ex.shutdown()


def test_results_are_taken_while_the_engine_ends():
    """Each reply is moved out of the engine by the thread that ends it, or taken by one that asks."""
    for _ in range(5):
        ex = arenite.Executor(1)
        futures = [ex.submit(operator.neg, n) for n in range(2000)]
        with harness.waiting("the last task"):
            concurrent.futures.wait(futures[-1:])
        ex.shutdown(wait=False)
        with harness.waiting("results"):
            assert [future.result() for future in futures] == [-n for n in range(2000)]
        ex.shutdown()


def test_a_signal_handler_shuts_down_during_a_shutdown():
    ex = arenite.Executor(1)
    with harness.waiting("a shutdown"), ex._workers.lock:
        ex.shutdown()


HANDLER = """
    # A signal handler calls an isolated function in the middle of the first call.
    import sys
    import threading

    import arenite
    from arenite._core import isolated, native

    @arenite.isolated
    def double(n):
        return 2 * n

    def interrupted(*arguments, **options):
        setattr(module, name, real)
        made.append(double(2))
        return real(*arguments, **options)

    made, module = [], {"Executor": isolated, "Thread": native}[sys.argv[1]]
    name, real = sys.argv[1], getattr(module, sys.argv[1])
    setattr(module, name, interrupted)
    print(double(1), made, double(3), len(isolated._executors))
    print([thread.name for thread in threading.enumerate()].count("arenite-dispatcher"))
"""


@pytest.mark.parametrize("place", ["Executor", "Thread"])
def test_a_signal_handler_calls_an_isolated_function_during_the_first_call(place):
    assert harness.script(HANDLER, place).ok().out == "2 [4] 6 1\n1\n"


def test_the_first_call_of_an_isolated_function_imports_nothing():
    """A signal handler would find modules that are half imported."""
    source = """
        import sys
        import arenite
        double = arenite.isolated(lambda n: 2 * n)
        before = sys.modules.copy()
        assert double(2) == 4
        print([name for name in sys.modules.keys() - before.keys() if not name.startswith("encodings")])
    """
    assert harness.script(source).ok().out == "[]\n"


def test_a_finalizer_submits_while_a_lock_is_held(executor):
    array = numpy.arange(10_000)
    array.flags.writeable = False
    with harness.waiting("calls of a finalizer"), executor._workers._copies._lock:
        assert executor.submit(numpy.sum, array).result() == array.sum()
    with harness.waiting("calls of a finalizer"), executor.scope() as scope, scope._lock:
        assert scope.submit(abs, -1).result() == 1


def test_a_child_made_by_fork_has_no_lock_of_other_threads():
    inner = [making.lock, isolated._lock, copies.Copies()._lock, locks.lock()]
    own, locked, over = locks.lock(), threading.Event(), threading.Event()

    def hold():
        with contextlib.ExitStack() as stack:
            for lock in inner:
                stack.enter_context(lock)
            locked.set()
            over.wait()

    def check():
        for lock in inner:
            assert lock.acquire(blocking=False), lock
            lock.release()
        own.release()
        with pytest.raises(RuntimeError):
            own.release()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        with harness.waiting("a thread to take the locks"):
            locked.wait()
        with own:
            assert in_child(check)
    finally:
        over.set()
        thread.join()


class Once:
    """Raises KeyboardInterrupt in the place of a call, the first time."""

    def __init__(self, function):
        self.function = function
        self.raised = False

    def __get__(self, owner, _):
        return lambda *arguments: self(owner, *arguments)

    def __call__(self, *arguments):
        if not self.raised:
            self.raised = True
            raise KeyboardInterrupt
        return self.function(*arguments)


def test_ctrl_c_after_a_reply_was_taken_loses_nothing(executor, monkeypatch):
    future = executor.submit(operator.add, 1, 2)
    monkeypatch.setattr(arenite.Future, "_settle", Once(arenite.Future._settle))
    with pytest.raises(KeyboardInterrupt):
        future.result()
    with harness.waiting("the result"):
        assert future.result() == 3


def test_ctrl_c_in_cancel_leaves_a_future_that_ends(executor, tmp_path, monkeypatch):
    future = executor.submit(wait_for, tmp_path / "never")
    harness.until(future.running, "the task to run")
    monkeypatch.setattr(arenite.Future, "_settle", Once(arenite.Future._settle))
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    with harness.waiting("the end"), pytest.raises(concurrent.futures.CancelledError):
        future.result()


@pytest.mark.parametrize("place", ["arm", "token"])
def test_ctrl_c_while_a_future_is_armed_leaves_one_that_ends(executor, tmp_path, monkeypatch, place):
    gate = tmp_path / "open"
    future = executor.submit(wait_for, gate)
    monkeypatch.setattr(dispatch, place, Once(getattr(dispatch, place)))
    with pytest.raises(KeyboardInterrupt):
        future.add_done_callback(print)
    called = []
    future.add_done_callback(called.append)
    gate.touch()
    with harness.waiting("the result"):
        assert future.result() == "open"
        harness.until(lambda: called, "the callback")
    assert called == [future]


class Interrupts:
    """Raises KeyboardInterrupt where it is unpickled, the first time."""

    left = 1

    def __reduce__(self):
        return interrupt, ()


def interrupt():
    if Interrupts.left:
        Interrupts.left -= 1
        raise KeyboardInterrupt
    return "unpickled"


def test_ctrl_c_while_a_value_is_unpickled_is_not_the_outcome(executor):
    future = executor.submit(Interrupts)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    assert future.result() == "unpickled"


def is_enter(function):
    return getattr(function, "__name__", None) == "__enter__"


class At:
    """Raises KeyboardInterrupt where the interpreter may raise it in the package, at one such place: where a function
    begins, or where a call of a C function has returned. Not between a `with` and its block: from Python 3.14 on, an
    interrupt may come there too, and no `with` releases its lock then."""

    def __init__(self, nth):
        self.left = nth

    def __call__(self, frame, event, function):
        code = frame.f_code
        is_ours = os.path.dirname(code.co_filename) == os.path.dirname(dispatch.__file__)
        # An exception of a profile at the beginning of a generator is not handled there, unlike that of a signal.
        is_place = event in ("c_return", "c_exception") or event == "call" and not code.co_flags & inspect.CO_GENERATOR
        if is_place and is_ours and code.co_name not in ("__del__", "close") and not is_enter(function):
            self.left -= 1
            if self.left == 0:
                # Which also ends this profile.
                raise KeyboardInterrupt


def taken(results, nth):
    """Takes all results, with KeyboardInterrupt at the nth place. Returns them, and whether it came."""
    values, interrupted = [], False
    at = At(nth)
    sys.setprofile(at)
    try:
        while True:
            try:
                for value in results:
                    values.append(value)  # noqa: PERF402
                return values, interrupted
            except KeyboardInterrupt:
                interrupted = True
            except ZeroDivisionError:
                values.append("failed")
    finally:
        sys.setprofile(None)


def is_idle(executor):
    stats = executor.stats()
    return stats.queued == stats.running == 0


@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("length", ["sized", "unsized"])
@pytest.mark.parametrize("kind", ["map", "imap", "imap_unordered"])
def test_ctrl_c_in_a_map_loses_no_result_and_no_task(kind, length, chunksize):
    """At each place where it may come: `imap` gives the results of an undisturbed map and submits each task once, as
    that of multiprocessing; `map` ends, as that of concurrent.futures."""
    numbers = [*range(-3, 4)]
    expected = ["failed" if n == 0 else 6 // n for n in numbers]
    divide = operator.floordiv if kind == "map" else (lambda n: 6 // n)
    tasks = -(-len(numbers) // chunksize)
    with arenite.Pool(1) as pool:
        for nth in itertools.count(1):
            items = numbers if length == "sized" else iter(numbers)
            before = pool.executor.stats().submitted
            if kind == "map":
                results = pool.executor.map(divide, itertools.repeat(6), items, chunksize=chunksize, buffersize=2)
            else:
                results = getattr(pool, kind)(divide, items, chunksize)
            with harness.waiting(f"results with Ctrl-C at place {nth}"):
                values, interrupted = taken(results, nth)
            if kind == "map" and interrupted:
                assert values == expected[: len(values)], nth
                harness.until(lambda: is_idle(pool.executor), f"no task to be left after place {nth}")
                continue
            if chunksize == 3:
                # The exception of a call is that of its place in the chunk.
                assert values.count("failed") == 1, nth
            if kind == "imap_unordered":
                assert sorted(map(str, values)) == sorted(map(str, expected)), nth
            else:
                assert values == expected, nth
            stats = pool.executor.stats()
            assert stats.submitted - before == tasks, nth
            assert stats.queued == stats.running == 0, nth
            if not interrupted:
                break
        assert nth > 50


def test_ctrl_c_before_an_isolated_call_waits_ends_the_call():
    """At each place where it may come. Otherwise the program would wait for the call at its end."""
    hang = arenite.isolated(lambda hangs: threading.Event().wait(None if hangs else 0))
    hang(False)
    executors = list(isolated._executors.values())
    has_waited, submitted = False, 0

    for nth in itertools.count(1):
        at = At(nth)

        def interrupt(frame, event, function, at=at):
            nonlocal has_waited
            at(frame, event, function)
            if event == "c_call" and function.__qualname__ == "Task.wait":
                has_waited = True
                raise KeyboardInterrupt

        before = sum(executor.stats().submitted for executor in executors)
        sys.setprofile(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                hang(True)
        finally:
            sys.setprofile(None)
        submitted += sum(executor.stats().submitted for executor in executors) - before
        harness.until(lambda: all(map(is_idle, executors)), f"no call to be left after place {nth}")
        if has_waited:
            break
    assert nth > submitted > 1, "interrupted before and after the task was sent"


def test_ctrl_c_while_a_scope_sends_a_task_leaves_none():
    """At each place: the block ends, and with it all tasks that were sent."""
    with arenite.Executor(1, settings=arenite.Settings(cancel_running=False)) as executor:
        # The first call of a function passes more places.
        for _ in range(2):
            executor.submit(time.sleep, 0).result()
        for nth in itertools.count(1):
            at = At(nth)
            before = executor.stats().submitted

            def interrupt(frame, event, function, at=at, before=before):
                try:
                    at(frame, event, function)
                except KeyboardInterrupt:
                    if executor.stats().submitted > before:
                        harness.until(lambda: executor.stats().running == 1, "the task runs")
                    raise

            try:
                with executor.scope() as scope:
                    sys.setprofile(interrupt)
                    try:
                        scope.submit(time.sleep, 3600)
                    finally:
                        sys.setprofile(None)
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                pass
            harness.until(lambda: is_idle(executor), f"no task to be left after place {nth}")
            if at.left > 0:
                break
        assert nth > 10 and executor.stats().submitted > before


def test_a_callback_takes_a_lock_of_the_thread_that_waits(executor, tmp_path):
    gate = tmp_path / "open"
    future = executor.submit(wait_for, gate)
    lock, called, waits = threading.Lock(), threading.Event(), threading.Event()

    def call(_):
        with lock:
            called.set()

    def wait():
        with lock:
            waits.set()
            assert future.result() == "open"

    thread = threading.Thread(target=wait)
    thread.start()
    with harness.waiting("a result and a callback"):
        waits.wait()
        future.add_done_callback(call)
        gate.touch()
        thread.join()
        called.wait()


def test_a_callback_asks_for_the_result_of_an_armed_future(executor, tmp_path):
    gate = tmp_path / "open"
    first, second = (executor.submit(wait_for, gate) for _ in range(2))
    results = []
    second.add_done_callback(lambda _: None)
    first.add_done_callback(lambda _: results.append(second.result()))
    gate.touch()
    assert harness.until(lambda: results, "the callback") == ["open"]


def test_futures_of_the_parent_raise_in_a_forked_child(executor, tmp_path):
    gate = tmp_path / "open"
    futures = [executor.submit(wait_for, gate) for _ in range(2)]

    def check():
        for use in ("result", "done", "running", "cancel"):
            with pytest.raises(RuntimeError, match="made by fork"):
                getattr(futures[0], use)()
        futures.clear()

    assert in_child(check)
    gate.touch()
    assert [future.result() for future in futures] == ["open", "open"]


def test_a_fork_while_tasks_are_reported(executor):
    """No lock of the parent's threads is held in the child."""

    def check():
        _arenite.report(1 << 40)
        assert _arenite.next_events(10.0) == ([1 << 40], [])

    over = threading.Event()

    def report():
        while not over.is_set():
            _arenite.report(1 << 41)

    thread = threading.Thread(target=report)
    thread.start()
    try:
        assert all(in_child(check) for _ in range(10))
    finally:
        over.set()
        thread.join()


def fill(array, value):
    array[:] = value


def test_memory_that_a_task_has_returned_can_be_lent_again(executor):
    out = executor.zeros((2, 1000), int)
    back = executor.submit(lambda array: array, out[0]).result()
    assert numpy.shares_memory(back, out)
    executor.submit(fill, arenite.mut(out[0]), 7).result()
    assert back[0] == 7 and out[1, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        arenite.mut(back)


def test_loans_of_tasks_that_have_ended_are_forgotten(executor):
    out = executor.zeros(1000, "u1")
    for n in range(1000):
        executor.submit(fill, arenite.mut(out[n : n + 1]), 1).result()
    assert out.all()
    assert executor._workers.engine.loans < 200


def test_an_error_is_made_when_no_call_uses_the_engine(monkeypatch):
    """Its constructor is code of Python: it may shut the executor down, which waits for such calls."""
    calls = [
        lambda ex: ex.empty(1 << 30, "u1"),
        lambda ex: ex.share(numpy.zeros(100_000_000, "u1")),
        lambda ex: ex.actor(bytes, bytes(100_000_000)),
        lambda ex: ex.submit(len, bytes(100_000_000)).result(),
    ]
    for call in calls:
        ex = arenite.Executor(1, capacity="64MiB")
        made = []

        class Full(arenite.ArenaFull):
            def __init__(self, *arguments, ex=ex, made=made, **numbers):
                super().__init__(*arguments, **numbers)
                ex.shutdown()
                made.append(self)

        monkeypatch.setattr(arenite._errors, "ArenaFull", Full)
        with harness.waiting("an error that shuts the executor down"), pytest.raises((Full, RuntimeError)):
            call(ex)
        assert made


def test_another_thread_imports_what_the_pickler_looks_for():
    """An import of `multiprocessing` has begun and has not defined all names yet."""
    harness.script("""
        import builtins, sys, threading
        import arenite

        begun, over = threading.Event(), threading.Event()
        original = builtins.__import__

        def stops(name, space=None, *rest):
            if space is not None and space.get("__name__") == "multiprocessing.reduction" and not begun.is_set():
                begun.set()
                over.wait()
            return original(name, space, *rest)

        class Plain:
            pass

        def own(value):
            return type(value).__name__

        if __name__ == "__main__":
            with arenite.Executor(1) as ex:
                assert "multiprocessing.reduction" not in sys.modules
                builtins.__import__ = stops
                thread = threading.Thread(target=original, args=("multiprocessing.reduction",))
                thread.start()
                begun.wait()
                try:
                    assert ex.submit(own, Plain()).result() == "Plain"
                finally:
                    over.set()
                    thread.join()
    """).ok()
