"""`python -m arenite`: examines this machine, shows engines, and measures. What the command `arenite` does better is
left to it, if it is installed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from . import _machine

_COLUMNS = ("ENGINE", "PROCESS", "WORKERS", "RUNNING", "WAITING", "DONE", "FAILED", "ARENA MiB")


def _row(engine: dict[str, Any]) -> list[str]:
    waiting = sum(engine[name] for name in ("queued", "waiting", "limited", "ahead"))
    arena = f"{engine['arena']['used'] >> 20} of {engine['arena']['capacity'] >> 20}"
    numbers = [engine["pid"], engine["worker_count"], engine["running"], waiting, engine["done"], engine["failed"]]
    name = f"{engine['program']}: {engine['name']}"
    return ["".join(each if each.isprintable() else "?" for each in name), *map(str, numbers), arena]


def _top(is_json: bool) -> None:
    engines = _machine.engines()
    if is_json:
        print(json.dumps({"store": None, "objects": [], "clients": [], "engines": engines}))
        return
    rows = [list(_COLUMNS), *map(_row, engines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _doctor(is_json: bool) -> int:
    findings = _machine.findings()
    if is_json:
        print(json.dumps([dict(zip(("mark", "subject", "found"), finding, strict=True)) for finding in findings]))
    else:
        for mark, subject, found in findings:
            print(f"{mark} {subject:<9}{found}")
    return int(any(mark == "✘" for mark, _, _ in findings))


def main(arguments: list[str] | None = None) -> int:
    """Runs a tool. Returns the exit code."""
    path = _machine.command()
    parser = argparse.ArgumentParser(
        prog="python -m arenite",
        description="doctor examines this machine, top lists the engines of this user, bench measures this package "
        "beside other pools. doctor and top are those of the command `arenite`, if it is installed, and shorter ones "
        "without it.",
        epilog=f"The command `arenite`: {path or _machine.HOW_TO_INSTALL}",
    )
    parser.add_argument("tool", choices=("doctor", "top", "bench"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="those of the tool; --json without the command")
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(arguments)
    if options.tool == "bench":
        from .bench.__main__ import main as bench

        bench(options.arguments)  # type: ignore[no-untyped-call]
        return 0
    if path:
        os.execv(path, [path, options.tool, *options.arguments])
    if options.arguments not in ([], ["--json"]):
        need = f"these arguments of {options.tool} need the command `arenite`"
        parser.error(f"{need}, which is {_machine.HOW_TO_INSTALL}")
    if options.tool == "doctor":
        return _doctor(bool(options.arguments))
    _top(bool(options.arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
