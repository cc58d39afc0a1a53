"""Arrays that numpy makes in shared memory after `arenite.install()`. The oracle is pickling at the time of the call.

Each test is a program of its own: `install` holds as long as the process.
"""

import os
import textwrap

import harness
import pytest

PRELUDE = """
    import hashlib
    import os
    import pickle
    import random
    import sys

    import arenite
    import numpy
    from arenite import _arenite

    arenite.install()
    MIB = 1 << 20

    def digest(value):
        plain = numpy.ascontiguousarray(value)
        return value.dtype.str, value.shape, hashlib.blake2b(plain.tobytes(), digest_size=8).hexdigest()

    def born(array):
        return _arenite.numpy_memory()[0] >= array.nbytes
"""


def run(source, *arguments):
    return harness.script(textwrap.dedent(PRELUDE) + textwrap.dedent(source), *arguments).ok()


def test_arrays_of_ordinary_code_are_passed_as_they_are_and_not_copied():
    done = run("""
        images = [numpy.full((1000, 1000, 3), number, numpy.uint8) for number in range(20)]
        with arenite.Executor(2) as ex:
            print(list(ex.map(lambda image: int(image[0, 0, 0]), images)), ex.stats().bytes_copied)
            sent = [ex.submit(digest, image) for image in images]
            expected = [digest(image) for image in images]
            for image in images:
                image[:] = 99
            print([one.result() for one in sent] == expected, ex.stats().bytes_copied)
            print(ex.submit(digest, images[0]).result() == digest(images[0]), ex.stats().bytes_copied)
            part = images[1][::-1, 500:, 1]
            print(ex.submit(digest, part).result() == digest(part))
    """)
    assert done.out.splitlines() == [f"{list(range(20))} 0", "True 0", "True 3000000", "True"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2, 3))])
def test_random_programs_equal_pickling(seed):
    """Random programs of making, writing, passing and freeing, in two threads with an executor each. Some tasks keep
    their arrays, and some end their worker."""
    run(
        """
        import threading

        seed = sys.argv[1]
        steps = 200
        kept = []

        def keep(array):
            kept.append((array, digest(array)))
            del kept[:-3]
            return all(digest(array) == was for array, was in kept) and kept[-1][1]

        def die(array):
            os.kill(os.getpid(), 9)

        def main(number, ex):
            random_ = random.Random(f"{seed} {number}")
            arrays, sent = [], []

            def check(task, expected):
                if expected is None:
                    assert isinstance(task.exception(), arenite.WorkerDied), (seed, number, task)
                else:
                    assert task.result() == expected, (seed, number)

            def make():
                count = random_.randrange(MIB // 16, 3 * MIB // 8)
                kind = random_.choice("fiu") + random_.choice("248")
                kind = "u1" if kind == "f2" else kind
                way = random_.randrange(8)
                if way == 0:
                    return numpy.zeros(count if random_.random() < 0.7 else 17 * MIB // int(kind[1]), kind)
                if way == 1:
                    return numpy.arange(count).astype(kind)
                if way == 2 and arrays:
                    return arrays[0] + arrays[0]
                if way == 3:
                    array = numpy.ones((count // 64, 64), kind)
                    return array.T if random_.random() < 0.5 else array
                if way == 4:
                    array = numpy.ones(count // 2, kind)
                    array.resize(count, refcheck=False)
                    return array
                if way == 5:
                    return numpy.fromiter(range(200_000), numpy.dtype("i8"))
                if way == 6:
                    return pickle.loads(pickle.dumps(numpy.full(count, 3, kind), 5))
                return numpy.concatenate([numpy.full(count // 2, 1, kind), numpy.full(count // 2, 2, kind)])

            for _ in range(steps):
                step = random_.randrange(10)
                if step < 2 or not arrays:
                    arrays.append(make())
                    if len(arrays) > 6:
                        del arrays[random_.randrange(len(arrays))]
                elif step < 5:
                    array = random_.choice(arrays)
                    flat = array.reshape(-1) if array.flags.c_contiguous else array.T.reshape(-1)
                    begin = random_.randrange(len(flat))
                    flat[begin : begin + random_.choice((1, 1000, len(flat)))] = random_.randrange(100)
                elif step < 9:
                    array = random_.choice(arrays)
                    if random_.random() < 0.3:
                        array = array[random_.randrange(len(array)) // 2 :: random_.choice((1, 1, 2, -1))]
                    if random_.random() < 0.1:
                        array = array.view()
                        array.flags.writeable = False
                    expected = digest(pickle.loads(pickle.dumps(array)))
                    function = random_.choice([digest] * 8 + [keep, keep, die])
                    sent.append((ex.submit(function, array), None if function is die else expected))
                    if random_.random() < 0.5:
                        array = None
                else:
                    while len(sent) > 3:
                        check(*sent.pop(random_.randrange(len(sent))))
            for task, expected in sent:
                check(task, expected)

        failed = []

        def guarded(number, ex):
            try:
                main(number, ex)
            except BaseException as error:
                failed.append(error)
                raise

        with arenite.Executor(2) as one, arenite.Executor(1) as other:
            threads = [threading.Thread(target=guarded, args=pair) for pair in enumerate((one, other))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not failed, failed
        print("blocks", _arenite.numpy_memory()[0])
    """,
        f"{os.environ['ARENITE_SEED']} {seed}",
    )


