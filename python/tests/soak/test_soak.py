"""Many tasks that go wrong in every way: each is answered once, as it must be, and nothing grows.

`ARENITE_SOAK_TASKS` sets the number of tasks (800; a full run has 100,000), `ARENITE_SOAK_EXITS` the number of exits
at random moments (20; 500), `ARENITE_SOAK_SEED` the seed.
"""

import contextlib
import ctypes
import gc
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import arenite
import harness
import pytest

pytestmark = pytest.mark.nightly
TASKS = int(os.environ.get("ARENITE_SOAK_TASKS", "800"))
EXITS = int(os.environ.get("ARENITE_SOAK_EXITS", "20"))
SEED = int(os.environ.get("ARENITE_SOAK_SEED") or random.SystemRandom().randrange(1 << 32))
GIANT = 1_000_000
IN_FLIGHT = 48
KILLS_EVERY = 500


def give(number):
    return number


def fail(number):
    raise ValueError(number)


def leave(code):
    os._exit(code)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def crash():
    ctypes.string_at(0)


def hang():
    time.sleep(3600)


def total(array):
    return int(array.sum())


def giant(number):
    import numpy

    return numpy.full(GIANT, number)


def giant_in_arena(number):
    return arenite.full(GIANT, number, "i8")


def unpicklable(_):
    return threading.Lock()


def died(**expected):
    return lambda error: (
        isinstance(error, arenite.WorkerDied) and all(getattr(error, name) == value for name, value in expected.items())
    )


class Kinds:
    """Ways to submit a task, each with its weight and what the answer has to be."""

    def __init__(self, executor, numpy):
        self.executor = executor
        self.numpy = numpy
        limited = executor.options(deadline=0.2)
        retried = executor.options(retries=1)
        lock = threading.Lock()
        is_ = lambda kind: lambda error: type(error) is kind  # noqa: E731
        kinds = [
            (900, self.plain(executor, give), lambda number: number),
            (30, self.plain(executor, fail), is_(ValueError)),
            (8, lambda number: executor.submit(leave, 3), died(exit_code=3)),
            (8, lambda number: executor.submit(kill_itself), died(signal=signal.SIGKILL)),
            (4, lambda number: executor.submit(crash), died(signal=signal.SIGSEGV)),
            (2, lambda number: retried.submit(kill_itself), died(signal=signal.SIGKILL, attempts=2)),
            (3, lambda number: limited.submit(hang), is_(arenite.DeadlineExceeded)),
            (10, lambda number: executor.submit(give, lock), is_(TypeError)),
            (10, lambda number: executor.submit(unpicklable, number), is_(TypeError)),
            (10, self.cancelled, None),
        ]
        if numpy:
            kinds += [
                (5, lambda number: executor.submit(total, numpy.full(GIANT, number)), lambda number: number * GIANT),
                (5, self.plain(executor, giant), self.is_giant),
                (5, self.plain(executor, giant_in_arena), self.is_giant),
            ]
        self.weights = [weight for weight, _, _ in kinds]
        self.kinds = kinds

    @staticmethod
    def plain(executor, function):
        return lambda number: executor.submit(function, number)

    def cancelled(self, number):
        future = self.executor.submit(hang) if number % 2 else self.executor.submit(give, number)
        future.cancel()
        return future

    def is_giant(self, number):
        return lambda value: value.shape == (GIANT,) and value[0] == value[-1] == number

    def pick(self, number, generator):
        """Each kind once, then any: what starts at the first task of its kind has started when `level` looks first."""
        if number < len(self.kinds):
            return self.kinds[number][1:]
        return generator.choices(self.kinds, self.weights)[0][1:]


def private():
    """Resident bytes that are not shared with workers: those of the arena are counted by the engine."""
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def threads():
    """How many threads of this process have which name."""
    names = Counter()
    for comm in Path("/proc/self/task").glob("*/comm"):
        # It may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names[comm.read_text().strip()] += 1
    return names


def level(executor):
    """What must not grow, at a moment without tasks, and without a worker that starts."""
    harness.all_ready(executor)
    harness.until(lambda: "arenite-hello" not in threads(), "the end of the thread that greets a worker")
    gc.collect()
    stats = executor.stats()
    return {
        "private": private(),
        "descriptors": len(harness.descriptors()),
        "threads": threads(),
        "used": stats.used_bytes - stats.kept_bytes,
        "processes": len(harness.children()),
    }


def is_right(expected, number, future):
    """Whether the answer is what this kind of task has to give."""
    if expected is None:
        if future.cancelled():
            return True
        # It may have ended before it was cancelled.
        return future.exception() is None and future.result() == number
    if future.cancelled():
        return False
    error = future.exception()
    try:
        wanted = expected(number) if error is None else expected(error)
    except TypeError:
        return False
    if error is not None:
        return wanted is True
    value = future.result()
    return bool(wanted(value)) if callable(wanted) else value == wanted


