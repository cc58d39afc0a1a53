"""Arrays in shared memory: what users of other pools reported, and what happens here."""

import gc
import multiprocessing
import os
import shutil
import subprocess
import textwrap
from concurrent.futures import ProcessPoolExecutor

import arenite
import harness
import pytest

np = pytest.importorskip("numpy")


def total(array):
    return array.sum()


def shape_and_dtype(array):
    return array.shape, array.dtype.str, array.strides


def identity(value):
    return value


def make_in_arena(shape):
    array = arenite.empty(shape, "i8")
    array[...] = np.arange(array.size).reshape(shape)
    return array


def make_in_heap(shape):
    return np.arange(int(np.prod(shape))).reshape(shape)


def subtract_in_place(array):
    array -= 1
    return array


def write_past_the_flag(array):
    """What an extension written in C does that ignores `writeable`."""
    import ctypes

    ctypes.memset(array.ctypes.data, 0, array.nbytes)


def fill(target, value):
    target[...] = value


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(max_workers=2) as executor:
        yield executor


@pytest.mark.parametrize("make", [make_in_arena, make_in_heap])
def test_results_outlive_the_executor(make):
    """numpy#18294, #23305: a view of shared memory crashes once the owner of the memory is gone."""
    executor = arenite.Executor(max_workers=1)
    result = executor.submit(make, (300, 100)).result()
    view = result[::2, 5:7]
    executor.shutdown()
    del executor, result
    gc.collect()
    assert (view == np.arange(30000).reshape(300, 100)[::2, 5:7]).all()
    assert view.base is not None


def test_a_view_keeps_its_memory():
    """numpy#18294: `close()` under a view. There is no such call here; a view holds what it shows."""
    with arenite.Executor(max_workers=1) as executor:
        shared = executor.share(np.arange(100_000))
        view = memoryview(shared)
        part = shared[10:20]
        del shared
        gc.collect()
        # Allocations that would reuse the memory, if it were free.
        others = [executor.full(100_000, 7, "i8") for _ in range(20)]
        assert part.tolist() == list(range(10, 20))
        assert view[99_999] == 99_999
        assert all((other == 7).all() for other in others)


def test_a_shared_array_stays_read_only():
    with arenite.Executor(1) as ex:
        for count in (1, 100_000):
            shared = ex.share(np.zeros(count))
            with pytest.raises(ValueError, match="WRITEABLE"):
                shared.flags.writeable = True
            with pytest.raises(ValueError, match="read-only"):
                shared[0] = 1
            assert ex.submit(np.sum, shared).result() == 0


def test_an_array_can_be_lent_however_often_tasks_have_returned_it():
    with arenite.Executor(1) as ex:
        out = ex.zeros(1000)
        results = [ex.submit(lambda whole: whole, out).result() for _ in range(100)]
        ex.submit(lambda whole: whole.fill(1), arenite.mut(out)).result()
        assert all((result == 1).all() for result in results)


def test_small_shared_arrays_lie_side_by_side():
    originals = [np.arange(number, number + 10, dtype="u1") for number in range(200)]
    with arenite.Executor(max_workers=1) as executor:
        # What the worker itself is given comes before.
        assert executor.submit(total, originals[0]).result() == 45
        before = executor.stats().used_bytes
        shared = [executor.share(array) for array in originals]
        # A cache line each, not a page.
        assert executor.stats().used_bytes - before == 64 * len(shared)
        assert list(executor.map(total, shared)) == [array.sum() for array in originals]
        assert not any(array.flags.writeable for array in shared)
        assert all(executor.share(array).ctypes.data == array.ctypes.data for array in shared)


