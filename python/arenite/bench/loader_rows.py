"""Rows about `arenite.loader`, compared with other loaders and with batches by multiprocessing."""

import contextlib
import glob
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import time

from .row import Goal, NotInstalled, Row, check
from .table_rows import ALL_BUT_ARENITE

BATCH, WORKERS = 64, 2
#: Writes frames of 1080p, which it has in memory.
CAMERA = "import os, sys\nframe = memoryview(bytes(6220800))\nfor _ in range(int(sys.argv[1])):\n" + (
    " left = frame\n while left: left = left[os.write(1, left):]\n"
)
SHAPE = (1080, 1920, 3)


class Flat:
    """Samples of 602 KB that are in memory."""

    def __init__(self, size):
        import numpy

        self.base, self.size = numpy.random.default_rng(0).random((32, 224, 224, 3), numpy.float32), size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return self.base[index % 32]


class Records:
    """Samples of 16 bytes, of a list of Python objects."""

    def __init__(self, size):
        self.rows, self.size = [(number, number % 10) for number in range(size)], size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        import numpy

        return numpy.array(self.rows[index])


class Columns(Records):
    """The same in columns."""

    def __init__(self, size):
        import arenite.loader

        super().__init__(0)
        self.size = size
        self.rows = arenite.loader.share({"id": range(size), "label": [number % 10 for number in range(size)]})

    def __getitem__(self, index):
        import numpy

        row = self.rows[index]
        return numpy.array([row["id"], row["label"]])


class Jpeg:
    """Photos of 500 × 375, decoded and resized to 224 × 224."""

    def __init__(self, size):
        import cv2
        import numpy

        noise = numpy.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), numpy.uint8)
        self.files = [cv2.imencode(".jpg", cv2.resize(one, (500, 375)))[1] for one in noise]
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        import cv2

        cv2.setNumThreads(1)
        return cv2.resize(cv2.imdecode(self.files[index % 8], cv2.IMREAD_COLOR), (224, 224))


class Dies(Flat):
    """One sample ends its worker."""

    def __getitem__(self, index):
        if index == self.size // 2:
            os.abort()
        return super().__getitem__(index)


def set_dataset(dataset):
    global _dataset
    _dataset = dataset


def make_batch(indices):
    import numpy

    return numpy.stack([_dataset[index] for index in indices])


class Loading(Row):
    """An epoch of a dataset in batches of 64."""

    unit, less_is_better, needs, without = "samples/s", False, ("numpy",), ALL_BUT_ARENITE
    rounds, dataset, size = 5, Flat, 2048
    goals = [Goal(">=", 6, "torch"), Goal(">=", 10, "grain")]

    def prepare(self):
        self.data = self.dataset(self.size // 4 if self.is_quick else self.size)
        self.closing = contextlib.ExitStack()

    def begin(self, system):
        import arenite.loader

        self.loader = arenite.loader.Loader(self.data, BATCH, executor=system.executor)
        self.sample(system)

    def end(self, system):
        self.loader.close()

    def finish(self):
        self.closing.close()

    def sample(self, system):
        return self.epoch(self.loader)

    def epoch(self, batches):
        """Returns the figure of an epoch."""
        begin, count = time.perf_counter(), 0
        for batch in batches:
            count += len(batch)
            if count == BATCH:
                self.first = (time.perf_counter() - begin) * 1e3
        check(count == len(self.data), "samples")
        return self.figure(time.perf_counter() - begin)

    def figure(self, seconds):
        return len(self.data) / seconds

    def baselines(self):
        pool = self.closing.enter_context(multiprocessing.get_context("spawn").Pool(WORKERS, set_dataset, (self.data,)))
        parts = [range(k, min(k + BATCH, len(self.data))) for k in range(0, len(self.data), BATCH)]
        found = {"Pool.imap": lambda: self.epoch(pool.imap(make_batch, parts))}
        for name, make in (("torch", self.torch), ("grain", self.grain)):
            found[name] = lambda make=make: self.epoch(make())
        return found

    def torch(self):
        if not hasattr(self, "of_torch"):
            import torch.utils.data

            self.of_torch = torch.utils.data.DataLoader(self.data, BATCH, num_workers=WORKERS, persistent_workers=True)
            self.epoch(self.of_torch)
        return self.of_torch

    def grain(self):
        if importlib.util.find_spec("grain") is None:
            raise NotInstalled("grain")
        import grain

        batches = grain.MapDataset.source(self.data).to_iter_dataset(grain.ReadOptions(num_threads=1)).batch(BATCH)
        return batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=WORKERS))


class LoaderFlat(Loading):
    name, title = "loader-flat", "an epoch of samples of 602 KB"


