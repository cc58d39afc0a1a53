"""Rows about arrays and functions of another program, compared with other ways to access them."""

import os
import shutil
import socket
import sys

from .. import _machine
from . import work
from .peer import FIRST, LAST, SHM, Peer, Redis
from .row import Goal, NotInstalled, Row, check, timed
from .table_rows import ALL_BUT_ARENITE

GIB = 1 << 30


class OfPeer(Row):
    """A row with a peer. `holders`: the names in `peer.HOLDERS` of the functions that the peer runs."""

    needs = ("numpy",)
    without = ALL_BUT_ARENITE
    holders = ()
    elements = 0

    def prepare(self):
        self.peer = Peer(*self.holders, elements=self.elements)

    def finish(self):
        self.peer.close()


class OfStore(OfPeer):
    def missing(self):
        missing = super().missing()
        if _machine.command() is None:
            missing.append("the command `arenite` on PATH or in ARENITE_COMMAND, for its server")
        return missing

    def begin(self, system):
        import arenite

        self.store = arenite.connect(self.peer.places["store"])

    def end(self, system):
        self.store.close()


def free_memory():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))


def needs_memory(bytes):
    if free_memory() < bytes:
        return [f"{bytes / GIB:.1f} GiB of free memory"]
    return []


class Get(OfStore):
    """Opens the array, uses it and releases it, `calls` times."""

    calls, few_calls = 50, 10
    elements = 2_500_000
    #: The result of `use`.
    expected = FIRST, LAST
    beside = ("shared_memory", "pyarrow", "Redis")
    #: The number of units in a second.
    units = 1e6

    def prepare(self):
        usable = {
            "shared_memory": True,
            "pyarrow": self.is_there("pyarrow"),
            "Redis": shutil.which("redis-server") is not None,
        }
        self.holders = ("store", *(name for name in self.beside if usable[name]))
        self.redis = None
        super().prepare()

    def finish(self):
        if self.redis is not None:
            self.redis.socket.close()
        super().finish()

    def use(self, array):
        return float(array[0]), float(array[-1])

    def run(self, get, few=False):
        """Measures `get(use)`, which opens the array and returns `use(array)`."""
        calls = self.few_calls if few or self.is_quick else self.calls

        def all_calls():
            return [get(self.use) for _ in range(calls)]

        seconds, found = timed(all_calls)
        check(found == [self.expected] * calls, "elements")
        return seconds / calls * self.units

    def sample(self, system):
        return self.run(lambda use: use(self.store["x"]))

    def baselines(self):
        found = {"shared_memory": self.shared_memory, "pyarrow": self.pyarrow, "Redis": self.of_redis}
        return {name: found[name] for name in self.beside}

    def shared_memory(self):
        from multiprocessing import resource_tracker
        from multiprocessing.shared_memory import SharedMemory

        import numpy

        name = self.peer.places["shared_memory"]
        options = {"track": False} if sys.version_info >= (3, 13) else {}

        def get(use):
            memory = SharedMemory(name, **options)
            array = numpy.ndarray(self.elements, "f4", memory.buf)
            array.flags.writeable = False
            result = use(array)
            del array
            memory.close()
            return result

        try:
            return self.run(get)
        finally:
            if not options:
                # The tracker would remove the memory of the peer.
                resource_tracker.unregister(f"/{name}", "shared_memory")

    def pyarrow(self):
        import pyarrow.ipc

        path = self.peer.places["pyarrow"]

        def get(use):
            with pyarrow.memory_map(path) as file:
                return use(pyarrow.ipc.read_tensor(file).to_numpy())

        return self.run(get)

    def of_redis(self):
        if "Redis" not in self.peer.places:
            raise NotInstalled("redis-server")
        if self.redis is None:
            self.redis = Redis(self.peer.places["Redis"])
        return self.run(lambda use: use(self.redis.get()), few=True)


class GetSmall(Get):
    name, title, unit = "store-get", "another program's array of 10 MB, its first and last element read", "µs"
    goals = [Goal("<=", 0.05, "Redis"), Goal("<=", 2, "shared_memory")]
    rounds = 15


