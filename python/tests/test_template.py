"""Workers that are copied from a template. The oracle is what workers do that are started one by one."""

import json
import os
import random
import signal

import arenite
import harness
import numpy
import pytest

#: Set by the function that a template calls.
words = None
loaded_by = None


def load_words():
    global words, loaded_by
    words = ["or", "what", "takes", "longer"]
    loaded_by = os.getpid()


@pytest.fixture
def marked(monkeypatch):
    """Templates of this test call `load_words`."""
    monkeypatch.setattr("arenite._core.template._marked", [load_words])


def seen():
    """The process that has loaded, and this one."""
    return loaded_by, os.getpid()


def test_workers_are_copies_of_what_was_loaded(marked):
    with arenite.Executor(2, start="forkserver") as ex:
        assert ex.submit(lambda: words[3]).result() == "longer"
        pairs = set(ex.map(lambda _: seen(), range(20), chunksize=1))
        template = {pair[0] for pair in pairs}
        assert len(template) == 1 and template.isdisjoint({pair[1] for pair in pairs})
        assert words is None and os.getpid() not in template


def test_functions_marked_in_a_script():
    script = """
        import os
        import arenite

        table = None

        @arenite.before_fork
        def load():
            global table
            table = [os.getpid()]

        def use(n):
            return table[0] != os.getpid(), n * len(table)

        with arenite.Executor(2, start="forkserver") as ex:
            print(list(ex.map(use, range(3))), table)
    """
    ran = harness.script(script)
    assert ran.out == "[(True, 0), (True, 1), (True, 2)] None\n", ran


def test_a_worker_that_dies_is_copied_again(marked):
    with arenite.Executor(1, start="forkserver") as ex:
        template, first = ex.submit(seen).result()
        with pytest.raises(arenite.WorkerDied) as died:
            ex.submit(os.kill, first, signal.SIGSEGV).result()
        assert "SIGSEGV" in str(died.value)
        again = ex.submit(seen).result()
        assert again[0] == template and again[1] != first


def test_a_template_that_is_killed_is_started_again(marked):
    with arenite.Executor(1, start="forkserver") as ex:
        template, worker = ex.submit(seen).result()
        os.kill(template, signal.SIGKILL)
        assert ex.submit(seen).result() == (template, worker)

        def is_copied_again():
            with pytest.raises(arenite.WorkerDied):
                ex.submit(os._exit, 3).result()
            # Until it is loaded, workers load by themselves.
            loaded, own = ex.submit(seen).result()
            assert loaded not in (None, template)
            return loaded != own

        harness.until(is_copied_again, "a copy of another template")


