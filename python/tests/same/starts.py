"""Processes that a task starts, and that import the main file again. On fork and spawn."""

import concurrent.futures
import multiprocessing
import os

import backends

FACTOR = 4


class Point:
    def __init__(self, x):
        self.x = x


def nothing():
    pass


def times(x):
    return x * FACTOR


def answer(queue, point):
    queue.put(Point(times(point.x)))


def process(method):
    child = multiprocessing.get_context(method).Process(target=nothing)
    child.start()
    child.join()
    return child.exitcode


def queue(method):
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=answer, args=(answers, Point(3)))
    child.start()
    # A child that fails sends nothing.
    child.join()
    return child.exitcode or isinstance(answers.get(), Point)


def executor(method):
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as ex:
        return list(ex.map(times, range(3)))


def main_module():
    "the path of the main file"
    import __main__

    return os.path.basename(__main__.__file__), os.path.basename(__file__), __main__.__spec__


def by_spawn():
    "a process, a queue and a pool that a task starts by spawn"
    return process("spawn"), queue("spawn"), executor("spawn")


def by_forkserver():
    "a process, a queue and a pool that a task starts by forkserver"
    return process("forkserver"), queue("forkserver"), executor("forkserver")


if __name__ == "__main__":
    backends.run(globals())
