"""What a task keeps of the arrays that it returns: writing to it changes no result, and does not end the worker."""

import ctypes
import gc
import os
import pickle
import random
import threading
import time

import arenite
import pytest

np = pytest.importorskip("numpy")

#: What tasks keep in their worker.
KEPT = []

#: Numbers of 8 bytes: inside the pickle, small, and around the sizes from which memory has pages of its own.
SIZES = [10, 600, 8191, 8192, 8193, 300_000]


class Holder:
    """Refers to itself: it and its array stay until the next collection of cycles."""

    def __init__(self, array):
        self.array = array
        self.self = self
        self.notes = gc.isenabled()


class Slot:
    def __init__(self, array):
        self.array = array


def keep_in_thread(array):
    ready = threading.Event()

    def hold(array):
        ready.set()
        threading.Event().wait()

    threading.Thread(target=hold, args=(array,), daemon=True).start()
    ready.wait()
    return array[:]


def torch_tensor(array):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(array).numpy()


#: What a task may keep of an array, and still write to.
KEEPERS = {
    "array": lambda array: array,
    "view": lambda array: array[1:],
    "step": lambda array: array[::2],
    "asarray": lambda array: np.asarray(array),
    "memoryview": lambda array: memoryview(array)[1:],
    "frombuffer": lambda array: np.frombuffer(array, "u1"),
    "ctypes": lambda array: (ctypes.c_char * array.nbytes).from_buffer(array),
    "base": lambda array: array.base,
    "cycle": lambda array: Holder(array),
    "object": lambda array: Slot(array[2:]),
    "thread": keep_in_thread,
}


def make_and_keep(name, count):
    array = arenite.full(8 * count, 7, "u1")
    KEPT.append(KEEPERS[name](array))
    return array


