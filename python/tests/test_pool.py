"""`arenite.Pool` beside `multiprocessing.Pool`: the same calls, and what a death costs."""

import itertools
import multiprocessing.pool
import os
import pickle
import queue
import signal
import threading
import time
import warnings
from concurrent.futures import CancelledError

import arenite
import harness
import numpy as np
import pytest


def square(n):
    return n * n


def stay(_):
    while True:
        time.sleep(60)


def die_at(n):
    return lambda m: os._exit(7) if m == n else m


def fail_at(*bad):
    def call(n):
        if n in bad:
            raise ValueError(n)
        return n

    return call


@pytest.fixture(scope="module")
def pool():
    with arenite.Pool(2) as pool:
        harness.until(lambda: all(worker.ready for worker in pool.executor.stats().workers), "both workers")
        yield pool


@pytest.fixture
def mortal():
    """A pool whose workers may die."""
    with arenite.Pool(2) as pool:
        yield pool


@pytest.fixture(params=["arenite", "multiprocessing"])
def either(request, pool):
    """This pool, and the one of the standard library, which shows what users expect."""
    if request.param == "arenite":
        yield pool
    else:
        with multiprocessing.get_context("fork").Pool(2) as other:
            yield other
            other.close()
            other.join()


@pytest.mark.leaves("multiprocessing")
class TestSameAsMultiprocessing:
    def test_values(self, either):
        assert either.apply(divmod, (7, 2)) == (3, 1)
        assert either.apply(int, ("ff",), {"base": 16}) == 255
        assert either.apply_async(square, (5,)).get(60) == 25
        assert either.map(square, range(100)) == [n * n for n in range(100)]
        assert either.map(square, (n for n in range(10)), chunksize=3) == [n * n for n in range(10)]
        assert either.map(square, []) == either.map_async(square, []).get(60) == []
        assert either.starmap(pow, zip(range(5), range(5), strict=True)) == [n**n for n in range(5)]
        assert either.starmap_async(max, [(1,) * 2, (1, 2, 3)], chunksize=1).get(60) == [1, 3]
        assert list(either.imap(square, range(100), chunksize=7)) == [n * n for n in range(100)]
        assert sorted(either.imap_unordered(square, range(100))) == [n * n for n in range(100)]
        assert sorted(either.imap_unordered(square, range(100), chunksize=7)) == [n * n for n in range(100)]

    def test_exceptions(self, either):
        with pytest.raises(ValueError, match="invalid literal") as caught:
            either.map(int, ["1", "x", "2"])
        assert "Traceback (most recent call last)" in str(caught.value.__cause__)
        results = either.imap(int, ["1", "x", "2"])
        assert next(results) == 1
        with pytest.raises(ValueError, match="'x'"):
            next(results)
        assert next(results) == 2
        with pytest.raises(StopIteration):
            next(results)

    def test_an_exception_of_the_input_is_in_its_place(self, either):
        def numbers():
            yield 1
            yield 2
            raise KeyError("input")

        for kind in (either.map, either.starmap):
            with pytest.raises(KeyError, match="input"):
                kind(square, numbers())
        results = either.imap(square, numbers())
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(KeyError, match="input"):
            next(results)
        results = either.imap_unordered(square, numbers())
        found = []
        with pytest.raises(KeyError, match="input"):
            found.extend(results)

    def test_callbacks_have_returned_when_the_result_is_ready(self, either):
        seen = []
        called = {"callback": seen.append, "error_callback": seen.append}
        for method, *arguments in (
            (either.apply_async, square, (3,)),
            (either.map_async, square, [1, 2]),
            (either.starmap_async, pow, [(2, 3)]),
            (either.apply_async, int, ("x",)),
            (either.map_async, int, ["x"]),
        ):
            count = len(seen)
            result = method(*arguments, **called)
            result.wait(60)
            assert len(seen) == count + 1
            assert result.ready()
            assert result.successful() == (not isinstance(seen[-1], ValueError))
        assert seen[:3] == [9, [1, 4], [8]]
        assert [type(error) for error in seen[3:]] == [ValueError, ValueError]

    def test_a_callback_does_not_run_inside_of_the_call(self, either):
        threads = []
        for _ in range(200):
            either.apply_async(abs, (-1,), callback=lambda _: threads.append(threading.get_ident())).wait(60)
        assert len(threads) == 200 and threading.get_ident() not in threads

    def test_a_map_of_nothing_has_no_callback(self, either):
        seen = []
        for method in (either.map_async, either.starmap_async):
            result = method(square, [], callback=seen.append, error_callback=seen.append)
            assert result.get(60) == []
        assert either.apply_async(square, (3,), callback=seen.append).get(60) == 9
        assert seen == [9]

    def test_a_chunksize_of_zero(self, either):
        assert either.map(square, [], chunksize=0) == []
        assert either.map(square, range(3), chunksize=0) == [None] * 3
        assert either.starmap_async(pow, [(1, 2)], chunksize=0, callback=1 .bit_length).get(60) == [None]

    def test_attributes_that_other_libraries_read(self, either):
        assert isinstance(either, multiprocessing.pool.Pool)
        assert len(either._pool) == either._processes == 2
        assert len({worker.pid for worker in either._pool} | {os.getpid()}) == 3
        assert {either.apply(os.getpid) for _ in range(20)} <= {worker.pid for worker in either._pool}
        assert either._ctx.get_start_method()
        result = either.map_async(square, range(10), chunksize=3)
        assert 0 <= result._number_left <= 4
        assert result.get(60) == [n * n for n in range(10)]
        assert (result._number_left, result._chunksize) == (0, 3)
        assert not hasattr(either.apply_async(square, (3,)), "_number_left")
        ended = type(either)(1)
        ended.terminate()
        ended.join()
        assert isinstance(ended._pool, list)

    def test_processes_of_a_new_pool(self, either):
        for _ in range(3):
            with type(either)(2) as new:
                first = {worker.pid for worker in new._pool}
                assert {new.apply(os.getpid) for _ in range(20)} <= first
                assert {worker.pid for worker in new._pool} == first and len(first) == 2

    def test_what_is_left_of_a_map(self, either, tmp_path):
        barriers = [str(tmp_path / str(number)) for number in range(4)]
        for barrier in barriers:
            os.mkfifo(barrier)
        result = either.map_async(read, barriers, chunksize=1)
        left = []
        for barrier in reversed(barriers[:2]):
            left.append(result._number_left)
            with harness.waiting("a task to open its pipe"), open(barrier, "w") as file:
                file.write("x")
            harness.until(lambda: result._number_left < left[-1], "the end of a call")
        for barrier in barriers[2:]:
            with harness.waiting("a task to open its pipe"), open(barrier, "w") as file:
                file.write("x")
        assert (result.get(60), left, result._number_left) == (["x"] * 4, [4, 3], 0)

    def test_results_that_are_not_there(self, either, tmp_path):
        barriers = [str(tmp_path / name) for name in "ab"]
        for barrier in barriers:
            os.mkfifo(barrier)
        result = either.apply_async(read, barriers[:1])
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        result.wait(0.01)
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(0.01)
        results = either.imap(read, barriers[1:])
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(timeout=0.01)
        for barrier in barriers:
            with harness.waiting("a task to open its pipe"), open(barrier, "w") as file:
                file.write("x")
        assert (result.get(60), results.next(60)) == ("x", "x")

    def test_ends(self, either):
        if isinstance(either, arenite.Pool):
            with arenite.Pool(1) as made:
                check_end(made)
        else:
            with multiprocessing.get_context("fork").Pool(1) as made:
                check_end(made)

    def test_wrong_arguments(self, either):
        make = arenite.Pool if isinstance(either, arenite.Pool) else multiprocessing.Pool
        for processes in (0, -1):
            with pytest.raises(ValueError, match="Number of processes must be at least 1"):
                make(processes)
        for tasks in (0, -1, 0.5, "12"):
            with pytest.raises(ValueError, match="maxtasksperchild must be a positive int or None"):
                make(1, maxtasksperchild=tasks)
        with pytest.raises(TypeError, match="initializer must be a callable"):
            make(1, initializer="text")
        with pytest.raises(ValueError, match="Chunksize must be"):
            either.imap(square, [1], chunksize=0)
        with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
            pickle.dumps(either)


