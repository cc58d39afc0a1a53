"""Short calls of a map that are sent in packets: what one of them does is no other's concern."""

import collections
import itertools
import multiprocessing
import os
import sys
import time
import weakref

import harness
import pytest

import arenite
from arenite._core import packing

#: So many that there are packets, whatever the first calls take.
MANY = 20_000


@pytest.fixture(scope="module")
def ex():
    with arenite.Executor(2) as executor:
        list(executor.map(abs, range(100)))
        yield executor


@pytest.fixture
def tasks(ex):
    """Number of tasks since the test began."""
    before = ex.stats().submitted
    return lambda: ex.stats().submitted - before


def square(n):
    return n * n


def outcomes(results):
    """All values, and the exceptions in the places of others."""
    found = []
    results = iter(results)
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:
            found.append(error)


def calls(ex, function, items, how):
    """What a map returns, in the order of the items."""
    if how == "map":
        return ex.map(function, items)
    pool = arenite.Pool.__new__(arenite.Pool)
    pool.__dict__.update(_state="RUN", executor=ex, _processes=2, _threads=[])
    try:
        return getattr(pool, how)(function, items)
    finally:
        pool._state = "TERMINATE"


@pytest.mark.parametrize("how", ["map", "imap"])
def test_short_calls_are_fewer_tasks_and_give_the_same(ex, tasks, how):
    assert list(calls(ex, square, range(MANY), how)) == [n * n for n in range(MANY)]
    # The second map goes by the time of the first one.
    assert 4 <= tasks() < MANY / 4


def test_later_maps_go_by_the_time_that_earlier_ones_have_measured(ex):
    class Cube:
        def __call__(self, n):
            return n**3

    assert list(ex.map(Cube(), range(MANY))) == [n**3 for n in range(MANY)]
    before = ex.stats().submitted
    # Otherwise each of them is a task of its own, to measure its time.
    assert list(ex.map(Cube(), range(4))) == [0, 1, 8, 27]
    assert ex.stats().submitted - before < 4


def test_values_of_all_kinds_arrive_as_they_are(ex):
    values = [
        None, True, False, 0, -1, 2**62, 2**63, -(2**63) - 1, 10**400, 1.5, float("inf"), -0.0, 1j, "", "text", "\ud800",
        "\0é€😀", b"", b"\0bytes", bytearray(b"array"), (), (1,), (1, (2.0, ("three", (None, (b"5",))))), [1, [2]], {"a": {1: 2}},
        {1, 2}, frozenset({3}), range(5), "long" * 5000, b"long" * 5000, [0] * 5000, ("long" * 5000,), {n: str(n) for n in range(99)},
    ]  # fmt: skip
    given = list(itertools.islice(itertools.cycle(values), 5000))
    found = list(ex.map(lambda value: value, given))
    assert found == given and [type(one) for one in found] == [type(one) for one in given]
    assert str(found[11]) == "-0.0"
    pairs = list(zip(given, reversed(given), strict=True))
    assert list(ex.map(lambda *both: both, *zip(*pairs, strict=True))) == pairs


def test_calls_do_not_share_what_they_change(ex):
    shared = [0]
    assert list(ex.map(lambda one, n: (one.append(n), len(one))[1], itertools.repeat(shared), range(2000))) == [2] * 2000
    assert shared == [0]


@pytest.mark.parametrize("how", ["map", "imap"])
def test_an_exception_is_that_of_one_call(ex, how):
    def work(n):
        if n % 1000 == 500:
            raise ValueError(n)
        if n % 1000 == 501:
            return next(iter(()))
        return n

    for n, found in enumerate(outcomes(calls(ex, work, range(MANY), how))):
        if n % 1000 == 500:
            assert type(found) is ValueError and found.args == (n,)
            assert "in work" in str(found.__cause__)
        elif n % 1000 == 501:
            assert type(found) is RuntimeError
        else:
            assert found == n


@pytest.mark.parametrize("how", ["map", "imap"])
def test_a_crash_costs_one_call_and_each_call_begins_once(ex, how, tmp_path):
    journal = str(tmp_path / "begun")

    def work(n):
        with open(journal, "a") as file:
            file.write(f"{n}\n")
        if n in (0, 700, 701, 1999):
            os._exit(3)
        return n

    found = outcomes(calls(ex, work, range(2000), how))
    died = [n for n, one in enumerate(found) if isinstance(one, arenite.WorkerDied)]
    assert died == [0, 700, 701, 1999]
    assert [one for n, one in enumerate(found) if n not in died] == [n for n in range(2000) if n not in died]
    assert {found[n].exit_code for n in died} == {3}
    with open(journal) as file:
        assert sorted(map(int, file)) == list(range(2000))


