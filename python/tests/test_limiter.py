"""Limiters: how many tasks run at a time, and how many start per second."""

import contextlib
import os
import time

import arenite
import harness
import pytest


def count_running(folder):
    """Enters the folder, and returns how many were there."""
    name = os.path.join(folder, str(os.getpid()))
    open(name, "w").close()
    try:
        seen = len(os.listdir(folder))
        time.sleep(0.002)
        return max(seen, len(os.listdir(folder)))
    finally:
        os.unlink(name)


def read(path):
    with open(path) as file:
        return file.read()


def raise_(error):
    raise error


def test_at_once_is_a_limit_for_all_users_of_the_limiter(tmp_path):
    limiter = arenite.Limiter(at_once=1)
    folder = str(tmp_path)
    with arenite.Executor(2) as one, arenite.Executor(2) as two:
        limited = [executor.options(limit=limiter) for executor in (one, two)]
        calls = [limited[n % 2].submit(count_running, folder) for n in range(40)]
        many = [executor.map(count_running, [folder] * 20, chunksize=10) for executor in limited]
        assert {call.result() for call in calls} == {1}
        assert {seen for results in many for seen in results} == {1}
    assert (limiter.running, limiter.waiting) == (0, 0)


def test_tasks_that_wait_do_not_keep_others_from_running(tmp_path):
    barrier = tmp_path / "barrier"
    os.mkfifo(barrier)
    limiter = arenite.Limiter(at_once=1)
    with arenite.Executor(2) as executor:
        limited = executor.options(limit=limiter)
        first = limited.submit(read, str(barrier))
        others = [limited.submit(abs, -n) for n in range(10)]
        with harness.waiting("a task without the limit"):
            assert executor.submit(abs, -1).result() == 1
        assert (limiter.running, limiter.waiting) == (1, 10)
        assert not any(other.done() for other in others)
        assert others[3].cancel()
        with harness.waiting("the first task to open its pipe"), open(barrier, "w") as file:
            file.write("x")
        assert first.result() == "x"
        assert [other.result() for n, other in enumerate(others) if n != 3] == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_a_permit_ends_with_its_task_however_it_ends():
    limiter = arenite.Limiter(at_once=1)
    with arenite.Executor(1) as executor:
        limited = executor.options(limit=limiter)
        for call in (
            lambda: limited.submit(os._exit, 1).result(),
            lambda: limited.submit(raise_, ValueError()).result(),
            lambda: executor.options(limit=limiter, deadline=0.05).submit(time.sleep, 3600).result(),
        ):
            with harness.waiting("a task that fails"), contextlib.suppress(RuntimeError, ValueError, TimeoutError):
                call()
        running = limited.submit(time.sleep, 3600)
        harness.until(running.running, "a task to run")
        running.cancel()
        with harness.waiting("a task after those that failed"):
            assert limited.submit(abs, -1).result() == 1


def test_per_second_spaces_the_starts():
    limiter = arenite.Limiter(per_second=50)
    with arenite.Executor(2) as executor:
        executor.submit(abs, 1).result()
        begin = time.monotonic()
        starts = list(executor.options(limit=limiter).map(lambda _: time.monotonic(), range(6), chunksize=6))
        assert time.monotonic() - begin >= 5 / 50
    assert len(starts) == 6


def test_wrong_limits():
    for limits in ({}, {"at_once": 0}, {"at_once": -1}, {"per_second": 0}, {"per_second": -1}, {"per_second": 1e300}):
        with pytest.raises(ValueError, match="at_once|per_second"):
            arenite.Limiter(**limits)
    assert repr(arenite.Limiter(at_once=2)) == "arenite.Limiter(at_once=2, per_second=None)"


def test_without_workers():
    with arenite.Executor(0) as executor:
        assert executor.options(limit=arenite.Limiter(at_once=1)).submit(abs, -1).result() == 1
