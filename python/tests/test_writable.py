"""Tasks that write to their arguments. The oracle is the same function with a copy that pickle makes."""

import hashlib
import os
import pickle
import random

import arenite
import harness
import numpy
import pytest

KEPT = []


def digest(array):
    return array.dtype.str, array.shape, hashlib.blake2b(numpy.ascontiguousarray(array).tobytes()).hexdigest()


def change(seed, arrays):
    """Writes to some of them in some way, and returns what they are then, and one of them."""
    draw = random.Random(seed)
    for array in arrays:
        match draw.randrange(5):
            case 0:
                array[...] = 7
            case 1:
                array.sort(axis=0)
            case 2:
                array[draw.randrange(len(array)) :] += 1
            case 3:
                array.reshape(-1, order="A")[:: draw.choice((1, 1000))] = 3
    return [digest(array) for array in arrays], draw.choice(arrays)


def changed(seed, array):
    return change(seed, [array])[0]


def made(draw):
    """An array of any size and layout."""
    count = int(2 ** draw.uniform(8, 21))
    array = numpy.random.default_rng(draw.randrange(1 << 32)).integers(0, 100, count).astype(draw.choice(("u1", "f4", "i8")))
    match draw.randrange(5):
        case 0:
            return array[: count // 4 * 4].reshape(-1, 4)
        case 1:
            return numpy.asfortranarray(array[: count // 4 * 4].reshape(4, -1))
        case 2:
            return array[draw.randrange(count // 2) :]
        case 3:
            array.flags.writeable = draw.random() < 0.5
    return array


@pytest.mark.parametrize("way", ["submit", "map", "packets"])
def test_programs_equal_pickling(way):
    draw = random.Random(f"{os.environ['ARENITE_SEED']} {way}")
    with arenite.Executor(2) as ex:
        for _ in range(15 if harness.ALL_VARIANTS else 5):
            calls = [(draw.random(), [made(draw) for _ in range(draw.randrange(1, 4))]) for _ in range(8)]
            for _, arrays in calls:
                if draw.random() < 0.3:
                    # The same one twice is one array in the task, and another view of it is another.
                    arrays += [arrays[0], arrays[0][:]]
            before = [[digest(array) for array in arrays] for _, arrays in calls]
            expected = [change(*pickle.loads(pickle.dumps(call, 4))) for call in calls]
            if way == "submit":
                found = [task.result() for task in [ex.submit(change, *call) for call in calls]]
            else:
                found = list(ex.map(change, *zip(*calls, strict=True), chunksize=1 if way == "map" else None))
            for (seen, back), (digests, array) in zip(found, expected, strict=True):
                assert seen == digests and digest(back) == digest(array)
            # The program does not see it.
            assert [[digest(array) for array in arrays] for _, arrays in calls] == before


def keep(array):
    array[0] += 1
    KEPT.append(array)


def look():
    first, second = KEPT
    first[1] = 5
    return [digest(array) for array in KEPT], numpy.shares_memory(first, second)


def test_what_a_task_keeps_stays_its_own():
    array = numpy.arange(300_000)
    with arenite.Executor(1) as ex:
        for _ in range(2):
            ex.submit(keep, array).result()
            array[:] = 9
            # Takes the place in the arena that is free now.
            [ex.submit(digest, numpy.full(300_000, number)).result() for number in range(5)]
        first, second = numpy.arange(300_000), numpy.full(300_000, 9)
        first[:2], second[0] = (1, 5), 10
        assert ex.submit(look).result() == ([digest(first), digest(second)], False)


def test_a_shared_copy_of_read_only_arrays_is_not_changed():
    table = numpy.arange(100_000.0)
    table.flags.writeable = False
    with arenite.Executor(2) as ex:
        tasks = [ex.submit(changed, seed, table) for seed in range(20)]
        expected = [changed(seed, pickle.loads(pickle.dumps(table, 4))) for seed in range(20)]
        assert [task.result() for task in tasks] == expected
        assert ex.stats().bytes_copied < 5 * table.nbytes


@pytest.mark.parametrize("writable", [None, "copy"])
@pytest.mark.parametrize("count", [600, 5_000, 300_000])
def test_each_call_of_a_closure_begins_with_its_arrays_as_they_were_sent(writable, count):
    array = numpy.zeros(count)

    def add(number):
        array[:] += number
        return float(array[-1])

    with arenite.Executor(1, writable=writable) as ex:
        assert [ex.submit(add, number).result() for number in (1, 2)] == [1, 2]
        assert list(ex.map(add, range(20))) == list(range(20))
        assert ex.submit(lambda number: add(number), 3).result() == 3
        array += 1
        assert ex.submit(add, 1).result() == 2
        shared = ex.share(array)
        fails = ex.submit(lambda: shared.__setitem__(0, 1)).exception()
        assert fails is None if writable else type(fails) is ValueError
    assert (array == 1).all() and not shared.flags.writeable


def test_what_was_shared_on_purpose_stays_read_only():
    with arenite.Executor(1) as ex:
        for array in (ex.share(numpy.ones(100_000)), ex.zeros(100_000)):
            assert isinstance(ex.submit(change, 1, [array]).exception(), ValueError)


class Counter:
    def __init__(self, array):
        self.array = array

    def add(self, other):
        other *= 2
        self.array += other
        return float(self.array.sum())


def test_objects_of_actors_write_to_what_they_were_given():
    ones = numpy.ones(100_000)
    with arenite.Executor(1) as ex:
        counter = ex.actor(Counter, ones)
        assert [counter.add(ones).result() for _ in range(3)] == [300_000.0, 500_000.0, 700_000.0]
        assert ones.sum() == 100_000


def fill(array, more):
    array[:] = 2
    return float(array.sum()), numpy.ones(more, numpy.uint8).nbytes


def test_arguments_are_not_part_of_the_memory_limit():
    large = numpy.ones(60 << 20, numpy.uint8)
    with arenite.Executor(1, memory_limit="400MiB") as ex:
        for _ in range(10):
            assert ex.submit(fill, large, 200 << 20).result() == (2 * large.size, 200 << 20)
        assert isinstance(ex.submit(fill, large, 500 << 20).exception(), arenite.MemoryLimitExceeded)


def count_up(array, number):
    if not array.flags.writeable:
        # A large one in a sandbox.
        array = array.copy()
    array[number % len(array)] += 1
    return array


def total(array):
    return int(array.sum(dtype="i8"))


@pytest.mark.parametrize("sandbox", [False, True])
def test_programs_that_write_to_results_equal_pickling(sandbox):
    """Results, parts and copies of them go back to tasks of two executors, before and after the program has written to
    them. The oracle is the same with copies that pickle makes."""
    draw = random.Random(f"{os.environ['ARENITE_SEED']} results {sandbox}")
    options = {"sandbox": sandbox, "preload": ["test_writable"]} if sandbox else {}
    with arenite.Executor(2, **options) as first, arenite.Executor(1, **options) as second:
        #: What the program has, and what it had with copies.
        pairs = [(array, array.copy()) for array in (numpy.arange(100_000), numpy.ones(1 << 20, "u1"))]
        for step in range(120):
            ex, (array, model) = draw.choice((first, second)), draw.choice(pairs)
            match draw.randrange(6):
                case 0:
                    at = draw.randrange(len(array))
                    array[at:] = model[at:] = step % 100
                case 1:
                    assert ex.submit(total, array).result() == total(model)
                case 2:
                    part = slice(draw.randrange(len(array)), None, draw.choice((1, 1, 7)))
                    assert ex.submit(total, array[part]).result() == total(model[part])
                case 3:
                    # A change after the call is not seen.
                    future = ex.submit(total, array)
                    expected = total(model)
                    array[0] = model[0] = step % 50
                    assert future.result() == expected
                case _:
                    made = ex.submit(count_up, array[draw.randrange(len(array) // 2) :], 3)
                    result = made.result()
                    assert result.flags.writeable
                    expected = pickle.loads(pickle.dumps(model[-len(result) :]))
                    pairs.append((result, count_up(expected, 3)))
                    if len(pairs) > 6:
                        pairs.pop(draw.randrange(len(pairs)))
            for array, model in pairs:
                assert (array == model).all(), step


def test_what_was_written_to_a_result_is_copied_when_it_is_passed_on():
    with arenite.Executor(2) as ex:
        result = ex.submit(numpy.ones, 1 << 20).result()
        # A page of an array that is written is the program's own, and only that.
        before = ex.stats().bytes_copied
        assert [ex.submit(total, part).result() for part in (result, result[::2], result[1000:])] == [
            1 << 20,
            1 << 19,
            (1 << 20) - 1000,
        ]
        assert ex.stats().bytes_copied == before
        result[-1] = 5
        assert ex.submit(total, result[: 1 << 19]).result() == 1 << 19
        assert ex.stats().bytes_copied == before
        assert ex.submit(total, result).result() == (1 << 20) + 4
        copied = ex.stats().bytes_copied - before
        # All of it where Linux does not tell what was written since (before 6.7).
        assert copied in (4096, result.nbytes)
        if copied == 4096:
            assert ex.submit(total, result).result() == (1 << 20) + 4
            result[0] = 2
            assert ex.submit(total, result).result() == (1 << 20) + 5
            assert ex.stats().bytes_copied == before + 2 * copied


def test_results_in_forked_copies():
    """A forked copy has results as they were, whatever the parent frees and makes since."""
    with arenite.Executor(1) as ex:
        for _ in range(3):
            results = [ex.submit(numpy.full, 1 << 18, number).result() for number in range(4)]
            results[0][0] = 9
            expected = [digest(result) for result in results]
            (from_parent, to_child), (from_child, to_parent) = os.pipe(), os.pipe()
            child = os.fork()
            if child == 0:
                os.read(from_parent, 1)
                is_same = [digest(result) for result in results] == expected
                for result in results:
                    result[...] = 7
                os.write(to_parent, b"%d" % is_same)
                os.read(from_parent, 1)
                os._exit(0)
            kept = results.pop()
            # What is written and passed on here is copied into no memory that the forked copy reads.
            for result in results:
                result[-1] = 6
                assert ex.submit(total, result).result() == result.sum()
            results.clear()
            others = [ex.submit(numpy.full, 1 << 18, 99).result() for _ in range(8)]
            os.write(to_child, b"1")
            assert os.read(from_child, 1) == b"1"
            assert digest(kept) == expected[3] and all((other == 99).all() for other in others)
            os.write(to_child, b"1")
            os.waitpid(child, 0)
            for end in (from_parent, to_child, from_child, to_parent):
                os.close(end)
        used = ex.stats().used_bytes
        del kept, others
        # What the copies had is free again.
        ex.submit(numpy.zeros, 1 << 18).result()
        assert ex.stats().used_bytes < used - 8 * (2 << 20)


def test_a_shared_result_is_what_it_was():
    with arenite.Executor(1) as ex:
        result = ex.submit(numpy.ones, 1 << 20).result()
        before = ex.stats().bytes_copied
        shared, both = ex.share(result), ex.share({"a": result, "b": result[::3]})
        assert ex.stats().bytes_copied == before
        result[:] = 5
        for array in (shared, both["a"], both["b"]):
            assert not array.flags.writeable and (array == 1).all()
            assert ex.submit(total, array).result() == array.size
        # What was written is copied.
        assert ex.submit(total, ex.share(result)).result() == 5 << 20


@pytest.mark.parametrize("sandbox", [False, True])
def test_a_result_of_memory_that_the_program_can_write_is_that_memory(sandbox):
    """What `zeros` has made stays shared, whole."""
    options = {"sandbox": sandbox, "preload": ["test_writable"]} if sandbox else {}
    for nbytes in (10_000, 100_000, 4 << 20):
        with arenite.Executor(1, **options) as ex:
            array = ex.zeros((2, nbytes), "u1")
            whole = ex.submit(total_and, array).result()[1]
            row = ex.submit(total_and, array[1]).result()[1]
            array[:] = 1
            assert whole.all() and row.all() and not whole.flags.writeable and not row.flags.writeable
            assert ex.submit(total, row).result() == nbytes
            del array
            # Nothing can write to it any more.
            assert ex.submit(total_and, whole).result()[1].flags.writeable


def total_and(array):
    return total(array), array


def test_limits_of_the_program_are_its_own():
    done = harness.script("""
        import resource, arenite, numpy
        with arenite.Executor(1) as ex:
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, hard))
            results = [ex.submit(numpy.ones, 8 << 20).result() for _ in range(3)]
            print(resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20)
            resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, hard))
            del results
            print(resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20)
    """).ok()
    assert done.out == "4096\n2048\n"


def test_memory_is_free_after_a_forked_copy():
    with arenite.Executor(1, capacity="16MiB") as ex:
        result = ex.submit(numpy.ones, 10 << 20, "u1").result()
        child = os.fork()
        if child == 0:
            os._exit(0)
        del result
        os.waitpid(child, 0)
        assert ex.submit(numpy.ones, 10 << 20, "u1").result().all()


def test_another_file_in_the_place_of_the_page_table():
    """As a program has that closes descriptors which are not its own."""
    done = harness.script("""
        import os, arenite, numpy
        with arenite.Executor(1) as ex:
            result = ex.submit(numpy.ones, 4 << 20, "u1").result()
            ex.submit(numpy.sum, result).result()
            for fd in os.listdir("/proc/self/fd"):
                if os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}").endswith("/pagemap"):
                    os.dup2(os.open("/dev/zero", os.O_RDONLY), int(fd))
                    print("replaced")
            result[:] = 7
            print(ex.submit(numpy.sum, result).result())
    """).ok()
    assert done.out == f"replaced\n{7 * (4 << 20)}\n"


def test_what_is_lent_stays_lent_beside_copies():
    with arenite.Executor(1, writable="copy") as ex:
        out, shared = ex.zeros(1 << 20), ex.share(numpy.ones(1 << 20))
        ex.submit(add_into, arenite.mut(out), shared).result()
        assert (out == 3).all() and (shared == 1).all()


def add_into(out, array):
    array += 1
    out += array + 1
