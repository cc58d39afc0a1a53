"""The plugin for Dask: a task that dies costs one task and no worker, arrays stay where they are on a node and leave it
as values, and a link that breaks loses no result."""

import contextlib
import ctypes
import faulthandler
import os
import random
import signal
import subprocess
import sys
import time

import arenite
import harness
import pytest
import test_values as values

distributed = pytest.importorskip("distributed")
np = pytest.importorskip("numpy")

import dask  # noqa: E402
from arenite.dask import ArenitePlugin  # noqa: E402

pytestmark = pytest.mark.leaves("sockets of Dask")

#: Seconds that Dask may take to start.
START = "60s"


@pytest.fixture(scope="module")
def client():
    """Two Dask workers with nannies, as in production."""
    config = {"distributed.comm.timeouts.connect": START, "distributed.logging.distributed": "error"}
    with dask.config.set(config), harness.waiting("two Dask workers"):
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None, memory_limit=0)
        client = distributed.Client(cluster, set_as_default=False)
        client.wait_for_workers(2)
    try:
        yield client
    finally:
        with harness.waiting("the end of Dask"):
            client.close()
            cluster.close()


@contextlib.contextmanager
def plugin(client, **options):
    """The plugin, on all workers."""
    client.register_plugin(ArenitePlugin(**options))
    try:
        yield
    finally:
        with harness.waiting("the plugin to go"):
            client.unregister_worker_plugin("arenite")


@pytest.fixture(autouse=True)
def no_process_stays(client):
    yield

    def left():
        parents = client.run(os.getpid).values()
        return [pid for parent in parents for pid in harness.children(parent) if harness.is_alive(pid)]

    harness.until(lambda: not left(), "the processes of the plugin to end", pause=0.05)


def results(futures):
    with harness.waiting("tasks of Dask"):
        return [future.exception() or future.result() for future in futures]


def addresses(client):
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def executor_of(dask_worker):
    return dask_worker.executors["arenite"]


def copied(dask_worker):
    return executor_of(dask_worker).stats().bytes_copied


def crash_at(n, bad=7):
    if n == bad:
        faulthandler.disable()
        ctypes.string_at(0)
    return os.getpid()


