"""What `python -m arenite` shows: the command, this machine, and the engines of this user."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import struct
import sys
import sysconfig
import time
from importlib.util import find_spec
from typing import Any

#: How many seconds all engines together may take to answer: a stopped program does not.
_PATIENCE = 0.5
#: The flag of a listening socket in `/proc/net/unix`.
_LISTENING = 0x10000
#: The version of the answers that are read here.
_VERSION = 1
_OLDEST = (5, 10)
_LEAST_ROOM = 64 << 20
HOW_TO_INSTALL = "not found; pip install arenite-cli (not published yet; in a clone: cargo install --path bin)"


def command() -> str | None:
    """Returns the path of the command `arenite`: that of ARENITE_COMMAND, on PATH, or beside this interpreter."""
    named = os.environ.get("ARENITE_COMMAND") or "arenite"
    return shutil.which(named) or shutil.which(named, path=sysconfig.get_path("scripts"))


def engines() -> list[dict[str, Any]]:
    """Returns the state of the engines of this user's programs, as `arenite top --json` prints them. The protocol is
    that of `arenite top`: a connection is the request, and the answer a line of JSON."""
    prefix = f"@arenite-engine-{os.geteuid()}-"
    with open("/proc/net/unix") as file:
        sockets = [line.split() for line in file.readlines()[1:]]
    sockets = [fields for fields in sockets if len(fields) > 7 and int(fields[3], 16) & _LISTENING]
    names = [fields[7] for fields in sockets if fields[7].startswith(prefix)]
    until = time.monotonic() + _PATIENCE
    answers = (_ask(name[1:], until) for name in names)
    return sorted((found for found in answers if found), key=lambda engine: (engine["pid"], -engine["elapsed"]))


def _ask(name: str, until: float) -> dict[str, Any] | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(until - time.monotonic(), 0.001))
        try:
            connection.connect(b"\0" + name.encode())
            size = struct.calcsize("3i")
            pid, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            if user != os.geteuid():
                return None
            line = connection.makefile("rb").readline(1 << 20)
        except OSError:
            return None
    try:
        engine: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    if engine.get("version") != _VERSION:
        return None
    return {**engine, "pid": pid or engine["pid"], "program": _program(pid)}


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    except OSError:
        return ""
    program = os.path.basename(words[0])
    if not program.startswith("python"):
        return program
    for flag, word in zip(words, words[1:], strict=False):
        if not word.startswith("-"):
            # Short options may be joined: `-um module`.
            last = flag[-1] if flag.startswith("-") else ""
            return {"m": f"-m {word}", "c": f"{program} -c"}.get(last) or os.path.basename(word)
    return program


def findings() -> list[tuple[str, str, str]]:
    """Examines this machine, as far as programs in Python are concerned. Returns marks (`✔`, `!` or `✘`), subjects and
    sentences."""
    found = [("✔", "python", f"Python {platform.python_version()}, {sys.executable}")]
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit())
    is_linux = sys.platform == "linux" and release >= _OLDEST
    found.append(("✔" if is_linux else "✘", "system", f"{platform.system()} {platform.release()}; 5.10 is needed"))
    try:
        from . import _arenite

        found.append(("✔", "arenite", f"{_arenite.__version__}, {os.path.dirname(__file__)}"))
    except ImportError as error:
        return [*found, ("✘", "arenite", str(error))]
    for name, needed in (("numpy", "arrays"), ("pyarrow", "tables")):
        if find_spec(name):
            found.append(("✔", name, "installed"))
        else:
            found.append(("!", name, f"not installed; {needed} need it: pip install {name}"))
    with open("/proc/meminfo") as file:
        memory = {line.split(":")[0]: int(line.split()[1]) << 10 for line in file}
    free = memory.get("MemAvailable", 0)
    found.append(("✔" if free >= _LEAST_ROOM else "✘", "memory", f"{free >> 20} MiB available"))
    found.append(_trial("trial", "a worker ran a task"))
    found.append(_trial("sandbox", "a sandboxed worker ran a task", sandbox="strict"))
    path = command()
    found.append(("✔" if path else "!", "command", path or HOW_TO_INSTALL))
    return found


def _trial(subject: str, words: str, **options: Any) -> tuple[str, str, str]:
    from . import Executor

    begin = time.perf_counter()
    try:
        with Executor(1, **options) as executor:
            executor.submit(abs, -1).result(timeout=60)
    except Exception as error:
        return "✘", subject, f"not so: {error}"
    return "✔", subject, f"{words}: {(time.perf_counter() - begin) * 1e3:.0f} ms"