@pytest.mark.parametrize("place", ["share", "heap"])
@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(5000, dtype=">i4"),
        lambda: np.arange(5000, dtype="<f8")[::-1],
        lambda: np.empty((5, 0)),
        lambda: np.empty((0, 5), "i2"),
        lambda: np.array(7.5),
        lambda: np.arange(60_000).reshape(100, 20, 30)[::2, 3, ::3],
        lambda: np.asfortranarray(np.arange(20_000).reshape(100, 200)),
        lambda: np.arange(20_000).reshape(100, 200).T,
        lambda: np.broadcast_to(np.arange(1000), (50, 1000)),
        lambda: np.arange("2026-01-01", "2036-01-01", dtype="M8[D]"),
        lambda: np.zeros(2000, dtype=[("name", "S4"), ("value", "<f4"), ("flags", "u1", (3,))]),
        lambda: np.arange(5000).astype("f2"),
        lambda: np.arange(5000) % 3 == 0,
        lambda: np.array(["Straße", "naïve"] * 1000),
        lambda: (np.arange(5000) + 1j).astype("c8"),
        lambda: np.ma.masked_greater(np.arange(5000), 100),
        lambda: np.rec.fromarrays([np.arange(5000), np.arange(5000.0)], names="a,b"),
        lambda: np.array([None, "text", np.arange(3000), {"a": 1}], dtype=object),
        lambda: np.matrix(np.arange(4000).reshape(40, 100)),
    ],
    ids=lambda make: "",
)
def test_any_array_arrives_and_returns_as_it_is(executor, make, place):
    """joblib#1545 (big-endian), rainwoodman/sharedmem#21 (shape (5, 0)), and other shapes and types."""
    array = make()
    sent = array
    if place == "share":
        sent = executor.share(array)
        assert type(sent) is type(array)
    for back in (sent, executor.submit(identity, sent).result(), next(executor.map(identity, [sent]))):
        assert type(back) is type(array)
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        if array.dtype.hasobject:
            assert (back[2] == array[2]).all() and back[3] == array[3]
        else:
            np.testing.assert_array_equal(np.asarray(back), np.asarray(array))
        if isinstance(array, np.ma.MaskedArray):
            assert (back.mask == array.mask).all()


def test_a_data_frame_is_not_changed_behind_its_back(executor):
    """joblib#451: a DataFrame over memory of the pool is corrupted, or cannot be changed any more."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": np.arange(100_000), "b": np.linspace(0, 1, 100_000), "c": ["text"] * 100_000})
    back = executor.submit(identity, frame).result()
    pd.testing.assert_frame_equal(back, frame)
    back["d"] = back["a"] + 1
    back = back.sort_values("b", ascending=False)
    assert back["d"].iloc[0] == 100_000
    means = list(executor.map(lambda part: part["b"].mean(), [frame, frame.iloc[: len(frame) // 2]]))
    assert means == [pytest.approx(0.5), pytest.approx(0.25, abs=1e-4)]


def test_arrow_tables(executor):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": np.arange(100_000), "b": [str(number) for number in range(100_000)]})
    assert executor.submit(identity, table).result().equals(table)


def test_tensors(executor):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(100_000).reshape(100, 1000)
    back = executor.submit(identity, {"tensor": tensor.T}).result()["tensor"]
    assert torch.equal(back, tensor.T)


@pytest.mark.patience(300)
def test_one_array_of_three_gigabytes():
    """joblib#344: arrays of more than 2 GiB cannot be sent."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < 10 << 30:
        pytest.skip(f"needs 10 GiB of free memory, there are {free >> 30}")
    with arenite.Executor(max_workers=1) as executor:
        array = executor.empty(3 << 30, np.uint8)
        array[0] = array[-1] = 7
        assert executor.submit(lambda array: (len(array), int(array[0]), int(array[-1])), array).result() == (
            3 << 30,
            7,
            7,
        )


@pytest.mark.parametrize("wrapped", ["array", "list", "dict", "piece", "frame"])
@pytest.mark.parametrize("source", ["numpy", "arena", "result"])
def test_nothing_writes_what_is_shared(executor, source, wrapped):
    """Neither through the array, whose flag cannot be set again, nor through the one that was shared."""
    array = executor.zeros((4, 5000), int) if source == "arena" else np.zeros((4, 5000), int)
    if source == "result":
        array = executor.submit(make_in_arena, (4, 5000)).result()
    expected = array.copy()
    if wrapped == "frame":
        pandas = pytest.importorskip("pandas")
        shared = executor.share(pandas.DataFrame(array.T)).to_numpy().T
    else:
        value = {"list": [array], "dict": {"a": array}, "piece": array[1:]}.get(wrapped, array)
        shared = executor.share(value)
        shared = shared[0] if wrapped == "list" else shared["a"] if wrapped == "dict" else shared
        expected = expected[1:] if wrapped == "piece" else expected
    if array.flags.writeable:
        array[...] = 7
    with pytest.raises(ValueError, match="WRITEABLE|read-only"):
        shared.flags.writeable = True
        shared[...] = 8
    assert np.array_equal(shared, expected)
    assert executor.submit(total, shared).result() == expected.sum()


