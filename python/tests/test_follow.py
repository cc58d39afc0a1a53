"""What the program changes reaches tasks: settings of modules and libraries, reloaded modules, globals that share objects.

The oracle is the same call in the program.
"""

import textwrap

import harness
import pytest

BEGIN = """
import functools, importlib, pathlib, sys, textwrap, threading
import arenite

folder = pathlib.Path(sys.argv[0]).parent
sys.path.insert(0, str(folder))
sys.dont_write_bytecode = True

def write(name, source):
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    importlib.invalidate_caches()

def same(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"

"""


def run(source):
    harness.script(BEGIN + textwrap.dedent(source)).ok()


RELOADED = {
    "a function": "module.give",
    "a partial object": "functools.partial(module.give, 1)",
    "a method": "module.Kind().method",
    "a static method": "module.Kind.static",
    "a decorated function": "module.decorate(abs_of)",
    "a closure with the function": "(lambda give: lambda: give())(module.give)",
    "a closure with the module": "lambda: module.give()",
    "a global with the function": "uses_held",
    "an import in the task": "imports",
}


@pytest.mark.parametrize("call", RELOADED.values(), ids=RELOADED.keys())
def test_a_reloaded_module_is_reloaded_in_all_workers(call):
    run(
        f"""
        MODULE = '''
        NUMBER = 1
        def number(): return NUMBER
        def give(x=0): return "old", NUMBER, number()
        class Kind:
            def method(self): return "old", NUMBER, number()
            @staticmethod
            def static(): return "old", NUMBER, number()
        def decorate(function):
            def inner(*given): return function(*given), NUMBER, number()
            return inner
        '''

        def abs_of(*_): return 1
        def uses_held(): return HELD[0](), HELD[0] is module.give
        def imports(): return importlib.import_module("reloaded").give()

        write("reloaded", MODULE)
        import reloaded as module
        HELD = [module.give]
        call = {call}
        with arenite.Executor(2) as ex:
            for _ in range(6):
                ex.submit(call).result()
            write("reloaded", MODULE.replace("NUMBER = 1", "NUMBER = 2222").replace("old", "new"))
            importlib.reload(module)
            HELD = [module.give]
            same({{future.result() for future in [ex.submit(call) for _ in range(30)]}}, {{call()}})
        """
    )


def test_settings_in_modules_of_the_program():
    run(
        """
        write("config", '''
            class Settings:
                steps, tags = 200, []
            settings, LEVEL, TABLE = Settings(), 1, {"a": 1}
        ''')
        write("state", '''
            import threading
            is_ready, lock = False, threading.Lock()
        ''')
        write("model", '''
            import config, state
            from config import settings, TABLE
            def look(): return settings.steps, config.LEVEL, TABLE, TABLE is config.TABLE, config.Settings.steps
            def is_ready(): return state.is_ready
        ''')
        import config, model, state
        config.settings.steps, config.LEVEL, config.TABLE["b"] = 50, 2, 3
        state.is_ready = True

        def lower(level):
            config.LEVEL = level

        with arenite.Executor(1) as ex:
            same(ex.submit(model.look).result(), model.look())
            # A module with a lock has a state, of which a part would not do.
            same(ex.submit(model.is_ready).result(), False)
        # What an initializer sets, wins.
        with arenite.Executor(1, initializer=lower, initargs=(0,)) as ex:
            same(ex.submit(model.look).result()[1], 0)
        """
    )


@pytest.mark.parametrize("sets", ["program", "initializer"])
def test_each_lane_has_the_settings_of_its_thread(sets):
    pytest.importorskip("numpy")
    run(
        f"""
        import decimal
        import numpy as np

        def put():
            decimal.getcontext().prec = 6
            np.seterr(divide="raise")
            np.set_printoptions(precision=2)

        def look(_):
            everyone.wait(50)
            try:
                found = str(np.ones(1) / np.zeros(1))
            except FloatingPointError:
                found = "raised"
            return str(decimal.Decimal(1) / 3), found, repr(np.array([1 / 3]))

        def begin():
            global everyone
            everyone = threading.Barrier(4)
            if {sets == "initializer"}:
                put()

        if {sets == "program"}:
            put()
        with arenite.Executor(1, lanes=4, initializer=begin) as ex:
            found = {{future.result() for future in [ex.submit(look, n) for n in range(4)]}}
        everyone = threading.Barrier(1)
        put()
        same(found, {{look(0)}})
        """
    )


def test_the_level_that_a_library_sets_when_it_is_imported():
    run(
        """
        write("noisy", '''
            import logging
            log = logging.getLogger("noisy")
            log.setLevel(logging.INFO)
            def level(): return log.level
        ''')
        import noisy
        noisy.log.setLevel(40)

        def lower():
            noisy.log.setLevel(10)

        with arenite.Executor(1) as ex:
            same(ex.submit(noisy.level).result(), noisy.level())
            same([ex.submit(one).result() for one in (lower, noisy.level)], [None, 10])
        with arenite.Executor(1, initializer=lower) as ex:
            same(ex.submit(noisy.level).result(), 10)
        """
    )


def test_code_that_a_library_runs_with_the_globals_of_the_program():
    """As dill makes functions of `__main__`."""
    run(
        """
        write("maker", '''
            import marshal, sys, types
            def call(code, x):
                return types.FunctionType(marshal.loads(code), sys.modules["__main__"].__dict__)(x)
        ''')
        import maker, marshal, math
        NUMBER = 2

        def user(x):
            return math.sqrt(x) + NUMBER + len([x])

        def wrong(x):
            return missing

        with arenite.Executor(1) as ex:
            same(ex.submit(maker.call, marshal.dumps(user.__code__), 4).result(), user(4))
            error = ex.submit(maker.call, marshal.dumps(wrong.__code__), 4).exception()
            same((type(error), str(error)), (NameError, "name 'missing' is not defined"))
        """
    )


def test_globals_that_share_an_object_again():
    run(
        """
        def change():
            d[0].append(7)
            return e["k"], d[0] is e["k"]

        a = [2]
        d, e = [a], {"k": a}
        with arenite.Executor(1) as ex:
            same(ex.submit(lambda: d[0] is e["k"]).result(), True)
            del a
            same(ex.submit(lambda: d[0] is e["k"]).result(), True)
            d = [e["k"]]
            same(ex.submit(change).result(), change())
        """
    )


def test_a_global_that_is_bound_while_another_one_is_pickled():
    """Both names are bound in one step, so a task sees old or new objects."""
    run(
        """
        class Binds:
            def __reduce__(self):
                global first, pair, number
                number -= 1
                if number == 0:
                    first = [1]
                    pair = (first, [1], self)
                return Binds, ()

        def look():
            return pair[0] == pair[1]

        def shares():
            return pair[0] is first

        # At each time when the object is pickled.
        for number in range(1, 8):
            first = [0]
            pair = (first, [0], Binds())
            with arenite.Executor(1) as ex:
                same([ex.submit(look).result() for _ in range(3)], [True] * 3)
                same(ex.submit(shares).result(), shares())
        """
    )


def test_a_global_array_can_be_resized():
    pytest.importorskip("numpy")
    run(
        """
        import numpy as np
        idle, sent = np.ones(1000), np.ones(1000)

        def total():
            return len(sent), float(sent.sum())

        with arenite.Executor(1) as ex:
            same(ex.submit(abs, -1).result(), 1)
            for size in (1500, 2000):
                same(ex.submit(total).result(), total())
                idle.resize(size)
                sent.resize(size, refcheck=False)
            same(ex.submit(total).result(), (2000, 1000.0))
        """
    )
