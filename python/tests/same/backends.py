"""The pools that programs run on, under one name each; how programs are found, and how what they give is written down.

A script has programs of three forms. Each function with a docstring is one, and the docstring its title: without a
parameter it is a task, submitted twice to one executor; with a parameter it runs in the main process, and its parameter
is called to submit a task. `table` and `steps` make more of the rows of a dictionary, by their titles.
"""

import concurrent.futures
import contextlib
import functools
import importlib
import inspect
import json
import multiprocessing
import pickle
import re
import sys
import types
import warnings

#: Arenite, with the main file run in workers, and with what tasks name sent to them.
OURS = ("arenite", "mirrored")


def _settings(which):
    return importlib.import_module("arenite").Settings(main=which == "arenite")


def loky():
    """The package, or the copy of it in joblib; None without either."""
    for name in ("loky", "joblib.externals.loky"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None


#: Programs that are no functions of their script, whose tasks would reach them through `globals()`.
_programs = {}


class Pools:
    """Executors and pools of one kind. A call submits a task to one that begins with what the program has now."""

    def __init__(self, which):
        self.which, self.is_ours, self.ended = which, which in OURS, contextlib.ExitStack()

    def executor(self, workers=1, **options):
        if self.is_ours:
            return importlib.import_module("arenite").Executor(workers, settings=_settings(self.which), **options)
        if self.which == "loky":
            return loky().ProcessPoolExecutor(workers, **options)
        context = multiprocessing.get_context(self.which)
        return concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, **options)

    @contextlib.contextmanager
    def new_pool(self, **options):
        if self.is_ours:
            made = importlib.import_module("arenite").Pool(1, settings=_settings(self.which), **options)
        else:
            made = multiprocessing.get_context(self.which).Pool(1, **options)
        with made:
            yield made
            made.close()
            made.join()

    @functools.cached_property
    def ex(self):
        """One executor for all programs of a script, with one worker."""
        return self.ended.enter_context(self.executor())

    @functools.cached_property
    def two(self):
        return self.ended.enter_context(self.executor(2))

    @functools.cached_property
    def pool(self):
        return self.ended.enter_context(self.new_pool())

    def __call__(self, task, *arguments):
        def submit():
            if self.is_ours:
                return self.ex.submit(task, *arguments).result()
            with self.executor() as ex:
                return ex.submit(task, *arguments).result()

        return outcome(submit)


def outcome(call, *arguments):
    """What a call gives, as text that is equal for equal values."""
    try:
        return show(call(*arguments))
    except BaseException as error:
        return f"raises {show(error)}"


def show(value):
    """A value as text: with its type, and with what it holds."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if isinstance(value, BaseException):
        inner = [show(one) for one in getattr(value, "exceptions", ())]
        notes = [note for note in getattr(value, "__notes__", []) if not note.startswith("when serializing ")]
        held = {key: item for key, item in vars(value).items() if key != "__notes__"}
        text = f"{name}{value.args!r} {held} {notes} {inner}"
    elif kind in (list, tuple):
        text = f"{name}[{', '.join(map(show, value))}]"
    elif kind is dict:
        text = "{" + ", ".join(f"{show(key)}: {show(item)}" for key, item in value.items()) + "}"
    elif kind in (set, frozenset):
        text = f"{name}{sorted(map(show, value))}"
    elif name == "numpy.ndarray":
        text = f"array {value.dtype} {value.shape} {value.tolist()!r:.300}"
    else:
        text = f"{name} {value!r}"
    return re.sub(r"0x[0-9a-fA-F]+", "0x…", re.sub("__mp_main__", "__main__", text))


def table(space, rows):
    """Programs whose tasks use a value as `own`: as a global twice; and, if it can be pickled, as an argument and as a
    result. A row has a title, the value, and what the task gives.
    """
    for title, (value, does) in rows.items():
        number = len(_programs)
        own, of_global, of_argument = f"own_{number}", f"of_global_{number}", f"of_argument_{number}"
        here = re.sub(r"\bown\b", own, does)
        exec(f"def {of_global}(): return {here}\ndef {of_argument}(own): return {does}", space)
        space[own] = value
        program(title, functools.partial(_in_ways, space[of_global], space[of_argument], value))


def _in_ways(of_global, of_argument, value, on):
    yield [outcome(on.ex.submit(of_global).result) for _ in range(2)]
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return
    yield outcome(on.ex.submit(of_argument, value).result), outcome(lambda: list(on.ex.map(of_argument, [value] * 3)))
    yield outcome(on.pool.apply, of_argument, (value,)), outcome(on.ex.submit(_give, value).result), show(value)


def _give(value):
    return value


def steps(space, rows):
    """Programs that change something between tasks. A row has a title, the changes, and what the task gives."""
    for title, (changes, does) in rows.items():
        task = f"after_{len(_programs)}"
        exec(f"def {task}(): return {does}", space)
        program(title, functools.partial(_after, changes, space[task]))


def _after(changes, task, on):
    for change in changes:
        change()
        yield on(task)


def _twice(task, on):
    return [outcome(on.ex.submit(task).result) for _ in range(2)]


def program(title, run):
    """A program with this title, whose steps `run` yields when it is called with the pools."""
    assert title not in _programs, f"two programs: {title}"
    _programs[title] = run


def run(space, is_fresh=False):
    """Runs all programs of a script on the pools that the command line names, and prints what each of them gave.

    With `is_fresh`, the worker of each has got nothing for another one.
    """
    warnings.simplefilter("ignore")
    on, found = Pools(sys.argv[1]), {}
    for made in [one for one in space.values() if isinstance(one, types.FunctionType) and one.__doc__]:
        has_steps = inspect.signature(made).parameters
        program(made.__doc__, made if has_steps else functools.partial(_twice, made))
    for title, steps_of in _programs.items():
        found[title] = outcome(lambda steps_of=steps_of: list(steps_of(on)))
        # Where a result cannot be unpickled, an executor of the standard library is lost.
        if is_fresh or getattr(vars(on).get("ex"), "_broken", False):
            on.ended.close()
            on = Pools(on.which)
    on.ended.close()
    sys.stdout.flush()
    print("\n" + json.dumps(found), flush=True)
