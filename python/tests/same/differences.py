"""Intended differences: each program gives True on arenite and False on the other pools. On fork.

Its title is how the first cell of a row in the table of docs/python.md begins.
"""

import contextlib
import enum
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import weakref

import backends
import numpy
import plugins

LATER, CHANGED, CALLS = [1], [1], []
MASKED = numpy.ma.zeros(3)
MASKED_PART = MASKED[1:]
HELD = [1]
HOLDER = threading.local()
HOLDER.held = HELD
NAN = float("nan")
NANS = {NAN}
NESTED = [1]
for _ in range(2_000):
    NESTED = [NESTED]


def given(on, task, *arguments):
    return backends.outcome(on.ex.submit(task, *arguments).result)


def look_later():
    return list(LATER)


def later(on):
    "globals and classes that the program changes later"
    on.ex.submit(look_later).result()
    LATER.append(2)
    yield on.ex.submit(look_later).result() == [1, 2]


def by_value(on):
    "lambdas, closures, local classes, modules"
    yield given(on, lambda: 3) == "int 3"


class Part:
    dropped = None

    def __init__(self):
        self.dropped = [1]

    def __getstate__(self):
        return {}


PART = Part()


def look_part():
    return PART.dropped


def in_part(on):
    "globals whose class pickles a part of them"
    yield given(on, look_part) == "NoneType None"


def change_global():
    CHANGED.append(2)
    return len(CHANGED)


def task_changes(on):
    "globals that a task changes, with loky and joblib"
    with backends.Pools(on.which if on.is_ours else "loky").executor() as ex:
        yield [ex.submit(change_global).result() for _ in range(2)] == [2, 3]


class Counting:
    calls = 0

    def __call__(self, x):
        self.calls += 1
        return self.calls


def of_chunk(on):
    "what a callable object holds, in `Pool.map` without `chunksize`"
    yield on.pool.map(Counting(), range(40)) == [1] * 40


def write_part():
    MASKED_PART[0] = 5
    return float(MASKED[1])


def views(on):
    "views in globals of masked arrays"
    yield on.ex.submit(write_part).result() == 0


def is_held():
    return getattr(HOLDER, "held", None) is HELD


def beyond(on):
    "objects that globals share"
    yield not on.ex.submit(is_held).result()


def depth():
    value, count = NESTED, 0
    while isinstance(value, list):
        value, count = value[0], count + 1
    return count


def nested(on):
    "tuples, lists and dictionaries in a global, one in the other a few hundred deep"
    yield "NESTED" in given(on, depth)


def has_nan():
    return NAN in NANS, math.isnan(NAN)


def of_nan(on):
    "a NaN that globals share, also with `math.nan` and `np.nan` (`value is NAN`, `{NAN}`)"
    yield on.ex.submit(has_nan).result() == (False, True)


class Thing:
    pass


THING = Thing()
WEAK, SHOWS = weakref.ref(THING), memoryview(bytearray(b"abc"))


def look_weakly():
    return WEAK() is THING


def look_through():
    return SHOWS[0]


def of_weak_references(on):
    "weak references and proxies, `memoryview`"
    yield "uses the global `WEAK`" in given(on, look_weakly) and "uses the global `SHOWS`" in given(on, look_through)


class Lists(list, enum.Enum):
    ONE = [1]


def look_at_member():
    return Lists.ONE.value


def of_enumerations(on):
    "enumerations of `list`"
    yield "TypeError" in given(on, look_at_member)


class Listed(plugins.Named):
    name = "listed"


def look_for_class():
    return Listed.__name__ and "LISTED" in plugins.Named.known


def of_registered_classes(on):
    "classes whose imported base or metaclass registers them"
    yield given(on, look_for_class) == "bool False"


def input_of_map(on):
    "the input of `map`"
    items = iter(range(100_000 if on.is_ours else 1_000))
    results = on.ex.map(abs, items)
    next(results)
    yield next(items, None) is not None


def fails_first(x):
    return 1 // x


def after_exception(on):
    "a map after the exception of a call"
    results, found = on.ex.map(fails_first, [0, 1]), []
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError, StopIteration):
            found.append(next(results))
    yield found == [1]


def stops(x):
    raise StopIteration(x)


def of_stop(on):
    "`StopIteration` of a task"
    yield "RuntimeError" in given(on, stops, 1)


def waits():
    time.sleep(2)
    return "finished"


def at_shutdown(on):
    "`shutdown(cancel_futures=True)`"
    ex = on.executor()
    running = ex.submit(waits)
    while not running.running():
        time.sleep(0.01)
    ex.shutdown(cancel_futures=True)
    yield "Cancelled" in backends.outcome(running.result)


def in_task():
    with backends.Pools("arenite" if "arenite" in sys.modules else "fork").executor() as ex:
        return ex.submit(abs, -1).result()


def in_tasks(on):
    "executors and pools that a task makes"
    yield "RuntimeError" in given(on, in_task)


def terminates(number):
    os.kill(os.getpid(), number)
    return number


def of_signals(on):
    "SIGINT, SIGTERM and SIGHUP to a worker, also from its own task"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with on.executor() as ex:
            yield backends.outcome(ex.submit(terminates, number.value).result) == f"int {number.value}"


def ends(pid):
    # Within two seconds.
    for _ in range(200):
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def is_blocked():
    return signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def of_blocked_signals(on):
    "signals that the program has blocked"
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    with on.executor() as ex:
        yield not ex.submit(is_blocked).result()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])


def sets_handler():
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(3))
    return os.getpid()


def while_idle(on):
    "handlers of signals that a task has set, while their worker is idle"
    with on.executor() as ex:
        worker = ex.submit(sets_handler).result()
        os.kill(worker, signal.SIGUSR1)
        yield not ends(worker)


def starts():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]).pid


def of_programs(on):
    "programs that a task starts"
    with on.executor() as ex:
        started = ex.submit(starts).result()
    yield ends(started)
    with contextlib.suppress(ProcessLookupError):
        os.kill(started, signal.SIGKILL)


if __name__ == "__main__":
    backends.run(globals())
