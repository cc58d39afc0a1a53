"""The right to serve a name, as `store/src/place.rs` has it for stores: `Claim`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat

from ._memory_files import OtherUser, dial, peer, socket_path
from .service import AlreadyRunning, ServiceError


class Claim:
    """The right to serve a name. A file lock protects it, which Linux releases whenever the process ends."""

    def __init__(self, name: str) -> None:
        if "/" not in name and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", name):
            known = "up to 64 letters, digits, '-', '_' and '.', or the path of a socket"
            raise ValueError(f"{name!r} is no name for a service; use {known}")
        self.path = socket_path(name)
        self._lock_path = f"{self.path}.lock"
        self._socket: int | None = None
        if "/" not in name:
            _make_folder(os.path.dirname(self.path))
        while True:
            flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
            self._lock = os.open(self._lock_path, flags, 0o600)
            try:
                held = os.fstat(self._lock)
                if not stat.S_ISREG(held.st_mode) or held.st_size:
                    raise ServiceError(f"{self._lock_path} exists and is no lock of a service")
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise self._taken(name) from None
                # A server removes its file before it releases the lock: this lock is valid only if the file still
                # exists.
                if _inode(self._lock_path) == held.st_ino:
                    self._remove_stale(name)
                    return
            except BaseException:
                os.close(self._lock)
                raise
            os.close(self._lock)

    def _remove_stale(self, name: str) -> None:
        """Removes the socket of a killed server."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ServiceError(f"{self.path} exists and is no socket of a service")
        try:
            dial(self.path).close()
        except (OSError, OtherUser):
            os.unlink(self.path)
        else:
            # Another program has removed the lock file.
            raise self._taken(name)

    def _taken(self, name: str) -> AlreadyRunning:
        process = ""
        with contextlib.suppress(OSError, OtherUser):
            with dial(self.path) as server:
                process = f" by process {peer(server)[0]}"
        return AlreadyRunning(f"the name {name} is served already{process}; end that program, or choose another name")

    def listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            listener.bind(self.path)
            listener.listen(socket.SOMAXCONN)
        except BaseException:
            listener.close()
            raise
        self._socket = _inode(self.path)
        return listener

    def release(self) -> None:
        # Removes the socket before the lock is released: no client finds a server after another process has claimed the
        # name. Removes the socket only if this server has created it.
        with contextlib.suppress(OSError):
            if self._socket is not None and _inode(self.path) == self._socket:
                os.unlink(self.path)
            if _inode(self._lock_path) == os.fstat(self._lock).st_ino:
                os.unlink(self._lock_path)
        self.forget()

    def forget(self) -> None:
        """Closes the lock's file. If a process that this one was forked from has the file open, it keeps the lock."""
        os.close(self._lock)


def _inode(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None


def _make_folder(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ServiceError(
            f"{path} is no folder of this user that others cannot enter (mode 0700); remove it, or set XDG_RUNTIME_DIR"
        )