class GetLarge(Get):
    name, title, unit = "store-get-1gib", "the same with an array of 1 GiB; --quick: 16 MiB", "ms"
    goals = [Goal("<=", 1)]
    beside = ("shared_memory", "pyarrow")
    units = 1e3
    calls = 20
    long = True

    def missing(self):
        # The array is in the store, in shared memory and in a file; a copy exists while the file is written.
        size = 4 * self.size()
        missing = super().missing() + needs_memory(size + (size >> 3))
        filesystem = os.statvfs(SHM)
        if filesystem.f_bavail * filesystem.f_frsize < size // 2 + (64 << 20):
            missing.append(f"{size / 2 / GIB:.1f} GiB free in {SHM}")
        return missing

    def prepare(self):
        self.elements = self.size() // 4
        super().prepare()

    def size(self):
        return 16 << 20 if self.is_quick else GIB


class Sum(Get):
    name, title, unit = "store-sum", "another program's array of 10 MB, all elements read: their sum", "ms"
    expected = Get.elements - 2 + FIRST + LAST
    units = 1e3
    calls = 20

    def use(self, array):
        return float(array.sum())


class Seal(OfStore):
    name, title, unit = "store-seal-1gib", "a filled draft of 1 GiB, unmapped: seal, publish; --quick: 16 MiB", "ms"
    goals = [Goal("<=", 10)]
    rounds = 5
    holders = ("store",)
    long = True

    def missing(self):
        return super().missing() + needs_memory(self.size() + (self.size() >> 2))

    def prepare(self):
        # Determines the capacity of the store; the array is removed.
        self.elements = self.size() // 4
        super().prepare()

    def begin(self, system):
        super().begin(system)
        del self.store["x"]

    def size(self):
        return 16 << 20 if self.is_quick else GIB

    def run(self, is_unmapped):
        draft = self.store.draft(self.size(), "u1")
        draft.array[:] = 1
        if is_unmapped:
            draft.array = None
            draft.memory.release()
            draft._mapped.close()
        seconds, info = timed(draft.publish, "filled")
        check(info["bytes"] == self.size(), "size")
        check((self.store["filled"][:: self.size() // 16] == 1).all(), "elements")
        del self.store["filled"]
        return seconds * 1e3

    def sample(self, system):
        return self.run(True)

    def baselines(self):
        return {"with unmapping": lambda: self.run(False)}


class ServiceCall(OfPeer):
    name, title, unit = "service-call", "add(1, 2) in another program: call, wait", "µs"
    needs = ()
    # Pools call workers of this program, so they cannot do this work.
    without = ("ppe", "loky", "pebble", "threads", "ray", "dask")
    holders = ("service", "echo")
    rounds = 15
    calls, few_calls = 200, 20

    def prepare(self):
        super().prepare()
        self.echo = self.executor = None

    def finish(self):
        if self.echo is not None:
            self.echo.close()
        super().finish()

    def begin(self, system):
        if system.key == "arenite":
            import arenite

            self.executor = system.executor
            self.service = arenite.service.connect(self.peer.places["service"])

    def end(self, system):
        if system.key == "arenite":
            self.service.close()

    def run(self, add):
        calls = self.few_calls if self.is_quick else self.calls

        def all_calls():
            return [add() for _ in range(calls)]

        seconds, found = timed(all_calls)
        check(found == [3] * calls, "sums")
        return seconds / calls * 1e6

    def sample(self, system):
        if system.key == "arenite":
            return self.run(lambda: self.service.call("add", 1, 2))
        return self.run(lambda: system.call(work.add, 1, 2))

    def baselines(self):
        self.echo = socket.socket(socket.AF_UNIX)
        self.echo.connect(self.peer.places["echo"])
        message = b"add(1, 2)".ljust(64)

        def echo():
            self.echo.sendall(message)
            return 3 if self.echo.recv(4096) == message else None

        found = {"Unix socket, echo": lambda: self.run(echo)}
        if self.executor is not None:
            found["Executor, own workers"] = lambda: self.run(lambda: self.executor.submit(work.add, 1, 2).result())
        return found


ROWS = (GetSmall, GetLarge, Sum, Seal, ServiceCall)
