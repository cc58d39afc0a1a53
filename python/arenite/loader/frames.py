"""Frames of a video or a camera: a child process writes them, and a thread reads them straight into shared memory."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fcntl import fcntl
from typing import Any, Literal, NamedTuple
from weakref import finalize

import numpy

from .. import Executor

#: Shapes of a frame of this height and width, by the pixel formats of ffmpeg.
_SHAPES: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    **dict.fromkeys(("rgb24", "bgr24"), lambda height, width: (height, width, 3)),
    **dict.fromkeys(("rgba", "bgra", "argb", "abgr", "rgb0", "bgr0"), lambda height, width: (height, width, 4)),
    "gray": lambda height, width: (height, width),
    **dict.fromkeys(("yuv420p", "nv12"), lambda height, width: (height * 3 // 2, width)),
    "yuyv422": lambda height, width: (height, width, 2),
}
_SET_PIPE_SIZE, _PIPE_SIZE = 1031, 1 << 20
#: The seconds that the child may take to end after its output.
_LAST = 10


class Stamp(NamedTuple):
    """When a frame came: its number in the video, and the time of its last byte as `time.time()` gives it."""

    number: int
    time: float


class _Reader:
    """The child and the frames that were read. Does not refer to `Frames`, so that these can be dropped."""

    def __init__(self, command: Sequence[str], make: Callable[[], Any], every: int, most: int, is_latest: bool) -> None:
        self._command, self._make, self._every, self._most, self._is_latest = command, make, every, most, is_latest
        self._changed = threading.Condition()
        self._frames: deque[tuple[Any, Stamp]] = deque()
        self._is_ended = self._is_stopped = False
        self._error: BaseException | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the child
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
            )
        except BaseException:
            self._errors.close()
            raise
        assert self._child.stdout is not None
        with suppress(OSError):  # Beyond the limit of this user.
            fcntl(self._child.stdout, _SET_PIPE_SIZE, _PIPE_SIZE)
        self._thread = threading.Thread(target=self._run, name="arenite-frames", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def _read(self) -> None:
        number, unused = 0, None
        while not self._is_stopped:
            array = self._make() if unused is None else unused
            unused = None
            if not self._fill(memoryview(array.reshape(-1))):
                return
            if number % self._every:
                unused = array
            else:
                self._put(array, Stamp(number, time.time()))
            del array
            number += 1

    def _fill(self, left: memoryview) -> bool:
        """Reads a frame. Returns False at the end."""
        size = len(left)
        while left:
            count = self._child.stdout.readinto(left)  # type: ignore[union-attr]
            if not count:
                break
            left = left[count:]
        if not left or self._is_stopped:
            return not left
        if (code := self._child.wait(_LAST)) != 0:
            self._errors.seek(0)
            text = self._errors.read().decode(errors="replace")
            raise subprocess.CalledProcessError(code, list(self._command), stderr=text)
        if len(left) < size:
            raise ValueError(f"the video ends within a frame of {size} bytes: it has another size or pixel format")
        return False

    def _put(self, array: Any, stamp: Stamp) -> None:
        with self._changed:
            if self._is_latest:
                self._frames.clear()
            self._changed.wait_for(lambda: len(self._frames) < self._most or self._is_stopped)
            self._frames.append((array, stamp))
            self._changed.notify_all()

    def take(self) -> tuple[Any, Stamp] | None:
        """Waits for the next frame. Returns None after the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._is_ended)
            if not self._frames:
                if self._error is not None:
                    raise self._error
                return None
            found = self._frames.popleft()
            self._changed.notify_all()
            return found

    def stop(self) -> None:
        """Ends the child and the thread."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        if self._child.returncode is None:
            self._child.kill()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._child.wait()
        self._frames.clear()
        self._child.stdout.close()  # type: ignore[union-attr]
        self._errors.close()


class Frames(Iterator[Any]):
    """The frames of a child process: what `frames` returns."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self._close = finalize(self, reader.stop)
        #: The number and the time of the frame that was returned last.
        self.stamp: Stamp | None = None

    def __next__(self) -> Any:
        found = self._reader.take() if self._close.alive else None
        if found is None:
            self.close()
            raise StopIteration
        frame, self.stamp = found
        return frame

    def close(self) -> None:
        """Ends the child. Frames remain valid."""
        self._close()

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def frames(
    source: str | os.PathLike[str] | Sequence[str],
    size: tuple[int, int],
    pixel_format: str = "rgb24",
    every: int = 1,
    drop: Literal["never", "latest"] = "never",
    *,
    ahead: int = 4,
    executor: Executor | None = None,
) -> Frames:
    """Returns an iterator over the frames of a video or a camera, as arrays in shared memory.

    Tasks of the executor get a frame without a copy. Its memory is free when its last view is gone, and all tasks with
    it have ended.

    >>> import arenite, sys
    >>> import arenite.loader as al
    >>> camera = [sys.executable, "-c", "import sys; [sys.stdout.buffer.write(bytes([n] * 12)) for n in range(4)]"]
    >>> with arenite.Executor(2) as ex, al.frames(camera, (2, 2), every=2, executor=ex) as frames:
    ...     found = [(frames.stamp.number, ex.submit(lambda frame: int(frame.sum()), frame)) for frame in frames]
    ...     [(number, total.result()) for number, total in found]
    [(0, 0), (2, 24)]

    :param source: A file or an address, which ffmpeg reads and scales to `size`; or a command that writes raw frames of
        this size.
    :param size: Width and height.
    :param pixel_format: The format of pixels, as ffmpeg calls it: "rgb24", "gray", "nv12" and others.
    :param every: Takes each n-th frame only.
    :param drop: "never" lets the child wait while `ahead` frames wait here; "latest" gives the latest frame and drops
        those before, for a live source.
    :param ahead: The number of frames that are read ahead.
    :param executor: The executor whose tasks take frames. Without it, frames are ordinary arrays.

    The child is ended with the iterator. Raises `subprocess.CalledProcessError` after the last frame if it has failed.
    """
    width, height = size
    if pixel_format not in _SHAPES:
        raise ValueError(f"pixel_format must be one of {sorted(_SHAPES)}, not {pixel_format!r}")
    if drop not in ("never", "latest"):
        raise ValueError(f'drop must be "never" or "latest", not {drop!r}')
    if min(width, height, every, ahead) < 1:
        raise ValueError("size, every and ahead must be at least 1")
    shape = _SHAPES[pixel_format](height, width)
    if isinstance(source, str | os.PathLike):
        source = [
            *("ffmpeg", "-nostdin", "-loglevel", "error", "-i", os.fspath(source), "-f", "rawvideo"),
            *("-pix_fmt", pixel_format, "-s", f"{width}x{height}", "-"),
        ]

    def make() -> Any:
        return numpy.empty(shape, numpy.uint8) if executor is None else executor.empty(shape, numpy.uint8)

    return Frames(_Reader(source, make, every, 1 if drop == "latest" else ahead, drop == "latest"))
