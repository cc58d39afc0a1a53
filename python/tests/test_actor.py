"""Actors: objects that stay in one worker."""

import gc
import os
import signal
import threading
import time

import arenite
import harness
import numpy as np
import pytest


class Log:
    """Remembers what it was told."""

    def __init__(self, *items, last=None, path=None):
        self.items = list(items)
        self.last = last
        self.path = path

    def add(self, item, twice=False):
        self.items += [item] * (1 + twice)
        return len(self.items)

    def all(self):
        return self.items

    def pid(self):
        return os.getpid()

    def fail(self, text):
        self.items.append(text)
        raise KeyError(text)

    def die(self):
        os._exit(7)

    def stay(self):
        while True:
            time.sleep(60)

    def read(self, path):
        with open(path) as file:
            return file.read()

    def _hidden(self):
        return "hidden"

    def __del__(self):
        if self.path is not None:
            with open(self.path, "w") as file:
                file.write(str(os.getpid()))


class Model:
    """Keeps an array."""

    def __init__(self, weights):
        self.weights = weights
        self.seen = []

    def total(self):
        return float(self.weights.sum())

    def scaled(self, factor):
        out = arenite.empty(self.weights.shape)
        np.multiply(self.weights, factor, out=out)
        return out

    def keep(self, array):
        self.seen.append(array)
        return sum(float(array[0]) for array in self.seen)

    def forget(self):
        self.seen.clear()

    def fill(self, out, value):
        out[...] = value


def raise_(error):
    raise error


@pytest.fixture(params=[2, 0])
def executor(request):
    with arenite.Executor(request.param) as executor:
        yield executor


@pytest.fixture
def workers():
    with arenite.Executor(2) as executor:
        yield harness.all_ready(executor)


def test_calls_change_one_object_in_order(executor):
    log = executor.actor(Log, 1, 2, last=3)
    assert log.all().result() == [1, 2]
    calls = [log.add(n) for n in range(100)]
    assert [call.result() for call in calls] == list(range(3, 103))
    assert log.add("x", twice=True).result() == 104
    assert log.all().result() == [1, 2, *range(100), "x", "x"]
    other = executor.actor(Log)
    assert other.all().result() == []
    assert len({log.pid().result() for _ in range(20)}) == 1


def test_any_callable_makes_an_object(executor):
    made = executor.actor(lambda text: Log(*text), "ab")
    assert made.all().result() == ["a", "b"]
    assert executor.actor(dict, a=1).get("a").result() == 1
    assert "Log" in repr(executor.actor(Log))


def test_a_method_of_the_class_names_that_of_the_object(executor):
    class Counted(Log):
        def add(self, item):
            return -super().add(item)

        append = add

    log = executor.actor(Counted)
    assert log[Counted.append]("x").result() == -1
    # As an attribute does, it means what the class of the object has.
    assert log[Log.add]("y").result() == -2
    assert log.options(deadline=60)[Log.all]().result() == ["x", "y"]
    with pytest.raises(TypeError, match="a method of the class is needed between the brackets, not 'add'"):
        log["add"]
    with pytest.raises(AttributeError, match="upper"):
        log[str.upper]
    assert executor.actor(lambda: Log(1))[Log.all]().result() == [1]


def test_an_exception_leaves_the_object(executor):
    log = executor.actor(Log)
    with pytest.raises(KeyError, match="text") as caught:
        log.fail("text").result()
    if executor._workers.count:
        assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(AttributeError, match="nothing"):
        log.nothing().result()
    assert log.all().result() == ["text"]
    with pytest.raises(AttributeError):
        log._hidden  # noqa: B018


