"""Bad input: an error at once that says what to do, and everything else goes on."""

import os
import threading

import arenite
import harness
import pytest

np = pytest.importorskip("numpy")

MISSING = "/nonexistent"
PYTHONS = {"missing": f"{MISSING}/python", "other": "/bin/true"}


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(1, capacity="64MiB") as executor:
        yield executor


def share_of(most):
    return {"settings": arenite.Settings(max_arena_per_worker=most)}


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"memory_limit": "1 gigabyte"}, ValueError, "memory_limit must be .*'512MiB'.*not '1 gigabyte'"),
        ({"memory_limit": -1}, ValueError, "memory_limit must be a positive number of bytes, not -1"),
        ({"memory_limit": 0}, ValueError, "memory_limit must be a positive number"),
        ({"memory_limit": "100KB"}, ValueError, "memory_limit must be at least 16777216 bytes, not 100000"),
        ({"memory_limit": 1.5}, ValueError, "memory_limit must be a positive number"),
        ({"memory_limit": True}, ValueError, "memory_limit must be a positive number"),
        ({"capacity": "lots"}, ValueError, "capacity must be .*'512MiB'"),
        (share_of(100), ValueError, "max_arena_per_worker must be at least 65536 bytes, not 100"),
        (share_of(1.5), ValueError, "max_arena_per_worker must be a size, or a fraction .*not 1.5"),
        (share_of(1e-12), ValueError, "max_arena_per_worker cannot be 0.000000000001 of"),
        ({"settings": arenite.Settings(recycle_above="")}, ValueError, "recycle_above must be"),
        ({"max_workers": "2"}, TypeError, "max_workers must be a whole number, not '2'"),
        ({"max_workers": 2.0}, TypeError, "max_workers must be a whole number, not 2.0"),
        ({"max_workers": -1}, ValueError, "max_workers must be at least 0"),
        ({"lanes": 0}, ValueError, "lanes must be at least 1"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be at least 1"),
        ({"writable": "yes"}, ValueError, "writable must be None, \"copy\""),
        ({"output": "red"}, ValueError, "output must be \"labelled\""),
        ({"initializer": 3}, TypeError, "initializer must be a callable"),
        ({"worker": 2}, TypeError, "unexpected keyword argument 'worker'"),
    ],
    ids=str,
)
def test_options_of_executors(options, error, words):
    with pytest.raises(error, match=words):
        arenite.Executor(**{"max_workers": 1, **options})


@pytest.mark.parametrize(
    "options, words",
    [
        ({"max_workers": 100_000}, "100000 workers are too many; the limit is"),
        ({"capacity": "1000TiB"}, "more than the memory of this machine.* lower the capacity"),
        ({"preload": ["no_such_module"]}, "No module named 'no_such_module'"),
        ({"settings": arenite.Settings(env={"A=B": "1"})}, "no name for an environment variable"),
        ({"settings": arenite.Settings(trace=f"{MISSING}/trace.json")}, f"{MISSING}/trace.json.*No such file"),
        ({"settings": arenite.Settings(report=f"{MISSING}/report.html")}, f"{MISSING}/report.html.*No such file"),
        ({"settings": arenite.Settings(python=PYTHONS["missing"])}, f"{PYTHONS['missing']}.*No such file"),
        ({"settings": arenite.Settings(python=PYTHONS["other"])}, "exited with code 0"),
    ],
    ids=str,
)
def test_what_no_worker_can_start_with(options, words):
    """The constructor may return before it is known: then it is the error of the first task."""
    with pytest.raises((OSError, arenite.StartFailed), match=words):
        with arenite.Executor(**{"max_workers": 1, "output": None, **options}) as executor:
            with harness.waiting("a task without workers to fail"):
                executor.submit(abs, -1).result()


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"deadline": -1}, ValueError, "deadline must be a number of seconds from 0 on, not -1"),
        ({"deadline": float("nan")}, ValueError, "deadline must be a number of seconds"),
        ({"deadline": "2"}, TypeError, "must be real number, not str"),
        ({"retries": -1}, ValueError, "retries must be at least 0, not -1"),
        ({"retries": 1.5}, TypeError, "retries must be a whole number, not 1.5"),
        ({"backoff": (1, -1)}, ValueError, "backoff must be a number of seconds"),
        ({"timeout": 3}, TypeError, "unexpected keyword argument 'timeout'"),
    ],
    ids=str,
)
def test_options_of_tasks(executor, options, error, words):
    with pytest.raises(error, match=words):
        executor.options(**options)
    assert executor.submit(abs, -1).result() == 1


