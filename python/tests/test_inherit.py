"""Objects of `multiprocessing` in `initargs`, globals, arguments and results: what its own pools do with them."""

import multiprocessing
import multiprocessing.sharedctypes
import os
import socket
import time

import harness
import pytest

import arenite

CONTEXTS = ["fork", "spawn"]
thing = None


def keep(given):
    global thing
    thing = given


def make_pool(context, given):
    """The same pool by both libraries."""
    return {
        "arenite": lambda: arenite.Pool(2, keep, (given,)),
        "multiprocessing": lambda: multiprocessing.get_context(context).Pool(2, keep, (given,)),
    }


def add(_):
    with thing.get_lock():
        thing.value += 1


def add_to_all(n):
    with thing:
        for at in range(len(thing)):
            thing[at] += n
        return list(thing.get_obj())


def add_inside(path):
    """Reads, waits and writes, which is only right inside of the lock."""
    with thing:
        with open(path) as file:
            count = int(file.read())
        time.sleep(0.001)
        with open(path, "w") as file:
            file.write(str(count + 1))


def nest(depth):
    for _ in range(depth):
        thing.acquire()
    for _ in range(depth):
        thing.release()
    return depth


def release_too_often(_):
    try:
        thing.release()
    except (ValueError, AssertionError) as error:
        return type(error).__name__, str(error)


def acquire_at_most(seconds):
    begin = time.monotonic()
    return thing.acquire(timeout=seconds), time.monotonic() - begin >= seconds


def try_to_acquire(_):
    return thing.acquire(False)


@pytest.fixture(params=CONTEXTS)
def context(request):
    """One whose semaphores have names, and one whose have none."""
    return multiprocessing.get_context(request.param)


@pytest.mark.leaves("the resource tracker")
@pytest.mark.parametrize("library", ["arenite", "multiprocessing"])
def test_in_initargs(library, context, tmp_path):
    """One pool gets all kinds of objects. Each task uses one of them."""
    locks = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"]
    queues = ["Queue", "SimpleQueue", "JoinableQueue"]
    given = {kind: getattr(context, kind)() for kind in [*locks, *queues, "Event"]}
    value, array, raw = context.Value("i", 0), context.Array("d", 3), context.RawValue("i", 7)
    barrier = context.Barrier(2)
    mine, theirs = context.Pipe()
    shared = context.Value("i", 0, lock=given["Lock"])
    given |= {"value": value, "array": array, "raw": raw, "barrier": barrier, "pipe": theirs}
    given["several"] = {"lock": given["Lock"], "values": [shared, shared]}
    with make_pool(context.get_start_method(), given)[library]() as pool:

        def apply(name, task, *arguments):
            with harness.waiting(f"a task with {name}"):
                return pool.apply(use, (name, task, *arguments))

        def each(name, task, values):
            with harness.waiting(f"tasks with {name}"):
                return pool.starmap(use, [(name, task, one) for one in values], chunksize=1)

        for kind in locks:
            path = tmp_path / kind
            path.write_text("0")
            each(kind, add_inside, [path] * 10)
            assert path.read_text() == "10"
            assert given[kind].acquire(timeout=10)
            given[kind].release()
        each("value", add, range(50))
        assert value.value == 50
        assert sorted(each("array", add_to_all, [1] * 10))[0] == [1, 1, 1] and array[:] == [10, 10, 10]
        assert apply("raw", set_raw, 8) == 7 and raw.value == 8
        waits = pool.apply_async(use, ("Event", wait_for_event))
        assert apply("Event", is_set) is False
        given["Event"].set()
        with harness.waiting("an event"):
            assert waits.get(50) is True
        assert apply("Event", clear) is None and not given["Event"].is_set()
        assert sorted(each("barrier", meet, range(2))) == [0, 1]
        waits = pool.apply_async(use, ("Condition", wait_for_notice))

        def is_notified():
            with given["Condition"]:
                given["Condition"].notify_all()
            return waits.ready()

        harness.until(is_notified, "a condition")
        assert waits.get(50) is True
        for kind in queues:
            each(kind, put, range(20))
            assert sorted(given[kind].get() for _ in range(20)) == [*range(20)]
            given[kind].put("to a task")
            assert apply(kind, get) == "to a task"
        given["Queue"].close()
        apply("pipe", send, "from a task")
        assert mine.recv() == "from a task"
        for kind, error in {"Lock": "ValueError", "RLock": "AssertionError", "BoundedSemaphore": "ValueError"}.items():
            name, text = apply(kind, release_too_often, 0)
            begins = "semaphore or lock released", "attempt to release recursive lock"
            assert name == error and text.startswith(begins)
        assert each("RLock", nest, [3] * 10) == [3] * 10
        # They share what they consist of.
        assert apply("several", holds_both) == (False, True)
        given["Lock"].acquire()
        assert apply("Lock", acquire_at_most, 0.05) == (False, True)
        assert apply("Lock", try_to_acquire, 0) is False
        given["Lock"].release()
        assert apply("Lock", try_to_acquire, 0) is True and given["Lock"].acquire(False) is False
    mine.close()
    theirs.close()


