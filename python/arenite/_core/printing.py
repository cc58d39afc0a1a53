"""The worker's side of `output`: prints into pipes that the program reads."""

from __future__ import annotations

import os
import sys

from .. import _arenite

# A worker imports this before its first task: see `pickling`. Importing `socket` takes a third of a worker's start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
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