def test_marked_functions_run_where_nothing_is_copied(marked, tmp_path, monkeypatch):
    (tmp_path / "starting.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(9e9,), daemon=True).start()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with arenite.Executor(1, start="forkserver", preload=["starting"], output=None) as ex:
        loaded, own = ex.submit(seen).result()
        assert loaded == own
    with arenite.Executor(0, start="forkserver") as ex:
        try:
            assert ex.submit(seen).result() == (os.getpid(), os.getpid())
        finally:
            monkeypatch.setitem(globals(), "loaded_by", None)
            monkeypatch.setitem(globals(), "words", None)


def test_streams_that_loading_keeps_or_replaces(tmp_path):
    (tmp_path / "keeping.py").write_text(
        "import functools, io, sys\nsay = functools.partial(print, file=sys.stdout)\nsys.stderr = io.StringIO()\n"
    )
    script = f"""
        import arenite, sys
        sys.path.insert(0, {str(tmp_path)!r})

        def talk(n):
            import keeping
            keeping.say("kept", n)
            print("now", n)

        with arenite.Executor(1, start="forkserver" if sys.argv[1] == "template" else "spawn", preload=["keeping"], output="plain") as ex:
            list(ex.map(talk, range(3), chunksize=1))
    """
    copied, started = (harness.script(script, how) for how in ("template", "alone"))
    assert copied.code == started.code == 0, (copied, started)
    assert sorted(copied.out.split()) == sorted(started.out.split()), (copied, started)


def test_libraries_whose_allocators_have_threads_can_be_loaded():
    pytest.importorskip("pyarrow")
    with arenite.Executor(1, start="forkserver", preload=["pandas", "pyarrow"]) as ex:
        assert ex.submit(os.getpid).result() in harness.children()
        assert len(harness.children()) >= 2


def draws(_):
    return random.random(), numpy.random.rand(), random.Random().random(), os.urandom(4)


def test_random_numbers_of_workers_differ():
    with arenite.Executor(2, start="forkserver", preload=["random", "numpy"]) as ex:
        first = [ex.submit(draws, 0) for _ in range(20)]
        numbers = [future.result() for future in first]
    for kind in zip(*numbers, strict=True):
        assert len(set(kind)) == 20


FACTS = """
import atexit, faulthandler, multiprocessing, os, subprocess, sys, threading, warnings, zlib
def facts(_=None):
    task = os.listdir("/proc/self/task")
    return {
        "argv": sys.argv,
        "path": sys.path,
        "main": sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__")),
        "name": multiprocessing.current_process().name.rstrip("0123456789"),
        "thread": os.getpid() == threading.get_native_id(),
        "parent": os.getppid(),
        "group": os.getpgid(0) == os.getpid(),
        "files": sorted(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).rstrip("0123456789[]:")
                        for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
        "null": os.path.realpath("/proc/self/fd/0"),
        "limits": open("/proc/self/limits").read(),
        "signals": [line for line in open("/proc/self/status") if line[:3] == "Sig" and line[:4] != "SigQ"],
        "comm": open("/proc/self/comm").read(),
        "threads": len(task),
        "child": subprocess.run(["sh", "-c", "kill -TERM $$"]).returncode,
        "faulthandler": faulthandler.is_enabled(),
        "hash": hash("text"),
        "env": {name: value for name, value in os.environ.items()},
        "cwd": os.getcwd(),
        "filters": len(warnings.filters),
        "worker": arenite.worker().number,
        "crc": zlib.crc32(b"text"),
    }
"""


@pytest.mark.parametrize(
    "options", [{}, {"memory_limit": "1GiB"}, {"lanes": 2}, {"settings": arenite.Settings(env={"A": "b"})}]
)
def test_copies_are_like_workers_that_were_started(options):
    script = f"""
        import arenite, json, sys
        from arenite import Settings
        {FACTS.replace(chr(10), chr(10) + "        ")}
        with arenite.Executor(1, start="forkserver" if sys.argv[1] == "template" else "spawn", preload=["numpy"], **{options!r}) as ex:
            print(json.dumps(ex.submit(facts).result(), sort_keys=True))
    """
    told = []
    for how in ("template", "started!"):
        ran = harness.script(script, how, env={**os.environ, "PYTHONHASHSEED": "7"})
        assert ran.code == 0, ran
        told.append(json.loads(ran.out))
    copied, started = told
    for facts in told:
        # The folder of the script, and how it was called.
        del facts["argv"], facts["path"][0]
        facts["parent"] = facts["parent"] > 0
        # Threads of a library that a copy starts when it needs them, and how it became a worker.
        del facts["threads"], facts["env"]["ARENITE_WORKER"]
        # What keeps libraries from starting threads.
        facts["env"] = {name: value for name, value in facts["env"].items() if not name.endswith("_MALLOC_CONF")}
    assert copied == started


def test_exit_handlers_of_what_was_loaded_run_once(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "ending.py").write_text(
        "import atexit, os, shutil, weakref\n"
        f"end = lambda: os.write(2, b'the end of %d\\n' % os.getpid())\n"
        "atexit.register(end)\n"
        "class Folder: pass\n"
        f"folder = Folder(); weakref.finalize(folder, shutil.rmtree, {str(kept)!r})\n"
    )
    script = f"""
        import arenite, os, sys
        sys.path.insert(0, {str(tmp_path)!r})
        with arenite.Executor(2, start="forkserver", preload=["ending"], max_tasks_per_child=2) as ex:
            print(all(ex.map(os.path.isdir, [{str(kept)!r}] * 20, chunksize=1)))
    """
    ran = harness.script(script)
    assert ran.out == "True\n" and ran.err.count("the end of") == 1 and not kept.exists(), ran


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import threading, time\nopen('/proc/self/comm').close()\nthread = threading.Thread(target=time.sleep, args=(3600,), daemon=True); thread.start()\nopen(f'/proc/self/task/{thread.native_id}/comm', 'w').write('loaded')", "lack: loaded"),
        ("kept = open('/proc/self/stat')", "share: /proc/"),
        ("import os\nos._exit(3)", "exit code 3"),
    ],
)
def test_what_cannot_be_copied_is_said_once(tmp_path, code, words):
    # A worker that is started by itself imports it, too: it may not end that one.
    guard = "" if "_exit" not in code else "import sys\nif open('/proc/self/comm').read() == 'template\\n':\n    import os; os._exit(3)\n"
    (tmp_path / "loaded.py").write_text(guard or code)
    script = f"""
        import arenite, sys
        sys.path.insert(0, {str(tmp_path)!r})
        with arenite.Executor(2, start="forkserver", preload=["loaded"]) as ex:
            print(list(ex.map(abs, [-1, 2])))
    """
    ran = harness.script(script)
    assert ran.out == "[1, 2]\n", ran
    assert ran.err.count("without a template") == 1 and words in ran.err, ran