def test_calls_end_as_they_come_where_one_crashes(ex):
    def work(n):
        return os._exit(3) if n == 777 else n

    found = outcomes(calls(ex, work, range(2000), "imap_unordered"))
    assert [type(one) for one in found if not isinstance(one, int)] == [arenite.WorkerDied]
    assert sorted(one for one in found if isinstance(one, int)) == [n for n in range(2000) if n != 777]


def test_a_function_that_crashes_before_its_first_call_fails_each_call(ex):
    class Crash:
        def __call__(self, n): ...

        def __reduce__(self):
            return os._exit, (4,)

    found = outcomes(ex.map(Crash(), range(12)))
    assert [type(one) for one in found] == [arenite.WorkerDied] * 12


def test_a_slow_call_does_not_delay_those_before_and_behind_it(ex, tmp_path):
    """The call waits until the program has seen the results before it, and until a call that comes later has run."""
    gate, later = tmp_path / "gate", tmp_path / "later"

    def work(n):
        if n == 3000:
            while not (gate.exists() and later.exists()):
                time.sleep(0.001)
        if n == 3100:
            later.touch()
        return n

    results = iter(calls(ex, work, range(4000), "imap"))
    with harness.waiting("the results before the slow call"):
        assert [next(results) for _ in range(3000)] == list(range(3000))
    harness.until(later.exists, "a call behind the slow one, which no one asks for")
    gate.touch()
    assert list(results) == list(range(3000, 4000))


@pytest.mark.leaves("the memory of the barrier")
def test_calls_that_become_slow_run_beside_each_other(tmp_path):
    """Two calls wait for each other: as tasks of their own they meet, and so they do in a packet."""
    with arenite.Executor(2, initializer=keep, initargs=(multiprocessing.Barrier(2),)) as ex:
        assert list(ex.map(meet, range(5000))) == list(range(5000))


def keep(given):
    multiprocessing.barrier = given


def meet(n):
    if n in (4000, 4001):
        multiprocessing.barrier.wait()
    return n


def test_packets_that_lose_their_cores_have_more_time():
    """What others take of a core is not the time of calls, but delays packets as slow calls do."""
    pace = packing.Pace()
    for late in (0, 0, 0.1):
        pace.note(0.001, late, 100, 100)
    assert pace.time == 0.00001 and pace.size == 400 and pace.late == 0.2
    for _ in range(20):
        pace.note(0.001, 0, 100, 100)
    assert pace.late == 0


def test_a_map_that_no_one_reads_goes_on(ex, tmp_path):
    def work(n):
        if n == 4999:
            (tmp_path / "last").touch()

    results = ex.map(work, range(5000))
    harness.until((tmp_path / "last").exists, "the last call")
    del results


@pytest.mark.parametrize("wait", [True, False])
def test_a_shutdown_runs_all_calls(wait, tmp_path):
    journal = str(tmp_path / "begun")

    def work(n):
        with open(journal, "ab", 0) as file:
            file.write(b"x")
        return n

    ex = arenite.Executor(2)
    results = ex.map(work, range(3000))
    ex.shutdown(wait=wait)
    if wait:
        assert os.path.getsize(journal) == 3000
    assert list(results) == list(range(3000))


def test_a_map_that_is_dropped_begins_no_further_call(ex, tmp_path):
    begun, gate = tmp_path / "begun", tmp_path / "gate"

    def work(n):
        if n >= 2000:
            with open(begun, "ab", 0) as file:
                file.write(b"x")
            while not gate.exists():
                time.sleep(0.001)
        return n

    results = iter(calls(ex, work, range(MANY), "imap"))
    assert [next(results) for _ in range(2000)] == list(range(2000))
    harness.until(begun.exists, "a slow call")
    del results
    gate.touch()
    harness.until(lambda: ex.stats().running == ex.stats().queued == 0, "the tasks to end")
    assert begun.stat().st_size < 200


def test_an_input_may_wait_for_calls_before(ex, tmp_path):
    def work(n):
        (tmp_path / str(n)).touch()
        return n

    def numbers():
        for n in range(300):
            if n:
                harness.until((tmp_path / str(n - 1)).exists, "the call before")
            yield n

    assert list(ex.map(work, numbers())) == list(range(300))


def test_a_buffersize_bounds_how_far_the_input_is_read(ex):
    pulled = itertools.count()
    results = ex.map(square, iter(lambda: next(pulled), None), buffersize=1000)
    for n in range(3000):
        assert next(results) == n * n
        # The next one to be pulled; this look is one itself.
        if n % 500 == 0:
            assert pulled.__reduce__()[1][0] <= 1000 + n + 1


def test_arrays_and_what_is_lent_arrive(ex):
    np = pytest.importorskip("numpy")
    table, out = ex.share(np.arange(20_000.0)), ex.zeros((600, 8))
    assert list(ex.map(lambda rows, n: rows[n], itertools.repeat(table), range(2000))) == list(range(2000))
    large = list(ex.map(lambda n: np.full(2000, n), range(300)))
    assert [one.shape for one in large] == [(2000,)] * 300 and [int(one[-1]) for one in large] == list(range(300))

    def fill(row, n):
        row[:] = n

    assert list(ex.map(fill, map(arenite.mut, out), range(600))) == [None] * 600
    assert (out == np.arange(600)[:, None]).all()


