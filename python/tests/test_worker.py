"""A worker as a process: its name and number, its end, and executors that are made in it."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import harness
import pytest

import arenite
from arenite._core import start

END = """
    import atexit, os, sys, threading, time

    def begin(folder):
        global log, place
        place = folder
        log = open(f"{folder}/log-{os.getpid()}", "w")
        atexit.register(lambda: open(f"{folder}/atexit-{os.getpid()}", "w").close())

    def upload(path):
        time.sleep(0.3)
        open(path, "w").close()

    def work(n):
        log.write(f"{n}\\n")
        threading.Thread(target=upload, args=(f"{place}/uploaded-{os.getpid()}",)).start()
        return os.getpid()
"""


def files(folder, kind):
    return sorted(int(path.name.rpartition("-")[2]) for path in Path(folder).glob(f"{kind}-*"))


@pytest.mark.parametrize(
    "options", [{}, {"max_tasks_per_child": 2}, {"lanes": 2}, {"settings": arenite.Settings(spares=1)}]
)
def test_a_worker_ends_as_a_process_of_python(options, tmp_path, monkeypatch):
    """At the shutdown and when it is recycled: threads end, exit handlers run, files are written."""
    (tmp_path / "end_of_a_worker.py").write_text(textwrap.dedent(END))
    monkeypatch.syspath_prepend(tmp_path)
    import end_of_a_worker

    out = tmp_path / "out"
    out.mkdir()
    with harness.waiting("the end of all workers"):
        with arenite.Executor(1, initializer=end_of_a_worker.begin, initargs=(str(out),), **options) as ex:
            pids = [ex.submit(end_of_a_worker.work, n).result() for n in range(4)]
    assert len(set(pids)) == (2 if "max_tasks_per_child" in options else 1)
    assert files(out, "uploaded") == sorted(set(pids))
    assert set(files(out, "atexit")) >= set(pids)
    logs = "".join((out / f"log-{pid}").read_text() for pid in dict.fromkeys(pids))
    assert logs == "0\n1\n2\n3\n"


def fail_at_exit():
    import atexit

    atexit.register(print, "second", flush=True)
    atexit.register(lambda: 1 // 0)


def test_an_exit_handler_that_fails_is_reported(capfd):
    with arenite.Executor(1, output="plain") as ex:
        ex.submit(fail_at_exit).result()
    out, err = capfd.readouterr()
    assert out == "second\n" and "ZeroDivisionError" in err


def hang_at_exit(path):
    import atexit
    import time

    def hang():
        path.touch()
        time.sleep(3600)

    atexit.register(hang)


def test_an_exit_handler_that_hangs_is_cut_off(tmp_path):
    with harness.waiting("the shutdown"), arenite.Executor(1) as ex:
        ex.submit(hang_at_exit, tmp_path / "hangs").result()
    assert (tmp_path / "hangs").exists()


COVERAGE = """
    import sys
    import concurrent.futures
    import tasks

    if __name__ == "__main__":
        import arenite

        context = __import__("multiprocessing").get_context("spawn")
        make = {
            "arenite": lambda: arenite.Executor(1),
            "lanes": lambda: arenite.Executor(1, lanes=2),
            "spawn": lambda: concurrent.futures.ProcessPoolExecutor(1, mp_context=context),
        }[sys.argv[1]]
        with make() as ex:
            print(list(ex.map(tasks.work, range(4))))
"""
TASKS = """
    def even(n):
        return n // 2

    def odd(n):
        if n == 100:
            return "never"
        return n

    def work(n):
        return odd(n) if n % 2 else even(n)