def test_a_module_that_cannot_be_imported_fails_as_without_a_template():
    with pytest.raises(arenite.StartFailed, match="no_such_module"):
        with arenite.Executor(1, start="forkserver", preload=["no_such_module"]) as ex:
            ex.submit(abs, 1).result()


def test_sandboxed_workers_are_copies(marked):
    with arenite.Executor(1, start="forkserver", sandbox="strict", memory_limit="512MiB") as ex:
        template, worker = ex.submit(seen).result()
        assert template not in (None, worker)
        with pytest.raises(PermissionError):
            ex.submit(os.listdir, "/").result()
        with pytest.raises(arenite.MemoryLimitExceeded):
            ex.submit(bytes, 1 << 30).result()
        assert ex.submit(seen).result()[0] == template


def test_arrays_and_large_results_go_through_copies():
    values = numpy.arange(1_000_000)
    with arenite.Executor(2, start="forkserver") as ex:
        shared = ex.share(values)
        assert ex.submit(numpy.sum, shared).result() == values.sum()
        assert (ex.submit(numpy.negative, values).result() == -values).all()


def test_crash_reports_name_functions_of_copies():
    with arenite.Executor(1, start="forkserver", preload=["ctypes"]) as ex:
        with pytest.raises(arenite.WorkerDied) as died:
            ex.submit(crash).result()
    functions = [frame.function or "" for frame in died.value.crash.frames]
    # Distributions strip the names of static functions, such as `string_at`, from the module `ctypes`.
    assert any("string_at" in function or "ffi_call" in function for function in functions), died.value.crash


def crash():
    import ctypes

    ctypes.string_at(0)


def test_nothing_is_left_when_the_program_is_killed():
    script = """
        import arenite, os, signal
        ex = arenite.Executor(2, start="forkserver", preload=["numpy"])
        ex.submit(abs, 1).result()
        print(*[pid for pid in os.listdir("/proc") if pid.isdigit() and parent(pid) == os.getpid()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    head = """
        def parent(pid):
            try:
                return int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
            except OSError:
                return 0
    """
    ran = harness.script(head + script)
    pids = ran.out.split()
    assert len(pids) >= 3, ran
    harness.until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "processes of a killed program end")


def test_before_fork_marks_functions():
    async def later():
        pass

    def one_by_one():
        yield

    for wrong in (3, later, one_by_one, lambda needed: needed):
        with pytest.raises(TypeError, match="before_fork marks"):
            arenite.before_fork(wrong)
