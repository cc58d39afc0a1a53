#!/usr/bin/env python3
"""Packs a folder as Linux' first file system (cpio, format newc, compressed): `initramfs.py FOLDER FILE`."""

import gzip
import os
import stat
import sys
from typing import IO


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def write(out: IO[bytes], number: int, name: str, mode: int, data: bytes = b"", device: int = 0) -> None:
    path = name.encode() + b"\0"
    # Inode, mode, user, group, links, time, length, device (2), device of a special file (2), length of the name,
    # checksum.
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, os.major(device), os.minor(device), len(path), 0)
    out.write(pad(b"070701" + b"".join(b"%08x" % field for field in fields) + path) + pad(data))


def main() -> None:
    folder, file = sys.argv[1:]
    with gzip.open(file, "wb", compresslevel=1) as out:
        number = 0
        for parent, folders, files in os.walk(folder):
            for entry in sorted(folders + files):
                path = os.path.join(parent, entry)
                status = os.lstat(path)
                data = b""
                if stat.S_ISLNK(status.st_mode):
                    data = os.readlink(path).encode()
                elif stat.S_ISREG(status.st_mode):
                    with open(path, "rb") as source:
                        data = source.read()
                number += 1
                write(out, number, os.path.relpath(path, folder), status.st_mode, data)
        write(out, number + 1, "dev/console", stat.S_IFCHR | 0o600, device=os.makedev(5, 1))
        write(out, 0, "TRAILER!!!", 0)


if __name__ == "__main__":
    main()
