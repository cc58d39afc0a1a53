"""What the tests wait with, run scripts with, and look for leftovers with.

A test never sleeps to let something happen: it waits for the thing, with `until` or inside `waiting`, and the watchdog
of `conftest.py` fails it after `PATIENCE` seconds at one wait, and says which one.
"""

import contextlib
import faulthandler
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

_TARGET = Path(__file__).parents[2] / "target"
_BUILT = [str(path) for kind in ("release", "debug") if (path := _TARGET / kind / "arenite").exists()]
#: The command `arenite`. None if it is neither built nor installed.
COMMAND = os.environ.get("ARENITE_COMMAND") or next(iter(_BUILT), shutil.which("arenite"))

#: Seconds at one wait until the watchdog fails the test.
PATIENCE = int(os.environ.get("ARENITE_TEST_PATIENCE", "60"))

#: Whether every variant of a test runs, as at night, or one that the seed of the run draws.
ALL_VARIANTS = os.environ.get("ARENITE_VARIANTS") == "all"

_waits = []  # what is waited for, outermost first
_moves = 0  # how often a wait began or ended
_report = 2  # the error output that pytest does not capture


def drawn(variants, what):
    """One of these variants, the same in all processes of a run; all of them at night."""
    variants = list(variants)
    return variants if ALL_VARIANTS else [random.Random(f"{os.environ['ARENITE_SEED']} {what}").choice(variants)]


def ready():
    """Called in templates, so that not each worker imports pytest with the file of its tests."""


def keep_stderr():
    """Keeps the error output of the whole run for reports of the watchdog. Call before pytest captures it."""
    global _report
    _report = os.dup(2)


def say(text):
    """Writes to the error output of the whole run."""
    os.write(_report, text.encode(errors="replace") + b"\n")


@contextlib.contextmanager
def waiting(what):
    """Names what the enclosed code waits for. The patience of the watchdog starts anew at both ends."""
    global _moves
    _moves += 1
    _waits.append(what)
    try:
        yield
    finally:
        _waits.remove(what)
        _moves += 1


def until(condition, what, pause=0.005):
    """Waits until `condition()` is true, and returns what it returned."""
    with waiting(what):
        while not (met := condition()):
            time.sleep(pause)
        return met


class Watchdog:
    """Fails a test that stays at one wait for too long.

    It counts its own looks, one per second, not the clock: a stopped or crowded machine is no hang. Where a raised
    signal does not reach the main thread because it is stuck outside of Python, the whole run ends with a report; where
    no Python thread gets to run at all, `faulthandler` does that from a thread of its own.
    """

    def __init__(self, name, patience):
        self.name = name
        self.patience = patience
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, name=f"watchdog of {name}", daemon=True)

    def __enter__(self):
        self.before = signal.signal(signal.SIGUSR2, self._fail)
        self._arm()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGUSR2, self.before)

    def _arm(self):
        faulthandler.dump_traceback_later(2 * self.patience + 60, exit=True, file=_report)

    def _look(self):
        moves, looks = _moves, 0
        for seconds in itertools.count(1):
            if self.ended.wait(1):
                return
            if moves != _moves:
                moves, looks = _moves, 0
            looks += 1
            if seconds % 10 == 0:
                self._arm()
            late = looks - self.patience
            if late in (0, 5, 10):
                # Again, for waits in `finally` and `__exit__`.
                self.text = self._describe(looks)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR2)
            elif late == 20:
                say(f"{self.name}: the main thread does not react; the whole run ends")
                say(self._describe(looks))
                for child in children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                os._exit(70)

    def _describe(self, looks):
        waits = ", inside ".join(reversed(_waits)) or "no named wait"
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            stacks = file.read().decode(errors="replace")
        processes = "\n".join(describe(pid) for pid in children()) or "none"
        return f"{looks} s at: {waits}\n{stacks}\nchild processes:\n{processes}"

    def _fail(self, *_):
        say(f"{self.name}: {self.text}")
        pytest.fail(self.text)


def stat(pid):
    """The fields of `/proc/PID/stat` after the name: state, parent, group, session, …; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def name(pid):
    """The name that a process has given itself; None if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return None


def pids():
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def children(parent=None):
    """Direct children of a process, this one by default; zombies too."""
    parent = parent or os.getpid()
    return [pid for pid in pids() if (fields := stat(pid)) and int(fields[1]) == parent]


