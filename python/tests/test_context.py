"""What workers have of the program: hash seed, working directory, search path, filters of warnings."""

import os
import sys
import time
import warnings

import harness
import numpy
import pytest

import arenite
from arenite._core import context

REPEATS = 12


def wait_a_moment(call, argument=None):
    """Long enough for another worker to take the next task."""
    time.sleep(0.02)
    return call() if argument is None else call(argument)


def of_all_workers(ex, call, *argument):
    """What a call returns in all workers, also in one that was replaced and one that was recycled."""
    found = set(ex.map(wait_a_moment, [call] * REPEATS, *([item] * REPEATS for item in argument)))
    assert isinstance(ex.submit(os._exit, 1).exception(), arenite.WorkerDied)
    harness.until(lambda: sum(worker.ready for worker in ex.stats().workers) >= 2, "two workers to be ready")
    return found | set(ex.map(wait_a_moment, [call] * REPEATS, *([item] * REPEATS for item in argument)))


def test_all_workers_have_one_hash_seed():
    words = "some text"
    with arenite.Executor(2, max_tasks_per_child=3) as ex, arenite.Executor(1, sandbox=True) as other:
        hashes = of_all_workers(ex, hash, words)
        assert len(hashes | {other.submit(hash, words).result()}) == 1
        # Not of programs that tasks start.
        assert ex.submit(os.getenv, "PYTHONHASHSEED").result() == os.environ.get("PYTHONHASHSEED")


