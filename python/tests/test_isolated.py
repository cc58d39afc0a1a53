"""`isolated`: functions that run in processes of their own kind. The oracle is the function itself."""

import asyncio
import concurrent.futures
import functools
import importlib
import os
import signal
import sys
import threading
import traceback

import arenite
import harness
import pytest


@arenite.isolated
def fold(values, *, start=0):
    """Adds up."""
    values.append(start)
    return sum(values), os.getpid()


@arenite.isolated(deadline=0.5, memory_limit="300MiB")
def careful(how):
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while how == "hang":
        pass
    if how == "memory":
        return len(bytes(1 << 30))
    if how == "raise":
        raise KeyError(how)
    return fold([1], start=2)[1], os.getpid()


MISSING = object()
CACHE = {}


@arenite.isolated
def given(value=MISSING, log=threading.Lock()):
    """What it refers to is that of its module: a default is the same object, and what it keeps stays."""
    CACHE[value is MISSING] = CACHE.get(value is MISSING, 0) + 1
    return value is not MISSING, CACHE[value is MISSING]


class Page:
    def __init__(self, text):
        self.text = text

    @arenite.isolated
    def words(self, least=0):
        return [word for word in self.text.split() if len(word) >= least]


def test_a_call_is_the_function_in_another_process():
    values = [1, 2]
    total, process = fold(values, start=3)
    assert (total, values) == (fold.__wrapped__([1, 2], start=3)[0], [1, 2]), "arguments are copies"
    assert process != os.getpid()
    assert (fold.__name__, fold.__doc__) == ("fold", "Adds up.")
    page = Page("a page of words")
    assert page.words(least=3) == Page.words.__wrapped__(page, least=3) == ["page", "words"]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        fold()
    assert Page.words.report(page, 3).value == ["page", "words"]
    # Definitions travel by name.
    assert {given()[0], given.__wrapped__()[0]} == {False} and given(1)[0]
    assert max(given()[1] for _ in range(50)) > 10
    # A lambda, and a function of a function with what it refers to.
    offset = 10
    assert arenite.isolated(lambda n: n + offset)(5) == 15


def test_an_error_has_the_frames_of_the_function():
    with pytest.raises(KeyError) as caught:
        careful("raise")
    shown = "".join(traceback.format_exception(caught.value))
    assert "in careful" in shown and shown.count("arenite/_core/isolated.py") == 1, shown

    def surrogate():
        raise ValueError("name \udcff")

    with pytest.raises(ValueError) as caught:
        arenite.isolated(surrogate)()
    assert caught.value.args == ("name \udcff",)


def test_a_reloaded_module_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "reloaded_by_test.py"
    source = "import arenite\nCONSTANT = {}\n@arenite.isolated\ndef constant(): return CONSTANT\n"
    module.write_text(source.format(1))
    imported = importlib.import_module("reloaded_by_test")
    try:
        assert imported.constant() == 1
        module.write_text(source.format(22222))
        importlib.reload(imported)
        assert imported.constant() == imported.constant.__wrapped__() == 22222
    finally:
        del sys.modules["reloaded_by_test"]


def test_a_start_that_failed_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    needed = tmp_path / "needed_by_test.py"
    needed.write_text("x = = 1\n")
    name = arenite.isolated(preload=["needed_by_test"])(lambda: __import__("needed_by_test").x)
    assert type(name.report().error) is arenite.StartFailed
    needed.write_text("x = 1\n")
    assert name() == 1


def test_failures_cost_one_call():
    causes = {"crash": arenite.WorkerDied, "hang": arenite.DeadlineExceeded, "memory": arenite.MemoryLimitExceeded}
    for how, cause in causes.items():
        with pytest.raises(cause):
            careful(how)
    with pytest.raises(KeyError, match="raise"):
        careful("raise")
    report = careful.report("raise")
    assert (report.ok, report.value, repr(report.error)) == (False, None, "KeyError('raise')") and report.seconds > 0
    report = careful.report("fine")
    assert report.ok and report.error is None
    inner, outer = report.value
    assert inner == outer != os.getpid(), "an isolated function runs where a worker calls it"


def test_threads_call_at_the_same_time(tmp_path):
    # One call waits for the other, if there are two cores.
    cores = min(2, len(os.sched_getaffinity(0)))

    @arenite.isolated
    def meet(number, folder):
        open(os.path.join(folder, str(number)), "w").close()
        while len(os.listdir(folder)) < number + 1:
            pass
        return number

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(meet, number, str(tmp_path)) for number in range(cores)]
        with harness.waiting("calls in two workers"):
            assert [call.result() for call in calls] == list(range(cores))


