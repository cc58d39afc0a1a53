"""The joblib backend: what `joblib.Parallel` promises holds, large arrays are shared once per call, and a worker that
dies costs one task. scikit-learn gets the same results as with loky."""

import ctypes
import faulthandler
import glob
import multiprocessing
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
import weakref

import arenite
import harness
import pytest

joblib = pytest.importorskip("joblib", minversion="1.5")
np = pytest.importorskip("numpy")

import arenite.joblib  # noqa: E402
from arenite.integrations import joblib as backend  # noqa: E402
from joblib import Parallel, delayed, parallel_config  # noqa: E402

#: Larger than what joblib shares by default.
LARGE = 300_000


@pytest.fixture(autouse=True)
def shared(nothing_left):
    """Ends the workers that wait for the next call."""
    yield
    with harness.waiting("the workers of the backend to end"):
        backend.shutdown()


def stats():
    return backend._current.executor.stats()


def workers():
    return {worker.pid for worker in stats().workers}


def run(*tasks, n_jobs=2, **options):
    with harness.waiting("a call of Parallel"):
        return Parallel(n_jobs=n_jobs, backend="arenite", **options)(tasks)


def square(n):
    return n * n


def crash():
    faulthandler.disable()
    ctypes.string_at(0)


def stay(path=None):
    """Says that it runs, and does so for ever."""
    if path is not None:
        with open(f"{path}/{os.getpid()}", "w"):
            pass
    while True:
        time.sleep(60)


def raise_when_running(folder, error):
    """Raises as soon as another task says that it runs."""
    while not running(folder):
        time.sleep(0.005)
    raise error


def running(folder):
    return [int(name) for name in os.listdir(folder)]


# ---- the interface of Parallel


def test_results_are_in_order():
    assert run(*(delayed(square)(n) for n in range(100))) == [n * n for n in range(100)]
    assert run() == []


def test_the_name_works_after_the_import_alone():
    code = """
        from joblib import Parallel, delayed, parallel_config
        import arenite.joblib
        offset = 10
        with parallel_config(backend="arenite", n_jobs=2):
            print(Parallel()(delayed(lambda n: n + offset)(n) for n in range(3)))
    """
    ran = harness.script(code).ok()
    assert ran.out == "[10, 11, 12]\n"


def test_arenite_does_not_import_joblib():
    code = "import sys, arenite; arenite.Executor; print(sorted({'joblib', 'distributed', 'anyio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_n_jobs():
    make = backend.AreniteBackend()
    cores = joblib.cpu_count()
    assert [make.effective_n_jobs(n) for n in (1, 3, -1, None, -2, -1000)] == [1, 3, cores, cores, max(1, cores - 1), 1]
    with pytest.raises(ValueError, match="n_jobs == 0"):
        run(delayed(square)(1), n_jobs=0)
    # One job runs here, as with every backend.
    assert run(delayed(os.getpid)(), n_jobs=1) == [os.getpid()]
    assert os.getpid() not in run(*[delayed(os.getpid)()] * 4)
    with parallel_config(backend="arenite", n_jobs=3):
        assert joblib.effective_n_jobs(None) == 3
        Parallel()([delayed(square)(1)])
    assert len(workers()) == 3


def test_one_job_says_what_it_does_without():
    with pytest.warns(UserWarning, match="n_jobs=1 runs tasks in this process, without deadline, memory_limit"):
        run(delayed(square)(1), n_jobs=1, deadline=1, memory_limit="1GiB")


def test_prefer_and_require():
    thread = delayed(threading.get_ident)
    with parallel_config(backend="arenite", n_jobs=2):
        assert os.getpid() not in Parallel(prefer="threads")([delayed(os.getpid)()] * 2)
        assert set(Parallel(n_jobs=2, require="sharedmem")([delayed(os.getpid)()] * 2)) == {os.getpid()}
    with pytest.raises(ValueError, match="does not support shared memory"):
        run(thread(), require="sharedmem")


def test_an_exception_ends_the_call():
    with pytest.raises(ZeroDivisionError) as raised:
        run(*(delayed(divmod)(1, n) for n in (1, 0, 2)))
    assert "Traceback" in str(raised.value.__cause__)
    assert run(delayed(square)(3)) == [9]


