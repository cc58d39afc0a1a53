"""What tasks print with `output="plain"`, byte for byte: as what tasks of the standard library print."""

import contextlib
import itertools
import os
import re
import socket
import sys
import termios
import textwrap

import harness
import pytest

import arenite
from arenite._core import output

PROGRAM = """
    import os, random, sys
    import arenite
    from concurrent.futures import ProcessPoolExecutor

    def numbers(n):
        import json
        print(json.dumps({"id": n, "values": list(range(3000))}))

    def chatty(n):
        for i in range(30_000):
            print("line", n, i)

    def colours(n):
        print("\\033[31mred\\033[0m\\ttab\\rover\\0 \\u00e9\\u4e2d")
        print("windows\\r")

    def parts(n):
        print(n, end=" ")
        print("and", end="", flush=True)
        os.write(1, b" raw \\xff\\xfe\\n")

    def long(n):
        print("x" * 3_000_000 + str(n))

    def errors(n):
        for i in range(5000):
            print("error", n, "y" * 1000, i, file=sys.stderr)

    def last(n):
        print("without an end", end="")

    def child(n):
        import subprocess
        sys.stdout.flush()
        subprocess.run([sys.executable, "-c", "print('from a child ' * 1000)"])

    if __name__ == "__main__":
        make = {"arenite": lambda n: arenite.Executor(n, output="plain"), "stdlib": ProcessPoolExecutor}[sys.argv[1]]
        with make(int(sys.argv[3])) as ex:
            list(ex.map(globals()[sys.argv[2]], range(int(sys.argv[4]))))
"""


def printed(which, what, workers, tasks):
    end = harness.script(PROGRAM, which, what, workers, tasks, env={**os.environ, "PYTHONIOENCODING": ":surrogateescape"})
    assert end.code == 0, end
    return end.out, end.err


@pytest.fixture(autouse=True)
def any_bytes(monkeypatch):
    """Scripts print bytes that are no text."""
    popen = harness.subprocess.Popen
    monkeypatch.setattr(harness.subprocess, "Popen", lambda *args, **named: popen(*args, errors="backslashreplace", **named))


@pytest.mark.parametrize("what", ["numbers", "chatty", "colours", "parts", "long", "errors", "last", "child"])
def test_one_worker_prints_what_that_of_the_standard_library_prints(what):
    tasks = 1 if what in ("parts", "last") else 3
    assert printed("arenite", what, 1, tasks) == printed("stdlib", what, 1, tasks)


@pytest.mark.parametrize("what", ["numbers", "chatty", "long", "errors"])
def test_lines_of_several_workers_are_whole(what):
    """Those of the standard library may be mixed."""
    ours, theirs = printed("arenite", what, 3, 6), printed("stdlib", what, 1, 6)
    assert [sorted(text.splitlines()) for text in ours] == [sorted(text.splitlines()) for text in theirs]


def test_a_worker_waits_for_a_slow_program(tmp_path):
    """It stops when the pipes are full; nothing is lost when they are read at last."""
    source = """
        import pathlib, sys
        import arenite

        def flood(path):
            for n in range(200):
                print("z" * 100_000)
                pathlib.Path(path).write_text(str(n))

        with arenite.Executor(1, output="plain") as ex:
            ex.submit(flood, sys.argv[1]).result()
    """
    script = harness.Script(source, tmp_path / "progress")
    harness.until((tmp_path / "progress").exists, "the task to print")
    # Until it is blocked: the workers are the only children, and write to a full pipe.
    blocked = harness.until(lambda: [pid for pid in harness.children(script.pid) if is_writing(pid)], "a full pipe")
    assert blocked and int((tmp_path / "progress").read_text() or 0) < 100
    lines = script.finish().out.splitlines()
    assert lines == ["z" * 100_000] * 200


def is_writing(pid):
    try:
        with open(f"/proc/{pid}/wchan") as file:
            return "pipe_write" in file.read()
    except OSError:
        return False


def die_after_printing():
    print("to the output")
    print("to the errors", file=sys.stderr)
    os.abort()


@pytest.mark.parametrize("output", ["plain", "labelled", None])
def test_the_last_words_of_a_worker_that_dies(output, capfd):
    with arenite.Executor(1, output=output) as ex:
        died = ex.submit(die_after_printing).exception()
        assert "to the output" in died.last_words and "to the errors" in died.last_words
        assert any("Fatal Python error: Aborted" in line for line in died.last_words)
        assert ex.submit(abs, -1).result() == 1
        assert isinstance(ex.submit(os._exit, 1).exception(), arenite.WorkerDied)


