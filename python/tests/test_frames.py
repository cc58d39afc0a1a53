"""`arenite.loader.frames`: a Python program stands for ffmpeg and for a camera."""

import gc
import os
import shutil
import subprocess
import sys
import threading

import arenite
import arenite.loader as al
import harness
import numpy as np
import pytest

#: Writes frames whose bytes are their number; with a file, each only after the file has that number of bytes.
CAMERA = """
import os, sys, time
size, count, gate, tail = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
for number in range(count):
    while gate and os.stat(gate).st_size <= number:
        time.sleep(0.002)
    sys.stdout.buffer.write(bytes([number % 251]) * size)
    sys.stdout.buffer.flush()
if tail == "half":
    sys.stdout.buffer.write(bytes(size // 2))
if tail == "fail":
    sys.exit("the camera is gone")
"""


def camera(size, count, gate="", tail=""):
    return [sys.executable, "-c", CAMERA, str(size), str(count), str(gate), tail]


@pytest.fixture(scope="module")
def ex():
    with arenite.Executor(2, output=None) as executor:
        yield executor


def first(frame):
    return int(frame.min()), int(frame.max())


@pytest.mark.parametrize(
    ("pixel_format", "shape"),
    [("rgb24", (6, 4, 3)), ("rgba", (6, 4, 4)), ("gray", (6, 4)), ("nv12", (9, 4)), ("yuyv422", (6, 4, 2))],
)
def test_frames_arrive_in_order_and_without_a_copy(pixel_format, shape, ex):
    before = ex.stats().bytes_copied
    with al.frames(camera(np.prod(shape), 300), (4, 6), pixel_format, executor=ex) as frames:
        futures, stamps = [], []
        for frame in frames:
            assert frame.shape == shape and frame.dtype == np.uint8
            stamps.append(frames.stamp)
            futures.append(ex.submit(first, frame))
    assert [future.result() for future in futures] == [(n % 251, n % 251) for n in range(300)]
    assert [stamp.number for stamp in stamps] == list(range(300))
    assert all(one.time <= other.time for one, other in zip(stamps, stamps[1:], strict=False))
    assert ex.stats().bytes_copied == before


def test_every_third_frame(ex):
    frames = al.frames(camera(12, 10), (2, 2), every=3, executor=ex)
    assert [(int(frame[0, 0, 0]), frames.stamp.number) for frame in frames] == [(0, 0), (3, 3), (6, 6), (9, 9)]
    assert list(frames) == []


def test_reading_ahead_is_bounded(ex):
    """The child waits: what it has written beyond the frames that are read ahead is in the pipe."""
    before = ex.stats().used_bytes
    with al.frames(camera(1 << 20, 100), (1024, 1024), "gray", ahead=3, executor=ex) as frames:
        next(frames)
        harness.until(lambda: len(frames._reader._frames) == 3, "frames to be read ahead")
        assert ex.stats().used_bytes - before <= 6 << 20
    harness.until(lambda: gc.collect() is not None and ex.stats().used_bytes <= before, "the memory to be free")


def test_the_latest_frame(ex, tmp_path):
    gate = tmp_path / "gate"
    gate.write_bytes(b"")
    with al.frames(camera(12, 50, gate), (2, 2), drop="latest", executor=ex) as frames:

        def allow(count):
            gate.write_bytes(b"." * count)
            waiting = frames._reader._frames
            harness.until(lambda: list(waiting) and waiting[0][1].number == count - 1, f"frame {count - 1}")

        allow(7)
        assert int(next(frames)[0, 0, 0]) == 6
        allow(20)
        assert int(next(frames)[0, 0, 0]) == 19
        allow(50)
        assert [int(frame[0, 0, 0]) for frame in frames] == [49]


@pytest.mark.parametrize(("tail", "error", "text"), [
    ("half", ValueError, "within a frame of 12 bytes"), ("fail", subprocess.CalledProcessError, "exit status 1"),
])  # fmt: skip
def test_errors_come_after_the_last_frame(tail, error, text, ex):
    frames, seen = al.frames(camera(12, 3, tail=tail), (2, 2), executor=ex), []
    with pytest.raises(error, match=text) as caught:
        for frame in frames:
            seen.append(int(frame[0, 0, 0]))
    assert seen == [0, 1, 2]
    if tail == "fail":
        assert "the camera is gone" in caught.value.stderr
    frames.close()


def test_the_child_ends_with_the_iterator(ex, tmp_path):
    def left():
        return [thread for thread in threading.enumerate() if thread.name == "arenite-frames"]

    files = len(os.listdir("/proc/self/fd"))
    for way in ("close", "drop", "block"):
        frames = al.frames(camera(12, 1000, tmp_path / "never" if way == "drop" else ""), (2, 2), executor=ex)
        child = frames._reader._child
        if way == "close":
            next(frames)
            frames.close()
            assert list(frames) == []
        elif way == "block":
            with pytest.raises(KeyError), frames:
                next(frames)
                raise KeyError
        del frames
        gc.collect()
        assert child.returncode is not None and not left()
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_program_that_is_killed_leaves_no_child(tmp_path):
    source = f"""
    import os, signal, arenite.loader as al
    frames = al.frames({camera(1000, 10**9)!r}, (10, 100), "gray")
    next(frames)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    ran = harness.script(source, cwd=tmp_path)
    assert (ran.code, ran.left) == (-9, []), ran


def test_wrong_arguments(ex):
    for wrong in ({"pixel_format": "xyz"}, {"drop": "some"}, {"every": 0}, {"size": (0, 3)}):
        with pytest.raises(ValueError):
            al.frames(["true"], **{"size": (2, 2), **wrong})
    with pytest.raises(FileNotFoundError):
        al.frames(["/no/such/program"], (2, 2))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_ffmpeg(tmp_path, ex):
    path = tmp_path / "a.mkv"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *source, str(path)], check=True)
    assert [frame.shape for frame in al.frames(path, (32, 24), executor=ex)] == [(24, 32, 3)] * 20
