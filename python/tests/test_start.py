"""How workers are started: `start`, `mp_context` and `main`. The oracle is `multiprocessing` with the method of that name."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import arenite
import harness
import pytest

METHODS = ("spawn", "forkserver", "fork")
#: What a main file registers or sets in libraries at its top level, and what a task then sees.
KINDS = {
    "adapter": (
        "import sqlite3, fractions\nsqlite3.register_adapter(fractions.Fraction, float)",
        "sqlite3.connect(':memory:').execute('select ?', (fractions.Fraction(1, 2),)).fetchone()",
    ),
    "adapter of own": (
        "import sqlite3\nclass Own: pass\nsqlite3.register_adapter(Own, lambda _: 5)",
        "sqlite3.connect(':memory:').execute('select ?', (Own(),)).fetchone()",
    ),
    "mime type": ("import mimetypes\nmimetypes.add_type('image/x', '.mine')", "mimetypes.guess_type('a.mine')"),
    "method": ("import json\njson.JSONEncoder.default = lambda self, o: 'own'", "json.dumps(object())"),
    "reducer": (
        "import copyreg, pickle, io\nclass Own: pass\ncopyreg.pickle(Own, lambda o: (str, ('own',)))",
        "pickle.loads(pickle.dumps(Own()))",
    ),
    "dispatch": (
        "import pprint\nclass Own:\n    def __repr__(self): return 'own'\n"
        "pprint.PrettyPrinter._dispatch[Own.__repr__] = lambda s, o, stream, *_: stream.write('printed')",
        "pprint.pformat(Own())",
    ),
    "virtual subclass": (
        "import collections.abc\nclass Own: pass\ncollections.abc.Sequence.register(Own)",
        "isinstance(Own(), collections.abc.Sequence), issubclass(Own, collections.abc.Sequence)",
    ),
    "codec": (
        "import codecs\ncodecs.register_error('own', lambda error: ('!', error.end))",
        "'\\xe4'.encode('ascii', 'own')",
    ),
    "environment": ("import os\nos.environ['ARENITE_OWN'] = 'set'", "os.environ['ARENITE_OWN']"),
    "attribute of a module": ("import string\nstring.own = [1]", "string.own"),
    "default": ("import textwrap\ntextwrap.wrap.__defaults__ = (5,)", "textwrap.wrap('one two three')"),
    "hook": ("import sys\nsys.excepthook = lambda *_: None", "sys.excepthook.__name__"),
    "context": ("import decimal\ndecimal.DefaultContext.prec = 3", "decimal.DefaultContext.prec"),
    "builtin": ("import builtins\nbuiltins.own = 'everywhere'", "own"),
    "handler": ("import signal\nsignal.signal(signal.SIGUSR2, lambda *_: None)", "signal.getsignal(signal.SIGUSR2).__name__"),
    "filter": ("import logging\nlogging.getLogger('own').addFilter(lambda _: False)", "len(logging.getLogger('own').filters)"),
    "subclass": ("import string\nclass Own(string.Formatter): pass", "[one.__name__ for one in string.Formatter.__subclasses__()]"),
    "identity": ("class Own: pass\nOWN = Own\nTABLE = {Own: 1}\nimport string\nstring.kept = Own", "TABLE[string.kept], string.kept is Own, OWN is Own"),
    "global that cannot be pickled": (
        "import threading\nclass Own:\n    def __reduce__(self): raise TypeError\n    value = 3\nOWN = Own()", "OWN.value",
    ),
    "global that is changed later": ("STEPS = 1\nTABLE = {}", "STEPS, TABLE"),
}  # fmt: skip
PROGRAM = """
{setting}

def seen():
    return {seen}

if __name__ == "__main__":
    import sys
    how = sys.argv[1]
    if how.startswith("arenite"):
        import arenite
        ex = arenite.Executor(1, start=how.partition("-")[2])
    else:
        import multiprocessing, concurrent.futures
        ex = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(how))
    with ex:
        print(repr(ex.submit(seen).result()))
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_main_file_sets_is_there(kind, method):
    setting, seen = KINDS[kind]
    program = PROGRAM.format(setting=setting, seen=seen)
    expected, found = (harness.script(program, how) for how in (method, f"arenite-{method}"))
    assert found.out == expected.out and found.out, (found, expected)