def test_output_goes_to_the_stream_of_now(monkeypatch):
    """Of a notebook, which has no buffer of bytes."""

    class Stream:
        text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    with arenite.Executor(1, output="plain") as ex:
        ex.submit(print, "é in a cell").result()
        harness.until(lambda: stream.text, "the line")
    assert stream.text == "é in a cell\n"


def test_a_stream_that_raises_ends_nothing(monkeypatch):
    class Stream:
        buffer = None

        def write(self, text):
            raise RuntimeError("no stream")

        flush = write

    monkeypatch.setattr(sys, "stdout", Stream())
    with arenite.Executor(1, output="plain") as ex, harness.waiting("the task"):
        ex.submit(print, "x" * 1_000_000).result()
        assert ex.submit(abs, -1).result() == 1


def print_long():
    print("w" * 10_000 + "end")


def print_many():
    for n in range(40_000):
        print(f"line {n:05} {'v' * 100}")


def test_labelled_output_says_how_much_it_left_out():
    lines = []
    with arenite.Executor(1, output=lambda source, worker, text: lines.append((source, text))) as ex:
        ex.submit(print_long).result()
    ((_, text),) = lines
    shown, more = re.fullmatch(r"(w+)… \((\d+) more bytes\)", text).groups()
    assert len(shown) + int(more) == 10_003
    lines.clear()
    with arenite.Executor(1, output=lambda source, worker, text: lines.append((source, text))) as ex:
        ex.submit(print_many).result()
    dropped = [re.match(r"(\d+) lines \((\d+) bytes\) dropped", text) for source, text in lines if source == "notice"]
    passed = [text for source, text in lines if source == "stdout"]
    assert dropped and len(passed) + sum(int(found[1]) for found in dropped) == 40_000
    # Each line has 111 bytes.
    assert sum(int(found[2]) for found in dropped) == 111 * (40_000 - len(passed))



@pytest.mark.parametrize("keeps", [True, False])
def test_output_of_an_executor_that_the_program_does_not_wait_for(keeps):
    source = """
        import sys, time
        import arenite

        def work(n):
            time.sleep(0.2)
            print("line", n)

        ex = arenite.Executor(2, output="plain")
        for n in range(4):
            ex.submit(work, n)
        if sys.argv[1] == "keeps":
            ex.shutdown(wait=False)
        else:
            del ex
    """
    end = harness.script(source, "keeps" if keeps else "drops")
    assert sorted(end.ok().out.splitlines()) == [f"line {n}" for n in range(4)]


def test_a_forked_child_leaves_the_output_to_its_parent():
    source = """
        import gc, multiprocessing, os, sys
        import arenite

        def use(lock):
            with lock:
                os.write(1, b"x" * 10_000 + b"\\n")

        lock = multiprocessing.get_context("fork").Lock()
        forward = arenite.Settings(logging="forward")
        ex = arenite.Executor(1, output="plain", initializer=use, initargs=(lock,), settings=forward)
        ex.submit(print, "first", flush=True).result()
        child = os.fork()
        if child == 0:
            del ex
            gc.collect()
            sys.exit()
        os.waitpid(child, 0)
        # Its replacement connects again.
        ex.submit(os._exit, 1).exception()
        ex.submit(print, "second", flush=True).result()
        ex.shutdown()
    """
    # Whole, so it is not the engine that printed it.
    line = "x" * 10_000 + "\n"
    assert harness.script(source).ok().out == f"{line}first\n{line}second\n"


def test_a_worker_that_is_killed_before_its_pipes_are_read_leaves_none():
    receiver = output.Receiver()
    before = harness.descriptors()
    ends = [os.pipe() for _ in range(2)]
    with socket.socket(socket.AF_UNIX) as worker:
        worker.connect("\0" + receiver.address[0])
        worker.sendall(receiver.address[1])
        socket.send_fds(worker, [(0).to_bytes(4, "little")], [end for end, _ in ends])
    for end in itertools.chain(*ends):
        os.close(end)
    with harness.waiting("the receiver"):
        receiver.close()
    assert not set(harness.descriptors().values()) - set(before.values())


