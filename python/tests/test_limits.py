"""Limits that other pools do not have: of arrays in a result, and of room for arguments."""

import asyncio
import os

import harness
import numpy
import pytest

import arenite


def vectors(count, size):
    return [numpy.full(size, n, numpy.float64) for n in range(count)]


def by_name(count, size):
    return {f"v{n}": vector for n, vector in enumerate(vectors(count, size))}


def shared(count):
    made = arenite.zeros(1000)
    return [made[n % 10 :] for n in range(count)]


def one(n):
    return numpy.full(600, n, numpy.float64)


@pytest.mark.parametrize("writable", [None, "copy"])
@pytest.mark.parametrize("count", [3999, 4000, 4001, 4096, 9000])
def test_any_number_of_arrays_in_a_result(count, writable):
    with arenite.Executor(1, capacity="1GiB", writable=writable) as ex:
        for size in (768, 9000) if count == 4096 else (768,):
            result = ex.submit(vectors, count, size).result()
            assert len(result) == count
            assert all(vector.shape == (size,) and vector[0] == vector[-1] == n for n, vector in enumerate(result))
        del result
        found = ex.submit(by_name, count, 768).result()
        assert found["v7"][3] == 7 and len(found) == count
        assert len(ex.submit(shared, count).result()) == count


def test_any_number_of_arrays_in_a_result_of_a_sandbox():
    with arenite.Executor(1, capacity="1GiB", sandbox=True, preload=["test_limits"]) as ex:
        result = ex.submit(vectors, 5000, 768).result()
        assert [int(vector[5]) for vector in result] == [*range(5000)]


def test_chunks_of_a_pool_may_have_many_arrays():
    with arenite.Pool(2, capacity="2GiB") as pool:
        result = pool.map(one, range(40_000))
        assert [int(vector[1]) for vector in result] == [*range(40_000)]


def test_a_function_that_refers_to_many_arrays():
    held = vectors(66_000, 512)
    with arenite.Executor(1, capacity="2GiB") as ex:
        assert ex.submit(lambda n: float(held[n][1]), 65_999).result() == 65_999


def element(table, n, path):
    harness.until(path.exists, "the gate")
    return float(table[n])


def test_submit_waits_for_room(tmp_path):
    """As the queue of another pool makes it wait: here there is room for three of the twenty arrays."""
    table = numpy.arange(2_000_000.0)
    with arenite.Executor(2, capacity="64MiB") as ex:
        harness.all_ready(ex)
        (tmp_path / "open").touch()
        with harness.waiting("twenty submits"):
            futures = [ex.submit(element, table, n, tmp_path / "open") for n in range(20)]
            assert [future.result() for future in futures] == [*range(20)]
        of_closure = [ex.submit(lambda n: float(table[n]), n) for n in range(20)]
        with harness.waiting("twenty results"):
            assert [future.result() for future in of_closure] == [*range(20)]


def test_submit_does_not_wait_where_nothing_can_end():
    table = numpy.zeros(2_000_000)
    with arenite.Executor(1, capacity="64MiB") as ex:
        kept = [ex.share(table + n) for n in range(4)]
        error = ex.submit(len, table).exception()
        assert isinstance(error, arenite.ArenaFull) and "ex.share(x)" in str(error)
        assert len(kept) == 4
        too_large = ex.submit(len, numpy.zeros(20_000_000)).exception()
        assert isinstance(too_large, arenite.ArenaFull)


def test_submit_does_not_wait_in_an_event_loop(tmp_path):
    table = numpy.zeros(2_000_000)
    gate = tmp_path / "open"

    async def main():
        futures = [ex.submit(element, table, n, gate) for n in range(6)]
        gate.touch()
        return await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)

    with arenite.Executor(1, capacity="64MiB") as ex, harness.waiting("the submits"):
        results = asyncio.run(main())
    errors = [result for result in results if isinstance(result, arenite.ArenaFull)]
    assert results[0] == 0 and errors and "ex.share(x)" in str(errors[0])


WITHOUT_FILES = """
import contextlib, os, resource, sys
import arenite

@contextlib.contextmanager
def without_files():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

def raised(call):
    with without_files():
        try:
            return call()
        except OSError as error:
            return error

CALLS = [
    lambda: ex.share(b"x" * 100_000), lambda: ex.empty(3), lambda: ex.zeros(3), lambda: ex.map(abs, [1]),
    lambda: ex.scope(), lambda: ex.actor(list), lambda: ex.serve(f"x{os.getpid()}", {"abs": abs}),
]
ex = arenite.Executor(1, output=None)
ex.submit(abs, -1).result()
assert raised(ex.stats).done == 1
for call in CALLS:
    error = raised(call)
    assert isinstance(error, OSError) and "ulimit -n" in str(error) and error.filename is None, error
for make in (arenite.Executor, arenite.Pool):
    assert "ulimit -n" in str(raised(make))
errors = []
for call in ((int, "x"), (os._exit, 3)):
    with without_files():
        errors.append(ex.submit(*call).exception(60))
assert "concurrent.futures.process" not in sys.modules
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
assert type(errors[0]) is ValueError and errors[0].__cause__ is not None, errors
assert type(errors[1]) is arenite.WorkerDied and errors[1].exit_code == 3, errors
assert isinstance(errors[1], BrokenProcessPool)
with ProcessPoolExecutor(1) as theirs:
    try:
        theirs.submit(os._exit, 3).result()
    except arenite.WorkerDied:
        raise
    except BrokenProcessPool:
        pass
assert ex.submit(abs, -2).result(60) == 2
ex.shutdown()
"""


def test_errors_are_described_while_no_file_can_be_opened():
    harness.script(WITHOUT_FILES).ok()


WITHOUT_ROOT = """
import os, sys
import arenite

ex = arenite.Executor(1, output=None)
ex.submit(abs, -1).result()
os.chroot(sys.argv[1])
stats = ex.stats()
assert stats.done == 1 and [worker.private_bytes for worker in stats.workers] == [0], stats
ex.shutdown()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the root directory")
def test_statistics_need_no_module_after_chroot(tmp_path):
    harness.script(WITHOUT_ROOT, str(tmp_path)).ok()


FEW_FILES = """
import concurrent.futures, os, resource, sys
import arenite

kept = []

def leak(limit):
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    while True:
        kept.append(open("/dev/null"))

def fail():
    raise ValueError("of the task")

if __name__ == "__main__":
    limit = int(sys.argv[1]) if sys.argv[1] else None
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    for make in (concurrent.futures.ProcessPoolExecutor, arenite.Executor):
        with make(1) as ex:
            errors = [ex.submit(*call).exception() for call in ((leak, limit), (fail,))]
            assert all("fail()" in str(error.__cause__) or "in fail" in str(error.__cause__) for error in errors[1:])
            print(*map(repr, errors), getattr(errors[0], "filename", None), ex.submit(abs, -1).result())
"""


@pytest.mark.parametrize("limit", ["", "0"])
def test_a_task_that_has_no_files_left_fails_with_its_own_error(limit):
    """As with the standard library: the first exception of a worker is described without the modules for that."""
    theirs, ours = harness.script(FEW_FILES, limit).ok().out.splitlines()
    assert ours == theirs
