"""Objects of `multiprocessing` that tasks share with the program, as globals that workers inherit. On fork."""

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
        is_same = NUMBER.value == STATE["numbers"][0].value
    for point in POINTS:
        point.x += x
    return is_same, PLAIN.value, ctypes.c_int(x).value


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


def numbers(on):
    "numbers, arrays and texts that are shared"
    for x in range(5):
        on.two.submit(add, x).result()
    yield list(on.two.map(add, range(9))), NUMBER.value, list(NUMBERS), list(RAWS), TEXT.value


def everything(on):
    "a lock and a number in a dictionary, and structures"
    before = NUMBER.value
    yield list(on.two.map(change_all, range(3))), NUMBER.value - before, [(point.x, point.y) for point in POINTS]


def locks(on):
    "locks, semaphores, barriers and events"
    yield list(on.two.map(use_locks, range(3))), EVENT.is_set()


def queues(on):
    "queues and pipes"
    list(on.two.map(put, range(5)))
    taken = [[one() for _ in range(5)] for one in (QUEUE.get, SIMPLE.get, JOINABLE.get, THERE.recv)]
    yield [sorted(one) for one in taken]


def classes(on):
    "locks and numbers in a class and in its object"
    list(on.two.map(count, range(5)))
    yield COUNTER.number.value, Counter.total.value


def condition(on):
    "a condition that the program notifies"
    waits = on.two.submit(wait, RAW.value)
    with CONDITION:
        RAW.value += 1
        CONDITION.notify_all()
    yield waits.result()


def result(on):
    "a shared number as a result is refused"
    yield on.two.submit(give_back, 1).result()


def argument(on):
    "a lock as an argument is refused"
    yield on.two.submit(print, LOCK).result()


if __name__ == "__main__":
    backends.run(globals())
