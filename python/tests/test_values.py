"""Futures among the arguments of tasks. The oracle is plain Python: the same function, called here with the values."""

import asyncio
import collections
import dataclasses
import functools
import operator
import os
import random
import threading
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor

import arenite
import harness
import numpy as np
import pytest

#: Workers inherit it.
PROGRAM = os.environ.setdefault("ARENITE_TEST_PROGRAM", str(os.getpid()))
SEED = int(os.environ.get("ARENITE_SEED", "0")) or random.randrange(1 << 32)
CASES = int(os.environ.get("ARENITE_CASES", "40"))

Named = collections.namedtuple("Named", "left right")


@dataclasses.dataclass
class Plain:
    left: object
    right: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    left: object
    right: object = None


class Holder:
    def __init__(self, value):
        self.value = value


class Elsewhere:
    """Can be unpickled in tasks, not in the program."""

    def __init__(self):
        self.state = 1

    def __setstate__(self, state):
        if str(os.getpid()) == PROGRAM:
            raise RuntimeError("it has visited the program")


def shown(*args, **kwargs):
    """The arguments as text, which shows values, types and which of them are the same object."""
    numbers, lines = {}, []

    def show(value):
        if type(value) in (int, float, str, type(None)):
            return repr(value)
        if (known := numbers.get(id(value))) is not None:
            return f"#{known}"
        numbers[id(value)] = len(numbers)
        name = f"#{len(numbers) - 1} {type(value).__name__}"
        if isinstance(value, np.ndarray):
            return f"{name} {value.dtype} {value.shape} {value.sum()}"
        if isinstance(value, dict):
            return f"{name} {[(show(key), show(one)) for key, one in value.items()]}"
        if dataclasses.is_dataclass(value):
            return f"{name} {show(value.left)} {show(value.right)}"
        return f"{name} {[show(one) for one in value]}"

    lines = [show(args), show(kwargs)]
    return "\n".join(lines)


def number(n):
    return n


def array(n):
    return np.arange(n)


def lists(n):
    made = [n, [n]]
    made.append(made[1])
    return made


def raising(text):
    raise ValueError(text)


def held(path):
    with open(path) as file:
        return file.read()