def test_mut(executor):
    out = executor.zeros((10, 10))
    for value, error, words in [
        ([1], TypeError, "takes an array, not list"),
        (np.array([None]), TypeError, "objects cannot be in shared memory"),
        (np.lib.stride_tricks.sliding_window_view(out[0], 2, writeable=True), ValueError, "memory of their own"),
        (executor.share(np.ones(3)), ValueError, "read-only"),
    ]:
        with pytest.raises(error, match=words):
            arenite.mut(value)
    with pytest.raises(ValueError, match="make it with ex.empty"):
        executor.submit(max, arenite.mut(np.ones(3))).result()
    with pytest.raises(ValueError, match="overlapping"):
        executor.submit(max, arenite.mut(out[0:3]), arenite.mut(out[2:4]))
    with pytest.raises(ValueError, match="cannot be retried"):
        executor.options(retries=1).submit(len, arenite.mut(out[0]))
    assert executor.submit(len, arenite.mut(out[0])).result() == 10


def test_a_slice_that_another_task_has(executor, tmp_path):
    out = executor.zeros((10, 10))
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    busy = executor.submit(lambda rows, gate: open(gate).read(), arenite.mut(out[0:3]), gate)
    try:
        with pytest.raises(ValueError, match="lent to another task.* wait for it, or pass slices that do not overlap"):
            executor.submit(len, arenite.mut(out[2:4]))
    finally:
        with harness.waiting("the task to read"):
            gate.write_text("go")
            assert busy.result() == "go"
    assert executor.submit(len, arenite.mut(out[2:4])).result() == 2


@pytest.mark.parametrize("how", ["share", "empty", "argument", "result", "map"])
def test_more_than_the_arena_has(executor, how):
    """The error has the numbers, as text and as attributes."""
    size = 100_000_000
    big = np.zeros(size if how in ("share", "argument", "map") else 0, np.uint8)
    uses = {
        "share": lambda: executor.share(big),
        "empty": lambda: executor.empty(size, np.uint8),
        "argument": lambda: executor.submit(len, big).result(),
        "result": lambda: executor.submit(lambda: __import__("numpy").zeros(size, "u1")).result(),
        "map": lambda: list(executor.map(len, [big])),
    }
    with pytest.raises(arenite.ArenaFull, match="requested 100000000.*capacity 67108864.*raise the capacity") as full:
        uses[how]()
    assert isinstance(full.value, MemoryError)
    assert (full.value.requested, full.value.capacity) == (size, 64 << 20)
    assert 0 < full.value.free <= 64 << 20
    assert executor.submit(abs, -1).result() == 1


@pytest.mark.parametrize("most", [0.25, "16MiB", 16 << 20])
def test_a_share_of_the_arena(most):
    with arenite.Executor(2, capacity="64MiB", settings=arenite.Settings(max_arena_per_worker=most)) as executor:
        with pytest.raises(arenite.ArenaFull, match="raise max_arena_per_worker") as full:
            executor.submit(np.zeros, 20 << 20, "u1").result()
        assert (full.value.requested, full.value.worker_share) == (20 << 20, 16 << 20)
        assert executor.submit(np.zeros, 10 << 20, "u1").result().nbytes == 10 << 20


def test_shapes(executor):
    for shape, dtype, error in [(-3, float, ValueError), ("x", float, TypeError), (2**62, float, ValueError)]:
        with pytest.raises(error):
            executor.empty(shape, dtype)
    with pytest.raises(TypeError, match="it holds Python objects"):
        executor.empty(3, object)


def test_what_cannot_be_sent(executor):
    """The words name the mistake: a method of an object that holds the executor is a common one."""

    class Service:
        def __init__(self):
            self.executor = executor
            self.lock = threading.Lock()

        def work(self):
            return 1

    with pytest.raises(TypeError, match="an executor cannot be sent to a task: submit from the program"):
        executor.submit(Service().work).result()
    with pytest.raises(TypeError, match="cannot pickle '_thread.lock' object"):
        executor.share(threading.Lock())


def test_calls(executor):
    with pytest.raises(TypeError, match="'int' object is not callable"):
        executor.submit(3).result()
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        executor.submit()
    for options in [{"chunksize": 0}, {"buffersize": 0}]:
        with pytest.raises(ValueError, match="1"):
            executor.map(abs, [-1], **options)
    with pytest.raises(RuntimeError, match=r"Executor\(max_workers=0\)"):
        executor.submit(lambda: __import__("arenite").Executor(1).submit(abs, -1)).result()


def test_after_shutdown():
    executor = arenite.Executor(1)
    executor.shutdown()
    for use in [
        lambda: executor.submit(abs, -1),
        lambda: executor.map(abs, [-1]),
        lambda: executor.share(np.ones(3)),
        lambda: executor.empty(3),
    ]:
        with pytest.raises(RuntimeError, match="after shutdown"):
            use()
    executor.shutdown()
