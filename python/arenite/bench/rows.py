"""The measured rows. Each row does the same work in every system, and checks the results after the clock has
stopped."""

import os
import socket
import subprocess
import sys
import tempfile
import time

from . import child, loader_rows, store_rows, table_rows, work
from .peer import Peer
from .row import Goal, Row, check, timed

PHOTOS, SHAPE, SMALL = 64, (1826, 1826, 3), (224, 224, 3)
GIB = 1 << 30
CHUNK = 125_000


class RoundTrip(Row):
    name, title, unit = "round-trip", "a no-op: submit, wait", "µs"
    goals = [Goal("<=", 0.4, "pool"), Goal("<=", 0.75, "threads")]
    rounds = 15
    calls = 200

    def sample(self, system):
        calls = 10 if system.heavy else self.calls
        begin = time.perf_counter()
        for _ in range(calls):
            system.call(work.noop)
        return (time.perf_counter() - begin) / calls * 1e6


class Submit(Row):
    name, title, unit, less_is_better = "submit-10k", "10,000 no-ops, one by one by submit", "tasks/s", False
    goals = [Goal(">=", 0.7, "threads"), Goal(">=", 6, "ppe")]
    count = 10_000

    def sample(self, system):
        count = self.count // 10 if system.heavy else self.count
        seconds, results = timed(system.submit_all, work.noop, range(count))
        check(results == [None] * count, "no-ops")
        return count / seconds


class Chain(Row):
    name, title, unit = "chain", "1,000 tasks, each takes the value of the one before", "µs a task"
    goals = [Goal("<=", 0.5, "dask")]
    rounds = 5
    count = 1000

    def sample(self, system):
        last = system.submit(work.successor, 0)
        begin = time.perf_counter()
        for _ in range(self.count):
            last = system.submit_after(work.successor, last)
        check(last.result() == self.count + 1, "sums")
        return (time.perf_counter() - begin) / self.count * 1e6


class Map(Row):
    name, title, unit, less_is_better = "map-10k", "10,000 squares by map, chunksize=1", "tasks/s", False
    goals = [Goal(">=", 2, "pool")]
    count = 10_000

    def sample(self, system):
        count = self.count // 10 if system.heavy else self.count
        seconds, results = timed(system.map_singly, work.square, range(count))
        check(results == [number * number for number in range(count)], "squares")
        return count / seconds


class MapChunks(Row):
    name, title, unit, less_is_better = "map-chunks", "100,000 squares by map, chunksize=1,250", "tasks/s", False
    count = 100_000

    def sample(self, system):
        seconds, results = timed(system.map_in_chunks, work.square, range(self.count), 1250)
        check(results == [number * number for number in range(self.count)], "squares")
        return self.count / seconds


class Resize(Row):
    unit, needs = "ms", ("numpy", "cv2")
    rounds = 5

    def prepare(self):
        import numpy

        generator = numpy.random.default_rng(1)
        one = generator.integers(0, 256, SHAPE, numpy.uint8)
        self.photos = [numpy.roll(one, number, axis=1) for number in range(PHOTOS)]
        self.expected = [work.resize(photo) for photo in self.photos]

    def run(self, system, photos):
        seconds, results = timed(system.map_singly, work.resize, photos)
        check(all((one == other).all() for one, other in zip(results, self.expected, strict=True)), "small photos")
        return seconds * 1e3


class ResizeResident(Resize):
    name, title = "resize-resident", "64 photos of 10 MB, put into shared memory before: shared"
    without = ("pool", "ppe", "loky", "pebble")
    goals = [
        Goal("<=", 1.1, "threads"),
        Goal("<=", 1 / 3, "pool", "resize-copied"),
        Goal("<=", 1 / 3, "loky", "resize-copied"),
    ]

    def begin(self, system):
        system.photos = [system.place(photo) for photo in self.photos]

    def sample(self, system):
        return self.run(system, system.photos)

    def end(self, system):
        del system.photos


class ResizeCopied(Resize):
    name, title = "resize-copied", "64 photos of 10 MB, ordinary arrays: copied once"
    goals = [Goal("<=", 1.4, "threads"), Goal("<=", 1 / 3, "pool"), Goal("<=", 1 / 3, "loky")]

    def sample(self, system):
        return self.run(system, self.photos)


class Born:
    """A row whose arrays numpy makes after `arenite.install()`: the programs are otherwise equal."""

    def prepare(self):
        from arenite import _arenite

        _arenite.install()
        super().prepare()
        _arenite.install(False)


class ResizeBorn(Born, ResizeCopied):
    name, title = "resize-born", "64 photos of 10 MB, after arenite.install(): shared"
    goals = [Goal("<=", 1.3, "threads"), Goal("<=", 0.1, "pool")]