def check_end(made):
    with pytest.raises(ValueError, match="Pool is still running"):
        made.join()
    late = [made.imap(square, iter(range(200))), made.imap_unordered(square, iter(range(200)))]
    result = made.apply_async(square, (4,))
    many = made.map_async(square, range(50), chunksize=1)
    made.close()
    with pytest.raises(ValueError, match="Pool not running"):
        made.apply(square, (1,))
    with pytest.raises(ValueError, match="Pool not running"):
        made.__enter__()
    with harness.waiting("the pool to end"):
        made.join()
    assert result.get(60) == 16
    assert many.get(60) == [n * n for n in range(50)]
    assert [sorted(results) for results in late] == [[n * n for n in range(200)]] * 2


def read(path):
    with open(path) as file:
        return file.read()


def test_imap_is_lazy(pool):
    pulled = itertools.count()
    results = pool.imap(square, (next(pulled) for _ in itertools.count()))
    assert [next(results) for _ in range(10)] == [n * n for n in range(10)]
    assert next(pulled) < 200
    found = pool.imap_unordered(square, itertools.count())
    assert len({next(found) for _ in range(10)}) == 10


@pytest.mark.parametrize("chunksize", [None, 1, 7])
@pytest.mark.parametrize("name", ["imap", "imap_unordered", "map_async", "starmap_async"])
def test_a_list_may_change_after_the_call(pool, monkeypatch, name, chunksize):
    # As of many more items, it takes a few at a time.
    monkeypatch.setattr("arenite._core.map._MOST_SIZED", 5)
    monkeypatch.setattr("arenite._core.map._MOST_PACKED", 5)
    items = [(n,) if name == "starmap_async" else n for n in range(50)]
    results = getattr(pool, name)(square, items, chunksize)
    items.clear()
    assert sorted(results.get() if name.endswith("async") else results) == [n * n for n in range(50)]


