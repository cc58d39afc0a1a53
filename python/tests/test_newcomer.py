"""What people stumble over first: retries by class, calls of actors, names without libraries, texts, odd
environments."""

import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys

import harness
import pytest

import arenite
import arenite._core.channel


def fail_often(path, kind, times):
    """Raises so many times, then returns how often it was called."""
    with open(path, "a") as file:
        file.write("x")
    calls = os.path.getsize(path)
    if calls <= times:
        raise kind(f"call {calls}")
    return calls


@pytest.mark.parametrize("how", ["submit", "map"])
class TestRetriesByClass:
    def run(self, how, retried, path, kind, times):
        path.touch()
        with arenite.Executor(1) as ex:
            careful = ex.options(retries=3, retry_errors=retried)
            if how == "submit":
                future = careful.submit(fail_often, path, kind, times)
                return future.exception() or future.result(), path.stat().st_size
            results = careful.map(fail_often, [path], [kind], [times])
            try:
                return next(results), path.stat().st_size
            except Exception as error:
                return error, path.stat().st_size

    def test_of_the_class(self, how, tmp_path):
        for kind in (ConnectionError, ConnectionResetError):
            got = self.run(how, (ConnectionError, KeyError), tmp_path / kind.__name__, kind, 2)
            assert got == (3, 3)

    def test_of_another_class(self, how, tmp_path):
        error, calls = self.run(how, (ConnectionError,), tmp_path / "calls", ValueError, 2)
        assert (type(error), error.args, calls) == (ValueError, ("call 1",), 1)
        assert "fail_often" in str(error.__cause__)

    def test_too_often(self, how, tmp_path):
        error, calls = self.run(how, ConnectionError, tmp_path / "calls", ConnectionError, 9)
        assert (type(error), calls) == (ConnectionError, 4)

    def test_all_and_none(self, how, tmp_path):
        assert self.run(how, True, tmp_path / "all", ValueError, 2) == (3, 3)
        error, calls = self.run(how, False, tmp_path / "none", ValueError, 2)
        assert (type(error), calls) == (ValueError, 1)


def test_a_task_that_is_not_retried_has_failed(executor, tmp_path):
    """For `wait`, which must not unpickle other values."""
    careful = executor.options(retries=3, retry_errors=(ConnectionError,))
    (tmp_path / "calls").touch()
    futures = [careful.submit(fail_often, tmp_path / "calls", ValueError, 2), careful.submit(wait_for, tmp_path / "open")]
    with harness.waiting("the first exception"):
        done, left = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert done == {futures[0]} and left == {futures[1]}
    (tmp_path / "open").touch()


def test_a_retry_of_something_else_is_refused(executor):
    for wrong in (3, (3,), (), ("ConnectionError",)):
        with pytest.raises(TypeError, match="retry_errors must be"):
            executor.options(retry_errors=wrong)


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(2) as ex:
        yield ex


def wait_for(path):
    harness.until(path.exists, "the gate")
    return "open"


class Model:
    kind = "model"

    def __init__(self, factor):
        self.factor = factor
        self.scaled = lambda n: n * factor

    def __call__(self, n, more=0):
        return n * self.factor + more

    def predict(self, n):
        return self(n)

    def wait(self, path):
        return wait_for(path)


class Dynamic:
    def __getattr__(self, name):
        return lambda: name


def test_an_actor_is_called_as_its_object_is(executor):
    model = executor.actor(Model, 3)
    assert model(2).result() == 6
    assert model(2, more=1).result() == 7
    assert model.options(deadline=50)(2).result() == 6
    assert model.predict(5).result() == 15
    # Of the object only.
    assert model.scaled(4).result() == 12
    assert executor.actor(Dynamic).anything().result() == "anything"


