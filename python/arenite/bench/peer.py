"""The peer: another program that has an array in several forms and serves a function, for measurements.

The peer ends when its standard input ends, so also when the program that started it is killed. It then ends the servers
and removes the files that it has made.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid

from .. import _machine
from . import child, work

SHM = "/dev/shm"
#: The seconds for the start of a server, and for the end of the peer.
PATIENCE = 60
#: The first and the last element of the array. All other elements are 1.
FIRST, LAST = 3.0, 5.0
KEY = b"x"


class Peer:
    """The peer, in the program that measures. `places`: where each of `holders` is, by name."""

    def __init__(self, *holders, elements=0):
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "arenite.bench.peer", str(elements), *holders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, child.MARK: self.mark},
            # Ctrl-C goes to the program that measures, which then ends the peer.
            start_new_session=True,
        )
        try:
            answer = self.process.stdout.readline()
            if not answer:
                raise OSError("the program that holds the array did not start")
            self.places = json.loads(answer)
        except BaseException:
            self.close()
            raise

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            self.process.stdout.close()
            # Removes what a killed peer has left.
            child.kill_marked(self.mark)
            for folder in (tempfile.gettempdir(), SHM):
                shutil.rmtree(f"{folder}/{name_of(self.mark)}", ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{SHM}/{name_of(self.mark)}-x")


def name_of(mark):
    """Returns the prefix of the names that the peer uses in shared folders."""
    return f"arenite-bench-{mark}"


# ---- in the peer


def main():
    elements, holders = int(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(made_folder(tempfile.gettempdir()))
        places = {name: stack.enter_context(HOLDERS[name](folder, elements)) for name in holders}
        print(json.dumps(places), flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def made_folder(parent):
    path = f"{parent}/{name_of(os.environ[child.MARK])}"
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def fill(array):
    array[:] = 1
    array[0], array[-1] = FIRST, LAST


@contextlib.contextmanager
def server(command, folder, is_ready):
    """Runs a server. Yields after the server has printed a line for which `is_ready` is true."""
    with (
        tempfile.TemporaryFile(dir=folder) as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd=folder
        ) as process,
    ):
        too_late = threading.Timer(PATIENCE, process.kill)
        too_late.start()
        try:
            # The output also ends when the server is killed.
            if not any(is_ready(line) for line in process.stdout):
                errors.seek(0)
                raise OSError(f"{command[0]} did not start: {errors.read().decode(errors='replace')}")
            too_late.cancel()
            # A full pipe would stop the server.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield
        finally:
            too_late.cancel()
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


@contextlib.contextmanager
def hold_store(folder, elements):
    """Puts the array into a store with room for two such arrays."""
    import arenite

    path = f"{folder}/store.sock"
    capacity = str(8 * elements + (64 << 20))
    command = [_machine.command(), "serve", "--json", "--name", path, "--capacity", capacity]
    with server(command, folder, lambda line: b'"pid"' in line):
        store = arenite.connect(path)
        draft = store.draft(elements, "f4")
        fill(draft.array)
        draft.publish("x")
        yield path
        store.close()


@contextlib.contextmanager
def hold_shared_memory(folder, elements):
    from multiprocessing.shared_memory import SharedMemory

    import numpy

    memory = SharedMemory(f"{name_of(os.environ[child.MARK])}-x", create=True, size=4 * elements)
    try:
        fill(numpy.ndarray(elements, "f4", memory.buf))
        yield memory.name
    finally:
        memory.close()
        memory.unlink()


@contextlib.contextmanager
def hold_pyarrow(folder, elements):
    import numpy
    import pyarrow

    array = numpy.empty(elements, "f4")
    fill(array)
    with made_folder(SHM) as in_memory:
        path = f"{in_memory}/x.tensor"
        with pyarrow.OSFile(path, "wb") as file:
            pyarrow.ipc.write_tensor(pyarrow.Tensor.from_numpy(array), file)
        del array
        yield path


@contextlib.contextmanager
def hold_redis(folder, elements):
    import numpy

    path = f"{folder}/redis.sock"
    options = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--daemonize", "no"]
    array = numpy.empty(elements, "f4")
    fill(array)
    with server(["redis-server", *options], folder, lambda line: b"ready to accept" in line.lower()):
        with Redis(path) as redis:
            redis.set(array)
        del array
        yield path


class Redis:
    """A client of the two measured commands. It receives into the memory of the array."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def set(self, array):
        content = memoryview(array).cast("B")
        self.socket.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(KEY), KEY, len(content)))
        self.socket.sendall(content)
        self.socket.sendall(b"\r\n")
        if (answer := self.socket.recv(100)) != b"+OK\r\n":
            raise OSError(f"Redis: {answer!r}")

    def get(self):
        import numpy

        self.socket.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(KEY), KEY))
        head, _, begin = self.socket.recv(100).partition(b"\r\n")
        if not head.startswith(b"$"):
            raise OSError(f"Redis: {head!r}")
        # Includes the line break after the content.
        content = numpy.empty(int(head[1:]) + 2, "u1")
        rest = memoryview(content)
        rest[: len(begin)] = begin
        rest = rest[len(begin) :]
        while rest:
            if not (count := self.socket.recv_into(rest, 0, socket.MSG_WAITALL)):
                raise OSError("Redis closed the connection")
            rest = rest[count:]
        return numpy.frombuffer(content, "f4", (len(content) - 2) // 4)


@contextlib.contextmanager
def serve(folder, elements):
    import arenite

    path = f"{folder}/service.sock"
    with arenite.Executor(1) as executor, executor.serve(path, {"add": work.add}):
        executor.submit(work.noop).result()
        yield path


@contextlib.contextmanager
def echo(folder, elements):
    """Sends back everything that a client sends."""
    path = f"{folder}/echo.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def run():
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    threading.Thread(target=run, daemon=True).start()
    yield path
    listener.close()


HOLDERS = {
    "store": hold_store,
    "shared_memory": hold_shared_memory,
    "pyarrow": hold_pyarrow,
    "Redis": hold_redis,
    "service": serve,
    "echo": echo,
}

if __name__ == "__main__":
    main()
