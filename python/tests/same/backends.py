"""The pools that a program runs on, under one name each, and how what it gives is written down."""

import contextlib
import importlib
import json
import os
import random
import re
import sys
import warnings

#: In the order in which they are compared: the last one has to give what the others do.
BACKENDS = ("fork", "spawn", "loky", "arenite")


#: Programs of each script that run; `ARENITE_SEED` draws them.
CASES = int(os.environ.get("ARENITE_CASES", "200"))


def drawn(programs):
    """As many of the programs as are to run, in their order."""
    programs = list(programs)
    numbers = random.Random(os.environ.get("ARENITE_SEED", "")).sample(range(len(programs)), min(CASES, len(programs)))
    return [programs[number] for number in sorted(numbers)]


def loky():
    """The package, or the copy of it in joblib; None without either."""
    for name in ("loky", "joblib.externals.loky"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None


@contextlib.contextmanager
def executor(which, workers=1, **options):
    """An executor with this number of workers."""
    if which == "arenite":
        import arenite

        made = arenite.Executor(workers, **options)
    elif which == "loky":
        made = loky().ProcessPoolExecutor(workers, **options)
    else:
        import concurrent.futures
        import multiprocessing

        context = multiprocessing.get_context(which)
        made = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, **options)
    with made:
        yield made


@contextlib.contextmanager
def pool(which, workers=1, **options):
    """A pool with the interface of `multiprocessing.Pool`."""
    if which == "arenite":
        import arenite

        made = arenite.Pool(workers, **options)
    else:
        import multiprocessing

        made = multiprocessing.get_context(which).Pool(workers, **options)
    with made:
        yield made
        made.close()
        made.join()


def outcome(call):
    """What a call gives, as text that is equal for equal values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            text = show(call())
        except BaseException as error:
            text = f"raises {show(error)}"
    return text


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
    text = text.replace("__mp_main__", "__main__")
    return re.sub(r"0x[0-9a-fA-F]+", "0x…", text)


def global_of(text):
    """The global of the main file that a text names with `@`, as in a query of pandas; None if there is none."""
    return vars(sys.modules["__main__"]).get(text.removeprefix("@"))


def names_of(tasks):
    """The names of programs that submit one task each, and the backends that they run on besides arenite."""
    return [(name, ["fork", "spawn"]) for name in tasks]


def submitted(which, tasks):
    """Runs programs that submit one task each: tells what its first use gave and what the second."""
    with executor(which) as ex:
        for name in drawn(tasks):
            yield name, [outcome(lambda: ex.submit(tasks[name]).result()) for _ in range(2)]


def of_tasks(tasks):
    """`names` and `programs` of a script whose programs submit one task each."""
    return lambda: names_of(tasks), lambda which: submitted(which, tasks)


def main(programs):
    """Runs all programs on the pool that the command line names, and prints what each of them gave."""
    which = sys.argv[1]
    found = dict(programs(which))
    sys.stdout.flush()
    print("\n" + json.dumps(found), flush=True)