@pytest.fixture
def gate(tmp_path):
    """A file whose reader waits until it is opened here for writing."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def places(one, other, large):
    """Arguments that contain these values in each place."""
    inner = [one, other]
    return (
        (one, [one, (other, {"key": large})], Named(large, one), inner, inner),
        {
            "plain": Plain(one, [large]),
            "frozen": Frozen(Plain(other), {1: one}),
            "map": collections.OrderedDict(a=other),
        },
    )


EXECUTORS = [{}, {"sandbox": True, "preload": [__name__]}, {"writable": "copy"}]
EXECUTORS += [{"start": "spawn"}, {"start": "fork"}, {"lanes": 3}]
EXECUTORS += [{"max_workers": 0}]


@pytest.mark.parametrize("options", EXECUTORS, ids=str)
def test_values_are_where_futures_were(options):
    args, kwargs = places(5, lists(3), array(100_000))
    with arenite.Executor(**{"max_workers": 2, **options}) as ex:
        futures = ex.submit(number, 5), ex.submit(lists, 3), ex.submit(array, 100_000)
        given, named = places(*futures)
        assert ex.submit(shown, *given, **named).result() == shown(*args, **kwargs)
        # Once more, with values that were taken here.
        [future.result() for future in futures]
        assert ex.submit(shown, *given, **named).result() == shown(*args, **kwargs)
        cycle = [1, futures[0]]
        cycle.append(cycle)
        expected = [1, 5]
        expected.append(expected)
        assert ex.submit(shown, cycle).result() == shown(expected)
        assert futures[0] in cycle, "the program keeps its futures"


def test_values_do_not_visit_the_program():
    with arenite.Executor(2) as ex:
        made = ex.submit(Elsewhere)
        assert ex.submit(type, [ex.submit(operator.itemgetter(0), (made,))]).result() is list
        assert list(ex.map(isinstance, [made] * 3, [Elsewhere] * 3)) == [True] * 3
        with pytest.raises(RuntimeError, match="visited"):
            made.result()


@dataclasses.dataclass
class Partial:
    left: object
    right: object = dataclasses.field(init=False)


class Pair(tuple):
    def __new__(cls, left, right):
        return super().__new__(cls, (left, right))

    def __getnewargs__(self):
        return tuple(self)


class Tagged(Named):
    """Has a constructor of its own, and an attribute."""

    def __new__(cls, left):
        made = super().__new__(cls, left, None)
        made.tag = "of a tuple"
        return made

    def __getnewargs__(self):
        return self[:1]


def parts_of(value):
    return type(value).__name__, getattr(value, "__dict__", None), list(value) if isinstance(value, tuple) else None


@pytest.mark.parametrize("workers", [0, 2])
def test_derived_classes(workers):
    with arenite.Executor(workers) as ex:
        one = ex.submit(number, 1)
        for make in (lambda value: Pair(value, 2), Tagged, Partial):
            assert repr(ex.submit(parts_of, make(one)).result()) == repr(parts_of(make(1)))
        assert ex.submit(collections.Counter, collections.Counter(a=one)).result() == {"a": 1}
        # What contains no futures is passed as it is.
        status = os.stat("/")
        assert ex.submit(operator.itemgetter(0), (status, one)).result().st_mtime_ns == status.st_mtime_ns


def changed(array):
    """The sum before this writes to the array."""
    total = float(array.sum())
    array += 1
    return total


@pytest.mark.parametrize(
    "options", [{}, {"writable": "copy"}, {"start": "fork"}, {"lanes": 2}, {"sandbox": True}], ids=str
)
def test_tasks_may_write_to_arrays_of_their_own(options):
    """As to the arrays that `concurrent.futures` passes: no other task sees it."""
    if "sandbox" in options:
        options = options | {"preload": [__name__]}
    with arenite.Executor(2, **options) as ex, ProcessPoolExecutor(1) as pool:
        for size in (10, 1000, 100_000):
            made = ex.submit(np.ones, size)
            sums = [ex.submit(changed, made) for _ in range(4)]
            assert [one.result() for one in sums] == [pool.submit(changed, np.ones(size)).result()] * 4
            assert made.result().sum() == size


class Random:
    """A program of tasks that take values of each other, and what plain Python gives for it."""

    def __init__(self, dice, ex):
        self.dice, self.ex = dice, ex
        self.futures, self.outcomes = [], []

    def step(self):
        dice = self.dice
        known = range(len(self.futures))
        taken = [dice.choice(known) for _ in range(dice.randrange(4))] if known else []
        wrong = dice.random() < 0.05
        size = dice.choice([1, 10, 3000])
        shape = dice.randrange(3)
        roots = {root for at in taken if isinstance(roots := self.outcomes[at], set) for root in roots}
        here = f"{len(self.futures)} is wrong"
        if roots:
            outcome = roots
        elif wrong:
            outcome = {here}
        else:
            outcome = combine(packed([self.outcomes[at] for at in taken], shape), size, None)
        inputs = [self.futures[at] for at in taken]
        self.futures.append(self.ex.submit(combine, packed(inputs, shape), size, here if wrong else None))
        self.outcomes.append(outcome)
        if dice.random() < 0.1:
            # Values are taken here, too, and futures are dropped.
            self.check(dice.choice(known) if known else 0)

    def check(self, at):
        outcome, future = self.outcomes[at], self.futures[at]
        if isinstance(outcome, set):
            assert str(future.exception()) in outcome
        else:
            assert np.array_equal(future.result(), outcome)


def packed(values, shape):
    return values if shape == 0 else {"all": values} if shape == 1 else Plain(tuple(values))


def combine(values, size, wrong):
    if wrong:
        raise ValueError(wrong)
    values = values["all"] if isinstance(values, dict) else values.left if isinstance(values, Plain) else values
    return np.arange(size) + sum(int(value.sum()) for value in values) % 1009


@pytest.mark.parametrize("case", range(4))
def test_random_programs(case):
    dice = random.Random(SEED + case)
    for _ in range(max(1, CASES // 8)):
        with arenite.Executor(2, sandbox=case == 3, preload=[__name__]) as ex:
            program = Random(dice, ex)
            for _ in range(dice.randrange(2, 200)):
                program.step()
            for at in range(len(program.futures)):
                program.check(at)


# ---- other futures


def test_futures_of_others():
    with ThreadPoolExecutor(2) as threads, arenite.Executor(1) as other, arenite.Executor(2) as ex:
        ready = threading.Event()
        slow = threads.submit(lambda: ready.wait() and 40)
        taken = ex.submit(operator.add, slow, other.submit(operator.add, 1, 1))
        mapped = threading.Thread(target=lambda: results.extend(ex.map(operator.mul, [slow, 2], [2, slow])))
        results = []
        mapped.start()
        assert not taken.done()
        ended = []
        taken.add_done_callback(ended.append)
        ready.set()
        assert taken.result() == 42
        harness.until(lambda: ended == [taken], "the callback")
        mapped.join()
        assert results == [80, 80]
        error = ex.submit(operator.add, threads.submit(raising, "of a thread"), 1).exception()
        assert repr(error) == "ValueError('of a thread')"
        never = Future()
        never.cancel()
        assert ex.submit(abs, never).cancelled()
        # A call that waits can be cancelled, and its end, too.
        never, later = Future(), Future()
        first, second = ex.submit(abs, never), ex.submit(abs, later)
        assert first.cancel() and first.cancelled()
        later.set_result(-3)
        assert second.result() == 3


def test_the_end_of_the_executor_waits_for_other_futures():
    later = Future()
    threading.Timer(0.05, later.set_result, [-7]).start()
    with arenite.Executor(1) as ex:
        future = ex.submit(abs, later)
    assert future.result() == 7
    with arenite.Executor(1) as ex:
        future = ex.submit(abs, Future())
        ex.shutdown(cancel_futures=True)
    assert future.cancelled()


def test_asyncio():
    async def main():
        loop = asyncio.get_running_loop()
        with arenite.Executor(2) as ex:
            awaited = loop.run_in_executor(ex, operator.add, ex.submit(operator.add, 1, 2), 3)
            task = asyncio.create_task(asyncio.sleep(0.01, 10))
            future = loop.create_future()
            loop.call_later(0.01, future.set_result, 1)
            sums = ex.submit(sum, [task, future, ex.submit(abs, -2)])
            assert await asyncio.wrap_future(sums) == 13
            assert await asyncio.wrap_future(ex.submit(operator.add, future, 1)) == 2
            with pytest.raises(TypeError, match="await it first"):
                list(ex.map(abs, [loop.create_future()]))
            return await awaited

    with harness.waiting("a coroutine"):
        assert asyncio.run(main()) == 6


def test_calls_that_wait_have_the_futures_of_the_call():
    """A list that grows while calls with it wait."""
    with arenite.Executor(2) as ex:
        futures, sums = [], []
        for _ in range(5):
            futures.append(Future())
            sums.append(ex.submit(sum, futures))
        for one in futures:
            one.set_result(1)
        assert [one.result() for one in sums] == [1, 2, 3, 4, 5]


def test_the_first_failure_ends_calls_that_wait():
    with arenite.Executor(1) as ex:
        never, failing = Future(), Future()
        future = ex.submit(sum, [never, failing])
        failing.set_exception(ValueError("failed first"))
        with pytest.raises(ValueError, match="failed first"):
            future.result()
        ex.shutdown()


def test_futures_of_asyncio_that_cannot_end():
    async def main():
        loop = asyncio.get_running_loop()
        ex = arenite.Executor(1)
        left = ex.submit(number, loop.create_future())
        with ex:
            waiting = ex.submit(number, asyncio.create_task(asyncio.sleep(60)))
        # The end of the block keeps the loop from running.
        for future in (left, waiting):
            with pytest.raises(RuntimeError, match="Await the future"):
                future.result()

    asyncio.run(main())
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    with arenite.Executor(1) as ex:
        left = ex.submit(number, future)
        loop.close()
        with pytest.raises(RuntimeError, match="its event loop is closed"):
            ex.submit(number, future).result()
    with pytest.raises(RuntimeError, match="its event loop is closed"):
        left.result()


# ---- failures


def test_a_failed_task_fails_those_that_take_its_value():
    with arenite.Executor(2) as ex:
        wrong = ex.submit(raising, "the root")
        last = ex.submit(operator.add, ex.submit(operator.neg, wrong), 1)
        with pytest.raises(ValueError, match="the root") as caught:
            last.result()
        note = caught.value.__notes__[0]
        for words in ("add", "neg", "raising", "the root"):
            assert words in note
        died = ex.submit(os._exit, 3)
        with pytest.raises(arenite.WorkerDied) as caught:
            ex.submit(abs, died).result()
        assert caught.value.exit_code == 3
        assert "(abs): not run" in str(caught.value)


def test_cancelling_a_task_cancels_those_that_take_its_value(gate):
    with arenite.Executor(2) as ex:
        waits = ex.submit(held, gate)
        harness.until(waits.running, "the task to run")
        first = ex.submit(len, waits)
        second = ex.submit(abs, first)
        assert waits.cancel()
        with pytest.raises(CancelledError):
            second.result()
        assert first.cancelled() and second.cancelled()
        assert ex.submit(abs, second).cancelled()


def test_retries_of_a_task_are_no_loss(tmp_path):
    def flaky(path):
        with open(path, "a") as file:
            file.write(".")
        if os.path.getsize(path) < 3:
            os._exit(1)
        return 5

    def of_class(path):
        with open(path, "a") as file:
            file.write(".")
        raise (ConnectionError if os.path.getsize(path) < 3 else KeyError)("down")

    with arenite.Executor(2) as ex:
        five = ex.options(retries=5).submit(flaky, tmp_path / "dies")
        assert ex.options(retries=1, deadline=60, priority=1).submit(operator.add, five, 1).result() == 6
        # An exception of another class is a value for the engine.
        keyed = ex.options(retries=5, retry_errors=(ConnectionError,)).submit(of_class, tmp_path / "raises")
        assert isinstance(ex.submit(abs, keyed).exception(), KeyError)


def test_what_is_refused():
    with arenite.Executor(2) as ex:
        one = ex.submit(number, 1)
        for value, place in [
            (Holder(one), "the attribute 'value' of a Holder"),
            ([{"a": Plain(Holder([one]))}], "a part of an object"),
            ({one: 1}, "a part of an object"),
            (functools.partial(abs, one), "a part of an object"),
        ]:
            with pytest.raises(TypeError, match=f"{place} among the arguments is a future"):
                ex.submit(number, value).result()
        for task in (lambda: one, functools.partial(number, one)):
            with pytest.raises(TypeError, match="pass it as an argument of the task, or pass its result"):
                ex.submit(task).result()
        with pytest.raises(TypeError, match="pass its result"):
            arenite.Executor(1, initializer=number, initargs=(one,))
        with pytest.raises(TypeError, match="is a future"):
            list(ex.map(number, [Holder(one)]))
        assert ex.submit(number, one).result() == 1


# ---- other ways to submit


def test_maps_scopes_and_pools():
    with arenite.Executor(2) as ex:
        futures = [ex.submit(number, n) for n in range(50)]
        for size in (None, 1, 7):
            assert list(ex.map(operator.add, futures, range(50), chunksize=size)) == [2 * n for n in range(50)]
        mixed = [ex.submit(number, n) if n % 3 else n for n in range(200)]
        assert list(ex.map(operator.neg, mixed)) == [-n for n in range(200)]
        results = ex.map(operator.neg, [1, ex.submit(raising, "in a map"), 3])
        assert next(results) == -1
        with pytest.raises(ValueError, match="in a map"):
            next(results)
        with ex.scope() as scope:
            total = scope.submit(sum, [scope.submit(number, n) for n in range(10)])
        assert total.result() == 45
    with arenite.Pool(2) as pool, arenite.Executor(1) as other:
        assert pool.apply(operator.add, (other.submit(number, 1), 2)) == 3


def test_calls_of_actors_keep_their_order(gate):
    with arenite.Executor(2) as ex:
        letters = ex.actor(list)
        text = ex.submit(held, gate)
        with ThreadPoolExecutor(1) as threads:
            calls = [letters.append("first"), letters.append(text), letters.append(threads.submit(str.upper, "thread"))]
            wrong = letters.append(ex.submit(raising, "never there"))
            length = letters.count(letters.append("last"))
            assert not any(call.done() for call in calls[1:])
            gate.write_text("of the file")
        assert length.result() == 0
        assert letters.copy().result() == ["first", "of the file", "THREAD", "last"]
        assert isinstance(wrong.exception(), ValueError)


@pytest.mark.parametrize("workers", [0, 2])
def test_futures_for_the_object_of_an_actor(workers):
    with arenite.Executor(workers) as ex, ThreadPoolExecutor(1) as threads:
        one = ex.submit(number, 1)
        assert ex.actor(list, [one, threads.submit(number, 2)]).copy().result() == [1, 2]
        assert isinstance(ex.actor(list, ex.submit(raising, "no object")).copy().exception(), ValueError)
        ended = Future()
        ended.cancel()
        assert ex.actor(list, ended).copy().cancelled()


# ---- memory


def test_values_are_freed_when_nothing_takes_them_any_more():
    """A chain of arrays of 8 MB, of which the arena has room for four."""
    with arenite.Executor(2, capacity="32MiB") as ex:
        future = ex.submit(np.ones, 1_000_000)
        for _ in range(100):
            future = ex.submit(operator.mul, future, 1.5)
        assert future.result()[0] == 1.5**100
        del future
        harness.until(lambda: ex.stats().used_bytes < 1_000_000, "the arrays to be freed")


def test_calls_that_wait_for_futures_wait_for_room():
    """Twenty arrays of 8 MB, of which the arena has room for one or two."""
    arrays = [np.full(1_000_000, n, float) for n in range(20)]
    with arenite.Executor(2, capacity="64MiB") as ex:
        held = [ex.empty(1_000_000) for _ in range(6)]
        ready = Future()
        sums = [ex.submit(lambda array, n: array.sum() + n, array, ready) for array in arrays]
        ready.set_result(1)
    # The end of the block has waited for all of them.
    assert [one.result() for one in sums] == [1e6 * n + 1 for n in range(20)]
    del held


def test_tasks_without_a_future_are_freed():
    with arenite.Executor(2, capacity="32MiB") as ex:
        for _ in range(100):
            ex.submit(np.ones, 1_000_000)
        harness.until(lambda: ex.stats().used_bytes < 1_000_000, "the arrays to be freed")


@pytest.mark.parametrize("main", [True, False])
def test_classes_of_the_main_file(main):
    """The worker that takes the value may not have seen its class."""
    source = f"""
        import arenite

        class Point:
            def __init__(self, x):
                self.x = x

        def make(x):
            class Local:
                y = x
            return [Point(x), Local]

        def total(points):
            return sum(point.x + local.y for point, local in points)

        def length(points):
            return [len(point.__dict__) for point, _ in points]

        if __name__ == "__main__":
            with arenite.Executor(4, settings=arenite.Settings(main={main})) as ex:
                points = [ex.submit(make, x) for x in range(20)]
                print(ex.submit(total, points).result(), set(ex.submit(length, points).result()))
                print(type(points[0].result()[0]) is Point)
    """
    assert harness.script(source).ok().out.split() == ["380", "{1}", "True"]