"""


@pytest.mark.parametrize("which", ["arenite", "lanes", "spawn"])
def test_coverage_of_code_in_tasks(which, tmp_path):
    """With the set-up that its documentation asks for: a line in `sitecustomize`, and a variable."""
    pytest.importorskip("coverage")
    (tmp_path / "program.py").write_text(textwrap.dedent(COVERAGE))
    (tmp_path / "tasks.py").write_text(textwrap.dedent(TASKS))
    (tmp_path / "sitecustomize.py").write_text("import coverage; coverage.process_startup()")
    (tmp_path / ".coveragerc").write_text("[run]\nparallel=True\nconcurrency=multiprocessing,thread\nsource=.\n")
    path = os.pathsep.join([str(tmp_path), *(entry for entry in sys.path if entry)])
    env = {**os.environ, "COVERAGE_PROCESS_START": str(tmp_path / ".coveragerc"), "PYTHONPATH": path}

    def run(*arguments):
        import subprocess

        command = [sys.executable, "-m", "coverage", *arguments]
        with harness.waiting(f"coverage {arguments[0]}"):
            return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    assert run("run", "program.py", which).stdout == "[0, 1, 1, 3]\n"
    run("combine", "-q")
    report = run("report", "--include=tasks.py", "-m").stdout
    # All lines but one.
    assert re.search(r"tasks\.py +\d+ +1 +\d+% +7\n", report), report


def identity():
    process = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    return process.name, process._identity, parent and (parent.name, parent.pid, parent.is_alive()), arenite.worker()


def wait_for(path):
    return harness.until(path.exists, "the gate") and identity()


def test_which_worker_a_task_runs_in(tmp_path):
    with arenite.Executor(2, settings=arenite.Settings(label="resize")) as ex:
        harness.all_ready(ex)
        futures = [ex.submit(wait_for, tmp_path) for _ in range(2)]
        found = sorted(future.result() for future in futures)
        parent = "MainProcess", os.getpid(), True
        assert found == [
            (f"resize-{n + 1}", (n + 1,), parent, arenite.Worker(n, 0, "resize")) for n in range(2)
        ]
        workers = {worker.number: ex.stats().workers[worker.number].pid for *_, worker in found}
        assert len(set(workers.values())) == 2
    assert arenite.worker() is None
    with arenite.Executor(0) as ex:
        assert ex.submit(arenite.worker).result() is None


def test_a_replaced_worker_is_another_generation():
    with arenite.Executor(1) as ex:
        for generation in range(3):
            assert ex.submit(arenite.worker).result() == (0, generation, "arenite")
            ex.submit(os._exit, 1).exception()


def start_child():
    queue = multiprocessing.Queue()
    child = multiprocessing.Process(target=put_name, args=(queue,))
    child.start()
    name = queue.get()
    child.join()
    return name


def put_name(queue):
    queue.put(multiprocessing.current_process()._identity)


def test_a_process_that_a_task_starts_is_named_after_the_worker():
    with arenite.Executor(1) as ex, harness.waiting("a child of a task"):
        assert ex.submit(start_child).result() == (1, 1)


SERVICE = """
    import os
    import arenite

    executor = arenite.Executor(2)
    pool = arenite.Pool(2) if os.environ.get("WITH_POOL") else None

    def half(n):
        return n // 2

    def nested(how):
        if how == "submit":
            return executor.submit(half, 2).result()
        if how == "map":
            return list(executor.map(half, [2]))
        if how == "options":
            return executor.options(retries=1).submit(half, 2).result()
        if how == "pool":
            return arenite.Pool(1).map(half, [2])
        with arenite.Executor(1) as inner:
            return inner.submit(half, 2).result()

    def harmless():
        with executor:
            pass
        return repr(executor), executor.stats().submitted, executor.trim()
"""


def test_an_executor_of_a_module_that_workers_import(tmp_path, monkeypatch):
    """The usual layout of a web service: its global executor is made in each worker too, and is of no use there."""
    monkeypatch.setenv("WITH_POOL", "1")
    (tmp_path / "service_of_a_test.py").write_text(textwrap.dedent(SERVICE))
    monkeypatch.syspath_prepend(tmp_path)
    import service_of_a_test as service

    with service.executor as ex, service.pool:
        assert ex.submit(service.half, 10).result() == 5
        assert list(ex.map(service.half, [2, 4])) == [1, 2]
        assert service.pool.map(service.half, [2, 4]) == [1, 2]
        assert ex.submit(service.harmless).result() == ("<arenite.Executor: made in a worker>", 0, 0)
        for how in ("submit", "map", "options", "pool", "with"):
            error = ex.submit(service.nested, how).exception()
            assert type(error) is RuntimeError, how
            assert "a task cannot have an executor with workers of its own: module 'service_of_a_test'" in str(error)


def test_a_frozen_program_is_told_what_to_pass(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(RuntimeError, match=r"this program is frozen: .*Settings\(python=…\)"):
        arenite.Executor(1)
    with arenite.Executor(1, settings=arenite.Settings(python=sys.executable)) as ex:
        assert ex.submit(abs, -1).result() == 1


@pytest.mark.parametrize("sandboxed", [False, True])
def test_a_frozen_program_keeps_its_libraries_to_itself(monkeypatch, sandboxed):
    """PyInstaller's loader sets the variable, and keeps what it was, if it was set."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/bundle")
    monkeypatch.delenv("LD_LIBRARY_PATH_ORIG", raising=False)

    def path(python):
        return dict(start.environment(1, None, sandboxed, python)).get("LD_LIBRARY_PATH")

    assert (path(None), path("python3")) == ("/bundle", None)
    monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", "/mine")
    assert (path(None), path("python3")) == ("/bundle", "/mine")


