"""asyncio and anyio: awaiting a task is the same as with other executors, and giving it up ends its work."""

import asyncio
import importlib.util
import io
import os
import sys
import threading
import time
from concurrent.futures import CancelledError, Future
from pathlib import Path

import arenite
import harness
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/python"


@pytest.fixture
def executor():
    with arenite.Executor(2) as executor:
        yield harness.all_ready(executor)


def stay(folder):
    """Says that it runs, and does so until its process is ended."""
    with open(f"{folder}/{os.getpid()}", "w"):
        pass
    while True:
        time.sleep(60)


def hold(folder, release):
    """Says that it runs, and does so until it is released."""
    path = f"{folder}/{os.getpid()}-{time.monotonic_ns()}"
    with open(path, "w"):
        pass
    while not os.path.exists(release):
        time.sleep(0.005)
    return path


def running(folder):
    return [int(name) for name in os.listdir(folder)]


async def until(condition, what):
    with harness.waiting(what):
        while not condition():
            await asyncio.sleep(0.005)


def run(coroutine):
    with harness.waiting("a coroutine"):
        return asyncio.run(coroutine)


def ended(folder):
    pids = running(folder)
    harness.until(lambda: not any(map(harness.is_alive, pids)), "the processes of the tasks to end")
    return len(pids)


def take_at_once(source, destination):
    """Takes the outcome of a future as asyncio does from Python 3.15 on: by one call, which reads attributes."""
    is_done, is_cancelled, result, error = source._get_snapshot()
    assert is_done
    if is_cancelled:
        destination.cancel()
    elif error is not None:
        destination.set_exception(error)
    elif not destination.cancelled():
        destination.set_result(result)


def snapshot(future):
    is_cancelled = future.cancelled()
    return future.done(), is_cancelled, None if is_cancelled else future._result, future._exception


@pytest.mark.parametrize("at_once", [False, True])
def test_awaiting(executor, monkeypatch, at_once):
    if at_once:
        monkeypatch.setattr(asyncio.futures, "_copy_future_state", take_at_once)
        monkeypatch.setattr(Future, "_get_snapshot", snapshot, raising=False)

    async def main():
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(executor, pow, 2, 10) == 1024
        assert await asyncio.wrap_future(executor.submit(pow, 2, 11)) == 2048
        assert await asyncio.wrap_future(executor.options(deadline=60).submit(pow, 2, 12)) == 4096
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(executor, divmod, 1, 0)
        with pytest.raises(arenite.WorkerDied):
            await loop.run_in_executor(executor, os._exit, 3)
        awaited = [asyncio.wrap_future(executor.submit(pow, n, 2)) for n in range(50)]
        assert await asyncio.gather(*awaited[:25]) == [n * n for n in range(25)]
        assert sorted([await one for one in asyncio.as_completed(awaited[25:])]) == [n * n for n in range(25, 50)]
        cancelled = executor.submit(time.sleep, 60)
        awaited = asyncio.wrap_future(cancelled)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaited

    run(main())
    run(main())


def test_the_loop_runs_meanwhile(executor, tmp_path):
    async def main():
        task = asyncio.wrap_future(executor.submit(hold, tmp_path, tmp_path / "release"))
        await until(lambda: os.listdir(tmp_path), "the task to run")
        (tmp_path / "release").touch()
        return await task

    assert run(main()).startswith(str(tmp_path))


def test_a_timeout_ends_the_work(executor, tmp_path):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.wrap_future(executor.submit(stay, tmp_path))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(executor, stay, tmp_path), 0.5)
        return await asyncio.wrap_future(executor.submit(pow, 2, 3))

    assert run(main()) == 8
    assert ended(tmp_path) <= 2
    harness.until(lambda: executor.stats().cancelled == 2, "both tasks to be counted")


def test_cancellation_ends_the_work(executor, tmp_path):
    async def main():
        task = asyncio.create_task(work())
        await until(lambda: running(tmp_path), "the task to run")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def work():
        await asyncio.get_running_loop().run_in_executor(executor, stay, tmp_path)

    run(main())
    assert ended(tmp_path) == 1


def test_a_task_group_ends_the_others_at_the_first_failure(executor, tmp_path):
    def fail(folder):
        while not os.listdir(folder):
            time.sleep(0.005)
        raise LookupError("this one")

    async def work(function, *arguments):
        await asyncio.wrap_future(executor.submit(function, *arguments))

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(work(stay, tmp_path))
            group.create_task(work(fail, tmp_path))
            # There are two workers: this one never runs.
            waits = group.create_task(work(stay, tmp_path))
            group_tasks.append(waits)

    group_tasks = []
    with pytest.raises(ExceptionGroup) as raised:
        run(main())
    assert [str(error) for error in raised.value.exceptions] == ["'this one'"] or [
        type(error) for error in raised.value.exceptions
    ] == [LookupError]
    assert group_tasks[0].cancelled()
    assert 1 <= ended(tmp_path) <= 2