class LoaderTiny(Loading):
    name, title, dataset, size = "loader-tiny", "an epoch of samples of 16 bytes, of Python objects", Records, 64_000
    goals = [Goal(">=", 2, "torch")]


class LoaderJpeg(Loading):
    name, title, dataset, size = "loader-jpeg", "an epoch of photos: JPEG of 500 × 375 to 224 × 224", Jpeg, 1024
    needs, goals = ("numpy", "cv2"), [Goal(">=", 0.97, "torch")]


class LoaderNext(Loading):
    name, title = "loader-next", "the first batch of a later epoch of samples of 602 KB"
    unit, less_is_better, goals = "ms", True, [Goal("<=", 10)]

    def figure(self, seconds):
        # As when a training loop saves its state between epochs.
        time.sleep(0.1)
        return self.first


class LoaderAbort(Loading):
    name, title = "loader-abort", "an epoch of 2048 samples of 602 KB of which one ends its worker, compared with none"
    unit, less_is_better, dataset, goals = "ms longer", True, Dies, [Goal("<=", 50)]

    def begin(self, system):
        import arenite.loader

        good = Flat(len(self.data))
        self.good = arenite.loader.Loader(good, BATCH, executor=system.executor)
        self.loader = arenite.loader.Loader(self.data, BATCH, executor=system.executor, on_error="skip")
        self.sample(system)

    def sample(self, system):
        return self.epoch(self.loader) - self.epoch(self.good)

    def figure(self, seconds):
        return seconds * 1e3

    def baselines(self):
        return {}


class LoaderMemory(Loading):
    name, title = "loader-memory", "memory (PSS) at the end of an epoch of 1,000,000 records, compared with its begin"
    unit, less_is_better, dataset, size, rounds, long = "×", True, Columns, 1_000_000, 1, True
    goals = [Goal("<=", 1.15)]

    def epoch(self, batches):
        before = now = count = 0
        for number, batch in enumerate(batches):
            count += len(batch)
            if number % 1000 == 50:
                before, now = before or total_pss(), total_pss()
        check(count == len(self.data), "samples")
        return now / before

    def baselines(self):
        return {}


def total_pss():
    """Returns the memory of this process and its descendants, in which shared pages count once."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path) as file:
            parents[int(path.split("/")[2])] = int(file.read().rpartition(")")[2].split()[1])
    found, total = {os.getpid()}, 0
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    for pid in found:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


def look(frame):
    return int(frame[::64, ::64].max())


def look_at_all(frames, results):
    while (frame := frames.get()) is not None:
        results.put(look(frame))


class Frames(Row):
    name, title, unit, less_is_better = "frames", "frames of 1080p from a pipe to two workers", "frames/s", False
    needs, without, rounds, count = ("numpy",), ALL_BUT_ARENITE, 5, 300
    goals = [Goal(">=", 3, "multiprocessing.Queue"), Goal(">=", 0.95, "into /dev/null")]

    def command(self):
        return [sys.executable, "-c", CAMERA, str(self.count)]

    def sample(self, system):
        import arenite.loader

        begin, futures = time.perf_counter(), []
        for frame in arenite.loader.frames(self.command(), SHAPE[1::-1], executor=system.executor):
            futures.append(system.executor.submit(look, frame))
            if len(futures) > 8:
                futures[-8].result()
        check([future.result() for future in futures] == [0] * self.count, "frames")
        return self.count / (time.perf_counter() - begin)

    def baselines(self):
        def queue():
            import numpy

            context = multiprocessing.get_context("fork")
            frames, results = context.Queue(4), context.Queue()
            workers = [context.Process(target=look_at_all, args=(frames, results)) for _ in range(WORKERS)]
            for worker in workers:
                worker.start()
            begin = time.perf_counter()
            with subprocess.Popen(self.command(), stdout=subprocess.PIPE) as child:
                for _ in range(self.count):
                    frame = numpy.empty(SHAPE, numpy.uint8)
                    child.stdout.readinto(memoryview(frame.reshape(-1)))
                    frames.put(frame)
            check([results.get() for _ in range(self.count)] == [0] * self.count, "frames")
            seconds = time.perf_counter() - begin
            for _ in workers:
                frames.put(None)
            for worker in workers:
                worker.join()
            return self.count / seconds

        def into_null():
            begin = time.perf_counter()
            with subprocess.Popen([*self.command()], stdout=subprocess.PIPE) as child:
                subprocess.run(["cat"], stdin=child.stdout, stdout=subprocess.DEVNULL, check=True)
            return self.count / (time.perf_counter() - begin)

        return {"multiprocessing.Queue": queue, "into /dev/null": into_null}


ROWS = (LoaderFlat, LoaderTiny, LoaderJpeg, LoaderNext, LoaderAbort, LoaderMemory, Frames)
