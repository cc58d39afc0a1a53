"""One task dies: what users of other pools reported, and what happens here. Each test names the report."""

import ctypes
import os
import pickle
import signal
import sys
import time
from concurrent.futures import as_completed

import arenite
import harness
import pytest


def exit_at_once(code):
    os._exit(code)


def is_odd(number):
    return number % 2 == 1


def report_and_stay(path):
    """Writes the number of this process to a file that appears complete, and stays until it is killed."""
    with open(f"{path}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.new", path)
    while True:
        time.sleep(60)


def maybe_stay(path, number):
    if number == 50:
        report_and_stay(path)
    return number


def recurse(number):
    # Through C, so that each level takes a piece of the stack of the process.
    return max([number], key=recurse)


def overflow_by_recursion():
    sys.setrecursionlimit(1 << 30)
    return recurse(0)


def overflow_in_c():
    import faulthandler

    return faulthandler._stack_overflow()


def segfault():
    ctypes.string_at(0)


def append_for_ever():
    kept = []
    while True:
        kept.append(bytes(1 << 20))


def append_small_for_ever():
    kept = []
    while True:
        kept.append([None] * 100)


def fail_to_start(how):
    if how == "raises":
        raise ValueError("no licence server at port 27000")
    if how == "segfaults":
        segfault()
    if how == "exits":
        os._exit(3)
    if how == "calls sys.exit":
        sys.exit("not today")


@pytest.fixture
def executor():
    with arenite.Executor(max_workers=2) as executor:
        yield executor


def test_exit_in_one_task_leaves_the_others(executor):
    """zauberzeug/nicegui#2774: after `os._exit` in one task, a process pool is broken for all."""
    died = executor.submit(exit_at_once, 1)
    fine = executor.submit(is_odd, 7)
    with pytest.raises(arenite.WorkerDied) as caught:
        died.result()
    assert caught.value.exit_code == 1
    assert caught.value.signal is None
    assert "exited with code 1" in str(caught.value)
    assert fine.result() is True
    assert executor.submit(is_odd, 8).result() is False


def kill_when_there(path):
    pid = harness.until(lambda: os.path.exists(path) and int(open(path).read()), "task 50 to start")
    os.kill(pid, signal.SIGKILL)
    return pid


def test_killed_from_outside_during_submits(executor, tmp_path):
    """cpython#96062: a pool waits for ever when one of its processes is killed."""
    path = str(tmp_path / "pid")
    futures = {executor.submit(maybe_stay, path, number): number for number in range(100)}
    kill_when_there(path)
    answers = {}
    for future in as_completed(futures):
        answers[futures[future]] = future.exception() or future.result()
    failed = answers.pop(50)
    assert isinstance(failed, arenite.WorkerDied)
    assert failed.signal == signal.SIGKILL
    assert "SIGKILL" in str(failed)
    assert answers == {number: number for number in range(100) if number != 50}


def test_killed_from_outside_during_map(executor, tmp_path):
    """cpython#96062 again, by `map`: one error in the place of one result."""
    path = str(tmp_path / "pid")
    results = executor.map(maybe_stay, [path] * 100, range(100))
    kill_when_there(path)
    received, errors = [], []
    while True:
        try:
            received.append(next(results))
        except StopIteration:
            break
        except arenite.WorkerDied as error:
            errors.append(error)
    # The error is where the result would be, and the results after it follow.
    assert received == [number for number in range(100) if number != 50]
    assert [error.signal for error in errors] == [signal.SIGKILL]
    assert "SIGKILL" in str(errors[0])
    assert list(executor.map(is_odd, range(4))) == [False, True, False, True]


def write_into(array):
    ctypes.memset(array.ctypes.data + 40, 1, 1)


def test_a_crash_says_what_it_was(executor):
    """Other pools have the number of the signal at most: what crashed, and where, is a guess."""
    with pytest.raises(arenite.WorkerDied) as caught:
        executor.submit(segfault).result()
    crash = caught.value.crash
    assert (crash.kind, crash.signal, crash.address, crash.array) == ("null", signal.SIGSEGV, 0, None)
    assert crash.access in ("read", None)
    assert crash.text.startswith("SIGSEGV: ") and crash.text in str(caught.value)
    names = [frame.function or "" for frame in crash.frames]
    assert crash.frames and any("strlen" in name or "string_at" in name for name in names), names
    assert any(frame.module and "ctypes" in frame.module for frame in crash.frames)
    assert str(crash).count("\n") == len(crash.frames)
    assert pickle.loads(pickle.dumps(crash)) == crash
    with pytest.raises(arenite.WorkerDied) as caught:
        executor.submit(os._exit, 3).result()
    assert caught.value.crash is None


