"""What a script and its workers have of `__main__`: definitions, what is changed on either side, and errors.

What a program does not change while it runs is compared with other pools, in the folder `same`.
"""

import textwrap
from pathlib import Path

import harness
import pytest

#: What the scripts begin with.
BEGIN = """
import functools, os, sys, threading, types
import arenite

def same(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"

ex = arenite.Executor(1)

def do(function, *args):
    return ex.submit(function, *args).result()

"""


def run(source, how="file"):
    harness.script(BEGIN + textwrap.dedent(source), how=how).ok()


def test_all_functions_see_what_the_program_changes():
    """Data that several functions use, changed in place. The oracle is the same call in the program."""
    run(
        """
        import dataclasses, numpy

        class Object:
            pass

        @dataclasses.dataclass
        class Config:
            rate: float = 0.1
            tags: list = dataclasses.field(default_factory=list)

        class Shop:
            prices, names = [1], {"a": 1}
            def both(self): return self.prices, self.names, SETTINGS["rate"]
            @classmethod
            def first(cls): return cls.prices[0] + SETTINGS["rate"]

        SETTINGS, LIST, CONFIG, THING = {"rate": 1}, [[1], [2]], Config(), Object()
        INNER, SMALL, LARGE = LIST[0], numpy.zeros(3), numpy.zeros(200_000)
        THING.number, THING.table, THING.array = 1, {}, SMALL

        def rate(): return SETTINGS["rate"]
        def ten_times(): return SETTINGS["rate"] * 10
        def price(): return Shop.prices[0]
        def by_instance(): return Shop().both()
        def by_class(): return Shop.first()
        def attribute(): return attribute.cache
        attribute.cache = [0]
        def of_another(): return attribute.cache, attribute()
        def whole(): return LIST
        def part(): return INNER, INNER is LIST[0]
        def thing(): return THING.number, THING.table
        def turned(): return THING.table, THING.number, THING.array.tolist()
        def config(): return CONFIG.rate, CONFIG.tags
        def tags(): return CONFIG.tags
        def small(): return SMALL.sum()
        def large(): return LARGE.sum()
        def first(): return LARGE[0]
        unnamed = lambda: (SETTINGS["rate"], CONFIG.rate)

        functions = [
            rate, ten_times, price, by_instance, by_class, attribute, of_another, whole, part, thing, turned, config,
            tags, small, large, first, unnamed,
        ]
        for order in functions, functions[::-1]:
            for step in range(4):
                for function in order:
                    same((function.__name__, step, do(function)), (function.__name__, step, function()))
                SETTINGS["rate"] += 1
                Shop.prices[0] += 1
                Shop.names[step] = 1
                attribute.cache[0] += 1
                INNER[0] += 1
                THING.number += 1
                THING.table[step] = 1
                CONFIG.rate += 1
                CONFIG.tags.append(step)
                SMALL[0] += 1
                LARGE[0] += 1
        # What was changed back, too.
        SETTINGS["rate"] = 1
        same([do(rate), do(ten_times)], [1, 10])
        """
    )


@pytest.mark.parametrize("how", ["file", "-c", "-"])
def test_globals_that_the_program_changes_win(how):
    run(
        """
        THRESHOLD, TABLE, NESTED = 0.5, [1, 2], {"a": {"b": 1}}

        def over(x):
            return x > THRESHOLD

        def append(x):
            TABLE.append(x)
            return list(TABLE)

        def nested():
            return NESTED["a"]["b"]

        same(do(over, 0.7), True)
        THRESHOLD = 0.9
        same(do(over, 0.7), False)
        # What a task has changed stays with its worker until the program changes it.
        same([do(append, 3), do(append, 4)], [[1, 2, 3], [1, 2, 3, 4]])
        TABLE.append(9)
        same(do(append, 5), [1, 2, 9, 5])
        TABLE[0] = 1.0                             # Equal, but of another type.
        same(repr(do(append, 6)), "[1.0, 2, 9, 6]")
        same(do(nested), 1)
        NESTED["a"]["b"] = 2
        same(do(nested), 2)
        del TABLE
        same(type(ex.submit(append, 1).exception()), NameError)
        """,
        how,
    )


