"""What CPython's tests check that cannot apply as they are, in terms of `arenite.Executor`."""

import gc
import multiprocessing
import operator
import os
import pickle
import signal
import time
import weakref

import arenite
import harness
import pytest


def stay():
    while True:
        time.sleep(60)


def report_and_stay(path):
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    stay()


def fail_at_start():
    raise ValueError("error in initializer")


class FailsToPickle:
    def __reduce__(self):
        raise pickle.PicklingError("Error in pickle")


def workers(executor, count):
    """The processes of all workers."""
    found = set()
    with harness.waiting(f"{count} workers to answer"):
        while len(found) < count:
            found |= {future.result() for future in [executor.submit(os.getpid) for _ in range(2 * count)]}
    return found


def gone(processes):
    harness.until(lambda: not any(map(harness.is_alive, processes)), "the workers to end")


def test_failing_initializer():
    """FailingInitializer.test_initializer: each task gets the error, and the output of the worker shows it."""
    executor = arenite.Executor(2, initializer=fail_at_start)
    try:
        for _ in range(2):
            with pytest.raises(Exception, match="error in initializer"):
                executor.submit(os.getpid).result()
    finally:
        executor.shutdown()


def test_processes_terminate():
    executor = arenite.Executor(3)
    processes = workers(executor, 3)
    executor.shutdown()
    gone(processes)


def test_context_manager_shutdown():
    with arenite.Executor(max_workers=2) as executor:
        processes = workers(executor, 2)
        assert list(executor.map(abs, range(-5, 5))) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    gone(processes)


def test_del_shutdown():
    executor = arenite.Executor(max_workers=2)
    processes = workers(executor, 2)
    results = executor.map(abs, range(-5, 5))
    del executor
    gc.collect()
    # The results that were asked for are still computed.
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    del results
    gc.collect()
    gone(processes)


def test_shutdown_no_wait():
    executor = arenite.Executor(max_workers=2)
    processes = workers(executor, 2)
    results = executor.map(abs, range(-5, 5))
    executor.shutdown(wait=False)
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    gone(processes)


def test_max_workers_negative():
    with pytest.raises(ValueError, match="max_workers"):
        arenite.Executor(max_workers=-1)
    with arenite.Executor(max_workers=0) as executor:
        assert executor.submit(os.getpid).result() == os.getpid()


def test_killed_child(tmp_path):
    path = str(tmp_path / "pid")
    with arenite.Executor(max_workers=2) as executor:
        future = executor.submit(report_and_stay, path)
        process = harness.until(lambda: os.path.exists(path) and int(open(path).read()), "the task to begin")
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGKILL)
        assert isinstance(future.exception(), arenite.WorkerDied)
        assert executor.submit(pow, 2, 8).result() == 256


def test_saturation():
    with arenite.Executor(max_workers=4) as executor:
        futures = [executor.submit(operator.index, number) for number in range(60)]
        assert [future.result() for future in futures] == list(range(60))


def test_max_tasks_per_child():
    with arenite.Executor(1, max_tasks_per_child=3) as executor:
        first = [executor.submit(os.getpid).result() for _ in range(3)]
        assert len(set(first)) == 1
        assert executor.submit(os.getpid).result() not in first
        gone(set(first))


def test_shutdown_without_waiting_beside_a_task_that_cannot_be_pickled():
    """ExecutorDeadlock.test_shutdown_deadlock_pickle."""
    executor = arenite.Executor(max_workers=2)
    executor.submit(id, 42).result()
    future = executor.submit(id, FailsToPickle())
    executor.shutdown(wait=False)
    with pytest.raises(pickle.PicklingError):
        future.result()


def test_proxies_of_a_manager():
    """Tasks use the queues and events of a `multiprocessing.Manager`, as with `ProcessPoolExecutor`."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        queue = manager.Queue()
        with arenite.Executor(max_workers=2) as executor:
            list(executor.map(queue.put, range(3)))
        assert sorted(queue.get() for _ in range(3)) == [0, 1, 2]


def test_futures_can_be_referred_to_weakly_and_go():
    with arenite.Executor(max_workers=1) as executor:
        future = executor.submit(abs, -1)
        assert future.result() == 1
        reference = weakref.ref(future)
        del future
        gc.collect()
        assert reference() is None
