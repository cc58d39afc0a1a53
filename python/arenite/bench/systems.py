"""The systems that are compared, each behind the same few calls."""

import contextlib
import importlib
import importlib.util
import os

from . import work


class System:
    """One way to run functions in other processes or threads.

    `key` names it on the command line and in goals; `package` has to be installed. A system whose background processes
    would disturb the others is `heavy`, and takes its turns after them.
    """

    key = name = package = None
    #: What `load` imports: not part of the time that a start takes.
    modules = ()
    heavy = False
    #: What remains of a task whose process dies.
    survives = True

    @classmethod
    def is_installed(cls):
        return cls.package is None or importlib.util.find_spec(cls.package) is not None

    @classmethod
    def load(cls):
        for module in cls.modules:
            importlib.import_module(module)

    def __init__(self, workers):
        raise NotImplementedError

    def close(self):
        raise NotImplementedError

    def submit(self, function, *arguments):
        """Starts one call; the result has `result(timeout)`."""
        raise NotImplementedError

    def call(self, function, *arguments):
        """One call, waited for."""
        return self.submit(function, *arguments).result()

    def submit_all(self, function, items):
        """A call for each item, one by one; then all results."""
        return [future.result() for future in [self.submit(function, item) for item in items]]

    def map_singly(self, function, items):
        """By the system's `map`, one item at a time."""
        raise NotImplementedError

    def map_in_chunks(self, function, items, chunk):
        """By the system's `map`, `chunk` items at a time."""
        raise NotImplementedError

    def place(self, array):
        """Puts an array where workers read it without a copy; None where there is no such place."""
        return None

    def fill_halves(self, array, out):
        """`out[:] = array * array` by two tasks that write into `out`, which `empty` made; None where they cannot."""
        return None

    def empty(self, shape, dtype):
        return None


class Arenite(System):
    key, name = "arenite", "arenite"
    # Where `arenite.Executor` is, which `import arenite` alone does not load.
    modules = ("arenite._executor",)

    def __init__(self, workers):
        import arenite

        self.executor = arenite.Executor(max_workers=workers)
        self.submit = self.executor.submit

    def close(self):
        self.executor.shutdown()

    def map_singly(self, function, items):
        return list(self.executor.map(function, items, chunksize=1))

    def map_in_chunks(self, function, items, chunk):
        return list(self.executor.map(function, items, chunksize=chunk))

    def place(self, array):
        return self.executor.share(array)

    def empty(self, shape, dtype):
        return self.executor.empty(shape, dtype)

    def fill_halves(self, array, out):
        import arenite

        half = len(array) // 2
        tasks = [
            self.submit(work.square_into, array[part], arenite.mut(out[part]))
            for part in (slice(0, half), slice(half, None))
        ]
        for task in tasks:
            task.result()
        return out


class Futures(System):
    """`concurrent.futures` and what follows its interface."""

    def close(self):
        self.executor.shutdown()

    def submit(self, function, *arguments):
        return self.executor.submit(function, *arguments)

    def map_singly(self, function, items):
        return list(self.executor.map(function, items, chunksize=1))

    def map_in_chunks(self, function, items, chunk):
        return list(self.executor.map(function, items, chunksize=chunk))


class Processes(Futures):
    key, name = "ppe", "ProcessPoolExecutor"
    modules = ("concurrent.futures.process", "multiprocessing")
    survives = False

    def __init__(self, workers):
        import concurrent.futures
        import multiprocessing

        # Its fastest way to start, and the default up to Python 3.13.
        self.executor = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))


class Loky(Futures):
    key, name, package = "loky", "loky", "loky"
    modules = ("loky",)
    survives = False

    def __init__(self, workers):
        import loky

        self.executor = loky.ProcessPoolExecutor(workers)


class Threads(Futures):
    key, name = "threads", "ThreadPoolExecutor"
    modules = ("concurrent.futures.thread",)

    def __init__(self, workers):
        import concurrent.futures

        self.executor = concurrent.futures.ThreadPoolExecutor(workers)

    def map_in_chunks(self, function, items, chunk):
        # Its `map` has no chunks: by hand.
        def run(start):
            return [function(item) for item in items[start : start + chunk]]

        parts = self.executor.map(run, range(0, len(items), chunk))
        return [result for part in parts for result in part]

    def place(self, array):
        return array

    def empty(self, shape, dtype):
        import numpy

        return numpy.empty(shape, dtype)

    def fill_halves(self, array, out):
        half = len(array) // 2
        parts = [slice(0, half), slice(half, None)]
        for task in [self.submit(work.square_into, array[part], out[part]) for part in parts]:
            task.result()
        return out


