"""`Executor.serve` and `arenite.service.connect`: functions of one program that others call."""

from __future__ import annotations

import array
import asyncio
import ctypes
import functools
import gc
import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any

import arenite
import harness
import pytest
from arenite import _memory_files as memory_files
from arenite.service import AlreadyRunning, NotRunning, Service, ServiceError, connect

np = pytest.importorskip("numpy")


# ---- kernels


def echo(value: Any) -> Any:
    return value


def hold(folder: str, gate: str = "gate") -> str:
    """Says that it has begun, and returns when there is a file `gate`."""
    Path(folder, f"begun-{time.monotonic_ns()}-{os.getpid()}").touch()
    while not os.path.exists(f"{folder}/{gate}"):
        time.sleep(0.002)
    return gate


def scale(image: np.ndarray, factor: float = 2.0, *, out: str | None = None) -> np.ndarray:
    return image * factor


def fail(text: str) -> None:
    print("about to fail", flush=True)
    raise ValueError(text)


def leave(code: int) -> None:
    print("last words", flush=True)
    os._exit(code)


def crash() -> None:
    ctypes.string_at(0)


class Unwilling:
    """Has an array and does not give it, as a tensor of torch with a gradient."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def refuse(what: str) -> None:
    raise {"silent": Silent(), "long": ValueError(10**5000)}[what]


def make(what: str) -> Any:
    return {
        "unwilling": Unwilling(),
        "often": [np.ones(1 << 20)] * 190,
        "deep": [[[0] * 1000] * 1000] * 10,
        "dict": {1: "a"},
        "objects": np.array([None]),
        "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True), np.float64("inf"), np.str_("é"), np.complex64(1j)],
        "tuple": (1, (2.5, "b")),
        "many": list(range(100_000)),
        "files": [b""] * 201,
        "transposed": np.arange(6).reshape(2, 3).T,
        "surrogate": "\ud800",
        "large": np.ones(1_000_000),
    }[what]


KERNELS: dict[str, Callable[..., Any]] = {
    "echo": echo, "hold": hold, "scale": scale, "fail": fail, "leave": leave, "crash": crash, "make": make, "sin": np.sin,
}  # fmt: skip


@pytest.fixture(scope="module")
def executor() -> Iterator[arenite.Executor]:
    with arenite.Executor(2) as executor:
        yield harness.all_ready(executor)


@pytest.fixture
def name(tmp_path: Path) -> str:
    return str(tmp_path / "s.sock")


@pytest.fixture
def serving(executor: arenite.Executor, name: str) -> Iterator[Any]:
    with executor.serve(name, KERNELS) as serving:
        yield serving


@pytest.fixture
def service(serving: Any) -> Iterator[Service]:
    with connect(serving.address) as service:
        yield service


def get(future: Any) -> Any:
    with harness.waiting("the answer of a call"):
        return future.result()


def failure(future: Any) -> Any:
    with harness.waiting("the failure of a call"):
        return future.exception()


def begun(folder: Path, count: int) -> None:
    harness.until(lambda: len(list(folder.glob("begun-*"))) >= count, f"{count} calls to begin in {folder}")


class Raw:
    """A client that may send anything."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(address)

    def send(self, packet: Any, files: list[int] | None = None) -> None:
        data = packet if isinstance(packet, bytes) else json.dumps(packet).encode()
        socket.send_fds(self.socket, [data], files or [])

    def receive(self) -> Any:
        with harness.waiting("an answer to a raw packet"):
            data, files, _, _ = socket.recv_fds(self.socket, 1 << 16, 253)
        for file in files:
            os.close(file)
        return json.loads(data) if data else None

    def ask(self, packet: Any, files: list[int] | None = None) -> Any:
        self.send(packet, files)
        return self.receive()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def sealed(content: bytes, allocate: bool = True) -> int:
    file = memory_files.create()
    if allocate:
        os.write(file, content)
    else:
        os.truncate(file, len(content))
    memory_files.seal(file)
    return file


def same_descriptors(before: int) -> None:
    """Waits until as many descriptors are open as before: some are closed by a thread."""
    harness.until(lambda: len(harness.descriptors()) <= before, f"{before} descriptors to be open, and no more")


# ---- values

NUMBERS = [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**70, 1.5, -0.0, 5e-324, 1.7976931348623157e308]
TEXTS = ["", "é😀\0\n\"\\", "x" * 1024, "é" * 600, "long" * 100_000]


@pytest.mark.parametrize(
    "value",
    [None, True, False, *NUMBERS, *TEXTS, [], [1, [None, ["a", 2.5]], True], ["é" * 500] * 150, list(range(5000))],
    ids=lambda value: repr(value)[:20],
)
def test_plain_values_come_back_as_they_were(service: Service, value: Any) -> None:
    found = service.call("echo", value)
    assert found == value and type(found) is type(value)
    if value == 0.0:
        assert str(found) == str(value)


def test_numbers_that_json_lacks(service: Service) -> None:
    found = service.call("echo", [float("nan"), float("inf"), float("-inf")])
    assert np.isnan(found[0]) and found[1:] == [float("inf"), float("-inf")]


@pytest.mark.parametrize("length", [0, 1, 65_536, 65_537, 3_000_000])
def test_bytes(service: Service, length: int) -> None:
    content = bytes(itertools.islice(itertools.cycle(range(256)), length))
    found = service.call("echo", content)
    assert found == content and found.readonly
    assert service.call("echo", bytearray(content)) == content
    assert service.call("echo", memoryview(content * 2)[::2]) == (content * 2)[::2]
    assert service.call("echo", array.array("d", [1.5])) == array.array("d", [1.5]).tobytes()