def test_asyncio():
    async def run():
        assert await fold.aio([1], start=1) == (2, (await fold.aio([], start=0))[1])
        with pytest.raises(arenite.WorkerDied):
            await careful.aio("crash")
        forever = arenite.isolated(lambda: threading.Event().wait())
        hung = asyncio.create_task(forever.aio())
        await asyncio.sleep(0)
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        values = await asyncio.gather(*(fold.aio([n]) for n in range(20)))
        return [total for total, _ in values]

    with harness.waiting("calls on an event loop"):
        assert asyncio.run(run()) == list(range(20))


def test_a_sandbox_imports_the_module_of_the_function():
    seen = arenite.isolated(sandbox="strict")(in_sandbox)
    assert seen("text") == "text and a sandbox"
    with pytest.raises(PermissionError):
        seen("open")
    # In the main program, and in a module that a worker cannot import.
    ran = harness.script(
        """
        import types, arenite

        @arenite.isolated(sandbox="strict")
        def factorial(n):
            return 1 if n < 2 else n * factorial(n - 1)

        class Page:
            @arenite.isolated(sandbox="strict")
            def number(self):
                return arenite.worker().number >= 0

        made = types.ModuleType("made")
        exec("import arenite\\n@arenite.isolated(sandbox='strict')\\ndef one(): return 1", made.__dict__)
        print(factorial(5), Page().number(), made.one())
        """
    )
    assert ran.out == "120 True 1\n", ran


def in_sandbox(what):
    if what == "open":
        open(__file__).close()
    return f"{what} and a sandbox"


def test_arrays_are_writable_on_both_sides():
    numpy = pytest.importorskip("numpy")

    @arenite.isolated
    def doubled(array):
        array *= 2
        return array

    before = numpy.arange(100_000)
    after = doubled(before)
    assert (after == 2 * before).all() and before[-1] == 99_999
    after += 1


def test_workers_are_shared_by_equal_settings_and_start_at_the_first_call():
    ran = harness.script(
        """
        import os, arenite
        one = arenite.isolated(memory_limit=1 << 30)(os.getpid)
        same = arenite.isolated(memory_limit="1GiB", deadline=60)(os.getpid)
        other = arenite.isolated(memory_limit="2GiB")(os.getpid)
        executors = arenite._core.isolated._executors
        before = len(executors)
        seen = {one() for _ in range(50)} | {same() for _ in range(50)}
        cores = len(os.sched_getaffinity(0))
        print(before, len(seen) <= cores, other() in seen, len(executors))
        """
    )
    assert ran.out == "0 True False 2\n", ran.out + ran.err


def test_a_forked_child_has_workers_of_its_own():
    ran = harness.script(
        """
        import os, arenite
        where = arenite.isolated(os.getpid)
        mine = where()
        if (child := os.fork()) == 0:
            os._exit(int(where() == mine))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), where() == mine or where() == mine)
        """
    )
    assert ran.out.startswith("0 "), ran.out + ran.err


def test_wrong_use_is_refused_where_it_is_written():
    async def coroutine():
        pass

    def generator():
        yield

    for function in (coroutine, generator, functools.partial(generator)):
        with pytest.raises(TypeError, match="is no plain function"):
            arenite.isolated(function)
    for other in (3, property(len), classmethod(len)):
        with pytest.raises(TypeError, match="cannot be called"):
            arenite.isolated(other)
    with pytest.raises(TypeError, match="preload must be a list"):
        arenite.isolated(preload="numpy")
    with pytest.raises(ValueError, match="sandbox must be"):
        arenite.isolated(sandbox="none")
    with pytest.raises(ValueError, match="deadline"):
        arenite.isolated(deadline=-1)
    with pytest.raises(ValueError, match="memory_limit"):
        arenite.isolated(memory_limit="much")
    with pytest.raises(ValueError, match="memory_limit"):
        arenite.isolated(memory_limit=10)


def test_a_call_after_the_interpreter_has_ended_its_executors_is_refused():
    ran = harness.script(
        """
        import atexit, os, arenite
        where = arenite.isolated(os.getpid)
        where()
        def late():
            try:
                where()
            except RuntimeError as error:
                print(error)
        atexit.register(late)
        """
    )
    assert ran.out == "cannot schedule new futures after interpreter shutdown\n", ran.out + ran.err


def test_a_function_of_the_main_program_and_ctrl_c():
    ran = harness.script(
        """
        import os, signal, threading, arenite

        FACTOR = 3

        @arenite.isolated(deadline=60)
        def times(n):
            return inner(n) * FACTOR

        @arenite.isolated
        def inner(n):
            return n + 1

        @arenite.isolated
        def hang(process):
            os.kill(process, signal.SIGINT)
            threading.Event().wait()

        print(times(2))
        try:
            hang(os.getpid())
        except KeyboardInterrupt:
            print("interrupted")
        FACTOR = 5
        print(times(2))
        """
    )
    assert ran.out == "9\ninterrupted\n15\n", ran.out + ran.err