def test_what_the_program_changes_wins():
    program = """
    import string
    STEPS, TABLE, string.own = 1, {"a": 1}, [0]
    class Own:
        level = 1
        def __init__(self): self.level_of_class = self.level

    def seen():
        return STEPS, TABLE, Own().level_of_class, string.own

    if __name__ == "__main__":
        import arenite, sys
        STEPS, Own.level = 2, 2
        TABLE["b"] = 2
        with arenite.Executor(2, start=sys.argv[1]) as ex:
            print(*ex.submit(seen).result())
            Own.level, STEPS = 3, 3
            print(*ex.submit(seen).result())
    """
    for method in METHODS:
        ran = harness.script(program, method)
        assert ran.out == "2 {'a': 1, 'b': 2} 2 [0]\n3 {'a': 1, 'b': 2} 3 [0]\n", ran


GUARDED = [
    "if __name__ == '__main__':\n    pass",
    "if '__main__' == __name__ and True:\n    pass",
    "if __name__ != '__main__':\n    raise SystemExit",
    "try:\n    if __name__ == '__main__': pass\nfinally:\n    pass",
    "is_main = 1\nif not (__name__ == '__main__'):\n    pass\nelse:\n    pass",
    "__name__ == '__main__' and print",
    "match __name__:\n    case '__main__': pass",
]
UNGUARDED = [
    "x = 1",
    "import logging\nlog = logging.getLogger(__name__)",
    "# if __name__ == '__main__':",
    "text = \"if __name__ == '__main__':\"",
    "def main():\n    if __name__ == '__main__': pass",
    "print(__name__)",
    "if __name__ == '__main__'",
]


@pytest.mark.parametrize(("text", "is_guarded"), [(one, True) for one in GUARDED] + [(one, False) for one in UNGUARDED])
def test_guards_are_found_in_the_syntax_tree(text, is_guarded, tmp_path):
    from arenite._core import main

    path = tmp_path / "main.py"
    path.write_text(text)
    assert main._is_guarded(str(path)) is is_guarded


COUNTED = """
import os, sys
print("ran as", __name__)
{guard}
if {test}:
    import arenite
    with arenite.Executor(2, **eval(sys.argv[1])) as ex:
        list(ex.map(abs, range(4)))
"""


def test_a_file_without_a_guard_is_never_run_and_a_guarded_one_once_in_the_template():
    guarded = COUNTED.format(guard="", test='__name__ == "__main__"')
    open_file = COUNTED.format(guard="main = True", test="main")
    ran = harness.script(guarded, "{}")
    assert (ran.out, ran.err) == ("ran as __main__\n", "(arenite:main) ran as __mp_main__\n")
    ran = harness.script(guarded, "{'output': None}")
    assert (ran.out, ran.err) == ("ran as __main__\n", "")
    ran = harness.script(guarded, "{'start': 'spawn'}")
    # A worker may be ended before it begins, and while it prints.
    lines = "ran as __main__", *(f"(arenite:{worker}) ran as __mp_main__" for worker in range(2))
    printed = ran.out.splitlines()
    assert len({*lines} & {*printed}) >= 2 and len(printed) <= 3, ran
    assert all(any(line.startswith(one) for line in lines) for one in printed), ran
    without = "{'settings': arenite.Settings(main=False)}"
    for program, options in ((guarded, without), (open_file, "{}"), (guarded, "{'start': 'fork'}")):
        ran = harness.script(program, options)
        assert (ran.out, ran.err) == ("ran as __main__\n", ""), (program, options)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("failure", ["1 / 0", "sys.exit(3)"])
def test_an_exception_of_the_main_file_is_that_of_tasks(method, failure):
    program = f"""
    import sys
    if __name__ != "__main__":
        {failure}  # here
    else:
        import arenite
        with arenite.Executor(1, start={method!r}) as ex:
            for _ in range(2):
                error = ex.submit(abs, 1).exception()
                print(type(error).__name__, "main=False" in "".join(error.__notes__))
            assert "# here" in str(error.__cause__), error.__cause__
    """
    ran = harness.script(program)
    kind = "SystemExit" if "exit" in failure else "ZeroDivisionError"
    assert ran.out == f"{kind} True\n" * 2, ran


