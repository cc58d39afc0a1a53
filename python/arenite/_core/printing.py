"""The worker's side of `output`: prints into pipes that the program reads, and progress bars to its terminal."""

from __future__ import annotations

import io
import os
import sys
from threading import local

from .. import _arenite

# A worker imports this before its first task: see `pickling`. Importing `socket` takes a third of a worker's start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any
else:
    import _socket as socket


def redirect(address: tuple[str, bytes]) -> None:
    """Redirects the output of this process to new pipes. If the program does not read them, the engine gets the
    output."""
    identity = _arenite.worker_identity()
    if identity is None:
        return
    (out_end, out), (error_end, error) = os.pipe(), os.pipe()
    try:
        is_read = _send(address, identity[0], (out_end, error_end))
    finally:
        os.close(out_end)
        os.close(error_end)
    if is_read:
        sys.stdout.flush()
        os.dup2(out, 1)
        sys.stderr = open(error, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    else:
        os.close(error)
    os.close(out)


def _send(address: tuple[str, bytes], number: int, ends: tuple[int, int]) -> bool:
    """Sends the read ends of the pipes. Returns whether the program reads them."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect("\0" + address[0])
        connection.sendall(address[1])
        files = b"".join(end.to_bytes(4, sys.byteorder) for end in ends)
        connection.sendmsg([number.to_bytes(4, "little")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        return bool(connection.recv(1))
    except OSError:
        # The executor is ending.
        return False
    finally:
        connection.close()


class _Bar(local):
    """The bar that a thread is writing."""

    #: Its text, and the number of lines below the cursor where it is.
    text: str | None = None
    below = 0
    #: Whether the last text was a part of a line.
    is_in_line = False


class _Errors(io.TextIOWrapper):
    """Error output without progress bars, such as tqdm's: they go to the terminal of the program, whole.

    A bar begins with a carriage return. One that is not on the line of the cursor comes in three parts: line feeds, the
    bar, and as many steps up. Without a terminal, only the last state of a bar that stays is printed, as a line.
    """

    _UP = "\x1b[A"

    def show_bars(self, terminal: str, replaced: io.TextIOWrapper) -> None:
        self._replaced = replaced
        self._bar = _Bar()
        self._terminal = None
        if terminal:
            try:
                self._terminal = os.open(terminal, os.O_WRONLY | os.O_NOCTTY)
            except OSError:
                pass  # It is of another user, or closed by now.

    def write(self, text: str, /) -> int:
        bar, count = self._bar, len(text)
        is_feed = bool(text) and not text.strip("\n")
        is_bar = text[:1] == "\r" and "\n" not in text
        if bar.below and text:
            if bar.text is None and is_bar:
                bar.text = text
                return count
            if bar.text is not None and text == self._UP * bar.below:
                self._show("\n" * bar.below + bar.text + text)
                bar.text, bar.below = None, 0
                return count
            self._settle()
        if is_bar:
            bar.text, bar.is_in_line = text, False
            self._show(text)
        elif bar.text is not None and (is_feed or text and bar.text.strip()):
            # It continues the line of the bar.
            line, feed, rest = text.partition("\n")
            self._show(line + feed)
            bar.text += line
            if feed:
                whole, bar.text = bar.text.strip("\r"), None
                if self._terminal is None and whole.strip():
                    super().write(whole.rstrip() + feed)
                self.write(rest)
        elif is_feed and not bar.is_in_line:
            bar.below = count
        elif text:
            bar.text, bar.is_in_line = None, text[-1] != "\n"
            super().write(text)
        return count

    def end_task(self) -> None:
        """Prints what is left of a task, and flushes."""
        self._settle()
        self.flush()

    def _settle(self) -> None:
        """Writes line feeds that were not those of a bar, and what has followed them."""
        bar = self._bar
        if bar.below:
            super().write("\n" * bar.below)
            bar.below = 0
            if bar.text is not None:
                self._show(bar.text)

    def _show(self, text: str) -> None:
        if self._terminal is not None:
            try:
                os.write(self._terminal, text.encode(errors="replace"))
            except OSError:
                pass  # The terminal is closed.


def show_bars(terminal: str) -> None:
    """Sends progress bars of this process to a terminal; "" if there is none."""
    old = sys.stderr
    if type(old) is not io.TextIOWrapper:
        return
    old.flush()
    # The old stream stays usable, and its descriptor open.
    pipe = open(old.fileno(), "wb", closefd=False)  # noqa: SIM115
    sys.stderr = made = _Errors(pipe, old.encoding, old.errors, line_buffering=True)
    made.show_bars(terminal, old)


class _Lines(io.TextIOBase):
    """Prints each line with a prefix."""

    def __init__(self, stream: Any, prefix: str) -> None:
        self._stream, self._prefix, self._line = stream, prefix, ""

    def write(self, text: str, /) -> int:
        *lines, self._line = (self._line + text).split("\n")
        self._stream.write("".join(f"{self._prefix}{line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        if self._line:
            self.write("\n")
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()  # type: ignore[no-any-return]


class prefixed:
    """A context in which each printed line has a prefix. With None, nothing is printed."""

    def __init__(self, prefix: str | None) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        self._streams = sys.stdout, sys.stderr
        if self._prefix is None:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        else:
            sys.stdout, sys.stderr = (_Lines(one, self._prefix) for one in self._streams)

    def __exit__(self, *_: object) -> None:
        for one in (sys.stdout, sys.stderr):
            one.flush()
        if self._prefix is None:
            sys.stdout.close()
        sys.stdout, sys.stderr = self._streams
