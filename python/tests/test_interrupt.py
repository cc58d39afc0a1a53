"""Ctrl-C while results are waited for, and executors that are dropped: nothing goes on that was not asked for.
`sys.exit`: nothing is lost."""

import os
import signal
import threading

import harness
import pytest

import arenite

BEGUN = """
    import os, signal, sys, threading, time
    from concurrent.futures import ProcessPoolExecutor
    import arenite

    def slow(n):
        with open(sys.argv[2], "a") as file:
            file.write("x")
        time.sleep(0.5)

    def begun():
        return os.path.getsize(sys.argv[2]) if os.path.exists(sys.argv[2]) else 0

    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    def interrupt(number):
        # The standard library cancels nothing if the exception comes before all tasks are submitted: after the first
        # results.
        while begun() < (3 if sys.argv[1] == "stdlib" else 2):
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    if __name__ == "__main__":
        make = {"arenite": arenite.Executor, "pool": arenite.Pool, "stdlib": ProcessPoolExecutor}[sys.argv[1]]
        signal.signal(signal.SIGALRM, stop)
        ex = make(2)
        threading.Thread(target=interrupt, args=(getattr(signal, sys.argv[3]),), daemon=True).start()
        try:
            exec(sys.argv[4])
        except (KeyboardInterrupt, Stopped) as error:
            saved = error
        submit = ex.apply_async if sys.argv[1] == "pool" else ex.submit
        future = submit(pow, (2, 3)) if sys.argv[1] == "pool" else submit(pow, 2, 3)
        result = future.get(50) if sys.argv[1] == "pool" else future.result(50)
        print(result, begun() < 20, type(saved).__name__, flush=True)
        ex.terminate() if sys.argv[1] == "pool" else ex.shutdown()
"""

#: Where the map waits, by what makes it.
WAITS = {
    "list": "list(ex.map(slow, range(100)))",
    "for": "for value in (results := ex.map(slow, range(100))): pass",
    "generator": "list(ex.map(slow, (n for n in range(100))))",
    "sum": "sum(value or 0 for value in ex.map(slow, range(100)))",
}


@pytest.mark.parametrize("number", ["SIGINT", "SIGALRM"])
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("which", ["arenite", "stdlib"])
def test_an_interrupted_map_lets_the_next_task_run(which, wait, number, tmp_path):
    """The exception is kept, as a notebook does."""
    end = harness.script(BEGUN, which, tmp_path / "begun", number, WAITS[wait])
    error = "KeyboardInterrupt" if number == "SIGINT" else "Stopped"
    assert (end.out, end.err) == (f"8 True {error}\n", "")


@pytest.mark.parametrize(
    "wait", ["list(ex.map(slow, range(100), chunksize=2))", "list(ex.options(priority=1).map(slow, range(100)))"]
)
def test_other_maps_end_too(wait, tmp_path):
    end = harness.script(BEGUN, "arenite", tmp_path / "begun", "SIGINT", wait)
    assert (end.out, end.err) == ("8 True KeyboardInterrupt\n", "")


@pytest.mark.parametrize(
    "wait",
    [
        "ex.map(slow, range(100), chunksize=1)",
        "list(ex.imap(slow, range(100)))",
        "list(ex.imap_unordered(slow, range(100)))",
    ],
)
def test_an_interrupted_call_of_a_pool_lets_the_next_task_run(wait, tmp_path):
    end = harness.script(BEGUN, "pool", tmp_path / "begun", "SIGINT", wait)
    assert (end.out, end.err) == ("8 True KeyboardInterrupt\n", "")


def wait_for(path):
    while not os.path.exists(path):
        pass


def test_an_interrupted_imap_goes_on_if_it_is_asked_again(tmp_path):
    """As that of multiprocessing."""
    gate = tmp_path / "open"

    def interrupt():
        harness.until(lambda: pool.executor.stats().running == 1, "the task to run")
        os.kill(os.getpid(), signal.SIGINT)

    with arenite.Pool(1) as pool:
        results = pool.imap(wait_for, [gate])
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt), harness.waiting("Ctrl-C"):
            next(results)
        thread.join()
        gate.touch()
        with harness.waiting("the result"):
            assert next(results) is None


def test_a_map_that_is_interrupted_while_it_submits_submits_nothing_more():
    class Items(list):
        def __iter__(self):
            for n in range(100):
                if n == 50:
                    raise KeyboardInterrupt
                yield n

    with arenite.Executor(1) as ex:
        with pytest.raises(KeyboardInterrupt) as saved:
            ex.map(abs, Items(range(100)))
        harness.until(lambda: ex.stats().queued == 0, "no task to be left")
        assert ex.stats().submitted <= 50
        assert saved.value is not None


EXITS = """
    import asyncio, contextlib, os, signal, sys, threading, time
    from concurrent.futures import ProcessPoolExecutor
    import arenite

    def write(folder, number):
        while not os.path.exists(f"{folder}/open"):
            time.sleep(0.005)
        open(f"{folder}/{number}", "w").close()

    def leave():
        sys.exit(2)

    class Own(BaseException):
        pass

    @contextlib.contextmanager
    def opening():
        # The first tasks run, and the others wait, until the block ends.
        try:
            yield
        finally:
            open(f"{folder}/open", "w").close()

    def submit(ex):
        return [ex.submit(write, folder, number) for number in range(6)]

    def generator():
        with make(2) as ex, opening():
            submit(ex)
            yield

    async def in_loop():
        with make(2) as ex, opening():
            for number in range(6):
                asyncio.get_running_loop().run_in_executor(ex, write, folder, number)
            sys.exit(3)

    def stop(*_):
        open(f"{folder}/open", "w").close()
        sys.exit(4)

    if __name__ == "__main__":
        make, folder = {"arenite": arenite.Executor, "stdlib": ProcessPoolExecutor}[sys.argv[1]], sys.argv[2]
        signal.signal(signal.SIGTERM, stop)
        exec(sys.argv[3])
"""