def all_ready(executor):
    """Waits until all workers are ready, so that each takes one of as many tasks."""
    until(lambda: all(worker.ready for worker in executor.stats().workers), f"all workers of {executor} to be ready")
    return executor


def open_executors():
    """Executors that several tests share, while none of them runs."""
    module = sys.modules.get("arenite._core.workers")
    return [workers for workers in list(module.running) if not workers.is_closed] if module else []


def is_alive(pid):
    """Whether the process exists and is not a zombie."""
    return (fields := stat(pid)) is not None and fields[0] not in "ZX"


def of_session(session):
    """Processes of a session that are still there; zombies too, unless only process 1 is late to reap them."""
    found = [(pid, fields) for pid in pids() if (fields := stat(pid)) and int(fields[3]) == session]
    return [pid for pid, fields in found if fields[0] not in "ZX" or fields[1] != "1"]


def describe(pid):
    """One line about a process: what it runs, its state, and where in the kernel it waits."""
    fields = stat(pid)
    if not fields:
        return f"  {pid}: gone"
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:160]
        wchan = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        command = wchan = "?"
    return f"  {pid}: state {fields[0]}, parent {fields[1]}, waits in {wchan}: {command}"


def shared_memory():
    """Names of arenas in `/dev/shm` that no other process has open: those belong to another run."""
    names = {name for name in os.listdir("/dev/shm") if re.fullmatch(r"arenite-\d+-[0-9a-f]{16}", name)}
    for pid in pids() if names else ():
        if pid != os.getpid():
            with contextlib.suppress(OSError):
                names -= {target.removeprefix("/dev/shm/") for target in descriptors(pid).values()}
    return names


def descriptors(pid="self"):
    """Open descriptors of a process, this one by default, and what they are of."""
    opened = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            opened[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return opened


class Finished:
    """What a script left: exit code, output, and the processes of its session that outlived it."""

    def __init__(self, code, out, err, left):
        self.code, self.out, self.err, self.left = code, out, err, left

    def ok(self):
        """Asserts a clean end: exit code 0, nothing on the error output, no process left."""
        assert (self.code, self.err, self.left) == (0, "", []), self
        return self

    def __repr__(self):
        return f"exit code {self.code}, left behind: {self.left}\n--- output\n{self.out}\n--- errors\n{self.err}"


class Script:
    """A Python program in a session of its own, so that everything it starts can be found."""

    def __init__(self, source, *arguments, how="file", cwd=None, env=None, flags=(), prefix=()):
        """`how`: "file", "-c" or "-" (read from standard input)."""
        source = textwrap.dedent(source)
        self.folder = tempfile.TemporaryDirectory(prefix="script-")
        command = [*prefix, sys.executable, *flags]
        if how == "file":
            path = Path(self.folder.name, "program.py")
            path.write_text(source)
            command.append(str(path))
        else:
            command += [how] + [source] * (how == "-c")
        self.what = f"a script of {len(source.splitlines())} lines to end"
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE if how == "-" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            text=True,
            start_new_session=True,
        )
        self.input = source if how == "-" else None

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number, group=False):
        """Sends a signal to the script, or to its whole process group, as a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def line(self):
        """The next line of the output."""
        with waiting("the next line of a script's output"):
            return self.process.stdout.readline().rstrip("\n")

    def finish(self):
        """Waits for the end, and until what it started had a second to go."""
        try:
            with waiting(self.what):
                out, err = self.process.communicate(self.input)
            for _ in range(100):
                if not (left := of_session(self.pid)):
                    break
                time.sleep(0.01)
            return Finished(self.process.returncode, out, err, [describe(pid) for pid in left])
        finally:
            self.end()

    def end(self):
        for pid in of_session(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        self.folder.cleanup()


def script(source, *arguments, **options):
    """Runs a Python program to its end. See `Script`."""
    return Script(source, *arguments, **options).finish()


@contextlib.contextmanager
def store(*options, env=None):
    """A server that `arenite serve` with these options has started. Needs the command."""
    with subprocess.Popen([COMMAND, "serve", "--json", *options], stdout=subprocess.PIPE, env=env) as server:
        assert b'"pid"' in server.stdout.readline()
        try:
            yield server
        finally:
            server.terminate()