def test_without_ending_what_runs(tmp_path):
    """As in the standard library, where the executor says so."""
    with arenite.Executor(1, settings=arenite.Settings(cancel_running=False)) as executor:
        future = executor.submit(hold, tmp_path, tmp_path / "release")

        async def main():
            await until(lambda: os.listdir(tmp_path), "the task to run")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(future), 0.05)

        run(main())
        (tmp_path / "release").touch()
        with harness.waiting("the task to end"):
            assert future.result().startswith(str(tmp_path))


# ---- anyio


def test_a_capacity_limiter(tmp_path):
    anyio = pytest.importorskip("anyio")
    folder = tmp_path / "running"
    folder.mkdir()

    async def main():
        limiter, done = anyio.CapacityLimiter(2), []

        async def work():
            async with limiter:
                done.append(await asyncio.wrap_future(executor.submit(hold, folder, tmp_path / "release")))

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(work)
            await until(lambda: len(os.listdir(folder)) == 2, "two tasks to run")
            assert limiter.statistics().tasks_waiting == 4
            assert executor.stats().submitted == 2
            (tmp_path / "release").touch()
        return len(set(done))

    with arenite.Executor(4) as executor, harness.waiting("a task group"):
        assert anyio.run(main) == 6


def test_anyio_scopes_end_the_work(executor, tmp_path):
    anyio = pytest.importorskip("anyio")

    async def work():
        await asyncio.wrap_future(executor.submit(stay, tmp_path))

    async def main():
        with anyio.move_on_after(0.5) as scope:
            await work()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(0.5):
            await work()
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await until(lambda: any(map(harness.is_alive, running(tmp_path))), "the task to run")
            group.cancel_scope.cancel()
        return await anyio.to_thread.run_sync(executor.submit(pow, 2, 3).result)

    with harness.waiting("scopes of anyio"):
        assert anyio.run(main) == 8
    ended(tmp_path)
    harness.until(lambda: executor.stats().cancelled == 3, "the tasks to be counted")


# ---- a web service


@pytest.fixture
def service():
    """The example as a server on loopback: its address, and the module."""
    for package in ("fastapi", "httpx", "uvicorn", "multipart", "numpy", "PIL"):
        pytest.importorskip(package)
    import uvicorn

    spec = importlib.util.spec_from_file_location("uploads", EXAMPLES / "uploads.py")
    uploads = sys.modules["uploads"] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(EXAMPLES))
    spec.loader.exec_module(uploads)
    server = uvicorn.Server(uvicorn.Config(uploads.app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        harness.until(lambda: server.started or not thread.is_alive(), "the server to listen")
        [socket] = server.servers[0].sockets
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", uploads
    finally:
        server.should_exit = True
        with harness.waiting("the server to end"):
            thread.join()
        sys.path.remove(str(EXAMPLES))
        del sys.modules["uploads"]


def picture(size=(640, 480)):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.leaves("sockets of the server and its client")
def test_uploads(service, monkeypatch):
    import httpx
    from PIL import Image

    address, uploads = service
    executor = uploads.app.state.decoder._executor

    def upload(data, timeout=None):
        with harness.waiting("an answer"):
            return httpx.post(f"{address}/thumbnail", files={"picture": data}, timeout=timeout, trust_env=False)

    answer = upload(picture())
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as made:
        assert (made.format, made.size) == ("JPEG", (224, 168))
    for damaged in (b"no picture", picture()[:200]):
        answer = upload(damaged)
        assert answer.status_code == 422 and "not a picture" in answer.text

    # What a hostile picture could make of the decoder. By value: the sandbox opens no modules of tests.
    def crash(upload):
        import ctypes

        ctypes.string_at(0)

    def fill(upload):
        return bytes(bytearray(2 << 30))

    def steal(upload):
        with open("/etc/passwd", "rb") as file:
            return file.read()

    def hang(upload):
        import time

        while True:
            time.sleep(60)

    before = executor.stats().restarts
    for hostile, said in ((crash, "decoding crashes"), (fill, "too much memory"), (steal, "")):
        monkeypatch.setattr(uploads, "thumbnail", hostile)
        answer = upload(picture())
        assert answer.status_code == 422 and said in answer.text, answer.text
        assert b"root:" not in answer.content
    assert executor.stats().restarts > before

    # A client that goes away ends its work.
    monkeypatch.setattr(uploads, "thumbnail", hang)
    before = executor.stats().cancelled
    with pytest.raises(httpx.ReadTimeout):
        upload(picture(), timeout=0.5)
    harness.until(lambda: executor.stats().cancelled > before, "the work of the client to end")

    # A deadline.
    uploads.app.state.decoder = executor.options(deadline=0.2)
    assert upload(picture()).status_code == 504
    uploads.app.state.decoder = executor.options(deadline=60)
    monkeypatch.undo()
    assert upload(picture()).status_code == 200
    monkeypatch.setattr(uploads, "LARGEST", 10)
    assert upload(picture()).status_code == 413


def test_a_future_that_was_cancelled_says_so(executor, tmp_path):
    """What is awaited and cancelled is cancelled for everyone who has the future."""

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(future), 0.2)

    future = executor.submit(stay, tmp_path)
    run(main())
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result()