class Touch(Row):
    unit, needs, long = "ms", ("numpy",), True
    rounds = 3

    def prepare(self):
        import numpy

        self.array = numpy.ones(GIB, numpy.uint8)

    def run(self, system, array):
        seconds, result = timed(system.call, work.touch, array)
        check(result == GIB // 4096, "sum of a byte of each page")
        return seconds * 1e3


class TouchResident(Touch):
    name, title = "touch-resident", "1 GiB in shared memory to a worker, a byte of each page read"
    without = ("pool", "ppe", "loky", "pebble")
    rounds = 9
    goals = [Goal("<=", 1.5, "threads")]

    def begin(self, system):
        system.array = system.place(self.array)

    def sample(self, system):
        return self.run(system, system.array)

    def end(self, system):
        del system.array


class TouchCopied(Touch):
    name, title = "touch-copied", "1 GiB, ordinary array, all pages read by a worker"
    goals = [Goal("<=", 1 / 8, "loky")]

    def sample(self, system):
        return self.run(system, self.array)


class TouchBorn(Born, TouchCopied):
    name, title = "touch-born", "1 GiB made by numpy after arenite.install(), to a worker, a byte of each page read"
    goals = [Goal("<=", 1.5, "arenite", "touch-resident")]


class SquareList(Row):
    name, title, unit = "square-list", "square a list of 1,000,000 ints by map, chunksize=125,000", "ms"
    goals = [Goal("<=", 0.75, "pool")]
    rounds = 5

    def prepare(self):
        self.numbers = list(range(1_000_000))
        self.expected = work.square_all(self.numbers)

    def sample(self, system):
        seconds, results = timed(system.map_in_chunks, work.square, self.numbers, CHUNK)
        check(results == self.expected, "squares")
        return seconds * 1e3


class SquareArray(Row):
    name, title, unit = "square-array", "square an array of 1,000,000 ints in shared memory, in two halves", "ms"
    needs = ("numpy",)
    without = ("pool", "ppe", "loky", "pebble", "ray", "dask")
    goals = [Goal("<=", 1.3, "numpy")]
    rounds = 25

    def prepare(self):
        import numpy

        self.array = numpy.arange(1_000_000)
        self.out = numpy.empty_like(self.array)
        self.expected = self.array * self.array

    def begin(self, system):
        system.array = system.place(self.array)
        system.out = system.empty(self.array.shape, self.array.dtype)

    def sample(self, system):
        system.out[...] = 0
        seconds, out = timed(system.fill_halves, system.array, system.out)
        check((out == self.expected).all(), "squares")
        return seconds * 1e3

    def alone(self):
        """Does the work in one process: the baseline `numpy`."""
        self.out[...] = 0
        seconds, _ = timed(work.square_into, self.array, self.out)
        check((self.out == self.expected).all(), "squares")
        return seconds * 1e3

    def end(self, system):
        del system.array, system.out


class Joblib(Row):
    """A row with `joblib.Parallel`, with the backend of this name, on two workers."""

    unit = "ms"
    needs = ("joblib", "numpy")
    without = ("pool", "ppe", "pebble", "threads", "ray", "dask")

    def end(self, system):
        if system.key == "arenite":
            import arenite.joblib

            arenite.joblib.shutdown()
        else:
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown()


class JoblibShared(Joblib):
    name, title = "joblib-shared", "joblib: 200 tasks with one 500 MB array"
    goals = [Goal("<=", 1 / 3, "loky")]
    rounds = 3
    long = True

    def prepare(self):
        import numpy

        self.array = numpy.ones(500_000_000, numpy.uint8)

    def sample(self, system):
        import arenite.joblib  # noqa: F401
        from joblib import Parallel, delayed

        # A new array each time, so that copies of the previous array cannot be reused.
        array = self.array.copy()
        seconds, results = timed(
            Parallel(n_jobs=2, backend=system.key), (delayed(work.touch)(array) for _ in range(200))
        )
        check(results == [len(array[::4096])] * 200, "sums")
        return seconds * 1e3


class GridSearch(Joblib):
    name, title = "grid-search", "scikit-learn: GridSearchCV of a small tree, 100 fits"
    needs = ("joblib", "sklearn")
    goals = [Goal("<=", 1, "loky")]
    rounds = 7

    def prepare(self):
        from sklearn.datasets import load_digits

        self.data = load_digits(return_X_y=True)

    def sample(self, system):
        import arenite.joblib  # noqa: F401
        from joblib import parallel_config
        from sklearn.model_selection import GridSearchCV
        from sklearn.tree import DecisionTreeClassifier

        grid = {"max_depth": list(range(2, 22))}
        search = GridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=5, n_jobs=2, refit=False)
        with parallel_config(backend=system.key, n_jobs=2):
            seconds, _ = timed(search.fit, *self.data)
        check(search.best_score_ > 0.7, "score")
        return seconds * 1e3