def test_a_write_to_an_input_names_the_argument(executor):
    np = pytest.importorskip("numpy")
    array = executor.share(np.zeros(100))
    with pytest.raises(arenite.WorkerDied) as caught:
        executor.submit(write_into, array).result()
    crash = caught.value.crash
    assert (crash.kind, crash.array, crash.offset) == ("input", 1, 40)
    assert "array 1 of its arguments" in str(caught.value)


@pytest.mark.parametrize("overflow", [overflow_by_recursion, overflow_in_c])
def test_stack_overflow_shows_the_python_stack(executor, overflow):
    """joblib#385: endless recursion ends the process without a word about where."""
    if overflow is overflow_by_recursion and sys.version_info >= (3, 12):
        pytest.skip("this Python counts C recursion, whatever its limit: RecursionError instead of a crash")
    with pytest.raises(arenite.WorkerDied) as caught:
        executor.submit(overflow).result()
    assert caught.value.signal == signal.SIGSEGV
    words = "\n".join(caught.value.last_words)
    assert "Fatal Python error: Segmentation fault" in words
    assert ("recurse" if overflow is overflow_by_recursion else "overflow_in_c") in words
    assert executor.submit(is_odd, 1).result() is True


@pytest.mark.parametrize("how", ["raises", "segfaults", "exits", "calls sys.exit"])
def test_initializer_that_fails(how):
    """kevoreilly/CAPEv2#3142: a worker that dies while it starts leaves its task waiting for ever."""
    said = {
        "raises": "no licence server at port 27000",
        "segfaults": "SIGSEGV",
        "exits": "exited with code 3",
        "calls sys.exit": "not today",
    }[how]
    with pytest.raises(arenite.StartFailed) as caught:
        with arenite.Executor(max_workers=2, initializer=fail_to_start, initargs=(how,)) as executor:
            executor.submit(is_odd, 1).result()
    assert said in str(caught.value)
    assert str(caught.value).endswith("remove the reason, then make a new one")


def test_a_death_after_the_end_of_the_main_file():
    """Modules that want to be called at the exit can no longer be imported, and that of `BrokenProcessPool` is one."""
    end = harness.script(
        """
        import os, sys, threading
        import arenite

        def die(read):
            os.read(read, 1)
            os._exit(3)

        def report(future):
            print(type(future.exception()).__name__)

        read, write = os.pipe()
        ex = arenite.Executor(1)
        assert "concurrent.futures.process" not in sys.modules
        path = f"/proc/{os.getpid()}/fd/{read}"
        ex.submit(lambda: die(os.open(path, os.O_RDONLY))).add_done_callback(report)
        threading._register_atexit(os.write, write, b"!")
        """
    )
    assert end.ok().out == "WorkerDied\n"


@pytest.mark.parametrize("append", [append_for_ever, append_small_for_ever])
def test_endless_append_meets_the_memory_limit(append):
    """uqfoundation/pathos#265: a task that eats all memory takes the machine with it."""
    with arenite.Executor(max_workers=2, memory_limit="512MiB") as executor:
        with pytest.raises(arenite.MemoryLimitExceeded) as caught:
            executor.submit(append).result()
        assert isinstance(caught.value, MemoryError)
        assert executor.submit(is_odd, 1).result() is True