def test_arguments_may_be_written_unless_they_are_shared(executor):
    """sklearn#5956, ray-project/ray#9673: `x -= 1` on an argument. The task has its own, but for what was shared."""
    array = np.arange(100_000)
    assert executor.submit(subtract_in_place, array).exception() is None
    error = executor.submit(subtract_in_place, executor.share(array)).exception()
    assert isinstance(error, ValueError)
    assert "read-only" in str(error)
    assert array[5] == 5


def test_arguments_are_read_only_for_c_too(executor):
    """A write that ignores the flag costs its own task, not the data of others."""
    array = executor.share(np.arange(100_000))
    with pytest.raises(arenite.WorkerDied, match="SIGSEGV"):
        executor.submit(write_past_the_flag, array).result()
    assert array.sum() == np.arange(100_000).sum()
    assert executor.submit(total, array).result() == array.sum()


@pytest.mark.parametrize("count", [100, 100_000])
def test_private_copies_for_code_that_writes(count):
    array = np.arange(count)
    with arenite.Executor(max_workers=1, writable="copy") as executor:
        shared = executor.share(array)
        for sent in (array, shared):
            result = executor.submit(subtract_in_place, sent).result()
            assert (result == np.arange(count) - 1).all()
            # What comes back is a private copy too.
            result += 1
        assert (array == np.arange(count)).all()
        assert (shared == array).all()


def test_many_tasks_fill_slices_of_one_array(executor):
    """ray-project/ray#15604, joblib PR#43, mne-tools/mne-python#2862: one array written by many processes."""
    out = executor.zeros((64, 100, 100), np.uint8)
    for future in [executor.submit(fill, arenite.mut(out[i]), i) for i in range(64)]:
        future.result()
    assert (out == np.arange(64, dtype=np.uint8)[:, None, None]).all()


def test_overlapping_slices_are_refused(executor):
    out = executor.zeros((64, 100), np.uint8)
    with pytest.raises(ValueError, match="overlap"):
        executor.submit(lambda one, other: None, arenite.mut(out[0:33]), arenite.mut(out[32:64]))
    with pytest.raises(ValueError, match="another argument reads"):
        executor.submit(lambda target, source: None, arenite.mut(out[0:33]), out[32:64])
    assert not out.any()


