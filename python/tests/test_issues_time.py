"""Deadlines, cancelling and Ctrl-C: what users of other pools reported, and what happens here."""

import asyncio
import os
import re
import signal
import time
from concurrent.futures import CancelledError

import arenite
import harness
import pytest


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def begin_and_stay(folder):
    """Writes `begun` with the number of this process, and `finished` an hour later."""
    with open(os.path.join(folder, "begun.new"), "w") as file:
        file.write(str(os.getpid()))
    os.rename(os.path.join(folder, "begun.new"), os.path.join(folder, "begun"))
    time.sleep(3600)
    open(os.path.join(folder, "finished"), "w").close()


def begun(folder):
    path = os.path.join(folder, "begun")
    return os.path.exists(path) and int(open(path).read())


def raise_(kind, *arguments):
    raise kind(*arguments)


@pytest.fixture
def executor():
    with arenite.Executor(max_workers=2) as executor:
        yield executor


def test_a_deadline_ends_one_call_of_three(executor):
    """fastapi/fastapi#841: there is no time limit for one call."""
    # Both workers have imported what they need.
    list(executor.map(sleep, [0.1] * 8))
    limited = executor.options(deadline=3)
    calls = [limited.submit(sleep, seconds) for seconds in (0, 0.1, 3600)]
    assert calls[0].result() == 0
    assert calls[1].result() == 0.1
    with pytest.raises(arenite.DeadlineExceeded) as caught:
        calls[2].result()
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.deadline == 3
    assert limited.submit(sleep, 0).result() == 0


def test_a_deadline_is_a_limit_for_each_try(executor, tmp_path):
    count = tmp_path / "count"
    count.touch()

    def one_more_try(path):
        with open(path, "a") as file:
            file.write("x")
        time.sleep(3600)

    with pytest.raises(arenite.DeadlineExceeded):
        executor.options(deadline=0.5, retries=2).submit(one_more_try, str(count)).result()
    assert count.read_text() == "xxx"


def test_a_deadline_ends_what_the_task_has_started(executor, tmp_path):
    """A program that a task has started ends with the task, as its worker does."""
    path = tmp_path / "pid"

    def start_and_wait(path):
        import subprocess

        child = subprocess.Popen(["sleep", "3600"])
        with open(path, "w") as file:
            file.write(str(child.pid))
        child.wait()

    with pytest.raises(arenite.DeadlineExceeded):
        executor.options(deadline=3).submit(start_and_wait, str(path)).result()
    pid = int(path.read_text())
    try:
        harness.until(lambda: not harness.is_alive(pid), "the program that the task started to end")
    finally:
        if harness.is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_cancelling_an_asyncio_future_ends_the_work(executor, tmp_path):
    """noxdafox/pebble#154: `task.cancel()` on `run_in_executor` leaves the process at work."""

    async def main():
        call = asyncio.get_running_loop().run_in_executor(executor, begin_and_stay, str(tmp_path))
        with harness.waiting("the task to begin"):
            while not (pid := begun(tmp_path)):
                await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with harness.waiting("the cancelled task's process to end"):
            while harness.is_alive(pid):
                await asyncio.sleep(0.005)

    asyncio.run(main())
    assert not (tmp_path / "finished").exists()
    assert executor.submit(sleep, 0).result() == 0


def test_wait_for_ends_the_work(executor, tmp_path):
    async def main():
        call = asyncio.wrap_future(executor.submit(begin_and_stay, str(tmp_path)))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call, 1.0)

    asyncio.run(main())
    if pid := begun(tmp_path):
        harness.until(lambda: not harness.is_alive(pid), "the process of the task to end")
    assert not (tmp_path / "finished").exists()