def test_imap_unordered_gives_what_has_ended(pool, tmp_path):
    """The first item waits until the results of the others were seen."""
    barrier = tmp_path / "barrier"
    os.mkfifo(barrier)
    results = pool.imap_unordered(lambda path: read(path) if path else "others", [str(barrier), None, None, None])
    with harness.waiting("the results of the tasks that do not wait"):
        assert [results.next(60) for _ in range(3)] == ["others"] * 3
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(0.01)
    with open(barrier, "w") as file:
        file.write("first")
    assert list(results) == ["first"]


def test_a_death_costs_one_task(mortal):
    for results in (mortal.imap(die_at(3), range(10)), mortal.imap_unordered(die_at(3), range(10))):
        values, deaths = [], []
        while True:
            try:
                values.append(next(results))
            except StopIteration:
                break
            except arenite.WorkerDied as death:
                deaths.append(death.exit_code)
        assert (sorted(values), deaths) == ([n for n in range(10) if n != 3], [7])
    with pytest.raises(arenite.WorkerDied):
        mortal.apply(os._exit, (1,))
    assert mortal.apply(square, (3,)) == 9


def test_map_makes_all_calls_and_raises_the_first_failure_of_the_input(mortal, tmp_path):
    def call(n):
        (tmp_path / str(n)).touch()
        if n == 5:
            os._exit(1)
        if n == 9:
            raise KeyError(n)

    with pytest.raises(arenite.WorkerDied):
        mortal.map(call, range(20), chunksize=1)
    assert len(list(tmp_path.iterdir())) == 20
    with pytest.raises(ValueError, match="4"):
        mortal.map(fail_at(4, 11), range(20), chunksize=5)
    seen = []
    result = mortal.map_async(die_at(2), range(6), chunksize=1, error_callback=seen.append)
    with pytest.raises(arenite.WorkerDied):
        result.get(60)
    assert isinstance(seen[0], arenite.WorkerDied)