def test_a_slice_in_use_is_refused_until_its_task_has_ended(executor, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    out = executor.zeros((64, 100), np.uint8)

    def fill_after(path, target, value):
        open(path).read()
        target[...] = value

    held = executor.submit(fill_after, str(gate), arenite.mut(out[0:33]), 3)
    with pytest.raises(ValueError, match="overlap"):
        executor.submit(fill, arenite.mut(out[32:64]), 4)
    with harness.waiting("the task to open its gate"):
        open(gate, "w").close()
    held.result()
    executor.submit(fill, arenite.mut(out[32:64]), 4).result()
    assert (out[:32] == 3).all() and (out[32:] == 4).all()


def test_mut_wants_an_arena_array(executor):
    with pytest.raises((TypeError, ValueError), match="executor's arena.*ex.zeros"):
        executor.submit(fill, arenite.mut(np.zeros(10_000)), 1).result()


SMALL_SHM = """
    import numpy as np, os
    import arenite
    with arenite.Executor(2) as executor:
        shared = executor.share(np.ones(1_000_000))
        try:
            assert executor.submit(lambda array: array.sum(), shared).result() == 1_000_000
            assert executor.submit(lambda: np.ones(1_000_000)).result().sum() == 1_000_000
            print("works")
        except arenite.ArenaFull as error:
            print(error)
"""


def test_a_tiny_dev_shm(tmp_path):
    """cpython#114390, pytorch#5247: under `docker run --shm-size=3k`, shared memory ends in SIGBUS."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    mount = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && exec "$0" "$@"'
    end = harness.script(SMALL_SHM, prefix=["unshare", "--mount", "sh", "-c", mount])
    assert end.ok().out == "works\n"


def test_more_than_the_arena_holds():
    """A full arena is an error with numbers, for the parent and for a task, and nothing is lost by it."""
    with arenite.Executor(max_workers=1, capacity="64MiB") as executor:
        with pytest.raises(arenite.ArenaFull) as caught:
            executor.share(np.zeros(100 << 20, np.uint8))
        assert isinstance(caught.value, MemoryError)
        assert str(100 << 20) in str(caught.value) or "100" in str(caught.value)
        with pytest.raises(MemoryError):
            executor.submit(lambda: np.zeros(100 << 20, np.uint8)).result()
        assert executor.submit(total, np.ones(1_000_000)).result() == 1_000_000


def test_arrays_of_a_forked_child_stay_readable(executor):
    array = executor.share(np.arange(100_000))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(array.sum())
            try:
                executor.submit(total, array)
            except RuntimeError as error:
                text += f" {error}"
            os.write(writer, text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with harness.waiting("the forked child"), open(reader) as file:
        text = file.read()
        os.waitpid(child, 0)
    assert text.startswith(str(np.arange(100_000).sum()))
    assert "fork" in text


def sum_after(file, array):
    """Returns the sum once the file exists."""
    while not os.path.exists(file):
        os.sched_yield()
    return int(array.sum())


def changed_by_a_view(array):
    view = array[:]
    array.flags.writeable = array.base.flags.writeable = False
    return lambda: view.__setitem__(0, 7)


def changed_by_its_base(array):
    base = array.base
    array.flags.writeable = base.flags.writeable = False

    def change():
        base.flags.writeable = True
        base[5] = 7
        base.flags.writeable = False

    return change


@pytest.mark.parametrize("layout", ["C", "F", "strided"])
@pytest.mark.parametrize("prepare", [changed_by_a_view, changed_by_its_base])
def test_read_only_arrays_are_copied_once_until_they_change(executor, tmp_path, prepare, layout):
    """Each task gets what the array held when the task was submitted, whoever changes the array."""
    base = np.zeros((400, 600), dtype=int)
    array = {"C": base.ravel(), "F": base.T[:], "strided": base[:, ::2]}[layout]
    change = prepare(array)
    gate = tmp_path / "gate"
    try:
        before = executor.stats().bytes_copied
        futures = [executor.submit(sum_after, gate, array) for _ in range(2)]
        copied = executor.stats().bytes_copied - before
        change()
        futures.append(executor.submit(sum_after, gate, array))
        expected = [0, 0, int(array.sum())]
    finally:
        gate.touch()
    assert [future.result() for future in futures] == expected
    assert copied == array.nbytes


@pytest.mark.parametrize("dtype", ["S3", "U5", "c16", "V7", [("number", "i4"), ("value", "f8")]], ids=str)
def test_elements_may_have_any_length(dtype):
    """Read-only arguments, and globals: they are compared with their copies."""
    source = f"""
        import arenite
        import numpy as np

        records = np.zeros(8000, {dtype!r})
        numbers = records.view("u1")
        argument = records.copy()
        argument.flags.writeable = False

        def number(array):
            return int(array.view("u1").sum())

        def number_in_global():
            return int(records.view("u1").sum())

        with arenite.Executor(1) as ex:
            for changed in range(3):
                for _ in range(2):
                    assert ex.submit(number_in_global).result() == changed
                    assert ex.submit(number, argument).result() == 0
                numbers[changed] = 1
    """
    harness.script(textwrap.dedent(source)).ok()


def is_writable(array):
    return array.flags.writeable


def test_empty_copies_are_writable(executor):
    """As those of pickle's default protocol are."""
    empty = np.zeros((3, 0))
    empty.flags.writeable = False
    assert executor.submit(is_writable, empty).result()
    assert executor.submit(identity, empty).result().flags.writeable


def _resized(array):
    array.resize(2 * len(array), refcheck=False)
    return array


def test_small_arrays_own_their_memory(executor):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as other:
        for ex in (executor, other):
            found = ex.submit(_resized, np.arange(9)).result()
            assert _resized(found).tolist() == [*range(9), *[0] * 27]