def test_shutdown_beside_a_stuck_task(tmp_path):
    """algorithmicsuperintelligence/openevolve#297: `shutdown` waits for a stuck worker for hours."""
    executor = arenite.Executor(max_workers=1)
    stuck = executor.submit(begin_and_stay, str(tmp_path))
    queued = [executor.submit(sleep, 0) for _ in range(10)]
    pid = harness.until(lambda: begun(tmp_path), "the stuck task to begin")
    before = time.monotonic()
    with harness.waiting("shutdown(cancel_futures=True)"):
        executor.shutdown(cancel_futures=True)
    print(f"shutdown took {time.monotonic() - before:.3f} s")
    assert not harness.is_alive(pid)
    assert not (tmp_path / "finished").exists()
    for future in [stuck, *queued]:
        with pytest.raises(CancelledError):
            future.result(timeout=0)


def test_one_ctrl_c_ends_thirty_tasks():
    """cpython#125886: after Ctrl-C, a process pool goes on with the tasks that wait."""
    program = harness.Script(
        """
        import time
        import arenite

        def work(number):
            print("Starting", number, flush=True)
            time.sleep(0.3)

        with arenite.Executor(2) as executor:
            for future in [executor.submit(work, number) for number in range(30)]:
                future.result()
        """
    )
    assert "Starting" in program.line()
    # As a terminal does: to the whole foreground process group.
    program.signal(signal.SIGINT, group=True)
    end = program.finish()
    assert end.code in (-signal.SIGINT, 130, 1), end
    assert "KeyboardInterrupt" in end.err, end
    # What ran at that moment may have said so before it was killed.
    assert len(re.findall("Starting", end.out)) <= 3, end
    assert end.left == [], end


@pytest.mark.parametrize("wait", ["result()", "list(map)", "wait", "as_completed", "shutdown"])
def test_ctrl_c_reaches_every_wait(wait):
    end = harness.Script(
        f"""
        import concurrent.futures, faulthandler, os, signal, sys, threading, time
        import arenite

        # Should it hang, this says where.
        faulthandler.dump_traceback_later(60)
        executor = arenite.Executor(1)
        future = executor.submit(time.sleep, 3600)
        waits = {{
            "result()": lambda: future.result(),
            "list(map)": lambda: list(executor.map(time.sleep, [3600])),
            "wait": lambda: concurrent.futures.wait([future]),
            "as_completed": lambda: list(concurrent.futures.as_completed([future])),
            "shutdown": lambda: executor.shutdown(),
        }}

        def interrupt():
            # Once the main thread sleeps at one place of the program for a tenth of a second. It sleeps for moments on
            # its way there, and the `as_completed` of the standard library keeps a lock that it took if it is
            # interrupted then.
            main, places = threading.main_thread(), [None] * 10
            while len(set(places)) > 1 or places[0] is None:
                time.sleep(0.01)
                stat = open("/proc/self/task/%d/stat" % os.getpid()).read()
                frame = sys._current_frames()[main.ident]
                asleep = waiting and stat.rpartition(")")[2].split()[0] == "S"
                places = places[1:] + [(frame.f_code, frame.f_lasti) if asleep else None]
            os.kill(os.getpid(), signal.SIGINT)

        waiting = False
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            waiting = True
            waits[{wait!r}]()
        except KeyboardInterrupt:
            print("interrupted")
        executor.shutdown(cancel_futures=True)
        """
    ).finish()
    # The wait for all tasks is the end of the executor, which says what Ctrl-C has ended.
    count = "arenite: KeyboardInterrupt has ended 1 task that had not finished\n" if wait == "shutdown" else ""
    assert (end.code, end.out, end.err, end.left) == (0, "interrupted\n", count, [])


@pytest.mark.parametrize("kind", [BaseException, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_any_exception_belongs_to_its_task(kind):
    """dask/distributed#5958, ray-project/ray#1049: a task that raises `SystemExit` ends its worker."""
    with arenite.Executor(max_workers=1) as executor:
        pid = executor.submit(os.getpid).result()
        future = executor.submit(raise_, kind, "on purpose")
        error = future.exception()
        assert type(error) is kind
        assert error.args == ("on purpose",)
        with pytest.raises(kind):
            future.result()
        assert executor.submit(os.getpid).result() == pid