def holder(n):
    return Held()


class Held:
    pass


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"chunksize": 5}])
def test_a_value_that_was_given_is_the_callers_alone(ex, options):
    for value in ex.map(holder, range(20), **options):
        reference = weakref.ref(value)
        del value
        assert reference() is None


def test_prints_and_warnings_are_those_of_calls(tmp_path):
    source = """
        import os, warnings
        import arenite

        def work(n):
            warnings.simplefilter("error")
            print(n, end=" " if n % 10 else "\\n")
            if n == 1500:
                os._exit(1)
            return len(warnings.filters)

        with arenite.Executor(1, output="plain") as ex:
            before = None
            counts = set()
            results = iter(ex.map(work, range(2000)))
            for n in range(2000):
                try:
                    counts.add(next(results))
                except arenite.WorkerDied:
                    assert n == 1500
            assert len(counts) == 1, counts
    """
    printed = harness.script(source).ok().out.split()
    assert sorted(map(int, printed)) == list(range(2000))


def test_options_about_single_tasks_keep_them(ex, tasks):
    for options in ({"deadline": 50}, {"retries": 1}, {"limit": arenite.Limiter(at_once=5)}):
        assert list(ex.options(**options).map(abs, range(500))) == list(range(500))
    assert list(ex.map(abs, range(500), chunksize=1)) == list(range(500))
    assert tasks() == 2000


def layouts(ex):
    """Arrays of every layout, in shared memory and elsewhere; several of each, with other values."""
    import numpy as np

    kinds = ["u1", ">i4", "f8", "c16", "?", "M8[s]", "S3", "U2", [("a", "i2"), ("b", "f8")], "O"]
    for number in range(2):
        for kind in kinds:
            own = np.zeros((12, 40), kind)
            own[number] = number
            for array in [own] if kind == "O" else [own, ex.share(own)]:
                yield from (array, array[number], array[:0], array[2:9, 3:7], array[::-1], array.T, array[::2, ::3])
                yield from (np.asfortranarray(array), array[1, 1:2], array[0, 0], array.reshape(3, 4, 40))
        big = ex.share(np.arange(40000, dtype="f4").reshape(200, 200) + number)
        yield from (big, big.T, big.view(np.recarray), big.ravel(), big.view("u2"), np.broadcast_to(big[0], (9, 200)))
        named = big.view([("x", "f4")])
        yield named
        made = ex.zeros((70, 70))
        made[...] = number
        yield from (made, made[3:5], big.astype("f8"))
        frozen = np.full(9000, number)
        frozen.flags.writeable = False
        yield from (frozen, frozen[5:])


def described(array):
    import numpy as np

    # A write shows what the task may do.
    if isinstance(array, np.ndarray) and array.flags.writeable and array.size and array.dtype.names is None:
        array[(0,) * array.ndim] = array[(-1,) * array.ndim]
    is_array = isinstance(array, np.ndarray)
    if not is_array:
        return type(array), array
    return type(array), array.dtype, array.shape, array.strides, array.flags.writeable, array.tolist()


@pytest.mark.parametrize("options", [{}, {"writable": "copy"}], ids=str)
def test_arrays_arrive_as_in_separate_tasks(options):
    pytest.importorskip("numpy")
    with arenite.Executor(1, **options) as ex:
        arrays = list(layouts(ex))
        expected = [future.result() for future in [ex.submit(described, array) for array in arrays]]
        assert list(ex.map(described, arrays)) == expected
        assert list(ex.map(lambda *both: described(both[0]), arrays, arrays)) == expected


def test_arrays_of_one_layout_are_pickled_once(ex):
    numpy = pytest.importorskip("numpy")
    image = ex.share(numpy.arange(200 * 2000.0).reshape(200, 2000))
    entered = []

    def note(frame, event, _):
        if event == "call" and os.path.basename(frame.f_code.co_filename) not in ("packing.py", "dispatch.py"):
            entered.append(frame.f_code.co_qualname)

    sums = [float(row.sum()) for row in image]
    with harness.waiting("the sums of rows"):
        for rows in (list(image), [image[0]] * 200, [ex.share(row.copy()) for row in image]):
            list(ex.map(numpy.sum, rows))
            entered.clear()
            sys.setprofile(note)
            try:
                found = list(ex.map(numpy.sum, rows))
            finally:
                sys.setprofile(None)
            assert found == [sums[0]] * 200 if rows[0] is rows[1] else sums
            # Packets are looked after from time to time: how often depends on the time they take.
            assert len([name for name in entered if "map" not in name]) < 5 * len(rows), collections.Counter(entered)
            assert not any("reduce" in name for name in entered[400:])