@pytest.mark.parametrize("dtype", "? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 c8 c16 >f4".split())
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (300, 7, 20)])
def test_arrays(service: Service, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.asarray((np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(dtype))
    found = service.call("echo", values)
    assert isinstance(found, np.ndarray) and found.shape == shape
    assert found.dtype == values.dtype.newbyteorder("<")
    assert np.array_equal(found, values)
    assert not found.flags.writeable
    with pytest.raises(ValueError):
        found.flags.writeable = True


def test_arrays_with_steps_and_what_has_their_interface(service: Service) -> None:
    image = np.arange(200_000).reshape(400, 500)
    assert np.array_equal(service.call("echo", image[::2, 100:300].T), image[::2, 100:300].T)
    assert np.array_equal(service.call("scale", image[:, ::7], 3), image[:, ::7] * 3)
    assert service.call("make", "transposed").tolist() == [[0, 3], [1, 4], [2, 5]]
    pd = pytest.importorskip("pandas")
    assert service.call("echo", pd.Series([1.5, 2.5])).tolist() == [1.5, 2.5]


def test_scalars_of_numpy_are_numbers(service: Service) -> None:
    found = service.call("make", "scalars")
    assert found == [1.5, -3, True, float("inf"), "é", 1j]
    assert [type(value) for value in found[:5]] == [float, int, bool, float, str]
    assert service.call("echo", np.uint64(2**64 - 1)) == 2**64 - 1
    assert service.call("make", "tuple") == [1, [2.5, "b"]]


def test_many_values_of_a_call_keep_their_order(service: Service) -> None:
    values = [np.full(n, n) if n % 2 else bytes([n]) for n in range(200)]
    found = service.call("echo", values)
    assert [len(value) if n % 2 else bytes(value)[0] for n, value in enumerate(found)] == list(range(200))


def test_what_is_no_value_is_refused(service: Service) -> None:
    for bad in ({1: "a"}, object(), 1j, np.array([None]), np.zeros(2, "M8[s]"), np.zeros(2, "U3"), [lambda: 0], {1}):
        with pytest.raises(TypeError, match="a service takes and returns"):
            service.submit("echo", bad)
    with pytest.raises(ValueError, match="use an array instead of a list"):
        service.submit("echo", list(range(100_000)))
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(TypeError, match="nested"):
        service.submit("echo", nested)
    with pytest.raises(UnicodeEncodeError):
        service.submit("echo", "\ud800")
    assert service.call("echo", 1) == 1


def test_bad_results_say_what_is_wrong(service: Service) -> None:
    wanted = [("dict", "keys of text"), ("objects", "object"), ("surrogate", "surrogates")]
    for what, text in wanted:
        error = failure(service.submit("make", what))
        assert isinstance(error, ServiceError) and error.code == "returned" and text in str(error), error
    for what in ("many", "files"):
        error = failure(service.submit("make", what))
        assert error.code == "limit" and "use an array" in str(error), error


def test_no_outcome_of_a_call_ends_the_service(name: str) -> None:
    kernels = {"make": make, "refuse": refuse, "echo": echo}
    with arenite.Executor(1, capacity="128MiB") as executor, executor.serve(name, kernels), connect(name) as service:
        for what in ("silent", "long"):
            error = failure(service.submit("refuse", what))
            assert isinstance(error, ServiceError) and error.code == "panicked", error
        assert failure(service.submit("make", "unwilling")).code == "returned"
        # One array, 190 times: more than shared memory has, and than was sent.
        assert failure(service.submit("make", "often")).code == "limit"
        assert failure(service.submit("make", "deep")).code == "limit"
        assert service.call("echo", 1) == 1


def test_no_message_acts_on_a_terminal(service: Service) -> None:
    for error in (failure(service.submit("fail", "\x1b[2J\x9b\u202e")), ServiceError("\x1b")):
        assert not set("\x1b\x9b\u202e") & set(str(error)), ascii(error)


def test_signatures(service: Service) -> None:
    assert service.kernels["scale"] == "(image, factor=2.0, *, out=None)"
    assert service.kernels["echo"] == "(value)"
    assert list(service.kernels) == list(KERNELS)
    for arguments in ((), (1, 2, 3)):
        error = failure(service.submit("scale", *arguments))
        assert error.code == "bad_argument" and "scale(image, factor=2.0, *, out=None)" in str(error)
    error = failure(service.submit("scall"))
    assert error.code == "no_kernel" and "scale" in str(error)
    assert service.call("sin", np.zeros(3)).tolist() == [0, 0, 0]


# ---- failures


def test_exceptions_of_kernels(service: Service) -> None:
    error = failure(service.submit("fail", "é went wrong"))
    assert type(error) is ServiceError and error.code == "panicked"
    assert str(error).splitlines()[0] == "ValueError: é went wrong"
    assert "in fail" in str(error)
    assert str(failure(service.submit("fail", "x" * 10_000))).startswith("ValueError: xxx")


def test_deaths_of_workers_cost_one_call(service: Service, serving: Any) -> None:
    died = failure(service.submit("leave", 3))
    assert isinstance(died, arenite.WorkerDied)
    assert (died.exit_code, died.signal, died.attempts) == (3, None, 1)
    assert "last words" in died.last_words
    died = failure(service.submit("crash"))
    assert isinstance(died, arenite.WorkerDied)
    assert (died.exit_code, died.signal) == (None, signal.SIGSEGV)
    assert service.call("echo", 1) == 1
    causes = [(failure["kernel"], failure["cause"]) for failure in service.status()["failures"]]
    assert causes == [("leave", "exited"), ("crash", "crashed")]


def test_deadlines(service: Service, tmp_path: Path) -> None:
    late = failure(service.submit("hold", str(tmp_path), deadline=0.2))
    assert isinstance(late, arenite.DeadlineExceeded) and late.deadline == 0.2
    assert service.call("echo", 1, deadline=60) == 1
    bad_ones = {0: "bad_argument", -1: "bad_argument", 1e10: "bad_argument", True: "bad_request", "1": "bad_request"}
    for bad, code in bad_ones.items():
        error = failure(service.submit("echo", 1, deadline=bad))  # type: ignore[arg-type]
        assert error.code == code, error


def test_limits_of_memory(name: str) -> None:
    def allocate(count: int) -> int:
        return len(bytearray(count))

    with arenite.Executor(1, memory_limit="200MiB", capacity="1MiB") as executor:
        with executor.serve(name, {"allocate": allocate, "zeros": np.zeros, "len": len}), connect(name) as service:
            assert isinstance(failure(service.submit("allocate", 1 << 30)), arenite.MemoryLimitExceeded)
            assert isinstance(failure(service.submit("zeros", 1 << 21)), arenite.ArenaFull)
            assert service.call("len", np.zeros(10)) == 10


def test_a_full_arena_stops_no_other_call(name: str, tmp_path: Path) -> None:
    def take(data: bytes, folder: str) -> int:
        hold(folder)
        return len(data)

    # Workers map arrays where they lie; bytes are copied into the arena.
    data = bytes(6 << 20)
    with arenite.Executor(1, capacity="8MiB") as executor:
        with executor.serve(name, {"take": take, "echo": echo}), connect(name) as one, connect(name) as other:
            first = one.submit("take", data, str(tmp_path))
            begun(tmp_path, 1)
            second = other.submit("take", data, str(tmp_path))
            # The service answers while the second call waits for room.
            # The packets of two clients may arrive in another order.
            harness.until(lambda: sum(client["queued"] for client in one.status()["clients"]) == 1, "a call to wait")
            waiting = other.submit("take", data, str(tmp_path))
            assert waiting.cancel()
            (tmp_path / "gate").touch()
            assert (get(first), get(second)) == (len(data), len(data))
            assert other.call("echo", 1) == 1


def test_a_worker_that_cannot_start(name: str) -> None:
    with arenite.Executor(1, initializer=fail, initargs=("no model",), output=None) as executor:
        with executor.serve(name, {"echo": echo}), connect(name) as service:
            error = failure(service.submit("echo", 1))
            assert error.code == "no_workers" and "no model" in str(error)


# ---- calls at the same time


def test_threads_share_a_service(service: Service) -> None:
    wrong = []

    def use(number: int) -> None:
        for turn in range(40):
            values = np.full(1000 * (turn % 3), number)
            found = service.call("echo", [number, turn, values])
            if found[:2] != [number, turn] or not np.array_equal(found[2], values):
                wrong.append(found)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    with harness.waiting("320 calls of 8 threads"):
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_client_waits_while_as_many_calls_are_open_as_are_admitted(service: Service) -> None:
    """Four threads have 64 calls of one connection open all the time."""
    futures: list[Any] = []

    def submit(number: int) -> None:
        futures.extend(service.submit("echo", number) for _ in range(250))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    with harness.waiting("1000 calls to be sent"):
        for thread in threads:
            thread.join()
    with harness.waiting("1000 calls to be answered"):
        assert sum(future.result() for future in futures) == 1500


def test_a_client_that_sends_too_many_calls(executor: arenite.Executor, name: str, tmp_path: Path) -> None:
    with executor.serve(name, KERNELS, max_calls=3), Raw(name) as raw:
        for id in range(1, 5):
            raw.send({"op": "call", "id": id, "kernel": "hold", "args": [str(tmp_path)]})
        answer = raw.receive()
        assert (answer["id"], answer["error"]) == (4, "busy")
        raw.send({"op": "call", "id": 2, "kernel": "echo", "args": [1]})
        answer = raw.receive()
        assert answer["error"] == "bad_request" and "id" not in answer
        (tmp_path / "gate").touch()
        assert {raw.receive()["id"] for _ in range(3)} == {1, 2, 3}
        assert raw.ask({"op": "call", "id": 2, "kernel": "echo", "args": [1]}) == {"id": 2, "value": 1}


def test_clients_take_turns(serving: Any, service: Service, tmp_path: Path) -> None:
    folder = str(tmp_path)
    first = [service.submit("hold", folder, "first") for _ in range(10)]
    rest = [service.submit("hold", folder, "rest") for _ in range(50)]
    begun(tmp_path, 2)
    with connect(serving.address) as other:
        short = other.submit("echo", "short")
        harness.until(lambda: other.status()["clients"][1]["queued"] == 1, "the other client's call to be queued")
        # The executor has four calls, which are to end. The next turns are one of the first client's, and this one.
        (tmp_path / "first").touch()
        assert get(short) == "short"
        assert not any(future.done() for future in rest)
    (tmp_path / "rest").touch()
    assert [get(future) for future in first + rest] == ["first"] * 10 + ["rest"] * 50


def test_calls_can_be_cancelled(service: Service, tmp_path: Path) -> None:
    futures = [service.submit("hold", str(tmp_path)) for _ in range(8)]
    begun(tmp_path, 2)
    # In the service, in the executor, in a worker.
    for future in reversed(futures):
        assert future.cancel() and future.cancelled() and future.cancel()
    with pytest.raises(CancelledError):
        futures[0].result()
    with harness.waiting("futures that are done"):
        assert len(wait(futures).done) == 8
    harness.until(lambda: service.status()["clients"][0]["running"] == 0, "cancelled calls to end")
    # Their ids and places are free.
    assert [get(future) for future in [service.submit("echo", n) for n in range(100)]] == list(range(100))
    answered = service.submit("echo", 1)
    assert get(answered) == 1
    assert not answered.cancel()
    counts = {kernel["name"]: kernel for kernel in service.status()["kernels"]}
    assert (counts["hold"]["done"], counts["hold"]["queued"], counts["hold"]["running"]) == (0, 0, 0)


def test_a_raw_cancel_is_answered(serving: Any, tmp_path: Path) -> None:
    with Raw(serving.address) as raw:
        for id in range(1, 6):
            raw.send({"op": "call", "id": id, "kernel": "hold", "args": [str(tmp_path)]})
        begun(tmp_path, 2)
        for id in (5, 1, 99, 2, 3, 4):
            raw.send({"op": "cancel", "id": id})
        answers = [raw.receive() for _ in range(5)]
        assert {(answer["id"], answer["error"]) for answer in answers} == {(id, "cancelled") for id in range(1, 6)}
        assert raw.ask({"op": "call", "id": 1, "kernel": "echo", "args": [1]}) == {"id": 1, "value": 1}


def test_futures_work_with_asyncio_and_callbacks(service: Service, tmp_path: Path) -> None:
    async def main() -> list[int]:
        calls = [asyncio.wrap_future(service.submit("echo", number)) for number in range(20)]
        return await asyncio.gather(*calls)

    with harness.waiting("asyncio"):
        assert asyncio.run(main()) == list(range(20))
    ended = threading.Event()
    found: list[Any] = []

    def chain(future: Any) -> None:
        found.append(future.result())
        with pytest.raises(RuntimeError, match="must not wait"):
            service.call("echo", 2)
        service.submit("echo", 3).add_done_callback(lambda future: (found.append(future.result()), ended.set()))

    # It ends after this thread has added the callback.
    service.submit("hold", str(tmp_path)).add_done_callback(chain)
    (tmp_path / "gate").touch()
    with harness.waiting("a call that a callback made"):
        ended.wait()
    assert found == ["gate", 3]


def test_status(serving: Any, service: Service, executor: arenite.Executor, tmp_path: Path) -> None:
    service.call("scale", np.zeros(10))
    futures = [service.submit("hold", str(tmp_path)) for _ in range(5)]
    begun(tmp_path, 2)
    status = service.status()
    assert status["service"] is True and status["protocol"] == 1 and status["version"] == arenite.__version__
    assert (status["name"], status["pid"], status["max_calls"]) == (serving.name, os.getpid(), 64)
    kernels = {kernel["name"]: kernel for kernel in status["kernels"]}
    assert (kernels["hold"]["running"], kernels["hold"]["queued"]) == (2, 3)
    assert (kernels["scale"]["done"], kernels["scale"]["failed"]) == (1, 0) and kernels["scale"]["seconds"] > 0
    (client,) = status["clients"]
    assert client["pid"] == os.getpid() and (client["running"], client["queued"], client["done"]) == (2, 3, 1)
    pids = [worker.pid for worker in executor.stats().workers]
    assert [worker["pid"] for worker in status["workers"]] == pids
    assert [(worker["state"], worker["kernel"]) for worker in status["workers"]] == [("busy", "hold")] * 2
    assert status["memory"]["capacity"] == executor.stats().capacity and status["memory"]["in_use"] >= 0
    (tmp_path / "gate").touch()
    for future in futures:
        get(future)
    assert {worker["state"] for worker in service.status()["workers"]} == {"idle"}
    assert service.info() == {key: service.status()[key] for key in service.info() if key != "kernels"} | {
        "kernels": [{"name": name, "signature": text} for name, text in service.kernels.items()]
    }


def test_values_do_not_stay_in_the_service(service: Service, executor: arenite.Executor) -> None:
    gc.disable()
    try:
        before, opened = executor.stats().used_bytes, len(harness.descriptors())
        for _ in range(10):
            assert service.call("make", "large").sum() == 1_000_000
            assert service.call("echo", np.ones(1_000_000)).sum() == 1_000_000
        # A worker frees its last ones when it has its next call.
        harness.until(lambda: executor.stats().used_bytes <= before + 40_000_000, "most of 30 arrays to be gone")
        same_descriptors(opened)
    finally:
        gc.enable()


# ---- packets that no client should send


def test_garbage_is_answered_and_costs_nothing(serving: Any, service: Service) -> None:
    packets: list[Any] = [
        b"\xff\xfe", b"[]", b"null", b"17", b'"info"', b"{}", b"{", b"[" * 60_000, b'{"op": NaN}', b'{"op": 1}', b"\0",
        {"op": "stop"}, {"op": "call"}, {"op": "call", "id": "a"}, {"op": "call", "id": 1.5}, {"op": "call", "id": True},
        {"op": "call", "id": 1}, {"op": "call", "id": 1, "kernel": 1, "args": []}, {"op": "call", "id": 1, "kernel": "echo"},
        {"op": "call", "id": 1, "kernel": "echo", "args": {}}, {"op": ["call"]}, {"op": None}, b"x" * 100_000,
        {"op": "call", "id": 1, "kernel": "echo", "args": [1], "deadline": "x"}, b'{"op": "call", "id": ' + b"9" * 5000 + b"}",
        {"op": "call", "id": 1, "kernel": "\ud800", "args": []}, b'{"op":"call","id":1,"kernel":"echo","args":[1e999]}'[:-3],
    ]  # fmt: skip
    with Raw(serving.address) as raw:
        raw.ask({"op": "info"})
        before = len(harness.descriptors())
        for packet in packets:
            answer = raw.ask(packet)
            code = "no_kernel" if isinstance(packet, dict) and packet.get("kernel") == "\ud800" else "bad_request"
            is_cut = isinstance(packet, bytes) and b'"id":1,' in packet
            assert answer["error"] == ("bad_argument" if is_cut else code), (packet, answer)
            # Those that have an id of their own say which call it is.
            own = isinstance(packet, dict) and packet.get("id") == 1 and packet.get("id") is not True or is_cut
            assert answer.get("id") == (1 if own else None), (packet, answer)
        raw.send({"op": "cancel", "id": 5})
        raw.send({"op": "cancel"})
        assert raw.ask({"op": "info", "more": 1})["service"] is True
        same_descriptors(before)
    assert service.call("echo", 1) == 1


def test_a_packet_that_cannot_be_read_costs_its_call(serving: Any, service: Service) -> None:
    digits = b"1" + b"0" * 5000
    with Raw(serving.address) as raw:
        for args in (digits, b"[" * 30_000, b"1, " + digits, b"]", b"x" * 100_000):
            packet = b'{"op":"call","id":7,"kernel":"echo","args":[' + args + b"]}"
            answer = raw.ask(packet)
            assert (answer["id"], answer["error"]) == (7, "bad_argument"), answer
        assert raw.ask({"op": "call", "id": 7, "kernel": "echo", "args": [1]}) == {"id": 7, "value": 1}
    # A client without the limit of digits sends it.
    known = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        numbers = [service.submit("echo", [10**5000])]
    finally:
        sys.set_int_max_str_digits(known)
    assert [failure(number).code for number in numbers] == ["bad_argument"]
    assert service.call("echo", 1) == 1


def test_an_answer_that_cannot_be_read_costs_its_call(tmp_path: Path) -> None:
    info = b'{"service":true,"protocol":1,"name":"s","pid":1,"max_calls":9,"names":true,"kernels":[]}'
    path = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as client:
                ids = []
                while data := client.recv(1 << 16):
                    request = json.loads(data)
                    if request["op"] == "info":
                        client.send(info)
                        continue
                    ids.append(request["id"])
                    if len(ids) == 3:
                        client.send(b'{"id":%d,"value":[1,%s]}' % (ids[1], b"1" + b"0" * 5000))
                        client.send(b'{"id":%d,"value":%s}' % (ids[2], b"[" * 30_000 + b"]" * 30_000))
                        client.send(b'{"id":%d,"value":5}' % ids[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with connect(path) as service:
            calls = [service.submit("echo") for _ in range(3)]
            for call in calls[1:]:
                assert "cannot be read" in str(failure(call))
            assert get(calls[0]) == 5
        thread.join()


@pytest.mark.parametrize(
    "value",
    [
        {}, {"kind": "table"}, {"kind": "array"}, {"kind": "array", "dtype": "<f4"}, {"float": "1"}, {"float": 1},
        {"kind": "array", "dtype": "|O8", "shape": []}, {"kind": "array", "dtype": "<f4", "shape": [-1]},
        {"kind": "array", "dtype": "<f4", "shape": [1.0]}, {"kind": "array", "dtype": "<f4", "shape": [True]},
        {"kind": "array", "dtype": ["<f4"], "shape": [1]}, {"kind": "array", "dtype": "<f4", "shape": [2**62, 2**62]},
        {"kind": "array", "dtype": "<f4", "shape": [1] * 65}, {"kind": ["bytes"]}, {"kind": "array", "dtype": "<f4", "shape": [3]},
        {"kind": "bytes", "text": True},
        functools.reduce(lambda inner, _: [inner], range(900), 1),
    ],
    ids=lambda value: json.dumps(value)[:60],
)  # fmt: skip
def test_bad_values_are_refused(serving: Any, value: Any) -> None:
    file = sealed(b"\xff\xff\xff\xff")
    before = len(harness.descriptors())
    with Raw(serving.address) as raw:
        answer = raw.ask({"op": "call", "id": 7, "kernel": "echo", "args": [value]}, [file])
        assert (answer["id"], answer["error"]) == (7, "bad_argument"), answer
        assert raw.ask({"op": "call", "id": 7, "kernel": "echo", "args": [1]}) == {"id": 7, "value": 1}
    same_descriptors(before)
    os.close(file)


def test_descriptors_of_other_kinds_are_refused(serving: Any) -> None:
    before = len(harness.descriptors())
    unsealed = memory_files.create()
    os.write(unsealed, b"1234")
    reader, writer = os.pipe()
    listener = socket.socket()
    with tempfile.TemporaryFile() as regular, listener:
        files = {
            "none of a memory file": [reader, writer, regular.fileno(), listener.fileno()],
            "can still be changed": [unsealed],
            "for an array of 4": [sealed(b""), sealed(b"12345")],
            "have memory": [sealed(b"1234", allocate=False)],
        }
        argument = {"kind": "array", "dtype": "<f4", "shape": [1]}
        with Raw(serving.address) as raw:
            for text, bad in files.items():
                for file in bad:
                    answer = raw.ask({"op": "call", "id": 1, "kernel": "echo", "args": [argument]}, [file])
                    assert answer["error"] == "bad_argument" and text in answer["message"], answer
            good = sealed(b"1234")
            for args, count, text in (([argument], 0, "fewer"), ([argument], 2, "more"), ([], 1, "more")):
                answer = raw.ask({"op": "call", "id": 1, "kernel": "make", "args": args}, [good] * count)
                assert answer["error"] == "bad_argument" and text in answer["message"], answer
            # The largest number of descriptors that Linux sends.
            answer = raw.ask({"op": "call", "id": 1, "kernel": "echo", "args": [[argument] * 253]}, [good] * 253)
            assert (answer["error"], answer["id"]) == ("bad_request", 1) and "253" in answer["message"]
            assert raw.ask({"op": "info"}, [good] * 253)["error"] == "bad_request"
            assert raw.ask({"op": "info"})["service"] is True
            assert "value" in raw.ask({"op": "call", "id": 1, "kernel": "echo", "args": [[argument] * 200]}, [good] * 200)
        for file in {file for bad in files.values() for file in bad if file not in (regular.fileno(), listener.fileno())}:
            os.close(file)
        os.close(good)
    same_descriptors(before)


def test_a_file_that_is_sent_many_times_is_not_copied_without_limit(name: str) -> None:
    length = {"length": lambda *args: sum(map(len, args))}
    with arenite.Executor(1, capacity="64MiB") as executor, executor.serve(name, length), Raw(name) as raw:
        file = sealed(bytes(1 << 20))
        for value, count in (({"kind": "bytes"}, 10), ({"kind": "bytes", "text": True}, 10)):
            call = {"op": "call", "id": 1, "kernel": "length", "args": [value] * count}
            assert raw.ask(call, [file] * count) == {"id": 1, "value": count << 20}
            call["args"] *= 10
            answer = raw.ask(call, [file] * 10 * count)
            assert answer["error"] == "limit" and "counted as often as it occurs" in answer["message"], answer
        os.close(file)


def test_a_client_that_does_not_read_is_disconnected(serving: Any, service: Service) -> None:
    before = len(harness.descriptors())
    with Raw(serving.address) as raw, harness.waiting("a client that does not read to be disconnected"):
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                raw.send({"op": "status"})
    assert service.call("echo", 1) == 1
    same_descriptors(before)


def test_a_service_without_descriptors_says_so(executor: arenite.Executor, name: str) -> None:
    import resource

    with executor.serve(name, KERNELS), connect(name) as service:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        highest = max(harness.descriptors())
        fillers = [os.dup(raw.fileno()) for _ in range(highest)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, hard))
        try:
            raw.connect(name)
            with harness.waiting("a refusal"):
                answer = json.loads(raw.recv(1 << 16))
            assert answer["error"] == "limit" and "ulimit" in answer["message"]
            with harness.waiting("a failed call"):
                assert failure(service.submit("make", "large")).code == "limit"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for file in fillers:
                os.close(file)
            raw.close()
        assert service.call("make", "large").sum() == 1_000_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_other_users_are_refused(executor: arenite.Executor) -> None:
    other = 65534
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        address = f"{folder}/s.sock"
        with executor.serve(address, {"echo": echo}):
            os.chmod(address, 0o777)
            child = os.fork()
            if child == 0:
                try:
                    os.setresuid(other, other, other)
                    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    client.connect(address)
                    refused = client.recv(1 << 16) == b""
                finally:
                    os._exit(not refused)
            with harness.waiting("another user's client"):
                assert os.waitpid(child, 0)[1] == 0
            with connect(address) as service:
                assert service.call("echo", 1) == 1
        # And the other way round.
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setresuid(other, other, other)
                server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                server.bind(f"{folder}/other.sock")
                server.listen()
                os.write(writer, b"1")
                server.accept()
            finally:
                os._exit(0)
        with harness.waiting("another user's server"):
            os.read(reader, 1)
        with pytest.raises(ServiceError, match="another user"):
            connect(f"{folder}/other.sock")
        with harness.waiting("the end of another user's server"):
            os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


# ---- processes that die


SERVER = """
    import os, sys, time
    import arenite
    sys.path.insert(0, {tests!r})
    from test_service import KERNELS

    with arenite.Executor(2) as ex, ex.serve(sys.argv[1], KERNELS) as serving:
        print(serving.address, flush=True)
        serving.wait()
    print("closed")
"""

CLIENT = """
    import sys, threading
    from arenite.service import connect

    service = connect(sys.argv[1])
    futures = [service.submit("hold", sys.argv[2]) for _ in range(12)]
    print("sent", flush=True)
    futures[0].result()
"""


@pytest.fixture
def server(name: str) -> Iterator[harness.Script]:
    script = harness.Script(SERVER.format(tests=str(Path(__file__).parent)), name)
    try:
        assert script.line() == name
        yield script
    finally:
        script.end()


def test_a_client_that_is_killed(serving: Any, service: Service, tmp_path: Path) -> None:
    before = len(harness.descriptors())
    client = harness.Script(CLIENT, serving.address, tmp_path)
    try:
        assert client.line() == "sent"
        begun(tmp_path, 2)

        def waiting() -> Any:
            other = service.status()["clients"][1]
            # The server may still be reading calls that the client has sent.
            return (other["running"], other["queued"]) == (2, 10) and other

        assert harness.until(waiting, "two calls to run and ten to wait")["pid"] == client.pid
        mine = service.submit("echo", "mine")
        client.signal(signal.SIGKILL)
        assert get(mine) == "mine"
        harness.until(lambda: len(service.status()["clients"]) == 1, "the killed client to be gone")

        def held() -> Any:
            kernels = {kernel["name"]: kernel for kernel in service.status()["kernels"]}
            return kernels["hold"]

        # Those that ran end with their workers, one after the other.
        harness.until(lambda: (held()["queued"], held()["running"]) == (0, 0), "its calls to end")
        assert held()["done"] == 0
    finally:
        client.end()
    same_descriptors(before)


def test_a_server_that_is_killed(server: harness.Script, executor: arenite.Executor, name: str, tmp_path: Path) -> None:
    with connect(name) as service:
        received = service.call("make", "large")
        futures = [service.submit("hold", str(tmp_path)) for _ in range(5)]
        begun(tmp_path, 2)
        server.signal(signal.SIGKILL)
        for future in futures:
            error = failure(future)
            assert isinstance(error, NotRunning) and isinstance(error, ConnectionError), error
        with pytest.raises(NotRunning, match="executor.serve"):
            service.call("echo", 1)
        assert received.sum() == 1_000_000
        with harness.waiting("the killed server to be gone"):
            server.process.wait()
        # Its socket and its lock are there, and do no harm.
        assert os.path.exists(name) and os.path.exists(f"{name}.lock")
        with executor.serve(name, {"echo": echo}):
            # The client connects again.
            assert service.call("echo", 1) == 1
            assert list(service.kernels) == ["echo"]
        with pytest.raises(NotRunning):
            service.call("echo", 1)
    assert not os.path.exists(name) and not os.path.exists(f"{name}.lock")


def test_ctrl_c_ends_a_service(server: harness.Script, name: str) -> None:
    with connect(name) as service:
        assert service.call("echo", 1) == 1
        server.signal(signal.SIGINT)
        ended = server.finish()
        assert (ended.code, ended.err, ended.left) == (0, "", []), ended
        assert "closed" in ended.out
    assert not os.path.exists(name)


def test_a_name_of_this_process_is_taken(serving: Any, executor: arenite.Executor, name: str) -> None:
    with pytest.raises(AlreadyRunning, match=f"by process {os.getpid()}"):
        executor.serve(name, {"echo": echo})
    assert os.path.exists(name)


def test_a_name_of_another_process_is_taken(server: harness.Script, executor: arenite.Executor, name: str) -> None:
    with pytest.raises(AlreadyRunning, match=f"by process {server.pid}"):
        executor.serve(name, {"echo": echo})
    with connect(name) as service:
        assert service.call("echo", 1) == 1
    # Even if its lock was removed.
    os.unlink(f"{name}.lock")
    with pytest.raises(AlreadyRunning):
        executor.serve(name, {"echo": echo})


def test_what_is_no_socket_is_left_as_it_is(executor: arenite.Executor, name: str) -> None:
    Path(name).write_text("mine")
    with pytest.raises(ServiceError, match="no socket of a service"):
        executor.serve(name, {"echo": echo})
    assert Path(name).read_text() == "mine"
    os.unlink(name)
    Path(f"{name}.lock").write_text("mine")
    with pytest.raises(ServiceError, match="no lock of a service"):
        executor.serve(name, {"echo": echo})
    assert Path(f"{name}.lock").read_text() == "mine"


def test_names(executor: arenite.Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with executor.serve("photos", {"echo": echo}) as serving:
        assert serving.address == f"{tmp_path}/arenite/photos.sock"
        assert os.stat(tmp_path / "arenite").st_mode & 0o777 == 0o700
        with arenite.service.connect("photos") as service:
            assert service.call("echo", 1) == 1
            assert pickle.loads(pickle.dumps(service)).call("echo", 2) == 2
    for bad in ("", ".a", "a" * 65, "é", "a b"):
        with pytest.raises(ValueError, match="no name for a service"):
            executor.serve(bad, {"echo": echo})
    with pytest.raises(NotRunning, match="no service photos runs"):
        connect("photos")
    os.chmod(tmp_path / "arenite", 0o755)
    with pytest.raises(ServiceError, match="no folder of this user"):
        executor.serve("photos", {"echo": echo})
    assert os.listdir(tmp_path / "arenite") == []


def test_bad_kernels(executor: arenite.Executor, name: str) -> None:
    for bad in ({}, {"": echo}, {1: echo}):
        with pytest.raises(ValueError, match="a service has kernels"):
            executor.serve(name, bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        executor.serve(name, {"lock": threading.Lock().acquire})
    class Later:
        async def __call__(self) -> None: ...

    async def later() -> None: ...

    async def several() -> Any:
        yield 1

    for kernel in (later, several, Later(), functools.partial(later)):
        with pytest.raises(TypeError, match="later is async"):
            executor.serve(name, {"later": kernel})
    with pytest.raises(ValueError, match="max_calls"):
        executor.serve(name, {"echo": echo}, max_calls=0)
    assert not os.path.exists(name)


def test_a_service_ends_with_its_executor(name: str, tmp_path: Path) -> None:
    with arenite.Executor(1) as executor:
        serving = executor.serve(name, KERNELS)
        service = connect(name)
        future = service.submit("hold", str(tmp_path))
        begun(tmp_path, 1)
    assert isinstance(failure(future), NotRunning)
    serving.close()
    serving.wait()
    service.close()
    assert not os.path.exists(name)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.serve(name, KERNELS)


def test_an_executor_without_workers_serves_too(name: str) -> None:
    with arenite.Executor(0) as executor, executor.serve(name, {"echo": echo}), connect(name) as service:
        assert service.call("echo", np.arange(3)).tolist() == [0, 1, 2]
        assert service.status()["workers"] == []


def test_close_fails_open_calls_and_the_next_call_connects(service: Service, tmp_path: Path) -> None:
    future = service.submit("hold", str(tmp_path))
    service.close()
    assert isinstance(failure(future), NotRunning)
    assert service.call("echo", 1) == 1


def test_a_call_may_take_longer_than_a_connection(
    executor: arenite.Executor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_files, "PATIENCE", 1)
    with executor.serve(name, {"sleep": time.sleep}), connect(name) as service:
        assert service.call("sleep", 1.5) is None


def test_a_service_that_is_dropped_disconnects_after_its_calls(serving: Any, service: Service) -> None:
    dropped = connect(serving.address)
    future = dropped.submit("echo", 1)
    del dropped
    assert get(future) == 1
    del future
    gc.collect()
    harness.until(lambda: len(service.status()["clients"]) == 1, "a dropped service to disconnect")


def test_a_forked_process_has_a_connection_of_its_own(serving: Any, service: Service, tmp_path: Path) -> None:
    future = service.submit("hold", str(tmp_path))
    child = os.fork()
    if child == 0:
        try:
            ok = service.call("echo", 5) == 5
        finally:
            os._exit(not ok)
    with harness.waiting("a forked client"):
        assert os.waitpid(child, 0)[1] == 0
    (tmp_path / "gate").touch()
    assert get(future) == "gate"


def test_a_forked_process_keeps_no_service_alive(executor: arenite.Executor, name: str) -> None:
    reader, writer = os.pipe()
    with executor.serve(name, {"echo": echo}) as serving, connect(name) as service:
        child = os.fork()
        if child == 0:
            try:
                os.close(writer)
                serving.close()
                os.read(reader, 1)
            finally:
                os._exit(0)
        os.close(reader)
        assert service.call("echo", 1) == 1
    with pytest.raises(NotRunning):
        connect(name)
    with executor.serve(name, {"echo": echo}), connect(name) as service:
        assert service.call("echo", 2) == 2
    os.close(writer)
    with harness.waiting("a forked server"):
        assert os.waitpid(child, 0)[1] == 0


# ---- the client without the extension


PLAIN = """
    import sys
    import arenite
    assert arenite.__file__.startswith(sys.argv[1]), arenite.__file__
    service = arenite.service.connect(sys.argv[2])
    assert service.call("echo", [1, None, "a" * 5000, 2.5]) == [1, None, "a" * 5000, 2.5]
    assert service.call("echo", b"bytes" * 50_000) == b"bytes" * 50_000
    try:
        service.call("leave", 3)
    except arenite.WorkerDied as died:
        assert died.exit_code == 3
    else:
        raise AssertionError("it died")
    assert "numpy" not in sys.modules
    import numpy
    assert service.call("scale", numpy.arange(3), 2).tolist() == [0, 2, 4]
    assert not any("_arenite" in name or "arenite._core" in name for name in sys.modules)
    print("done")
"""


def test_a_client_needs_no_extension(serving: Any, tmp_path: Path) -> None:
    copy = tmp_path / "arenite"
    copy.mkdir()
    for file in ("__init__.py", "_broken.py", "_errors.py", "_memory_files.py", "_packets.py", "service.py"):
        shutil.copy(Path(arenite.__file__).parent / file, copy)
    ran = harness.script(PLAIN, tmp_path, serving.address, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert ran.ok().out == "done\n"


STANDARD = """
    import sys
    from array import array

    sys.path.insert(0, sys.argv[1])
    from service_client import Failed, Service

    service = Service("plain")
    assert "scale" in {kernel["name"] for kernel in service.info["kernels"]}

    # Values of each kind come back.
    values = [None, True, 2**70, 1.5, float("-inf"), "é" * 5000, [1, [2, "three"]], {"name": [1], "": {}}]
    assert service.call("echo", values) == values
    content, numbers = service.call("echo", [b"bytes" * 50_000, array("d", [1.5, -2.5])])
    assert content == b"bytes" * 50_000 and numbers.tolist() == [1.5, -2.5] and numbers.readonly
    assert service.call("scale", array("i", range(5)), 3).tolist() == [0, 3, 6, 9, 12]

    # Calls are answered in any order.
    waits = service.submit("hold", sys.argv[2])
    assert service.call("echo", 7) == 7
    open(f"{sys.argv[2]}/gate", "w").close()
    assert service.result(waits) == "gate"
    cancelled = service.submit("hold", sys.argv[2], "no gate")
    service.cancel(cancelled)

    def code(call):
        try:
            return service.result(call)
        except Failed as failure:
            return failure.code

    assert code(cancelled) == "cancelled"
    assert code(service.submit("hold", sys.argv[2], "no gate", deadline=0.05)) == "timeout"
    assert code(service.submit("leave", 3)) == "exited"
    assert code(service.submit("fail", "text")) == "panicked"
    assert code(service.submit("none")) == "no_kernel"
    assert service.call("echo", 8) == 8
    assert not any(name.split(".")[0] in ("arenite", "numpy") for name in sys.modules)
"""


def test_the_client_of_the_standard_library(executor: arenite.Executor, tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "examples/python"
    (tmp_path / "arenite").mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    with executor.serve(str(tmp_path / "arenite/plain.sock"), KERNELS):
        harness.script(STANDARD, examples, tmp_path, env=env).ok()

        def run(*arguments: str) -> tuple[int, str, str]:
            command = [sys.executable, str(examples / "service_client.py"), "plain", *arguments]
            with harness.waiting("an example to end"):
                ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
            return ran.returncode, ran.stdout, ran.stderr

        assert "scale(image, factor=2.0, *, out=None)\n" in run()[1]
        assert run("echo", '{"a": [1.5, null]}') == (0, '{"a": [1.5, null]}\n', "")
        assert run("make", '"transposed"') == (0, "[[0, 3], [1, 4], [2, 5]]\n", "")
        code, _, said = run("fail", '"text"')
        assert code == 1 and said.startswith("panicked: ValueError: text\n")
        (tmp_path / "file").write_bytes(b"\1\2")
        assert run("echo", "@file") == (0, "[1, 2]\n", "")


def test_a_store_is_no_service(executor: arenite.Executor, serving: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "store.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.send(b'{"protocol": 1, "name": "main", "capacity": 0}')

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(ServiceError, match="is a store"):
        connect(path)
    thread.join()
    listener.close()
