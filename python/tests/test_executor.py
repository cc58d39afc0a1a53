"""The executor: options, initializers, limits, output, the end."""

import collections
import dataclasses
import functools
import gc
import inspect
import itertools
import multiprocessing.pool
import operator
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import harness
import pytest

import arenite

state = None


def set_state(value):
    global state
    state = value


def get_state():
    return state


def fail_twice(path):
    """Kills its worker in the first two attempts."""
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.path.getsize(path)


def square(n):
    return n * n


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Reads(Exception):
    """Raises KeyError for each attribute that it does not have."""

    def __getattr__(self, name):
        raise KeyError(name)


class Refuses(Exception):
    def __setattr__(self, name, value):
        raise TypeError(name)

    def __reduce__(self):
        return Refuses, self.args


def raise_it(kind, *arguments):
    raise kind(*arguments)


def write_to(array, kind):
    try:
        array[0] = 1
    except ValueError as error:
        raise kind(3) from error


def run(program, *arguments, **options):
    """Runs a program from standard input, which has no file."""
    return subprocess.run(
        [sys.executable, "-", *arguments],
        input=textwrap.dedent(program),
        capture_output=True,
        text=True,
        timeout=harness.PATIENCE,
        **options,
    )


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(2) as ex:
        yield ex


def test_calls_of_all_kinds(executor):
    submit = executor.submit
    assert submit(int, "ff", base=16).result() == 255
    assert submit(functools.partial(pow, 2), 5).result() == 32
    assert submit("a-b".split, "-").result() == ["a", "b"]
    assert submit(collections.Counter, "abca").result() == {"a": 2, "b": 1, "c": 1}
    assert submit(operator.itemgetter(1), [1, 2]).result() == 2
    assert submit(bytes, 200_000).result() == bytes(200_000)
    assert submit(len, "x" * 300_000).result() == 300_000
    assert submit(list, range(100_000)).result() == list(range(100_000))


def test_map_keeps_the_order(executor):
    assert list(executor.map(square, range(100))) == [n * n for n in range(100)]
    assert list(executor.map(pow, [2, 3, 4], itertools.repeat(2))) == [4, 9, 16]
    assert list(executor.map(square, range(100), chunksize=7)) == [n * n for n in range(100)]
    assert list(executor.map(square, [])) == []


@pytest.mark.parametrize("kind", [Frozen, Reads, Refuses])
def test_an_exception_whose_class_refuses_attributes(executor, kind):
    numpy = pytest.importorskip("numpy")
    array = executor.share(numpy.zeros(10_000))
    for task in ((raise_it, kind, 3), (write_to, array, kind)):
        error = executor.submit(*task).exception()
        assert type(error) is (arenite.RemoteError if kind is Frozen else kind), repr(error)
        assert str(error) == (f"{__name__}.Frozen: 3" if kind is Frozen else "3")
        assert task[0].__name__ in error.__cause__.tb and f"{kind.__name__}: 3" in error.__cause__.tb
    results = executor.map(raise_it, [kind] * 3, range(3))
    for number in range(3):
        with pytest.raises((arenite.RemoteError, kind)) as raised:
            next(results)
        assert str(raised.value).endswith(str(number))


def test_map_goes_on_after_an_exception(executor):
    for chunksize in (1, 3):
        results = executor.map(operator.truediv, [1, 2, 3], [1, 0, 3], chunksize=chunksize)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == [1]


def test_map_pulls_no_more_than_its_buffer(executor):
    pulled = []

    def items():
        for n in itertools.count():
            pulled.append(n)
            yield n

    results = executor.map(square, items(), buffersize=3)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(pulled) <= 5 + 3


def test_map_of_an_endless_iterator_is_lazy(executor):
    results = executor.map(square, itertools.count())
    assert list(itertools.islice(results, 10_000)) == [n * n for n in range(10_000)]


