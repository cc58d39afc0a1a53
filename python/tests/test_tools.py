"""Tools that follow the processes of a program: a debugger, pdb, and the measurement of covered lines. The oracle is
`ProcessPoolExecutor` with the same start method."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from harness import PATIENCE, until, waiting

METHODS = ("spawn", "forkserver", "fork")
#: A program whose executor the first argument names. The second line of `double` has the breakpoint.
PROGRAM = """\
import sys

def double(number):
    made = number * 2
    return made

def main():
    kind, method = sys.argv[1:]
    if kind == "arenite":
        import arenite

        pool = arenite.Executor(1, start=method, lanes=2 if method == "forkserver" else 1)
    else:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method))
    with pool:
        print([pool.submit(double, number).result() for number in range(2)], list(pool.map(double, [5])))

if __name__ == "__main__":
    main()
"""
LINE = PROGRAM.splitlines().index("    made = number * 2") + 1


class Debugger(threading.Thread):
    """A client of a debug adapter: sets the breakpoint, and goes on at each stop. Records the stops, and whether it
    was a further process that has stopped."""

    def __init__(self, port, arguments, path, stops):
        super().__init__(daemon=True)
        self.arguments, self.path, self.stops, self.sent = arguments, path, stops, 0
        self.port = port

    def connect(self):
        """Returns whether the adapter has begun, and connects."""
        with contextlib.suppress(ConnectionRefusedError):
            self.socket = socket.create_connection(("127.0.0.1", self.port))
            return True

    def send(self, command, **arguments):
        self.sent += 1
        text = json.dumps({"seq": self.sent, "type": "request", "command": command, "arguments": arguments}).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))

    def messages(self, file):
        while line := file.readline():
            file.readline()
            yield json.loads(file.read(int(line.split(b":")[1])))

    def run(self):
        until(self.connect, "a debug adapter")
        self.send("initialize", adapterID="test")
        self.send("attach", **self.arguments)
        children = []
        # The adapter resets the connection when the program has ended.
        with self.socket, self.socket.makefile("rb") as file, contextlib.suppress(ConnectionError):
            for message in self.messages(file):
                body = message.get("body")
                match message.get("event") or message.get("command"):
                    case "initialized":
                        self.send("setBreakpoints", source={"path": self.path}, breakpoints=[{"line": LINE}])
                        self.send("configurationDone")
                    case "debugpyAttach":
                        child = Debugger(body["connect"]["port"], body, self.path, self.stops)
                        child.start()
                        children.append(child)
                    case "terminated":
                        return
                    case "stopped":
                        thread = body["threadId"]
                        self.send("stackTrace", threadId=thread, levels=1)
                    case "stackTrace":
                        frame = body["stackFrames"][0]
                        self.stops.append((frame["name"], frame["line"], "connect" in self.arguments))
                        self.send("continue", threadId=thread)
        for child in children:
            child.join()


def debugged(path, kind, method, follows="true"):
    """Debugs the program. Returns what it printed, and the stops."""
    pytest.importorskip("debugpy")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-Xfrozen_modules=off", "-m", "debugpy", "--listen", str(port), "--wait-for-client"]
    command += ["--configure-subProcess", follows]
    stops = []
    # A file: the adapter, which outlives the program, would keep a pipe open.
    with open(f"{path}.out", "w+") as out, subprocess.Popen([*command, path, kind, method], stdout=out) as program:
        try:
            debugger = Debugger(port, {"justMyCode": True}, path, stops)
            debugger.start()
            with waiting("a program that is debugged"):
                program.wait()
                debugger.join()
        finally:
            program.kill()
        out.seek(0)
        return out.read(), stops


@pytest.mark.parametrize("method", METHODS)
def test_a_debugger_stops_in_tasks(tmp_path, method):
    path = str(tmp_path / "program.py")
    (tmp_path / "program.py").write_text(PROGRAM)
    expected = debugged(path, "standard", method)
    assert expected == ("[0, 2] [10]\n", [("double", LINE, True)] * 3)
    assert debugged(path, "arenite", method) == expected


def test_a_debugger_of_one_process_leaves_workers_alone(tmp_path):
    path = str(tmp_path / "program.py")
    (tmp_path / "program.py").write_text(PROGRAM)
    expected = debugged(path, "standard", "spawn", "false")
    assert debugged(path, "arenite", "spawn", "false") == expected == ("[0, 2] [10]\n", [])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("settings", ["concurrency = multiprocessing", "patch = subprocess"])
def test_covered_lines_are_measured(tmp_path, method, settings):
    pytest.importorskip("coverage")
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / ".coveragerc").write_text(f"[run]\n{settings}\nparallel = true\n")

    def measured(kind):
        """Whether the lines of `double` are covered."""
        for arguments in (["run", "program.py", kind, method], ["combine", "-q"], ["json", "-q"]):
            subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=tmp_path, check=True, timeout=PATIENCE)
        report = json.loads((tmp_path / "coverage.json").read_text())
        return {LINE, LINE + 1} <= set(report["files"]["program.py"]["executed_lines"])

    with waiting("programs whose lines are measured"):
        # `patch = subprocess` makes no difference to copies of the program and of the standard library's server.
        least = measured("standard")
        assert measured("arenite") or not least


@pytest.mark.parametrize("method", METHODS)
def test_pdb_finds_no_input(tmp_path, method):
    (tmp_path / "program.py").write_text(PROGRAM.replace("    made =", "    breakpoint()\n    made ="))

    def ran(kind):
        ran = subprocess.run(
            [sys.executable, "program.py", kind, method], cwd=tmp_path, input="continue\n", capture_output=True,
            text=True, timeout=PATIENCE, env={**os.environ, "PYTHONBREAKPOINT": ""},
        )  # fmt: skip
        return "(Pdb)" in ran.stdout, ran.stderr.splitlines()[-1]

    with waiting("programs that call breakpoint()"):
        assert ran("arenite") == ran("standard") == (True, "bdb.BdbQuit")