def test_a_misspelt_method_fails_at_the_call(executor):
    model = executor.actor(Model, 3)
    with pytest.raises(AttributeError, match="'Model' object has no attribute 'predcit'"):
        model.predcit(5)
    with pytest.raises(AttributeError, match="no attribute"):
        executor.actor(dict)(1)
    with pytest.raises(AttributeError, match="no attribute"):
        executor.actor(dict).options(deadline=1).gett
    with arenite.Executor(0) as inline:
        assert inline.actor(Model, 2)(4).result() == 8


def test_a_deadline_of_a_call_of_an_actor(executor, tmp_path):
    with arenite.Executor(1) as ex, harness.waiting("a deadline"):
        model = ex.actor(Model, 3)
        error = model.options(deadline=0.1).wait(tmp_path / "never").exception()
        assert isinstance(error, arenite.DeadlineExceeded) and error.deadline == 0.1
        assert isinstance(model.predict(1).exception(), arenite.DeadlineExceeded | arenite.WorkerDied)


def test_the_text_of_a_future(executor, tmp_path):
    future = executor.submit(wait_for, tmp_path / "open")
    harness.until(future.running, "the task to run")
    assert re.fullmatch(r"<Future at 0x[0-9a-f]+ state=running>", repr(future))
    (tmp_path / "open").touch()
    assert future.result() == "open"
    assert repr(future).endswith("state=finished returned str>")
    failed = executor.submit(int, "x")
    failed.exception()
    assert repr(failed).endswith("state=finished raised ValueError>")
    others = [executor.submit(wait_for, tmp_path / "never") for _ in range(3)]
    assert repr(others[2]).endswith("state=pending>")
    for other in others:
        other.cancel()
    assert repr(others[2]).endswith("state=cancelled>")


WITHOUT = """
    import contextlib, io, sys
    sys.modules["{library}"] = None
    import arenite
    names = {{}}
    exec("from arenite import *", names)
    assert set(arenite.__all__) <= set(names) | {{"__version__"}}
    assert all(hasattr(arenite, name) for name in arenite.__all__)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        help(arenite)
    assert "process pool" in text.getvalue()
    assert not isinstance(1, arenite.Table) and arenite.Executor is names["Executor"]
    for call in {calls}:
        try:
            call()
        except ImportError as error:
            print(error)
    with arenite.Executor(1) as ex:
        print(ex.submit(abs, -1).result())
"""


def test_without_pyarrow():
    end = harness.script(WITHOUT.format(library="pyarrow", calls="lambda: arenite.read_csv('a.csv'), arenite.Table"))
    text = "arenite.{}: tables need pyarrow and numpy, and pyarrow is missing: pip install 'arenite[tables]'\n"
    assert end.ok().out == text.format("read_csv") + text.format("Table") + "1\n"


def test_without_numpy():
    end = harness.script(WITHOUT.format(library="numpy", calls="lambda: arenite.empty(3), arenite.mut"))
    text = "arenite.{} needs numpy, which is not installed: pip install numpy\n"
    assert end.ok().out == text.format("empty") + text.format("mut") + "1\n"


@pytest.mark.parametrize("folder", ["missing", "file", "long", "none"])
def test_the_folder_for_temporary_files_does_not_matter(folder, tmp_path):
    name = str(tmp_path / folder)
    if folder == "file":
        (tmp_path / folder).write_text("")
    elif folder == "long":
        name = os.path.join(name, *["x" * 100] * 3)
        os.makedirs(name)
    source = """
        import multiprocessing, os, threading
        import arenite
        lock = multiprocessing.Lock()
        forward = arenite.Settings(logging="forward")
        with arenite.Executor(2, output="plain", initializer=id, initargs=(lock,), settings=forward) as ex:
            ex.submit(print, "works").result()
    """
    end = harness.script(source, how="-c", env={**os.environ, "TMPDIR": name if folder != "none" else ""})
    assert end.ok().out == "works\n"