def test_a_fork_copies_memory_as_ever():
    done = run("""
        array, other = numpy.zeros(MIB, numpy.uint8), numpy.zeros(4 * MIB, numpy.uint8)
        large = [numpy.zeros(20 * MIB, numpy.uint8) for _ in range(2)]
        with arenite.Executor(1) as ex:
            task = ex.submit(digest, other)
            large[0][0] = 1
            expected = [digest(one) for one in large]
            print([ex.submit(digest, one).result() for one in large] == expected)
            read, write = os.pipe()
            copy = os.fork()
            if copy == 0:
                array[0], other[0] = 1, 1
                for one in large:
                    assert one[1] == 0
                    one[:] = 9
                more = numpy.ones(4 * MIB, numpy.uint8)
                os.write(write, b"%d %d %d" % (array[0], array[1], more.sum() + other[1]))
                os._exit(0)
            array[1], other[1] = 2, 2
            os.waitpid(copy, 0)
            print([digest(one) for one in large] == expected)
            large[1][MIB] = 7
            print([ex.submit(digest, one).result() for one in large] == [digest(one) for one in large])
            print(os.read(read, 100).decode(), array[:2], other[:2], task.result()[1])
            expected = digest(other)
            print(ex.submit(digest, other).result() == expected, ex.submit(digest, array).result() == digest(array))
            new = numpy.ones(MIB, numpy.uint8)
            before = ex.stats().bytes_copied
            print(ex.submit(digest, new).result() == digest(new), ex.stats().bytes_copied - before)
    """)
    shown = ["1 0 4194304 [0 2] [0 2] (4194304,)", "True True", "True 0"]
    assert done.out.splitlines() == ["True", "True", "True", *shown]


def test_forks_leave_nothing():
    done = run("""
        import resource

        def opened():
            return len(os.listdir("/proc/self/fd"))

        kept = [numpy.ones(MIB)]
        large = numpy.ones(50 * MIB)
        before = opened()
        for _ in range(100):
            kept.append(numpy.ones(MIB, numpy.uint8))
            copy = os.fork()
            if copy == 0:
                os._exit(int(kept[-1].sum() + kept[0].sum() != 2 * MIB))
            assert os.waitpid(copy, 0)[1] == 0
        del large
        later = numpy.ones(MIB)
        fields = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup").readlines()[1:])
        print(opened() - before <= 2, int(fields["Pss"].split()[0]) < 300 * 1024)
    """)
    assert done.out.split() == ["True", "True"]


def test_a_fork_with_little_room_and_after_descriptors_were_closed():
    done = run("""
        import resource

        def of_a_fork():
            copy = os.fork()
            if copy == 0:
                array[:] = 2
                os._exit(0)
            os.waitpid(copy, 0)
            return int(array.min()), int(array.max()), int(other.max())

        array, other = numpy.full(4 * MIB, 1, numpy.uint8), numpy.full(60 * MIB, 1, numpy.uint8)
        resource.setrlimit(resource.RLIMIT_DATA, (50 * MIB, resource.RLIM_INFINITY))
        print(of_a_fork(), resource.getrlimit(resource.RLIMIT_DATA)[0] // MIB)
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        array = numpy.full(4 * MIB, 1, numpy.uint8)
        os.closerange(3, 1000)
        with open("/tmp/" + str(os.getpid()), "w+b") as file:
            os.unlink(file.name)
            file.write(b"J" * 10 * MIB)
            more = [os.dup(file.fileno()) for _ in range(20)]
            print(of_a_fork())
            with arenite.Executor(1) as ex:
                print(ex.submit(digest, array).result() == digest(array))
            del other, array
            new = numpy.full(4 * MIB, 3, numpy.uint8)
            file.seek(0)
            print(set(file.read()) == {ord("J")}, new.min(), new.max())
    """)
    assert done.out.splitlines() == ["(1, 1, 1) 50", "(1, 1, 1)", "True", "True 3 3"]


