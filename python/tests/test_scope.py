"""Scopes: all tasks have ended at the end of the block, and the first failure ends the others."""

import os
import signal
import threading
import time
from concurrent.futures import CancelledError

import arenite
import harness
import pytest


def stay():
    while True:
        time.sleep(60)


def read(path):
    with open(path) as file:
        return file.read()


def raise_(error):
    raise error


@pytest.fixture(params=[2, 0])
def executor(request):
    with arenite.Executor(request.param) as executor:
        yield executor


@pytest.fixture
def workers():
    with arenite.Executor(2) as executor:
        yield harness.all_ready(executor)


@pytest.fixture
def barrier(tmp_path):
    path = tmp_path / "barrier"
    os.mkfifo(path)
    return str(path)


def test_all_tasks_have_ended(executor):
    with executor.scope() as scope:
        futures = [scope.submit(pow, n, 2) for n in range(50)]
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [n * n for n in range(50)]
    with pytest.raises(RuntimeError, match="after the end of the scope"):
        scope.submit(abs, 1)
    with executor.scope():
        pass


def test_the_block_waits(workers, barrier):
    """The end of the block is reached only after a thread lets the task go on, which it does when the block waits."""
    order = []

    def release():
        harness.until(lambda: order == ["at the end"], "the end of the block")
        order.append("released")
        with open(barrier, "w") as file:
            file.write("x")

    thread = threading.Thread(target=release)
    thread.start()
    with harness.waiting("the scope"):
        with workers.scope() as scope:
            future = scope.submit(read, barrier)
            order.append("at the end")
        order.append("over")
    thread.join()
    assert (order, future.result()) == (["at the end", "released", "over"], "x")


def test_the_first_exception_is_raised_as_it_is(executor):
    with pytest.raises(ValueError, match="first") as caught:
        with executor.scope() as scope:
            scope.submit(abs, -1)
            scope.submit(raise_, ValueError("first"))
    if executor._workers.count:
        assert "Traceback (most recent call last)" in str(caught.value.__cause__)
    assert executor.submit(abs, -1).result() == 1


def test_a_failure_cancels_the_others(workers):
    with harness.waiting("the scope"), pytest.raises(KeyError):
        with workers.scope() as scope:
            others = [scope.submit(stay) for _ in range(1)]
            failing = scope.submit(raise_, KeyError(1))
            others += [scope.submit(stay) for _ in range(10)]
    assert all(other.cancelled() for other in others)
    assert isinstance(failing.exception(), KeyError)
    assert workers.submit(abs, -1).result() == 1


def test_a_death_cancels_the_others(workers):
    with harness.waiting("the scope"), pytest.raises(arenite.WorkerDied):
        with workers.scope() as scope:
            other = scope.submit(stay)
            scope.submit(os._exit, 1)
    assert other.cancelled()


def test_tasks_after_a_failure_are_cancelled(workers):
    """The block finds out by the cancelled result; what is raised is the failure."""
    with harness.waiting("the scope"), pytest.raises(KeyError):
        with workers.scope() as scope:
            scope.submit(raise_, KeyError(1))
            harness.until(lambda: scope.submit(abs, 1).cancelled(), "the failure to be seen")
            scope.submit(abs, 1).result()


def test_without_cancel_running_the_running_ones_end_on_their_own(barrier):
    with arenite.Executor(2, settings=arenite.Settings(cancel_running=False)) as executor:
        with harness.waiting("the scope"), pytest.raises(KeyError):
            with executor.scope() as scope:
                running = scope.submit(read, barrier)
                harness.until(running.running, "a task to run")
                failing = scope.submit(raise_, KeyError(1))
                harness.until(failing.done, "the failure")
                with open(barrier, "w") as file:
                    file.write("x")
        assert running.result() == "x"


def test_an_exception_of_the_block_cancels_all(workers):
    with harness.waiting("the scope"), pytest.raises(ZeroDivisionError):
        with workers.scope() as scope:
            futures = [scope.submit(stay) for _ in range(5)]
            harness.until(futures[0].running, "a task to run")
            1 / 0  # noqa: B018
    assert all(future.cancelled() for future in futures)


def test_a_task_that_the_block_cancels_is_no_failure(workers):
    with harness.waiting("the scope"):
        with workers.scope() as scope:
            other = scope.submit(abs, -1)
            scope.submit(stay).cancel()
    assert other.result() == 1
    with pytest.raises(CancelledError):
        with workers.scope() as scope:
            future = scope.submit(stay)
            future.cancel()
            future.result()


def test_other_tasks_of_the_executor_go_on(workers, barrier):
    outside = workers.submit(read, barrier)
    with pytest.raises(KeyError):
        with workers.scope() as scope:
            scope.submit(raise_, KeyError(1))
    with harness.waiting("the task outside"), open(barrier, "w") as file:
        file.write("x")
    assert outside.result() == "x"


@pytest.mark.parametrize("place", ["block", "end"])
@pytest.mark.parametrize("cancel_running", [True, False])
def test_ctrl_c_ends_all(place, cancel_running):
    source = """
        import sys, time, arenite
        place, cancel_running = sys.argv[1], sys.argv[2] == "True"
        def stay():
            print("begun", flush=True)
            time.sleep(3600)
        with arenite.Executor(1, output="plain", settings=arenite.Settings(cancel_running=cancel_running)) as ex:
            try:
                with ex.scope() as scope:
                    futures = [scope.submit(stay) for _ in range(3)]
                    if place == "block":
                        futures[0].result()
            except KeyboardInterrupt:
                print([future.cancelled() for future in futures], flush=True)
            print(ex.submit(abs, -1).result(), flush=True)
    """
    program = harness.Script(source, place, cancel_running)
    assert program.line() == "begun"
    program.signal(signal.SIGINT, group=True)
    end = program.finish()
    assert (end.code, end.out, end.left) == (0, "[True, True, True]\n1\n", [])
    assert end.err == "arenite: KeyboardInterrupt has ended 3 tasks that had not finished\n"