class Pool(System):
    key, name = "pool", "multiprocessing.Pool"
    modules = ("multiprocessing.pool",)

    class Task:
        def __init__(self, answer):
            self.result = answer.get

    def __init__(self, workers):
        import multiprocessing

        self.pool = multiprocessing.get_context("fork").Pool(workers)

    def close(self):
        self.pool.terminate()
        self.pool.join()

    def submit(self, function, *arguments):
        return self.Task(self.pool.apply_async(function, arguments))

    def call(self, function, *arguments):
        return self.pool.apply(function, arguments)

    def map_singly(self, function, items):
        return list(self.pool.imap(function, items, chunksize=1))

    def map_in_chunks(self, function, items, chunk):
        return self.pool.map(function, items, chunksize=chunk)


class Pebble(System):
    key, name, package = "pebble", "pebble", "pebble"
    modules = ("pebble",)

    def __init__(self, workers):
        import pebble

        self.pool = pebble.ProcessPool(max_workers=workers)

    def close(self):
        self.pool.stop()
        self.pool.join()

    def submit(self, function, *arguments):
        return self.pool.schedule(function, args=arguments)

    def map_singly(self, function, items):
        return self.map_in_chunks(function, items, 1)

    def map_in_chunks(self, function, items, chunk):
        return list(self.pool.map(function, items, chunksize=chunk).result())


class Ray(System):
    key, name, package = "ray", "Ray", "ray"
    modules = ("ray",)
    heavy = True

    class Task:
        def __init__(self, reference):
            self.reference = reference

        def result(self, timeout=None):
            import ray

            return ray.get(self.reference, timeout=timeout)

    @classmethod
    def load(cls):
        # Nothing is sent to anybody.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        # No token is written to the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        super().load()

    def __init__(self, workers):
        import ray

        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )
        self.remotes = {}

    def close(self):
        import ray

        ray.shutdown()

    def submit(self, function, *arguments):
        import ray

        if function not in self.remotes:
            self.remotes[function] = ray.remote(max_retries=0)(function)
        return self.Task(self.remotes[function].remote(*arguments))

    def submit_all(self, function, items):
        import ray

        return ray.get([self.submit(function, item).reference for item in items])

    map_singly = submit_all

    def map_in_chunks(self, function, items, chunk):
        import ray

        parts = [items[start : start + chunk] for start in range(0, len(items), chunk)]
        whole = ray.get([self.submit(each, function, part).reference for part in parts])
        return [result for part in whole for result in part]

    def place(self, array):
        import ray

        return ray.put(array)


def each(function, items):
    return [function(item) for item in items]


class Dask(System):
    key, name, package = "dask", "Dask", "distributed"
    modules = ("distributed",)
    heavy = True

    def __init__(self, workers):
        import dask
        import distributed

        dask.config.set({"distributed.admin.large-graph-warning-threshold": "100GB"})
        self.cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=0
        )
        self.client = distributed.Client(self.cluster)

    def close(self):
        self.client.close()
        self.cluster.close()

    def submit(self, function, *arguments):
        return self.client.submit(function, *arguments, pure=False, retries=0)

    def submit_all(self, function, items):
        return self.client.gather([self.submit(function, item) for item in items])

    def map_singly(self, function, items):
        return self.client.gather(self.client.map(function, items, pure=False))

    def map_in_chunks(self, function, items, chunk):
        parts = [items[start : start + chunk] for start in range(0, len(items), chunk)]
        whole = self.client.gather([self.submit(each, function, part) for part in parts])
        return [result for part in whole for result in part]

    def place(self, array):
        return self.client.scatter(array, broadcast=True)


ALL = {system.key: system for system in (Arenite, Pool, Processes, Loky, Pebble, Threads, Ray, Dask)}


@contextlib.contextmanager
def started(keys, workers):
    """Starts systems; yields them by key, and the reasons of those that did not start."""
    running, failed = {}, {}
    try:
        # Those that fork before any that starts threads.
        for key in sorted(keys, key=lambda key: key not in ("pool", "ppe")):
            try:
                ALL[key].load()
                running[key] = ALL[key](workers)
                running[key].call(work.noop)
            except Exception as error:
                failed[key] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
                if key in running:
                    with contextlib.suppress(Exception):
                        running.pop(key).close()
        yield {key: running[key] for key in keys if key in running}, failed
    finally:
        for system in running.values():
            with contextlib.suppress(Exception):
                system.close()