@pytest.mark.parametrize(
    "lookup",
    [
        "globals()[name]",
        "eval(name)",
        "getattr(sys.modules[__name__], name)",
        "sys.modules['__main__'].NUMBER",
        "__import__('__main__').NUMBER",
    ],
)
def test_globals_that_code_looks_up_by_name(lookup):
    run(
        f"""
        NUMBER, stream = 7, open(os.devnull)

        def find(name):
            return {lookup}

        same(do(find, "NUMBER"), 7)
        NUMBER = 8
        same(do(find, "NUMBER"), 8)
        """
    )


def test_what_a_module_says_of_itself():
    run(
        """
        __doc__ = "What it does"

        def about():
            return __name__, __doc__, os.path.basename(__file__)

        def __getattr__(name):
            return name.upper()

        def made():
            return sys.modules[__name__].constant

        same(do(about), ("__main__", "What it does", "program.py"))
        same(do(made), made())
        """
    )


def test_processes_of_a_task_do_not_run_a_file_without_a_guard():
    run(
        """
        import multiprocessing, time

        # Fails in a process that runs this file again.
        open(__file__ + ".ran", "x").close()

        def start(method):
            child = multiprocessing.get_context(method).Process(target=time.time)
            child.start()
            child.join()
            return child.exitcode

        same([do(start, "spawn"), do(start, "forkserver")], [0, 0])
        """
    )


def test_processes_of_a_task_submit_nothing_while_they_import_the_main_file():
    """Otherwise each would start another one."""
    source = """
        import multiprocessing, time

        def start():
            child = multiprocessing.get_context("spawn").Process(target=time.time)
            child.start()
            child.join()
            return child.exitcode

        same(do(start), 1)

        if __name__ == "__main__":
            print("is guarded in part")
        """
    ended = harness.script(BEGIN + textwrap.dedent(source))
    assert (ended.code, ended.out) == (0, "is guarded in part\n"), ended
    assert "RuntimeError: this process was started by multiprocessing" in ended.err, ended


def test_equal_values_are_no_change():
    run(
        """
        LIMIT, NAMES = 1000, ["a"]

        def set_limit(x):
            global LIMIT
            LIMIT = x
            NAMES.append("b")

        def limit():
            return LIMIT, NAMES

        do(set_limit, 5)
        LIMIT, NAMES = int("1000"), ["a"]          # The cell of a notebook runs again.
        same(do(limit), (5, ["a", "b"]))
        """
    )


def test_each_task_has_the_globals_of_its_submission():
    run(
        """
        def value():
            return VALUE

        futures = []
        with arenite.Executor(2) as two:
            for VALUE in range(50):
                futures.append(two.submit(value))
            same([future.result() for future in futures], list(range(50)))
        """
    )


SPARES = "1, settings=arenite.Settings(spares=1)"


@pytest.mark.parametrize(
    "sets", ["global MODEL; MODEL = x", "globals()['MODEL'] = x", "import __main__; __main__.MODEL = x"]
)
@pytest.mark.parametrize("options", ["1", "2", "1, max_tasks_per_child=2", "1, lanes=2", SPARES])
def test_globals_that_an_initializer_sets(sets, options):
    run(
        f"""
        MODEL = None

        def initialize(x):
            {sets}

        def model(_):
            return MODEL

        with arenite.Executor({options}, initializer=initialize, initargs=("m",)) as pool:
            same(set(pool.map(model, range(7))), {{"m"}})
            MODEL = "p"
            same(set(pool.map(model, range(7))), {{"p"}})
        """
    )


def test_definitions_that_are_made_again():
    run(
        """
        def f():
            return 1

        def user():
            return f() + 10

        same((do(f), do(user)), (1, 11))

        def f():
            return 2

        same((do(f), do(user)), (2, 12))

        class A:
            def who(self):
                return "one"

        def make():
            return A()

        old = A()
        same(do(old.who), "one")

        class A:
            def who(self):
                return "two"

        same(do(old.who), "one")
        made = do(make)
        same((type(made) is A, made.who(), isinstance(made, A)), (True, "two", True))

        def late():
            return helper()

        same(type(ex.submit(late).exception()), NameError)

        def helper():
            return 5

        same(do(late), 5)
        """
    )