def test_map_raises_what_its_input_raises(executor):
    def items():
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(executor.map(square, items()))


def _touch(name):
    with open(name, "x"):
        return len(name)


#: Ways to give a map its input, and to leave its results.
INPUTS = {"list": list, "iterator": iter, "generator": lambda names: (name for name in names)}
LEFT = {
    "dropped": lambda ex, items: ex.map(_touch, items) and None,
    "dropped, in chunks": lambda ex, items: ex.map(_touch, items, chunksize=7) and None,
    "read after the end": lambda ex, items: ex.map(_touch, items),
    "shut down at once": lambda ex, items: [ex.map(_touch, items), ex.shutdown(wait=False)][0],
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("given", INPUTS)
def test_a_map_makes_all_calls_whoever_reads_its_results(given, left, tmp_path):
    found = []
    for make in (lambda: ThreadPoolExecutor(2), lambda: arenite.Executor(2)):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        with make() as ex:
            results = LEFT[left](ex, INPUTS[given]([str(folder / str(number)) for number in range(300)]))
        found.append((len(list(folder.iterdir())), results and list(results)))
    assert found[0] == found[1]


def test_a_map_that_nobody_reads_ends_with_its_executor():
    ex = arenite.Executor(2)
    ex.map(time.sleep, [60] * 20)
    ex.map(abs, itertools.count())
    ex.shutdown(cancel_futures=True)


def test_names_of_the_standard_library():
    with arenite.Executor(1, max_tasks_per_child=1, mp_context=multiprocessing.get_context("spawn")) as ex:
        assert len({ex.submit(os.getpid).result() for _ in range(3)}) == 3


@pytest.mark.parametrize("make", [arenite.Executor, arenite.Pool])
@pytest.mark.parametrize(
    "options, where",
    [
        ({"spares": 1}, r"'spares': pass settings=arenite\.Settings\(spares=…\)$"),
        ({"recycle_after": 1}, "'recycle_after': the keyword is max_tasks_per_child$"),
        ({"arrays": "shared"}, r"'arrays': call arenite\.install\(\) instead$"),
        ({"worker": 1}, "unexpected keyword argument 'worker'$"),
        ({"settings": {"spares": 1}}, r"settings must be an arenite\.Settings, not \{'spares': 1\}"),
    ],
)
def test_a_wrong_keyword_says_what_to_write(make, options, where):
    with pytest.raises(TypeError, match=where):
        make(1, **options)


def test_arguments_by_position():
    for ours, theirs, count in (
        (arenite.Executor, ProcessPoolExecutor, 4),
        (arenite.Pool, multiprocessing.pool.Pool, 5),
    ):
        names = [list(inspect.signature(kind).parameters)[:count] for kind in (ours, theirs)]
        assert names[0] == names[1]
    with arenite.Executor(1, multiprocessing.get_context("spawn"), set_state, (7,)) as ex:
        assert ex.submit(get_state).result() == 7
    with arenite.Pool(1, set_state, (7,), 10, multiprocessing.get_context("spawn")) as pool:
        assert pool.apply(get_state) == 7


BY_SUBMIT = """
    import sys
    from concurrent.futures import ProcessPoolExecutor
    import arenite

    Base = {"arenite": arenite.Executor, "stdlib": ProcessPoolExecutor}[sys.argv[1]]
    how, chunksize = sys.argv[2], int(sys.argv[3])
    seen = []

    def inverse(n):
        return 12 // n

    class Counting(Base):
        def submit(self, *args, **kwargs):
            seen.append("called")
            return super().submit(*args, **kwargs)

    def watched(original):
        def submit(*args, **kwargs):
            future = original(*args, **kwargs)
            future.add_done_callback(lambda _: seen.append("done"))
            return future
        return submit

    if __name__ == "__main__":
        if how == "class":
            Base.submit = watched(Base.submit)
        with (Counting if how == "subclass" else Base)(2) as ex:
            if how == "object":
                ex.submit = watched(ex.submit)
            print(list(ex.map(inverse, range(1, 10), chunksize=chunksize)))
            print(list(ex.map(pow, range(9), (2 for _ in range(7)), chunksize=chunksize)))
            results = ex.map(inverse, [1, 0, 2], chunksize=chunksize)
            for _ in range(4):
                try:
                    print(next(results, "no more"))
                except ZeroDivisionError:
                    print("error")
            try:
                ex.map(abs, [1], chunksize=0)
            except ValueError as error:
                print(error)
        print(len(seen))
"""


@pytest.mark.parametrize("chunksize", [1, 4])
@pytest.mark.parametrize("how", ["subclass", "object", "class"])
def test_map_calls_a_submit_that_is_not_the_original(how, chunksize):
    ours, theirs = (harness.script(BY_SUBMIT, which, how, chunksize).ok().out for which in ("arenite", "stdlib"))
    assert ours == theirs


def test_a_replaced_submit_does_not_change_the_buffer_and_the_timeout(executor):
    class Own(arenite.Executor):
        def submit(self, *args, **kwargs):
            return super().submit(*args, **kwargs)

    pulled = itertools.count()
    with Own(1) as ex:
        results = ex.map(square, (next(pulled) for _ in itertools.count()), buffersize=3)
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        assert next(pulled) <= 5 + 3
        results = ex.map(time.sleep, [0, 3600, 3600], timeout=0.1)
        with pytest.raises(TimeoutError):
            list(results)
        with harness.waiting("a task after those that were ended"):
            assert list(ex.map(square, [1, 2, 3])) == [1, 4, 9]
    before = executor.stats().submitted
    assert list(executor.map(square, range(10_000))) == [n * n for n in range(10_000)]
    # In packets, not by `submit`.
    assert executor.stats().submitted - before < 10_000


def test_a_map_that_cannot_begin_says_so_once(executor, monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    for call in (lambda: executor.map(abs, 5), lambda: executor.map(abs, [1], chunksize=0)):
        with pytest.raises((TypeError, ValueError)):
            call()
    gc.collect()
    assert not ignored


def test_map_times_out(executor):
    results = executor.map(time.sleep, [0, 3600, 3600, 3600], timeout=0.1)
    with pytest.raises(TimeoutError):
        list(results)
    assert list(results) == []
    with harness.waiting("a task after those that were ended"):
        assert list(executor.map(square, [1, 2, 3])) == [1, 4, 9]


def test_lists_are_finished_at_the_end_of_the_block():
    with arenite.Executor(2) as ex:
        results = ex.map(square, list(range(1000)))
        endless = ex.map(square, itertools.count())
    assert list(results) == [n * n for n in range(1000)]
    with pytest.raises(RuntimeError, match="shut down before"):
        list(endless)


def test_bad_arguments_say_what_is_right():
    for options, message in [
        ({"max_workers": -1}, "max_workers"),
        ({"max_workers": 1, "lanes": 0}, "lanes"),
        ({"max_workers": 1, "memory_limit": "many"}, "512MiB"),
        ({"max_workers": 1, "memory_limit": -1}, "positive"),
        ({"max_workers": 1, "max_tasks_per_child": 0}, "max_tasks_per_child"),
        ({"max_workers": 1, "writable": "yes"}, "copy"),
        ({"max_workers": 1, "output": "loud"}, "labelled"),
    ]:
        with pytest.raises(ValueError, match=message):
            arenite.Executor(**options)
    with pytest.raises(TypeError, match="initializer"):
        arenite.Executor(1, initializer=1)


def test_bad_options_are_refused_at_once(executor):
    with pytest.raises(ValueError, match="deadline"):
        executor.options(deadline=-1)
    with pytest.raises(TypeError):
        executor.options(patience=1)
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(square, [1], buffersize=0)


@pytest.mark.leaves("the worker that replaces another")
def test_a_deadline_ends_the_task(executor):
    hung = executor.options(deadline=0.2, label="evil.jpg").submit(time.sleep, 60)
    with pytest.raises(TimeoutError) as caught:
        hung.result()
    error = caught.value
    assert isinstance(error, arenite.DeadlineExceeded)
    assert (error.deadline, error.attempts, error.label) == (0.2, 1, "evil.jpg")
    assert "evil.jpg" in str(error)


@pytest.mark.leaves("the worker that replaces another")
def test_retries_run_it_again(executor, tmp_path):
    path = tmp_path / "attempts"
    assert executor.options(retries=3, backoff=(0, 0)).submit(fail_twice, path).result() == 3
    (tmp_path / "again").touch()
    with pytest.raises(arenite.WorkerDied) as caught:
        executor.options(retries=1, backoff=(0, 0)).submit(fail_twice, tmp_path / "again").result()
    assert (caught.value.attempts, caught.value.signal) == (2, signal.SIGKILL)
    assert len(caught.value.deaths) == 1


def test_an_initializer_runs_in_each_worker():
    with arenite.Executor(2, initializer=set_state, initargs=("ready",)) as ex:
        assert set(ex.map(lambda _: get_state(), range(20))) == {"ready"}


def test_modules_are_imported_before_the_first_task():
    with arenite.Executor(1, preload=["fractions"]) as ex:
        assert ex.submit(lambda: "fractions" in __import__("sys").modules).result()


def test_workers_are_recycled():
    with arenite.Executor(1, max_tasks_per_child=2) as ex:
        pids = list(ex.map(lambda _: os.getpid(), range(6)))
        assert len(set(pids)) == 3
        harness.until(lambda: ex.stats().recycled >= 2, "the count of recycled workers")


def test_lanes_run_side_by_side():
    with arenite.Executor(1, lanes=4) as ex:
        barrier = ex.map(wait_for_four, range(4))
        assert sorted(barrier) == [0, 1, 2, 3]


def wait_for_four(n):
    """Returns when four calls are in this process at the same time."""
    global _count
    with _lock:
        _count += 1
    while _count < 4:
        time.sleep(0.001)
    return n


_count = 0
_lock = threading.Lock()


def test_tasks_run_in_this_process_without_workers():
    with arenite.Executor(0, initializer=set_state, initargs=(7,)) as ex:
        assert ex.submit(os.getpid).result() == os.getpid()
        assert ex.submit(get_state).result() == 7
        assert list(ex.map(square, range(3))) == [0, 1, 4]
        items = [0, 1, 2]
        results = ex.map(square, items)
        items.clear()
        assert list(results) == [0, 1, 4]
        with pytest.raises(ZeroDivisionError):
            ex.submit(operator.truediv, 1, 0).result()
        left = ex.submit(sys.exit, 3)
        assert type(left.exception()) is SystemExit
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(os.getpid)


def test_no_executor_in_a_task_but_one_without_workers(executor):
    def nested(workers):
        with arenite.Executor(workers) as ex:
            return ex.submit(square, 3).result()

    with pytest.raises(RuntimeError, match="max_workers=0"):
        executor.submit(nested, 1).result()
    assert executor.submit(nested, 0).result() == 9


def test_nothing_after_the_end():
    ex = arenite.Executor(1)
    ex.shutdown()
    ex.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        ex.submit(square, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        ex.map(square, [1])
    # As elsewhere.
    assert list(ex.map(square, [])) == []


def test_shutdown_without_waiting_finishes_in_the_background(tmp_path):
    gate = tmp_path / "open"

    def wait():
        while not gate.exists():
            time.sleep(0.001)
        return "done"

    ex = arenite.Executor(1)
    futures = [ex.submit(wait) for _ in range(3)]
    ex.shutdown(wait=False)
    gate.touch()
    assert [future.result() for future in futures] == ["done"] * 3


def test_cancelling_at_the_end_ends_everything():
    ex = arenite.Executor(1)
    futures = [ex.submit(time.sleep, 60) for _ in range(5)]
    harness.until(futures[0].running, "the first task to run")
    ex.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_statistics(executor):
    executor.submit(square, 2).result()
    stats = executor.stats()
    assert len(stats.workers) == 2
    assert stats.submitted >= 1 and stats.capacity > 0


def test_output_appears_as_printed(tmp_path):
    program = """
        import sys, arenite
        def speak(n):
            print("hello", n)
            print("careful", n, file=sys.stderr)
        if __name__ == "__main__":
            for output in "labelled", "plain", None:
                with arenite.Executor(1, output=output, settings=arenite.Settings(label="me")) as ex:
                    ex.submit(speak, output).result()
    """
    ended = run(program)
    assert ended.stdout.splitlines() == ["(me:0) hello labelled", "hello plain"]
    assert ended.stderr.splitlines() == ["(me:0) careful labelled", "careful plain"]
    assert ended.returncode == 0


def test_the_interpreter_finishes_what_was_submitted():
    program = """
        import arenite, time
        def late():
            time.sleep(0.3)
            print("late")
        ex = arenite.Executor(1, output="plain")
        ex.submit(late)
        """
    ended = run(program)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("late\n", "", 0)


def test_a_forked_child_is_told(executor):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(square, 1)
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    assert b"after the fork" in os.read(reader, 1000)
    os.close(reader)
    assert executor.submit(square, 3).result() == 9


def test_a_forked_child_can_have_its_own():
    program = """
        import os, warnings, arenite
        # From 3.12 on, a fork beside threads is warned of.
        warnings.simplefilter("ignore", DeprecationWarning)
        with arenite.Executor(1) as ex:
            assert ex.submit(abs, -1).result() == 1
            pid = os.fork()
            if pid == 0:
                with arenite.Executor(1) as own:
                    print(own.submit(abs, -2).result(), flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(ex.submit(abs, -3).result())
        """
    ended = run(program)
    assert (ended.stdout, ended.stderr) == ("2\n3\n", "")


def test_ctrl_c_ends_a_wait_and_the_tasks():
    program = """
        import arenite, os, signal, sys, threading, time
        kind = sys.argv[1]
        ex = arenite.Executor(1)
        future = ex.submit(time.sleep, 60)
        def interrupt():
            while not future.running():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
        try:
            with ex:
                threading.Thread(target=interrupt).start()
                if kind == "result":
                    future.result()
                elif kind == "map":
                    list(ex.map(time.sleep, [60]))
        except KeyboardInterrupt:
            print("interrupted", future.cancelled())
        """
    for kind in ("result", "map", "shutdown"):
        with harness.waiting(f"Ctrl-C at {kind}"):
            ended = run(program, kind)
        assert ended.stdout == "interrupted True\n"
        # The interrupted map has ended its own task before.
        assert ended.stderr == "arenite: KeyboardInterrupt has ended 1 task that had not finished\n", kind


def test_a_program_that_ctrl_c_has_ended_waits_for_nothing():
    program = """
        import arenite, time
        ex = arenite.Executor(1)
        future = ex.submit(time.sleep, 60)
        while not future.running():
            time.sleep(0.001)
        raise KeyboardInterrupt
        """
    with harness.waiting("the program to end"):
        ended = run(program).stderr
    assert ended.endswith("KeyboardInterrupt\narenite: KeyboardInterrupt has ended 1 task that had not finished\n")


def test_a_file_in_the_working_directory_hides_no_library(tmp_path):
    (tmp_path / "signal.py").write_text("raise ImportError('the wrong one')")
    program = "import arenite\nwith arenite.Executor(1) as ex: print(ex.submit(abs, -1).result())"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.stderr) == ("1\n", "")