BARS = """
    import multiprocessing, os, sys, time
    import arenite
    from tqdm import tqdm
    from concurrent.futures import ProcessPoolExecutor

    turn = multiprocessing.Value("i", 0)

    def wait_for(number):
        while turn.value < number:
            time.sleep(0.001)

    def steps(n):
        # Each task writes in its turn, so that the order is the same for every pool.
        wait_for(n)
        looks = {"bar_format": "{desc} {bar} {n}/{total}", "ncols": 40, "ascii": True, "mininterval": 0}
        bar = tqdm(total=5, desc=f"task {n}", position=n, **looks)
        turn.value += 1
        for step in range(1, 6):
            wait_for(step * 3 + n)
            bar.update()
            turn.value += 1
        wait_for(18 + n)
        bar.close()
        if n == 2:
            print("x", end="", file=sys.stderr)
            print("y\\n", file=sys.stderr)
            for part in ("\\rcounting 1", "\\rcounting 2", " and", " more\\n", "\\n", "\\n\\n", "z\\n"):
                sys.stderr.write(part)
                sys.stderr.flush()
        turn.value += 1
        return n

    if __name__ == "__main__":
        fork = multiprocessing.get_context("fork")
        make = {
            "labelled": lambda: arenite.Executor(3),
            "plain": lambda: arenite.Executor(3, output="plain"),
            "stdlib": lambda: ProcessPoolExecutor(3, mp_context=fork),
        }[sys.argv[1]]
        with make() as ex:
            assert list(ex.map(steps, range(3))) == [0, 1, 2]
"""


def in_terminal(folder, which):
    """What a program with progress bars writes to its terminal."""
    program = folder / f"{which}.py"
    program.write_text(textwrap.dedent(BARS))
    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    with harness.subprocess.Popen([sys.executable, str(program), which], stderr=theirs) as process:
        os.close(theirs)
        written = b""
        # Linux reports an error when no process has the terminal.
        with contextlib.suppress(OSError), harness.waiting("a program with progress bars"):
            while more := os.read(ours, 1 << 16):
                written += more
    os.close(ours)
    assert process.returncode == 0, written
    return written.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("which", ["labelled", "plain"])
def test_progress_bars_in_a_terminal(tmp_path, which):
    """Bars are where the standard library has them, and other lines are as without bars."""
    pytest.importorskip("tqdm")
    ours, theirs = in_terminal(tmp_path, which), in_terminal(tmp_path, "stdlib")
    label = re.compile(r"^\(arenite:\d\) ", re.MULTILINE)
    assert ("(arenite:" in ours) == (which == "labelled")
    ours = label.sub("", ours)
    # Other lines may come later than bars.
    start = theirs.index("xy\n")
    assert ours.startswith(theirs[:start])
    assert sorted(ours.splitlines()) == sorted(theirs.splitlines())


def test_progress_bars_without_a_terminal():
    """Only their last state is printed."""
    pytest.importorskip("tqdm")
    end = harness.script(BARS, "labelled")
    assert (end.code, end.left) == (0, []), end
    lines = [re.sub(r"^\(arenite:\d\) ", "", line) for line in end.err.splitlines()]
    bars = [f"task {n} {'#' * 29} 5/5" for n in range(3)]
    assert sorted(lines) == sorted([*bars, "xy", "", "counting 2 and more", "", "", "", "z"])


CLOSED = """
    import os, sys
    import arenite

    def work(n):
        print("line", n)
        print("error", n, file=sys.stderr)

    name, how = sys.argv[1], sys.argv[2]
    read, write = os.pipe()
    os.close(read)
    if how == "pipe":
        os.dup2(write, getattr(sys, name).fileno())
    else:
        getattr(sys, name).close()
    with arenite.Executor(1, output=sys.argv[3]) as ex:
        for n in range(3):
            ex.submit(work, n).result()
    os._exit(7)
"""


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("how", ["pipe", "stream"])
def test_lines_that_nobody_reads_are_dropped(name, how):
    """The program goes on silently after `head` has its lines: the same in both modes, but for the label."""
    labelled, plain = (harness.script(CLOSED, name, how, output) for output in ("labelled", "plain"))
    prefixed = [re.sub("^(?=.)", "(arenite:0) ", text, flags=re.M) for text in (plain.out, plain.err)]
    assert (labelled.code, [labelled.out, labelled.err]) == (7, prefixed)
    assert (plain.out + plain.err).count("\n") == 3