def test_classes_that_are_changed():
    run(
        """
        class Config:
            rate, layers = 1, [8]

        def seen():
            return Config.rate, list(Config.layers), hasattr(Config, "new")

        def set_rate(x):
            Config.rate = x

        same(do(seen), (1, [8], False))
        do(set_rate, 5)
        same(do(seen), (5, [8], False))
        Config.layers.append(4)
        same(do(seen), (5, [8, 4], False))
        Config.rate = 2
        Config.new = True
        same(do(seen), (2, [8, 4], True))
        del Config.new
        same(do(seen), (2, [8, 4], False))
        Config.describe = lambda self: f"rate {self.rate}"
        same(do(Config().describe), "rate 2")

        def show(x):
            return shown(x)

        @functools.singledispatch
        def shown(x):
            return "something"

        same(do(show, 3), "something")
        shown.register(int, lambda x: "a number")
        same(do(show, 3), "a number")

        def predict():
            return predict.model

        predict.model = 1
        same(do(predict), 1)
        predict.model = 2
        same(do(predict), 2)
        """
    )


def test_results_leave_classes_of_the_program_as_they_are():
    run(
        """
        class Shape:
            made, cache = 0, {}

            def __init__(self):
                Shape.made += 1

            def area(self):
                return scale()

        def scale():
            return 1

        def local():
            class Local:
                made = 0

                def __init__(self):
                    Local.made += 1

            return Local

        area, Local = Shape.area, local()
        Shape.cache["mine"] = 1
        back = [do(Shape), do(Shape), do(lambda: Local())]
        same([type(one) for one in back], [Shape, Shape, Local])
        same((Shape.area is area, Shape.made, Shape.cache, Local.made), (True, 0, {"mine": 1}, 0))
        scale = lambda: 10
        same((back[0].area(), do(back[0].area)), (10, 10))
        Local.made = 7
        same(do(lambda: Local.made), 7)
        Local.made = 0
        same(do(lambda: Local.made), 0)
        """
    )


def test_classes_by_value_whose_base_is_imported():
    """A class is made from its attributes: what its base has done elsewhere stays on one side."""
    run(
        """
        sys.path.insert(0, %r)
        import plugins

        def classes():
            class Json(plugins.Parser, extension=".json"):
                pass
            class One(plugins.Named):
                name = "one"
                def get(self): return __class__.name
            return Json, One

        def known(): return sorted(plugins.Parser.known), sorted(plugins.Named.known)

        Json, One = classes()
        plugins.Named.known.clear()
        same(do(lambda: (Json().__class__.__name__, One().get(), known())), ("Json", "one", ([], [])))
        One.number = 5
        same(do(lambda: (One.number, One().get())), (5, "one"))
        plugins.Parser.known.clear()
        Json, One = do(classes)
        same((One().get(), One.number, known()), ("one", 0, ([], [])))
        """
        % str(Path(__file__).with_name("same"))
    )


def test_what_goes_by_value_is_made_for_each_task():
    run(
        """
        def counter():
            count = 0

            def add():
                nonlocal count
                count += 1
                return count

            return add

        def keeper():
            seen = []
            return lambda x: seen.append(x) or len(seen)

        add, keep = counter(), keeper()
        same([do(add), do(add)], [1, 1])
        add()
        same(do(add), 2)
        same(list(ex.map(keep, range(4))), [1, 1, 1, 1])
        same(list(ex.map(keep, range(4), chunksize=2)), [1, 2, 1, 2])

        def pair():
            value = 0

            def get():
                return value

            def put(x):
                nonlocal value
                value = x

            return get, put

        def both(get, put):
            put(7)
            return get()

        same(do(both, *pair()), 7)
        get, put = pair()
        same(do(get), 0)
        put(5)                                     # Another content of the same cell.
        same(do(get), 5)
        """
    )


