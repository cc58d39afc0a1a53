"""Programs: a task unpickles itself what has classes and functions of the program, which its code does not name."""

import contextlib
import enum
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


def attribute(name):
    import __main__

    return hasattr(__main__, name), repr(getattr(__main__, name, None))


def fails(data):
    return pickle.loads(data.replace(b"Point", b"Paint"))


INHERITED = CONTEXT.Queue()


def inherited():
    return INHERITED.get(timeout=30).scaled()


#: By name: the function, and its arguments. `{data}` stands for a pickle.
PROGRAMS = {
    "loads": lambda made: (pickle.loads, made.point),
    "load": lambda made: (load, made.point),
    "scaled": lambda made: (scaled, made.point),
    "class": lambda made: (load, pickle.dumps([Point, Outer.Inner])),
    "enumeration": lambda made: (load, pickle.dumps({Kind.A: Kind})),
    "function": lambda made: (call, pickle.dumps(scale), 4),
    "unpickler": lambda made: (unpickler, made.point),
    "file": lambda made: (file, made.file),
    "shelf": lambda made: (shelf, made.shelf),
    "elements": lambda made: (elements, made.manager.list([Point(3), Point(4)])),
    "values": lambda made: (elements, made.manager.dict({0: Point(3)}).values()),
    "queue": lambda made: (queued, made.queue()),
    "connection": lambda made: (received, made.connection()),
    "thread": lambda made: (in_thread, made.point),
    "child": lambda made: (in_child, made.point),
    "no attribute": lambda made: (attribute, "nothing"),
    "attribute": lambda made: (attribute, "FACTOR"),
    "no class": lambda made: (fails, made.point),
    "inherited": lambda made: (inherited,),
}
OF_FORK = {"inherited"}


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


def names():
    return [(f"lookups: {name}", ["fork"] if name in OF_FORK else ["fork", "spawn"]) for name in PROGRAMS]


def programs(which):
    with tempfile.TemporaryDirectory() as folder, CONTEXT.Manager() as manager:
        made = Made(folder, manager)
        for name, others in names():
            if which in (*others, "arenite"):
                INHERITED.put(Point(7))
                function, *arguments = PROGRAMS[name.removeprefix("lookups: ")](made)
                # Each in a worker that has got nothing for another program.
                with backends.executor(which) as ex:
                    yield name, backends.outcome(lambda: ex.submit(function, *arguments).result())


if __name__ == "__main__":
    backends.main(programs)