@pytest.mark.parametrize("seed", ["0", "17", "random", None])
def test_the_hash_seed_of_the_program_is_that_of_workers(seed):
    source = """
        import os, sys
        import arenite
        with arenite.Executor(2) as ex:
            there = {*ex.map(hash, ["a"] * 20)}
            print(len(there), there == {hash("a")}, ex.submit(os.getenv, "PYTHONHASHSEED").result())
        with arenite.Executor(1, settings=arenite.Settings(env={"PYTHONHASHSEED": "5"})) as ex:
            print(ex.submit(os.getenv, "PYTHONHASHSEED").result())
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    end = harness.script(source, env=env if seed is None else {**env, "PYTHONHASHSEED": seed})
    is_known = seed in ("0", "17")
    assert end.ok().out == f"1 {is_known} {seed}\n5\n"


@pytest.mark.parametrize("options", [{}, {"settings": arenite.Settings(spares=1)}, {"max_tasks_per_child": 2}])
def test_workers_stay_in_the_directory_of_the_constructor(options, tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.chdir(first)
    with arenite.Executor(2, **options) as ex:
        monkeypatch.chdir(second)
        assert of_all_workers(ex, os.getcwd) == {str(first)}


@pytest.mark.parametrize("how", ["submit", "map", "chunks", "actor", "pool"])
def test_the_search_path_is_that_of_now(how, tmp_path, monkeypatch):
    """A folder that is added when workers run, as in a notebook."""
    name = f"helpers_{how}_of_a_test"
    code = "def double(x=2):\n    return 2 * x\nclass Kept:\n    double = staticmethod(double)\n"
    (tmp_path / f"{name}.py").write_text(code)
    with arenite.Pool(1) as pool:
        ex = pool.executor
        assert ex.submit(abs, -1).result() == 1
        monkeypatch.syspath_prepend(tmp_path)
        module = __import__(name)
        if how == "submit":
            assert ex.submit(module.double, 2).result() == 4
        elif how == "map":
            assert list(ex.map(module.double, [1, 2])) == [2, 4]
        elif how == "chunks":
            assert list(ex.map(module.double, [1, 2, 3], chunksize=2)) == [2, 4, 6]
        elif how == "actor":
            assert ex.actor(module.Kept).double(3).result() == 6
        else:
            assert pool.map(module.double, [1, 2]) == [2, 4]
        # And not any more.
        assert str(tmp_path) in ex.submit(of_sys, "path").result()
        sys.path.remove(str(tmp_path))
        assert str(tmp_path) not in ex.submit(of_sys, "path").result()
        sys.path.insert(0, str(tmp_path))


def test_a_thread_sends_the_search_path_of_now_while_another_one_pickles_it(tmp_path, monkeypatch):
    sent = context.Sent()
    by_other = []

    def path(*given):
        monkeypatch.setattr(context, "path", real)
        by_other.append(sent.before(b"", 0))
        # The path as it was when this thread has noticed the change.
        monkeypatch.syspath_prepend("/later")
        return real(*given)

    real = context.path
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(context, "path", path)
    heads = [sent.before(b"", 0), *by_other, sent.before(b"", 0)]
    assert [str(tmp_path).encode() in head for head, _ in heads] == [True, True, True]
    assert [b"/later" in head for head, _ in heads] == [False, False, True]


def of_sys(name):
    return getattr(sys, name)


def add_to_path(folder):
    sys.path.insert(0, folder)


def test_what_an_initializer_adds_to_the_search_path_stays(tmp_path, monkeypatch):
    with arenite.Executor(1, initializer=add_to_path, initargs=("/of/the/initializer",)) as ex:
        monkeypatch.syspath_prepend(tmp_path)
        found = ex.submit(of_sys, "path").result()
        assert found[0] == "/of/the/initializer" and str(tmp_path) in found


class Own(UserWarning):
    """Of this module, which workers import."""


def warn(category):
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("text", category, stacklevel=1)
    return len(caught)


DynamicWarning = type("DynamicWarning", (Own,), {"__module__": "__main__"})


@pytest.mark.parametrize("category", [UserWarning, Own, DynamicWarning, numpy.exceptions.ComplexWarning])
@pytest.mark.parametrize("when", ["before", "after"])
def test_filters_of_warnings_reach_workers(category, when):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if when == "before":
            warnings.simplefilter("ignore", category)
        with arenite.Executor(1) as ex:
            if when == "after":
                assert isinstance(ex.submit(warn, category).exception(), category)
                warnings.simplefilter("ignore", category)
            assert ex.submit(warn, category).result() == 0
            warnings.simplefilter("error", category)
            assert isinstance(ex.submit(warn, category).exception(), category)


def test_a_filter_for_a_module_that_the_worker_imports_later():
    source = """
        import sys, warnings
        import numpy
        import arenite

        def is_imported():
            return "numpy" in sys.modules

        def warn():
            import numpy

            return numpy.array([1 + 2j]).astype(float)

        warnings.simplefilter("error", numpy.exceptions.ComplexWarning)
        with arenite.Executor(1, start="spawn") as ex:
            print(ex.submit(is_imported).result(), type(ex.submit(warn).exception()).__name__)
    """
    assert harness.script(source).ok().out == "False ComplexWarning\n"


def test_filters_that_an_import_adds_come_behind_those_of_the_program(tmp_path, monkeypatch):
    """scikit-learn does so for its own deprecations."""
    (tmp_path / "noisy_of_a_test.py").write_text(
        "import warnings\n"
        "warnings.filterwarnings('always', category=DeprecationWarning, module='noisy_of_a_test')\n"
        "def use():\n"
        "    with warnings.catch_warnings(record=True) as caught:\n"
        "        warnings.warn('old', DeprecationWarning)\n"
        "    return len(caught)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import noisy_of_a_test

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=DeprecationWarning, module="noisy_of_a_test")
        warnings.simplefilter("ignore", DeprecationWarning)
        assert noisy_of_a_test.use() == 0
        with arenite.Executor(1) as ex:
            assert ex.submit(noisy_of_a_test.use).result() == 0


def set_filter():
    warnings.simplefilter("ignore", Own)


def test_filters_of_an_initializer_stay():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with arenite.Executor(1, initializer=set_filter) as ex:
            assert ex.submit(warn, Own).result() == 0
            warnings.simplefilter("error", DeprecationWarning)
            assert ex.submit(warn, Own).result() == 0
            assert isinstance(ex.submit(warn, DeprecationWarning).exception(), DeprecationWarning)
