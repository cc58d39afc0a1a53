"""`arenite.connect`: numpy arrays, Arrow tables and bytes in a store that `arenite serve` keeps."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import arenite
import harness
from arenite.store import NoObject, NotRunning, ObjectExists, Store, StoreError, StoreFull

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.skipif(
    harness.COMMAND is None, reason="the command is not built: cargo build --release -p arenite-cli"
)


@pytest.fixture
def name(tmp_path: Path) -> str:
    return str(tmp_path / "test.sock")


@pytest.fixture
def server(name: str) -> Iterator[subprocess.Popen[bytes]]:
    with harness.store("--name", name, "--capacity", "64M") as server:
        yield server


@pytest.fixture
def store(name: str, server: subprocess.Popen[bytes]) -> Iterator[Store]:
    store = arenite.connect(name)
    yield store
    store.close()


def _await_clients(store: Store, count: int) -> None:
    end = time.monotonic() + 60
    while store.info()["clients"] != count:
        assert time.monotonic() < end, f"{store.info()['clients']} clients, not {count}"


def test_waiting_for_a_name(store: Store) -> None:
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(store.wait("later")))
    waiting.start()
    _await_clients(store, 2)
    store["other"] = b"other"
    entry = store.put("later", b"later")
    waiting.join(60)
    assert found == [entry] and store.wait("later", 60) == entry
    with pytest.raises(NoObject, match='"never" appeared'):
        store.wait("never", 0.01)
    with pytest.raises(StoreError):
        store.wait("\n")


def test_waiting_ends_with_the_server(store: Store, server: subprocess.Popen[bytes]) -> None:
    failures: list[Exception] = []

    def wait() -> None:
        try:
            store.wait("never")
        except NotRunning as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    _await_clients(store, 2)
    server.kill()
    waiting.join(60)
    assert "arenite serve" in str(failures[0])


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "c8", "c16", ">f4"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (300, 7, 20)])
def test_arrays_come_back_as_they_were_put(store: Store, dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(dtype)
    store["a"] = array
    found = store["a"]
    assert found.shape == shape
    assert found.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(found, array)
    assert not found.flags.writeable
    with pytest.raises(ValueError):
        found.flags.writeable = True


def test_what_is_mapped_outlives_its_name_and_its_server(store: Store) -> None:
    store["a"] = np.arange(1_000_000)
    found = store["a"][10:20]
    store["a"] = np.zeros(3)
    del store["a"]
    assert store.info()["retained"] == 8_000_000
    store.stop()
    assert found.tolist() == list(range(10, 20))
    with pytest.raises(NotRunning, match="arenite serve --name"):
        store["a"]


def test_leases_end_with_the_last_array(store: Store) -> None:
    store["a"] = np.arange(100_000)
    found = [store["a"], store["a"][5:]]
    assert store.objects()[0]["leases"] == 2
    del found[0]
    gc.collect()
    assert store.objects()[0]["leases"] == 1
    found.clear()
    gc.collect()
    assert store.objects()[0]["leases"] == 0
    del store["a"]
    assert store.info()["used"] == 0


def test_tables_are_read_in_place(store: Store) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"n": list(range(10_000)), "text": [f"row {n}" for n in range(10_000)], "none": [None, 1] * 5000})
    store["table"] = table
    before = pa.total_allocated_bytes()
    found = store["table"]
    assert found.equals(table)
    assert pa.total_allocated_bytes() - before < 10_000, "columns lie in the store"
    assert store.objects()[0]["kind"] == "arrow"


def test_a_draft_is_published_without_a_copy(store: Store) -> None:
    draft = store.draft((1000, 3), "f4")
    assert draft.array.shape == (1000, 3)
    draft.array[:] = 1.5
    assert "points" not in store
    info = draft.publish("points")
    assert info["shape"] == [1000, 3]
    assert store["points"].sum() == 4500
    draft = store.draft(10)
    held = draft.array[3:]
    with pytest.raises(StoreError, match="still referred to"):
        draft.publish("held")
    del held
    with pytest.raises(TypeError, match="numbers"):
        store.draft(3, object)


def test_it_is_a_mapping(store: Store) -> None:
    store.update(a=b"1", b=np.zeros(3), c=bytearray(b"333"))
    assert sorted(store) == list(store) == ["a", "b", "c"]
    assert len(store) == 3 and "a" in store and "d" not in store and 1 not in store
    assert bytes(store.pop("a")) == b"1"
    assert store.get("a") is None
    with pytest.raises(NoObject, match="there is no object"):
        del store["a"]
    with pytest.raises(KeyError):
        store["a"]
    with pytest.raises(ObjectExists, match="replace or remove"):
        store.put("b", b"")
    with pytest.raises(StoreError, match="no name for an object"):
        store[""] = b""


def test_a_full_store_says_how_full(store: Store) -> None:
    with pytest.raises(MemoryError) as caught:
        store["a"] = np.zeros(10_000_000)
    full = caught.value
    assert isinstance(full, StoreFull)
    assert (full.requested, full.free, full.capacity) == (80_000_000, 64 << 20, 64 << 20)


def test_threads_share_a_store_and_forks_have_their_own(store: Store) -> None:
    store["a"] = np.arange(1000)

    def use() -> None:
        for _ in range(100):
            assert store["a"].sum() == 499_500

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = store["a"]
    child = os.fork()
    if child == 0:
        try:
            ok = held.sum() == store["a"].sum() == 499_500
        finally:
            os._exit(not ok)
    assert os.waitpid(child, 0)[1] == 0
    assert store["a"].sum() == 499_500


def test_a_replacement_may_need_the_room_of_what_it_replaces(store: Store) -> None:
    store["a"] = np.zeros(5_000_000)
    store["a"] = np.ones(6_000_000)
    assert store["a"].sum() == 6_000_000
    assert store.info()["used"] == 48_000_000


def test_a_draft_can_be_published_again(store: Store) -> None:
    store["a"] = b"1"
    draft = store.draft(3)
    with pytest.raises(ObjectExists):
        draft.publish("a")
    draft.publish("a", replace=True)
    assert store["a"].tolist() == [0, 0, 0]


def test_a_draft_is_published_once(store: Store) -> None:
    draft = store.draft(3)
    draft.publish("a")
    # The next file gets the descriptor of the one that was published.
    other = store.draft(5)
    with pytest.raises(StoreError, match="published already"):
        draft.publish("b")
    other.array[:] = 1
    other.publish("c")
    assert sorted(store) == ["a", "c"] and store["c"].tolist() == [1] * 5


def test_a_forked_process_may_drop_a_draft(store: Store) -> None:
    draft = store.draft(8 << 20, "u1")
    child = os.fork()
    if child == 0:
        # Linux puts some of these where the draft is in the parent.
        others = [np.ones(8 << 20, "u1") for _ in range(4)]
        del draft
        gc.collect()
        os._exit(0 if sum(int(other.sum()) for other in others) == 32 << 20 else 1)
    assert os.waitpid(child, 0)[1] == 0
    draft.publish("a")
    assert store["a"].sum() == 0


def test_extents(store: Store) -> None:
    for shape in (5, np.int64(5), [np.int64(2), 3], (np.uint8(4),), np.array([2, 2])):
        draft = store.draft(shape)
        assert draft.array.shape == np.empty(shape).shape
    for shape in (-5, (3, -1), np.int64(-1)):
        with pytest.raises(ValueError, match="not negative"):
            store.draft(shape)
    for bad in (2.5, "3", (1.5,)):
        with pytest.raises(TypeError):
            store.draft(bad)  # type: ignore[arg-type]


def test_columns_are_arrays(store: Store) -> None:
    pa, pandas, polars = map(pytest.importorskip, ("pyarrow", "pandas", "polars"))
    series = pandas.Series([1, 2, 3], index=list("abc")), polars.Series([1, 2, 3])
    for column in (pa.chunked_array([[1], [2, 3]]), *series):
        store["a"] = column
        assert store["a"].tolist() == [1, 2, 3] and store["a"].dtype == np.asarray(column).dtype
    store["a"] = pandas.Series([1.5, None])
    assert np.isnan(store["a"]).tolist() == [False, True]
    for column in (pa.chunked_array([[2**53 + 1, None]]), polars.Series([2**53 + 1, None])):
        with pytest.raises(TypeError, match="no nulls"):
            store["a"] = column
    with pytest.raises(pa.ArrowInvalid):
        store["a"] = pandas.DataFrame({"a": [1, "x"]})
    for table in (pandas.DataFrame({"a": [1, 2]}), polars.DataFrame({"a": [1, 2]}), pa.table({"a": [1, 2]})):
        store["a"] = table
        assert store["a"].equals(pa.table(table))


def test_a_draft_is_published_beside_a_forked_process(store: Store) -> None:
    draft = store.draft(1000)
    draft.array[:] = 1
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    draft.publish("a")
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0
    assert store["a"].sum() == 1000


def test_an_interrupted_request_is_not_answered_by_the_next(store: Store, server: subprocess.Popen[bytes]) -> None:
    store.update(one=b"one", two=b"two")

    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    server.send_signal(signal.SIGSTOP)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupt):
            store["one"]
    finally:
        server.send_signal(signal.SIGCONT)
        signal.signal(signal.SIGALRM, before)
    assert bytes(store["two"]) == b"two"


def test_each_of_many_leases_ends(store: Store, server: subprocess.Popen[bytes]) -> None:
    store["a"] = np.arange(100_000)
    held = [store["a"] for _ in range(500)]
    assert store.objects()[0]["leases"] == 500
    # While the server is stopped they do not fit the socket, and dropping them does not wait.
    server.send_signal(signal.SIGSTOP)
    held.clear()
    server.send_signal(signal.SIGCONT)
    store.info()
    assert store.objects()[0]["leases"] == 0


def test_a_lease_ends_with_its_connection(store: Store) -> None:
    store["a"] = np.arange(100_000)
    first = store["a"]
    store.close()
    second = store["a"]
    del first
    assert store.objects()[0]["leases"] == 1
    assert second[1] == 1


def test_a_store_can_be_pickled(store: Store) -> None:
    store["a"] = b"1"
    again = pickle.loads(pickle.dumps(store))
    assert bytes(again["a"]) == b"1"
    again.close()


def test_another_program_maps_the_same_memory(store: Store, name: str) -> None:
    store["a"] = np.arange(1_000_000)
    script = f"import arenite; print(arenite.connect({name!r})['a'].sum())"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout == "499999500000\n"


def test_a_task_maps_what_it_is_told_the_name_of(store: Store, name: str) -> None:
    store["a"] = np.arange(1000)

    def total(name: str) -> int:
        return int(arenite.connect(name)["a"].sum())

    with arenite.Executor(max_workers=1) as executor:
        assert executor.submit(total, name).result() == 499_500


def test_tasks_take_stored_arrays_without_a_copy(store: Store, server: subprocess.Popen[bytes]) -> None:
    store["table"] = np.arange(300_000, dtype="f8").reshape(1000, 300)
    table = store["table"]
    assert np.array_equal(table[:2, 0], [0, 300])
    with arenite.Executor(max_workers=2) as executor:
        assert executor.submit(np.sum, table).result() == table.sum()
        assert list(executor.map(np.sum, table[:50])) == list(table[:50].sum(axis=1))
        column = table[::-1, 7]
        assert np.array_equal(executor.submit(np.copy, column).result(), column)
        # What a task returns of it is a copy, and what it cannot do is write.
        assert np.array_equal(executor.submit(lambda array: array[5:], table).result(), table[5:])

        def write(array: Any) -> None:
            array[0] = 1

        with pytest.raises(ValueError, match="read-only"):
            executor.submit(write, table).result()
        assert executor.stats().bytes_copied < table.nbytes // 10
        # Only the task has it.
        expected = table.sum()
        started = executor.submit(lambda array: (time.sleep(0.2), array.sum())[1], table)
        waiting = [executor.submit(np.sum, table) for _ in range(4)]
        del table, column, store["table"]
        gc.collect()
        server.terminate()
        assert started.result() == expected
        assert [task.result() for task in waiting] == [expected] * 4


def test_tasks_take_stored_tables_without_a_copy(store: Store) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    store["table"] = pyarrow.table({"n": np.arange(500_000)})
    table = store["table"]
    with arenite.Executor(max_workers=1) as executor:
        total = executor.submit(lambda table: table["n"].to_numpy().sum(), table).result()
        assert total == 500_000 * 499_999 // 2
        assert executor.stats().bytes_copied < 100_000


def test_sandboxed_tasks_get_copies(store: Store) -> None:
    store["table"] = np.arange(300_000)
    with arenite.Executor(max_workers=1, sandbox="strict", preload="numpy") as executor:
        assert executor.submit(np.sum, store["table"]).result() == 300_000 * 299_999 // 2
        assert executor.stats().bytes_copied >= 300_000 * 8


def test_without_a_server_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="start it with `arenite serve"):
        arenite.connect(str(tmp_path / "none"))


EXAMPLES = Path(__file__).parents[2] / "examples/python"
PLAIN = """
    import sys
    from array import array

    sys.path.insert(0, sys.argv[1])
    from store_client import Store

    store = Store()
    with store.get("from arenite") as content:
        assert (content.format, content.shape, content.readonly) == ("f", (2, 3), True)
        assert content.tolist() == [[0, 1, 2], [3, 4, 5]]
        store.remove("from arenite")
    store.put("from plain", array("d", [1.5, -2.5]))
    store.put("from plain", array("H", range(1000)), replace=True)
    for entry in store.entries():
        store.remove(entry["name"]) if entry["name"].startswith("many") else None
    for value, says in [(b"", "exists: "), (bytes(65 << 20), "the store has 67108864 bytes")]:
        try:
            store.put("from plain", value)
        except (RuntimeError, MemoryError) as error:
            assert says in str(error), error
        else:
            raise AssertionError(says)
    with store.get("empty") as content:
        assert content == b""
    assert not any(name.split(".")[0] in ("arenite", "numpy") for name in sys.modules)
"""


def test_the_client_of_the_standard_library(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}

    def run(*arguments: str) -> str:
        command = [sys.executable, str(EXAMPLES / "store_client.py"), *arguments]
        with harness.waiting("an example to end"):
            return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    with harness.store("--capacity", "64M", env=env):
        store = arenite.connect(str(tmp_path / "arenite/main.sock"))
        store["from arenite"] = np.arange(6, dtype="f4").reshape(2, 3)
        store["empty"] = b""
        # More than one page of a list.
        store.update((f"many {n:04}" + "x" * 200, b"") for n in range(500))
        harness.script(PLAIN, EXAMPLES, env=env).ok()
        assert list(store) == ["empty", "from plain"]
        assert np.array_equal(store["from plain"], np.arange(1000, dtype="u2"))
        assert {entry["leases"] for entry in store.objects()} == {0}
        (tmp_path / "file").write_bytes(b"bytes" * 100_000)
        run("put", "file", "file")
        run("get", "file", "copy")
        assert (tmp_path / "copy").read_bytes() == store["file"] == b"bytes" * 100_000
        run("rm", "empty")
        assert run("ls") == "file bytes 500000\nfrom plain array 2000\n"
        store.close()