@pytest.mark.leaves("Dask's own threads and sockets")
def test_memory_limit_reaches_the_user_through_dask():
    """dask/distributed#2297: the user is not told that it was memory.

    Dask's worker catches the `MemoryError` inside of the task, and sends that.
    """
    distributed = pytest.importorskip("distributed")
    import dask

    with arenite.Executor(max_workers=1, memory_limit="512MiB") as executor:
        with (
            distributed.LocalCluster(
                host="127.0.0.1",
                protocol="tcp",
                n_workers=1,
                processes=False,
                dashboard_address=None,
                executor={"arenite": executor},
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            with dask.annotate(executor="arenite"):
                # What Dask loads for the report of an exception, it cannot load without memory.
                with harness.waiting("Dask's first answer"), pytest.raises(ValueError, match="invalid literal"):
                    client.submit(int, "no number").result()
                future = client.submit(append_for_ever)
            with harness.waiting("Dask's answer"), pytest.raises(MemoryError):
                future.result()


def test_a_file_named_signal_does_not_shadow_the_library(tmp_path):
    """joblib#1378: `signal.py` in the working directory is imported by the workers in the place of the library."""
    (tmp_path / "signal.py").write_text("raise SystemExit('the wrong signal module')\n")
    harness.script(
        """
        import arenite

        def name():
            import signal
            return signal.SIGTERM.name

        with arenite.Executor(1) as executor:
            assert executor.submit(name).result() == "SIGTERM"
        """,
        cwd=tmp_path,
    ).ok()


def test_a_package_that_only_the_program_finds():
    """Workers find the package where the program found it, whatever their own search path."""
    import arenite._arenite

    folder = os.path.dirname(os.path.dirname(os.path.abspath(arenite._arenite.__file__)))
    # Without `site`, nobody knows of installed packages.
    harness.script(
        f"""
        import sys
        sys.path.append({folder!r})
        import arenite

        with arenite.Executor(1) as executor:
            assert executor.submit(abs, -1).result() == 1
        """,
        flags=["-S"],
    ).ok()


def abort(_):
    os.abort()


def wait_for_ever(gate):
    gate.touch()
    time.sleep(3600)


@pytest.mark.parametrize("end", ["a crash", "a deadline", "a cancellation", "an exit"])
def test_the_task_after_an_end_runs_in_a_process_that_was_there_before(tmp_path, end):
    with arenite.Executor(1, preload=["numpy"], settings=arenite.Settings(spares=1)) as ex:
        for n in range(3):

            def spare():
                return [worker.pid for worker in ex.stats().workers if worker.spare]

            (ready,) = harness.until(spare, "a spare")
            assert len(ex.stats().workers) == 2
            gate = tmp_path / str(n)
            if end == "a crash":
                assert isinstance(ex.submit(abort, gate).exception(), arenite.WorkerDied)
            elif end == "an exit":
                assert isinstance(ex.submit(os._exit, 3).exception(), arenite.WorkerDied)
            elif end == "a deadline":
                late = ex.options(deadline=0.05).submit(wait_for_ever, gate)
                assert isinstance(late.exception(), arenite.DeadlineExceeded)
            else:
                running = ex.submit(wait_for_ever, gate)
                harness.until(gate.exists, "the task to run")
                assert running.cancel()
            assert ex.submit(os.getpid).result() == ready


def test_a_spare_ends_an_import_before_its_first_task(tmp_path, monkeypatch):
    """The modules import each other: two threads that begin at either of them would each wait for the other."""
    for name, other in (("spare_one", "spare_two"), ("spare_two", "spare_one")):
        (tmp_path / f"{name}.py").write_text(
            "import pathlib, time\n"
            f"folder = pathlib.Path({str(tmp_path)!r})\n"
            f"(folder / '{name} begins').open('a').write('x')\n"
            "while (folder / 'shut').exists():\n"
            "    time.sleep(0.001)\n"
            f"import {other}\n"
            "VALUE = 1\n"
            f"def value():\n    return {other}.VALUE\n"
        )
    monkeypatch.syspath_prepend(tmp_path)

    def first():
        import spare_one

        (tmp_path / "shut").touch()
        return spare_one.value()

    def second():
        import spare_one

        return spare_one.value()

    with arenite.Executor(1, settings=arenite.Settings(spares=1)) as ex:
        harness.until(lambda: [worker for worker in ex.stats().workers if worker.spare], "a spare")
        assert ex.submit(first).result() == 1
        # Modules are imported in the order in which that ended.
        harness.until(lambda: (tmp_path / "spare_two begins").read_text() == "xx", "the spare to begin the import")
        assert isinstance(ex.submit(os._exit, 3).exception(), arenite.WorkerDied)
        task = ex.submit(second)
        harness.until(task.running, "the spare to have the task")
        (tmp_path / "shut").unlink()
        assert task.result() == 1


@pytest.mark.parametrize("spares", [-1, 1.5, "1"])
def test_spares_that_cannot_be(spares):
    with pytest.raises((TypeError, ValueError), match="spares"):
        arenite.Executor(1, settings=arenite.Settings(spares=spares))