def use(name, task, *arguments):
    global thing
    things, thing = thing, thing[name]
    try:
        return task(*arguments)
    finally:
        thing = things


def set_raw(value):
    before, thing.value = thing.value, value
    return before


def wait_for_event():
    return thing.wait(50)


def is_set():
    return thing.is_set()


def clear():
    thing.clear()


def meet(_):
    return thing.wait(50)


def wait_for_notice():
    with thing:
        return thing.wait(50)


def put(value):
    thing.put(value)


def get():
    return thing.get()


def send(value):
    thing.send(value)


def holds_both():
    first, second = thing["values"]
    with thing["lock"]:
        return second._lock.acquire(False), first is second


def exit_holding(how):
    thing.acquire()
    how(3)


def add_one():
    with thing.get_lock():
        thing.value += 1
        return thing.value


@pytest.mark.leaves("the resource tracker")
def test_a_replaced_worker_has_them_too(context):
    value = context.Value("i", 0)
    counted = arenite.Executor(1, initializer=keep, initargs=(value,), max_tasks_per_child=2)
    with counted as ex, harness.waiting("the tasks"):
        assert ex.submit(add_one).result() == 1
        assert isinstance(ex.submit(os._exit, 1).exception(), arenite.WorkerDied)
        assert [ex.submit(add_one).result() for _ in range(5)] == [2, 3, 4, 5, 6]


def test_a_lock_that_a_dead_worker_held_is_free():
    """Of the default context; the standard library leaves it locked."""
    lock = multiprocessing.get_context("fork").Lock()
    with arenite.Executor(1, initializer=keep, initargs=(lock,)) as ex, harness.waiting("a lock"):
        assert isinstance(ex.submit(exit_holding, os._exit).exception(), arenite.WorkerDied)
        assert lock.acquire(timeout=50)
        lock.release()
        assert ex.submit(try_to_acquire, 0).result()


def test_a_worker_that_dies_while_it_waits_takes_no_lock():
    lock = multiprocessing.get_context("fork").Lock()
    lock.acquire()
    with arenite.Executor(1, initializer=keep, initargs=(lock,)) as ex, harness.waiting("a lock"):
        future = ex.submit(acquire_at_most, 3600)
        harness.until(future.running, "the task to run")
        future.cancel()
        lock.release()
        assert lock.acquire(timeout=50)


def test_locks_elsewhere_are_refused_as_by_the_standard_library():
    lock = multiprocessing.Lock()
    with arenite.Executor(1) as ex:
        error = ex.submit(keep, lock).exception()
    assert type(error) is RuntimeError and "should only be shared between processes through inheritance" in str(error)
    with pytest.raises(RuntimeError, match="through inheritance"):
        arenite.Executor(1, sandbox=True, initializer=keep, initargs=(lock,))