def stay(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(60)


def once_at_a_time(path, other):
    """Returns whether another call ran before; the first one stays until its process is ended."""
    try:
        with open(path, "x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return True
    while not os.path.exists(other):
        time.sleep(0.01)
    return False


def test_a_segfault_costs_one_task(client):
    before, pids = addresses(client), client.run(os.getpid)
    with plugin(client), dask.annotate(executor="arenite"):
        found = results(client.map(crash_at, range(40)))
        [died] = [result for result in found if isinstance(result, BaseException)]
        assert isinstance(died, arenite.WorkerDied) and found.index(died) == 7
        assert died.signal == signal.SIGSEGV and "crash_at" in str(died)
        # In processes of their own: neither Dask's nor always the same one.
        assert not {result for result in found if result is not died} & set(pids.values())
        # And it goes on.
        assert len(results(client.map(crash_at, range(100, 140)))) == 40
    assert (addresses(client), client.run(os.getpid)) == (before, pids)


def test_the_cause_reaches_the_user(client):
    """distributed#2297: a MemoryError does not."""
    with plugin(client, deadline=3, memory_limit="512MiB"), dask.annotate(executor="arenite"):
        late, large, raised = results(
            [client.submit(time.sleep, 600), client.submit(bytearray, 1 << 30), client.submit(divmod, 1, 0)]
        )
    assert isinstance(late, arenite.DeadlineExceeded) and late.deadline == 3
    assert isinstance(large, MemoryError)
    assert isinstance(raised, ZeroDivisionError)


def make(size):
    return arenite.full(size, 2.0)


def total(array):
    return float(array.sum())


def test_arrays_stay_on_a_node_and_leave_it_as_values(client):
    here, there = addresses(client)
    size = 250_000
    with plugin(client), dask.annotate(executor="arenite"):
        array = client.submit(make, size, workers=[here], pure=False)
        # From task to task on a node: without a copy.
        assert results([client.submit(total, array, workers=[here], pure=False)]) == [2.0 * size]
        assert client.run(copied, workers=[here])[here] == 0
        # On another one: its value, which is copied into the arena there.
        assert results([client.submit(total, array, workers=[there], pure=False)]) == [2.0 * size]
        assert client.run(copied, workers=[there])[there] == 8 * size
        # Elsewhere: an array.
        with harness.waiting("an array"):
            gathered = array.result()
        assert type(gathered) is np.ndarray and gathered.sum() == 2 * size
        # In Dask's own threads, and after the plugin is gone.
        with dask.annotate(executor="default"):
            assert results([client.submit(total, array, workers=[here], pure=False)]) == [2.0 * size]
    assert results([client.submit(total, array, workers=[here], pure=False)]) == [2.0 * size]


@pytest.mark.parametrize("case", range(3))
def test_futures_as_arguments_are_those_of_dask(client, case):
    """The same program of tasks that take each other's values, on Dask and on an executor."""
    dice = random.Random(values.SEED + case)
    with arenite.Executor(2) as ex:
        ours, theirs = [], []
        for number in range(60):
            taken = [dice.randrange(number) for _ in range(dice.randrange(4))] if number else []
            shape, size = dice.randrange(2), dice.choice([1, 10, 3000])
            wrong = f"{number} is wrong" if dice.random() < 0.05 else None
            for futures, submit in ((ours, ex.submit), (theirs, client.submit)):
                inputs = values.packed([futures[at] for at in taken], shape)
                futures.append(submit(values.combine, inputs, size, wrong))
        for one, other in zip(ours, theirs, strict=True):
            if (error := other.exception()) is None:
                assert np.array_equal(one.result(), other.result())
            else:
                assert type(one.exception()) is type(error)


def test_as_the_default(client):
    dasks = set(client.run(os.getpid).values())
    before = client.run(lambda dask_worker: str(dask_worker.executors["default"]))
    with plugin(client, default=True, max_workers=1):
        assert not set(results(client.map(crash_at, range(100, 110)))) & dasks
        assert set(client.run(lambda dask_worker: executor_of(dask_worker)._workers.count).values()) == {1}
    assert client.run(lambda dask_worker: str(dask_worker.executors["default"])) == before
    assert set(results(client.map(crash_at, range(200, 210)))) <= dasks


def test_delayed_functions_and_collections(client):
    array = pytest.importorskip("dask.array")
    with plugin(client):
        with dask.annotate(executor="arenite"):
            pid = dask.delayed(crash_at)(1)
            sums = array.ones(1000, chunks=100).map_blocks(lambda block: np.array([os.getpid()]), chunks=(1,))
        dasks = set(client.run(os.getpid).values())
        with harness.waiting("a graph"):
            assert client.compute(pid).result() not in dasks
            # Fusion of a graph drops annotations.
            assert not set(client.compute(sums, optimize_graph=False).result()) & dasks


def test_the_plugin_waits_for_tasks_when_it_goes(client, tmp_path):
    path, other = tmp_path / "path", tmp_path / "other"
    with plugin(client), dask.annotate(executor="arenite"):
        future = client.submit(once_at_a_time, str(path), str(other))
        harness.until(path.exists, "the task to run")
        other.touch()
    assert results([future]) == [False]


def test_tasks_of_a_worker_that_closes_run_elsewhere(tmp_path):
    path, other = tmp_path / "path", tmp_path / "other"
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(ArenitePlugin())
        with dask.annotate(executor="arenite"):
            future = client.submit(once_at_a_time, str(path), str(other))
        pid = int(harness.until(lambda: path.exists() and path.read_text(), "the task to run"))
        [its] = [
            worker
            for worker in cluster.workers.values()
            if pid in {process.pid for process in executor_of(worker).stats().workers}
        ]
        with harness.waiting("the worker to close"):
            cluster.sync(its.close)
        harness.until(lambda: not harness.is_alive(pid), "the process of its task to end")
        assert results([future]) == [True]


def pid_in(path):
    return int(harness.until(lambda: path.exists() and path.read_text().splitlines()[-1:], "the task to run")[0])


def drop(client, future):
    future.release()


def cancel(client, future):
    client.cancel([future])


@pytest.mark.parametrize("end", [drop, cancel])
def test_a_task_whose_result_is_not_wanted_is_ended(client, tmp_path, end):
    path = tmp_path / "path"
    with plugin(client, max_workers=1):
        with dask.annotate(executor="arenite"):
            future = client.submit(stay, str(path))
            pid = pid_in(path)
            end(client, future)
            harness.until(lambda: not harness.is_alive(pid), "the process of the task to end")
            # The threads of both Dask workers are free, and their processes are there.
            assert len(results(client.map(crash_at, range(200, 210)))) == 10
    assert len(addresses(client)) == 2


def is_known(key, dask_scheduler):
    return key in dask_scheduler.tasks


def test_a_task_that_is_wanted_again_runs_again(client, tmp_path):
    path, other = tmp_path / "path", tmp_path / "other"
    with plugin(client, max_workers=1), dask.annotate(executor="arenite"):
        for round in range(5):
            future = client.submit(once_at_a_time, str(path), str(other), key=f"again-{round}")
            pid = int(harness.until(lambda: path.exists() and path.read_text(), "the task to run"))
            future.release()
            # Or the client would go on with the first one.
            key = f"again-{round}"
            harness.until(lambda key=key: not client.run_on_scheduler(is_known, key), "the scheduler to forget it")
            again = client.submit(once_at_a_time, str(path), str(other), key=f"again-{round}")
            assert results([again]) == [True]
            harness.until(lambda pid=pid: not harness.is_alive(pid), "the first process to end")
            path.unlink()


def test_a_cancelled_task_goes_on_where_asked(client, tmp_path):
    path, other = tmp_path / "path", tmp_path / "other"
    with plugin(client, settings=arenite.Settings(cancel_running=False)), dask.annotate(executor="arenite"):
        future = client.submit(once_at_a_time, str(path), str(other))
        pid = int(harness.until(lambda: path.exists() and path.read_text(), "the task to run"))
        client.cancel([future])
        other.touch()
        assert len(results(client.map(crash_at, range(300, 310)))) == 10
        assert harness.is_alive(pid)


def test_functions_of_a_script():
    """dask/distributed#6803: with a process pool, functions of `__main__` do not arrive."""
    code = """
        import os, dask
        offset = 10
        def work(n): return n + offset
        if __name__ == "__main__":
            from distributed import Client, LocalCluster
            from arenite.dask import ArenitePlugin
            cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
            with cluster, Client(cluster) as client:
                client.register_plugin(ArenitePlugin())
                with dask.annotate(executor="arenite"):
                    print(client.gather(client.map(work, range(3))))
    """
    ran = harness.script(code)
    assert (ran.code, ran.out, ran.left) == (0, "[10, 11, 12]\n", []), ran


# ---- two machines


class Machines:
    """Network namespaces that are connected to a first one, each named by a process that holds it.

    Nothing outside of them is changed, and all is gone with the processes."""

    def __init__(self, count):
        self.processes = []
        self.hosts = [self.start(["unshare", "--net", "sleep", "infinity"]) for _ in range(count + 1)]
        for host in self.hosts:
            ours = os.readlink("/proc/self/ns/net")
            harness.until(lambda pid=host.pid: os.readlink(f"/proc/{pid}/ns/net") != ours, "a network namespace")
        self.ip(0, "link add bridge type bridge")
        self.ip(0, "addr add 10.77.0.1/24 dev bridge")
        self.ip(0, "link set bridge up")
        self.ip(0, "link set lo up")
        for host in range(1, count + 1):
            self.ip(0, f"link add link{host} type veth peer name eth0 netns {self.hosts[host].pid}")
            self.ip(0, f"link set link{host} master bridge")
            self.ip(0, f"link set link{host} up")
            self.ip(host, f"addr add 10.77.0.{host + 1}/24 dev eth0")
            self.ip(host, "link set eth0 up")
            self.ip(host, "link set lo up")

    def start(self, command, **options):
        process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE, **options)
        self.processes.append(process)
        return process

    def inside(self, host):
        return ["nsenter", "--net", "--target", str(self.hosts[host].pid), "--"]

    def ip(self, host, command):
        subprocess.run([*self.inside(host), "ip", *command.split()], check=True, capture_output=True)

    def python(self, host, *arguments, **options):
        return self.start([*self.inside(host), sys.executable, *arguments], **options)

    def end(self):
        for process in reversed(self.processes):
            for pid in harness.of_session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()


@pytest.fixture
def machines():
    made = None
    try:
        try:
            made = Machines(2)
        except (OSError, subprocess.CalledProcessError) as error:
            if os.environ.get("ARENITE_MUST_TRY"):
                raise
            said = getattr(error, "stderr", b"") or b""
            pytest.skip(f"network namespaces are not permitted here: {error} {said.decode()}")
        yield made
    finally:
        if made is not None:
            made.end()


CLIENT = """
import ctypes, faulthandler, os, sys, time
import dask, distributed
from arenite.dask import ArenitePlugin

def crash_at(n):
    if n == 7:
        faulthandler.disable()
        ctypes.string_at(0)
    return n

def work(n):
    time.sleep(0.1)
    return n

with distributed.Client("tcp://10.77.0.1:8786") as client:
    client.wait_for_workers(2)
    client.register_plugin(ArenitePlugin())
    with dask.annotate(executor="arenite"):
        futures = client.map(crash_at, range(40))
        distributed.wait(futures)
        erred = [(n, future) for n, future in enumerate(futures) if future.status == "error"]
        failed = [(type(future.exception()).__name__, n) for n, future in erred]
        print(failed, sum(future.status == "finished" for future in futures), len(client.nthreads()), flush=True)

        futures = client.map(work, range(100))
        # Until the machine that is cut off holds results, and has tasks to do.
        where = {}
        while not any("10.77.0.3" in address for held in where.values() for address in held):
            time.sleep(0.02)
            where = client.who_has(futures)
        print("cut", sum(future.done() for future in futures) < 100, flush=True)
        sys.stdin.readline()
        found = client.gather(futures)
        print(found == list(range(100)), flush=True)
"""


@pytest.mark.patience(180)
def test_a_link_that_is_cut_loses_no_result(machines, tmp_path):
    """Scheduler and client on one machine, and a worker on each of two others."""
    env = {
        **os.environ,
        "PYTHONWARNINGS": "ignore",
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s",
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": START,
    }
    log = open(tmp_path / "log", "w")
    options = {"env": env, "cwd": tmp_path, "stderr": log, "text": True}
    with log:
        machines.python(
            0, "-m", "distributed.cli.dask_scheduler", "--host", "10.77.0.1", "--port", "8786", "--no-dashboard",
            stdout=log, **options,
        )  # fmt: skip
        for host in (1, 2):
            machines.python(
                host, "-m", "distributed.cli.dask_worker", "tcp://10.77.0.1:8786", "--nthreads", "2", "--no-dashboard",
                "--host", f"10.77.0.{host + 1}", "--local-directory", str(tmp_path), stdout=log, **options,
            )  # fmt: skip
        (tmp_path / "client.py").write_text(CLIENT)
        client = machines.python(0, "client.py", stdout=subprocess.PIPE, **options)

        def line(what):
            with harness.waiting(what):
                return client.stdout.readline() or (tmp_path / "log").read_text()[-3000:]

        assert line("40 tasks, of which one crashes") == "[('WorkerDied', 7)] 39 2\n"
        assert line("the second machine to have results") == "cut True\n"
        machines.ip(0, "link set link2 down")
        client.stdin.write("\n")
        client.stdin.flush()
        assert line("all results, after the scheduler has given the machine up") == "True\n"
        with harness.waiting("the client to end"):
            assert client.wait() == 0


def test_a_sandbox_is_refused():
    """Dask unpickles what tasks send."""
    with pytest.raises(ValueError, match="Dask unpickles"):
        ArenitePlugin(sandbox="strict")