GEVENT = """
    import {library} as library
    if "{library}" == "gevent":
        from gevent import monkey
        monkey.patch_all()
        spawn, sleep = library.spawn, library.sleep
    else:
        library.monkey_patch()
        spawn, sleep = library.spawn, library.sleep
    import concurrent.futures, time
    import arenite

    ticks = []

    def tick():
        while True:
            ticks.append(1)
            sleep(0.01)

    def work(n):
        return n * n

    spawn(tick)
    with arenite.Executor(2) as ex:
        print(list(ex.map(work, range(4))), list(ex.map(work, range(4), chunksize=2)))
        print(ex.submit(work, 5).result())
        before = len(ticks)
        ex.submit(time.sleep, 0.5).result()
        print(len(ticks) - before > 5)
        futures = [ex.submit(work, n) for n in range(3)]
        done, _ = concurrent.futures.wait(futures, timeout=50)
        print(sorted(future.result() for future in done))
        called = []
        futures[0].add_done_callback(called.append)
        while not called:
            sleep(0.01)
        ex.submit(print, "from a task").result()
    print("ended")
"""


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_threads_of_other_libraries(library):
    """A worker class of gunicorn replaces threads. Others of its threads go on while one waits for a task."""
    pytest.importorskip(library)
    source = textwrap.dedent(GEVENT).format(library=library)
    end = harness.script(source, flags=("-W", "ignore"))
    expected = "[0, 1, 4, 9] [0, 1, 4, 9]\n25\nTrue\n[0, 1, 4]\n(arenite:N) from a task\nended\n"
    assert (re.sub(r"arenite:\d", "arenite:N", end.out), end.code) == (expected, 0), end


