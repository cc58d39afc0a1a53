"""Tools that follow the processes of `multiprocessing`: a debugger, and the measurement of covered lines."""

from __future__ import annotations

import os
import sys

from .process import imported

#: In a copy of the program, its measurement goes on, but is not saved.
_COVERAGE = """\
from coverage import Coverage
if Coverage.current():
    Coverage.current().stop()
Coverage(config_file={file!r}, data_suffix=True, auto_data=True).start()
"""


def followers(interpreter: str) -> list[str]:
    """Returns the programs by which a worker joins the tools that follow the processes of this one.

    A worker runs them when its engine has begun: that closes all files first, and a template must not have the threads
    of a debugger."""
    found = []
    # pydevd is the debugger of debugpy and PyCharm. If it follows processes, it has replaced `os.fork`.
    debugger = imported("_pydev_bundle.pydev_monkey")
    if debugger is not None and debugger.get_global_debugger() is not None and os.fork.__module__ == debugger.__name__:
        # What it puts before the program of a process that Python starts.
        found.append(debugger.patch_args([interpreter, "-c", ""])[-1])
    coverage = imported("coverage")
    measures = coverage and coverage.Coverage.current()
    if measures and "multiprocessing" in (measures.get_option("run:concurrency") or ()):
        found.append(_COVERAGE.format(file=os.environ.get("COVERAGE_RCFILE", True)))
    return found


def join(programs: list[str]) -> None:
    """Runs the programs in a worker. A tool that has ended meanwhile does not keep the worker from its start."""
    for program in programs:
        try:
            exec(program, {})
        except (Exception, SystemExit) as error:
            print(f"arenite: a tool of the program does not follow this worker: {error!r}", file=sys.stderr)


def leave() -> None:
    """Leaves the debugger in a copy of the program, which has none of the debugger's threads: a breakpoint would wait
    for them."""
    debugger = sys.modules.get("pydevd")
    if debugger is not None:
        debugger.settrace_forked(setup_tracing=False)
        sys.settrace(None)
