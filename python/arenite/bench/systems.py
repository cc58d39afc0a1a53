"""The compared systems, each with the same interface."""

import contextlib
import importlib
import importlib.util
import os

from . import work


class System:
    """A system that runs functions in other processes or threads.

    `key`: its name on the command line and in goals; `package`: the package that must be installed; `heavy`: whether
    its background processes would disturb the other systems: then its turns come after theirs.
    """

    key = name = package = None
    #: The modules that `load` imports; the time of a start does not include them.
    modules = ()
    heavy = False
    #: Whether the system continues after the process of a task has died.
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
        """Starts one call. The result has `result(timeout)`."""
        raise NotImplementedError

    def call(self, function, *arguments):
        """Makes one call, and waits for its result."""
        return self.submit(function, *arguments).result()

    def submit_after(self, function, task):
        """Starts a call with the value of a task as its argument."""
        return self.submit(function, task.result())

    def submit_all(self, function, items):
        """Submits a call for each item; then waits for all results."""
        return [future.result() for future in [self.submit(function, item) for item in items]]

    def map_singly(self, function, items):
        """Calls the system's `map` with one item at a time."""
        raise NotImplementedError

    def map_in_chunks(self, function, items, chunk):
        """Calls the system's `map` with `chunk` items at a time."""
        raise NotImplementedError

    def place(self, array):
        """Puts an array where workers read it without a copy; returns None if the system has no such place."""
        return None

    def fill_halves(self, array, out):
        """Computes `out[:] = array * array` by two tasks that write into `out` from `empty`; None if they cannot."""
        return None

    def empty(self, shape, dtype):
        return None


class Arenite(System):
    key, name = "arenite", "arenite"
    # The module of `arenite.Executor`, which `import arenite` does not load.
    modules = ("arenite._core.executor",)

    def __init__(self, workers):
        import arenite

        self.executor = arenite.Executor(max_workers=workers)
        self.submit = self.executor.submit

    def close(self):
        # A turn that was stopped leaves tasks behind.
        self.executor.shutdown(cancel_futures=True)

    def submit_after(self, function, task):
        return self.submit(function, task)

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
    """`concurrent.futures`, and pools with its interface."""

    def close(self):
        self.executor.shutdown(cancel_futures=True)

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

        # The fastest start method, and the default up to Python 3.13.
        self.executor = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))


class Loky(Futures):
    key, name, package = "loky", "loky", "loky"
    modules = ("loky",)
    survives = False

    def __init__(self, workers):
        import loky

        self.executor = loky.ProcessPoolExecutor(workers)

    def close(self):
        self.executor.shutdown(kill_workers=True)


class Threads(Futures):
    key, name = "threads", "ThreadPoolExecutor"
    modules = ("concurrent.futures.thread",)

    def __init__(self, workers):
        import concurrent.futures

        self.executor = concurrent.futures.ThreadPoolExecutor(workers)

    def map_in_chunks(self, function, items, chunk):
        # The `map` of this system has no chunks, so chunks are made here.
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
        # Prevents reports to the vendor.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        # Prevents a token file in the home folder.
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

    def submit_after(self, function, task):
        return self.submit(function, task.reference)

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

    submit_after = submit

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
    """Starts systems. Yields the systems by key, and the reasons why others did not start."""
    running, failed = {}, {}
    try:
        # Systems that fork start before systems that start threads.
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