def test_a_process_that_a_task_forks_keeps_its_memory():
    done = run("""
        import multiprocessing

        def look(array, pipe):
            pipe.recv()
            pipe.send(set(array.tolist()))

        def begin(array):
            global kept
            here, there = multiprocessing.Pipe()
            process = multiprocessing.get_context("fork").Process(target=look, args=(array, there))
            process.start()
            kept = process, here

        def end():
            kept[1].send(None)
            return kept[1].recv(), kept[0].join()

        with arenite.Executor(1) as ex:
            array = numpy.full(4 * MIB, 7, numpy.uint8)
            ex.submit(begin, array).result()
            del array
            for _ in range(4):
                ex.submit(len, numpy.full(4 * MIB, 9, numpy.uint8)).result()
            print(ex.submit(end).result()[0])
    """)
    assert done.out.strip() == "{7}"


def test_pools_of_forked_processes():
    done = run("""
        import multiprocessing

        table = numpy.arange(MIB)

        def use(number):
            table[0] += number
            with arenite.Executor(1) as ex:
                return int(ex.submit(numpy.sum, numpy.ones(MIB)).result()), int(table[0]), int(table.sum()) - int(table[0])

        with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
            print(pool.map(use, [1, 2, 3], chunksize=1), table[0])
    """)
    rest = (1 << 20) * ((1 << 20) - 1) // 2
    assert done.out.strip() == f"{[(1 << 20, number, rest) for number in (1, 2, 3)]} 0"


def test_elements_in_one_place_are_apart_in_a_task():
    done = run("""
        def change(array):
            array[0] += 1
            return array[:, 0].tolist()

        row = numpy.arange(MIB // 4, dtype=float)
        views = numpy.broadcast_to(row, (3, len(row))), numpy.lib.stride_tricks.sliding_window_view(row, 4)
        with arenite.Executor(1) as ex:
            for view in views:
                found = ex.submit(change, view).result()
                print(found[:3], change(numpy.ascontiguousarray(view).copy())[:3])
    """)
    assert done.out.splitlines() == ["[1.0, 0.0, 0.0] [1.0, 0.0, 0.0]", "[1.0, 1.0, 2.0] [1.0, 1.0, 2.0]"]


def test_shared_arrays_are_snapshots_too():
    done = run("""
        array = numpy.ones(MIB)
        with arenite.Executor(1) as ex:
            shared = ex.share(array)
            array[:] = 2
            print(shared.flags.writeable, shared.sum() == MIB, ex.submit(numpy.sum, shared).result() == MIB)
            print(ex.stats().bytes_copied)
            try:
                shared.flags.writeable = True
            except ValueError:
                print("refused")
        print(shared[5], shared.sum() == MIB)
    """)
    assert done.out.splitlines() == ["False True True", "0", "refused", "1.0 True"]


def test_private_memory_is_in_the_figures():
    """The oracle for the worker is what the task itself reads from Linux."""
    run("""
        kept = []

        def own():
            with open("/proc/self/smaps_rollup") as rollup:
                return next(int(line.split()[1]) << 10 for line in rollup if line.startswith("Anonymous:"))

        def keep(array, change):
            if change:
                array[:] = 2
                kept.append(array)
            return own()

        array = numpy.ones(8 * MIB)
        with arenite.Executor(1) as ex:
            for change in (False, True):
                expected = ex.submit(keep, array, change).result()
                [worker] = ex.stats().workers
                assert abs(worker.private_bytes - expected) < 4 * MIB, (worker, expected)
            assert ex.submit(own).result() > array.nbytes
            assert ex.stats().numpy_bytes == array.nbytes
            held = arenite.Executor(1)
            sent = held.submit(keep, array, True)
            array[0] = 3
            again = held.submit(keep, array, True)
            assert held.stats().numpy_bytes in (array.nbytes, 2 * array.nbytes)
            sent.result(), again.result()
            held.shutdown()
    """)


def test_sandboxed_workers_and_private_arguments_get_copies():
    done = run("""
        def change(array):
            array[:] += 1
            return array

        array = numpy.ones(MIB)
        for options in ({"writable": "copy"}, {"sandbox": True, "writable": "copy"}):
            with arenite.Executor(1, **options) as ex:
                result = ex.submit(change, array).result()
                print(array.sum() == MIB, result.sum() == 2 * MIB)
    """)
    assert done.out.splitlines() == ["True True"] * 2


