"""Replies of a hostile worker: unpickled by `result()` in the thread that asks, never by the dispatcher.

The worker is one whose task has replaced what makes replies. `ARENITE_FUZZ_RUNS` sets how many replies are tried, and
`ARENITE_FUZZ_SEED` where to start.
"""

import asyncio
import concurrent.futures
import os
import pickle
import random
import threading

import arenite
import harness
import hostile
import pytest

RUNS = int(os.environ.get("ARENITE_FUZZ_RUNS", "300"))
SEED = int(os.environ.get("ARENITE_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))


class Notes:
    """Unpickles as a call of `hostile.note`."""

    def __init__(self, token):
        self.token = token

    def __reduce__(self):
        return hostile.note, (self.token,)


def subvert():
    """From now on, replies of this worker are the bytes that a task returns, or that an exception carries."""
    from arenite._core import pickling, worker

    honest = pickling.dump_plain
    pickling.dump_plain = lambda value: value if type(value) is bytes else honest(value)
    worker.dump_error = lambda error: ("said by a hostile worker", error.args[0])


def reply(data):
    return data


def fail(data):
    raise ValueError(data)


def stay_honest():
    return os.getpid()


@pytest.fixture
def executor():
    with arenite.Executor(max_workers=1) as executor:
        executor.submit(subvert).result()
        hostile.seen.clear()
        yield executor


@pytest.mark.parametrize("task", [reply, fail])
def test_only_the_thread_that_asks_unpickles(executor, task):
    """Through everything that arms a future: callbacks, `wait`, `as_completed`, `asyncio`."""
    called = threading.Event()
    futures = [executor.submit(task, pickle.dumps(Notes(number))) for number in range(4)]
    futures[0].add_done_callback(lambda future: called.set())
    with harness.waiting("a callback"):
        called.wait()
    # Not FIRST_EXCEPTION, which asks for exceptions, in this thread.
    concurrent.futures.wait(futures[1:2])
    list(concurrent.futures.as_completed(futures[2:3]))

    async def wrapped():
        # Only waits: `await` would ask for the value, in this thread.
        await asyncio.to_thread(concurrent.futures.wait, futures[3:])

    asyncio.run(wrapped())
    assert all(future.done() for future in futures)
    assert hostile.seen == []

    def ask():
        for future in futures:
            try:
                future.result()
            except Exception:
                pass

    asking = threading.Thread(target=ask, name="the thread that asks")
    asking.start()
    asking.join()
    assert {token for token, _ in hostile.seen} == set(range(4))
    assert {thread for _, thread in hostile.seen} == {"the thread that asks"}


def mutations(generator):
    """Bytes that are no pickle, nearly one, or one of something else."""
    models = [
        pickle.dumps(value, protocol)
        for protocol in (0, 2, 5)
        for value in (None, [1, 2.5, "text"], {"a": b"x" * 100}, ValueError("x"), range(3), (((),),))
    ]
    while True:
        kind = generator.randrange(5)
        data = bytearray(generator.choice(models))
        if kind == 0:
            data = bytearray(generator.randbytes(generator.randrange(200)))
        elif kind == 1:
            del data[generator.randrange(len(data)) :]
        elif kind == 2:
            for _ in range(generator.randrange(1, 4)):
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        elif kind == 3:
            at = generator.randrange(len(data))
            data[at:at] = generator.randbytes(generator.randrange(1, 9))
        else:
            data = bytearray(pickle.dumps((bytes(data), "kind", "message", "trace")))
        yield bytes(data)


@pytest.mark.patience(120)
@pytest.mark.parametrize("task", [reply, fail])
def test_any_bytes(executor, task):
    """Whatever comes: a value or an exception, by `result()`; the worker and the program go on."""
    print(f"ARENITE_FUZZ_SEED={SEED}")
    generator = random.Random(SEED)
    pid = executor.submit(stay_honest).result()
    sent = mutations(generator)
    for number in range(RUNS):
        data = next(sent)
        future = executor.submit(task, data)
        with harness.waiting(f"reply {number} of seed {SEED}: {data!r}"):
            try:
                future.result()
            except Exception as error:
                assert not isinstance(error, arenite.WorkerDied), error
                assert str(error) is not None
    assert executor.submit(stay_honest).result() == pid


@pytest.mark.parametrize(
    "answer",
    [None, 7, (), (b"",), (b"", None), ("text", None, 0), (b"N.", [7], 0), (b"N.", None, -1), (1, 2, 3, 4), [b""]],
)
def test_answers_of_another_shape(answer):
    """What is no reply at all is an error of its task."""

    def subvert(answer):
        from arenite._core import worker

        worker.dump_error = lambda error: answer

    with arenite.Executor(max_workers=1) as executor:
        executor.submit(subvert, answer).result()
        with harness.waiting("the answer"):
            assert executor.submit(fail, b"").exception() is not None


@pytest.mark.parametrize("python", ["/bin/true", "/bin/false", "/bin/cat", "/nonexistent/python", "/etc/passwd"])
def test_programs_that_are_no_worker(python):
    """The first task says what is wrong, and nothing waits for ever."""
    with pytest.raises((arenite.StartFailed, OSError)) as caught:
        with arenite.Executor(max_workers=1, settings=arenite.Settings(python=python, start_timeout=5)) as executor:
            executor.submit(stay_honest).result()
    assert str(caught.value)
