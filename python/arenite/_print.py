"""A worker's side of `_output`: prints into pipes of its own, whose other ends the program gets."""

from __future__ import annotations

import os
import sys

from . import _arenite

# A worker imports this before its first task: see `_pickle`. The module `socket` takes a third of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket


def redirect(address: tuple[str, bytes]) -> None:
    """Has this process print into pipes of its own. Without a program that takes them, the engine has the output."""
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
    """Sends the ends of the pipes that are to be read. Returns whether the program reads them."""
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