@pytest.mark.patience(300)
def test_soak():
    try:
        import numpy
    except ImportError:
        numpy = None
    print(f"ARENITE_SOAK_SEED={SEED}")
    generator = random.Random(SEED)
    # How often each task was answered. It does not grow.
    answers = bytearray(TASKS)
    wrong = []
    killed = outside = 0
    with arenite.Executor(max_workers=2, capacity="1GiB", output=None) as executor:
        kinds = Kinds(executor, numpy)
        room = threading.Semaphore(IN_FLIGHT)
        before = None

        def answered(number):
            def count(_):
                answers[number] += 1
                room.release()

            return count

        open_ = {}

        def check(some):
            nonlocal outside
            for number in list(some):
                future, expected = open_.pop(number)
                if is_right(expected, number, future):
                    continue
                # One that was killed from outside, whatever it was.
                if died(signal=signal.SIGKILL)(None if future.cancelled() else future.exception()):
                    outside += 1
                else:
                    wrong.append((number, future))

        for number in range(TASKS):
            with harness.waiting(f"room for task {number}; open: {len(open_)}"):
                room.acquire()
            submit, expected = kinds.pick(number, generator)
            future = submit(number)
            open_[number] = future, expected
            future.add_done_callback(answered(number))
            if number % 64 == 0:
                check([number for number, (future, _) in open_.items() if future.done()])
            if number % KILLS_EVERY == KILLS_EVERY // 2:
                worker = generator.choice(executor.stats().workers)
                with contextlib.suppress(ProcessLookupError):
                    # Only a child of this process: the number may have been given to another one meanwhile.
                    if worker.pid in harness.children():
                        os.kill(worker.pid, signal.SIGKILL)
                        killed += 1
            if number == TASKS // 4:
                for some in list(open_.values()):
                    with harness.waiting("a task of the first quarter"):
                        some[0].exception() if not some[0].cancelled() else None
                check(list(open_))
                future = some = None
                before = level(executor)
        for some, _ in list(open_.values()):
            with harness.waiting(f"the last {len(open_)} tasks"), contextlib.suppress(arenite.Cancelled):
                some.exception()
        check(list(open_))
        harness.until(lambda: sum(answers) >= TASKS, "the last callbacks")
        future = some = None
        # One may just end.
        with harness.waiting(f"no other threads than {before['threads']}, at first: {threads()}"):
            harness.until(lambda: threads() <= before["threads"], "the end of the others")
        after = level(executor)
        stats = executor.stats()
    print(f"{killed} workers killed from outside, {outside} tasks died of it; restarts: {stats.restarts}")
    print(before, after, sep="\n")
    assert wrong == []
    assert set(answers) == {1}
    assert outside <= killed
    # Workers keep chunks of the arena for their next results.
    assert after["used"] - before["used"] < 64 << 20, (before, after)
    for name in ("descriptors", "threads", "processes"):
        assert after[name] <= before[name], (name, before, after)
    assert after["private"] - before["private"] < 8 << 20, (before, after)


EXIT = """
    import os, random, signal, sys, threading, time
    import arenite

    generator = random.Random(int(sys.argv[1]))
    how = sys.argv[2]

    def work(number):
        time.sleep(number % 7 / 1000)
        return number

    def leave():
        if how == "sys.exit":
            sys.exit(0)
        if how == "os._exit":
            os._exit(0)
        if how == "raise":
            raise SystemExit(0)
        if how == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

    until = time.monotonic() + generator.random() * 0.3
    print("begun", flush=True)
    executors = [arenite.Executor(generator.randrange(1, 3)) for _ in range(generator.randrange(1, 3))]
    futures, maps = [], []
    while time.monotonic() < until:
        executor = generator.choice(executors)
        choice = generator.randrange(6)
        if choice == 0:
            maps.append(executor.map(work, range(20)))
        elif choice == 1 and maps:
            next(maps[-1], None)
        elif choice == 2:
            future = executor.submit(work, 3)
            future.add_done_callback(lambda future: None)
            futures.append(future)
        elif choice == 3 and futures:
            futures.pop().cancel()
        elif choice == 4 and futures:
            threading.Thread(target=futures.pop().cancelled, daemon=True).start()
        else:
            futures.append(executor.submit(work, 1))
        if len(futures) > 50:
            futures[0].done()
            del futures[:25]
    leave()
"""


@pytest.mark.patience(120)
def test_exits_at_random_moments():
    """Whenever and however a program ends, it leaves nothing behind, and says nothing where it ends on its own."""
    print(f"ARENITE_SOAK_SEED={SEED}")
    generator = random.Random(SEED)
    for number in range(EXITS):
        how = generator.choice(["end", "sys.exit", "os._exit", "raise", "signal", "killed", "ctrl-c", "terminated"])
        seed = generator.randrange(1 << 32)
        program = harness.Script(EXIT, seed, how if how not in ("ctrl-c", "terminated") else "end")
        program.what = f"exit {number}, {how}, seed {seed}"
        assert program.line() == "begun"
        if how in ("ctrl-c", "terminated"):
            # A random moment, not a wait.
            time.sleep(generator.random() * 0.4)
            with contextlib.suppress(ProcessLookupError):
                program.signal(signal.SIGINT if how == "ctrl-c" else signal.SIGTERM)
        end = program.finish()
        assert end.left == [], (number, how, seed, end)
        codes = {
            "signal": {-signal.SIGTERM},
            "killed": {-signal.SIGKILL},
            "terminated": {-signal.SIGTERM, 0},
            # It may end before the signal comes.
            "ctrl-c": {-signal.SIGINT, 130, 1, 0},
        }.get(how, {0})
        assert end.code in codes, (number, how, seed, end)
        if how in ("end", "sys.exit", "raise", "os._exit"):
            assert end.err == "", (number, how, seed, end)
