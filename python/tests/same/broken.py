"""Programs: what ends a worker × how the program comes to know.

Exceptions differ in type and text, but a program that catches those of one pool has to catch those of the others.
"""

import asyncio
import concurrent.futures
import os
import signal
import sys
from concurrent.futures.process import BrokenProcessPool

import backends


def fail():
    raise ValueError("no licence")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


#: What an initializer does, and whether a task dies of it.
ENDS = {"raises": (fail, False), "exits": (sys.exit, False), "dies": (os._exit, True), "is killed": (kill, True)}
ARGUMENTS = {sys.exit: ("no licence",), os._exit: (3,)}


def end(name):
    call, _ = ENDS[name]
    call(*ARGUMENTS.get(call, ()))


async def awaited(ex, call, *arguments):
    return await asyncio.get_running_loop().run_in_executor(ex, call, *arguments)


def waited(ex, call, *arguments):
    done, _ = concurrent.futures.wait([ex.submit(call, *arguments)])
    raise done.pop().exception()


#: What a program does with a task that gives nothing.
WAYS = {
    "result": lambda ex, *task: ex.submit(*task).result(),
    "exception": waited,
    "map": lambda ex, call, *items: list(ex.map(call, items or (1, 2))),
    "chunks": lambda ex, call, *items: list(ex.map(call, items or (1, 2), chunksize=2)),
    "await": lambda ex, *task: asyncio.run(awaited(ex, *task)),
}
#: What no longer gives anything, where no worker starts.
LATER = {
    "submit": lambda ex: ex.submit(abs, 1),
    "map": lambda ex: ex.map(abs, [1]),
    "chunks": lambda ex: ex.map(abs, [1, 2], chunksize=2),
}


def caught(run, *arguments):
    try:
        return run(*arguments)
    except BrokenProcessPool:
        return "caught"


def names():
    """The programs, by the backends that they run on besides arenite."""
    for name, (_, is_death) in ENDS.items():
        for way in WAYS:
            yield f"initializer {name}: {way}", ["fork", "spawn"]
            if is_death:
                yield f"task {name}: {way}", ["fork", "spawn", "loky"]


def programs(which):
    for program, others in backends.drawn(names()):
        if which != "arenite" and which not in others:
            continue
        what, way = program.split(": ")
        who, name = what.split(" ", 1)
        options = {"initializer": end, "initargs": (name,)} if who == "initializer" else {}
        with backends.executor(which, **options) as ex:
            if who == "task":
                yield program, backends.outcome(lambda: caught(WAYS[way], ex, end, name))
            else:
                found = [backends.outcome(lambda: caught(WAYS[way], ex, abs))]
                found += [backends.outcome(lambda: caught(run, ex)) for run in LATER.values()]
                yield program, found


if __name__ == "__main__":
    backends.main(programs)
