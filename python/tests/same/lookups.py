"""What a task unpickles itself has classes and functions of the program that its code does not name. On fork and spawn.

Each program has a worker of its own, which has got nothing for another one.
"""

import contextlib
import enum
import functools
import io
import multiprocessing
import os
import pickle
import shelve
import tempfile
import threading

import backends

CONTEXT = multiprocessing.get_context("fork")
FACTOR = 10
LOCK = threading.Lock()


def scale(x):
    with LOCK:
        return x * FACTOR


class Base:
    def scaled(self):
        return scale(self.x)


class Point(Base):
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"Point({self.x})"


class Outer:
    class Inner:
        number = 4


class Kind(enum.Enum):
    A = 1


def load(data):
    return pickle.loads(data)


def scaled(data):
    return pickle.loads(data).scaled()


def call(data, *arguments):
    return pickle.loads(data)(*arguments)


def unpickler(data):
    return pickle.Unpickler(io.BytesIO(data)).load().scaled()


def file(path):
    with open(path, "rb") as opened:
        return pickle.load(opened).scaled()


def shelf(path):
    with shelve.open(path) as opened:
        return opened["point"].scaled()


def elements(points):
    return [point.scaled() for point in points], points[0]


def queued(queue):
    return queue.get(timeout=30).scaled()


def received(connection):
    return connection.recv().scaled()


def in_thread(data):
    found = []
    threads = [threading.Thread(target=lambda: found.append(pickle.loads(data).scaled())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def in_child(data):
    reading, writing = os.pipe()
    if not (child := os.fork()):
        with contextlib.suppress(BaseException):
            os.write(writing, str(pickle.loads(data).scaled()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    return os.read(reading, 100)


def attribute(*names):
    import __main__

    return [(hasattr(__main__, name), repr(getattr(__main__, name, None))) for name in names]


def fails(data):
    return pickle.loads(data.replace(b"Point", b"Paint"))


#: By title: the function, and its arguments.
PROGRAMS = {
    "an object that pickle.loads gives": lambda made: (pickle.loads, made.point),
    "an object that a function loads": lambda made: (scaled, made.point),
    "classes, also one in another, that a function loads": lambda made: (load, pickle.dumps([Point, Outer.Inner])),
    "an enumeration that a function loads": lambda made: (load, pickle.dumps({Kind.A: Kind})),
    "a function that a task loads and calls": lambda made: (call, pickle.dumps(scale), 4),
    "an object of an Unpickler": lambda made: (unpickler, made.point),
    "an object in a file": lambda made: (file, made.file),
    "an object in a shelf": lambda made: (shelf, made.shelf),
    "objects in a list of a manager": lambda made: (elements, made.manager.list([Point(3), Point(4)])),
    "an object in a queue of a manager": lambda made: (queued, made.queue()),
    "an object through a connection": lambda made: (received, made.connection()),
    "objects that threads of a task load": lambda made: (in_thread, made.point),
    "an object that a child of a task loads": lambda made: (in_child, made.point),
    "attributes of __main__, one of which is missing": lambda made: (attribute, "nothing", "FACTOR"),
    "a class that the program does not have": lambda made: (fails, made.point),
}


class Made:
    """What the arguments of the programs are made of."""

    def __init__(self, folder, manager):
        self.manager = manager
        self.point = pickle.dumps(Point(3))
        self.file, self.shelf = f"{folder}/file", f"{folder}/shelf"
        with open(self.file, "wb") as opened:
            opened.write(self.point)
        with shelve.open(self.shelf) as opened:
            opened["point"] = Point(3)

    def queue(self):
        made = self.manager.Queue()
        made.put(Point(5))
        return made

    def connection(self):
        mine, theirs = multiprocessing.Pipe()
        mine.send(Point(6))
        mine.close()
        return theirs


def in_folder(make, on):
    with tempfile.TemporaryDirectory() as folder, CONTEXT.Manager() as manager:
        task, *arguments = make(Made(folder, manager))
        yield on.ex.submit(task, *arguments).result()


for _title, _make in PROGRAMS.items():
    backends.program(_title, functools.partial(in_folder, _make))

if __name__ == "__main__":
    backends.run(globals(), is_fresh=True)
