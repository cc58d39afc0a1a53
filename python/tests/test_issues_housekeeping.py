"""Exit, recycling, output, random numbers, other libraries: reports of users of other pools, and what happens here."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap

import arenite
import harness
import pytest
from test_issues_pickling import run_notebook


def add_one(number):
    return number + 1


def pid(_=None):
    return os.getpid()


START_AND_SHARE = """
    import os, sys, time
    import arenite
    executor = arenite.Executor(2)
    workers = set()
    while len(workers) < 2:
        workers |= set(executor.map(lambda _: time.sleep(0.01) or os.getpid(), range(4)))
    kept = []
    if "numpy" in sys.argv:
        import numpy as np
        kept.append(executor.share(np.ones(1_000_000)))
        kept.append(executor.submit(lambda: np.ones(1_000_000)).result())
    future = executor.submit(time.sleep, 3600 if "kill" in sys.argv else 0)
    print("ready", flush=True)
    if "kill" in sys.argv:
        time.sleep(3600)
"""


@pytest.mark.parametrize(
    "end", ["", "executor.shutdown()", "del executor", "os._exit(0)", "executor.shutdown(wait=False)"]
)
def test_no_words_and_no_leftovers_at_exit(end):
    """cpython#116849, natcap/pygeoprocessing#247, joblib#1620: warnings of a resource tracker at each exit."""
    before = harness.shared_memory()
    source = textwrap.dedent(START_AND_SHARE) + textwrap.dedent(end)
    assert harness.script(source, "numpy", flags=["-W", "error"]).ok().out == "ready\n"
    assert harness.shared_memory() - before == set()


def test_nothing_is_left_of_a_killed_parent():
    """joblib#198, blacklanternsecurity/bbot#3203: processes and memory stay after `kill -9`."""
    before = harness.shared_memory()
    program = harness.Script(START_AND_SHARE, "numpy", "kill")
    assert program.line() == "ready"
    assert len(harness.of_session(program.pid)) >= 3
    program.signal(signal.SIGKILL)
    end = program.finish()
    assert (end.code, end.left) == (-signal.SIGKILL, [])
    assert harness.shared_memory() - before == set()


def test_recycling_loses_no_task():
    """cpython#115634, #111498: a pool that replaces its processes after some tasks hangs."""
    with arenite.Executor(max_workers=1, max_tasks_per_child=2) as executor:
        futures = [executor.submit(add_one, number) for number in range(10)]
        assert [future.result() for future in futures] == list(range(1, 11))
        pids = [executor.submit(pid).result() for _ in range(6)]
        assert len(set(pids)) >= 3


def test_map_takes_from_an_endless_iterable_what_it_needs():
    """cpython#74508: `map` reads its whole input before it gives the first result."""
    taken = 0

    def numbers():
        nonlocal taken
        for number in itertools.count(1):
            taken = number
            yield number - 1

    with arenite.Executor(max_workers=2) as executor:
        results = executor.map(add_one, numbers())
        assert list(itertools.islice(results, 1000)) == list(range(1, 1001))
        assert taken < 3000
        results.close()

        taken = 0
        results = executor.map(add_one, numbers(), buffersize=5)
        assert next(results) == 1
        assert taken <= 6
        results.close()


def test_a_print_appears_at_once():
    """joblib/loky#372: the output of tasks is lost, or appears when the process ends."""
    program = harness.Script(
        """
        import os, sys, tempfile
        import arenite

        def work(path):
            print("half way there")
            print("a warning", file=sys.stderr)
            open(path).read()

        gate = os.path.join(tempfile.mkdtemp(), "gate")
        os.mkfifo(gate)
        with arenite.Executor(1) as executor:
            future = executor.submit(work, gate)
            print("gate", gate, flush=True)
            future.result()
        """
    )
    lines = [program.line(), program.line()]
    gate = next(line.removeprefix("gate ") for line in lines if line.startswith("gate "))
    printed = next(line for line in lines if "half way there" in line)
    # Labelled: with the executor and the worker.
    assert printed == "(arenite:0) half way there"
    with harness.waiting("the task to open its gate"):
        open(gate, "w").close()
    end = program.finish()
    assert end.code == 0, end
    assert end.err == "(arenite:0) a warning\n"


@pytest.mark.leaves("sockets of the notebook's client")
def test_a_print_appears_in_the_cell():
    """ipython/ipykernel#402: output of child processes does not reach the notebook."""
    outputs = run_notebook(
        "import arenite\nexecutor = arenite.Executor(2)",
        "executor.submit(print, 'seen in the cell').result()\nexecutor.shutdown()",
    )
    assert "seen in the cell" in outputs[1]