class InChild(Row):
    """A row whose samples run in separate programs: see `child.py`."""

    def sample(self, key, workers):
        return child.run(self.name, key, workers)


class Busy:
    """A row during which other programs, two for each core, use the processor all the time, with this nice value."""

    nice = 0

    def prepare(self):
        super().prepare()
        self.programs = []
        # These programs end with this program, however it ends. They run in its session, because Linux may divide the
        # processor by sessions first.
        burn = f"import os\nos.nice({self.nice})\nwhile os.getppid() == {os.getpid()}: sum(range(10000))"
        for _ in range(2 * len(os.sched_getaffinity(0))):
            self.programs.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", burn]))

    def finish(self):
        for program in self.programs:
            program.kill()
            program.wait()
        super().finish()


class BusyRoundTrip(Busy, RoundTrip):
    name, title = "busy-rtt", "a no-op: submit, wait; mean of 200, beside busy programs"
    goals = [Goal("<=", 2, "Unix socket, echo"), Goal("<=", 1, "pool")]

    def prepare(self):
        self.peer = Peer("echo")
        super().prepare()

    def finish(self):
        super().finish()
        self.peer.close()

    def baselines(self):
        echo = socket.socket(socket.AF_UNIX)
        echo.connect(self.peer.places["echo"])
        message = b"no-op".ljust(64)

        def sample():
            begin = time.perf_counter()
            for _ in range(self.calls):
                echo.sendall(message)
                check(echo.recv(4096) == message, "echo")
            return (time.perf_counter() - begin) / self.calls * 1e6

        return {"Unix socket, echo": sample}


class BusyRoundTripNice(BusyRoundTrip):
    name, title = "busy-rtt-nice", "the same beside programs at nice 10"
    nice = 10


class BusyOwn(RoundTrip):
    name, title = "busy-own", "a no-op: submit, wait; mean of 200, while another worker computes"
    # The thread that computes would have the lock of the interpreter.
    without = ("threads",)
    goals = [Goal("<=", 1, "pool")]

    def sample(self, system):
        with tempfile.TemporaryDirectory() as folder:
            computing = system.submit(work.compute_in, folder)
            while not os.path.exists(f"{folder}/begun"):
                time.sleep(0.001)
            figure = super().sample(system)
            os.remove(f"{folder}/begun")
            computing.result()
        return figure


class BusyMap(Busy, Map):
    name, title = "busy-map", "10,000 squares by map, chunksize=1, beside busy programs"
    goals = [Goal(">=", 1, "pool")]


class BusyMapNice(BusyMap):
    name, title = "busy-map-nice", "the same beside programs at nice 10"
    nice = 10


class BusyImages(Busy, ResizeCopied):
    name, title = "busy-images", "64 photos of 10 MB to 224×224, from ordinary memory, beside busy programs"
    goals = [Goal("<=", 1, "pool")]


class BusyImagesNice(BusyImages):
    name, title = "busy-images-nice", "the same beside programs at nice 10"
    nice = 10


class Start(InChild):
    name, title, unit = "start", "from the constructor to the first result, in a new program", "ms"
    goals = [Goal("<=", 0.3, "loky")]
    rounds = 7


class Crash(InChild):
    name, title, unit = "crash", "one of 100 tasks crashes: from its error to the next result", "ms"
    without = ("threads",)
    goals = [Goal("<=", 50)]
    rounds = 3


class CrashResults(InChild):
    name, title, unit = "crash-results", "one of 100 tasks crashes: results of the others", "results"
    less_is_better, whole = False, 99
    goals = [Goal(">=", 99)]
    rounds = 3


class Orphans(InChild):
    name, title, unit = "orphans", "processes left a second after the parent was killed", "processes"
    without = ("threads",)
    goals = [Goal("<=", 0)]
    rounds = 1


ALL = {
    row.name: row
    for row in (
        RoundTrip,
        Submit,
        Chain,
        Map,
        MapChunks,
        ResizeResident,
        ResizeCopied,
        ResizeBorn,
        TouchResident,
        TouchCopied,
        TouchBorn,
        SquareList,
        SquareArray,
        JoblibShared,
        GridSearch,
        BusyRoundTrip,
        BusyRoundTripNice,
        BusyOwn,
        BusyMap,
        BusyMapNice,
        BusyImages,
        BusyImagesNice,
        *table_rows.ROWS,
        *loader_rows.ROWS,
        *store_rows.ROWS,
        Start,
        Crash,
        CrashResults,
        Orphans,
    )
}