@pytest.mark.parametrize("chosen", [False, True])
def test_sockets_are_made_in_shared_memory_unless_a_folder_is_chosen(chosen):
    """The time of a folder's last change tells whether a name was made there."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    source = """
        import os
        import arenite
        before = os.stat("/tmp").st_mtime_ns
        with arenite.Executor(2) as ex:
            ex.submit(int).result()
        print(os.stat("/tmp").st_mtime_ns != before)
    """
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    # Another /tmp, in which only this Python is at its place if it is in /tmp.
    mounts = """
        mount -t tmpfs tmpfs /mnt && mkdir /mnt/tmp && mount --rbind /tmp /mnt/tmp && mount -t tmpfs tmpfs /tmp || exit
        case $PREFIX in /tmp/*) mkdir -p "$PREFIX" && mount --rbind "/mnt$PREFIX" "$PREFIX";; esac
        exec "$0" "$@"
    """
    env = environment | {"PREFIX": sys.prefix} | ({"TMPDIR": "/tmp"} if chosen else {})
    end = harness.script(source, how="-c", prefix=["unshare", "--mount", "sh", "-c", mounts], env=env)
    assert end.ok().out == f"{chosen}\n"


def handles(pid, number):
    with open(f"/proc/{pid}/status") as file:
        mask = re.search(r"SigCgt:\s*([0-9a-f]+)", file.read())[1]
    return int(mask, 16) >> (number - 1) & 1


def test_a_service_removes_its_socket_at_sigterm(tmp_path):
    source = """
        import sys
        import arenite
        with arenite.Executor(1) as ex:
            serving = ex.serve(sys.argv[1], {"add": int.__add__})
            print("serves", flush=True)
            serving.wait()
    """
    path = tmp_path / "service.sock"
    script = harness.Script(source, path)
    assert script.line() == "serves" and path.exists()
    harness.until(lambda: handles(script.pid, signal.SIGTERM), "the service to wait")
    script.signal(signal.SIGTERM)
    end = script.finish()
    assert (end.code, end.left, end.err) == (-signal.SIGTERM, [], "")
    assert not path.exists()


def describe(image, *, name="none", options=None):
    return {"name": name, "shape": list(image.shape), "options": options, "image": image}


def test_a_service_takes_names_and_dictionaries(executor, tmp_path):
    numpy = pytest.importorskip("numpy")
    with executor.serve(str(tmp_path / "s.sock"), {"describe": describe, "len": len}) as serving:
        with arenite.service.connect(serving.name) as service, harness.waiting("answers"):
            image = numpy.arange(6).reshape(2, 3)
            answer = service.call("describe", image, name="photo", options={"a": [1, {"b": None}], "c": 2.5})
            assert answer.pop("image").tolist() == image.tolist()
            assert answer == {"name": "photo", "shape": [2, 3], "options": {"a": [1, {"b": None}], "c": 2.5}}
            assert service.submit("describe", image=image).result()["name"] == "none"
            assert service.call("len", {"kind": "array", "dict": 1}) == 2
            for wrong in ({"size": 3}, {"image": image}):
                with pytest.raises(arenite.service.ServiceError) as refused:
                    service.call("describe", image, **wrong)
                assert refused.value.code == "bad_argument"
            with pytest.raises(TypeError, match="keys of text"):
                service.call("len", {1: 2})


def test_a_limit_on_processes_names_itself(monkeypatch):
    """Of a user that is not root: `ulimit -u`."""

    def refuse(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(arenite._core.channel.native.Thread, "__init__", refuse)
    with pytest.raises(OSError, match="ulimit -u"):
        arenite.Executor(1, output="plain")
    monkeypatch.undo()
    failure = {"kind": "start", "text": "posix_spawn of python failed: Resource temporarily unavailable (EAGAIN)"}
    failure |= {"label": None, "worker": None, "attempts": 1, "last_words": [], "deaths": []}
    assert "ulimit -u" in str(arenite._broken.from_failure(failure))