def test_memory_is_freed_when_tasks_have_ended_and_died():
    done = run("""
        import gc

        gate = f"{os.path.dirname(__file__)}/gate"
        os.mkfifo(gate)

        def after(function, array):
            open(gate).close()
            return function(array)

        with arenite.Executor(2) as ex:
            for function in (numpy.sum, lambda array: os._exit(3)):
                array = numpy.ones(2 * MIB)
                task = ex.submit(after, function, array)
                del array
                held = _arenite.numpy_memory()[0] // MIB
                open(gate, "w").close()
                print(held, task.exception() is not None)
                del task
                gc.collect()
                # A task's memory is given up when its end is noticed.
                left = next((step for step in range(2000) if not (ex.submit(int).result(), _arenite.numpy_memory()[0])[1]), None)
                assert left is not None, _arenite.numpy_memory()
    """)
    assert done.out.splitlines() == ["16 False", "16 True"]


def test_tasks_may_keep_their_arguments():
    run("""
        kept = []

        def keep(array):
            kept.append((array, digest(array)))
            cycle = [array[5:]]
            cycle.append(cycle)

        def look():
            return len(kept), [digest(array) == was for array, was in kept]

        with arenite.Executor(1) as ex:
            for number in range(40):
                array = numpy.full(MIB // 8 + 1000 * number, number, numpy.float64)
                ex.submit(keep if number % 8 == 0 else digest, array).result()
                array[:] = 100
                del array
            count, same = ex.submit(look).result()
            assert (count, all(same)) == (5, True), (count, same)
            print(_arenite.numpy_memory()[0])
    """)


def test_what_numpy_promises_of_memory():
    done = run("""
        import tracemalloc

        def resident():
            fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
            return int(fields["VmRSS"].split()[0]) // 1024

        before = resident()
        lazy = numpy.zeros(1 << 30, numpy.uint8)
        print(resident() - before < 50, lazy.flags.owndata, lazy.flags.writeable, born(lazy))
        lazy[5] = 1
        print(int(lazy.sum()))
        del lazy
        tracemalloc.start()
        array = numpy.ones(10 * MIB, numpy.uint8)
        print(tracemalloc.get_traced_memory()[0] >= 10 * MIB)
        try:
            numpy.empty(1 << 60, numpy.uint8)
        except MemoryError:
            print("MemoryError")
        small = numpy.ones(1000)
        held = _arenite.numpy_memory()[0]
        del small, array
        print(held // MIB, _arenite.numpy_memory()[0])
    """)
    assert done.out.splitlines() == ["True True True True", "1", "True", "MemoryError", "10 0"]


def test_exits_with_arrays_in_every_state():
    for way in range(4):
        done = run(
            """
            import threading

            way = int(sys.argv[1])
            kept = [numpy.ones(MIB) for _ in range(3)]
            ex = arenite.Executor(1)
            task = ex.submit(numpy.sum, kept[0])
            kept[0][0] = 2
            if way == 1:
                threading.Thread(target=lambda: [numpy.ones(MIB) for _ in range(200)], daemon=True).start()
            if way == 2:
                sys.kept = kept
            if way == 3:
                del ex, task
            print("done")
        """,
            str(way),
        )
        assert done.out.strip() == "done"


def test_in_a_task_it_does_nothing_and_limits_are_named():
    done = run("""
        def again():
            arenite.install()
            return numpy.ones(MIB).sum(), _arenite.numpy_memory()

        with arenite.Executor(1) as ex:
            print(ex.submit(again).result())
    """)
    assert done.out.strip() == f"{(float(1 << 20), (0, 0))}".replace("1048576.0", "np.float64(1048576.0)")
    for limit, size, name in (("RLIMIT_AS", 1 << 40, "ulimit -v"), ("RLIMIT_FSIZE", 1 << 20, "ulimit -f")):
        refused = harness.script(f"""
            import resource

            import arenite

            resource.setrlimit(resource.{limit}, ({size}, {size}))
            try:
                arenite.install()
            except OSError as error:
                print(error)
        """)
        assert name in refused.out


def test_numpy_is_imported_by_it():
    done = harness.script("""
        import sys

        import arenite

        arenite.install()
        print("numpy" in sys.modules)
    """)
    assert done.out.strip() == "True"