def test_modules_that_python_runs_by_name(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "near.py").write_text("")
    text = textwrap.dedent("""
        import string
        from . import near
        string.set_by_main = __name__
        def seen():
            return getattr(string, "set_by_main", None), near.__name__, __name__ in ("__main__", "__mp_main__"), __package__
        if __name__ == "__main__":
            import sys
            if sys.argv[1] == "arenite":
                import arenite
                ex = arenite.Executor(1)
            else:
                import concurrent.futures, multiprocessing
                ex = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            with ex:
                print(ex.submit(seen).result())
    """)
    for name in ("command", "__main__"):
        (package / f"{name}.py").write_text(text)

    def run(module, how):
        ran = subprocess.run([sys.executable, "-m", module, how], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return ran.stdout, ran.returncode

    assert run("package.command", "arenite") == run("package.command", "spawn")
    # The main module of a package is not run: `spawn` finds nothing of it.
    assert run("package", "arenite") == ("(None, 'package.near', True, 'package')\n", 0)


def templates():
    """The templates of this process."""
    return {pid for pid in harness.children() if Path(f"/proc/{pid}/comm").read_text() == "template\n"}


def test_executors_with_the_same_settings_share_a_template(monkeypatch):
    with arenite.Executor(1) as first, arenite.Executor(1) as second:
        assert first.submit(abs, -1).result() == second.submit(abs, -1).result() == 1
        shared = templates()
        assert len(shared) == 1
        monkeypatch.setenv("ARENITE_OTHER", "1")
        with arenite.Executor(1) as other:
            other.submit(abs, -1).result()
            assert len(templates()) == 2
    with arenite.Executor(1) as other:
        other.submit(abs, -1).result()
        assert len(templates()) == 2
    arenite._arenite.join_all()
    assert not templates()


def test_a_template_that_threads_make_unfit_is_said_in_statistics(tmp_path, monkeypatch, capfd):
    (tmp_path / "with_thread.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        with arenite.Executor(1, preload=["with_thread"]) as ex:
            assert ex.submit(abs, -1).result() == 1
            assert "threads" in ex.stats().no_template
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", METHODS)
def test_contexts_of_multiprocessing_mean_their_method(method):
    expected, found = (
        harness.script(
            """
            import os, sys
            import multiprocessing, concurrent.futures, arenite
            import string
            def seen():
                return hasattr(string, "set_later")
            if __name__ == "__main__":
                string.set_later = True
                kind = arenite.Executor if sys.argv[1] == "arenite" else concurrent.futures.ProcessPoolExecutor
                with kind(1, mp_context=multiprocessing.get_context(sys.argv[2])) as ex:
                    print(ex.submit(seen).result())
            """,
            how,
            method,
        )
        for how in ("arenite", "futures")
    )
    assert found.out == expected.out, found
    with pytest.raises(ValueError, match="start must be one of"):
        arenite.Executor(1, start="threads")


def test_a_fork_warns_of_threads():
    program = """
    import threading, warnings, arenite
    if __name__ == "__main__":
        warnings.simplefilter("error")
        with arenite.Executor(1, start="fork") as ex:
            print(ex.submit(abs, -1).result())
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
        with arenite.Executor(1, start="fork") as ex:
            try:
                ex.submit(abs, -1).result()
            except DeprecationWarning as warning:
                print("multi-threaded" in str(warning))
    """
    ran = harness.script(program)
    assert ran.out == "1\nTrue\n", ran


def test_a_fork_that_is_killed_is_made_again_at_the_next_call():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with arenite.Executor(1, start="fork") as ex:
            first = ex.submit(os.getpid).result()
            (template,) = templates()
            os.kill(template, signal.SIGKILL)
            harness.until(lambda: template not in harness.children(), "the template is gone")
            assert isinstance(ex.submit(os.kill, first, signal.SIGKILL).exception(), arenite.WorkerDied)
            assert ex.submit(os.getpid).result() != first


def test_forked_workers_have_the_programs_files_and_memory(tmp_path):
    path = tmp_path / "shared"
    with open(path, "w+b", buffering=0) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with arenite.Executor(2, start="fork") as ex:
            number = file.fileno()
            assert ex.submit(lambda: os.write(number, b"x")).result() == 1
            file.seek(0)
            assert file.read() == b"x"
            assert ex.submit(multiprocessing.active_children).result() == []


def test_workers_of_a_template_that_is_older_than_a_reload_have_the_new_code(tmp_path):
    (tmp_path / "reloaded_here.py").write_text("def value(): return 'old'\n")
    program = f"""
    import importlib, pathlib, sys
    sys.path.insert(0, {str(tmp_path)!r})
    import reloaded_here
    if __name__ == "__main__":
        import arenite
        for text in ("old", "newer"):
            pathlib.Path(reloaded_here.__file__).write_text(f"def value(): return {{text!r}}\\n")
            importlib.invalidate_caches()
            importlib.reload(reloaded_here)
            with arenite.Executor(1) as ex:
                print(ex.submit(reloaded_here.value).result(), reloaded_here.value())
    """
    ran = harness.script(program)
    assert ran.out == "old old\nnewer newer\n", ran