def test_an_exception_of_the_iterator():
    def tasks():
        yield delayed(square)(1)
        raise LookupError("no more")

    with harness.waiting("Parallel to raise"), pytest.raises(LookupError, match="no more"):
        Parallel(n_jobs=2, backend="arenite")(tasks())


def test_what_cannot_be_pickled():
    with pytest.raises(TypeError, match="lock"):
        run(delayed(square)(threading.Lock()))
    with pytest.raises(TypeError, match="lock"):
        run(delayed(threading.Lock)())
    assert run(delayed(square)(2)) == [4]


@pytest.mark.parametrize("order", ["generator", "generator_unordered"])
def test_generators(order):
    results = run(*(delayed(square)(n) for n in range(50)), return_as=order)
    with harness.waiting("the first result"):
        first = next(results)
    with harness.waiting("the other results"):
        assert sorted([first, *results]) == [n * n for n in range(50)]


def test_an_endless_generator_is_pulled_as_needed(tmp_path):
    def numbers():
        n = 0
        while True:
            pulled.append(n)
            yield delayed(square)(n)
            n += 1

    pulled = []
    results = Parallel(n_jobs=2, backend="arenite", return_as="generator", pre_dispatch=4)(numbers())
    with harness.waiting("results"):
        assert [next(results) for _ in range(10)] == [n * n for n in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib says that it was not used up.
        results.close()
    count = len(pulled)
    assert run(delayed(square)(2)) == [4]
    assert len(pulled) == count


def test_a_generator_that_is_dropped_ends_its_tasks(tmp_path):
    tasks = [delayed(square)(1), delayed(stay)(tmp_path), delayed(stay)(tmp_path)]
    results = run(*tasks, return_as="generator")
    with harness.waiting("the first result"):
        assert next(results) == 1
    ended = harness.until(lambda: len(running(tmp_path)) == 2 and running(tmp_path), "both tasks to run")
    with pytest.warns(UserWarning, match="have been cancelled"):
        del results
    harness.until(lambda: not any(map(harness.is_alive, ended)), "the workers of the tasks to end")
    assert run(delayed(square)(2)) == [4]


def test_two_generators_at_a_time():
    with parallel_config(backend="arenite", n_jobs=2):
        one = Parallel(return_as="generator")(delayed(square)(n) for n in range(40))
        two = Parallel(return_as="generator")(delayed(square)(-n) for n in range(40))
        with harness.waiting("the results of both"):
            assert list(zip(one, two, strict=True)) == [(n * n, n * n) for n in range(40)]


def test_a_timeout_ends_the_tasks(tmp_path):
    with pytest.raises(multiprocessing.TimeoutError):
        run(delayed(stay)(tmp_path), delayed(stay)(tmp_path), timeout=0.5)
    assert run(delayed(square)(2)) == [4]
    harness.until(lambda: not any(map(harness.is_alive, running(tmp_path))), "the workers of the tasks to end")


def test_a_failure_ends_the_other_tasks(tmp_path):
    with pytest.raises(KeyError, match="this one"):
        run(delayed(stay)(tmp_path), delayed(raise_when_running)(tmp_path, KeyError("this one")))
    [pid] = running(tmp_path)
    harness.until(lambda: not harness.is_alive(pid), "the worker of the other task to end")


RECURSION = """
    import sys, threading
    import numpy as np
    from joblib import Parallel, delayed
    import arenite.joblib

    deepest = 0

    def items():
        global deepest
        for n in range(400):
            frame, depth = sys._getframe(), 0
            while frame:
                depth, frame = depth + 1, frame.f_back
            deepest = max(deepest, depth)
            yield np.full(3000, n)

    def trace(*_):
        for _ in range(40):
            pass
        return trace

    if __name__ == "__main__":
        threading.settrace(trace)
        size = sys.argv[2]
        call = delayed(np.sum)
        parallel = Parallel(n_jobs=2, backend=sys.argv[1], batch_size=size if size == "auto" else int(size))
        print(parallel(call(item) for item in items()) == [3000 * n for n in range(400)], deepest < 40)
"""


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_calls_that_end_at_once_do_not_nest(batch_size):
    """As with loky. A tracing function, as of a debugger, makes the program slower than its workers."""
    ours, theirs = (harness.script(RECURSION, which, batch_size) for which in ("arenite", "loky"))
    assert ours.ok().out == theirs.out == "True True\n"


def test_ctrl_c_ends_the_tasks():
    code = """
        import os, sys, time
        from joblib import Parallel, delayed
        import arenite.joblib
        def stay():
            print("runs", flush=True)
            while True: time.sleep(60)
        try:
            Parallel(n_jobs=2, backend="arenite")(delayed(stay)() for _ in range(9))
        except KeyboardInterrupt:
            print(Parallel(n_jobs=2, backend="arenite")(delayed(abs)(-n) for n in range(3)))
    """
    import signal

    program = harness.Script(code)
    assert [program.line(), program.line()] == ["runs", "runs"]
    program.signal(signal.SIGINT, group=True)
    ran = program.finish().ok()
    assert ran.out == "[0, 1, 2]\n"


def inner(n):
    pids = Parallel(n_jobs=2)(delayed(os.getpid)() for _ in range(2))
    return n, set(pids) == {os.getpid()}


def inner_arenite(_):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pids = Parallel(n_jobs=2, backend="arenite")(delayed(os.getpid)() for _ in range(2))
    return set(pids) == {os.getpid()}, [str(one.message) for one in caught]


def test_nested_calls():
    """Inside a task, calls run in threads, and calls that ask for this backend one after the other."""
    assert run(*(delayed(inner)(n) for n in range(3))) == [(n, True) for n in range(3)]
    [(is_here, said)] = run(delayed(inner_arenite)(0))
    assert is_here and "starts no workers" in said[0]


def test_below_threads():
    """loky starts no processes there."""

    def call(n):
        return Parallel(n_jobs=2, backend="arenite")(delayed(os.getpid)() for _ in range(2))

    with harness.waiting("calls from threads"):
        found = Parallel(n_jobs=2, backend="threading")(delayed(call)(n) for n in range(3))
    assert os.getpid() not in {pid for pids in found for pid in pids}


def test_in_a_daemonic_process():
    code = """
        import multiprocessing as mp
        from joblib import Parallel, delayed
        import arenite.joblib
        def child():
            print(Parallel(n_jobs=2, backend="arenite")(delayed(abs)(-n) for n in range(3)), flush=True)
            arenite.joblib.shutdown()
        if __name__ == "__main__":
            process = mp.get_context("spawn").Process(target=child, daemon=True)
            process.start()
            process.join()
    """
    assert harness.script(code).ok().out == "[0, 1, 2]\n"


def test_after_fork():
    code = """
        import os
        from joblib import Parallel, delayed
        import arenite.joblib
        work = lambda: print(Parallel(n_jobs=2, backend="arenite")(delayed(abs)(-n) for n in range(3)), flush=True)
        work()
        if (pid := os.fork()) == 0:
            work()
            arenite.joblib.shutdown()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        work()
    """
    assert harness.script(code).ok().out == "[0, 1, 2]\n" * 3


def variables(*names):
    return [os.environ.get(name) for name in names]


def test_inner_max_num_threads():
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    with parallel_config(backend="arenite", n_jobs=2, inner_max_num_threads=3):
        assert Parallel()([delayed(variables)(*names)]) == [["3"] * 3]


def test_options_of_the_executor_and_the_tasks():
    assert run(delayed(variables)("MINE"), settings=arenite.Settings(env={"MINE": "7"})) == [["7"]]
    with pytest.raises(TypeError, match="unexpected keyword argument 'memory'"):
        run(delayed(square)(1), memory="1GiB")
    with pytest.raises(ValueError, match='errors must be "raise" or "return"'):
        run(delayed(square)(1), errors="ignore")
    with pytest.raises(ValueError, match="deadline"):
        run(delayed(square)(1), deadline=-1)
    assert run(delayed(square)(1)) == [1]


def test_prints_appear(capfd):
    run(delayed(print)("from a task"))
    backend.shutdown()
    assert "from a task" in capfd.readouterr().out.splitlines()


def test_statistics_have_the_function():
    run(delayed(square)(1), delayed(square)(2))
    assert {function.name: function.calls for function in stats().functions}["square"] == 2


# ---- workers


def test_workers_serve_the_next_call():
    run(*[delayed(os.getpid)()] * 8)
    before = workers()
    run(*[delayed(os.getpid)()] * 8)
    with Parallel(n_jobs=2, backend="arenite") as parallel:
        for n in range(3):
            assert parallel([delayed(square)(n)]) == [n * n]
    assert workers() == before
    run(delayed(square)(1), n_jobs=3)
    assert len(workers()) == 3 and not workers() & before
    harness.until(lambda: not any(map(harness.is_alive, before)), "the workers of the first calls to end")


def test_idle_workers_end():
    run(delayed(square)(1), idle_worker_timeout=0.2)
    pids = workers()
    harness.until(lambda: not any(map(harness.is_alive, pids)), "idle workers to end")
    assert run(delayed(square)(2), idle_worker_timeout=0.2) == [4]


def test_calls_of_several_threads_share_the_workers():
    found = []

    def call(sign):
        with parallel_config(backend="arenite", n_jobs=2):
            for _ in range(5):
                found.append(Parallel()(delayed(square)(sign * n) for n in range(20)))

    threads = [threading.Thread(target=call, args=(sign,)) for sign in (1, -1, 2)]
    for thread in threads:
        thread.start()
    with harness.waiting("the calls of three threads"):
        for thread in threads:
            thread.join()
    assert sorted(sum(one) for one in found) == [2470] * 10 + [9880] * 5
    assert len(workers()) == 2


# ---- deaths


def test_a_crash_costs_one_task():
    run(delayed(square)(1))
    before = workers()
    with pytest.raises(arenite.WorkerDied) as raised:
        run(*(delayed(crash if n == 3 else square)(*([] if n == 3 else [n])) for n in range(20)))
    assert raised.value.signal == 11
    assert raised.value.__notes__ == ["It ran task 3 of this call of joblib.Parallel: crash()"]
    # The same executor goes on.
    assert run(*(delayed(square)(n) for n in range(20))) == [n * n for n in range(20)]
    assert len(workers() & before) < 2 and stats().restarts >= 1


def crash_at(n, other="", *, third=None):
    if n == 50:
        crash()
    return n


def crash_if(n, bad):
    if n == bad:
        crash()
    return n


def test_errors_in_the_place_of_results():
    """One of a hundred tasks crashes: 99 results and one error."""
    results = run(*(delayed(crash_at)(n, "x" * 100, third=n) for n in range(100)), errors="return")
    assert [n for n in range(100) if results[n] != n] == [50]
    assert isinstance(results[50], arenite.WorkerDied)
    [note] = results[50].__notes__
    assert note.startswith("It ran task 50 of this call of joblib.Parallel: crash_at(50, 'xxx") and len(note) < 150
    assert note.endswith(", third=50)")
    results = run(*(delayed(divmod)(1, n) for n in range(3)), errors="return")
    assert isinstance(results[0], ZeroDivisionError) and results[1:] == [(1, 0), (0, 1)]


def test_errors_in_the_place_of_results_of_a_generator():
    results = run(*(delayed(crash_at)(n) for n in range(48, 54)), errors="return", return_as="generator")
    with harness.waiting("all results"):
        assert [type(result) for result in results] == [int, int, arenite.WorkerDied, int, int, int]


def test_the_note_of_a_batch():
    results = run(*(delayed(crash_at)(n) for n in range(45, 55)), errors="return", batch_size=5, pre_dispatch="all")
    assert results[:5] == [45, 46, 47, 48, 49]
    assert len({id(result) for result in results[5:]}) == 1
    assert "tasks 5 to 9, which were one batch; the first is" in results[5].__notes__[0]


def test_a_crash_among_quick_tasks_costs_one(monkeypatch):
    """joblib hands quick tasks over in batches; each is a task of its own."""
    sizes = []
    submit = backend.AreniteBackend.submit

    def counted(self, func, callback=None):
        sizes.append(len(func.items))
        return submit(self, func, callback)

    monkeypatch.setattr(backend.AreniteBackend, "submit", counted)
    for return_as in ("list", "generator"):
        sizes.clear()
        results = run(*(delayed(crash_if)(n, 3777) for n in range(5000)), errors="return", return_as=return_as)
        with harness.waiting("all results"):
            results = list(results)
        died = results[3777]
        assert isinstance(died, arenite.WorkerDied) and results[:3777] == list(range(3777))
        assert results[3778:] == list(range(3778, 5000))
        assert died.__notes__ == ["It ran task 3777 of this call of joblib.Parallel: crash_if(3777, 3777)"]
        assert sum(sizes) == 5000 and len(sizes) < 1000
    with pytest.raises(arenite.WorkerDied) as raised:
        run(*(delayed(crash_if)(n, 1777) for n in range(2000)))
    assert "task 1777 of" in raised.value.__notes__[0]
    # Each task has its own timeout.
    sizes.clear()
    assert run(*(delayed(square)(n) for n in range(100)), timeout=60) == [n * n for n in range(100)]
    assert set(sizes) == {1}


def test_deadline_and_memory_limit():
    results = run(delayed(stay)(), delayed(square)(2), errors="return", deadline=2)
    assert isinstance(results[0], arenite.DeadlineExceeded) and results[1] == 4
    results = run(delayed(bytearray)(1 << 30), delayed(square)(2), errors="return", memory_limit="512MiB")
    assert isinstance(results[0], arenite.MemoryLimitExceeded) and results[1] == 4
    with pytest.raises(arenite.DeadlineExceeded) as raised:
        run(delayed(stay)(), deadline=0.3)
    assert raised.value.__notes__ == ["It ran task 0 of this call of joblib.Parallel: stay()"]


def crash_once(path):
    try:
        os.mkdir(path)
    except FileExistsError:
        return "again"
    crash()


def test_retries(tmp_path):
    assert run(delayed(crash_once)(tmp_path / "first"), retries=1) == ["again"]


# ---- arrays


def files():
    """What joblib, or anything else, has put where arrays are put."""
    return {*os.listdir("/dev/shm"), *glob.glob(f"{tempfile.gettempdir()}/joblib*")}


def total(array, *_):
    return float(array.sum()), files()


def test_an_array_is_shared_once():
    before = files()
    array = np.arange(LARGE, dtype=float)
    call = [delayed(total)(array, n) for n in range(200)]
    run(delayed(square)(1))
    copied = stats().bytes_copied
    results = run(*call)
    assert {result for result, _ in results} == {array.sum()}
    assert stats().bytes_copied == copied + array.nbytes
    assert all(found <= before for _, found in results)
    # Freed after the call.
    harness.until(lambda: stats().used_bytes < array.nbytes, "the memory of the array to be free")


def test_an_array_is_freed_after_an_aborted_call():
    array = np.ones(LARGE)
    with pytest.raises(arenite.WorkerDied):
        run(delayed(total)(array), delayed(crash)(), delayed(total)(array))
    harness.until(lambda: stats().used_bytes < array.nbytes, "the memory of the array to be free")


def test_an_array_that_changes_between_calls():
    array = np.zeros(LARGE)
    with Parallel(n_jobs=2, backend="arenite") as parallel:
        for n in range(3):
            array += 1
            with harness.waiting("a call"):
                assert {sum_ for sum_, _ in parallel(delayed(total)(array) for _ in range(5))} == {(n + 1) * LARGE}
    array += 1
    assert run(delayed(total)(array))[0][0] == 4 * LARGE


def sizes_of(how):
    """Yields calls of a function that refers to what grows meanwhile."""
    state, count = [], 0
    counts = {}

    def closure(number):
        return len(state)

    def cell(number):
        return count

    def default(number, state=state):
        return len(state)

    functions = {"closure": closure, "cell": cell, "default": default, "method": counts.get}
    for number in range(8):
        state.append(number)
        counts[number] = count = number + 1
        yield delayed(functions[how])(number)


@pytest.mark.parametrize("how", ["closure", "cell", "default", "method"])
def test_what_a_function_refers_to_changes_between_calls(how):
    """The number of a call is at most what its function has got before: as with loky."""
    with harness.waiting("a call"):
        sizes = Parallel(n_jobs=2, backend="arenite", pre_dispatch=2)(sizes_of(how))
    assert all(size > number for number, size in enumerate(sizes)), sizes


def test_a_global_of_the_program_changes_between_calls():
    source = """
        import arenite.joblib
        from joblib import Parallel, delayed

        STATE = []

        def size(number):
            return len(STATE)

        def calls():
            for number in range(8):
                STATE.append(number)
                yield delayed(size)(number)

        sizes = Parallel(n_jobs=2, backend="arenite", pre_dispatch=2)(calls())
        print([size > number for number, size in enumerate(sizes)] == [True] * 8, sizes)
    """
    assert harness.script(source).ok().out.startswith("True")


def test_a_function_that_refers_to_nothing_that_changes_is_pickled_once(monkeypatch):
    made, pickle_function = [], backend.pickling.pickle_function
    monkeypatch.setattr(backend.pickling, "pickle_function", lambda *given: made.append(1) or pickle_function(*given))
    offset = 3
    assert run(*(delayed(lambda n: n + offset)(n) for n in [1])) == [4]
    made.clear()
    add = lambda n: n + offset  # noqa: E731
    assert run(*(delayed(add)(n) for n in range(20)), batch_size=1) == list(range(3, 23))
    assert len(made) == 1


def test_arrays_at_one_address():
    """An array that is made for each task may lie where the one before it lay. None is held."""
    freed = []

    def tasks():
        for n in range(30):
            array = np.full(LARGE, n, float)
            weakref.finalize(array, freed.append, n)
            yield delayed(total)(array)

    with harness.waiting("a call"):
        results = Parallel(n_jobs=2, backend="arenite", pre_dispatch=2, return_as="generator")(tasks())
        assert [sum_ / LARGE for sum_, _ in results] == list(range(30))
    assert len(freed) >= 28
    harness.until(lambda: stats().used_bytes < LARGE * 8, "the memory of the arrays to be free")


def test_an_array_whose_shape_is_changed():
    array = np.arange(LARGE, dtype=float)
    arrays = backend.Arrays()
    arrays.add(array, "sent")
    assert arrays.find(array) == "sent"
    array.shape = (2, -1)
    assert arrays.find(array) is None
    assert arrays.find(array.copy()) is None
    del array
    assert not arrays._known


def describe(array):
    try:
        array[...] = 0
    except ValueError:
        return array.shape, array.dtype.str, "read-only"
    return array.shape, array.dtype.str, "writable"


def test_who_may_write():
    """As with loky: tasks may write to small arrays, which are theirs, and not to large ones, which are shared."""
    small, tiny, large = np.ones(1000), np.ones((2, 3), "f4", order="F"), np.ones((LARGE, 1), ">f8")
    arrays = [small, tiny, large, large[:5], np.asfortranarray(np.ones((100, 50))), np.matrix(np.ones((9, 900)))]
    found = run(*(delayed(describe)(array) for array in arrays))
    assert [(shape, dtype) for shape, dtype, _ in found] == [(array.shape, array.dtype.str) for array in arrays]
    assert [mode for *_, mode in found] == ["writable", "writable", "read-only", "writable", "writable", "writable"]
    assert all(array.all() for array in arrays)
    # Private copies of large ones.
    for options in ({"mmap_mode": "c"}, {"max_nbytes": None}, {"mmap_mode": None}, {"max_nbytes": "1G"}):
        found = run(delayed(describe)(large), delayed(describe)(large), **options)
        assert [mode for *_, mode in found] == ["writable"] * 2
    assert large.all()
    small.flags.writeable = False
    assert run(delayed(describe)(small))[0][2] == "read-only"


def make(size):
    return np.ones(size), arenite.empty(size)


@pytest.mark.parametrize("size", [10, 1000, LARGE])
def test_results_are_writable(size):
    [arrays] = run(delayed(make)(size))
    backend.shutdown()
    for array in arrays:
        array[...] = 2
        assert array.sum() == 2 * size


def layout(array, expected):
    return array.strides, bool((array == np.arange(array.size).reshape(array.shape)).all()), type(array).__name__


def test_layouts():
    values = np.arange(LARGE, dtype=float)
    grid = values.reshape(300, -1)
    fortran = np.asfortranarray(grid)
    [[c, *c_right], [f, *f_right]] = run(delayed(layout)(grid, 0), delayed(layout)(fortran, 0))
    assert (c, f) == (grid.strides, fortran.strides) and c_right == f_right == [True, "ndarray"]
    step = np.repeat(values, 2)[::2]
    assert run(delayed(layout)(step, 0), delayed(layout)(step, 0))[1][1]


def test_an_array_inside_of_a_function():
    """What a lambda refers to is shared as an argument is."""
    array = np.ones(LARGE)
    run(delayed(square)(1))
    copied = stats().bytes_copied
    assert run(*(delayed(lambda n: float(array.sum()) + n)(n) for n in range(5))) == [LARGE + n for n in range(5)]
    one = delayed(lambda n: float(array.sum()) + n)
    before = stats().bytes_copied
    assert before - copied < 1.1 * array.nbytes
    assert run(*(one(n) for n in range(50))) == [LARGE + n for n in range(50)]
    assert stats().bytes_copied - before < 1.1 * array.nbytes


def test_data_frames_and_sparse_matrices_are_shared_once():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": np.arange(LARGE, dtype=float), "b": np.ones(LARGE)})
    run(delayed(square)(1))
    before = stats().bytes_copied
    assert run(*[delayed(sum_frame)(frame)] * 20) == [frame.to_numpy().sum()] * 20
    assert stats().bytes_copied - before < 1.1 * frame.to_numpy().nbytes
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(np.ones((400, 1000)))
    before = stats().bytes_copied
    assert run(*[delayed(sum_sparse)(sparse)] * 20) == [400_000.0] * 20
    assert stats().bytes_copied - before < 2 * (sparse.data.nbytes + sparse.indices.nbytes)


def sum_frame(frame):
    return float(frame.to_numpy().sum())


def sum_sparse(matrix):
    return float(matrix.sum())


def where(array):
    return float(array.sum()), getattr(array, "mode", None), type(array).__name__


def fill(array, n):
    array[n] = n
    array.flush()


def test_arrays_in_files_are_mapped(tmp_path):
    """`numpy.memmap`, and views of one, are opened by the task, not copied."""
    path = tmp_path / "numbers"
    written = np.memmap(path, float, "w+", shape=(LARGE,))
    run(*(delayed(fill)(written, n) for n in range(5)))
    assert written[:5].tolist() == [0, 1, 2, 3, 4]
    del written
    mapped = np.memmap(path, float, "r")
    before = stats().bytes_copied
    assert run(delayed(where)(mapped)) == [(10.0, "r", "memmap")]
    views = [mapped[2:], mapped[4:0:-1], mapped.reshape(2, -1)[:1, ::2], np.asarray(mapped)[1:]]
    assert [sum_ for sum_, *_ in run(*map(delayed(where), views))] == [9.0, 10.0, 6.0, 10.0]
    assert stats().bytes_copied == before
    # Where there is no file any more, or it cannot be opened, the memory is copied.
    assert run(delayed(lambda array: float(array.sum()))(mapped), sandbox=True) == [10.0]
    path.unlink()
    assert run(delayed(where)(mapped))[0][0] == 10.0


def test_an_arena_that_is_too_small():
    with pytest.raises(arenite.ArenaFull) as raised:
        run(delayed(total)(np.ones(4 * LARGE)), capacity="8MiB")
    assert raised.value.requested >= 4 * LARGE * 8 or raised.value.capacity


# ---- scikit-learn


@pytest.fixture(scope="module")
def sklearn():
    return pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def digits(sklearn):
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def with_loky(call):
    """The result of a call with loky, without its workers."""
    from joblib.externals.loky import get_reusable_executor

    with parallel_config(backend="loky", n_jobs=2), harness.waiting("a call with loky"):
        result = call()
    get_reusable_executor().shutdown(wait=True)
    return result


def with_arenite(call, **options):
    with parallel_config(backend="arenite", n_jobs=2, **options), harness.waiting("a call of scikit-learn"):
        return call()


@pytest.mark.leaves("resource tracker of loky")
def test_grid_search_equals_loky(digits):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def search():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=30))
        grid = {"logisticregression__C": [0.01, 0.1, 1.0]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return GridSearchCV(model, grid, cv=3, n_jobs=2, return_train_score=True).fit(*digits)

    ours, theirs = with_arenite(search), with_loky(search)
    assert ours.best_params_ == theirs.best_params_
    for name, values in theirs.cv_results_.items():
        if "time" not in name:
            np.testing.assert_array_equal(ours.cv_results_[name], values, err_msg=name)
    np.testing.assert_array_equal(ours.predict(digits[0]), theirs.predict(digits[0]))


@pytest.mark.leaves("resource tracker of loky")
def test_cross_val_score_equals_loky(digits):
    from sklearn.model_selection import cross_val_score
    from sklearn.naive_bayes import GaussianNB

    def score():
        return cross_val_score(GaussianNB(), *digits, cv=5, n_jobs=2)

    np.testing.assert_array_equal(with_arenite(score), with_loky(score))


@pytest.mark.leaves("resource tracker of loky")
def test_a_forest_equals_loky(digits):
    from sklearn.ensemble import RandomForestClassifier

    def fit():
        return RandomForestClassifier(20, random_state=0, n_jobs=2).fit(*digits)

    ours, theirs = with_arenite(fit), with_loky(fit)
    np.testing.assert_array_equal(ours.predict_proba(digits[0]), theirs.predict_proba(digits[0]))
    np.testing.assert_array_equal(with_arenite(lambda: ours.predict(digits[0])), theirs.predict(digits[0]))
    # The trees are ours: they can be changed.
    ours.estimators_[0].tree_.value[...] = 0


def test_a_large_table_is_shared_once_by_a_search(sklearn):
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB

    X = np.random.default_rng(0).normal(size=(20_000, 20))
    y = X[:, 0] > 0
    run(delayed(square)(1))
    before = stats().bytes_copied
    grid = {"var_smoothing": np.logspace(-9, -1, 10)}
    with_arenite(lambda: GridSearchCV(GaussianNB(), grid, cv=3, n_jobs=2).fit(X, y))
    small = 30 * (20_000 * 8 + 2 * 20_000)
    assert X.nbytes <= stats().bytes_copied - before <= 2 * X.nbytes + small


class Crashing:
    """A transformer that crashes for one value of its parameter."""

    def __init__(self, level=0):
        self.level = level

    def get_params(self, deep=True):
        return {"level": self.level}

    def set_params(self, level):
        self.level = level
        return self

    def fit(self, X, y=None):
        return self

    def fit_transform(self, X, y=None):
        return self.transform(X)

    def transform(self, X):
        if self.level == 3:
            crash()
        return X


def test_a_crash_inside_of_a_transformer(digits):
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import Pipeline

    def search(levels):
        model = Pipeline([("crashing", Crashing()), ("model", GaussianNB())])
        return GridSearchCV(model, {"crashing__level": levels}, cv=3, n_jobs=2, refit=False).fit(*digits)

    with pytest.raises(arenite.WorkerDied) as raised:
        with_arenite(lambda: search([1, 2, 3]))
    assert raised.value.signal == 11
    [note] = raised.value.__notes__
    assert "_fit_and_score(Pipeline(" in note
    assert len(with_arenite(lambda: search([1, 2])).cv_results_["params"]) == 2


@pytest.mark.leaves("sockets of the notebook's client")
def test_a_notebook(tmp_path):
    """Functions of cells, prints, and a crash, in a kernel."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    before = set(harness.children())
    cells = [
        "import arenite.joblib, os\nfrom joblib import Parallel, delayed, parallel_config\n"
        "def work(n):\n    if n < 0: os.abort()\n    return n + one\none = 1",
        "parallel = Parallel(n_jobs=2, backend='arenite')\nparallel(delayed(work)(n) for n in range(3))",
        "try:\n    parallel(delayed(work)(n) for n in (1, -1))\n"
        "except arenite.WorkerDied as died:\n    print(died.__notes__)",
        "parallel(delayed(work)(n) for n in range(3))",
        "arenite.joblib.shutdown()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in cells])
    with harness.waiting("a notebook"):
        nbclient.NotebookClient(notebook, timeout=60).execute(cwd=str(tmp_path))
    outputs = [cell.outputs for cell in notebook.cells]
    assert outputs[1][0]["data"]["text/plain"] == outputs[3][0]["data"]["text/plain"] == "[1, 2, 3]"
    assert "work(-1)" in "".join(output.get("text", "") for output in outputs[2])
    harness.until(lambda: set(harness.children()) <= before, "the kernel and its workers to end")


def test_arrays_are_free_when_the_tasks_that_take_them_have_ended():
    """Together they take more than the arena has, while the program keeps all of them."""
    arrays = [np.full(1_000_000, n, float) for n in range(60)]
    shared = np.ones(1_000_000)
    parallel = Parallel(n_jobs=2, backend="arenite", capacity="160MiB")
    with harness.waiting("sixty tasks"):
        results = parallel(delayed(np.dot)(array, shared) for array in arrays)
    assert results == [n * 1e6 for n in range(60)]


def test_a_batch_has_as_many_values_as_calls():
    """Values behind one too many would be those of other calls."""
    import in_sandbox
    from arenite._core import plain

    data, *_ = plain.dump(range(10**7), None)
    with parallel_config(backend="arenite", n_jobs=2, sandbox=True, preload=["in_sandbox"]):
        with pytest.raises(arenite.RemoteError, match="another number of values"):
            Parallel(batch_size=3)(delayed(in_sandbox.raw_reply)(data) for _ in range(3))