def test_inside_a_daemonic_process():
    """dask/dask-jobqueue#669, dask/distributed#2142: daemonic processes are not allowed to have children."""
    assert (
        harness.script(
            """
            import multiprocessing

            def work(queue):
                import arenite
                with arenite.Executor(2) as executor:
                    queue.put(list(executor.map(lambda number: number + 1, range(3))))

            if __name__ == "__main__":
                context = multiprocessing.get_context("spawn")
                queue = context.SimpleQueue()
                process = context.Process(target=work, args=(queue,), daemon=True)
                process.start()
                print(queue.get())
                process.join()
                assert process.exitcode == 0
            """
        )
        .ok()
        .out
        == "[1, 2, 3]\n"
    )


def test_two_tasks_never_draw_the_same_numbers():
    """numpy#9650, pytorch#5059: processes forked from one parent draw the same random numbers."""
    np = pytest.importorskip("numpy")
    np.random.seed(1)

    def draw(_):
        import random

        import numpy

        # As long as a task may be followed by another one on the same worker only.
        return os.getpid(), random.random(), float(numpy.random.random()), float(numpy.random.default_rng().random())

    drawn = set()
    for _ in range(2):
        with arenite.Executor(max_workers=2, max_tasks_per_child=3) as executor:
            drawn |= set(executor.map(draw, range(12)))
    assert len({pid for pid, *_ in drawn}) > 2
    for column in range(1, 4):
        assert len({row[column] for row in drawn}) == 24


def test_opencv_in_the_parent_first():
    """opencv/opencv-python#69, #249: `cv2.resize` in the parent, then in forked processes, hangs."""
    np = pytest.importorskip("numpy")
    cv2 = pytest.importorskip("cv2")
    photo = np.arange(1000 * 1000 * 3, dtype=np.uint8).reshape(1000, 1000, 3)
    expected = cv2.resize(photo, (224, 224))
    with arenite.Executor(max_workers=2) as executor:
        with harness.waiting("cv2.resize in two workers"):
            results = list(executor.map(lambda photo: cv2.resize(photo, (224, 224)), [executor.share(photo)] * 8))
    assert all((result == expected).all() for result in results)


def test_programs_and_processes_started_by_a_task():
    """A task may use `subprocess` and `multiprocessing` as any program does."""

    def work():
        import multiprocessing
        import subprocess
        import sys

        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        child.terminate()
        code = child.wait()
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=queue.put, args=(7,))
        process.start()
        process.join()
        return code, queue.get(), process.exitcode

    with arenite.Executor(max_workers=1) as executor:
        # A child that does not notice SIGTERM is a failure, not a hang.
        assert executor.options(deadline=30).submit(work).result() == (-signal.SIGTERM, 7, 0)


def test_a_child_that_was_just_started_can_be_terminated():
    def work(rounds):
        import multiprocessing
        import os
        import subprocess

        codes = set()
        for _ in range(rounds):
            child = subprocess.Popen(["sleep", "3600"])
            child.terminate()
            codes.add(child.wait())
            copy = os.fork()
            if copy == 0:
                while True:
                    signal.pause()
            os.kill(copy, signal.SIGTERM)
            codes.add(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]))
            process = multiprocessing.get_context("fork").Process(target=signal.pause)
            process.start()
            process.terminate()
            process.join()
            codes.add(process.exitcode)
        return codes

    with arenite.Executor(max_workers=1) as executor:
        # A child that has lost its signal is a failure, not a hang.
        assert executor.options(deadline=50).submit(work, 200).result() == {-signal.SIGTERM}


def test_a_server_with_several_workers(tmp_path):
    """uvicorn starts its workers by `multiprocessing` with spawn, and ends them by signals."""
    pytest.importorskip("uvicorn")
    import socket
    import urllib.request

    (tmp_path / "served.py").write_text(
        textwrap.dedent(
            """
            import asyncio, contextlib
            import arenite

            executor = None

            def square(number):
                return number * number

            async def app(scope, receive, send):
                global executor
                if scope["type"] == "lifespan":
                    while True:
                        message = await receive()
                        if message["type"] == "lifespan.startup":
                            executor = arenite.Executor(1)
                            await send({"type": "lifespan.startup.complete"})
                        else:
                            executor.shutdown()
                            await send({"type": "lifespan.shutdown.complete"})
                            return
                number = int(scope["path"].strip("/"))
                result = await asyncio.get_running_loop().run_in_executor(executor, square, number)
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": str(result).encode()})
            """
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            "served:app",
            "--workers",
            "2",
            "--port",
            str(port),
            "--log-level",
            "warning",
        ],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:

        def answer():
            assert server.poll() is None, server.stdout.read()
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/12", timeout=60).read()
            except OSError:
                return None

        assert harness.until(answer, "the server to answer", pause=0.05) == b"144"
        server.terminate()
        with harness.waiting("the server to end"):
            server.wait()
        harness.until(lambda: not harness.of_session(server.pid), "everything that the server started to end")
    finally:
        for left in harness.of_session(server.pid):
            os.kill(left, signal.SIGKILL)
        server.wait()
        server.stdout.close()