def test_globals_are_shared_until_the_executor_ends():
    """A worker that dies, and further versions of other globals, change nothing; no descriptor stays open."""
    harness.script("""
        import multiprocessing, os, time
        import arenite

        context = multiprocessing.get_context("fork")
        lock, total, pipe = context.Lock(), context.Value("i", 0), context.Pipe()
        version = 0

        def add():
            with lock, total.get_lock():
                total.value += 1
                pipe[0].send(version)
                return version

        def die():
            lock.acquire()
            os._exit(1)

        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        if __name__ == "__main__":
            before = descriptors()
            with arenite.Executor(1) as ex:
                seen = set()
                for version in range(20):
                    assert ex.submit(add).result() == pipe[1].recv() == version
                    seen.add(descriptors())
                assert len(seen) == 1, seen
                assert isinstance(ex.submit(die).exception(), arenite.WorkerDied)
                assert lock.acquire(timeout=50)
                lock.release()
                assert ex.submit(add).result() == pipe[1].recv() == 19 and total.value == 21
            with arenite.Executor(1, sandbox=True) as ex:
                assert "through inheritance" in str(ex.submit(add).exception())
            # Another thread may still free the arena of the first executor. The script has a watchdog.
            while descriptors() != before:
                time.sleep(0.01)
    """).ok()


def answer(connection, text):
    connection.send(text)
    return "sent"


def make_pipe():
    mine, theirs = multiprocessing.Pipe()
    global thing
    thing = mine
    return theirs


def receive():
    return thing.recv()


def serve(listening):
    connection, _ = listening.accept()
    with connection:
        connection.sendall(b"hello")


@pytest.mark.leaves("the thread that gives descriptors away")
def test_connections_are_arguments():
    pairs = [multiprocessing.Pipe() for _ in range(3)]
    with arenite.Executor(1) as ex, harness.waiting("connections"):
        for mine, theirs in pairs:
            assert ex.submit(answer, theirs, "hello").result() == "sent"
            assert mine.poll(50) and mine.recv() == "hello"
        assert ex.submit(os.getpid).result() == ex.stats().workers[0].pid


@pytest.mark.leaves("the thread that gives descriptors away")
def test_connections_and_sockets_are_results_and_arguments():
    with arenite.Executor(1) as ex, harness.waiting("connections"):
        theirs = ex.submit(make_pipe).result()
        theirs.send("to the task")
        assert ex.submit(receive).result() == "to the task"
        listening = socket.create_server(("127.0.0.1", 0))
        served = ex.submit(serve, listening)
        with socket.create_connection(listening.getsockname()) as client:
            assert client.recv(5) == b"hello"
        served.result()
        listening.close()
        theirs.close()


def log(n):
    import logging

    logging.getLogger("job").info("info %d", n)


def to_queue(queue):
    import logging
    import logging.handlers

    root = logging.getLogger()
    root.addHandler(logging.handlers.QueueHandler(queue))
    root.setLevel(logging.INFO)


def test_the_recipe_of_the_logging_cookbook():
    queue = multiprocessing.Queue()
    with arenite.Executor(1, initializer=to_queue, initargs=(queue,)) as ex, harness.waiting("a record"):
        ex.submit(log, 7).result()
        assert queue.get().getMessage() == "info 7"
    queue.close()
    queue.join_thread()


class Handle:
    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        raise TypeError("only by a reducer of multiprocessing")


def number_of(handle):
    return handle.number


def test_a_reducer_may_be_registered_later():
    from multiprocessing.reduction import ForkingPickler

    with arenite.Executor(1) as ex, harness.waiting("a handle"):
        with pytest.raises(TypeError, match="only by a reducer"):
            ex.submit(number_of, Handle(3)).result()
        ForkingPickler.register(Handle, lambda handle: (Handle, (handle.number,)))
        try:
            assert ex.submit(number_of, Handle(3)).result() == 3
        finally:
            del ForkingPickler._extra_reducers[Handle]