def test_terminate_ends_what_runs_and_what_waits():
    with arenite.Pool(1) as made:
        calls = []
        running = made.apply_async(stay, (0,), callback=calls.append, error_callback=calls.append)
        results = [made.map_async(stay, range(1000), chunksize=1), made.apply_async(stay, (0,)), running]
        streams = [made.imap(stay, itertools.repeat(0)), made.imap_unordered(stay, itertools.repeat(0))]
        outcome = queue.SimpleQueue()

        def take():
            try:
                outcome.put(next(streams[1]))
            except BaseException as error:
                outcome.put(error)

        thread = threading.Thread(target=take)
        thread.start()
        harness.until(lambda: made.executor.stats().running, "a task to run")
        with harness.waiting("terminate()"):
            made.terminate()
            made.join()
        for result in results:
            with pytest.raises(CancelledError):
                result.get(60)
            assert not result.successful()
        for stream in streams:
            with pytest.raises(CancelledError):
                next(stream)
        with harness.waiting("the thread that takes a result"):
            thread.join()
        assert isinstance(outcome.get(timeout=60), CancelledError)
        assert calls == []


def test_close_ends_the_workers_without_a_join(tmp_path):
    barrier = tmp_path / "barrier"
    os.mkfifo(barrier)
    made = arenite.Pool(1)
    pid = made.apply(os.getpid)
    results = made.imap(read, [str(barrier)])
    made.close()
    with harness.waiting("the task to open its pipe"), open(barrier, "w") as file:
        file.write("x")
    assert list(results) == ["x"]
    harness.until(lambda: not harness.is_alive(pid), "the worker to end")


def test_options_of_the_executor_and_shared_arrays():
    with arenite.Pool(1, os.putenv, ("POOL_TEST", "yes"), maxtasksperchild=2, memory_limit="1GiB") as made:
        assert made.apply(lambda: os.popen("echo $POOL_TEST").read()) == "yes\n"
        pids = [made.apply(os.getpid) for _ in range(5)]
        assert len(set(pids)) >= 3
        table = made.executor.share(np.arange(100_000))
        copied = made.executor.stats().bytes_copied
        assert made.starmap(lambda rows, n: int(rows[n]), [(table, 5), (table, 7)]) == [5, 7]
        assert made.executor.stats().bytes_copied == copied


def test_a_failing_initializer_fails_the_calls():
    with pytest.raises((arenite.StartFailed, OSError), match="invalid literal"):
        with arenite.Pool(1, initializer=int, initargs=("not a number",)) as made:
            made.apply_async(square, (1,)).get(60)


def test_a_pool_that_was_not_ended_warns_and_leaves_nothing():
    made = arenite.Pool(1)
    assert made.apply(square, (2,)) == 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        del made
    assert any("unclosed running multiprocessing pool" in str(warning.message) for warning in caught)


def test_the_end_of_the_program_ends_pools():
    """Tasks that would never end do not keep the interpreter, as with multiprocessing."""
    source = """
        import time, arenite
        pool = arenite.Pool(2)
        result = pool.map_async(time.sleep, [3600] * 100, chunksize=1)
        stream = pool.imap_unordered(time.sleep, [3600] * 100)
        print(pool.apply_async(abs, (-1,)).ready())
    """
    finished = harness.script(source)
    assert finished.ok().out == "False\n"


def test_ctrl_c_ends_a_map():
    source = """
        import time, arenite
        def call(n):
            print("begun", flush=True)
            time.sleep(3600)
        with arenite.Pool(1, output="plain") as pool:
            try:
                pool.map(call, range(3), chunksize=1)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
    """
    program = harness.Script(source)
    assert program.line() == "begun"
    program.signal(signal.SIGINT, group=True)
    finished = program.finish()
    assert finished.ok().out == "interrupted\n"