@pytest.mark.leaves("the resource tracker")
def test_the_standard_library_has_these_names():
    """What the names of a worker's process are taken from."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as ex:
        name, numbers, parent, _ = ex.submit(identity).result()
    assert numbers == (int(name.rpartition("-")[2]),) and parent == ("MainProcess", os.getpid(), True)


def is_imported(name):
    return name in sys.modules


def fail_to_import(name):
    __import__(name)
    raise ValueError


@pytest.mark.parametrize("options", [{}, {"max_tasks_per_child": 4}, {"settings": arenite.Settings(spares=1)}])
def test_a_replacement_has_imported_what_others_have(options, tmp_path, monkeypatch):
    (tmp_path / "slow_of_a_test.py").write_text("def use():\n    return 1\n")
    (tmp_path / "failing_of_a_test.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import slow_of_a_test

    with arenite.Executor(1, **options) as ex:
        assert ex.submit(is_imported, "slow_of_a_test").result() is False
        assert ex.submit(slow_of_a_test.use).result() == 1
        # Of a task that has failed, nobody knows whether it may be imported.
        assert isinstance(ex.submit(fail_to_import, "failing_of_a_test").exception(), ValueError)
        if "spares" in options:
            harness.until(lambda: sum(worker.spare for worker in ex.stats().workers) == 1, "the spare to be ready")
        if "max_tasks_per_child" in options:
            assert ex.submit(abs, -1).result() == 1
        else:
            assert isinstance(ex.submit(os._exit, 1).exception(), arenite.WorkerDied)
        found = harness.until(lambda: arenite_generation(ex) and ex.submit(is_imported, "slow_of_a_test").result(), "it")
        assert found is True
        if "max_tasks_per_child" not in options:
            # The first process has run no other task to its end since.
            assert ex.submit(is_imported, "failing_of_a_test").result() is False


def arenite_generation(ex):
    """Whether another process than the first one runs tasks."""
    found = ex.submit(arenite.worker).result()
    return found.number or found.generation


@pytest.mark.parametrize("how", ["submit", "map", "retries"])
def test_the_import_of_a_module_does_not_count_against_the_deadline(how, tmp_path, monkeypatch):
    """A service whose tasks need a large library has deadlines below the time that it takes to import."""
    name = f"large_of_a_test_{how}"
    code = "import time\nif {} != os.getpid():\n    time.sleep(1.5)\ndef use(n=1):\n    return n\ndef hang(n=1):\n    time.sleep(3600)\n"
    (tmp_path / f"{name}.py").write_text("import os\n" + code.format(os.getpid()))
    monkeypatch.syspath_prepend(tmp_path)
    large = __import__(name)
    with arenite.Executor(1) as ex, harness.waiting("a deadline"):
        hasty = ex.options(deadline=0.5, retries=1 if how == "retries" else 0)
        if how == "map":
            assert list(hasty.map(large.use, [1, 2])) == [1, 2]
        else:
            assert hasty.submit(large.use).result() == 1
        error = hasty.submit(large.hang).exception()
        assert isinstance(error, arenite.DeadlineExceeded) and error.deadline == 0.5
        assert hasty.submit(large.use).result() == 1
        # One that ends in time, after a look that found it running.
        assert ex.options(deadline=50).submit(large.use, 3).result() == 3


ENDS = {
    "exit": lambda: sys.exit(5),
    "exit with a text": lambda: sys.exit("a reason"),
    "exit without a code": lambda: sys.exit(),
    "exception": lambda: 1 / 0,
    "return": lambda: None,
}


class Forking:
    """Forks, and leaves the call in the child in one of these ways."""

    def __init__(self, end=None):
        if end is not None:
            self.code = self.fork(end)

    def fork(self, end):
        pid = os.fork()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else ENDS[end]()

    def given(self):
        return self.code

    def __call__(self, end):
        return self.fork(end)


@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_a_task_forks_ends_like_one_of_multiprocessing(end):
    process = multiprocessing.get_context("fork").Process(target=ENDS[end])
    process.start()
    process.join()
    expected = process.exitcode
    with arenite.Executor(1, output=None) as ex:
        assert ex.submit(Forking(), end).result() == expected
        assert list(ex.map(Forking(), [end] * 3)) == [expected] * 3
        assert list(ex.map(Forking(), [end] * 3, chunksize=3)) == [expected] * 3
        with ex.actor(Forking) as actor:
            assert actor.fork(end).result() == expected
        with ex.actor(Forking, end) as actor:
            assert actor.given().result() == expected


def lead_a_session(_=None):
    said = []
    for _ in range(2):
        try:
            os.setsid()
            said.append(os.getsid(0) == os.getpgrp() == os.getpid())
        except PermissionError as error:
            said.append(error.errno)
    return said


def test_a_task_leads_a_session():
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        expected = pool.submit(lead_a_session).result()
    with arenite.Executor(1) as ex:
        assert ex.submit(lead_a_session).result() == expected
        # The engine ends the group of the session with the worker.
        pid = ex.submit(lambda: subprocess.Popen(["sleep", "600"]).pid).result()
        assert isinstance(ex.submit(os._exit, 1).exception(), arenite.WorkerDied)
        harness.until(lambda: not harness.is_alive(pid), "the end of what the task has started")


def handle(error):
    def handler(*arguments):
        raise error

    signal.signal(signal.SIGUSR1, handler)
    return os.getpid()


def signalled(pid):
    """Sends the process a signal, and waits until it has got it, or has ended."""
    os.kill(pid, signal.SIGUSR1)
    with harness.waiting("the delivery of a signal"), contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while "ShdPnd:\t0000000000000000" not in Path(f"/proc/{pid}/status").read_text():
            os.sched_yield()


@pytest.mark.parametrize("error", [TimeoutError("of a handler"), SystemExit(3)])
def test_the_exception_of_a_handler_between_tasks_is_no_failure_of_the_next(error):
    """As with `multiprocessing.Pool`, which replaces the worker."""
    got = []
    for pool in (multiprocessing.get_context("fork").Pool(1), arenite.Pool(1)):
        with pool:
            signalled(pool.apply(handle, (error,)))
            got.append(pool.apply_async(abs, (-1,)).get(60))
    assert got == [1, 1]
    with arenite.Executor(1) as ex, ex.actor(dict, a=1) as actor:
        signalled(ex.submit(handle, error).result())
        assert actor.get("a").result() == 1