def test_modules_that_workers_cannot_import():
    run(
        """
        code = "X = 3\\ndef get(): return X\\nclass C:\\n    def get(self): return get()"
        unlisted, listed = types.ModuleType("unlisted"), types.ModuleType("listed")
        exec(code, vars(unlisted))
        sys.modules["listed"] = listed
        exec(code, vars(listed))

        def use():
            return unlisted.get(), listed.get(), listed.C().get()

        same(do(use), (3, 3, 3))
        listed.X = 4
        same((do(use), do(listed.get), type(do(listed.C)) is listed.C), ((3, 4, 4), 4, True))
        """
    )


def test_a_module_that_is_loaded_again(tmp_path):
    path = tmp_path / "edited.py"
    path.write_text("def version(): return 1")
    run(
        f"""
        import importlib, pathlib
        sys.path.insert(0, {str(tmp_path)!r})
        import edited

        with arenite.Executor(1) as first:
            same(first.submit(edited.version).result(), 1)
            path = pathlib.Path({str(path)!r})
            path.write_text("def version(): return 2  # longer")
            importlib.invalidate_caches()
            importlib.reload(edited)
            same(first.submit(edited.version).result(), 2)
            same(first.submit(lambda: edited.version()).result(), 2)
        """.replace("ex = ", "")
    )


def test_large_globals_are_copied_when_they_change():
    pytest.importorskip("numpy")
    run(
        """
        import numpy as np
        ex.shutdown()
        ex = arenite.Executor(1)
        LARGE, SMALL = np.arange(100_000.0), np.zeros(10)

        def total():
            return float(LARGE.sum())

        def count():
            SMALL[0] += 1
            return float(SMALL[0])

        expected = LARGE.sum()
        same(do(total), expected)
        before = ex.stats().bytes_copied
        same([do(total) for _ in range(5)], [expected] * 5)
        same(ex.stats().bytes_copied, before)
        LARGE[3] = 1e9
        same(do(total), LARGE.sum())
        LARGE[4] = np.nan
        same(np.isnan(do(total)), True)
        same([do(count), do(count)], [1, 2])
        """
    )


def test_globals_that_hold_each_other():
    run(
        """
        class Config:
            rate = 1

        class Model:
            def __init__(self, config):
                self.config = config

        config, names = Config(), ["a"]
        model, box, other = Model(config), {"names": names}, names

        def set_rate(x):
            config.rate = x

        def rate():
            return model.config.rate

        def add(x):
            names.append(x)

        def seen():
            return box["names"], other

        do(set_rate, 5)
        same(do(rate), 5)
        do(add, "b")
        same(do(seen), (["a", "b"], ["a", "b"]))
        names.append("c")
        same(do(seen), (["a", "c"], ["a", "c"]))
        """
    )


def test_globals_that_share_an_object():
    """That tasks find it shared is compared with other pools, in the folder `same`."""
    pytest.importorskip("numpy")
    run(
        """
        import socket
        import numpy as np

        class Thing:
            hits = 0

        def counters(held):
            number = [0]
            def more(): number[0] += 1; return number[0]
            def now(): return number[0]
            def close(): number.append(held); held.close()
            return more, now, close

        class ndarray:
            "Not numpy's."

        odd = ndarray()
        oddities = [odd]
        things, first = {"a": Thing()}, [Thing()]
        more, now, close = counters(socket.socket())
        flat = np.zeros(100_000)
        grid = flat.reshape(100, 1000)
        part = np.zeros(1_000_000)[:1000]
        fixed = np.arange(3)
        fixed.flags.writeable = False

        def look(): return things["a"].hits, first[0].hits, first[0] is things["a"]
        def hit(): first[0].hits += 1; return things["a"].hits
        def names(): return [*things]
        def write(x): grid[0, 0] = x; return flat[0], grid[0, 0]
        def read(): return flat[0], grid[0, 0]
        def inc(): return more()
        def get(): return now()
        def length(): return len(part)
        def is_fixed(): return not fixed.flags.writeable
        def is_odd(): return oddities[0] is odd

        # What the program changes reaches all of them, and makes them share what it shares from then on.
        same(do(look), (0, 0, False))
        first = [things["a"]]
        same((do(names), do(hit), do(look)), (["a"], 1, (1, 1, True)))
        things["b"] = 1
        same((do(names), do(look), do(hit)), (["a", "b"], (0, 0, True), 1))
        same((do(read), do(write, 5), do(read)), ((0, 0), (5, 5), (5, 5)))
        flat[1] = 2
        same((do(read), do(write, 6), do(read)), ((0, 0), (6, 6), (6, 6)))

        same((do(is_fixed), do(is_odd)), (True, True))

        # A function with the same variable cannot be sent.
        same((do(inc), do(get)), (1, 1))
        close()

        # Of an array that no global has, only the part that a global has is sent.
        before = ex.stats().bytes_copied
        same(do(length), 1000)
        assert ex.stats().bytes_copied - before < 100_000
        """
    )


