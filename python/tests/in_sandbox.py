"""What runs in the sandboxed workers of `test_sandbox.py`: honest work, and attempts to get out."""

import collections
import ctypes
import io
import os
import pickle
import socket
import subprocess
import sys
import threading

import arenite
import numpy as np


def compute(values, seed):
    """A bit of everything that numpy does."""
    noise = np.random.default_rng(seed).normal(size=(60, 60))
    _, singular, _ = np.linalg.svd(noise)
    spectrum = np.fft.rfft(values)
    ordered = np.sort(noise.ravel())
    assert np.allclose(np.linalg.inv(noise) @ noise, np.eye(60))
    assert np.einsum("i,i->", values, values) >= 0 and np.ma.masked_less(values, 3).count() >= 0
    with np.errstate(all="ignore"):
        assert np.isnan(np.zeros(1) / 0).all()
    return float(values.sum()), float(singular[0]), float(ordered[0]), abs(spectrum[0])


def double(values):
    return values * 2


def double_in_arena(values):
    out = arenite.empty(values.shape, values.dtype)
    np.multiply(values, 2, out=out)
    return out


def broadcast(values, rows):
    return np.broadcast_to(values, (rows, len(values)))


def decode_with_pillow(data):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decode_with_cv2(data):
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def returned(value):
    return value


def list_in_itself():
    made = [1]
    made.append((made, 2))
    return made


def tuple_in_itself():
    made = ([],)
    made[0].append(made)
    return made


def dict_in_itself():
    made = {}
    made["own"] = [made]
    return made


def printed():
    print("hello from inside")
    print("and its errors", file=sys.stderr)


def environment():
    return dict(os.environ), sys.argv


def grow():
    kept = []
    while True:
        kept.append(np.ones(1 << 20))


def rest_of_the_sandbox():
    """What a sandbox leaves."""
    import base64
    import datetime
    import decimal
    import json
    import time
    import warnings

    warnings.warn("said in a sandbox", stacklevel=1)
    time.sleep(0.001)
    assert datetime.datetime.strptime("2024-02-29", "%Y-%m-%d").day == 29
    assert json.loads("[1]") == [1] and base64.b64decode("YQ==") == b"a" and decimal.Decimal(1) == 1
    assert "ä".encode("latin-1") == b"\xe4" and len(os.urandom(8)) == 8
    seen = []
    threads = [threading.Thread(target=seen.append, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(seen)


# ---- what Python refuses


def open_file(path):
    with open(path) as file:
        return file.read()


def write_file(path):
    with open(path, "w") as file:
        file.write("from a sandbox")


def open_socket():
    return socket.socket().fileno()


def resolve():
    return socket.getaddrinfo("localhost", 80)


def run_program():
    return subprocess.run(["true"], check=True).returncode


def execute():
    os.execv("/bin/true", ["true"])


def load_library():
    return bool(ctypes.CDLL("libm.so.6"))


def kill_parent():
    os.kill(os.getppid(), 9)


def import_module(name):
    return __import__(name).__name__


# ---- what Linux refuses


def call(name, *arguments):
    """A system call that raises no audit event."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(NUMBERS[name], *arguments), ctypes.get_errno()


#: For x86_64.
NUMBERS = {
    "read": 0, "open": 2, "mmap": 9, "mprotect": 10, "socket": 41, "fork": 57, "execve": 59, "ptrace": 101, "kill": 62,
    "memfd_create": 319, "bpf": 321, "pidfd_open": 434, "clone3": 435, "io_uring_setup": 425, "setrlimit": 160,
}  # fmt: skip


def write_to(array):
    """Writes to an array, as a C extension would that does not look at its flags."""
    ctypes.memset(array.__array_interface__["data"][0], 7, array.nbytes)


def sets_writeable(array):
    array.flags.writeable = True


# ---- what the program refuses


class Bomb:
    """Its pickle calls a function of the program."""

    def __init__(self, function, arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


Point = collections.namedtuple("Point", "x y")


def hostile_value(path):
    """Replies with a pickle that writes a file in the program."""
    from arenite._core import worker

    worker._dump_value = lambda value: (pickle.dumps(Bomb(exec, (f"open({path!r}, 'w').close()",)), 5), None, 0)


def hostile_error(path):
    from arenite._core import worker

    bomb = pickle.dumps(Bomb(exec, (f"open({path!r}, 'w').close()",)), 5)
    worker.dump_error = lambda error: ("hostile", bomb)
    raise ValueError


def raw_reply(data, copied=0):
    """Replies with these bytes, and says that it has copied more."""
    from arenite._core import worker

    before = worker._dump_value

    def once(value):
        worker._dump_value = before
        return data, None, copied

    worker._dump_value = once


def raise_error(error):
    raise error


# ---- tables


def taken_over(what):
    """From now on, this worker sends something else than the part of a table that it was asked for."""
    import io
    import struct

    import numpy
    import pyarrow
    from arenite.tables import part

    honest = part.__dict__.setdefault("honest", part.write)

    def stream(batch, **options):
        out = io.BytesIO()
        with pyarrow.ipc.new_stream(out, batch.schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as into:
            into.write_batch(batch)
        return numpy.frombuffer(out.getvalue(), "u1").copy()

    def compressed(schema, batches):
        return stream(pyarrow.record_batch({"": numpy.zeros(1 << 20)}), compression="zstd")

    def beyond(schema, batches):
        # The end of the text "abc", far outside of the array.
        data = stream(pyarrow.record_batch({"": ["abc"]}))
        at = bytes(data).rindex(struct.pack("<ii", 0, 3))
        data[at + 4 : at + 8] = numpy.frombuffer(struct.pack("<i", 1 << 30), "u1")
        return data

    part.write = {
        "compressed": compressed,
        "beyond": beyond,
        "no stream": lambda schema, batches: numpy.frombuffer(b"ARROW1", "u1"),
        "no part": lambda schema, batches: range(1 << 60),
        "a fault": lambda schema, batches: {"is_of_type": True, "text": "\x1b[2J\x9b\u202e", "row": 0},
        "no fault": lambda schema, batches: {"is_of_type": True, "row": "1"},
    }.get(what, honest)


# ---- one array many times


def one_array_often(total, nbytes):
    """From now on, each reply of this worker has one array of `nbytes` bytes so often that all have `total` bytes, and
    has a buffer for each time."""
    from arenite._core import worker

    def text(content):
        return b"X" + len(content).to_bytes(4, "little") + content.encode()

    def dump(value, arena, private=False):
        buffer, count = arena.alloc(nbytes), min(4000, max(1, total // nbytes))
        shape = b"J" + nbytes.to_bytes(4, "little") + b"\x85"
        array = text("arenite._core.plain") + text("_array") + b"\x93(\x97" + text("|u1") + shape + text("C") + b"tR"
        return b"\x80\x05(" + array * count + b"t.", [buffer] * count, 0

    worker._dump = dump
    return [total]
