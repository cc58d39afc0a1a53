"""Futures: what `concurrent.futures` promises of them, and what only these do."""

import asyncio
import concurrent.futures
import operator
import threading
import time

import harness
import pytest

import arenite


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(2) as ex:
        yield ex


def wait_for(path):
    """Waits in a task until the test makes this file."""
    while not path.exists():
        time.sleep(0.001)
    return path.name


def test_a_result_arms_nothing(executor):
    future = executor.submit(operator.add, 1, 2)
    assert future.result() == 3
    assert "_condition" not in vars(future)
    assert (future.done(), future.cancelled(), future.running()) == (True, False, False)
    assert future.exception() is None
    assert not future.cancel()


def test_result_waits_at_most_its_timeout(executor, tmp_path):
    gate = tmp_path / "open"
    future = executor.submit(wait_for, gate)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(timeout=0)
    harness.until(future.running, "the task to run")
    gate.touch()
    assert future.result() == "open"


def test_many_threads_get_the_same_result(executor, tmp_path):
    gate = tmp_path / "open"
    future = executor.submit(lambda: [wait_for(gate)])
    results = []
    threads = [threading.Thread(target=lambda: results.append(future.result())) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.touch()
    with harness.waiting("the threads"):
        for thread in threads:
            thread.join()
    assert len(results) == 8
    assert all(result is results[0] for result in results)


def test_callbacks_run_once(executor, tmp_path):
    gate = tmp_path / "open"
    future = executor.submit(wait_for, gate)
    called = []
    future.add_done_callback(called.append)
    gate.touch()
    harness.until(lambda: called, "the callback")
    future.add_done_callback(called.append)
    assert called == [future, future]
    assert future.result() == "open"


def test_a_callback_that_raises_stops_nothing(executor, tmp_path):
    gate = tmp_path / "open"
    future = executor.submit(wait_for, gate)
    called = threading.Event()
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: called.set())
    gate.touch()
    with harness.waiting("the second callback"):
        assert called.wait()
    assert executor.submit(operator.add, 1, 2).result() == 3


CHAIN = """
    import sys, threading
    from concurrent.futures import ProcessPoolExecutor
    import arenite

    steps, deepest, ended = 0, 0, threading.Event()

    def step(_):
        global steps, deepest
        frame, depth = sys._getframe(), 0
        while frame:
            frame, depth = frame.f_back, depth + 1
        steps, deepest = steps + 1, max(deepest, depth)
        if steps < 300:
            ex.submit(abs, -1).add_done_callback(step)
        else:
            ended.set()

    def slow(*_):
        for _ in range(50):
            pass
        return slow

    if __name__ == "__main__":
        with {"arenite": arenite.Executor, "stdlib": ProcessPoolExecutor}[sys.argv[1]](1) as ex:
            threading.settrace_all_threads(slow) if sys.version_info >= (3, 12) else threading.settrace(slow)
            step(None)
            ended.wait()
            print(steps, deepest < 50)
"""


def test_callbacks_that_submit_the_next_task_do_not_nest():
    """As in the standard library. A tracing function makes the program slower than its worker."""
    ours, theirs = (harness.script(CHAIN, which).ok().out for which in ("arenite", "stdlib"))
    assert ours == theirs == "300 True\n"


def test_wait_and_as_completed(executor, tmp_path):
    gate = tmp_path / "open"
    slow = executor.submit(wait_for, gate)
    quick = executor.submit(operator.add, 1, 1)
    done, left = concurrent.futures.wait([slow, quick], return_when=concurrent.futures.FIRST_COMPLETED)
    assert (done, left) == ({quick}, {slow})
    broken = executor.submit(operator.truediv, 1, 0)
    done, left = concurrent.futures.wait([slow, broken], return_when=concurrent.futures.FIRST_EXCEPTION)
    assert (done, left) == ({broken}, {slow})
    gate.touch()
    assert {future for future in concurrent.futures.as_completed([slow, quick, broken])} == {slow, quick, broken}


def test_a_task_that_has_not_begun_never_does(tmp_path):
    gate, begun = tmp_path / "open", tmp_path / "begun"
    with arenite.Executor(1) as ex:
        first = ex.submit(wait_for, gate)
        harness.until(first.running, "the first task to run")
        waiting = ex.submit(begun.touch)
        assert waiting.cancel()
        assert waiting.cancelled() and waiting.done()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result()
        gate.touch()
        assert first.result() == "open"
    assert not begun.exists()


def test_cancel_ends_a_running_task(tmp_path):
    with arenite.Executor(1) as ex:
        future = ex.submit(wait_for, tmp_path / "never")
        harness.until(future.running, "the task to run")
        assert future.cancel()
        assert future.cancelled()
        with pytest.raises(arenite.Cancelled):
            future.result()
        assert ex.submit(operator.add, 1, 2).result() == 3
        assert ex.stats().restarts == 1


def test_cancel_can_leave_running_tasks(tmp_path):
    gate = tmp_path / "open"
    with arenite.Executor(1, settings=arenite.Settings(cancel_running=False)) as ex:
        future = ex.submit(wait_for, gate)
        harness.until(future.running, "the task to run")
        assert not future.cancel()
        gate.touch()
        assert future.result() == "open"


def test_a_future_that_is_dropped_runs(tmp_path):
    done = tmp_path / "done"
    with arenite.Executor(1) as ex:
        ex.submit(done.touch)
    assert done.exists()


def test_results_outlive_their_executor():
    with arenite.Executor(1) as ex:
        future = ex.submit(list, "abc")
    assert future.result() == ["a", "b", "c"]


def test_asyncio(executor):
    async def main():
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, operator.mul, n, n) for n in range(5)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_waiting_does_not_hold_the_interpreter(executor, tmp_path):
    gate = tmp_path / "open"
    future = executor.submit(wait_for, gate)
    waiter = threading.Thread(target=future.result)
    waiter.start()
    # This thread goes on, and lets the other one end.
    gate.touch()
    with harness.waiting("the other thread"):
        waiter.join()