def test_an_object_that_cannot_be_made_fails_each_call(executor):
    log = executor.actor(raise_, ValueError("no object"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no object"):
            log.add(1).result()
    assert executor.submit(abs, -1).result() == 1


def test_calls_of_many_threads_run_one_at_a_time(workers):
    log = workers.actor(Log)

    def call():
        for _ in range(50):
            log.add(0)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.add(0).result() == 201


@pytest.mark.parametrize("end", ["with", "del"])
def test_the_end_comes_after_the_calls_and_drops_the_object(workers, tmp_path, end):
    path = tmp_path / "dropped"
    log = workers.actor(Log, path=str(path))
    pid = log.pid().result()
    if end == "with":
        with log:
            last = log.add(1)
        with pytest.raises(RuntimeError, match="the actor has ended"):
            log.add(2)
        assert "ended" in repr(log)
    else:
        last = log.add(1)
        del log
        gc.collect()
    assert last.result() == 1
    harness.until(lambda: path.exists() and path.read_text() == str(pid), "the object to be dropped in its worker")


def test_the_end_of_the_executor_ends_actors(tmp_path):
    path = tmp_path / "dropped"
    with arenite.Executor(1) as executor:
        log = executor.actor(Log, path=str(path))
        last = log.add(1)
    assert last.result() == 1
    assert path.exists()
    with pytest.raises(RuntimeError, match="shutdown"):
        log.add(2)


def test_the_death_of_its_worker_costs_the_object(workers):
    log = workers.actor(Log)
    before, death, after = log.add(1), log.die(), log.add(2)
    assert before.result() == 1
    for call in (death, after, log.add(3)):
        with harness.waiting("a call of an actor that is lost"), pytest.raises(arenite.WorkerDied) as caught:
            call.result()
        assert caught.value.exit_code == 7
    assert workers.submit(abs, -1).result() == 1
    assert workers.actor(Log).add(1).result() == 1


def test_a_killed_worker_and_a_dying_start(workers):
    log = workers.actor(Log)
    os.kill(log.pid().result(), signal.SIGKILL)
    with harness.waiting("a call of an actor that is lost"), pytest.raises(arenite.WorkerDied) as caught:
        while True:
            log.add(1).result()
    assert caught.value.signal == signal.SIGKILL
    log = workers.actor(os._exit, 5)
    with harness.waiting("a call of an actor that never was"), pytest.raises(arenite.WorkerDied):
        log.add(1).result()


def test_cancelling(workers, tmp_path):
    """A call that waits is taken out of the line; one that runs takes the object with it."""
    barrier = tmp_path / "barrier"
    os.mkfifo(barrier)
    log = workers.actor(Log)
    first, second, third = log.read(str(barrier)), log.add(1), log.add(2)
    harness.until(first.running, "the first call to run")
    assert second.cancel()
    with harness.waiting("the first call to open its pipe"), open(barrier, "w") as file:
        file.write("x")
    assert (first.result(), third.result(), log.all().result()) == ("x", 1, [2])
    running, waiting = log.stay(), log.add(3)
    harness.until(running.running, "the call to run")
    assert running.cancel()
    assert running.cancelled()
    for call in (waiting, log.add(4)):
        with harness.waiting("a call of an actor that is lost"), pytest.raises(arenite.WorkerDied):
            call.result()
        assert not call.cancelled()


def test_arrays_stay_in_the_object_without_a_copy(workers):
    weights = workers.share(np.arange(100_000, dtype=float))
    copied = workers.stats().bytes_copied
    model = workers.actor(Model, weights)
    assert model.total().result() == weights.sum()
    assert np.array_equal(model.scaled(2).result(), weights * 2)
    assert workers.stats().bytes_copied == copied
    del weights
    assert model.scaled(0).result().shape == (100_000,)
    out = workers.zeros((2, 100_000))
    model.fill(arenite.mut(out[1]), 3).result()
    assert (out[0].sum(), out[1].sum()) == (0, 300_000)
    with pytest.raises(ValueError, match=r"mut\(\)"):
        workers.actor(Model, arenite.mut(out[0]))


def test_arrays_that_a_method_keeps_are_counted_and_freed(workers):
    model = workers.actor(Model, np.zeros(10))
    for n in range(1, 4):
        array = workers.share(np.full(100_000, float(n)))
        assert model.keep(array).result() == sum(range(1, n + 1))
        del array
    harness.until(lambda: workers.stats().kept_bytes >= 3 * 800_000, "the kept arrays to be counted")
    model.forget().result()
    harness.until(lambda: workers.stats().kept_bytes == 0, "the kept arrays to be free")
    assert model.keep(workers.share(np.full(1000, 5.0))).result() == 5


def test_the_memory_of_a_dropped_object_is_free(workers):
    before = workers.stats().used_bytes
    model = workers.actor(Model, np.ones(1_000_000))
    assert model.total().result() == 1_000_000
    assert workers.stats().used_bytes >= before + 8_000_000
    del model
    # Workers keep some memory for their next results, less than the array.
    harness.until(lambda: workers.stats().used_bytes <= before + 4_000_000, "the array of the actor to be free")


def test_an_actor_cannot_be_sent(workers):
    log = workers.actor(Log)
    with pytest.raises(TypeError, match="cannot be an argument"):
        workers.submit(print, log).result()
    with pytest.raises(TypeError, match="pickle"):
        workers.actor(Log, threading.Lock())
    with pytest.raises(TypeError, match="pickle"):
        log.add(threading.Lock()).result()
    assert log.all().result() == []


def test_long_arguments_and_results(workers):
    log = workers.actor(Log)
    text = "x" * 1_000_000
    assert log.add(text).result() == 1
    assert log.all().result() == [text]


def test_in_a_child_of_a_fork(workers):
    """The child can drop it, and cannot use it."""
    source = """
        import os, arenite
        with arenite.Executor(1) as ex:
            counter = ex.actor(dict, a=1)
            print(counter.get("a").result(), flush=True)
            pid = os.fork()
            if pid == 0:
                try:
                    counter.get("a").result()
                except RuntimeError as error:
                    print("fork" in str(error), flush=True)
                del counter
                os._exit(0)
            os.waitpid(pid, 0)
            print(counter.get("a").result(), flush=True)
    """
    # From 3.12 on, a fork beside threads is warned of.
    finished = harness.script(source, flags=("-W", "ignore::DeprecationWarning"))
    assert finished.ok().out == "1\nTrue\n1\n"


def test_the_programs_end_with_an_actor_alive():
    source = """
        import arenite
        ex = arenite.Executor(1)
        counter = ex.actor(dict, a=1)
        print(counter.get("a").result(), flush=True)
    """
    assert harness.script(source).ok().out == "1\n"