#: How a program with an executor ends.
ENDS = {
    "exit": "with make(2) as ex, opening(): submit(ex); sys.exit(0)",
    "message": "with make(2) as ex, opening(): submit(ex); sys.exit('no more')",
    "task": "with make(2) as ex, opening(): left = ex.submit(leave); submit(ex); left.result()",
    "signal": "with make(2) as ex, opening(): submit(ex); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "signal at a result": """
with make(2) as ex, opening():
    futures = submit(ex)
    threading.Timer(0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    futures[0].result()
""",
    "without a block": "ex = make(2); submit(ex)\nwith opening(): sys.exit(5)",
    "generator": "made = generator(); next(made); made.close(); print('closed')",
    "other exception": "with make(2) as ex, opening(): submit(ex); raise Own",
    "asyncio": "asyncio.run(in_loop())",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_ends_itself_loses_no_task(end, tmp_path):
    """As with the standard library."""
    found = {}
    for which in ("stdlib", "arenite"):
        folder = tmp_path / which
        folder.mkdir()
        ended = harness.script(EXITS, which, folder, ENDS[end])
        last = ended.err.splitlines()[-1:]
        found[which] = ended.code, ended.out, last, sorted(path.name for path in folder.iterdir())
    assert found["arenite"] == found["stdlib"]


@pytest.mark.parametrize("place", ["block", "task"])
def test_tasks_of_a_scope_that_exit_ends_are_counted(place):
    """A scope cancels its tasks after any exception, as `asyncio.TaskGroup` does."""
    source = """
        import sys, time, arenite
        with arenite.Executor(3) as ex, ex.scope() as scope:
            futures = [scope.submit(time.sleep, 3600) for _ in range(2)]
            while not futures[0].running():
                time.sleep(0.005)
            if sys.argv[1] == "block":
                scope.submit(time.sleep, 3600)
                sys.exit(3)
            scope.submit(sys.exit, 3)
    """
    end = harness.script(source, place)
    count = 3 if place == "block" else 2
    assert (end.code, end.err) == (3, f"arenite: SystemExit has ended {count} tasks that had not finished\n")


def test_a_signal_ends_the_wait_at_the_end_of_the_program():
    source = """
        import signal, sys, time, arenite
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        def stay():
            print("begun", flush=True)
            time.sleep(3600)
        ex = arenite.Executor(1, output="plain")
        futures = [ex.submit(stay) for _ in range(3)]
        sys.exit()
    """
    program = harness.Script(source)
    assert program.line() == "begun"
    program.signal(signal.SIGTERM)
    end = program.finish()
    assert "arenite: SystemExit has ended 3 tasks that had not finished\n" in end.err and not end.left, end


@pytest.mark.parametrize("use", "submit|map|exhausted map|exhausted packets|options|imap|share|scope".split("|"))
def test_an_executor_that_is_rebound_ends_its_workers(use):
    """Without the collector of cycles: six executors, and the workers of one are left, as with the standard library, and their template."""
    source = """
        import gc, os, sys
        import arenite, harness

        def use(ex):
            if sys.argv[1] == "submit":
                ex.submit(pow, 2, 2).result()
            elif sys.argv[1] == "map":
                list(ex.map(abs, [1, -2]))
            elif sys.argv[1].startswith("exhausted"):
                kept.append(ex.map(abs, range(2000), chunksize=None if sys.argv[1].endswith("packets") else 1))
                list(kept[-1])
            elif sys.argv[1] == "options":
                ex.options(deadline=50).submit(pow, 2, 2).result()
            elif sys.argv[1] == "share":
                import numpy
                ex.submit(len, ex.share(numpy.zeros(100_000))).result()
            else:
                with ex.scope() as scope:
                    scope.submit(pow, 2, 2)

        gc.disable()
        kept = []
        for _ in range(6):
            if sys.argv[1] == "imap":
                ex = arenite.Pool(2)
                list(ex.imap(abs, [1, -2]))
            else:
                ex = arenite.Executor(2)
                use(ex)
        harness.until(lambda: len(harness.children()) == 3, "the workers of the first five to end")
        print("ended")
        if sys.argv[1] == "imap":
            ex.terminate()
    """
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    end = harness.script(source, use, env={**os.environ, "PYTHONPATH": path}, flags=("-W", "ignore"))
    assert end.ok().out == "ended\n"


@pytest.mark.parametrize("is_shut_down", [False, True])
def test_tasks_of_a_dropped_executor_have_the_program(is_shut_down):
    source = """
        import concurrent.futures, logging, multiprocessing, sys
        import arenite

        begun, event = multiprocessing.Event(), multiprocessing.Event()
        class Late: pass

        def work():
            begun.set()
            logging.getLogger("own").warning("waited: %s", event.wait(60))
            return getattr(sys.modules["__main__"], "".join(["La", "te"])).__name__

        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        if sys.argv[1] == "arenite":
            ex = arenite.Executor(1)
        else:
            ex = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        future = ex.submit(work)
        begun.wait()
        if sys.argv[2] == "True":
            ex.shutdown(wait=False)
        del ex
        event.set()
        print(future.result(), flush=True)
    """
    expected, found = (harness.script(source, how, is_shut_down).ok().out for how in ("fork", "arenite"))
    assert sorted(found.splitlines()) == sorted(expected.splitlines()) == ["Late", "waited: True"]
