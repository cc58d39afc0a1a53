"""Random numbers: they depend on the seed and the task alone."""

import os
import time

import arenite
import harness
import numpy as np
import pytest


def draw(_=None, count=1):
    return [int(arenite.rng().integers(1 << 62)) for _ in range(count)]


def draw_slowly(n):
    if n % 7 == 0:
        # Calls of a packet after one that takes long are sent again.
        time.sleep(0.03)
    return draw()


def drawn(workers, **options):
    """The numbers of tasks that were submitted in all ways."""
    with arenite.Executor(workers, seed=5, **options) as ex:
        yield "map", list(ex.map(draw, range(300)))
        yield "submit", [future.result() for future in [ex.submit(draw) for _ in range(5)]]
        yield "chunks", list(ex.map(draw, range(50), chunksize=7))
        yield "slow", list(ex.map(draw_slowly, range(50)))
        yield "long", list(ex.map(draw, [b"x" * 20_000 if n % 5 == 0 else n for n in range(50)]))
        yield "endless", list(ex.map(draw, iter(range(50)), [2] * 50))
        yield "retried", [future.result() for future in [ex.options(retries=2).submit(draw) for _ in range(5)]]
        yield "timed", list(ex.options(deadline=60).map(draw, range(50)))
        with ex.scope() as scope:
            futures = [scope.submit(draw, count=2) for _ in range(3)]
        yield "scope", [future.result() for future in futures]


@pytest.fixture(scope="module")
def in_program():
    """The numbers without workers."""
    return dict(drawn(0))


@pytest.mark.parametrize(
    "workers, options",
    [(1, {}), (3, {}), (2, {"sandbox": "strict"}), (2, {"start": "forkserver"}), (2, {"lanes": 3})],
    ids=str,
)
def test_workers_draw_what_the_program_draws(in_program, workers, options):
    if options.get("sandbox"):
        options = {**options, "preload": ["test_rng", "harness"]}
    assert dict(drawn(workers, **options)) == in_program


def test_no_two_tasks_draw_the_same(in_program):
    numbers = [number for tasks in in_program.values() for task in tasks for number in task]
    assert len(set(numbers)) == len(numbers) > 500
    other = arenite.Executor(0, seed=6)
    assert other.submit(draw).result() not in in_program["submit"]
    assert isinstance(arenite.rng(), np.random.Generator) and draw() != draw()


def die_first(path):
    numbers = draw(count=2)
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write(str(numbers))
        os._exit(1)
    with open(path) as file:
        return numbers, file.read()


def test_further_attempts_draw_the_same(tmp_path):
    with arenite.Executor(1, seed=5) as ex:
        numbers, before = ex.options(retries=1).submit(die_first, tmp_path / "first").result()
        mapped = list(ex.options(retries=1).map(die_first, [tmp_path / "a", tmp_path / "b"]))
    assert str(numbers) == before and all(str(numbers) == before for numbers, before in mapped)


def test_seeds_of_executors_without_a_seed_differ():
    numbers = []
    for workers in (0, 0, 1):
        with arenite.Executor(workers) as ex:
            numbers += ex.submit(draw).result()
    assert len(set(numbers)) == 3


def test_without_numpy():
    code = """
    import sys
    sys.modules["numpy"] = None
    import arenite

    try:
        arenite.rng()
    except ImportError as error:
        print(error)
    """
    assert harness.script(code).ok().out == "arenite.rng() needs numpy, which is not installed: pip install numpy\n"


@pytest.mark.parametrize("made", ["numpy.random.default_rng(3)", "numpy.random.RandomState(3)", "random.Random(3)"])
def test_a_global_generator_is_warned_of_once(made):
    code = f"""
    import random, warnings
    import numpy
    import arenite

    generator = {made}

    def draw(_=None):
        return generator.random()

    with warnings.catch_warnings(record=True) as given, arenite.Executor(1) as ex:
        warnings.simplefilter("always")
        list(ex.map(draw, range(10)))
        ex.submit(draw).result()
        for one in given:
            print(one.filename == __file__, one.message)
    """
    (line,) = harness.script(code).ok().out.splitlines()
    assert line.startswith("True each worker has a copy of the global 'generator' of '__main__'")
    assert line.endswith("call arenite.rng() in the task instead")