def make_and_return_parts(name, count):
    array = arenite.full(8 * count, 7, "u1")
    KEPT.append(KEEPERS[name](array))
    columns = array.reshape(2, -1).T
    return {"half": array[count // 2 :], "all": [array, columns], "buffer": pickle.PickleBuffer(array)}


def keep(name, count):
    array = arenite.full(8 * count, 7, "u1")
    KEPT.append(array)
    KEPT.append(KEEPERS[name](array))


def give():
    return KEPT[0]


def make_and_keep_tensor(count):
    array = arenite.zeros(count)
    KEPT.append(torch_tensor(array))
    return array


def make_and_return_many(count):
    array = arenite.zeros(count)
    KEPT.append(array)
    return [array[at:] for at in range(100)]


def make_only(count):
    array = arenite.empty(count)
    array[...] = 3
    return [array, array[1:], {"half": array[count // 2 :]}]


def keep_and_return_argument(array):
    KEPT.append(array)
    return array[1:]


def write():
    """Writes through everything that is kept. Returns the number of bytes written."""
    written = 0
    for kept in KEPT:
        target = getattr(kept, "array", kept)
        target = np.frombuffer(target, "u1") if not isinstance(target, np.ndarray) else target
        target[...] = 9
        assert (target == 9).all()
        written += target.nbytes
    return written


def forget():
    KEPT.clear()
    gc.collect()


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(max_workers=1) as executor:
        yield executor


@pytest.fixture(autouse=True)
def clean(executor):
    pid = executor.submit(os.getpid).result()
    yield
    executor.submit(forget).result()
    assert executor.submit(os.getpid).result() == pid, "the worker has died"


def snapshot(value):
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list):
        return [snapshot(item) for item in value]
    return bytes(value)


@pytest.mark.parametrize("name", [name for name in KEEPERS if name != "thread"])
@pytest.mark.parametrize("make", [make_and_keep, make_and_return_parts])
def test_a_result_does_not_change(executor, make, name):
    for count in SIZES:
        result = executor.submit(make, name, count).result()
        before = snapshot(result)
        assert executor.submit(write).result() > 0
        assert snapshot(result) == before
        executor.submit(forget).result()
        assert snapshot(result) == before


def test_a_result_that_a_thread_has_does_not_change(executor):
    result = executor.submit(make_and_keep, "thread", 10_000).result()
    before = snapshot(result)
    executor.submit(write).result()
    assert snapshot(result) == before


@pytest.mark.parametrize("name", ["array", "view", "memoryview", "cycle"])
def test_what_was_kept_first_and_returned_later_does_not_change(executor, name):
    for count in SIZES:
        executor.submit(keep, name, count).result()
        first = executor.submit(give).result()
        executor.submit(write).result()
        second = executor.submit(give).result()
        assert (first == 7).all() and (second == 9).all()
        executor.submit(forget).result()


def test_a_tensor(executor):
    pytest.importorskip("torch")
    result = executor.submit(make_and_keep_tensor, 10_000).result()
    executor.submit(write).result()
    assert not result.any()


def test_without_anything_kept_nothing_is_copied(executor):
    before = executor.stats().bytes_copied
    for count in SIZES[1:]:
        for result in (executor.submit(make_only, count).result(), *executor.map(make_only, [count, count])):
            assert all((part == 3).all() for part in (result[0], result[1], result[2]["half"]))
    assert executor.stats().bytes_copied == before


def test_a_kept_argument_is_returned_without_a_copy(executor):
    shared = executor.share(np.arange(100_000))
    before = executor.stats().bytes_copied
    result = executor.submit(keep_and_return_argument, shared).result()
    assert executor.stats().bytes_copied == before
    with pytest.raises(ValueError, match="read-only"):
        executor.submit(write).result()
    assert (result == np.arange(1, 100_000)).all()


def test_parts_of_one_array_are_copied_once(executor):
    before = executor.stats().bytes_copied
    result = executor.submit(make_and_return_many, 100_000).result()
    assert executor.stats().bytes_copied == before + 800_000
    assert [len(part) for part in result] == list(range(100_000, 99_900, -1))


class Counter:
    """An actor in its usual form."""

    def __init__(self, count):
        self.cells = arenite.zeros(count, "i8")

    def add(self):
        self.cells += 1
        return self.cells


def test_snapshots_of_an_actor_do_not_change(executor):
    for count in SIZES:
        actor = executor.actor(Counter, count)
        shown = [actor.add().result() for _ in range(5)]
        assert [int(cells[-1]) for cells in shown] == [1, 2, 3, 4, 5]
        del actor


def act(what, at, count, value):
    """One step on what is kept. Returns what is shown of it."""
    match what:
        case "make":
            array = arenite.empty(count, "u1")
            array[...] = value
            KEPT.append(array)
        case "view":
            KEPT.append(KEPT[at][count // 2 :])
        case "write":
            KEPT[at][...] = value
        case "drop":
            del KEPT[at]
            return None
    return KEPT[at if what != "make" else -1]


def test_random_steps_show_plain_values(executor):
    """Against numpy in this process, whose results are copied."""
    seed = int(os.environ.get("ARENITE_FUZZ_SEED", random.randrange(1 << 32)))
    print(f"seed {seed}")
    dice = random.Random(seed)
    plain, results = [], []
    for _ in range(150):
        what = dice.choice(["make", "view", "write", "write", "show", "show", "drop"])
        if not plain or (what in ("make", "view") and len(plain) > 10):
            what = "make" if not plain else "drop"
        at, value = dice.randrange(max(len(plain), 1)), dice.randrange(256)
        count = dice.choice([100, 5000, 70_000])
        match what:
            case "make":
                plain.append(np.full(count, value, "u1"))
            case "view":
                plain.append(plain[at][count // 2 :])
            case "write":
                plain[at][...] = value
            case "drop":
                del plain[at]
        result = executor.submit(act, what, at, count, value).result()
        if what != "drop":
            results.append((result, plain[-1 if what == "make" else at].copy()))
        for result, expected in results[-20:]:
            np.testing.assert_array_equal(result, expected, f"seed {seed}")


def test_an_argument_that_cannot_be_written_is_copied_once_while_tasks_take_it(tmp_path):
    gate = tmp_path / "gate"

    def work(table, n):
        while not gate.exists():
            time.sleep(0.001)
        return float(table[n])

    def copied():
        nonlocal before
        before, last = ex.stats().bytes_copied, before
        return round((before - last) / table.nbytes)

    with arenite.Executor(2) as ex:
        table, before = np.arange(50_000.0), 0
        view = table.view()
        view.flags.writeable = False
        tasks = [ex.submit(work, view, n) for n in range(4)]
        of_view = copied()
        table.flags.writeable = False
        again = table.view()
        tasks += [ex.submit(work, again, n) for n in range(4, 8)]
        tasks += [ex.submit(lambda *both: work(*both), again, 8)]
        found = copied()
        gate.touch()
        assert [task.result() for task in tasks] == list(range(9))
        # The array that the first one views could be written.
        assert (of_view, found) == (4, 1)
        used = ex.stats().used_bytes
        table.flags.writeable = True
        table[:] = 7
        assert ex.submit(work, again, 1).result() == 7
        assert copied() == 1
        del tasks
        assert used < table.nbytes