def test_objects_are_made_when_what_they_need_is_there():
    run(
        """
        class Table:
            def __init__(self):
                self.rows = make_rows()

            def __reduce__(self):
                return make_table, ()

        def make_table():
            return Table()

        def make_rows():
            return [ZERO] * COUNT

        ZERO, COUNT = 0, 2
        A_TABLE = Table()

        def rows():
            return A_TABLE.rows

        same(do(rows), [0, 0])
        """
    )


def test_actors_and_arguments_have_classes_of_the_program():
    run(
        """
        class Sum:
            def __init__(self, n=0):
                self.n = n

            def add(self, other):
                self.n += other.n if isinstance(other, Sum) else other
                return self.n

        with ex.actor(Sum) as actor:
            actor.add(2).result()
            same(actor.add(Sum(5)).result(), 7)
            same(actor.add(other=Sum(1)).result(), 8)
        """
    )


def test_what_each_worker_has_of_its_own():
    run(
        """
        import contextvars
        lock, event, local = threading.RLock(), threading.Event(), threading.local()
        variable, bare = contextvars.ContextVar("v", default=[1]), contextvars.ContextVar("b")
        out = sys.stdout

        def use():
            local.x = 1
            with lock:
                return event.is_set(), variable.get(), bare.get("none"), out is sys.stdout

        same(do(use), (False, [1], "none", True))
        """
    )


@pytest.mark.parametrize(
    "definition, message",
    [
        ("def f(): return stream.read()", "`f` uses the global `stream`"),
        ("f = lambda: stream", "`<lambda>` uses the global `stream`"),
        ("def f(): return held\nheld = {'a': [stream]}", "`f` uses the global `held`"),
    ],
)
def test_errors_name_the_global(definition, message):
    run(
        f"import sqlite3\nstream = sqlite3.connect(':memory:')\n{definition}\n"
        "error = ex.submit(f).exception()\n"
        f"same((type(error), str(error)), (TypeError, {message!r} \": cannot pickle 'sqlite3.Connection' object\"))\n"
        "same(do(abs, -1), 1)\n"
    )


def test_what_cannot_be_sent_and_is_not_used():
    run(
        """
        import sqlite3

        stream, generator = sqlite3.connect(":memory:"), (n for n in [])

        class Job:
            log = stream

            def run(self, items):
                return list(ex.map(self.step, items))

            def step(self, x):
                return x + 1

            def fail(self):
                return self.log.read()

            def give(self):
                return [self.log]

        def helper(x):
            return next(generator) if x else 1

        def f(x):
            return helper(x)

        same(Job().run([1, 2]), [2, 3])
        same(do(f, 0), 1)
        error = ex.submit(f, 1).exception()
        expected = "`helper` uses the global `generator`: cannot pickle 'generator' object"
        same((type(error), str(error)), (TypeError, expected))
        expected = "`Job` has the attribute `log`: cannot pickle 'sqlite3.Connection' object"
        for call in (Job().fail, Job().give):
            error = ex.submit(call).exception()
            same((type(error), str(error)), (TypeError, expected))
        generator = iter([5])
        same(do(f, 1), 5)
        """
    )


