"""Programs whose tasks share objects of `multiprocessing` with the program, as globals that workers inherit."""

import ctypes
import multiprocessing

import backends

#: With a start method that inherits, whatever the version of Python starts by.
CONTEXT = multiprocessing.get_context("fork")

LOCK, RLOCK, SEMAPHORE, BOUNDED = CONTEXT.Lock(), CONTEXT.RLock(), CONTEXT.Semaphore(2), CONTEXT.BoundedSemaphore(1)
CONDITION, EVENT, BARRIER = CONTEXT.Condition(), CONTEXT.Event(), CONTEXT.Barrier(1)
NUMBER, NUMBERS = CONTEXT.Value("i", 0), CONTEXT.Array("d", 3)
RAW, RAWS, TEXT = CONTEXT.RawValue("i", 5), CONTEXT.RawArray("i", 4), CONTEXT.Array("c", 8)
QUEUE, SIMPLE, JOINABLE = CONTEXT.Queue(), CONTEXT.SimpleQueue(), CONTEXT.JoinableQueue()
HERE, THERE = CONTEXT.Pipe()
STATE = {"lock": LOCK, "numbers": [NUMBER]}
PLAIN = ctypes.c_int(7)


class Counter:
    total = CONTEXT.Value("i", 0)

    def __init__(self):
        self.lock, self.number = CONTEXT.Lock(), CONTEXT.Value("L", 0)

    def add(self, x):
        with self.lock:
            self.number.value += x
        with Counter.total.get_lock():
            Counter.total.value += 1


COUNTER = Counter()


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


POINTS = CONTEXT.Array(Point, [(1, 2.5), (3, 4.5)])


def add(x):
    with NUMBER.get_lock():
        NUMBER.value += x
    with LOCK:
        NUMBERS[0] += x
        RAWS[1] += x
        TEXT.value = b"added"
    return x


def change_all(x):
    with STATE["lock"]:
        STATE["numbers"][0].value += x
    for point in POINTS:
        point.x += x
    return NUMBER.value == STATE["numbers"][0].value, PLAIN.value, ctypes.c_int(x).value


def use_locks(x):
    EVENT.set()
    with RLOCK, RLOCK, SEMAPHORE, CONDITION:
        return BARRIER.wait(), BOUNDED.acquire(False), BOUNDED.acquire(False), BOUNDED.release(), x


def put(x):
    for queue in (QUEUE, SIMPLE, JOINABLE):
        queue.put(x)
    HERE.send(x)


def count(x):
    COUNTER.add(x)


def wait(x):
    with CONDITION:
        return CONDITION.wait_for(lambda: RAW.value > x, 60), RAW.value


def give_back(x):
    return COUNTER.number


def numbers(ex):
    for x in range(5):
        ex.submit(add, x).result()
    return list(ex.map(add, range(9))), NUMBER.value, list(NUMBERS), list(RAWS), TEXT.value


def everything(ex):
    before = NUMBER.value
    return list(ex.map(change_all, range(3))), NUMBER.value - before, [(point.x, point.y) for point in POINTS]


def locks(ex):
    return list(ex.map(use_locks, range(3))), EVENT.is_set()


def queues(ex):
    list(ex.map(put, range(5)))
    taken = [[one() for _ in range(5)] for one in (QUEUE.get, SIMPLE.get, JOINABLE.get, THERE.recv)]
    return [sorted(one) for one in taken]


def classes(ex):
    list(ex.map(count, range(5)))
    return COUNTER.number.value, Counter.total.value


def condition(ex):
    waits = ex.submit(wait, RAW.value)
    with CONDITION:
        RAW.value += 1
        CONDITION.notify_all()
    return waits.result()


def result(ex):
    return ex.submit(give_back, 1).result()


def argument(ex):
    return ex.submit(print, LOCK).result()


PROGRAMS = [numbers, everything, locks, queues, classes, condition, result, argument]


def names():
    for program in PROGRAMS:
        yield f"shared: {program.__name__}", ["fork"]


def programs(which):
    for name, _ in backends.drawn(names()):
        with backends.executor(which, 2) as ex:
            yield name, backends.outcome(lambda: globals()[name.removeprefix("shared: ")](ex))


if __name__ == "__main__":
    backends.main(programs)