def test_each_use_of_what_cannot_be_sent_is_an_error():
    run(
        """
        import cmath, math, operator

        class Holds:
            lines = (line for line in "ab")

        USES = [
            str, format, "{}".format, "%s".__mod__, bool, len, list, next, reversed, bytes, int,
            float, complex, operator.index, round, math.trunc, math.floor, math.ceil, cmath.sqrt, abs, operator.neg,
            operator.pos, operator.invert, lambda x: x < 1, lambda x: 1 >= x, lambda x: 1 in x, lambda x: x[0],
            lambda x: operator.setitem(x, 0, 1), lambda x: x(), lambda x: x.send,
            lambda x: getattr(x, "send", None),
            *(lambda x, use=use: use(x, 3) for use in (operator.add, operator.sub, operator.mul, pow, divmod)),
            *(lambda x, use=use: use(3, x) for use in (operator.add, operator.mod, operator.truediv, pow, divmod)),
            *(lambda x, use=use: use(3, x) for use in (operator.and_, operator.or_, operator.xor, operator.lshift)),
        ]

        def use(number):
            return USES[number](Holds.lines)

        expected = "`Holds` has the attribute `lines`: cannot pickle 'generator' object"
        for number in range(len(USES)):
            error = ex.submit(use, number).exception()
            assert str(error) == expected, (number, error)

        # What looks at all attributes goes on.
        def looks():
            import inspect
            found = [name for name, value in vars(Holds).items() if isinstance(value, int) or value == 3]
            return found, inspect.getmembers(Holds, inspect.isfunction), expected in str(vars(Holds))

        same(do(looks), ([], [], True))
        """
    )


def test_a_global_that_cannot_be_unpickled_is_an_error_where_it_is_used():
    run(
        """
        def restore(): raise TypeError("it is not here")

        class Error:
            def __reduce__(self): return restore, ()

        first, error, last = bytearray(9000), Error(), bytearray(b"b" * 9000)
        all = {"first": first}

        def names(): return sorted(name for name in globals() if name in ("first", "error", "last"))
        def parts(): return globals()["last"] == b"b" * 9000, globals()["all"]["first"] is globals()["first"]
        def use(): return error.args

        same((do(names), do(parts)), (["error", "first", "last"], (True, True)))
        failure = ex.submit(use).exception()
        expected = "the global `error` cannot be unpickled: TypeError: it is not here"
        same((type(failure), str(failure)), (TypeError, expected))
        error = OSError(1, "b")
        same(do(use), (1, "b"))
        """
    )


@pytest.mark.parametrize("how", ["file", "-c"])
def test_tracebacks_show_the_line(how):
    run(
        """
        def mean(values):
            return sum(values) / len(values)

        text = str(ex.submit(mean, []).exception().__cause__)
        assert f'File "{mean.__code__.co_filename}", line ' in text and "in mean" in text, text
        if mean.__code__.co_filename != "<string>":
            assert "return sum(values) / len(values)" in text, text
        """,
        how,
    )


def test_an_argument_is_pickled_once():
    run(
        """
        class Parcel:
            sent = 0

            def __init__(self, content):
                self.content = content

            def __reduce__(self):
                Parcel.sent += 1
                content, self.content = self.content, None
                return list, (content,)

        def sort(parcel, by):
            return sorted(parcel, key=by)

        def negative(x):
            return -x

        same((do(sort, Parcel([1, 3, 2]), negative), Parcel.sent), ([3, 2, 1], 1))
        same((do(sort, Parcel([1, 3, 2]), lambda x: -x), Parcel.sent), ([3, 2, 1], 2))
        """
    )


def test_the_memory_of_globals_is_freed():
    pytest.importorskip("numpy")
    run(
        """
        import weakref
        import numpy as np
        LARGE = np.zeros(1_000_000)

        def total():
            return float(LARGE.sum())

        with arenite.Executor(1) as own:
            same(own.submit(total).result(), 0)
            assert own.stats().used_bytes >= LARGE.nbytes
            gone = weakref.ref(LARGE)
            del LARGE
            same(gone(), None)
            while own.stats().used_bytes >= 8_000_000:      # The worker has it, too.
                same(type(own.submit(total).exception()), NameError)
        """
    )
